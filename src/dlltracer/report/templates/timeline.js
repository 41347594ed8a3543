// The timeline: imports as a lane of names, loads upwards, failed and dropped images downwards. One path for each kind.
let timeSvg, lanes = [];

function makeTimeline() {
  const words = page.isTimed ? `${many(images.length, "load")} in ${when(lastTime)}` : `${many(images.length, "load")} in their order`;
  timeSvg = makeSvg("svg", { height: 78, role: "img", "aria-label": `Timeline: ${words}${hasFailed ? `, ${num(counts.bad + counts.dropped)} failed or dropped` : ""}` });
  const found = new Map();
  for (const image of images) {
    if (image.t < 0 || !image.imports.length) continue;
    const key = outermost(image), lane = found.get(key);
    if (!lane) found.set(key, { key, first: image.t, last: image.t, n: 1, image });
    else { lane.first = Math.min(lane.first, image.t); lane.last = Math.max(lane.last, image.t); lane.n++; }
  }
  lanes = [...found.values()].sort((a, b) => a.first - b.first).slice(0, 400);
  timeSvg.addEventListener("click", (event) => {
    const element = event.target.closest(".lane");
    if (!element) return;
    const { image } = lanes[+element.dataset.lane];
    if (ui.arrange !== "import") arrange("import");
    const id = ARRANGEMENTS.import(image).slice(0, -1).map(([key]) => SEP + key).join("");
    if (!nodes.has(id)) { for (const group in ui.shows) ui.shows[group] = true; markStates(); build(); }
    go(id);
  });
  const bars = `bars up for loads${hasFailed ? ", arrows down for what failed or was dropped" : ""}`;
  const hint = lanes.length ? `Imports above, first to last load; below, ${bars}. Click an import to look closer.` : `B${bars.slice(1)}.`;
  return make("div", { class: "time" }, make("div", { class: "timehead" }, make("h3", null, page.isTimed ? "When" : "In which order"), make("span", { class: "legend hint" }, hint)), timeSvg);
}

function drawTimeline() {
  const width = timeSvg.clientWidth;
  if (!width) return;
  timeSvg.setAttribute("viewBox", `0 0 ${width} 78`);
  timeSvg.replaceChildren();
  const x = (t) => t / lastTime * (width - 2) + 1, STEP = 4, bins = Math.ceil(width / STEP) + 1;
  const up = new Float64Array(bins), down = new Float64Array(bins);
  for (const image of images) {
    if (image.t >= 0) (image.bad || image.group === "dropped" ? down : up)[Math.min(bins - 1, Math.floor(x(image.t) / STEP))]++;
  }
  const mostUp = Math.sqrt(Math.max(1, ...up)), mostDown = Math.sqrt(Math.max(1, ...down));
  let upPath = "", downPath = "";
  for (let bin = 0; bin < bins; bin++) {
    if (up[bin]) {
      const high = Math.max(2, 22 * Math.sqrt(up[bin]) / mostUp).toFixed(1);
      upPath += `M${bin * STEP} 48v-${high}h3v${high}z`;
    }
    if (down[bin]) downPath += `M${Math.min(bin * STEP, width - 4) - 2} 50h7l-3.5 ${Math.max(6, 11 * Math.sqrt(down[bin]) / mostDown).toFixed(1)}z`;
  }
  timeSvg.append(makeSvg("path", { class: "up", d: upPath || "M0 0" }), makeSvg("path", { class: "down", d: downPath || "M0 0" }), makeSvg("path", { class: "axis", d: `M0 49H${width}` }));
  lanes.forEach((lane, number) => {
    const left = x(lane.first), wide = Math.max(3, x(lane.last) - left), room = Math.floor((wide - 8) / 7);
    const element = makeSvg("g", { class: "lane", "data-lane": number });
    element.append(makeSvg("title", {}, `import ${lane.key}: ${many(lane.n, "load")}, ${when(lane.first)} to ${when(lane.last)}`), makeSvg("rect", { x: left, y: 1, width: wide, height: 18, rx: wide < 8 ? 1 : 3 }));
    const letters = Array.from(lane.key);
    if (room >= 3) element.append(makeSvg("text", { x: left + 4, y: 14 }, letters.length <= room ? lane.key : `${letters.slice(0, Math.max(1, room - 1)).join("")}\u2026`));
    timeSvg.append(element);
  });
  const steps = page.isTimed ? (width < 500 ? 2 : 4) : 0;
  for (let step = 0; step <= steps && steps; step++) {
    const t = lastTime * step / steps, label = lastTime < 100 ? `${t.toFixed(1)} ms` : `${(t / 1000).toFixed(lastTime < 5000 ? 2 : 1)} s`;
    timeSvg.append(makeSvg("text", { x: step === 0 ? 0 : step === steps ? width : x(t), y: 75, "text-anchor": step === 0 ? "start" : step === steps ? "end" : "middle" }, label));
  }
  markTime();
}

/** Show in the timeline what the breadcrumb stands at. */
function markTime() {
  timeSvg.querySelectorAll(".sel").forEach((element) => element.remove());
  const place = scope();
  if (!ui.scope || place.t1 < 0) return;
  const width = timeSvg.clientWidth, x = (t) => t / lastTime * (width - 2) + 1;
  timeSvg.prepend(makeSvg("rect", { class: "sel", x: x(place.t0) - 2, y: 0, width: x(place.t1) - x(place.t0) + 4, height: 62 }));
}
