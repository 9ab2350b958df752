// Pages with an editor use this file, and their forms work without it. It reads data attributes:
//   data-draft           this form's unsent fields are kept in this tab, and leaving the page asks first
//   data-autosave="/…"   they are saved on the site too, as a draft, a few seconds after each change
//   data-audience="id"   the chosen option's data-seen-by is shown there: who will see the post
//   data-under="id"      a page chosen here, with its data-topic, sets that field; a page of another topic is let go
//   data-schedules="id"  a time later than data-clock in this field changes that button from data-now to data-later
//   data-editor="/…"     the address of this form's preview; #preview-panel shows it in place of #write-panel
//   data-format="bold"   this button formats the selected text
//   data-mentions="id"   an @ in this form offers people: first those of that topic, or of the one chosen in the form
//   data-upload="25"     files chosen, dropped or pasted in this form (up to that many MB) are uploaded immediately
//   data-uploads         the file field of such a form; data-markdown is what an uploaded file adds to the text
//   data-username, data-title   what an offered person or page inserts
// On the body, data-person says whose drafts these are.
(() => {
  "use strict";
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const on = (type, act, capture = false) => document.addEventListener(type, act, capture);
  const counted = (n, one, many) => `${n} ${n === 1 ? one : many}`;
  const topicOf = (form) => form.elements.topic?.value || form.dataset.mentions;
  const headers = { "X-CSRFToken": $('meta[name="csrf-token"]').content, "X-Requested-With": "fetch" };
  const post = (address, body) => fetch(address, { method: "POST", body, headers }).catch(() => null);
  const announce = (words) => { $("#announce").textContent = words; }; // to screen readers

  // == Drafts in this tab: what was typed or chosen, and not sent yet ==
  const FIELDS = "input:not([type=hidden], [type=password], [type=file]), textarea, select, [name=version]";
  const draftKey = (form) => `draft:${document.body.dataset.person}:${form.getAttribute("action")}`;
  const fieldsOf = (form) => $$(FIELDS, form).filter((field) => field.name);
  const isBox = (field) => field.type === "checkbox" || field.type === "radio";
  const keyOf = (field) => (isBox(field) ? `${field.name}=${field.value}` : field.name);
  const valueOf = (field) => (isBox(field) ? field.checked : field.value);
  const saved = new WeakMap(); // what autosave has saved of a field; before that, the site knows what the page came with

  function savedOf(field) {
    if (saved.has(field)) return saved.get(field);
    if (isBox(field)) return field.defaultChecked;
    if (!field.options) return field.defaultValue;
    return ([...field.options].find((option) => option.defaultSelected) || field.options[0])?.value ?? "";
  }

  function setValue(field, value) {
    if (isBox(field)) field.checked = value;
    else field.value = value;
  }

  const isTyped = (field) => field.type !== "hidden" && String(valueOf(field)).trim() !== String(savedOf(field)).trim();
  const isDirty = (form) => fieldsOf(form).some(isTyped);
  let leaving = false; // a form is being sent: don't ask before leaving the page

  function keepDraft(form, sent = null) { // `sent`: from which page; app.js removes the draft once it was accepted
    if (!sent && !isDirty(form)) return sessionStorage.removeItem(draftKey(form));
    const fields = Object.fromEntries(fieldsOf(form).map((field) => [keyOf(field), valueOf(field)]));
    sessionStorage.setItem(draftKey(form), JSON.stringify({ fields, sent }));
  }

  function restoreDraft(form) {
    const draft = JSON.parse(sessionStorage.getItem(draftKey(form)));
    if (!draft || $("[aria-invalid=true]", form)) return; // after a mistake, the site has put the text back itself
    const fields = fieldsOf(form).filter((field) => keyOf(field) in draft.fields);
    const before = fields.map(valueOf);
    if (fields.every((field) => field.type === "hidden" || valueOf(field) === draft.fields[keyOf(field)])) return;
    for (const field of fields) setValue(field, draft.fields[keyOf(field)]);
    for (const field of fields.filter(isTyped)) field.closest("details")?.setAttribute("open", "");
    const notice = document.createElement("div");
    notice.className = "callout draft-notice";
    notice.innerHTML = '<p>Your unsaved text is back. <button class="link" type="button">Start over</button></p>';
    form.before(notice);
    $("button", notice).addEventListener("click", () => {
      fields.forEach((field, i) => setValue(field, before[i]));
      showChoices(form);
      sessionStorage.removeItem(draftKey(form));
      notice.remove();
      fields.find((field) => field.type !== "hidden").focus();
    });
    announce("Your unsaved text is back.");
  }

  on("submit", ({ target: form }) => { if ("draft" in form.dataset) keepDraft(form, location.href.split("#")[0]); }, true); // before app.js sends it
  on("submit", (event) => { leaving = event.target.method !== "dialog" && !event.defaultPrevented; });
  addEventListener("pageshow", () => { leaving = false; });
  addEventListener("beforeunload", (event) => { if (!leaving && $$("[data-draft]").some(isDirty)) event.preventDefault(); });

  // == Drafts on the site: saved a few seconds after a change, so that they outlive the browser ==
  const AUTOSAVE_AFTER = 4000;
  let [timer, saving] = [0, Promise.resolve()]; // one after the other

  function scheduleAutosave(form, after = AUTOSAVE_AFTER) {
    clearTimeout(timer);
    timer = setTimeout(() => { saving = saving.then(() => autosave(form)); }, after);
  }

  // When to publish a post is kept in this tab only: a draft that had a time would be published then.
  const toAutosave = (form) => fieldsOf(form).filter((field) => field.type !== "hidden" && !field.dataset.schedules);

  async function autosave(form) {
    if (leaving || !toAutosave(form).some(isTyped)) return;
    const sent = toAutosave(form).map((field) => [field, valueOf(field)]);
    const answer = await post(form.dataset.autosave, new URLSearchParams(new FormData(form)));
    if (leaving || answer?.status === 422) return; // 422: there is nothing to save yet
    if (answer?.ok && !answer.redirected) return becomeDraft(form, sent, await answer.json());
    if (answer?.status === 409) return tellAutosaved("This draft was changed in another window. Your text is kept in this tab only.");
    tellAutosaved("Couldn't save just now. Your text is kept in this tab.");
    if (answer?.status === 429) scheduleAutosave(form, 1000 * (Number(answer.headers.get("Retry-After")) || 30));
  }

  function becomeDraft(form, sent, { id, version }) { // from now on the form edits this draft
    for (const [field, value] of sent) saved.set(field, value);
    sessionStorage.removeItem(draftKey(form));
    $("[name=version]", form).value = version;
    form.setAttribute("action", `/posts/${id}/edit`);
    form.dataset.autosave = `/posts/${id}/autosave`;
    history.replaceState(null, "", `/posts/${id}/edit`);
    tellAutosaved(`Saved ${new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`);
    keepDraft(form); // what was typed in the meantime
    if (toAutosave(form).some(isTyped)) scheduleAutosave(form);
  }

  const tellAutosaved = (words) => { if ($("#autosaved").textContent !== words) $("#autosaved").textContent = words; };

  // == Who will see it, and when ==
  const showAudience = (select) => { document.getElementById(select.dataset.audience).textContent = select.selectedOptions[0].dataset.seenBy; };

  function matchTopic(field) { // a handbook page is below one of the same topic
    const under = $("[data-under]", field.form);
    const topic = under && field.form.elements[under.dataset.under];
    const wanted = under?.selectedOptions[0].dataset.topic;
    if (!wanted || wanted === topic.value) return;
    if (field === topic) under.value = "";
    else topic.value = wanted;
    showAudience(topic);
  }

  function nameButton(field) { // the time and the clock are both in the person's own zone
    const button = document.getElementById(field.dataset.schedules);
    button.textContent = field.value > field.dataset.clock ? button.dataset.later : button.dataset.now;
  }

  function showChoices(root) {
    $$("[data-audience]", root).forEach(showAudience);
    $$("[data-schedules]", root).forEach(nameButton);
  }

  // == Preview ==
  async function showPreview(form, isShown) {
    const panel = $("#preview-panel");
    const button = $("button[name=preview]:not(.without-js)", form); // a comment has a button, a post has tabs
    for (const tab of $$("[role=tab]", form)) {
      const isChosen = (tab.id === "preview-tab") === isShown;
      tab.setAttribute("aria-selected", isChosen);
      tab.tabIndex = isChosen ? 0 : -1;
    }
    panel.hidden = !isShown;
    $("#write-panel").hidden = isShown;
    $(".marks", form).hidden = isShown;
    if (button) button.textContent = isShown ? "Keep editing" : "Preview";
    if (!isShown) return $("textarea", form).focus();
    const answer = await post(form.dataset.editor, new URLSearchParams({ body: $("textarea", form).value, topic: topicOf(form) }));
    if (answer?.ok) panel.innerHTML = (await answer.text()).trim() || "<p>Nothing to show yet.</p>";
    else panel.textContent = "The preview isn't available just now. What you wrote is still there.";
    if (button) panel.focus();
  }

  // == Formatting: by execCommand, because browsers can undo no other change ==
  const type = (words) => document.execCommand("insertText", false, words);

  function replace(field, start, end, words, from = words.length, to = from) { // and select a part of the words
    field.focus();
    field.setSelectionRange(start, end);
    if (words) type(words);
    else if (start !== end) document.execCommand("delete");
    field.setSelectionRange(start + from, start + to);
  }

  function wrap(field, mark, blank) { // add the mark on both sides, or remove it
    const { value, selectionStart: start, selectionEnd: end } = field;
    const [width, chosen] = [mark.length, value.slice(start, end)];
    const isMark = (text) => mark !== "*" || !/^\*\*(?!\*)/.test(text); // two stars are bold, not italic
    const outside = value.slice(0, start).endsWith(mark) && value.slice(end).startsWith(mark) && isMark(value.slice(end));
    const inside = chosen.length >= 2 * width && chosen.startsWith(mark) && chosen.endsWith(mark) && isMark(chosen);
    if (outside) return replace(field, start - width, end + width, chosen, 0, chosen.length);
    if (inside) return replace(field, start, end, chosen.slice(width, -width), 0, chosen.length - 2 * width);
    const words = chosen || blank;
    replace(field, start, end, mark + words + mark, width, width + words.length);
  }

  const LINES = { // for each kind of line: how to find its beginning, and what to put there
    heading: [/^#{1,6}\s+/, () => "## "], quote: [/^>\s?/, () => "> "], list: [/^[-*+]\s+(?!\[[ xX]\]\s)/, () => "- "],
    numbers: [/^\d+[.)]\s+/, (i) => `${i + 1}. `], tasks: [/^[-*+]\s+\[[ xX]\]\s+/, () => "- [ ] "],
  };
  const BEGINNING = /^(#{1,6}\s+|[-*+]\s+\[[ xX]\]\s+|[-*+]\s+|\d+[.)]\s+)/; // what a line of another kind replaces

  function begin(field, kind) { // give whole lines the beginning of a kind, or remove it if all of them have it
    const [pattern, beginning] = LINES[kind];
    const start = field.value.lastIndexOf("\n", field.selectionStart - 1) + 1;
    const last = field.selectionEnd - (field.selectionEnd > field.selectionStart);
    const end = `${field.value}\n`.indexOf("\n", Math.max(start, last));
    const lines = field.value.slice(start, end).split("\n");
    const full = lines.filter((line) => line.trim());
    const isOn = full.length > 0 && full.every((line) => pattern.test(line.trimStart()));
    let count = 0;
    const changed = lines.map((line) => {
      const [, indent, rest] = /^(\s*)(.*)$/.exec(line);
      if (isOn) return indent + rest.replace(pattern, "");
      if (!rest && lines.length > 1) return line;
      return indent + beginning(count++) + (kind === "quote" ? rest : rest.replace(BEGINNING, ""));
    });
    const words = changed.join("\n");
    replace(field, start, end, words, lines.length > 1 ? 0 : words.length, words.length);
  }

  const ADDRESS = /^(https?:\/\/|mailto:)\S+$/i;

  function link(field) {
    const { selectionStart: start, selectionEnd: end } = field;
    const chosen = field.value.slice(start, end).trim();
    if (ADDRESS.test(chosen)) return linkWords(field, "", chosen);
    linkWords(field, chosen, "https://");
    if (chosen) field.setSelectionRange(start + chosen.length + 3, start + chosen.length + 11); // the address comes next
  }

  function linkWords(field, words, address) { // without words, select a placeholder for them
    const { selectionStart: start, selectionEnd: end } = field;
    if (words) replace(field, start, end, `[${words}](${address})`);
    else replace(field, start, end, `[words](${address})`, 1, 6);
  }

  function code(field) {
    const { value, selectionStart: start, selectionEnd: end } = field;
    const chosen = value.slice(start, end);
    if (!chosen.includes("\n")) return wrap(field, "`", "code");
    const fence = /^`{3,}/m.test(chosen) ? "````" : "```";
    const gap = start && value[start - 1] !== "\n" ? "\n" : "";
    replace(field, start, end, `${gap}${fence}\n${chosen.replace(/\n$/, "")}\n${fence}\n`);
  }

  function gapBefore(field, place) { // returns the line breaks that start a new paragraph
    const before = field.value.slice(0, place);
    return !before || before.endsWith("\n\n") ? "" : before.endsWith("\n") ? "\n" : "\n\n";
  }

  function table(field) {
    const place = field.selectionEnd;
    const gap = gapBefore(field, place);
    replace(field, place, place, `${gap}| Heading | Heading |\n|---|---|\n|  |  |\n|  |  |\n\n`, gap.length + 2, gap.length + 9);
  }

  function mention(field) { // typing an @ offers people
    const { value, selectionStart: start, selectionEnd: end } = field;
    const gap = /[^\s(]$/.test(value.slice(0, start)) ? " " : "";
    replace(field, start, end, `${gap}@${value.slice(start, end).trim()}`);
  }

  const FORMATS = {
    bold: (field) => wrap(field, "**", "bold"), italic: (field) => wrap(field, "*", "italic"), code, link, mention, table,
    file: (field) => $("[data-uploads] input[type=file]", field.form)?.click(),
  };
  const format = (field, kind) => (kind in LINES ? begin(field, kind) : FORMATS[kind](field));

  on("click", (event) => {
    const form = event.target.closest("[data-editor]");
    if (!form) return;
    const [tab, button] = [event.target.closest("[role=tab]"), event.target.closest("[data-format]")];
    if (tab) showPreview(form, tab.id === "preview-tab");
    if (button) format($("textarea", form), button.dataset.format);
    if (event.target.name !== "preview") return;
    event.preventDefault();
    showPreview(form, $("#preview-panel").hidden);
  });

  on("keydown", (event) => { // the Tab key stops once at the tabs and once at the toolbar; arrows move in them
    const bar = event.target.closest("[role=tablist], [role=toolbar]");
    if (!bar || event.ctrlKey || event.altKey || event.metaKey) return;
    const buttons = $$("button", bar);
    const here = buttons.indexOf(event.target);
    const to = { ArrowLeft: here - 1, ArrowRight: (here + 1) % buttons.length, Home: 0, End: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = buttons.at(to);
    next.focus();
    if (bar.matches("[role=toolbar]")) buttons.forEach((button) => { button.tabIndex = button === next ? 0 : -1; });
  });

  // == While somebody types: Ctrl+B, I and K, lists that continue, addresses that are pasted ==
  const ITEM = /^(\s*)(?:([-*+])|(\d{1,9})([.)]))(\s+)(\[[ xX]\]\s+)?/;

  function continueList(field) { // with its next item; returns whether the caret is in a list
    const { value, selectionStart: place } = field;
    const start = value.lastIndexOf("\n", place - 1) + 1;
    const line = value.slice(start, `${value}\n`.indexOf("\n", place));
    const item = ITEM.exec(line);
    if (!item || field.selectionEnd !== place || place < start + item[0].length) return false;
    const [whole, indent, bullet, number, dot, space, box] = item;
    if (line.slice(whole.length).trim()) type(`\n${indent}${bullet || Number(number) + 1 + dot}${space}${box ? "[ ] " : ""}`);
    else replace(field, start, start + line.length, "");
    return true;
  }

  on("keydown", (event) => {
    if (!event.target.matches("textarea.prose") || event.isComposing || event.altKey || event.shiftKey || event.defaultPrevented) return;
    const withControl = event.ctrlKey || event.metaKey;
    const kind = withControl && { b: "bold", i: "italic", k: "link" }[event.key.toLowerCase()];
    if (kind) format(event.target, kind);
    else if (withControl || event.key !== "Enter" || !continueList(event.target)) return;
    event.preventDefault();
  });

  on("paste", (event) => { // an address of this site loses its host; an address pasted over words links them
    const field = event.target;
    const address = event.clipboardData.getData("text/plain").trim();
    if (!field.matches("textarea.prose") || !ADDRESS.test(address)) return;
    const { value, selectionStart: start, selectionEnd: end } = field;
    const [before, chosen] = [value.slice(0, start), value.slice(start, end)];
    const isOurs = address.startsWith(`${location.origin}/`);
    const isPart = /[(<`\][]$/.test(before) || ADDRESS.test(chosen.trim()) || /[\n\][]/.test(chosen);
    if (isPart ? !isOurs || before.endsWith("<") : !isOurs && !chosen) return; // it stays as it is
    event.preventDefault();
    const target = (isOurs ? address.slice(location.origin.length) : address).replaceAll("(", "%28").replaceAll(")", "%29");
    if (isPart) replace(field, start, end, target);
    else linkWords(field, chosen.trim(), target);
  });

  // == Uploads: files are sent immediately, one after the other, and the text gets a picture or a link ==
  let uploads = Promise.resolve(); // those under way

  function upload(event, form, files) {
    if (!form || !files.length) return;
    event.preventDefault();
    const chosen = [...files]; // the browser will empty its own list
    uploads = uploads.then(() => uploadAll(form, chosen));
  }

  async function uploadAll(form, files) {
    const place = $(".uploading", form);
    const refused = [];
    place.hidden = false;
    for (const [i, file] of files.entries()) {
      $("span", place).textContent = `Uploading ${file.name}${files.length > 1 ? ` (${i + 1} of ${files.length})` : ""}`;
      const words = await uploadOne(form, file);
      if (words) refused.push(words);
    }
    place.hidden = true;
    if (refused.length) refuse(form, refused.join(" "));
    else announce(`${counted(files.length, "file", "files")} uploaded.`);
  }

  async function uploadOne(form, file) { // returns why the file was refused, if it was
    const isTooLarge = file.size > form.dataset.upload * 1024 * 1024;
    const body = new FormData();
    body.append("upload", file, file.name || "picture.png");
    const answer = isTooLarge ? { status: 413 } : await post("/files", body);
    if (answer?.ok) return addUploaded(form, await answer.text());
    if (answer?.status === 413) return `${file.name} is larger than ${form.dataset.upload} MB.`;
    if (answer?.headers?.get("Content-Type")?.startsWith("text/plain")) return answer.text(); // says why
    if (answer?.status === 507) return `${file.name} wasn't uploaded: the server's disk is full. Tell an administrator.`;
    if (answer?.status === 400 || answer?.status === 401) return "You've been signed out. Save what you wrote, sign in again, and then add the file.";
    return `${file.name} wasn't uploaded. Try again in a moment.`;
  }

  function refuse(form, words) { // beside the file field, or below the text if the form has none
    const field = $("[data-uploads] input[type=file]", form) || $("textarea", form);
    field.setCustomValidity(words);
    field.reportValidity();
    field.setCustomValidity(""); // so that the form can be sent without the file
    announce(words);
  }

  function addUploaded(form, html) {
    const lines = new DOMParser().parseFromString(html, "text/html");
    const words = $$("[data-markdown]", lines).map((line) => line.dataset.markdown).join("\n\n");
    const field = $("textarea", form);
    $("[data-uploads] .attached", form)?.append(...$$("li", lines));
    if ($("#write-panel").hidden) showPreview(form, false);
    field.focus();
    type(`${gapBefore(field, field.selectionStart)}${words}\n\n`);
  }

  on("submit", async (event) => { // a form that is sent too early waits for its files
    if (!$(".uploading:not([hidden])", event.target)) return;
    event.preventDefault();
    event.stopPropagation();
    await uploads;
    event.target.requestSubmit(event.submitter);
  }, true);
  const uploadForm = (event) => event.target.closest?.("form[data-upload]");
  on("change", (event) => {
    if (event.target.type !== "file" || !uploadForm(event)) return;
    upload(event, uploadForm(event), event.target.files);
    event.target.value = ""; // otherwise the form would send them a second time
  });
  on("paste", (event) => {
    const isText = event.clipboardData.types.includes("text/plain"); // office programs add a picture of the text
    if (!isText) upload(event, uploadForm(event), event.clipboardData.files);
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    on(kind, (event) => {
      const form = uploadForm(event);
      if (!form || !event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      $("textarea", form).classList.toggle("is-over", kind === "dragover");
      if (kind === "drop") upload(event, form, event.dataTransfer.files);
    });
  }

  // == Names: people are offered while one types after an @, pages of the handbook after [[ ==
  const WORD_BEFORE = /[\p{Lu}\p{Ll}\p{Lt}\p{Nd}@＠﹫][./\\=&#%+_-]*$/u; // then an @ is within a word or an address
  const NAME_BEFORE = /[@＠﹫][\w.-]+[./\\=&#%+_-]$/; // as in @ana/@bo
  const NAME_BEGUN = /[@＠﹫]([\p{L}\p{N}._-]{0,32})$/u;
  const TITLE_BEGUN = /\[\[([^[\]|\n]{1,100})$/;
  let offers = null; // the open list, its field, and where the @ or the brackets are
  let refusedAt = -1; // where the @ is whose list was closed

  function nameBegun(field) { // returns where the name at the caret begins, and the address of its offers
    const end = field.selectionEnd;
    const before = field.value.slice(Math.max(0, end - 102), end);
    const title = TITLE_BEGUN.exec(before)?.[1];
    if (title) return { at: end - title.length - 2, address: `/pages/titles?${new URLSearchParams({ q: title })}` };
    const [at, name] = NAME_BEGUN.exec(before) || [];
    const earlier = before.slice(0, -at?.length);
    if (!at || (WORD_BEFORE.test(earlier) && !NAME_BEFORE.test(earlier))) return null;
    return { at: end - name.length - 1, address: `/mentions?${new URLSearchParams({ q: name, topic: topicOf(field.form) })}` };
  }

  async function offerNames(field) {
    const begun = nameBegun(field);
    if (!begun) refusedAt = -1;
    if (!begun || begun.at === refusedAt) return closeOffers();
    const answer = await fetch(begun.address).catch(() => null);
    const html = answer?.ok && !answer.redirected ? (await answer.text()).trim() : "";
    const isLate = nameBegun(field)?.address !== begun.address || document.activeElement !== field;
    if (isLate) return;
    closeOffers();
    if (html) showOffers(field, html, begun.at);
  }

  function showOffers(field, html, at) {
    const [label, one, many] = /[@＠﹫]/.test(field.value[at]) ? ["People", "person", "people"] : ["Pages", "page", "pages"];
    field.insertAdjacentHTML("afterend", `<ul class="offers" id="offers" role="listbox" aria-label="${label}">${html}</ul>`);
    field.setAttribute("aria-autocomplete", "list");
    field.setAttribute("aria-controls", "offers");
    offers = { field, list: field.nextElementSibling, at };
    placeOffers();
    moveInOffers(0);
    announce(`${counted(offers.list.children.length, one, many)}. Use arrow keys to choose, Enter to insert.`);
  }

  function placeOffers() { // below the @ and within the field; measured in a copy, as browsers don't say where a character is
    const { field, list, at } = offers;
    const [copy, mark, look] = [document.createElement("div"), document.createElement("span"), getComputedStyle(field)];
    for (const name of ["font", "letterSpacing", "padding", "borderWidth"]) copy.style[name] = look[name];
    copy.className = "field-copy";
    copy.style.width = `${field.clientWidth}px`;
    mark.textContent = "@";
    copy.append(field.value.slice(0, at), mark);
    field.after(copy);
    const below = mark.offsetTop + mark.offsetHeight + 4 - field.scrollTop;
    list.style.top = `${field.offsetTop + Math.min(below, field.clientHeight)}px`;
    list.style.left = `${field.offsetLeft + Math.max(0, Math.min(mark.offsetLeft, field.offsetWidth - list.offsetWidth))}px`;
    copy.remove();
  }
  addEventListener("resize", () => { if (offers) placeOffers(); });

  function closeOffers() {
    offers?.list.remove();
    for (const name of ["aria-controls", "aria-activedescendant", "aria-autocomplete"]) offers?.field.removeAttribute(name);
    offers = null;
  }

  function moveInOffers(by) {
    const options = [...offers.list.children];
    const here = Math.max(0, options.findIndex((option) => option.matches("[aria-selected=true]")));
    const next = options.at((here + by) % options.length);
    options.forEach((option) => option.setAttribute("aria-selected", option === next));
    offers.field.setAttribute("aria-activedescendant", next.id);
    next.scrollIntoView({ block: "nearest" });
  }

  function takeOffer(option) {
    const { field, at } = offers;
    const { username, title } = option.dataset;
    closeOffers();
    field.focus();
    const isClosed = title && field.value.startsWith("]]", field.selectionEnd);
    field.setSelectionRange(at, field.selectionEnd + (isClosed ? 2 : 0));
    type(title ? `[[${title}]]` : `@${username} `);
  }

  function pressInOffers({ key, shiftKey }) { // returns whether the list used the key
    if (key === "ArrowDown" || key === "ArrowUp") moveInOffers(key === "ArrowDown" ? 1 : -1);
    else if ((key === "Enter" || key === "Tab") && !shiftKey) takeOffer($("[aria-selected=true]", offers.list));
    else if (key === "Escape") refusedAt = offers.at;
    else if (/^(Arrow|Home|End)/.test(key)) return closeOffers();
    else return false;
    if (key === "Escape") closeOffers();
    return true;
  }

  on("keydown", (event) => {
    if (event.target !== offers?.field || event.isComposing || !pressInOffers(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
  on("mousedown", (event) => { if (event.target.closest(".offers")) event.preventDefault(); }); // the field keeps the focus
  on("click", (event) => { if (event.target.closest(".offer")) takeOffer(event.target.closest(".offer")); });
  on("focusout", (event) => { if (event.target === offers?.field) closeOffers(); });

  // == After each change; and on each page, and in each region that app.js replaces ==
  on("input", ({ target: field }) => {
    const form = field.form;
    if (!form) return;
    if ("draft" in form.dataset) keepDraft(form);
    if ("autosave" in form.dataset) scheduleAutosave(form);
    if (field.dataset.audience) showAudience(field);
    if (field.matches("select")) matchTopic(field);
    if (field.dataset.schedules) nameButton(field);
    if (field.matches("[data-mentions] textarea")) offerNames(field);
  });

  function prepare(root) {
    $$("[data-draft]", root).forEach(restoreDraft);
    showChoices(root);
  }
  prepare(document);
  on("replaced", (event) => prepare(event.target));
})();
