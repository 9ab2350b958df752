// Buttons that copy a text. Pages of errors that are drawn without the site's own script use this file, too.
//   data-copy="…"        this button copies that text
//   data-copy-from="id"  this button copies the text of that field, or of all fields within that part of the page
(() => {
  "use strict";
  document.documentElement.classList.add("js"); // for the styles: what only works with scripts is shown

  function textOf(part) {
    const fields = part.matches("textarea") ? [part] : [...part.querySelectorAll("textarea")];
    return fields.map((field) => field.value).join("\n\n");
  }

  function copy(text, button) { // in the old way, because a page without HTTPS may not use the new one
    const field = Object.assign(document.createElement("textarea"), { value: text, className: "visually-hidden" });
    button.after(field);
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    button.focus();
    return isCopied;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy], [data-copy-from]");
    if (!button) return;
    const isCopied = copy(button.dataset.copy ?? textOf(document.getElementById(button.dataset.copyFrom)), button);
    if (isCopied) button.firstChild.data = "Copied ";
    document.getElementById("announce").textContent = isCopied ? "Copied." : "Your browser doesn't allow that. Select the text, and copy it.";
  });
})();
