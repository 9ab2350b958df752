// Every page uses this file, and works without it. It reads data attributes:
//   data-swap="#id"      this form or button is sent in the background, and that region is replaced by the answer
//   data-along           this region is replaced whenever another one is replaced
//   data-confirm="…"     this button asks first
//   data-chooses="#id"   ticking a box in here ticks that one too
//   data-missing, data-length, data-mismatch   the message for a field that is empty, too short or long, or malformed
//   data-same-as="id"    this field repeats that one; data-differs has the message for when it does not
//   data-people          people to choose from: a search filters their checkboxes, and each one chosen has a chip
//   data-reveal="id"     this button shows and hides that password
//   data-react           this link opens the list of reactions
//   data-filter="#id"    this search replaces that region while somebody types; each result has data-item
//   data-live="#id"      this search shows its first results there while somebody types; data-count says how many
//   data-key="e"         this key clicks or focuses it
//   data-poll="/…"       the bell: the address that says how many notifications are unread
// On the body, data-shortcuts="off" disables the keys, and data-person says who is signed in.
(() => {
  "use strict";
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const on = (type, act, capture = false) => document.addEventListener(type, act, capture);
  const counted = (n, one, many) => `${n} ${n === 1 ? one : many}`;

  // == Messages ==
  function announce(words) { // to screen readers, which only notice a change
    $("#announce").textContent = "";
    setTimeout(() => { $("#announce").textContent = words; }, 50);
  }

  function showMessages(messages) {
    $("#flashes").replaceChildren(...messages);
    $("#flashes").classList.toggle("is-floating", messages.length > 0);
    for (const message of messages) {
      const close = document.createElement("button");
      Object.assign(close, { type: "button", className: "tool", ariaLabel: "Close this message" });
      close.innerHTML = '<i class="bi bi-x-lg" aria-hidden="true"></i>';
      close.addEventListener("click", () => message.remove());
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

  // == Drafts that were sent: editor.js stores them, but the page after the form may have no editor ==
  function settleDrafts(isAccepted) {
    const { person } = document.body.dataset;
    for (const key of Object.keys(sessionStorage).filter((name) => name.startsWith("draft:"))) {
      const draft = JSON.parse(sessionStorage.getItem(key));
      const isTheirs = person && !key.startsWith(`draft:${person}:`);
      if (isTheirs || (draft.sent && isAccepted(draft.sent))) sessionStorage.removeItem(key);
      else sessionStorage.setItem(key, JSON.stringify({ ...draft, sent: null }));
    }
  }
  // A form that was accepted is answered by a redirect from its own page, one that was refused by a page.
  const isRedirected = performance.getEntriesByType("navigation")[0]?.redirectCount > 0;
  settleDrafts((sentFrom) => isRedirected && document.referrer === sentFrom);

  // == Sending forms: ask first, never send twice, and stay on the page where a region can be replaced ==
  const question = $("#question");
  let askedAbout = null; // the button that the question is about
  on("click", (event) => {
    const button = event.target.closest("[data-confirm]");
    if (!button) return;
    event.preventDefault();
    askedAbout = button;
    $("#question-text").textContent = button.dataset.confirm;
    question.returnValue = "";
    question.showModal();
  });
  question.addEventListener("close", () => {
    if (question.returnValue === "yes") askedAbout.form.requestSubmit(askedAbout);
  });

  on("submit", (event) => {
    const [form, button] = [event.target, event.submitter];
    if (event.defaultPrevented || form.method !== "post") return;
    if (form.dataset.busy) return event.preventDefault();
    if (button && "download" in button.dataset) return; // the page stays, and so do its buttons
    if (button?.getAttribute("formaction") === "/logout") sessionStorage.clear();
    setBusy(form, button, true);
    button?.closest("[popover]")?.hidePopover();
    const target = button?.dataset.swap || form.dataset.swap;
    const region = target && $(target);
    if (!region) return;
    event.preventDefault();
    send(form, button, region);
  });

  function setBusy(form, button, busy) {
    if (busy) form.dataset.busy = "yes";
    else delete form.dataset.busy;
    button?.setAttribute("aria-busy", busy);
  }
  addEventListener("pageshow", () => { // also when the page comes back from the browser's history
    $$("[data-busy]").forEach((form) => setBusy(form, $("[aria-busy=true]"), false));
  });

  async function send(form, button, region) {
    const body = new URLSearchParams(new FormData(form, button));
    const address = button?.getAttribute("formaction") || form.action;
    try {
      const answer = await fetch(address, { method: "POST", body, headers: { "X-Requested-With": "fetch" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      setBusy(form, button, false);
      const fresh = page.getElementById(region.id);
      if (fresh) replace(region, fresh, page, form, button, answer);
      else if (page.body.dataset.person === "") sendAsPage(form, button); // signed out: the page that answers says so
      else complain(`${$("main h1", page)?.textContent.trim() || "That didn't work"}. What you wrote is still here.`);
    } catch {
      setBusy(form, button, false);
      complain("The site didn't answer. What you wrote is still here; try again in a moment.");
    }
  }

  function sendAsPage(form, button) {
    delete form.dataset.swap;
    delete button?.dataset.swap;
    form.requestSubmit(button);
  }

  function replace(region, fresh, page, form, button, answer) {
    const known = new Set($$("[id]", region).map((node) => node.id));
    region.replaceWith(fresh);
    for (const other of $$("[data-along]")) other.replaceWith(page.getElementById(other.id) || other);
    showMessages($$("#flashes .flash", page));
    settleDrafts(() => answer.ok);
    if (answer.redirected) history.replaceState(null, "", new URL(answer.url).pathname);
    focusOn(fresh, form, button, known);
    fresh.dispatchEvent(new CustomEvent("replaced", { bubbles: true })); // for editor.js
  }

  function focusOn(fresh, form, button, known) { // the field with a mistake, a new comment, the pressed reaction, or the heading
    const bad = $("[aria-invalid=true]", fresh);
    const added = form.id !== "act" && $$("article[id]", fresh).find((node) => !known.has(node.id));
    if (bad) return bad.focus();
    if (added) {
      location.replace(`#${added.id}`);
      added.focus({ preventScroll: true });
      return announce("Comment added.");
    }
    if (fresh.matches(".reactions")) return focusOnReaction(fresh, button.value);
    const heading = $("h1, h2", fresh) || fresh;
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }

  // == Fields: messages beside them, passwords that are repeated or shown, choices that imply another ==
  const MISTAKES = { valueMissing: "missing", tooShort: "length", tooLong: "length", patternMismatch: "mismatch", typeMismatch: "mismatch" };

  function wordsFor(field) { // the server's message for the same mistake, if the page has one
    const mistake = Object.keys(MISTAKES).find((name) => field.validity[name]);
    return field.dataset[MISTAKES[mistake]] || field.validationMessage;
  }

  function showMistake(field, words) {
    const place = document.getElementById(`${field.id}-error`);
    if (!place) return false;
    if (words) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
    place.hidden = !words;
    $("span", place).textContent = words;
    return true;
  }

  on("invalid", (event) => {
    if (!showMistake(event.target, wordsFor(event.target))) return;
    event.preventDefault();
    if ($(":invalid:not(fieldset)", event.target.form) === event.target) event.target.focus();
  }, true);
  on("input", ({ target: field }) => {
    for (const again of $$("[data-same-as]", field.form || document)) {
      const same = again.value === document.getElementById(again.dataset.sameAs).value;
      again.setCustomValidity(same ? "" : again.dataset.differs);
    }
    if (field.matches("[aria-invalid=true]") && field.validity.valid) showMistake(field, "");
  });
  on("change", (event) => {
    const group = event.target.closest("[data-chooses]");
    if (group && event.target.checked) $(group.dataset.chooses).checked = true;
  });
  on("click", (event) => {
    const button = event.target.closest("[data-reveal]");
    if (!button) return;
    const field = document.getElementById(button.dataset.reveal);
    const reveals = field.type === "password";
    field.type = reveals ? "text" : "password";
    button.setAttribute("aria-pressed", reveals);
    $("i", button).className = reveals ? "bi bi-eye-slash" : "bi bi-eye";
  });

  // == Choosing people: a search among the checkboxes, and a chip for each one that is ticked ==
  const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase().trim();
  const nameOf = (box) => box.closest("label").textContent.trim();

  function showChips(group) {
    const chips = $$(":checked", group).map((box) => {
      const chip = document.createElement("li");
      chip.innerHTML = '<button class="chip" type="button"><span></span> <i class="bi bi-x-lg" aria-hidden="true"></i></button>';
      $("span", chip).textContent = nameOf(box);
      Object.assign($("button", chip), { ariaLabel: `Remove ${nameOf(box)}`, value: box.id });
      return chip;
    });
    $(".chips", group).replaceChildren(...chips);
  }

  function choose(group, box, chosen) {
    box.checked = chosen;
    box.dispatchEvent(new Event("change", { bubbles: true }));
    announce(`${nameOf(box)} ${chosen ? "added" : "removed"}`);
    const search = $("input[type=search]", group);
    search.value = "";
    showMatches(group, "");
    search.focus();
  }

  function showMatches(group, words) {
    const people = $$("label.choice", group);
    for (const person of people) person.hidden = !plain(person.textContent).includes(plain(words));
    if (words) announce(`${counted(people.filter((person) => !person.hidden).length, "person", "people")} found`);
  }

  $$("[data-people]").forEach(showChips);
  on("change", (event) => {
    const group = event.target.closest("[data-people]");
    if (group) showChips(group);
  });
  on("input", (event) => {
    const group = event.target.matches("[type=search]") && event.target.closest("[data-people]");
    if (group) showMatches(group, event.target.value);
  });
  on("keydown", (event) => { // Enter takes the first one that is left, and sends nothing
    const group = event.key === "Enter" && event.target.matches("[type=search]") && event.target.closest("[data-people]");
    if (!group) return;
    event.preventDefault();
    const first = event.target.value.trim() && $("label:not([hidden]) input:not(:checked)", group);
    if (first) choose(group, first, true);
  });
  on("click", (event) => {
    const chip = event.target.closest("[data-people] .chip");
    if (chip) choose(chip.closest("[data-people]"), document.getElementById(chip.value), false);
  });

  // == Reactions: one list for every post and comment ==
  on("click", (event) => {
    const opener = event.target.closest("[data-react]");
    const picker = $("#picker");
    if (!opener || !picker || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const region = opener.closest(".reactions");
    for (const button of $$("button", picker)) {
      const isMine = $(`[name=remove][value=${button.value}]`, region) !== null;
      button.name = isMine ? "remove" : "add";
      button.setAttribute("aria-pressed", isMine);
      button.setAttribute("formaction", opener.getAttribute("href"));
      button.dataset.swap = `#${region.id}`;
    }
    picker.showPopover({ source: opener });
    $("button", picker).focus();
  });

  function focusOnReaction(region, kind) {
    const given = $(`[value=${kind}]`, region);
    (given || $("a", region)).focus();
    announce(given ? given.title : "Reaction removed.");
  }

  // == Search while somebody types ==
  let asking = new AbortController(); // of the request under way: a newer one aborts it

  async function ask(address) {
    asking.abort();
    const { signal } = (asking = new AbortController());
    await new Promise((done) => setTimeout(done, 150)); // until the typing pauses
    if (signal.aborted) return null;
    const answer = await fetch(address, { signal }).catch(() => null);
    const isAnswer = answer?.ok && !answer.redirected;
    return isAnswer ? answer.text().catch(() => null) : null;
  }

  on("input", async (event) => {
    const form = event.target.closest("[data-filter]");
    if (!form) return;
    const words = event.target.value.trim();
    const address = words ? `${form.action}?q=${encodeURIComponent(words)}` : form.action;
    const html = await ask(address);
    if (html === null) return;
    const fresh = $(form.dataset.filter, new DOMParser().parseFromString(html, "text/html"));
    $(form.dataset.filter).replaceWith(fresh);
    history.replaceState(null, "", address);
    announce(words ? `${counted($$("[data-item]", fresh).length, "person", "people")} found` : "Everyone is shown");
  });

  // == The search in the header: arrow keys move through its results ==
  const find = $("[data-live] input");
  const live = find && $(find.form.dataset.live);

  async function showLive(words) {
    const html = await ask(`${find.form.action}?part=live&q=${encodeURIComponent(words)}`);
    if (!html || document.activeElement !== find) return;
    live.innerHTML = html;
    live.hidden = false;
    find.setAttribute("aria-expanded", "true");
    find.removeAttribute("aria-activedescendant");
    const { count, more } = $("[data-count]", live).dataset;
    announce(`${more === undefined ? "" : "More than "}${counted(Number(count), "result", "results")} found`);
  }

  function closeLive() {
    asking.abort();
    live.hidden = true;
    find.setAttribute("aria-expanded", "false");
    find.removeAttribute("aria-activedescendant");
  }

  function moveInLive(by) {
    const options = $$("[role=option]", live);
    const here = options.findIndex((option) => option.matches("[aria-selected=true]"));
    const next = options.at((here + by + (here < 0 && by < 0 ? 1 : 0)) % options.length);
    options.forEach((option) => option.setAttribute("aria-selected", option === next));
    find.setAttribute("aria-activedescendant", next.id);
    next.scrollIntoView({ block: "nearest" });
  }

  function pressInFind(event) {
    const chosen = !live.hidden && $("[aria-selected=true]", live);
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape" && live.hidden) { find.value = ""; find.blur(); }
    else if (event.key === "Escape") closeLive();
    else if (event.key === "Enter" && chosen) chosen.click();
    else if (by && !live.hidden) moveInLive(by);
    else return;
    event.preventDefault();
  }

  if (find) {
    find.addEventListener("input", () => {
      const words = find.value.trim();
      if (words.length > 1 || /[^\x00-\x7f]/.test(words)) showLive(words); // one Chinese character is a word
      else closeLive();
    });
    find.addEventListener("keydown", pressInFind);
    find.form.addEventListener("focusout", (event) => { if (!find.form.contains(event.relatedTarget)) closeLive(); });
    live.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays in the field until the click
  }

  // == The tree beside a page of the handbook ==
  on("click", (event) => {
    const twist = event.target.closest(".twist");
    if (twist) twist.setAttribute("aria-expanded", twist.getAttribute("aria-expanded") === "false");
  });
  const tree = $(".book-tree");
  const leaf = tree && $("[aria-current]", tree);
  if (leaf) tree.scrollTop = leaf.getBoundingClientRect().top - tree.getBoundingClientRect().top - tree.clientHeight / 2;

  // == Keys: a single key, outside of fields, dialogs and menus ==
  const STEPS = ".post :is(h2, h3) a, .rows a.row-main, .rows .row-main > a, .listing tbody th a, .card-person :is(h2, h3) a, .comment";

  function step(by) { // to the next or the previous thing that the page lists
    const items = $$(STEPS, $("main")).filter((item) => item.checkVisibility());
    const here = items.findLastIndex((item) => item.contains(document.activeElement));
    const isNowhere = document.activeElement === document.body;
    const first = Math.max(0, isNowhere ? items.findIndex((item) => item.getBoundingClientRect().top > 0) : 0);
    const next = items[here >= 0 ? here + by : by > 0 ? first : -1];
    if (!next) return;
    next.focus({ preventScroll: true, focusVisible: true });
    (next.closest("article, li, tr") || next).scrollIntoView({ block: "nearest" });
  }

  on("keydown", (event) => {
    const isElsewhere = event.target.closest("input, textarea, select") || $("dialog[open], :popover-open");
    const isOff = document.body.dataset.shortcuts === "off";
    if (isElsewhere || isOff || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j" || event.key === "k") return step(event.key === "j" ? 1 : -1);
    const named = `[data-key="${CSS.escape(event.key)}"]`;
    const target = $(named, event.target.closest("article") || document) || $(named);
    if (!target) return;
    event.preventDefault();
    if (target.matches("input")) target.focus();
    else target.click();
  });

  // == Tables and code: where they are wider than their place, the keyboard reaches them and scrolls them ==
  function markScrollers() {
    for (const table of $$(".prose table:not(.scrolls > table)")) {
      const frame = document.createElement("div");
      frame.className = "scrolls";
      table.replaceWith(frame);
      frame.append(table);
    }
    for (const corner of $$(".prose th:empty")) corner.replaceWith(document.createElement("td")); // it is over nothing
    $$(".prose :is(.scrolls, pre)").forEach((part, i) => {
      const scrolls = part.scrollWidth > part.clientWidth;
      const kind = part.matches("pre") ? "Code" : "Table";
      if (scrolls) part.tabIndex = 0;
      else part.removeAttribute("tabindex");
      part.role = scrolls ? "region" : null;
      part.ariaLabel = scrolls ? `${kind} ${i + 1}, scrolls sideways` : null;
    });
  }
  new ResizeObserver(markScrollers).observe(document.body); // also when a preview or a comment makes the page longer

  // == The topics above a list: the one that the page shows is in sight ==
  $(".strip [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center", behavior: "instant" });
  // == Pictures: a click opens them large, with all those of the same post or comment ==
  const PICTURES = ":is(.prose, .files) a[href^='/files/']:has(> img)";
  const SHOWN_MOST = 5; // of a gallery; the last one says how many more there are
  const lightbox = $("#lightbox");
  let [links, at] = [[], 0];

  function openPictures(link) {
    links = $$(PICTURES, link.closest("article, .preview"));
    lightbox.showModal();
    showPicture(links.indexOf(link));
  }

  function showPicture(place) {
    at = (place + links.length) % links.length;
    const [link, article] = [links[at], links[at].closest("article")];
    const [picture, { alt }] = [$("img", lightbox), $("img", link)];
    Object.assign(picture, { src: link.href, alt });
    const facts = article ? [$(".who", article), $("time", article)] : [];
    const small = document.createElement("small");
    small.textContent = facts.map((fact) => fact?.textContent.trim()).filter(Boolean).join(", ");
    $("figcaption", lightbox).replaceChildren(alt, small);
    $("p", lightbox).textContent = `${at + 1} of ${links.length}`;
    $("a", lightbox).href = link.href;
    for (const button of $$("[data-by]", lightbox)) button.hidden = links.length < 2;
    for (const by of [1, -1]) new Image().src = links.at((at + by) % links.length).href; // so that the next one is there
  }

  on("click", (event) => {
    const link = event.target.closest?.(PICTURES);
    if (!link || !lightbox || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openPictures(link);
  });

  lightbox?.addEventListener("click", (event) => {
    const button = event.target.closest("[data-by]");
    if (button) showPicture(at + Number(button.dataset.by));
    else if (!event.target.closest("a, img, figcaption")) lightbox.close();
  });
  lightbox?.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: -1 }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    showPicture(to);
  });
  lightbox?.addEventListener("close", () => {
    $("img", lightbox).removeAttribute("src");
    (links[at].checkVisibility() ? links[at] : links.find((link) => link.checkVisibility())).focus();
  });
  let touched = null; // where a finger came down
  lightbox?.addEventListener("touchstart", (event) => { touched = event.touches.length === 1 ? event.touches[0] : null; }, { passive: true });
  lightbox?.addEventListener("touchend", (event) => {
    const [across, down] = touched ? ["clientX", "clientY"].map((name) => event.changedTouches[0][name] - touched[name]) : [0, 0];
    if (Math.abs(across) > 50 && Math.abs(across) > 2 * Math.abs(down)) showPicture(at + (across < 0 ? 1 : -1));
  });

  function foldGalleries(root) {
    for (const gallery of $$(".gallery:not(:has(button))", root)) {
      const more = gallery.children.length - SHOWN_MOST;
      if (more < 1) continue;
      gallery.classList.add("is-folded");
      gallery.children[SHOWN_MOST - 1].dataset.more = `+${more}`;
    }
  }
  foldGalleries(document);
  on("replaced", (event) => foldGalleries(event.target));

  // == Files dropped where none belong: the page stays. editor.js takes them where a form does ==
  for (const kind of ["dragover", "drop"]) {
    on(kind, (event) => {
      if (!event.dataTransfer.types.includes("Files") || event.target.closest?.("input[type=file]")) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "none";
    });
  }

  // == The bell: how many notifications are unread, while the page is visible ==
  const POLL_EVERY = 20000;
  const bell = $("[data-poll]");
  const title = document.title;
  let [polling, failures, unread] = [0, 0, 0];

  function showUnread(count) {
    const badge = $("b", bell);
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
    const answer = await fetch(bell.dataset.poll).catch(() => null);
    if (answer?.redirected || answer?.status === 401) return; // signed out
    if (answer?.ok) showUnread((await answer.json()).unread);
    failures = answer?.ok ? 0 : Math.min(failures + 1, 6);
    schedulePoll();
  }

  function schedulePoll() { // pages poll at different moments, and less often while the site doesn't answer
    clearTimeout(polling);
    polling = setTimeout(poll, POLL_EVERY * 2 ** failures * (0.8 + Math.random() * 0.4));
  }

  if (bell) {
    unread = parseInt($("b", bell).textContent, 10) || 0;
    if (unread) document.title = `(${unread}) ${title}`;
    schedulePoll();
    on("visibilitychange", poll);
  }
})();
