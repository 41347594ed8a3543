// The images, the ways to arrange them, and what of them is shown.
const text = (at) => (at < 0 ? "" : page.strings[at]);
const GLYPHS = { bad: "\u2715", dropped: "\u2193", optional: "\u25cb", loaded: "\u25cf" };
const columns = page.images;
const chains = page.chains.map((chain) => chain.map(text));
const images = columns.file.map((file, i) => {
  const [word, group] = page.states[columns.state[i]];
  const image = {
    i, word, group, bad: group === "bad", file: text(file), dir: text(columns.dir[i]), rule: text(columns.rule[i]),
    ruleLong: text(columns.ruleLong[i]), label: text(columns.label[i]), kind: page.kinds[columns.kind[i]][0],
    imports: columns.chain[i] < 0 ? [] : chains[columns.chain[i]], size: group === "loaded" ? columns.size[i] : 0,
    fileSize: columns.fileSize[i], t: columns.t[i], why: text(columns.why[i]), asked: text(columns.asked[i]),
    parent: columns.parent[i], cause: columns.cause[i], causeTitle: text(columns.causeTitle[i]),
    causeDetail: text(columns.causeDetail[i]), process: columns.process[i],
  };
  image.path = image.dir + image.file;
  image.short = image.file.replace(/\.(?:cpython-[^.]+|cp\d[^.]*|abi3)(?=\.(?:so|pyd)$)/, "\u2026");
  return image;
});
/** What the filter looks into; made when it is first used. */
const hay = (image) => (image.hay ??= [image.path, image.label, image.ruleLong, image.word, image.why, ...image.imports].join(" ").toLowerCase());
const folders = [...page.folders].sort((a, b) => b.length - a.length);
/** A folder without the entry of sys.path that it lies in. */
function folder(dir) {
  const bare = dir.replace(/[/\\]$/, "") || dir;
  const found = folders.find((one) => bare === one || (bare.startsWith(one) && /[/\\]/.test(bare[one.length])));
  return found ? `\u2026${bare.slice(found.length) || `/${found.split(/[/\\]/).pop()}`}` : bare;
}
const needs = images.map(() => []);
const neededBy = images.map(() => []);
for (const [start, end, source] of page.needs) {
  needs[start].push([end, source]);
  neededBy[end].push([start, source]);
}
const missingNeeds = (i) => (page.elsewhere[i] || []).map(text);
const counts = { bad: 0, dropped: 0, optional: 0, loaded: 0 };
for (const image of images) counts[image.group]++;
const hasFailed = counts.bad + counts.dropped > 0;
const hasImports = images.some((image) => image.imports.length);
const lastTime = images.reduce((most, image) => Math.max(most, image.t), 1);

const OUTSIDE = "outside any import";
const outermost = (image) => (image.imports.length ? image.imports[0] : OUTSIDE);
const packageOf = (name) => name.split(".")[0];
const importsOfPackage = new Map();
for (const image of images) {
  if (!image.imports.length) continue;
  const name = packageOf(image.imports[0]);
  if (!importsOfPackage.has(name)) importsOfPackage.set(name, new Set());
  importsOfPackage.get(name).add(image.imports[0]);
}
/** With a single import at the outside, the packages that it imported tell more: the first one that is not its own. */
const innerOf = (image) => image.imports.find((name) => packageOf(name) !== packageOf(image.imports[0]));
const hasOneImport = importsOfPackage.size === 1 && [...importsOfPackage.values()][0].size === 1;
let hasInner = false;
function innerImport(image) {
  const own = packageOf(image.imports[0]), inner = innerOf(image);
  return inner ? [packageOf(inner), `import ${packageOf(inner)}`, "import"] : ["own", `${own} itself`, "import"];
}
const KIND_TITLES = { package: "Python packages", stdlib: "Python itself", system: "The system", other: "Other folders", none: "Not found" };
const ofPackage = (image) => [image.label, image.kind === "other" || image.kind === "system" ? folder(image.label) : image.label, image.kind];

/** Below which cards an image lies: [key, label, kind] from the outside in. */
const ARRANGEMENTS = {
  import(image) {
    if (!image.imports.length) return [[OUTSIDE, OUTSIDE, "import"], ofPackage(image)];
    const first = outermost(image), name = packageOf(first), all = importsOfPackage.get(name);
    if (hasOneImport && hasInner) return [[first, `import ${first}`, "import"], innerImport(image), ofPackage(image)];
    const own = [first, `import ${first}`, "import"];
    const path = all.size > 1 ? [[`${name}.*`, `${name} (${many(all.size, "import")})`, "import"], own] : [own];
    return [...path, ofPackage(image)];
  },
  package: (image) => [[image.kind, KIND_TITLES[image.kind], image.kind], ofPackage(image)],
  process: (image) => [
    [`p${image.process}`, image.process < 0 ? "unknown process" : page.processes[image.process], "import"],
    ...(hasImports ? [[outermost(image), image.imports.length ? `import ${outermost(image)}` : OUTSIDE, "import"]] : []), ofPackage(image),
  ],
  cause(image) {
    if (!image.causeTitle) return [[image.group, image.group === "optional" ? "Not required" : "Loaded", "package"], ofPackage(image)];
    return [[image.causeTitle, image.causeTitle, "none"], [image.causeDetail, image.causeDetail, "none"]];
  },
};

const isTree = page.isTree;
const FIRST = counts.bad > 5 ? "cause" : page.processes.length > 1 ? "process" : isTree ? "needs" : hasImports ? "import" : "package";
const ui = {
  arrange: FIRST, shows: { bad: true, dropped: true, optional: !hasFailed, loaded: !hasFailed || isTree }, filter: "", scope: "",
  open: new Set(), sort: ["", 1], metric: hasFailed ? "count" : "size", active: "", selected: -1,
};
let top_, nodes, rows = [], shown = [];
/** Joins the parts of a node's id: a character that no text of the page has, since what does not print is escaped. */
const SEP = "\n";

/** Make the tree of cards from the images that are shown. */
function build() {
  const words = ui.filter.toLowerCase().split(/\s+/).filter(Boolean);
  shown = images.filter((image) => ui.shows[image.group] && words.every((word) => hay(image).includes(word)));
  hasInner = shown.some(innerOf);
  const keys = ARRANGEMENTS[ui.arrange] || (() => []);
  nodes = new Map();
  const add = (id, label, kind, parent) => {
    const node = { id, label, kind, parent, kids: [], images: [], n: 0, bad: 0, dropped: 0, size: 0, t0: Infinity, t1: -1 };
    nodes.set(id, node);
    if (parent) parent.kids.push(node);
    return node;
  };
  top_ = add("", "Everything", "root", null);
  for (const image of shown) {
    let node = top_;
    const path = [node];
    for (const [key, label, kind] of keys(image)) {
      const id = node.id + SEP + key;
      node = nodes.get(id) || add(id, label, kind, node);
      path.push(node);
    }
    node.images.push(image);
    for (const one of path) {
      one.n++;
      one.size += image.size;
      if (image.bad) one.bad++;
      if (image.group === "dropped") one.dropped++;
      if (image.t >= 0) { one.t0 = Math.min(one.t0, image.t); one.t1 = Math.max(one.t1, image.t); }
    }
  }
  while (!nodes.has(ui.scope)) ui.scope = ui.scope.slice(0, ui.scope.lastIndexOf(SEP));
}
const scope = () => nodes.get(ui.scope) || top_;

const byTime = (a, b) => (a.t0 ?? a.t) - (b.t0 ?? b.t);
const ORDERS = {
  name: (a, b) => (a.file || a.label).localeCompare(b.file || b.label), from: (a, b) => a.label.localeCompare(b.label),
  rule: (a, b) => (a.rule || "").localeCompare(b.rule || ""), size: (a, b) => b.size - a.size, when: byTime,
};
function sorted(list) {
  const [key, direction] = ui.sort;
  const order = key ? ORDERS[key] : ui.arrange === "cause" ? (a, b) => (b.n || 0) - (a.n || 0) : ui.arrange === "needs" ? () => 0 : byTime;
  return list.slice().sort((a, b) => direction * order(a, b));
}
const below = (node) => node.images.concat(...node.kids.map(below));
/** Images that no other shown image needs: the tops of the arrangement by needs. */
function topsOfNeeds(list) {
  const inside = new Set(list.map((image) => image.i));
  const tops = list.filter((image) => !inside.has(image.parent));
  return tops.length ? tops : list;
}

/** Open level by level while the outline stays short. */
function openFirst(node) {
  ui.open.clear();
  if (ui.arrange === "needs") {
    let level = topsOfNeeds(below(node)).map((image) => [`i${image.i}`, image.i, []]), count = level.length;
    while (level.length) {
      const next = level.flatMap(([id, i, above]) => (above.includes(i) ? [] : needs[i].map(([end]) => [`${id}>${end}`, end, [...above, i]])));
      count += next.length;
      if (count > 40) break;
      for (const [id] of level) ui.open.add(id);
      level = next;
    }
    return;
  }
  let level = node.kids, count = level.length + node.images.length;
  while (level.length) {
    const more = level.reduce((sum, kid) => sum + kid.kids.length + kid.images.length, 0);
    if (count + more > 40) break;
    for (const kid of level) ui.open.add(kid.id);
    count += more;
    level = level.flatMap((kid) => kid.kids);
  }
}

/** Make the rows of the table: groups, images, and below an open image what it needs. */
function flatten() {
  rows = [];
  const place = scope();
  const addImages = (list, level, before, of) => {
    const most = list.reduce((size, image) => Math.max(size, image.size), 1);
    list.forEach((image, at) => addImage(image, `i${image.i}`, level, { share: image.size / most, pos: before + at + 1, of }, []));
  };
  if (ui.arrange === "list") {
    addImages(sorted(below(place)), 0, 0, place.n);
  } else if (ui.arrange === "needs") {
    const tops = sorted(topsOfNeeds(below(place)));
    addImages(tops, 0, 0, tops.length);
  } else {
    (function walk(node, level) {
      const kids = sorted(node.kids), most = kids.reduce((size, kid) => Math.max(size, kid.size), 1), of = kids.length + node.images.length;
      kids.forEach((kid, at) => {
        const open = ui.open.has(kid.id);
        rows.push({ id: kid.id, group: kid, level, open, share: kid.size / most, pos: at + 1, of });
        if (open) walk(kid, level + 1);
      });
      addImages(sorted(node.images), level, kids.length, of);
    })(place, 0);
  }
}

/** The row of an image, and below it those of its needs. An image does not open again below itself: needs may be mutual. */
function addImage(image, id, level, extra, above) {
  const waiting = [[{ id, image, level, ...extra }, above]];
  while (waiting.length) { // a loop: a chain of needs may be longer than the stack
    const [row, over] = waiting.pop();
    rows.push(row);
    if (!row.image) continue;
    const absent = missingNeeds(row.image.i), own = needs[row.image.i];
    row.opens = own.length + absent.length > 0 && !over.includes(row.image.i);
    row.open = row.opens && ui.open.has(row.id);
    if (!row.open) continue;
    const of = own.length + absent.length, inner = [...over, row.image.i];
    const list = own.map(([end, source], at) => [{ id: `${row.id}>${end}`, image: images[end], level: row.level + 1, pos: at + 1, of, isNeed: true, source }, inner]);
    absent.forEach((name, at) => list.push([{ id: `${row.id}>${name}`, absent: name, level: row.level + 1, pos: own.length + at + 1, of }, inner]));
    waiting.push(...list.reverse());
  }
}
