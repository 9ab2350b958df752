// Pages with an editor use this file, and their forms work without it. It reads data attributes:
//   data-draft           this form's unsent fields are kept in this tab, and leaving the page asks first
//   data-autosave="/…"   they are saved on the site too, as a draft, a few seconds after each change
//   data-audience="id"   the chosen option's data-seen-by is shown there: who will see the post
//   data-under="id"      a page chosen here, with its data-topic, sets that field; a page of another topic is let go
//   data-schedules="id"  a time later than data-clock in this field changes that button from data-now to data-later
//   data-editor="/…"     the address of this form's preview; #preview-panel shows it in place of #write-panel
//   data-format="bold"   this button formats the selected text
//   data-mentions="id"   an @ in this form offers people: first those of that topic, or of the one chosen in the form
//   data-upload="25"     files chosen or pasted in this form, or dropped on the page (up to that many MB), are uploaded immediately
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
    tellAutosaved(`Saved ${new Date().toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`);
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
    else panel.textContent = "The preview isn't available right now. What you wrote is still here.";
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

  const LINK = /(?<!!)\[((?:[^[\]\\]|\\.)*)\]\(([^()\s]*)\)/g;
  let linked = null; // what the dialog for a link is about: the field, and which of its letters the link replaces

  function link(field) { // ask for words and address, which those at the caret begin with
    const { value, selectionStart: start, selectionEnd: end } = field;
    const found = [...value.matchAll(LINK)].find((match) => match.index <= start && end <= match.index + match[0].length);
    const chosen = value.slice(start, end).trim();
    linked = found ? { field, start: found.index, end: found.index + found[0].length } : { field, start, end };
    const [dialog, isAddress] = [$("#link"), ADDRESS.test(chosen)];
    const { words, address } = $("form", dialog).elements;
    words.value = found ? found[1].replace(/\\(.)/g, "$1") : isAddress ? "" : chosen.replace(/\s+/g, " ");
    address.value = found ? found[2] : isAddress ? chosen : "";
    $("h2", dialog).textContent = found ? "Edit link" : "Add link";
    $("[value=remove]", dialog).hidden = !found;
    dialog.returnValue = "";
    dialog.showModal();
    (words.value ? address : words).focus();
  }

  function fullAddress(typed) { // returns it with the scheme that people leave out
    const address = typed.trim().replace(/[\s()<>\\]/g, (letter) => `%${letter.charCodeAt(0).toString(16).padStart(2, "0")}`);
    if (/^([a-z][a-z\d+.-]*:(?!\d)|[/#])/i.test(address)) return address;
    return /^[^/]+@[^/]+$/.test(address) ? `mailto:${address}` : `https://${address}`;
  }

  $("#link")?.addEventListener("close", ({ target: dialog }) => {
    const { field, start, end } = linked;
    const { words, address } = $("form", dialog).elements;
    const said = words.value.trim().replace(/[\\[\]]/g, "\\$&");
    if (dialog.returnValue === "save") replace(field, start, end, `[${said || fullAddress(address.value)}](${fullAddress(address.value)})`);
    else if (dialog.returnValue === "remove") replace(field, start, end, said);
    else field.focus();
  });

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
  // The parts of a line: quotes, indent, bullet or number with its dot, space, box.
  const ITEM = /^((?: {0,3}> ?)*)(\s*)(?:([-*+])|(\d{1,9})([.)]))(\s+)(\[[ xX]\]\s+)?/;
  const QUOTED = /^(?: {0,3}> ?)+/;

  function lineAt(field, place = field.selectionStart) { // returns where a line begins and ends, what it says, and its item
    const start = field.value.lastIndexOf("\n", place - 1) + 1;
    const end = `${field.value}\n`.indexOf("\n", place);
    const text = field.value.slice(start, end);
    const item = ITEM.exec(text) || [QUOTED.exec(text)?.[0] || ""];
    const [whole, quotes = whole, indent = "", bullet, number, dot, space, box] = item;
    return { start, end, text, mark: whole, isEmpty: !text.slice(whole.length).trim(), quotes, indent, bullet, number: Number(number), dot, space, box };
  }

  const width = (item) => (item.bullet || item.number + item.dot).length + item.space.length;

  function markOf(item, number) { // returns what the next item of its list begins with
    return `${item.quotes}${item.indent}${item.bullet || number + item.dot}${item.space}${item.box ? "[ ] " : ""}`;
  }

  function renumber(text, item, number, by) { // and add that to the numbers which went on from this one
    const lines = text.split("\n");
    for (let i = 0; i < lines.length; i += 1) {
      const [whole, quotes, indent, bullet, found] = ITEM.exec(lines[i]) || [];
      const isInner = whole ? indent.length > item.indent.length : /^\s*(>\s*)*\s{2,}\S/.test(lines[i]);
      if (isInner) continue;
      if (!whole || bullet || indent !== item.indent || quotes !== item.quotes || Number(found) !== number) break;
      lines[i] = lines[i].replace(/\d+/, String(number + by));
      number += 1;
    }
    return lines.join("\n");
  }

  function changeLine(field, from, words, item, number, by) { // and number the items below anew, in one step for Ctrl+Z
    const { value, selectionEnd: caret } = field;
    const end = `${value}\n`.indexOf("\n", caret);
    const below = item.number && by ? renumber(value.slice(end + 1), item, number, by) : value.slice(end + 1);
    let [same, old] = [0, value.slice(end + 1)]; // what is the same at the end stays untouched
    while (same < old.length && same < below.length && old.at(-1 - same) === below.at(-1 - same)) same += 1;
    const rest = below === old ? "" : value.slice(caret, end + 1) + below.slice(0, below.length - same);
    replace(field, from, below === old ? caret : value.length - same, words + rest, words.length, words.length);
  }

  function continueList(field) { // with its next item, or the next line of a quote; returns whether the caret is in one
    const line = lineAt(field);
    const { start, end, mark, isEmpty, quotes, indent } = line;
    if (!mark || field.selectionStart < start + mark.length || isInCode(field.value.slice(0, start))) return false;
    if (!isEmpty) changeLine(field, field.selectionStart, `\n${line.space ? markOf(line, line.number + 1) : quotes}`, line, line.number + 1, 1);
    else if (indent && nest(field, true)) return true;
    else replace(field, start, end, line.space ? quotes.trimEnd() && `${quotes.trimEnd()} ` : "");
    return true;
  }

  function itemAbove(field, line, isOuter) { // returns the item before this one that stands as deep, or the one around it
    for (let above = line; above.start > 0;) {
      above = lineAt(field, above.start - 1);
      if (!above.text.slice(above.quotes.length).trim()) return null;
      if (above.space && above.indent.length < line.indent.length) return isOuter ? above : null;
      if (above.space && above.indent.length === line.indent.length && !isOuter) return above;
    }
    return null;
  }

  function nest(field, isBack) { // make an item part of the one above it, or take it out again; returns whether it could be
    const line = lineAt(field);
    const other = line.space && field.selectionEnd <= line.end && itemAbove(field, line, isBack);
    if (!other) return false;
    const indent = isBack ? other.indent : `${other.indent}${" ".repeat(width(other))}`;
    const before = isBack ? null : lastInside(field, line, indent);
    const number = isBack ? other.number + 1 : before?.number ? before.number + 1 : 1;
    const words = markOf({ ...(isBack ? other : line), quotes: line.quotes, indent, box: "" }, number) + (line.box || "");
    const place = Math.max(0, field.selectionStart - line.start - line.mark.length);
    const [list, by] = isBack ? [other, 1] : [line, -1]; // that the item comes to, or leaves
    field.setSelectionRange(line.start, line.start + line.mark.length);
    changeLine(field, line.start, words, list, list.number + 1, by);
    field.setSelectionRange(line.start + words.length + place, line.start + words.length + place);
    return true;
  }

  function lastInside(field, line, indent) { // returns the item just above that stands as deep as this one will
    const above = line.start > 0 && lineAt(field, line.start - 1);
    return above && above.space && above.indent.length === indent.length ? above : null;
  }

  let leavesByTab = false; // after Esc, the Tab key leaves the field
  on("keydown", (event) => {
    if (!event.target.matches("textarea.prose") || event.isComposing || event.altKey || event.defaultPrevented) return;
    const [field, withControl] = [event.target, event.ctrlKey || event.metaKey];
    const kind = withControl && !event.shiftKey && { b: "bold", i: "italic", k: "link" }[event.key.toLowerCase()];
    const isNested = event.key === "Tab" && !withControl && !leavesByTab && nest(field, event.shiftKey);
    if (event.key !== "Shift") leavesByTab = event.key === "Escape";
    if (isNested) announce("Press Escape and then Tab to leave the text.");
    else if (kind) format(field, kind);
    else if (withControl || event.shiftKey || event.key !== "Enter" || !continueList(field)) return;
    event.preventDefault();
  });
  on("focusin", () => { leavesByTab = false; });

  on("input", ({ target: field, inputType, data }) => { // who types the mark that Enter has put there already, wants one
    if (inputType !== "insertText" || data !== " " || !field.matches("textarea.prose")) return;
    const { start, mark, text, quotes, indent, bullet, number, dot } = lineAt(field);
    const typed = text.slice(mark.length);
    const isSame = field.selectionEnd === start + text.length && (typed === `${bullet || number + dot} ` || typed === "[ ] ");
    if (mark && isSame) replace(field, start + mark.length, start + text.length, "");
  });

  on("submit", ({ target: form }) => { // the item that Enter began last, and nobody wrote, is not sent
    for (const field of $$("textarea.prose", form)) field.value = field.value.replace(/\n[\s>]*(?:[-*+]|\d{1,9}[.)])(?:\s+\[ \])?\s*$/, "");
  }, true);

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

  // == What is pasted: text with a form becomes Markdown, cells become a table; Ctrl+Z brings the plain text back ==
  const PASTED_MOST = { letters: 2_000_000, nodes: 50_000, rows: 500, columns: 50 };
  const UNSEEN = "head, title, script, template, noscript, nav, svg, button, select, textarea, iframe, object, [hidden]";
  const BLOCKS = "address, article, aside, blockquote, caption, center, dd, details, div, dl, dt, fieldset, figcaption, figure, "
    + "footer, form, h1, h2, h3, h4, h5, h6, header, hr, li, main, ol, p, pre, section, summary, table, td, th, tr, ul";
  const BULLETS = { "•": 0, "●": 0, "·": 0, "‣": 0, "\uf0b7": 0, "o": 1, "◦": 1, "○": 1, "§": 2, "▪": 2, "■": 2, "\uf0a7": 2 }; // and how deep
  const BULLET = /^\s*(?:[•●·‣\uf0b7◦○§▪■\uf0a7][\s\u00a0]+|o(?:\t|[\s\u00a0]{2,})[\s\u00a0]*)/;

  function fromHtml(html) { // returns Markdown, or nothing where the plain text says the same
    if (!html || html.length > PASTED_MOST.letters) return "";
    const page = new DOMParser().parseFromString(withoutStyle(html), "text/html");
    const isTooLarge = (table) => table.rows.length > PASTED_MOST.rows || [...table.rows].some((row) => row.cells.length > PASTED_MOST.columns);
    if ($$("*", page).length > PASTED_MOST.nodes || $$("table", page).some(isTooLarge)) return "";
    readStyles(page);
    const sheet = newSheet();
    read(page.body, sheet, {}, { isLine: true });
    endBlock(sheet, { isLine: true });
    return sheet.isRich ? join(sheet.entries) : "";
  }

  // The browser would report each style as a violation of the site's policy. A title holds any text, as a style sheet does.
  const withoutStyle = (html) => html.replace(/<(\/?)style\b/gi, "<$1title")
    .replace(/<[a-z][^>]*>/gi, (tag) => tag.replace(/(\s)(style|on\w+)(?=\s*=)/gi, "$1data-$2"));

  const newSheet = (isCell = false) => ({ entries: [], runs: [], numbers: [], isCell, isRich: false }); // blocks, and the text of the next

  function readStyles(page) { // data-look says what an element's classes and its own style say
    const looks = {};
    for (const [, names, look] of $$("title", page).map((sheet) => sheet.textContent).join("\n").matchAll(/([^{}]*)\{([^{}]*)\}/g)) {
      for (const [, name] of names.matchAll(/\.([\w-]+)\s*(?=,|$)/g)) looks[name] = `${looks[name] || ""};${look}`;
    }
    for (const node of $$("[class], [data-style]", page)) {
      node.dataset.look = [...[...node.classList].map((name) => looks[name]), node.dataset.style].filter(Boolean).join(";");
    }
  }

  function lookOf(node, name) { // returns the last value of that property, or nothing
    const values = [...(node.dataset.look || "").matchAll(new RegExp(`(?:^|[;\\s])${name}\\s*:([^;]*)`, "gi"))];
    return values.length ? values.at(-1)[1].trim().toLowerCase() : "";
  }

  function marksIn(node, marks) { // returns how text in this element looks, within what is around it
    const [weight, slant, space] = ["font-weight", "font-style", "white-space"].map((name) => lookOf(node, name));
    return {
      href: node.matches("a[href]") ? addressOf(node) : marks.href,
      bold: !marks.isTitle && (weight ? /^bold/.test(weight) || weight >= 600 : node.matches("b, strong") || marks.bold),
      italic: slant ? /italic|oblique/.test(slant) : node.matches("i, em") || marks.italic,
      strike: node.matches("s, strike, del") || /line-through/.test(lookOf(node, "text-decoration(?:-line)?")) || marks.strike,
      code: node.matches("code, kbd, samp, tt") || marks.code,
      isTitle: marks.isTitle,
      keepsLines: space ? space.startsWith("pre") : node.matches("pre") || marks.keepsLines,
    };
  }

  function addressOf(link) { // returns where a link leads, if Markdown can say it
    const address = link.getAttribute("href").trim();
    if (!/^(https?:\/\/|mailto:|tel:)/i.test(address) || link.matches(".anchor, .mention")) return "";
    const local = address.startsWith(`${location.origin}/`) ? address.slice(location.origin.length) : address;
    return local.replace(/[\s()<>\\]/g, (letter) => `%${letter.charCodeAt(0).toString(16).padStart(2, "0")}`);
  }

  const isSeen = (node) => !node.matches(UNSEEN) && lookOf(node, "display") !== "none" && lookOf(node, "mso-hide") !== "all";

  function read(parent, sheet, marks, around) {
    for (const node of parent.childNodes) {
      if (node.nodeType === Node.TEXT_NODE) addText(node.data, sheet, marks);
      else if (node.nodeType === Node.ELEMENT_NODE && isSeen(node)) readElement(node, sheet, marks, around);
    }
  }

  function addText(text, sheet, marks) {
    const clean = text.replace(/[\u200b\ufeff\u00ad]/g, "");
    const lines = marks.keepsLines ? clean.split(/\r?\n/) : [clean];
    lines.forEach((line, i) => {
      if (i) sheet.runs.push({ isBreak: true });
      sheet.runs.push({ ...marks, text: line.replace(/[\s\u00a0]+/g, " ") });
    });
  }

  const READERS = {
    br: (_node, sheet) => sheet.runs.push({ isBreak: true }), img: readPicture, input: readBox,
    hr: (_node, sheet) => sheet.entries.push({ text: "---" }), pre: readCode, blockquote: readQuote, table: readTable,
    ul: readList, ol: readList, h1: readHeading, h2: readHeading, h3: readHeading, h4: readHeading, h5: readHeading, h6: readHeading,
  };

  function readElement(node, sheet, marks, around) {
    const [reader, inner] = [READERS[node.localName], marksIn(node, marks)];
    if (!node.matches(BLOCKS)) return reader ? reader(node, sheet, inner) : read(node, sheet, inner, around);
    endBlock(sheet, around);
    (reader || readParagraph)(node, sheet, inner, around);
  }

  function readPicture(node, sheet, marks) { // one of this site stays, a symbol is its character, all others are left out
    const alt = node.alt.trim();
    const own = [node.closest("a")?.href, node.src].find((address) => address?.startsWith(`${location.origin}/files/`));
    if (own) sheet.runs.push({ text: `![${escape(alt)}](${own.slice(location.origin.length)})`, isMarkdown: true, code: true });
    else if (!/[\p{L}\p{N}]/u.test(alt)) addText(alt, sheet, marks);
  }

  function readBox(node, sheet, marks) {
    if (node.type === "checkbox") addText(node.checked ? "[x] " : "[ ] ", sheet, marks);
  }

  function readCode(node, sheet, marks, around) {
    if (sheet.isCell) return readParagraph(node, sheet, { ...marks, code: true }, around);
    const fence = "`".repeat(Math.max(3, ...[...node.textContent.matchAll(/`+/g)].map(([ticks]) => ticks.length + 1)));
    addBlock(sheet, around, `${fence}\n${node.textContent.replace(/\n$/, "")}\n${fence}`);
  }

  function readQuote(node, sheet, marks, around) {
    if (sheet.isCell) return readParagraph(node, sheet, marks, around);
    const inner = newSheet();
    read(node, inner, marks, { isLine: true });
    endBlock(inner, { isLine: true });
    addBlock(sheet, around, join(inner.entries).replace(/^(?=.)/gm, "> ").replace(/^$/gm, ">"));
    sheet.isRich = true;
  }

  function readHeading(node, sheet, marks, around) {
    if (sheet.isCell) return readParagraph(node, sheet, marks, around);
    const words = linesOf(node, { ...marks, bold: false, isTitle: true }).join(" ");
    if (words) addBlock(sheet, {}, `${"#".repeat(Number(node.localName[1]))} ${words}`);
    sheet.isRich = true;
  }

  function readParagraph(node, sheet, marks, around) {
    const before = sheet.entries.length;
    const space = lookOf(node, "margin-bottom") || lookOf(node, "margin").split(/\s+/).at(lookOf(node, "margin").split(/\s+/).length > 2 ? 2 : 0);
    const isLine = !node.matches("p, dl") || (space !== "" && parseFloat(space) < 0.1);
    const place = around.level === undefined ? itemOfWord(node, sheet) || { isLine } : around;
    if (node.matches("li")) place.mark ??= "- ";
    read(node, sheet, marks, place);
    endBlock(sheet, place);
    if (sheet.entries.length === before && node.matches("p, div") && !$("img", node)) sheet.entries.push({ text: "" }); // an empty line
  }

  function itemOfWord(node, sheet) { // Word writes the items of lists as paragraphs
    const level = Number(/level(\d)/.exec(lookOf(node, "mso-list"))?.[1]) - 1;
    if (!(level >= 0)) return null;
    const sign = $$("[data-look]", node).find((part) => lookOf(part, "mso-list") === "ignore");
    const number = /^\(?(?:[\d.]*?(\d+)|[a-z]+)[.)]+$/i.exec(sign?.textContent.trim() || "");
    sign?.remove();
    sheet.numbers.length = Math.min(sheet.numbers.length, level + 1);
    if (number) sheet.numbers[level] = Number(number[1]) || (sheet.numbers[level] || 0) + 1;
    return { level, mark: number ? `${sheet.numbers[level]}. ` : "- " };
  }

  function readList(list, sheet, marks, around) {
    const level = around.level === undefined ? 0 : around.level + 1;
    let number = Number(list.getAttribute("start") || 1);
    for (const node of [...list.children].filter(isSeen)) {
      if (!node.matches("li")) { readElement(node, sheet, marks, { level }); continue; } // a list within a list
      const deep = Number(node.getAttribute("aria-level") || node.dataset.ariaLevel || level + 1) - 1;
      const box = node.matches("[role=checkbox]") ? `[${node.ariaChecked === "true" ? "x" : " "}] ` : "";
      number = Number(node.getAttribute("value") || number);
      const item = { level: deep, mark: (list.matches("ol") ? `${number++}. ` : "- ") + box };
      read(node, sheet, marksIn(node, marks), item);
      endBlock(sheet, item);
    }
  }

  function linesOf(node, marks) { // returns the lines of a title or a cell
    const sheet = newSheet(true);
    read(node, sheet, marks, {});
    endBlock(sheet, {});
    return sheet.entries.flatMap(({ text }) => text.split("\n")).filter(Boolean);
  }

  function readTable(table, sheet, marks, around) {
    if (table.caption) readParagraph(table.caption, sheet, marks, around);
    const isLayout = sheet.isCell || $("table", table) || table.matches("[role=presentation]");
    const rows = isLayout ? [] : cellsOf(table, marks);
    if (rows.length && rows[0].length > 1) addBlock(sheet, around, tableOf(rows));
    else for (const row of table.rows) for (const cell of row.cells) if (isSeen(cell)) readParagraph(cell, sheet, marksIn(cell, marks), around);
    sheet.isRich ||= rows.length > 0;
  }

  function cellsOf(table, marks) { // returns rows of texts, without the empty rows and columns
    const rows = [...table.rows].filter(isSeen);
    const grid = rows.map(() => []);
    rows.forEach((row, y) => {
      for (const cell of [...row.cells].filter(isSeen)) placeCell(grid, y, cell, linesOf(cell, marksIn(cell, { ...marks, isTitle: y === 0 })).join(" / "));
    });
    return withoutEmpty(grid);
  }

  function placeCell(grid, y, cell, text) { // a cell that spans others leaves them empty
    let x = 0;
    while (grid[y][x] !== undefined) x += 1;
    for (let down = 0; down < cell.rowSpan && grid[y + down]; down += 1) {
      for (let along = 0; along < cell.colSpan && x + along < PASTED_MOST.columns; along += 1) grid[y + down][x + along] = down || along ? "" : text;
    }
  }

  function withoutEmpty(grid) {
    const width = Math.max(0, ...grid.map((row) => row.length));
    const used = [...Array(width).keys()].filter((x) => grid.some((row) => row[x]));
    return grid.filter((row) => row.some(Boolean)).map((row) => used.map((x) => row[x] || ""));
  }

  function tableOf([head, ...rows]) {
    const line = (cells) => `| ${cells.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`;
    return [line(head), `|${"---|".repeat(head.length)}`, ...rows.map(line)].join("\n");
  }

  function endBlock(sheet, around) { // what was read since the last block is one
    const { runs } = sheet;
    if (!runs.length) return;
    sheet.runs = [];
    if (!runs.some((run) => run.isBreak || run.text.trim())) return;
    sheet.isRich ||= runs.some((run) => run.href || run.bold || run.italic || run.strike || run.code);
    const text = write(runs, sheet.isCell);
    if (around.level === undefined && BULLET.test(text)) for (const line of text.split("\n")) addBulleted(sheet, line);
    else addBlock(sheet, around, text, around.isLine);
  }

  function addBulleted(sheet, line) {
    const [sign] = BULLET.exec(line) || [];
    sheet.entries.push(sign ? { text: line.slice(sign.length), level: BULLETS[sign.trim()], mark: "- " } : { text: line, isLine: true });
    sheet.isRich = true;
  }

  function addBlock(sheet, around, text, isLine = false) {
    sheet.entries.push({ ...around, text, isLine });
    sheet.isRich ||= around.level !== undefined;
    if (around.mark) around.mark = ""; // what comes next in this item has no mark of its own
  }

  function join(entries) { // lines and items follow each other closely, other blocks are parted by an empty line
    let [text, widths, last] = ["", [], {}];
    for (const entry of entries) {
      const isClose = entry.text && last.text && ((entry.mark && last.level !== undefined) || (entry.isLine && last.isLine));
      const level = entry.level === undefined ? 0 : Math.min(entry.level, widths.length - (entry.mark ? 0 : 1));
      const outer = entry.level === undefined ? 0 : widths.slice(0, level + (entry.mark ? 0 : 1)).reduce((sum, width) => sum + width, 0);
      if (entry.mark) widths = [...widths.slice(0, level), entry.mark.replace(/\[.\] $/, "").length];
      else if (entry.level === undefined && entry.text) widths = [];
      const inner = " ".repeat(outer + (entry.mark ? widths.at(-1) : 0));
      if (entry.text) text += (text && (isClose ? "\n" : "\n\n")) + " ".repeat(outer) + (entry.mark || "") + entry.text.replace(/\n(?=[^\n])/g, `\n${inner}`);
      last = entry;
    }
    return text;
  }

  const LOOKS = ["href", "bold", "italic", "strike", "code"]; // from the outermost to the innermost
  const SIGNS = { bold: "**", italic: "*", strike: "~~" };

  function write(runs, isCell) {
    const lines = [[]];
    for (const run of runs) {
      if (run.isBreak) lines.push([]);
      else if (run.text) lines.at(-1).push(run);
    }
    const written = lines.map((line) => dress(line).replace(/ {2,}/g, " ").trim());
    return (isCell ? written : written.map(escapeStart)).join("\n").replace(/\n{3,}/g, "\n\n").trim();
  }

  function dress(runs, [look, ...inner] = LOOKS) { // put marks around the runs that have this look, and so on within them
    if (!look) return escape(runs.map((run) => run.text).join(""));
    const groups = [];
    for (const run of runs) {
      if (groups.length && (groups.at(-1)[0][look] || "") === (run[look] || "")) groups.at(-1).push(run);
      else groups.push([run]);
    }
    return groups.reduce((before, group, i) => {
      const next = groups[i + 1]?.[0];
      const after = next && !LOOKS.some((name) => next[name]) ? next.text[0] : "";
      return before + (group[0][look] ? mark(look, group, inner, before, after) : dress(group, inner));
    }, "");
  }

  function mark(look, group, inner, before, after) {
    const plain = group.map((run) => run.text).join("");
    if (look === "code") return group[0].isMarkdown ? plain : plain.trim() && quoteCode(plain);
    const text = dress(group, inner);
    const { href } = group[0];
    if (look !== "href") return markWords(SIGNS[look], text, before, after);
    if (!plain.trim() || group.some((run) => run.isMarkdown)) return text;
    if ([href, `mailto:${plain.trim()}`].includes(plain.trim()) || href === `mailto:${plain.trim()}`) return plain;
    const [, left, words, right] = /^(\s*)(.*?)(\s*)$/s.exec(text);
    return `${left}${before.endsWith("!") ? " " : ""}[${words.replace(/\\?([[\]])/g, "\\$1")}](${href})${right}`;
  }

  function quoteCode(text) {
    const ticks = "`".repeat(Math.max(0, ...[...text.matchAll(/`+/g)].map(([found]) => found.length)) + 1);
    return ticks.length > 1 ? `${ticks} ${text} ${ticks}` : ticks + text + ticks;
  }

  function markWords(sign, text, before, after) { // beside a letter, Markdown takes no sign that follows or precedes punctuation
    const isLetter = /[\p{L}\p{N}]$/u;
    const [, left, words, right] = /^(\s*)(.*?)(\s*)$/s.exec(text);
    const [, body, end] = !right && isLetter.test(after) ? /^(.*?)([.,:;!?…]*)$/s.exec(words) : ["", words, ""];
    const isOutside = (letter) => letter === "" || !/[\p{L}\p{N}]/u.test(letter);
    const isBad = (!left && isLetter.test(before) && isOutside(body[0] || "")) || (!right && !end && isLetter.test(after) && isOutside(body.at(-1) || ""));
    return body && !isBad ? left + sign + body + sign + end + right : text;
  }

  function escape(text) { // what Markdown would read
    return text.replace(/\\(?=[!-/:-@[-`{-~])/g, "\\\\")
      .replace(/`|(?<=\S)\*|\*(?=\S)|(?<![\p{L}\p{N}])_(?=\S)|(?<=\S)_(?![\p{L}\p{N}])|~(?=~)|<(?=[a-z/!?])|&(?=#?\w+;)/giu, "\\$&")
      .replace(/\[(?=\[|\^|[^[\]]*\][[(:])/g, "\\[");
  }

  function escapeStart(line) { // what Markdown would read at the start of a line
    return line.replace(/^(?:#{1,6}(?=\s|$)|>|[-+*](?=\s|$)|(?=[-=:| ]*[-=])[-=:| ]+$|[*_](?:\s*[*_]){2,}$)/, "\\$&").replace(/^(\d{1,9})([.)])(?=\s|$)/, "$1\\$2");
  }

  function fromCells(text) { // returns a table, if that is what tabs and line breaks in a text make
    const rows = [[]];
    for (const [, cell, end] of text.replace(/\r\n?/g, "\n").replace(/\n+$/, "").matchAll(/("(?:[^"]|"")*"(?=[\t\n]|$)|[^\t\n]*)([\t\n]|$)/g)) {
      rows.at(-1).push(cell.startsWith('"') && cell.length > 1 ? cell.slice(1, -1).replaceAll('""', '"') : cell);
      if (end === "\n") rows.push([]);
      else if (!end) break;
    }
    const first = rows.map((row) => row[0].trim());
    const isTable = rows.length > 1 && rows[0].length > 1 && rows.every((row) => row.length === rows[0].length);
    const isList = first.every((cell) => !cell || /^([-*+]|\d+[.)])$/.test(cell) || cell in BULLETS);
    if (!isTable || isList || rows.length > PASTED_MOST.rows || rows[0].length > PASTED_MOST.columns) return "";
    return tableOf(withoutEmpty(rows.map((row) => row.map((cell) => escape(cell.trim().replace(/\s*\n\s*/g, " / "))))));
  }

  function fromBullets(text) { // returns the list that lines with bullets make
    const lines = text.replace(/\r\n?/g, "\n").split("\n");
    if (!lines.some((line) => BULLET.test(line))) return "";
    const sheet = newSheet();
    for (const line of lines) {
      if (BULLET.test(line)) addBulleted(sheet, line);
      else sheet.entries.push({ text: line, isLine: true });
    }
    return join(sheet.entries);
  }

  const isInCode = (before) => (before.match(/^ {0,3}(```|~~~)/gm) || []).length % 2 === 1 || (before.match(/`/g) || []).length % 2 === 1;

  function dropMark(field, words) { // of an empty item, where what is pasted there has marks of its own; returns what stood before it
    const { start, mark, isEmpty, space, quotes, indent } = lineAt(field);
    if (!space || !isEmpty || !ITEM.test(words) || field.selectionEnd !== start + mark.length) return "";
    field.setSelectionRange(start + quotes.length + indent.length, field.selectionEnd);
    return quotes + indent;
  }

  on("paste", (event) => {
    const field = event.target;
    if (!field.matches?.("textarea.prose") || event.defaultPrevented || isInCode(field.value.slice(0, field.selectionStart))) return;
    const data = event.clipboardData;
    const plain = data.getData("text/plain");
    const isPlain = data.types.includes("vscode-editor-data") || ADDRESS.test(plain.trim());
    const words = isPlain ? "" : fromHtml(data.getData("text/html")) || fromCells(plain) || fromBullets(plain);
    const before = dropMark(field, words || plain);
    if (words && words !== plain) pasteTwice(event, field, plain, words.replaceAll("\n", `\n${before}`));
  });

  function pasteTwice(event, field, plain, words) { // first as it is, so that Ctrl+Z brings that back
    const { selectionStart: start, selectionEnd: end, value } = field;
    const isBlock = words.includes("\n") || /^(#+ |- |\d+\. |> |\|)/.test(words);
    const isAlone = /^[\s>]*$/.test(value.slice(value.lastIndexOf("\n", start - 1) + 1, start));
    const gap = isBlock && !isAlone ? gapBefore(field, start) : "";
    const rest = isBlock && /^[^\n]/.test(value.slice(end)) ? "\n\n" : "";
    if (field.maxLength > 0 && value.length - (end - start) + words.length + 4 > field.maxLength) return;
    event.preventDefault();
    if (plain) type(plain);
    replace(field, start, field.selectionEnd, gap + words + rest, (gap + words).length, (gap + words).length);
  }

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
  for (const kind of ["dragover", "dragleave", "drop"]) { // a file may be dropped anywhere on the page
    on(kind, (event) => {
      const form = uploadForm(event) || $("form[data-upload]");
      if (!form || !event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      document.body.classList.toggle("is-dropping", kind === "dragover" || (kind === "dragleave" && event.relatedTarget !== null));
      if (kind === "drop") upload(event, form, event.dataTransfer.files);
    });
  }

  // == Names: people are offered while one types after an @, pages of the handbook after [[ ==
  const WORD_BEFORE = /[\p{Lu}\p{Ll}\p{Lt}\p{Nd}@＠﹫][./\\=&#%+_-]*$/u; // then an @ is within a word or an address
  const NAME_BEFORE = /[@＠﹫][\w.-]+[./\\=&#%+_-]$/; // as in @ana/@bo
  const NAME_BEGUN = /[@＠﹫]([\p{L}\p{N}._-]{0,68})$/u;
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
