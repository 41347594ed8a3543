"use strict";
// What all parts of the page share: the data, a way to build elements, the theme, copying.
const root = document.documentElement;
const $ = (id) => document.getElementById(id);
root.classList.add("js");
const page = JSON.parse($("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

/** An element with properties, listeners ("onclick"), custom properties ("--w") and children. Texts become text only. */
function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const key in properties || {}) {
    const value = properties[key];
    if (value == null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) element.style.setProperty(key, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(3)) if (child != null && child !== false) element.append(child);
  return element;
}

function makeSvg(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text != null) element.textContent = text;
  return element;
}

const num = (count) => count.toLocaleString("en-US");
const many = (count, noun) => `${num(count)} ${noun}${count === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;
function bytes(size) {
  if (!size) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (size >= 1024 && power < 4) { size /= 1024; power++; }
  return `${power && size < 99.95 ? size.toFixed(1) : Math.round(size)} ${units[power]}`;
}
const when = (t) => (t < 0 ? "" : page.isTimed ? `${(t / 1000).toFixed(3)} s` : `load ${t + 1}`);

/** A text as it is shown: of one that is longer than any path, the two ends. What is copied is all of it. */
const clipped = (text) => (text.length > 3000 ? `${text.slice(0, 1500)} \u2026 ${num(text.length - 3000)} characters \u2026 ${text.slice(-1500)}` : text);
/** A path that may break behind each separator; with hundreds of them, as hostile names have, it breaks anywhere. */
function pathy(text) {
  const parts = clipped(text).split(/(?<=[/\\])/);
  return parts.length > 60 ? [parts.join("")] : parts.flatMap((part, at) => (at ? [make("wbr"), part] : [part]));
}
/** A name that loses its middle where there is no room; a pair of surrogates stays together. */
function middle(text, tail) {
  const letters = Array.from(text.length > 600 ? `${text.slice(0, 300)}\u2026${text.slice(-300)}` : text);
  const at = letters.length - Math.min(tail, letters.length >> 1);
  return make("span", { class: "mid" }, make("span", { class: "h" }, letters.slice(0, at).join("")), make("span", { class: "t" }, letters.slice(at).join("")));
}

let toastTimer;
function toast(text) {
  const element = $("toast");
  element.hidden = false;
  element.textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { element.hidden = true; }, 2200);
}

/** Put a text into the clipboard; pages from files may lack the modern way. */
async function copy(text, what) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { class: "vh", readonly: true });
    area.value = text;
    document.body.append(area);
    const before = document.activeElement;
    area.select();
    done = document.execCommand("copy");
    area.remove();
    if (before) before.focus({ preventScroll: true });
  }
  toast(done ? `${what} copied` : "The browser did not let it be copied");
}

/** Buttons of which one is chosen: one tab stop, arrow keys choose. */
function radios(element, items, value, choose) {
  const pick = (key) => {
    for (const button of element.children) {
      const on = button.dataset.k === key;
      button.setAttribute("aria-checked", String(on));
      button.tabIndex = on ? 0 : -1;
    }
  };
  element.replaceChildren(...items.map(([key, label, glyph]) => make("button", {
    type: "button", role: "radio", "data-k": key, "aria-label": label, title: label,
  }, glyph ? make("span", { "aria-hidden": "true" }, glyph) : null, make("span", { class: "w" }, label))));
  element.onclick = (event) => {
    const button = event.target.closest("button");
    if (button) { pick(button.dataset.k); choose(button.dataset.k); }
  };
  element.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = items.findIndex(([key]) => key === element.querySelector("[aria-checked=true]").dataset.k);
    const [key] = items[(at + step + items.length) % items.length];
    pick(key);
    choose(key);
    element.querySelector("[aria-checked=true]").focus();
  };
  pick(value);
  return pick;
}

(function theme() {
  let stored = null;
  try { stored = localStorage.getItem("dlltracer-theme"); } catch { /* Pages from files may not store anything. */ }
  const set = (key) => { if (key === "auto") delete root.dataset.theme; else root.dataset.theme = key; };
  const first = stored === "light" || stored === "dark" ? stored : "auto";
  set(first);
  const items = [["auto", "Auto", "\u25d0"], ["light", "Light", "\u2600"], ["dark", "Dark", "\u263e"]];
  radios($("themes"), items, first, (key) => {
    set(key);
    try { localStorage.setItem("dlltracer-theme", key); } catch { /* As above. */ }
  });
})();

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  // What is copied is what is shown: characters that do not print stay escapes.
  if (button) copy(button.parentElement.querySelector("code").textContent, "Command");
});
$("copy-report").addEventListener("click", () => copy(page.markdown.join("\n"), "Report"));
// The explanation of a cause is folded until somebody asks for it.
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#cause-"]'), target = link && $(link.getAttribute("href").slice(1));
  if (target) target.closest("details").open = true;
});
