// Corkboard's one script. Every page works without it; it reads data attributes and makes some things quicker.
//   data-swap="#id"      a form (or its button) posts in the background and renews this region
//   data-along           is renewed along with whatever region is
//   data-draft           unsent words of this form are kept in this tab, and leaving with them asks first
//   data-autosave="/…"   what is typed is kept on the site as a draft, some seconds after each change
//   data-editor="/…"     a toolbar, and a preview from there             data-audience="id"  who will see it
//   data-key="e"         a key that opens or presses this
//   data-filter="#id"    a search field that filters while typing       data-confirm="…"    asks before it happens
//   data-live="#id"      the search in the header shows what it finds here while typing
//   data-upload="25"     files chosen, dropped or pasted in this form (of so many MB at most) are uploaded at once
//   data-poll="/…"       the bell: where to ask what is unread
//   data-mentions="id"   an @ in this form offers people, first those who see that topic (or the one chosen in the form)
//   data-names="id"      a time to come names that button otherwise; data-clock is the time it is where the person is
//   data-chooses="#id"   what is ticked in here ticks that, too
//   data-react           a link that opens the reactions to choose from
//   data-same-as="id"    must repeat another field                      data-reveal="id"    shows a password
(() => {
  "use strict";
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const on = (type, act, capture = false) => document.addEventListener(type, act, capture);
  const token = () => $('meta[name="csrf-token"]').content;
  const counted = (n, one, many) => `${n} ${n === 1 ? one : many}`;
  document.documentElement.classList.add("js");

  function announce(words) {
    const place = $("#announce");
    place.textContent = "";
    setTimeout(() => { place.textContent = words; }, 50);
  }

  // == Messages ==
  function showMessages(nodes) {
    const place = $("#flashes");
    place.replaceChildren(...nodes);
    place.classList.toggle("is-floating", nodes.length > 0);
    for (const message of nodes) {
      const close = document.createElement("button");
      close.className = "tool";
      close.type = "button";
      close.setAttribute("aria-label", "Close this message");
      close.innerHTML = '<i class="bi bi-x-lg" aria-hidden="true"></i>';
      close.addEventListener("click", () => { message.remove(); });
      message.append(close);
    }
  }

  function complain(words) {
    const message = document.createElement("div");
    message.className = "flash flash-danger";
    message.innerHTML = '<i class="bi bi-exclamation-triangle" aria-hidden="true"></i><p></p>';
    $("p", message).textContent = words;
    showMessages([message]);
  }

  // == Drafts: what is typed and not yet sent, kept in this tab for this person ==
  const owner = `draft:${document.body.dataset.person}:`;
  const draftKey = (form) => owner + form.getAttribute("action");
  const textsOf = (form) => $$("input[type=text], textarea, [name=version]", form).filter((field) => field.name);
  const isDirty = (form) => textsOf(form).some((field) => field.type !== "hidden" && field.value.trim() !== field.defaultValue.trim());
  let sending = false;

  function keepDraft(form, sent = false) {
    if (!sent && !isDirty(form)) return sessionStorage.removeItem(draftKey(form));
    const fields = Object.fromEntries(textsOf(form).map((field) => [field.name, field.value]));
    sessionStorage.setItem(draftKey(form), JSON.stringify({ fields, sent, path: location.pathname }));
  }

  // Another page after a sent form means success, and so does the same one with good news; the sign-in page the contrary.
  function forgetSent() {
    const praised = $("#flashes .flash-success") !== null;
    for (const key of Object.keys(sessionStorage).filter((name) => name.startsWith("draft:"))) {
      const draft = JSON.parse(sessionStorage.getItem(key));
      if (!document.body.dataset.person) sessionStorage.setItem(key, JSON.stringify({ ...draft, sent: false }));
      else if (!key.startsWith(owner) || (draft.sent && (praised || draft.path !== location.pathname))) sessionStorage.removeItem(key);
    }
  }

  function restoreDraft(form) {
    const draft = JSON.parse(sessionStorage.getItem(draftKey(form)) || "null");
    if (!draft || $("[aria-invalid=true]", form)) return;
    const fields = textsOf(form).filter((field) => field.name in draft.fields);
    if (!fields.some((field) => field.type !== "hidden" && field.value !== draft.fields[field.name])) return;
    const before = fields.map((field) => field.value);
    fields.forEach((field) => { field.value = draft.fields[field.name]; });
    const notice = document.createElement("div");
    notice.className = "callout draft-notice";
    notice.innerHTML = '<p>What you had typed here is back. <button class="link" type="button">Start afresh</button></p>';
    $("button", notice).addEventListener("click", () => {
      fields.forEach((field, i) => { field.value = before[i]; });
      sessionStorage.removeItem(draftKey(form));
      notice.remove();
      fields.find((field) => field.type !== "hidden").focus();
    });
    form.before(notice);
    announce("What you had typed here is back.");
  }

  on("input", (event) => {
    const form = event.target.form;
    if (form && "draft" in form.dataset) keepDraft(form);
  });
  on("change", (event) => { // whoever is chosen by name or role is meant: then not everybody is
    const [form, decides] = [event.target.form, event.target.closest("[data-chooses]")?.dataset.chooses];
    if (decides && event.target.checked) $(decides, form).checked = true;
  });
  addEventListener("beforeunload", (event) => {
    if (!sending && $$("[data-draft]").some(isDirty)) event.preventDefault();
  });

  // == Drafts on the site: kept by themselves some seconds after a change, so that they survive a closed browser ==
  const AUTOSAVE_AFTER = 4000;
  let autosaving; // the timer; one form at a time is written in
  let underway = false;

  function scheduleAutosave(form, after = AUTOSAVE_AFTER) {
    clearTimeout(autosaving);
    autosaving = setTimeout(() => autosave(form), after);
  }

  async function autosave(form) {
    if (sending || !isDirty(form)) return;
    if (underway) return scheduleAutosave(form);
    underway = true;
    const sent = textsOf(form).map((field) => [field, field.value]);
    try {
      const answer = await fetch(form.dataset.autosave, {
        method: "POST", body: new URLSearchParams(new FormData(form)), headers: { "X-Requested-With": "fetch" },
      });
      if (answer.status === 409) return tellAutosaved("This draft was changed in another window. What you type here is kept in this tab only.");
      if (answer.status === 429) return autosaveLater(form, Number(answer.headers.get("Retry-After")));
      if (answer.ok && !answer.redirected) nowIsDraft(form, await answer.json(), sent);
      else if (answer.status !== 422) tellAutosaved("Not saved just now. What you type is kept in this tab.");
    } catch {
      tellAutosaved("Not saved just now. What you type is kept in this tab.");
    } finally {
      underway = false;
    }
  }

  function autosaveLater(form, seconds) {
    tellAutosaved("Not saved just now, but tried again soon. What you type is kept in this tab.");
    scheduleAutosave(form, Math.max(AUTOSAVE_AFTER, (seconds || 30) * 1000));
  }

  function nowIsDraft(form, { id, version }, sent) {
    if (sending) return;
    sessionStorage.removeItem(draftKey(form));
    for (const [field, value] of sent) if (field.type !== "hidden") field.defaultValue = value;
    $("[name=version]", form).value = version;
    form.setAttribute("action", `/posts/${id}/edit`);
    form.dataset.autosave = `/posts/${id}/autosave`;
    form.dataset.editor = `/posts/preview?post=${id}`;
    if (location.pathname !== form.getAttribute("action")) history.replaceState(null, "", `/posts/${id}/edit`);
    tellAutosaved(`Saved ${new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`);
    if (isDirty(form)) { keepDraft(form); scheduleAutosave(form); }
  }

  function tellAutosaved(words) {
    const place = $("#autosaved");
    if (place && place.textContent !== words) place.textContent = words;
  }

  on("input", (event) => {
    const form = event.target.form;
    if (form && "autosave" in form.dataset) scheduleAutosave(form);
  });

  // == Sending forms: asking first, never twice, in the background where a region can be renewed ==
  async function ask(words) {
    const dialog = $("#question");
    $("#question-text").textContent = words;
    dialog.returnValue = "no";
    dialog.showModal();
    await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
    return dialog.returnValue === "yes";
  }

  on("submit", async (event) => {
    const form = event.target;
    const button = event.submitter;
    if (event.defaultPrevented || form.method === "dialog" || form.method === "get") return;
    const question = button?.dataset.confirm || form.dataset.confirm;
    if (question && !form.dataset.agreed) {
      event.preventDefault();
      if (!(await ask(question))) return;
      form.dataset.agreed = "yes";
      form.requestSubmit(button);
      delete form.dataset.agreed;
      return;
    }
    if (form.dataset.busy) return event.preventDefault();
    const target = button?.dataset.swap || form.dataset.swap;
    const region = target && $(target);
    if (region) {
      event.preventDefault();
      return send(form, button, region);
    }
    if ("draft" in form.dataset) keepDraft(form, true);
    if (form.getAttribute("action") === "/logout" && button?.getAttribute("formaction") === "/logout") sessionStorage.clear();
    sending = true;
    form.dataset.busy = "yes";
    button?.setAttribute("aria-busy", "true");
  });
  addEventListener("pageshow", () => { // also when the page comes back from the browser's history
    sending = false;
    $$("[data-busy]").forEach((form) => { delete form.dataset.busy; });
    $$("[aria-busy]").forEach((button) => { button.removeAttribute("aria-busy"); });
  });

  async function send(form, button, region) {
    form.dataset.busy = "yes";
    button?.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(button?.getAttribute("formaction") || form.action, {
        method: "POST", body: new URLSearchParams(new FormData(form, button)), headers: { "X-Requested-With": "fetch" },
      });
      if (answer.status === 401) return submitForReal(form, button);
      renew(region, new DOMParser().parseFromString(await answer.text(), "text/html"), answer, form);
    } catch {
      complain("The site did not answer. What you wrote is still here; try again in a moment.");
    } finally {
      delete form.dataset.busy;
      button?.removeAttribute("aria-busy");
    }
  }

  function submitForReal(form, button) {
    sending = true;
    if ("draft" in form.dataset) keepDraft(form, true);
    if (button?.hasAttribute("formaction")) form.action = button.getAttribute("formaction");
    form.submit();
  }

  function renew(region, page, answer, form) {
    const fresh = page.getElementById(region.id);
    if (!fresh || !(answer.ok || answer.status === 422)) {
      return complain($("main h1", page)?.textContent.trim() || "That did not work. What you wrote is still here; try again in a moment.");
    }
    const known = new Set($$("[id]", region).map((node) => node.id));
    if (answer.ok && "draft" in form.dataset) sessionStorage.removeItem(draftKey(form));
    region.replaceWith(fresh);
    for (const other of $$("[data-along]")) other.replaceWith(page.getElementById(other.id) || other);
    const address = new URL(answer.url).pathname; // the page may have been shown under another one, after signing in again
    if (answer.redirected && address !== location.pathname + location.search) history.replaceState(null, "", address);
    showMessages($$("#flashes .flash", page));
    $('meta[name="csrf-token"]').content = $('meta[name="csrf-token"]', page).content;
    const bad = $("[aria-invalid=true]", fresh);
    const added = $$("article[id]", fresh).find((node) => !known.has(node.id));
    if (bad) bad.focus();
    else if (added && form.id !== "act") {
      $$(".is-here", fresh).forEach((node) => { node.classList.remove("is-here"); });
      added.classList.add("is-here");
      added.focus({ preventScroll: true });
      added.scrollIntoView({ block: "nearest" });
      setTimeout(() => { added.classList.remove("is-here"); }, 2500);
      announce("Your comment is there.");
    } else {
      const heading = $("h1, h2", fresh) || fresh;
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
    }
    prepare(fresh);
  }

  // == Fields: mistakes in words beside them, passwords repeated and shown ==
  function mark(field, words) {
    const place = document.getElementById(`${field.id}-error`);
    if (!place) return;
    if (words) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
    place.hidden = !words;
    $("span", place).textContent = words;
  }

  function wordsFor(field) { // the server's words for the same mistake, where the page carries them
    const { validity: wrong, dataset: said } = field;
    if (wrong.valueMissing) return said.missing || field.validationMessage;
    if (wrong.tooShort || wrong.tooLong) return said.length || field.validationMessage;
    if (wrong.patternMismatch || wrong.typeMismatch) return said.mismatch || field.validationMessage;
    return field.validationMessage;
  }

  on("invalid", (event) => {
    if (!document.getElementById(`${event.target.id}-error`)) return;
    event.preventDefault();
    mark(event.target, wordsFor(event.target));
    if ($(":invalid:not(fieldset)", event.target.form) === event.target) event.target.focus();
  }, true);
  on("input", (event) => {
    const field = event.target;
    for (const again of $$("[data-same-as]", field.form || document)) {
      const same = again.value === document.getElementById(again.dataset.sameAs).value;
      again.setCustomValidity(same ? "" : again.dataset.differs);
    }
    if (field.getAttribute("aria-invalid") === "true" && field.validity.valid) mark(field, "");
  });

  on("click", (event) => {
    const reveal = event.target.closest("[data-reveal]");
    if (!reveal) return;
    const field = document.getElementById(reveal.dataset.reveal);
    const hidden = field.type === "password";
    field.type = hidden ? "text" : "password";
    reveal.setAttribute("aria-pressed", String(hidden));
    $("i", reveal).className = hidden ? "bi bi-eye-slash" : "bi bi-eye";
  });

  // == Writing: tabs, formatting, who will see it ==
  async function showPreview(form, shown) {
    const [panel, body, button] = [$("#preview-panel"), $("#write-panel"), $("button[name=preview]:not(.without-js)", form)];
    for (const tab of $$("[role=tab]", form)) {
      const chosen = (tab.id === "preview-tab") === shown;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
    panel.hidden = !shown;
    body.hidden = shown;
    $(".marks", form).hidden = shown;
    if (button) button.textContent = shown ? "Go on writing" : "Preview";
    if (!shown) return $("textarea", body).focus();
    try {
      const answer = await fetch(form.dataset.editor, {
        method: "POST", body: new URLSearchParams({ body: $("textarea", body).value, topic: form.elements.topic?.value || form.dataset.mentions }),
        headers: { "X-CSRFToken": token(), "X-Requested-With": "fetch" },
      });
      if (!answer.ok) throw new Error(answer.status);
      panel.innerHTML = (await answer.text()).trim() || "<p>Nothing to show yet.</p>";
    } catch {
      panel.textContent = "The preview could not be made just now. What you wrote is still there.";
    }
    if (button) panel.focus();
  }

  const type = (words) => document.execCommand("insertText", false, words); // the one way that the browser can undo

  function replace(field, start, end, words, from = words.length, to = from) { // and choose a part of the words
    field.focus();
    field.setSelectionRange(start, end);
    if (words) type(words);
    else if (start !== end) document.execCommand("delete");
    field.setSelectionRange(start + from, start + to);
  }

  function wrap(field, around, blank) { // the mark on both sides, or off again
    const { value, selectionStart: start, selectionEnd: end } = field;
    const [width, chosen] = [around.length, value.slice(start, end)];
    const alone = (text) => around !== "*" || !/^\*\*(?!\*)/.test(text); // one star beside another is bold, not italic
    const outside = value.slice(0, start).endsWith(around) && value.slice(end).startsWith(around) && alone(value.slice(end));
    const inside = chosen.length >= 2 * width && chosen.startsWith(around) && chosen.endsWith(around) && alone(chosen);
    if (outside) return replace(field, start - width, end + width, chosen, 0, chosen.length);
    if (inside) return replace(field, start, end, chosen.slice(width, -width), 0, chosen.length - 2 * width);
    const words = chosen || blank;
    replace(field, start, end, around + words + around, width, width + words.length);
  }

  const LINE = {
    heading: [/^#{1,6}\s+/, () => "## "], quote: [/^>\s?/, () => "> "], list: [/^[-*+]\s+(?!\[[ xX]\]\s)/, () => "- "],
    numbers: [/^\d+[.)]\s+/, (i) => `${i + 1}. `], tasks: [/^[-*+]\s+\[[ xX]\]\s+/, () => "- [ ] "],
  };
  const BEGINNING = /^(#{1,6}\s+|[-*+]\s+\[[ xX]\]\s+|[-*+]\s+|\d+[.)]\s+)/; // what another beginning takes the place of

  function begin(field, kind) { // whole lines, each with its beginning, or without it when all have it
    const [pattern, beginning] = LINE[kind];
    const start = field.value.lastIndexOf("\n", field.selectionStart - 1) + 1;
    const end = (field.value + "\n").indexOf("\n", Math.max(start, field.selectionEnd - (field.selectionEnd > field.selectionStart)));
    const lines = field.value.slice(start, end).split("\n");
    const full = lines.filter((line) => line.trim());
    const off = full.length > 0 && full.every((line) => pattern.test(line.trimStart()));
    let count = 0;
    const words = lines.map((line) => {
      const [, indent, rest] = /^(\s*)(.*)$/.exec(line);
      if (off) return indent + rest.replace(pattern, "");
      if (!rest && lines.length > 1) return line;
      return indent + beginning(count++) + (kind === "quote" ? rest : rest.replace(BEGINNING, ""));
    }).join("\n");
    replace(field, start, end, words, lines.length > 1 ? 0 : words.length, words.length);
  }

  const ADDRESS = /^(https?:\/\/|mailto:)\S+$/i;
  function link(field) {
    const { selectionStart: start, selectionEnd: end } = field;
    const chosen = field.value.slice(start, end).trim();
    if (ADDRESS.test(chosen)) return replace(field, start, end, `[words](${chosen})`, 1, 6);
    const words = chosen || "words";
    const place = words.length + 3;
    replace(field, start, end, `[${words}](https://)`, chosen ? place : 1, chosen ? place + 8 : 6);
  }

  function code(field) {
    const chosen = field.value.slice(field.selectionStart, field.selectionEnd);
    if (!chosen.includes("\n")) return wrap(field, "`", "code");
    const fence = /^`{3,}/m.test(chosen) ? "````" : "```";
    const before = field.selectionStart && field.value[field.selectionStart - 1] !== "\n" ? "\n" : "";
    replace(field, field.selectionStart, field.selectionEnd, `${before}${fence}\n${chosen.replace(/\n$/, "")}\n${fence}\n`);
  }

  function table(field) {
    const before = field.value.slice(0, field.selectionEnd);
    const gap = !before || before.endsWith("\n\n") ? "" : before.endsWith("\n") ? "\n" : "\n\n";
    const words = `${gap}| Heading | Heading |\n|---|---|\n|  |  |\n|  |  |\n\n`;
    replace(field, field.selectionEnd, field.selectionEnd, words, gap.length + 2, gap.length + 9);
  }

  function mention(field) { // after an @ people are offered
    const [before, chosen] = [field.value.slice(0, field.selectionStart), field.value.slice(field.selectionStart, field.selectionEnd)];
    replace(field, field.selectionStart, field.selectionEnd, `${/[^\s(]$/.test(before) ? " " : ""}@${chosen.trim()}`);
  }

  const FORMATS = {
    bold: (field) => wrap(field, "**", "bold"), italic: (field) => wrap(field, "*", "italic"), code, link, mention, table,
    file: (field) => { $("[data-uploads] input[type=file]", field.form)?.click(); },
  };
  const format = (field, kind) => (kind in LINE ? begin(field, kind) : FORMATS[kind](field));

  on("click", (event) => {
    const form = event.target.closest("[data-editor]");
    const tab = event.target.closest("[role=tab]");
    const button = event.target.closest("[data-format]");
    if (form && tab) showPreview(form, tab.id === "preview-tab");
    if (form && event.target.name === "preview") {
      event.preventDefault();
      showPreview(form, $("#preview-panel").hidden);
    }
    if (form && button) format($("#write-panel textarea"), button.dataset.format);
  });
  on("keydown", (event) => { // arrows move in the tabs and in the toolbar, which are one stop each for the Tab key
    const bar = event.target.closest?.("[role=tablist], [role=toolbar]");
    const tools = bar && $$("button", bar);
    const to = { ArrowLeft: -1, ArrowRight: 1, Home: "first", End: "last" }[event.key];
    if (!tools || !to || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const here = tools.indexOf(event.target);
    const next = to === "first" ? tools[0] : to === "last" ? tools.at(-1) : tools.at((here + to) % tools.length);
    next.focus();
    if (bar.matches("[role=toolbar]")) tools.forEach((tool) => { tool.tabIndex = tool === next ? 0 : -1; });
  });

  // == Writing: what a field for Markdown does by itself: Ctrl+B, I and K, lists that go on, addresses pasted ==
  const isMarkdown = (field) => field.matches?.("textarea.prose");
  const ITEM = /^(\s*)(?:([-*+])|(\d{1,9})([.)]))(\s+)(\[[ xX]\]\s+)?/;

  function goOn(field) { // the next item of a list; returns whether there is one
    const { value, selectionStart: place } = field;
    const start = value.lastIndexOf("\n", place - 1) + 1;
    const line = value.slice(start, (value + "\n").indexOf("\n", place));
    const item = ITEM.exec(line);
    if (!item || field.selectionEnd !== place || place < start + item[0].length) return false;
    if (!line.slice(item[0].length).trim()) replace(field, start, start + line.length, "");
    else type(`\n${item[1]}${item[2] || Number(item[3]) + 1 + item[4]}${item[5]}${item[6] ? "[ ] " : ""}`);
    return true;
  }

  on("keydown", (event) => {
    if (!isMarkdown(event.target) || event.isComposing || event.altKey || event.defaultPrevented) return;
    const kind = (event.ctrlKey || event.metaKey) && !event.shiftKey && { b: "bold", i: "italic", k: "link" }[event.key.toLowerCase()];
    const plain = event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey;
    if (kind) format(event.target, kind);
    if (kind || (plain && goOn(event.target))) event.preventDefault();
  });

  on("paste", (event) => {
    const field = event.target;
    const address = event.clipboardData?.getData("text/plain").trim() || "";
    if (!isMarkdown(field) || !ADDRESS.test(address)) return;
    const { value, selectionStart: start, selectionEnd: end } = field;
    const chosen = value.slice(start, end);
    const here = address.startsWith(`${location.origin}/`) ? address.slice(location.origin.length) : "";
    const within = /[(<`\][]$/.test(value.slice(0, start)) || ADDRESS.test(chosen.trim()) || /[\n\][]/.test(chosen);
    if (within ? !here || /<$/.test(value.slice(0, start)) : !chosen && !here) return; // as it is
    event.preventDefault();
    const target = (here || address).replace(/[()]/g, (mark) => (mark === "(" ? "%28" : "%29"));
    if (within) return replace(field, start, end, target);
    const words = chosen.trim() || "words";
    replace(field, start, end, `[${words}](${target})`, ...(chosen ? [] : [1, 6]));
  });

  // == Uploading: what is chosen, dropped or pasted goes at once, and what shows or links it goes into the text ==
  const noticed = (form) => { // where it is told how far it is and what went wrong: in the field for files, or below the text
    let place = $(".uploading", form);
    if (!place) {
      place = document.createElement("p");
      place.className = "uploading";
      place.innerHTML = '<progress max="1" aria-label="Upload"></progress><span></span>';
      const list = $("[data-uploads] .attached", form);
      if (list) list.before(place);
      else $("textarea", form).after(place);
    }
    return place;
  };

  function refuseUpload(form, words) {
    const field = $("[data-uploads] input[type=file]", form) || $("textarea", form);
    mark(field, words);
    if (words) announce(words);
  }

  function sendFile(file, tell) { // not fetch, which does not tell how far an upload is
    return new Promise((done) => {
      const [asked, body] = [new XMLHttpRequest(), new FormData()];
      body.append("upload", file, file.name || "picture.png");
      asked.upload.addEventListener("progress", (event) => { if (event.lengthComputable) tell(event.loaded / event.total); });
      asked.addEventListener("load", () => { done({ status: asked.status, words: asked.responseText }); });
      asked.addEventListener("error", () => { done({ status: 0, words: "" }); });
      asked.open("POST", "/files");
      asked.setRequestHeader("X-CSRFToken", token());
      asked.setRequestHeader("X-Requested-With", "fetch");
      asked.send(body);
    });
  }

  function whyNot({ status, words }, file) {
    if (status === 401) return "You are signed out. Save what you wrote, sign in again, and then add the file.";
    if (status === 413) return `${file.name} is too large.`;
    return status === 422 || status === 507 ? words : `${file.name} did not arrive. Try again in a moment.`;
  }

  async function uploadAll(form, given) {
    const place = noticed(form);
    const refused = [];
    form.dataset.uploading = String((form.dataset.uploading | 0) + 1);
    place.hidden = false;
    for (const [i, file] of given.entries()) {
      const [bar, count] = [$("progress", place), given.length > 1 ? ` (${i + 1} of ${given.length})` : ""];
      bar.value = 0;
      $("span", place).textContent = `Uploading ${file.name}${count}`;
      const tooLarge = file.size > form.dataset.upload * 1024 * 1024 - 2000; // what surrounds it counts, too
      const answer = tooLarge ? { status: 413 } : await sendFile(file, (part) => { bar.value = part; });
      if (answer.status === 200) takeUploaded(form, answer.words);
      else refused.push(whyNot(answer, file));
    }
    form.dataset.uploading = String(form.dataset.uploading - 1);
    if (form.dataset.uploading === "0") finishUploads(form, place);
    refuseUpload(form, refused.join(" "));
    if (!refused.length) announce(`${counted(given.length, "file is", "files are")} there.`);
  }

  function finishUploads(form, place) {
    place.hidden = true;
    delete form.dataset.uploading;
    if (!form.sendAfter) return;
    const button = form.sendAfter;
    delete form.sendAfter;
    form.requestSubmit(button);
  }

  function takeUploaded(form, lines) {
    const list = $("[data-uploads] .attached", form);
    const fresh = new DOMParser().parseFromString(`<ul>${lines}</ul>`, "text/html");
    const field = $("textarea", form);
    const words = $$("[data-markdown]", fresh).map((line) => line.dataset.markdown).join("\n\n");
    if (list) list.append(...$$("li", fresh));
    if ("editor" in form.dataset && $("#write-panel").hidden) showPreview(form, false);
    field.focus();
    const before = field.value.slice(0, field.selectionStart);
    const gap = before && !before.endsWith("\n\n") ? (before.endsWith("\n") ? "\n" : "\n\n") : "";
    type(`${gap}${words}\n\n`);
  }

  on("submit", (event) => { // whoever sends while a file is on its way sends when it is there
    if (!event.target.dataset.uploading) return;
    event.preventDefault();
    event.target.sendAfter = event.submitter || undefined;
  }, true);
  on("change", (event) => {
    const form = event.target.closest?.("form[data-upload]");
    if (!form || event.target.type !== "file") return;
    const given = [...event.target.files];
    event.target.value = ""; // or they would be sent a second time with the form
    if (given.length) uploadAll(form, given);
  });
  on("paste", (event) => {
    const form = event.target.closest?.("form[data-upload]");
    const given = [...(event.clipboardData?.files || [])];
    if (!form || !given.length || event.clipboardData.types.includes("text/plain")) return; // words from an office program
    event.preventDefault();
    uploadAll(form, given);
  });
  for (const type of ["dragover", "dragleave", "drop"]) {
    on(type, (event) => {
      const form = event.target.closest?.("form[data-upload]");
      if (!form || !event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      $("textarea", form).classList.toggle("is-over", type === "dragover");
      if (type === "drop") uploadAll(form, [...event.dataTransfer.files]);
    });
  }

  // == Names: people are offered while one is typed after an @, pages of the handbook after [[ ==
  const NAME_BEGUN = /(?:^|[^\p{L}\p{N}.@/\\=&#%+_-])@([\p{L}\p{N}._-]{0,32})$/u;
  const TITLE_BEGUN = /\[\[([^[\]|\n]{1,100})$/;
  const knownOffers = new Map(); // by their address, so that going back over a name asks for nothing
  let offers = null; // what is open: the field, the list, where the @ or the brackets stand
  let refusedAt = -1; // where somebody closed the list

  function nameBegun(field) { // what is typed at the caret, and where that begins; its address tells it from others
    const [end, topic] = [field.selectionEnd, field.form.elements.topic?.value || field.form.dataset.mentions];
    const before = field.value.slice(Math.max(0, end - 102), end);
    const title = TITLE_BEGUN.exec(before)?.[1];
    if (title !== undefined) return { at: end - title.length - 2, address: `/pages/titles?${new URLSearchParams({ q: title })}` };
    const name = NAME_BEGUN.exec(before.slice(-34))?.[1];
    return name === undefined ? null : { at: end - name.length - 1, address: `/mentions?${new URLSearchParams({ q: name, topic })}` };
  }

  function closeOffers() {
    if (!offers) return;
    offers.list.remove();
    for (const name of ["aria-controls", "aria-activedescendant", "aria-autocomplete"]) offers.field.removeAttribute(name);
    offers = null;
  }

  async function offerNames(field) {
    const begun = nameBegun(field);
    if (!begun) refusedAt = -1;
    if (!begun || begun.at === refusedAt) return closeOffers();
    const { at, address } = begun;
    if (!knownOffers.has(address)) {
      const answer = await fetch(address).catch(() => null);
      if (!answer?.ok || answer.redirected) return closeOffers();
      knownOffers.set(address, await answer.text());
    }
    if (nameBegun(field)?.address !== address || document.activeElement !== field) return; // somebody typed on
    showOffers(field, knownOffers.get(address), at);
  }

  function showOffers(field, options, at) {
    const list = document.createElement("ul");
    Object.assign(list, { id: "offers", className: "offers", innerHTML: options });
    list.setAttribute("role", "listbox");
    closeOffers();
    if (!list.children.length) return;
    const arePages = "title" in list.children[0].dataset;
    list.setAttribute("aria-label", arePages ? "Pages" : "People");
    offers = { field, list, at };
    field.after(list);
    putOffers();
    field.setAttribute("aria-autocomplete", "list");
    field.setAttribute("aria-controls", list.id);
    moveOffer(0);
    list.scrollIntoView({ block: "nearest" });
    announce(`${counted(list.children.length, ...(arePages ? ["page", "pages"] : ["person", "people"]))}. Arrows choose, Enter takes.`);
  }

  function putOffers() { // below the @, and within the field's width
    const { field, list, at } = offers;
    const place = placeOf(field, at);
    list.style.top = `${field.offsetTop + Math.min(place.top, field.clientHeight)}px`;
    list.style.left = `${field.offsetLeft + Math.max(0, Math.min(place.left, field.offsetWidth - list.offsetWidth))}px`;
  }

  function placeOf(field, at) { // where a character stands, measured in a copy of the field: browsers do not tell
    const [copy, mark, look] = [document.createElement("div"), document.createElement("span"), getComputedStyle(field)];
    for (const name of ["font", "letterSpacing", "padding", "borderWidth"]) copy.style[name] = look[name];
    copy.className = "field-copy";
    copy.style.width = `${field.clientWidth}px`;
    mark.textContent = "@";
    copy.append(field.value.slice(0, at), mark);
    field.after(copy);
    const place = { top: mark.offsetTop + mark.offsetHeight + 4 - field.scrollTop, left: mark.offsetLeft };
    copy.remove();
    return place;
  }

  function moveOffer(to) {
    const all = [...offers.list.children];
    const chosen = all[(to + all.length) % all.length];
    all.forEach((option) => { option.setAttribute("aria-selected", String(option === chosen)); });
    offers.field.setAttribute("aria-activedescendant", chosen.id);
    chosen.scrollIntoView({ block: "nearest" });
  }

  function takeOffer(option) {
    const { field, at } = offers;
    closeOffers();
    field.focus();
    const { username, title } = option.dataset;
    const closed = title && field.value.startsWith("]]", field.selectionEnd) ? 2 : 0;
    field.setSelectionRange(at, field.selectionEnd + closed);
    type(title ? `[[${title}]]` : `@${username} `);
  }

  on("input", (event) => {
    if (event.target.matches("[data-mentions] textarea")) offerNames(event.target);
  });
  on("keydown", (event) => {
    if (event.target !== offers?.field || event.isComposing) return;
    const chosen = [...offers.list.children].findIndex((option) => option.matches("[aria-selected=true]"));
    const moves = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in moves) moveOffer(chosen + moves[event.key]);
    else if ((event.key === "Enter" || event.key === "Tab") && !event.shiftKey) takeOffer(offers.list.children[chosen]);
    else if (event.key === "Escape") { refusedAt = offers.at; closeOffers(); }
    else {
      if (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") closeOffers();
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }, true);
  on("mousedown", (event) => { if (event.target.closest?.(".offers")) event.preventDefault(); }); // the field stays in focus
  on("click", (event) => {
    const option = event.target.closest(".offer");
    if (option) takeOffer(option);
    else if (event.target !== offers?.field) closeOffers();
  });
  on("focusout", (event) => { if (event.target === offers?.field) closeOffers(); });
  addEventListener("resize", () => { if (offers) putOffers(); });

  // == Reactions: the kinds to choose from, and counts that change where they stand ==
  function openKinds(opener) {
    const region = opener.closest(".reactions");
    const picker = $("#kinds").content.firstElementChild.cloneNode(true);
    for (const button of $$("button", picker)) {
      const mine = $(`[name=remove][value=${button.value}]`, region);
      button.name = mine ? "remove" : "add";
      button.setAttribute("aria-pressed", String(Boolean(mine)));
      button.setAttribute("formaction", opener.getAttribute("href"));
    }
    opener.after(picker);
    opener.setAttribute("aria-expanded", "true");
    $("button", picker).focus();
  }

  function closeKinds(but) {
    for (const picker of $$(".picker")) {
      if (picker.contains(but)) continue;
      picker.previousElementSibling.removeAttribute("aria-expanded");
      picker.remove();
    }
  }

  on("click", (event) => {
    const opener = event.target.closest("a[data-react]");
    const isOpen = opener?.hasAttribute("aria-expanded");
    closeKinds(event.target);
    if (!opener || !$("#kinds") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (!isOpen) openKinds(opener);
  });
  on("keydown", (event) => {
    const opener = event.key === "Escape" && event.target.closest(".picker")?.previousElementSibling;
    if (opener) { closeKinds(); opener.focus(); }
  });
  on("submit", (event) => {
    const region = event.submitter?.closest(".reactions");
    if (!region || event.target.dataset.plainly) return;
    event.preventDefault();
    react(event.target, event.submitter, region);
  }, true);

  async function react(form, button, region) {
    if (button.hasAttribute("aria-busy")) return;
    button.setAttribute("aria-busy", "true");
    const answer = await fetch(button.getAttribute("formaction"), {
      method: "POST", body: new URLSearchParams(new FormData(form, button)), headers: { "X-Requested-With": "fetch" },
    }).catch(() => null);
    button.removeAttribute("aria-busy");
    if (!answer) return complain("The site did not answer. Try again in a moment.");
    if (!answer.ok) { // signed out meanwhile, or it is gone: the page that says so
      form.dataset.plainly = "yes";
      form.requestSubmit(button);
      delete form.dataset.plainly;
      return;
    }
    const fresh = $(".reactions", new DOMParser().parseFromString(await answer.text(), "text/html"));
    region.replaceWith(fresh);
    const now = $(`[value=${button.value}]`, fresh);
    (now || $("a", fresh)).focus();
    announce(now ? now.title : "Taken back.");
  }

  function tellAudience(select) {
    const { name, people, private: closed } = select.selectedOptions[0]?.dataset || {};
    const words = name ? `Will be seen by ${counted(people | 0, "person", "people")} in ${name}` : "";
    document.getElementById(select.dataset.audience).textContent = words && words + (closed === undefined ? "." : ", and by nobody else.");
  }
  on("change", (event) => { if (event.target.dataset?.audience) tellAudience(event.target); });

  // What is chosen is a time of the person's own zone, which need not be the browser's.
  const openedAt = Date.now();
  function nameButton(field) {
    const button = document.getElementById(field.dataset.names);
    const clock = Date.parse(`${field.dataset.clock}Z`) + Date.now() - openedAt;
    button.textContent = Date.parse(`${field.value}Z`) > clock ? button.dataset.later : button.dataset.now;
  }
  on("input", (event) => { if (event.target.dataset?.names) nameButton(event.target); });

  // == Filtering while typing; the address and the site's own search stay right ==
  let waiting;
  on("input", (event) => {
    const form = event.target.closest("[data-filter]");
    if (!form) return;
    const region = $(form.dataset.filter);
    const words = event.target.value.trim();
    clearTimeout(waiting);
    if ("partial" in region.dataset) waiting = setTimeout(() => searchFor(form, words), 250);
    else filterShown(region, words);
    history.replaceState(null, "", words ? `${form.action}?q=${encodeURIComponent(words)}` : form.action);
  });
  function filterShown(region, words) {
    const parts = folded(words).split(/\s+/).map((part) => part.split("@")[0]);
    const items = $$("[data-item]", region);
    items.forEach((item) => { item.hidden = !parts.every((part) => item.dataset.item.includes(part)); });
    tellCount(region, items.filter((item) => !item.hidden).length, words);
  }
  function folded(words) { // as the server's sort_key folds what an item is found by
    const small = words.normalize("NFKC").toLowerCase().replace(/ß/g, "ss").replace(/ς/g, "σ");
    return small.normalize("NFKD").replace(/[\u0300-\u036f\u3099\u309a]/g, "").normalize("NFC");
  }
  async function searchFor(form, words) {
    const answer = await fetch(`${form.action}?q=${encodeURIComponent(words)}`).catch(() => null);
    if (!answer?.ok) return;
    const fresh = $(form.dataset.filter, new DOMParser().parseFromString(await answer.text(), "text/html"));
    $(form.dataset.filter).replaceWith(fresh);
    tellCount(fresh, $$("[data-item]", fresh).length, words);
  }
  function tellCount(region, found, words) {
    const none = $("[data-none]", region);
    if (none) none.hidden = found > 0;
    announce(words ? `${counted(found, "person", "people")} found` : "Everybody is shown");
  }

  // == Live results below the search in the header ==
  const [find, live] = [$("#find"), $("#live")];
  const options = () => $$("[role=option]", live);
  let [asking, asked] = [null, null]; // the timer before the next question, and what ends the last one
  if (find) {
    for (const [name, value] of Object.entries({ role: "combobox", "aria-expanded": "false", "aria-controls": "live", "aria-autocomplete": "list" })) find.setAttribute(name, value);
    find.addEventListener("input", () => {
      clearTimeout(asking);
      const words = find.value.trim();
      if (words.length < 2 && !/[^\x00-\x7f]/.test(words)) return closeLive();
      asking = setTimeout(() => showLive(words), 150);
    });
    find.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const chosen = $("[aria-selected=true]", live);
      if (event.key === "Escape" && !live.hidden) { event.stopPropagation(); closeLive(); }
      else if (event.key === "Enter" && chosen && !live.hidden) chosen.click();
      else if (step && !live.hidden) choose(step, chosen);
      else return;
      event.preventDefault();
    });
    find.form.addEventListener("focusout", (event) => { if (!find.form.contains(event.relatedTarget)) closeLive(); });
    live.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays in the box until the click
  }
  async function showLive(words) {
    asked?.abort();
    const mine = asked = new AbortController();
    const answer = await fetch(`/search?part=live&q=${encodeURIComponent(words)}`, { signal: mine.signal }).catch(() => null);
    const html = answer?.ok && !answer.redirected ? await answer.text().catch(() => "") : "";
    if (!html || mine.signal.aborted || document.activeElement !== find) return;
    live.innerHTML = html;
    live.hidden = false;
    find.setAttribute("aria-expanded", "true");
    find.removeAttribute("aria-activedescendant");
    const { count, more } = $("[data-count]", live).dataset;
    announce(`${more === undefined ? "" : "More than "}${counted(Number(count), "result", "results")} found`);
  }
  function choose(step, chosen) {
    const all = options();
    const next = all[(all.indexOf(chosen) + step + all.length + (chosen || step > 0 ? 0 : 1)) % all.length];
    all.forEach((option) => { option.setAttribute("aria-selected", String(option === next)); });
    find.setAttribute("aria-activedescendant", next.id);
    next.scrollIntoView({ block: "nearest" });
  }
  function closeLive() {
    clearTimeout(asking);
    asked?.abort();
    live.hidden = true;
    find.setAttribute("aria-expanded", "false");
    find.removeAttribute("aria-activedescendant");
  }

  // == Keys, menus, dialogs ==
  on("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens).showModal();
    if (event.target.matches?.("dialog[open]")) event.target.close("no"); // the shade around it
    $$(".menu[open]").forEach((menu) => { if (!menu.contains(event.target)) menu.open = false; });
  });
  on("keydown", (event) => {
    if (event.key === "Escape") {
      const open = $$(".menu[open]");
      open.forEach((menu) => { menu.open = false; $("summary", menu).focus(); });
      if (event.target.dataset.key === "/") { event.target.value = ""; closeLive(); event.target.blur(); }
      if (open.length) return;
    }
    press(event);
  });

  // j and k go through whatever the page lists: what is focused in turn.
  const STEPS = ".post :is(h2, h3) a, .rows a.row-main, .rows .row-main > a, .listing tbody th a, .card-person :is(h2, h3) a, .comment";
  function step(by) {
    const items = $$(STEPS, $("main")).filter((item) => item.checkVisibility());
    const here = items.findLastIndex((item) => item === document.activeElement || item.contains(document.activeElement));
    const near = document.activeElement === document.body ? items.findIndex((item) => item.getBoundingClientRect().top > 0) : 0;
    const next = items[here >= 0 ? here + by : by > 0 ? Math.max(near, 0) : -1];
    if (!next) return;
    next.focus({ preventScroll: true, focusVisible: true });
    (next.closest("article, li, tr") || next).scrollIntoView({ block: "nearest" });
  }

  function press(event) { // one key by itself, outside of every field
    const typing = event.target.closest("input, textarea, select, [contenteditable], dialog[open]");
    const off = document.body.dataset.shortcuts === "off";
    if (typing || off || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.key === "j" || event.key === "k") return step(event.key === "j" ? 1 : -1);
    const named = `[data-key="${CSS.escape(event.key)}"]`;
    const target = event.key === "?" ? $("#help") : $(named, event.target.closest("article") || document) || $(named);
    if (!target) return;
    event.preventDefault();
    if (target.showModal) target.showModal();
    else if (target.matches("input")) target.focus();
    else target.click();
  }

  // == The bell: asked now and then whether there is something new, unless nobody looks or is signed in ==
  const POLL_EVERY = 20000;
  const bell = $("[data-poll]");
  const title = document.title;
  let [polling, pollTag, pollFailed, unread] = [0, "", 0, 0];

  function showUnread(count) {
    const badge = $(".bell-count", bell);
    badge.textContent = count > 99 ? "99+" : count;
    badge.hidden = !count;
    bell.setAttribute("aria-label", `Notifications, ${count || "none"} unread`);
    document.title = count ? `(${count}) ${title}` : title;
    if (count > unread) announce(counted(count, "unread notification", "unread notifications"));
    unread = count;
  }

  async function poll() {
    clearTimeout(polling);
    if (document.hidden) return;
    try {
      const answer = await fetch(bell.dataset.poll, { headers: pollTag ? { "If-None-Match": pollTag } : {}, cache: "no-store", redirect: "manual" });
      if (answer.type === "opaqueredirect" || answer.status === 401) return; // signed out
      if (answer.ok) {
        pollTag = answer.headers.get("ETag");
        showUnread((await answer.json()).unread);
      } else if (answer.status !== 304) throw new Error(answer.status);
      pollFailed = 0;
    } catch {
      pollFailed = Math.min(pollFailed + 1, 6);
    }
    schedulePoll();
  }

  function schedulePoll() { // not all of them at the same moment, and ever later while the site does not answer
    clearTimeout(polling);
    polling = setTimeout(poll, POLL_EVERY * 2 ** pollFailed * (0.8 + Math.random() * 0.4));
  }

  if (bell) {
    unread = parseInt($(".bell-count", bell).textContent, 10) || 0;
    if (unread) document.title = `(${unread}) ${title}`;
    schedulePoll();
    on("visibilitychange", poll);
    addEventListener("pageshow", (event) => { if (event.persisted) poll(); });
  }

  // == Each page, and each region that was renewed ==
  function prepare(root) {
    $$("select[data-audience]", root).forEach(tellAudience);
    $$("[data-names]", root).forEach(nameButton);
    $$("form[data-draft]", root).forEach(restoreDraft);
  }
  forgetSent();
  prepare(document);
})();
