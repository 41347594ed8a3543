// The map: an icicle of cards above the table. Width is how many images, or how much memory.
let mapElement, crumbs, metricSwitch, legend;
const GAP = 2, HEIGHTS = [48, 48, 30];
const sum = (list, key) => list.reduce((total, one) => total + one[key], 0);

function makeOverview() {
  crumbs = make("nav", { class: "crumbs", "aria-label": "Where you are" });
  metricSwitch = make("div", { class: "seg", role: "radiogroup", "aria-label": "Width of the cards" });
  mapElement = make("div", { class: "map", role: "group", "aria-label": "Map: arrow keys move, Enter looks closer, Backspace goes back" });
  const kinds = new Set(images.map((image) => image.kind));
  const words = page.kinds.filter(([key]) => kinds.has(key) && key !== "none" && key !== "other");
  legend = make("div", { class: "legend maplegend" }, words.map(([key, label]) => make("span", null, make("i", { class: key }), label)), counts.bad ? make("span", null, make("i", { class: "bad" }), "failed") : null);
  radios(metricSwitch, [["count", "Count"], ["size", "Size"]], ui.metric, (key) => { ui.metric = key; drawMap(); });
  mapElement.addEventListener("click", (event) => { const cell = event.target.closest("button"); if (cell) enter(cell); });
  mapElement.addEventListener("keydown", mapKeys);
  return make("div", { class: "overview" }, make("div", { class: "ovhead" }, crumbs, metricSwitch), mapElement, legend);
}

function drawCrumbs() {
  const path = [];
  for (let node = scope(); node; node = node.parent) path.unshift(node);
  const place = scope();
  const part = place.n < images.length && !ui.scope && !ui.filter ? ` of ${num(images.length)}` : "";
  crumbs.replaceChildren(...path.flatMap((node, at) => [
    at ? make("span", { class: "sep", "aria-hidden": "true" }, "\u203a") : null,
    make("button", { type: "button", "aria-current": at === path.length - 1 ? "location" : null, onclick: () => go(node.id) }, node.label.slice(0, 300)),
  ]).filter(Boolean), make("span", { class: "dim" }, `\u2002${many(place.n, "image")}${place.size ? `, ${bytes(place.size)}` : ""}${part}`));
}

function drawMap() {
  const width = mapElement.clientWidth || $("explore").clientWidth - 34, place = scope();
  metricSwitch.hidden = !place.size || !place.kids.length;
  const bySize = ui.metric === "size" && place.size > 0;
  // Images alone, all of one width, say no more than their rows: the table is the picture then.
  const isEmpty = !place.kids.length && !(bySize && place.images.length > 1 && ui.arrange !== "needs" && ui.arrange !== "list");
  mapElement.hidden = legend.hidden = isEmpty;
  if (isEmpty || width <= 0 || innerWidth < 600) { mapElement.replaceChildren(); return; }
  const cells = [], value = (one) => (bySize ? (one.size || 0) + 1 : one.n || 1);
  const itemsOf = (node) => [
    ...node.kids.map((kid) => ({ node: kid, v: value(kid), n: kid.n, bad: kid.bad, dropped: kid.dropped, size: kid.size })),
    ...node.images.map((image) => ({ image, v: value(image), n: 1, bad: image.bad ? 1 : 0, dropped: image.group === "dropped" ? 1 : 0, size: image.size })),
  ].sort((a, b) => b.v - a.v);
  const note = (one, room) => many(one.n, "image") + (one.size && room >= 136 ? ` \u00b7 ${bytes(one.size)}` : "");
  let depth = 0;
  const put = (one, at, room, level, label, under, name, data) => {
    const trouble = one.bad || one.dropped, isWide = room >= 50;
    const second = one.image || !trouble ? under : [
      one.bad ? make("span", { class: "x" }, `${GLYPHS.bad} ${num(one.bad)} `, make("span", { class: "vh" }, "failed ")) : null,
      one.dropped ? make("span", { class: "d" }, `${GLYPHS.dropped} ${num(one.dropped)} `, make("span", { class: "vh" }, "dropped ")) : null,
      one.bad + one.dropped < one.n && room > 110 ? `of ${num(one.n)}` : null];
    const full = [label, under, one.bad ? `${num(one.bad)} failed` : "", one.dropped ? `${num(one.dropped)} dropped` : ""].filter(Boolean);
    const cell = make("button", { type: "button", class: `cell ${name}${one.bad ? " hasbad" : ""}${isWide ? "" : " thin"}`, tabindex: -1, ...data, "--bad": one.bad ? `${100 * one.bad / one.n}%` : null, "aria-label": isWide ? null : full.join(", "), title: full.join("\n") },
      isWide ? make("b", null, label.slice(0, 300)) : null, isWide ? " " : null, level < 2 && isWide ? make("small", null, second) : null);
    Object.assign(cell.style, { left: `${at}px`, top: `${sumHeights(level)}px`, width: `${Math.max(2, room - GAP)}px`, height: `${HEIGHTS[level]}px` });
    cells.push(cell);
    depth = Math.max(depth, level + 1);
  };
  const sumHeights = (level) => HEIGHTS.slice(0, level).reduce((a, b) => a + b + GAP, 0);
  function lay(list, parent, x, room, level) {
    if (!list.length || room < 30 || level > 2) return;
    // A card has room for a name, or it goes to the last one; images may be slivers where there is room for them.
    const total = sum(list, "v"), areImages = list.every((one) => one.image), least = areImages ? (room > 300 ? 8 : 56) : 64, REST = 92;
    let kept = list.filter((one) => one.v / total * room >= least).length;
    if (!kept && !areImages) kept = Math.min(list.length, Math.max(0, Math.floor((room - REST) / 120)));
    if (areImages) kept = Math.min(kept, 80);
    // Where no card has room by its share, the largest stand beside a last card that is narrower than its share.
    const isSqueezed = kept > 0 && !areImages && list[0].v / total * room < least;
    const restRoom = (count) => (isSqueezed ? room - count * 120 : count === list.length ? 0 : Math.max(sum(list.slice(count), "v") / total * room, Math.min(REST, room)));
    let over = restRoom(kept);
    while (kept > 0 && room - over < least * Math.min(kept, areImages ? 4 : kept)) over = restRoom(--kept);
    if (!kept) over = room;
    const keep = list.slice(0, kept), rest = list.slice(kept), share = sum(keep, "v") || 1;
    let at = x;
    for (const one of keep) {
      const wide = one.v / share * (room - over);
      if (one.node) {
        put(one, at, wide, level, one.node.label.replace(/^import /, ""), note(one, wide), one.node.kind, { "data-id": one.node.id });
        lay(itemsOf(one.node), one.node.id, at, wide, level + 1);
      } else put(one, at, wide, level, one.image.short, bytes(one.image.size) || one.image.word, one.image.kind, { "data-i": one.image.i });
      at += wide;
    }
    if (!rest.length) return;
    const all = { n: sum(rest, "n"), bad: sum(rest, "bad"), dropped: sum(rest, "dropped"), size: sum(rest, "size") };
    const noun = rest[0].image ? "image" : rest[0].node.kind === "import" ? (ui.arrange === "process" && level === 0 ? "process" : "import") : ui.arrange === "cause" ? "cause" : "package";
    const label = over < (kept ? 84 : 104) ? `+${num(rest.length)}` : kept ? `+${num(rest.length)} more` : many(rest.length, noun);
    put(all, at, over, level, label, note(all, over), "more", { "data-more": rest[0].node ? rest[0].node.id : `i${rest[0].image.i}`, "data-parent": parent });
  }
  lay(itemsOf(place), place.id, 0, width, 0);
  mapElement.style.height = `${sumHeights(depth) - (depth ? GAP : 0)}px`;
  if (cells[0]) cells[0].tabIndex = 0;
  mapElement.replaceChildren(...cells);
}

/** Look closer at a card; at the card of the small ones, go to their first row. */
function enter(cell) {
  const hadFocus = mapElement.contains(document.activeElement);
  const { i, id, more, parent } = cell.dataset;
  if (i != null) { show(+i); return; }
  if (id != null) go(id);
  else if (parent !== ui.scope) go(parent);
  else {
    const first = rows.findIndex((row) => row.id === more);
    if (first >= 0) { moveTo(first); grid.focus(); return; }
  }
  const next = mapElement.firstChild || grid;
  if (hadFocus) next.focus({ preventScroll: true });
}

function mapKeys(event) {
  const cell = event.target.closest("button");
  if (!cell) return;
  if (event.key === "Backspace" || event.key === "Escape") {
    const above = scope().parent;
    if (!above) return;
    go(above.id);
    if (mapElement.firstChild) mapElement.firstChild.focus();
    event.stopPropagation();
    event.preventDefault();
    return;
  }
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!step) return;
  event.preventDefault();
  const box = cell.getBoundingClientRect(), middleOf = box.left + (step[1] ? 8 : box.width / 2);
  let best = null, least = Infinity;
  for (const other of mapElement.children) {
    if (other === cell) continue;
    const its = other.getBoundingClientRect();
    let distance = Infinity;
    if (step[1]) {
      const isOver = middleOf >= its.left && middleOf <= its.right;
      if (Math.sign(its.top - box.top) === step[1]) distance = Math.abs(its.top - box.top) * 10 + (isOver ? 0 : Math.min(Math.abs(middleOf - its.left), Math.abs(middleOf - its.right)));
    } else if (Math.abs(its.top - box.top) < 4 && Math.sign(its.left - box.left) === step[0]) distance = Math.abs(its.left - box.left);
    if (distance < least) { least = distance; best = other; }
  }
  if (best) { cell.tabIndex = -1; best.tabIndex = 0; best.focus(); }
}
