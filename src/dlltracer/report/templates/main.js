// The explorer: map, timeline, table and details show one set of images, under one filter and one arrangement.
let stateButtons, pickArrangement, live;

function markStates() {
  for (const button of stateButtons.children) button.setAttribute("aria-pressed", String(ui.shows[button.dataset.k]));
}

function makeStateButtons() {
  const titles = { bad: "Failed", dropped: "Dropped", optional: "Not required", loaded: isTree ? "Found" : "Loaded" };
  const several = Object.values(counts).filter(Boolean).length > 1;
  stateButtons = make("div", { class: "states", role: "group", "aria-label": "Show" }, Object.keys(titles).filter((key) => several && counts[key]).map((key) => make("button", {
    class: "st", type: "button", "data-k": key, "aria-pressed": "false", onclick: () => { ui.shows[key] = !ui.shows[key]; markStates(); refresh(true); },
  }, make("span", { class: `ico ${key}`, "aria-hidden": "true" }, GLYPHS[key]), titles[key], " ", make("span", null, num(counts[key])))));
  markStates();
  return stateButtons;
}

function arrange(key) {
  ui.arrange = key;
  ui.scope = "";
  ui.sort = ["", 1];
  pickArrangement(key);
  refresh(true);
}

function go(id) {
  ui.scope = id;
  refresh(true);
}

/** With the top of the explorer under the header, table and path line end at the edge of the window. */
function sizeGrid() {
  const above = grid.getBoundingClientRect().top - $("explore").getBoundingClientRect().top;
  $("explore").style.setProperty("--gh", `${Math.max(288, Math.min(800, Math.round(innerHeight - 65 - above - foot.offsetHeight)))}px`);
}

/** Draw everything for the state of `ui`; `reopen` also opens the first levels anew. */
function refresh(reopen) {
  build();
  if (reopen) { openFirst(scope()); grid.scrollTop = 0; }
  flatten();
  drawMap();
  drawCrumbs();
  sizeGrid();
  paint(true);
  footer();
  markTime();
  for (const cell of headRow.children) {
    const on = ui.sort[0] === cell.dataset.k, up = ui.sort[1] > 0 !== (cell.dataset.k === "size");
    cell.setAttribute("aria-sort", on ? (up ? "ascending" : "descending") : "none");
    cell.querySelector(".ar").textContent = on ? (up ? " \u2191" : " \u2193") : "";
  }
  live.textContent = `${num(scope().n)} of ${many(images.length, "image")} shown`;
}

function makeExplorer() {
  const explore = $("explore");
  const ways = [
    counts.bad ? ["cause", "By cause"] : null, page.processes.length > 1 ? ["process", "By process"] : null, hasImports ? ["import", "By import"] : null,
    ["package", hasImports ? "By package" : "By origin"], ["needs", "By need"], ["list", "List"],
  ].filter(Boolean);
  const ways_ = make("div", { class: "seg", role: "radiogroup", "aria-label": "Arrange" });
  const filter = make("input", {
    class: "filter", id: "filter", type: "search", placeholder: "Filter by words\u2026", title: "Name, package, rule, state, reason, import; press / to come here", "aria-keyshortcuts": "/", "aria-label": "Filter the images",
    autocomplete: "off", spellcheck: "false", oninput: (event) => { ui.filter = event.target.value; refresh(true); },
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) { event.preventDefault(); filter.focus(); }
    if (event.key === "Escape" && ui.selected >= 0) closeDetails();
  });
  const head = make("div", { class: "exhead" }, make("h2", { id: "exh" }, "Images"), ways_, makeStateButtons(), filter);
  details = make("aside", { class: "det", "aria-label": "Details", hidden: true, tabindex: -1 });
  live = make("div", { class: "vh", role: "status", "aria-live": "polite" });
  const table = makeTable();
  explore.classList.toggle("of-file", isTree);
  pickArrangement = radios(ways_, ways, ui.arrange, arrange);
  explore.replaceChildren(head, makeOverview(), ...(isTree ? [] : [makeTimeline()]), make("div", { class: "exbody" }, table, details), live);
  if (isTree) timeSvg = makeSvg("svg", {});
  let width = 0;
  new ResizeObserver(() => {
    if (explore.clientWidth === width) return;
    width = explore.clientWidth;
    drawMap();
    drawTimeline();
    sizeGrid();
    paint(true);
  }).observe(explore);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-cause]");
  if (!button) return;
  const at = +button.dataset.cause, [title, detail] = at < 0 ? ["", ""] : page.causes[at];
  if (!ui.shows.bad) { ui.shows.bad = true; markStates(); }
  arrange("cause");
  if (title) go(SEP + title + (detail && nodes.has(SEP + title + SEP + detail) ? SEP + detail : ""));
  $("explore").scrollIntoView();
});

let opened = [];
addEventListener("beforeprint", () => {
  root.classList.add("printing");
  opened = [...document.querySelectorAll("details:not(.vain):not([open])")];
  for (const one of opened) one.open = true;
  paint(true);
});
addEventListener("afterprint", () => {
  root.classList.remove("printing");
  for (const one of opened) one.open = false;
  paint(true);
});

if (images.length) {
  makeExplorer();
  refresh(true);
  drawTimeline();
  if (page.focus >= 0 && counts.bad && counts.bad <= 5) {
    ui.active = rows.find((row) => row.image && row.image.i === page.focus)?.id || "";
    paint(true);
    footer();
  }
}
root.dataset.ready = String(Math.round(performance.now()));
