// The page where handbook pages are put in order uses this file; without it, the page shows numbers to change.
// A row is dragged by its .grip, or moved by its buttons (data-way), with all rows below it. The form is then sent whole.
(() => {
  "use strict";
  const list = document.querySelector(".sort");
  if (!list) return;
  const LEVELS = Number(list.closest("form").dataset.levels);
  const INDENT = 28; // pixels a level, as in app.css
  const rows = () => [...list.children];
  const depthOf = (row) => (row ? Number(row.className.match(/level-(\d)/)[1]) : -1);
  const setDepth = (row, depth) => { row.className = row.className.replace(/level-\d/, `level-${depth}`); };

  function branchOf(row) { // a row and all that is below it
    const after = rows().slice(rows().indexOf(row) + 1);
    const end = after.findIndex((other) => depthOf(other) <= depthOf(row));
    return [row, ...(end < 0 ? after : after.slice(0, end))];
  }

  function indent(branch, depth) { // to that depth, or as near as the rows before and after allow
    const before = depthOf(branch[0].previousElementSibling);
    const after = depthOf(branch.at(-1).nextElementSibling);
    const height = Math.max(...branch.map(depthOf)) - depthOf(branch[0]);
    const by = Math.max(0, after, Math.min(depth, before + 1, LEVELS - 1 - height)) - depthOf(branch[0]);
    for (const row of branch) setDepth(row, Math.min(depthOf(row) + by, LEVELS - 1));
  }

  function fillIn() { // what the form sends: of each row the nearest one above that is less deep, and its place
    const above = [];
    rows().forEach((row, place) => {
      const [parent, position] = row.querySelectorAll("input");
      above.length = depthOf(row);
      parent.value = above.at(-1) || "";
      position.value = place + 1;
      above.push(row.dataset.id);
    });
  }

  function tell(row) {
    const peers = branchOf(row)[0] && rows().filter((other) => other.querySelector("input").value === row.querySelector("input").value);
    const under = depthOf(row) && rows().slice(0, rows().indexOf(row)).findLast((other) => depthOf(other) < depthOf(row));
    const where = under ? `, under ${under.querySelector("label").textContent}` : "";
    document.querySelector("#announce").textContent = `Place ${peers.indexOf(row) + 1} of ${peers.length}${where}. Not saved yet.`;
  }

  // == Buttons ==
  const WAYS = {
    up(row) {
      const above = rows().slice(0, rows().indexOf(row)).findLast((other) => depthOf(other) <= depthOf(row));
      if (above && depthOf(above) === depthOf(row)) above.before(...branchOf(row));
    },
    down(row) {
      const next = branchOf(row).at(-1).nextElementSibling;
      if (next && depthOf(next) === depthOf(row)) branchOf(next).at(-1).after(...branchOf(row));
    },
    in(row) { indent(branchOf(row), depthOf(row) + 1); },
    out(row) { // behind the page that it was below, so that it takes none of the others along
      const depth = depthOf(row);
      if (!depth) return;
      const branch = branchOf(row);
      const above = rows().slice(0, rows().indexOf(row)).findLast((other) => depthOf(other) < depth);
      branchOf(above).at(-1).after(...branch);
      indent(branch, depth - 1);
    },
  };

  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-way]");
    if (!button) return;
    const row = button.closest("li");
    WAYS[button.dataset.way](row);
    fillIn();
    button.focus(); // what is moved in the page loses the focus
    row.scrollIntoView({ block: "nearest" });
    tell(row);
  });

  // == Dragging, by mouse, pen or finger ==
  list.addEventListener("pointerdown", (down) => {
    const grip = down.target.closest(".grip");
    if (!grip || down.button) return;
    down.preventDefault();
    const row = grip.closest("li");
    const [branch, depth] = [branchOf(row), depthOf(row)];
    const isHeld = (held) => branch.forEach((one) => one.classList.toggle("is-held", held));
    const drag = (event) => {
      const others = rows().filter((other) => !branch.includes(other));
      const next = others.find((other) => event.clientY < other.getBoundingClientRect().top + other.offsetHeight / 2);
      if (next !== (branch.at(-1).nextElementSibling || undefined)) (next || list)[next ? "before" : "append"](...branch);
      indent(branch, depth + Math.round((event.clientX - down.clientX) / INDENT));
      const edge = event.clientY < 90 ? -12 : event.clientY > innerHeight - 40 ? 12 : 0;
      if (edge) scrollBy({ top: edge, behavior: "instant" });
    };
    const drop = () => {
      isHeld(false);
      removeEventListener("pointermove", drag);
      for (const type of ["pointerup", "pointercancel"]) removeEventListener(type, drop);
      fillIn();
      tell(row);
    };
    isHeld(true);
    addEventListener("pointermove", drag);
    for (const type of ["pointerup", "pointercancel"]) addEventListener(type, drop);
  });
})();
