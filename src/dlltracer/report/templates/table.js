
// The table: sorting by a column, filtering by words and states. Long tables show their first rows until asked for all.
const list = $("table") && (function list() {
  const FIRST = 250;
  const body = $("table").tBodies[0];
  const heads = [...$("table").tHead.rows[0].cells];
  const boxes = [...document.querySelectorAll("[data-state][type=checkbox]")];
  const collator = new Intl.Collator("en", { numeric: true });
  let rows = [...body.rows].map((row) => ({ row, text: row.textContent.toLowerCase(), state: row.dataset.state }));
  let limit = FIRST;

  /** Show the rows that fit the filter, in their order, as many as the limit lets; how many fit. */
  function show() {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const states = new Set(boxes.filter((box) => box.checked).map((box) => box.dataset.state));
    let fit = 0;
    for (const { row, text, state } of rows) {
      const fits = states.has(state) && words.every((word) => text.includes(word));
      fit += fits;
      const hidden = !fits || fit > limit;
      if (row.hidden !== hidden) row.hidden = hidden;
    }
    $("shown").textContent = `${fit} of ${rows.length}`;
    $("more").hidden = fit <= limit;
    $("more").textContent = `Show all ${fit} rows; the first ${FIRST} are shown`;
    return fit;
  }

  function filter() {
    announce(`${show()} of ${rows.length} images`);
  }

  function keyOf(row, column) {
    const cell = row.cells[column];
    const text = cell.dataset.key ?? cell.textContent;
    return column === 0 || "key" in cell.dataset ? (text === "" ? -Infinity : Number(text)) : text;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a === b ? 0 : a < b ? -1 : 1;
    return collator.compare(String(a), String(b));
  }

  function sort(column) {
    const down = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows.map((one) => [keyOf(one.row, column), one]);
    keyed.sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
    rows = keyed.map(([, one]) => one);
    body.replaceChildren();
    show();
    body.append(...rows.map(({ row }) => row));
    announce(`Sorted by ${heads[column].textContent}, ${down ? "falling" : "rising"}`);
  }

  function showAll() {
    limit = Infinity;
    show();
  }

  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(column));
  });
  $("filter").addEventListener("input", filter);
  boxes.forEach((box) => box.addEventListener("change", filter));
  $("more").addEventListener("click", () => {
    // The button goes, so the focus stays with the rows.
    const next = rows.filter(({ row }) => !row.hidden).length;
    showAll();
    rows[Math.min(next, rows.length - 1)].row.querySelector("a").focus();
  });
  addEventListener("beforeprint", () => {
    limit = Infinity;
    show();
  });
  show();
  return { show };
})();
