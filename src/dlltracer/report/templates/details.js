// All that is known of the chosen image.
let details;
const countPlaces = (rules) => rules.reduce((total, [, plain, rest]) => total + Math.max(1, plain.length + rest.length), 0);

function placeList(rules) {
  const item = ([path, words, isThere]) => make("li", null, pathy(text(path)), "  ", make("span", { class: isThere ? "dlt-there" : null }, text(words)));
  const box = make("div", { class: "dlt-places" });
  for (const [title, plain, rest] of rules) {
    box.append(make("p", { class: "dlt-rule" }, pathy(text(title))));
    if (plain.length) box.append(make("ol", null, plain.map(item)));
    if (rest.length) box.append(make("details", { class: "dlt-fold vain" }, make("summary", { class: "dim" }, `${many(rest.length, "more place")} of this rule`), make("ol", null, rest.map(item))));
  }
  return box;
}

function placesFold(rules) {
  const there = rules.flatMap(([, plain, rest]) => [...plain, ...rest]).filter(([, , isThere]) => isThere).length;
  const fold = make("details", { class: `dlt-fold${there ? "" : " vain"}` }, make("summary", null, `${many(countPlaces(rules), "place")}${there ? `, a file was in ${there}` : ", none had it"}`));
  fold.addEventListener("toggle", () => { if (fold.open && fold.childElementCount === 1) fold.append(placeList(rules)); });
  return fold;
}

function imageLink([number, source]) {
  const image = images[number];
  return make("li", null, iconOf(image), make("button", { class: "link", type: "button", title: image.path, onclick: () => { show(number); details.focus(); } }, image.short.length > 200 ? middle(image.short, 10) : image.short),
    source ? make("small", null, page.sources[source]) : null);
}

function imageList(title, list, absent) {
  if (!list.length && !absent.length) return [];
  const rest = absent.map((name) => make("li", { class: "dim" }, make("span", { class: "ico", "aria-hidden": "true" }, "\u2013"), pathy(name)));
  const items = [...list.map((one) => () => imageLink(one)), ...rest.map((element) => () => element)];
  const ul = make("ul", { class: "list" }, items.slice(0, 12).map((one) => one()));
  const parts = [make("h4", null, `${title} (${num(items.length)})`), ul];
  if (items.length > 12) parts.push(make("button", { class: "link", type: "button", onclick: (event) => { ul.append(...items.slice(12).map((one) => one())); event.target.remove(); } }, `Show ${items.length - 12} more`));
  return parts;
}

/** The chain that brought an image: imports, then images. */
function broughtBy(image) {
  const up = [], seen = new Set([image.i]);
  let first = image;
  while (first.parent >= 0 && !seen.has(first.parent)) {
    seen.add(first.parent);
    first = images[first.parent];
    up.unshift(first.short);
  }
  const ends = (list) => (list.length > 8 ? [...list.slice(0, 3), `\u2026 ${list.length - 6} more \u2026`, ...list.slice(-3)] : list);
  const names = (first.imports.length ? first.imports : image.imports).map((name) => `import ${name}`);
  return [...ends(names), ...ends(up), image.short];
}

function factsOf(image) {
  const list = [["Path", image.path]];
  if (image.why) list.push(["Loader says", image.why]);
  if (image.group === "loaded" && image.ruleLong) list.push(["Found by", image.ruleLong]);
  if (image.group === "dropped") list.push(["Dropped", image.cause >= 0 ? `fine by itself; it left because ${images[image.cause].file} failed` : "fine by itself; it left because another load failed"]);
  if (image.group === "optional") list.push(["State", image.word]);
  if (image.size) list.push(["In memory", bytes(image.size)]);
  if (image.fileSize) list.push(["File", bytes(image.fileSize)]);
  if (image.t >= 0 && page.isTimed) list.push(["When", `${when(image.t)} after the first load`]);
  if (image.asked && image.parent < 0) list.push(["Asked for by", image.asked]);
  const more = page.facts[image.i];
  for (let at = 0; at < more.length; at += 2) list.push([text(more[at]), text(more[at + 1])]);
  return list;
}

function markdownOf(image, facts) {
  const code = (value) => `\`${value.replace(/`/g, "'")}\``;
  const names = (list) => list.map(([number]) => code(images[number].file)).join(", ");
  return [`**${code(image.file)}**: ${image.word}`, "", ...facts.map(([label, value]) => `- ${label}: ${code(value)}`), "", `Needed by: ${names(neededBy[image.i]) || "nobody"}`, `Needs: ${names(needs[image.i]) || "nothing here"}`].join("\n");
}

/** Choose an image and show its details; -1 closes them. */
function select(number) {
  ui.selected = number;
  details.hidden = number < 0;
  paint(true);
  if (number < 0) return;
  const image = images[number], facts = factsOf(image), rules = page.places[number];
  const chain = make("ol", { class: "dlt-chain", "--end": image.bad ? "var(--fail)" : image.group === "dropped" ? "var(--warn)" : "var(--accent)" }, broughtBy(image).map((step) => make("li", null, pathy(step))));
  details.replaceChildren(
    make("header", null, make("h3", null, clipped(image.short)), make("button", { class: "shut", type: "button", "aria-label": "Close details", onclick: closeDetails }, "\u00d7")),
    make("p", null, make("span", { class: `chip ${image.group}` }, `${image.group === "loaded" ? "" : `${GLYPHS[image.group]} `}${image.word}`)),
    make("div", { class: "acts" }, make("button", { class: "dlt-button dlt-small", type: "button", onclick: () => copy(image.path, "Path") }, "Copy path"), make("button", { class: "dlt-button dlt-small", type: "button", onclick: () => copy(markdownOf(image, facts), "Details") }, "Copy as Markdown")),
    make("dl", null, facts.map(([label, value]) => [make("dt", null, label), make("dd", { class: label === "Path" ? "mono" : null }, pathy(value))])),
    make("h4", null, "Brought in by"), chain,
    ...imageList("Needed by", neededBy[number], []), ...imageList("Needs", needs[number], missingNeeds(number)),
    ...(rules ? [make("h4", null, "Searched"), placesFold(rules)] : []),
  );
  details.scrollTop = 0;
}

function closeDetails() {
  select(-1);
  grid.focus({ preventScroll: true });
}

/** Choose an image, open what it lies in, and go there. */
function show(number) {
  const image = images[number];
  if (!ui.shows[image.group]) { ui.shows[image.group] = true; markStates(); }
  build();
  if (!shown.includes(image)) { ui.filter = ""; $("filter").value = ""; build(); }
  if (ARRANGEMENTS[ui.arrange]) {
    const ids = [];
    for (const [key] of ARRANGEMENTS[ui.arrange](image)) ids.push((ids[ids.length - 1] || "") + SEP + key);
    if (ui.scope && !ids.includes(ui.scope)) ui.scope = "";
    for (const id of ids) ui.open.add(id);
    ui.active = `i${number}`;
  } else if (ui.arrange === "needs") {
    const path = [], tops = new Set(topsOfNeeds(shown));
    for (let at = image; at; at = tops.has(at) || at.parent < 0 || path.includes(at.parent) ? null : images[at.parent]) path.unshift(at.i);
    path.slice(0, -1).forEach((_, at) => ui.open.add(`i${path.slice(0, at + 1).join(">")}`));
    ui.active = `i${path.join(">")}`;
  } else ui.active = `i${number}`;
  select(number);
  refresh();
  const at = rows.findIndex((row) => row.id === ui.active);
  if (at >= 0) { reveal(at); paint(true); }
}
