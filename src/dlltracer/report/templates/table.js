// The table: rows that are looked at become elements, all others are numbers.
let grid, sizer, foot, headRow, hovered = null;
const rowHeight = () => (innerWidth < 600 ? 40 : 32);
const rowOf = (event) => { const element = event.target.closest(".row"); return element ? rows[+element.dataset.at] : null; };
const current = () => hovered || rows.find((row) => row.id === ui.active) || null;
const pathOf = (row) => (row && row.image ? row.image.path : "");
const iconOf = (image) => make("span", { class: `ico ${image.group}`, role: "img", "aria-label": image.word }, GLYPHS[image.group]);

function makeTable() {
  const titles = [["name", "Image", ""], ["from", "Package and folder", "c-from"], ["rule", "Found by", ""], ["size", "Size in memory", "c-size"], ["when", page.isTimed ? "When" : "Order", "c-when"]];
  headRow = make("div", { class: "hrow", role: "row", "aria-rowindex": 1 }, titles.map(([key, label, name]) => make("div", { role: "columnheader", class: name, "data-k": key, "aria-sort": "none" },
    make("button", { type: "button", onclick: () => sortBy(key) }, label, make("span", { class: "ar", "aria-hidden": "true" })))));
  sizer = make("div", { class: "sizer", role: "rowgroup" });
  grid = make("div", { class: "grid", role: "treegrid", tabindex: 0, "aria-label": "Images: arrows move and open, Enter shows details", "aria-colcount": 5 }, make("div", { role: "rowgroup", class: "hg" }, headRow), sizer);
  foot = make("div", { class: "foot" }, make("span", { class: "path" }), make("span", { class: "num" }), make("button", { class: "dlt-button dlt-small", type: "button", onclick: () => copy(pathOf(current()), "Path") }, "Copy path"));
  let waiting = false;
  grid.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paint(); });
  }, { passive: true });
  sizer.addEventListener("click", (event) => {
    const row = rowOf(event);
    if (!row) return;
    ui.active = row.id;
    act(row);
    footer();
    grid.focus({ preventScroll: true });
  });
  sizer.addEventListener("mouseover", (event) => { const row = rowOf(event); if (row) { hovered = row; footer(); } });
  sizer.addEventListener("mouseleave", () => { hovered = null; footer(); });
  grid.addEventListener("keydown", tableKeys);
  grid.addEventListener("copy", (event) => {
    const path = pathOf(current());
    if (!path || String(getSelection()) !== "") return;
    event.clipboardData.setData("text/plain", path);
    event.preventDefault();
    toast("Path copied");
  });
  return make("div", { class: "gridwrap" }, grid, foot);
}

function sortBy(key) {
  ui.sort = ui.sort[0] === key ? (ui.sort[1] === 1 ? [key, -1] : ["", 1]) : [key, 1];
  refresh();
}

function nameCell(row) {
  if (row.absent) return [make("span", { class: "caret none", "aria-hidden": "true" }), make("span", { class: "ico", "aria-hidden": "true" }, "\u2013"), middle(row.absent, 10)];
  const opens = make("span", { class: row.group || row.opens ? "caret" : "caret none", "aria-hidden": "true" });
  if (row.image) return [opens, iconOf(row.image), middle(row.image.short, 10)];
  const group = row.group;
  const mark = group.kind === "import" ? null : group.kind === "none" ? make("span", { class: "ico bad", "aria-hidden": "true" }, GLYPHS.bad) : make("span", { class: `dot ${group.kind}`, "aria-hidden": "true" });
  const count = (name, glyph, number, word) => (number ? make("span", { class: `cnt ${name}` }, `${glyph}${num(number)}`, make("span", { class: "w2" }, ` ${word}`)) : null);
  return [opens, mark, middle(group.label, 10), count("", "", group.n, group.n === 1 ? "image" : "images"),
    group.bad < group.n || ui.arrange !== "cause" ? count("bad", `${GLYPHS.bad} `, group.bad, "failed") : null,
    count("drop", `${GLYPHS.dropped} `, group.dropped, "dropped")];
}

function fromCell(row) {
  const image = row.image;
  if (row.absent) return make("div", { class: "from dim" }, make("span", { class: "p" }, "not among the images of this page"));
  if (image.bad && image.why) return make("div", { class: "from", title: image.why }, make("span", { class: "why" }, clipped(image.why.split(": ").slice(-2).join(": ")).slice(0, 300)));
  let from = image.kind === "other" || image.kind === "system" ? folder(image.label) : image.label;
  const places = page.places[image.i];
  if (image.group === "bad" || image.group === "optional") from = places ? `${many(countPlaces(places), "place")}, none had it` : image.word;
  else if (image.group === "dropped" && image.cause >= 0) from = `needs ${images[image.cause].file}`;
  const where = image.group === "loaded" && folder(image.dir) !== from ? make("span", { class: "f" }, middle(folder(image.dir), 10)) : null;
  return make("div", { class: "from" }, make("span", { class: "p" }, from.slice(0, 300)), where);
}

function rowElement(row, at) {
  const { group, image } = row, it = group || image || {}, t0 = group ? group.t0 : image ? image.t : -1, t1 = group ? group.t1 : t0;
  const isPlain = image && image.group === "loaded";
  const chip = !image ? null : isPlain ? (image.rule || image.word !== "loaded" ? make("span", { class: "chip" }, image.rule || image.word) : null) : make("span", { class: `chip ${image.group}` }, image.group === "optional" ? "not required" : image.word);
  const percent = (t) => `${(100 * t / lastTime).toFixed(2)}%`;
  const classes = ["row", group && "grp", image && image.bad && "isbad", row.absent && "absent", (group || row.opens) && "opens", row.id === ui.active && "act", image && image.i === ui.selected && "sel"].filter(Boolean).join(" ");
  return make("div", {
    class: classes, role: "row", id: `r${at}`, "data-at": at, "aria-rowindex": at + 2, "aria-level": row.level + 1, "aria-posinset": row.pos, "aria-setsize": row.of,
    "aria-expanded": group || row.opens ? String(!!row.open) : null, "aria-selected": image ? String(image.i === ui.selected) : null, "--lv": row.level,
  },
  make("div", { role: "gridcell", class: "nm", title: image ? image.path : null, "aria-colspan": group ? 3 : null }, nameCell(row)),
  group ? null : [make("div", { role: "gridcell", class: "c-from" }, fromCell(row)), make("div", { role: "gridcell" }, chip)],
  make("div", { role: "gridcell", class: "c-size" }, it.size ? make("div", { class: "sz" },
    make("span", { class: "track", "aria-hidden": "true" }, make("span", { class: "fill", "--w": `${100 * (row.share ?? it.size / largest)}%` })), make("span", { class: "v" }, bytes(it.size))) : null),
  make("div", { role: "gridcell", class: "c-when" }, t1 >= 0 ? [make("div", { class: "wf", title: when(t0) + (t1 > t0 ? ` to ${when(t1)}` : ""), "--x": percent(t0), "--w": percent(t1 - t0) },
    make("i", { class: image ? image.group : group.bad + group.dropped < group.n ? "" : group.bad ? "bad" : "dropped" })), make("span", { class: "vh" }, when(t0))] : null));
}

let largest = 1, painted = "";
const isPrinting = () => root.classList.contains("printing");
/** Make the elements of the rows in sight, and a few more on both sides. */
function paint(force) {
  const height = rowHeight(), all = isPrinting();
  const first = all ? 0 : Math.max(0, Math.floor((grid.scrollTop - height) / height) - 6);
  // Before the first layout the table has no height: a screen full is made then. On paper it is as high as its rows.
  const seen = Math.max(Math.min(grid.clientHeight, innerHeight), force ? 640 : 0);
  const last = all ? rows.length : Math.min(rows.length, Math.ceil((grid.scrollTop + seen) / height) + 6);
  const key = `${first}-${last}-${rows.length}`;
  if (!force && key === painted) return;
  painted = key;
  if (force) {
    sizer.style.height = `${Math.max(1, rows.length) * height}px`;
    largest = rows.reduce((most, row) => (row.image && row.image.size > most ? row.image.size : most), 1);
    grid.setAttribute("aria-rowcount", rows.length + 1);
  }
  const elements = [];
  for (let at = first; at < last; at++) {
    const element = rowElement(rows[at], at);
    element.style.transform = `translateY(${at * height}px)`;
    elements.push(element);
  }
  if (!rows.length) elements.push(make("div", { class: "row", role: "row" }, make("div", { role: "gridcell", class: "dim" }, images.length ? "Nothing fits the filter." : "No image was recorded.")));
  sizer.replaceChildren(...elements);
  const active = rows.findIndex((row) => row.id === ui.active);
  if (active >= first && active < last) grid.setAttribute("aria-activedescendant", `r${active}`);
  else grid.removeAttribute("aria-activedescendant");
}

function reveal(at) {
  const height = rowHeight(), y = at * height, room = grid.clientHeight - height;
  if (y < grid.scrollTop) grid.scrollTop = y;
  else if (y + height > grid.scrollTop + room) grid.scrollTop = y + height - room;
}

function moveTo(at) {
  if (!rows.length) return;
  at = Math.max(0, Math.min(rows.length - 1, at));
  ui.active = rows[at].id;
  hovered = null;
  reveal(at);
  paint(true);
  footer();
}

/** A group opens or closes; an image shows its details, and opens or closes its needs. */
function act(row) {
  if (row.group) return toggle(row);
  if (!row.image) return undefined;
  const wasSelected = row.image.i === ui.selected;
  select(row.image.i);
  if (row.opens && (wasSelected || !row.open)) toggle(row);
  return undefined;
}

function toggle(row) {
  if (row.open) ui.open.delete(row.id);
  else ui.open.add(row.id);
  ui.active = row.id;
  hovered = null;
  flatten();
  paint(true);
  footer();
}

function tableKeys(event) {
  if (event.target !== grid) return;
  const at = rows.findIndex((row) => row.id === ui.active), row = rows[at];
  const screen = Math.max(1, Math.floor(grid.clientHeight / rowHeight()) - 2);
  const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, PageDown: at + screen, PageUp: at - screen, Home: 0, End: rows.length - 1 }[event.key];
  const opens = row && (row.group || row.opens);
  if (to != null) moveTo(to);
  else if (event.key === "ArrowRight" && opens) { if (row.open) moveTo(at + 1); else toggle(row); }
  else if (event.key === "ArrowLeft" && row) {
    if (opens && row.open) toggle(row);
    else {
      let above = at - 1;
      while (above >= 0 && rows[above].level >= row.level) above--;
      if (above >= 0) moveTo(above);
    }
  } else if ((event.key === "Enter" || event.key === " ") && row) {
    if (row.group) toggle(row);
    else if (row.image) { select(row.image.i); details.focus(); }
  } else return;
  event.preventDefault();
}

function footer() {
  const row = current(), group = row && row.group;
  foot.firstChild.textContent = !row ? "" : row.absent ? clipped(row.absent) : row.image ? clipped(row.image.path)
    : `${group.label}: ${many(group.n, "image")}${group.size ? `, ${bytes(group.size)}` : ""}${group.bad ? `, ${num(group.bad)} failed` : ""}`;
  foot.children[1].textContent = `${num(scope().n)} of ${many(images.length, "image")}`;
  foot.lastChild.hidden = !(row && row.image);
}
