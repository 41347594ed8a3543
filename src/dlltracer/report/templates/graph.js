
// The picture: a camera over it, the choice of a node, the keyboard, the search.
const graph = $("view") && (function graph() {
  const view = $("view"), picture = $("picture");
  const elements = page.nodes.map((_, number) => $(`n${number}`));
  const texts = page.nodes.map((node) => `${node.title}\n${node.facts ? node.facts[0][1] : ""}`.toLowerCase());
  const WIDTH = 208, HEIGHT = 26, NEAREST = 2.5;
  const [fullWidth, fullHeight] = page.size;
  const camera = { x: 0, y: 0, scale: 1 };
  let chosen = null, lit = [], hits = [], hit = -1;

  // Where children stand in reading order, for the arrow keys.
  const order = [];
  const level = [];
  for (const stack = page.nodes.flatMap((node, n) => (node.parent === null ? [n] : [])).reverse(); stack.length;) {
    const number = stack.pop();
    const parent = page.nodes[number].parent;
    level[number] = parent === null ? 1 : level[parent] + 1;
    order.push(number);
    stack.push(...[...page.children[number]].reverse());
  }
  const placeInOrder = [];
  order.forEach((number, place) => { placeInOrder[number] = place; });

  const size = () => [view.clientWidth || 1, view.clientHeight || 1];
  function smallest() {
    const [width, height] = size();
    return Math.min(width / (fullWidth + 40), height / (fullHeight + 40), 1);
  }
  function draw() {
    const [width, height] = size();
    const numbers = [camera.x, camera.y, width / camera.scale, height / camera.scale];
    picture.setAttribute("viewBox", numbers.map((n) => n.toFixed(2)).join(" "));
  }
  function zoom(factor, atX, atY) {
    const [width, height] = size();
    const [x, y] = [atX ?? width / 2, atY ?? height / 2];
    const scale = Math.min(NEAREST, Math.max(Math.min(smallest(), 0.5), camera.scale * factor));
    camera.x += x / camera.scale - x / scale;
    camera.y += y / camera.scale - y / scale;
    camera.scale = scale;
    draw();
  }
  function fit() {
    const [width, height] = size();
    camera.scale = smallest();
    camera.x = -Math.max(20, (width / camera.scale - fullWidth) / 2);
    camera.y = -Math.max(20, (height / camera.scale - fullHeight) / 2);
    draw();
  }
  function start() {
    const [width] = size();
    fit();
    if (camera.scale < 0.6) {
      camera.scale = Math.min(1, Math.max(0.7, width / (fullWidth + 40)));
      camera.x = camera.y = -20;
      draw();
    }
  }
  /** Move as little as brings the node into sight. */
  function bringIn(number) {
    const [width, height] = size();
    const [x, y] = page.nodes[number].at;
    if (camera.scale < 0.6) camera.scale = 0.8;
    const [wide, high] = [width / camera.scale, height / camera.scale];
    const margin = 24;
    const sees = x >= camera.x + margin && x + WIDTH <= camera.x + wide - margin
      && y >= camera.y + margin && y + HEIGHT <= camera.y + high - margin;
    if (!sees) {
      camera.x = x + WIDTH / 2 - wide / 2;
      camera.y = y + HEIGHT / 2 - high / 2;
      // No further left than the chain that leads here, if both fit.
      const first = page.nodes[pathTo(number)[0]].at[0];
      if (x + WIDTH - first + 2 * margin <= wide) camera.x = Math.min(camera.x, first - margin);
    }
    draw();
  }
  function pathTo(number) {
    const path = [];
    for (let up = number; up !== null; up = page.nodes[up].parent) path.unshift(up);
    return path;
  }
  function curve(start, end) {
    const [from, to] = [page.nodes[start].at, page.nodes[end].at];
    const [y1, y2] = [from[1] + HEIGHT / 2, to[1] + HEIGHT / 2];
    // Out at the right and in at the left; the other way round to what stands further left; a bow within a column.
    const [outAt, inAt] = to[0] > from[0] ? [WIDTH, 0] : to[0] < from[0] ? [0, WIDTH] : [0, 0];
    const [x1, x2] = [from[0] + outAt, to[0] + inAt];
    const bend = Math.max(20, Math.min(120, Math.abs(x2 - x1) / 2, x1 === x2 ? 34 : 120));
    return `M${x1} ${y1}C${x1 + (outAt ? bend : -bend)} ${y1} ${x2 + (inAt ? bend : -bend)} ${y2} ${x2} ${y2}`;
  }

  function choose(number, { center = true } = {}) {
    if (chosen !== null) {
      elements[chosen].classList.remove("now");
      elements[chosen].setAttribute("aria-selected", "false");
    }
    for (const one of lit) elements[one].classList.remove("lit");
    chosen = number;
    const near = [...page.neededBy[number], ...page.needs[number]].map(([other]) => other);
    lit = [...new Set([...pathTo(number), ...near])];
    for (const one of lit) elements[one].classList.add("lit");
    picture.classList.add("dim");
    elements[number].classList.add("now");
    elements[number].setAttribute("aria-selected", "true");
    view.setAttribute("aria-activedescendant", `n${number}`);
    const drawn = { asked: [], listed: [] };
    const add = (start, end, how) => drawn[how === ASKED ? "asked" : "listed"].push(curve(start, end));
    for (const [other, how] of page.needs[number]) add(number, other, how);
    for (const [other, how] of page.neededBy[number]) add(other, number, how);
    const path = pathTo(number);
    for (let n = 1; n < path.length; n += 1) {
      const [start, end] = [path[n - 1], path[n]];
      // What led here through imports is no need; it is drawn like what the loader said.
      const need = page.needs[start].find(([other]) => other === end);
      if (end !== number || !need) add(start, end, need ? need[1] : ASKED);
    }
    $("over-listed").setAttribute("d", drawn.listed.join(""));
    $("over-asked").setAttribute("d", drawn.asked.join(""));
    showDetails(number);
    if (center) bringIn(number);
  }
  function leave() {
    if (chosen === null) return;
    elements[chosen].classList.remove("now");
    for (const one of lit) elements[one].classList.remove("lit");
    lit = [];
    picture.classList.remove("dim");
    for (const id of ["over-listed", "over-asked"]) $(id).setAttribute("d", "");
  }

  function search() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const one of hits) elements[one].classList.remove("hit");
    hits = words.length ? order.filter((n) => words.every((word) => texts[n].includes(word))) : [];
    hit = -1;
    for (const one of hits) elements[one].classList.add("hit");
    const said = words.length ? `${hits.length} of ${page.nodes.length} match` : "";
    $("found").textContent = said;
    announce(said);
    if (hits.length) step(1);
  }
  function step(by) {
    if (!hits.length) return;
    hit = (hit + by + hits.length) % hits.length;
    choose(hits[hit]);
    $("found").textContent = `${hit + 1} of ${hits.length}`;
    announce(`${hit + 1} of ${hits.length}: ${label(hits[hit])}`);
  }
  function nextFailure() {
    const failed = order.filter((n) => BAD.includes(page.nodes[n].state));
    if (!failed.length) return;
    const after = failed.find((n) => chosen !== null && placeInOrder[n] > placeInOrder[chosen]);
    choose(after ?? failed[0]);
    announce(label(chosen));
  }
  function label(number) {
    const node = page.nodes[number];
    return node.word ? `${node.title}, ${node.word}` : node.title;
  }

  function move(key) {
    if (chosen === null) return order[0];
    const node = page.nodes[chosen];
    const siblings = node.parent === null ? order.filter((n) => page.nodes[n].parent === null) : page.children[node.parent];
    const place = siblings.indexOf(chosen);
    switch (key) {
      case "ArrowDown": return siblings[place + 1] ?? order[placeInOrder[chosen] + 1] ?? chosen;
      case "ArrowUp": return siblings[place - 1] ?? node.parent ?? chosen;
      case "ArrowRight": return page.children[chosen][0] ?? chosen;
      case "ArrowLeft": return node.parent ?? chosen;
      case "Home": return order[0];
      case "End": return order[order.length - 1];
      default: return null;
    }
  }
  function onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const actions = {
      "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "0": fit,
      Enter: openDetails, " ": openDetails, "/": () => $("search").focus(), Escape: leave,
    };
    const target = move(event.key);
    if (target !== null && event.key.length > 1) choose(target);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  }
  function openDetails() {
    if (chosen === null) choose(order[0]);
    $("h-details").focus();
  }

  function makeTree() {
    picture.setAttribute("role", "presentation");
    picture.removeAttribute("aria-label");
    view.setAttribute("role", "tree");
    view.setAttribute("aria-label", "The graph");
    view.setAttribute("tabindex", "0");
    elements.forEach((element, number) => {
      element.setAttribute("role", "treeitem");
      element.setAttribute("aria-level", level[number]);
      element.setAttribute("aria-label", label(number));
      element.setAttribute("aria-selected", "false");
    });
  }
  function dragging() {
    let from = null;
    view.addEventListener("pointerdown", (event) => {
      if (event.button === 0) from = { x: event.clientX, y: event.clientY, moved: false, id: event.pointerId };
    });
    view.addEventListener("pointermove", (event) => {
      if (!from) return;
      const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
      if (!from.moved && Math.hypot(dx, dy) < 4) return;
      if (!from.moved) {
        view.setPointerCapture(from.id);
        view.classList.add("dragged");
      }
      camera.x -= dx / camera.scale;
      camera.y -= dy / camera.scale;
      Object.assign(from, { x: event.clientX, y: event.clientY, moved: true });
      draw();
    });
    const end = (event) => {
      if (from && !from.moved && event.type === "pointerup") {
        const node = event.target.closest(".node");
        if (node) choose(Number(node.id.slice(1)), { center: false });
        else leave();
      }
      from = null;
      view.classList.remove("dragged");
    };
    view.addEventListener("pointerup", end);
    view.addEventListener("pointercancel", end);
    view.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== view) return;
      event.preventDefault();
      const box = view.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
  }

  // A small picture needs no large window.
  view.parentElement.style.setProperty("--wanted", `${Math.round(fullHeight + 160)}px`);
  makeTree();
  dragging();
  view.addEventListener("keydown", onKey);
  $("details").addEventListener("keydown", (event) => { if (event.key === "Escape") view.focus(); });
  $("larger").addEventListener("click", () => zoom(1.25));
  $("smaller").addEventListener("click", () => zoom(0.8));
  $("fit").addEventListener("click", fit);
  $("failure").addEventListener("click", nextFailure);
  $("failure").hidden = !page.nodes.some((node) => BAD.includes(node.state));
  $("next").addEventListener("click", () => step(1));
  $("previous").addEventListener("click", () => step(-1));
  $("search").addEventListener("input", search);
  $("search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    step(event.shiftKey ? -1 : 1);
  });
  $("all-needs").addEventListener("change", (event) => {
    const listed = event.target.checked ? page.edges.map(([one, other]) => curve(one, other)) : [];
    $("listed").setAttribute("d", listed.join(""));
  });
  new ResizeObserver(draw).observe(view);
  addEventListener("beforeprint", () => picture.setAttribute("viewBox", `0 0 ${fullWidth} ${fullHeight}`));
  addEventListener("afterprint", draw);

  // Links to a node choose it; those from outside the graph also lead there.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#n"], [data-node]');
    if (!link) return;
    event.preventDefault();
    // Asked first: a link in the details is gone with them.
    const isInside = link.closest("#details") !== null;
    choose(Number(link.dataset.node ?? link.hash.slice(2)));
    if (!isInside) $("graph").scrollIntoView();
    (isInside ? $("h-details") : view).focus({ preventScroll: true });
    announce(label(chosen));
  });

  start();
  const named = /^#n(\d+)$/.exec(location.hash);
  const first = named && Number(named[1]) < page.nodes.length ? Number(named[1]) : page.focus;
  if (first !== null) choose(first);
  return { choose };
})();
