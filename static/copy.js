// Pages of errors use this file, also those that are drawn without the site's own script. It reads one data attribute:
//   data-copy="id"   this button copies the text of that field; #copied says so to screen readers
(() => {
  "use strict";
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      document.getElementById(button.dataset.copy).select();
      const isCopied = document.execCommand("copy"); // navigator.clipboard is missing where a site has no https
      button.firstChild.data = isCopied ? "Copied " : "Press Ctrl+C ";
      document.getElementById("copied").textContent = button.textContent;
    });
  }
})();
