
"use strict";
// What the parts of the page share: the data, a way to build elements, theme, copying, printing.
const page = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const $ = (id) => document.getElementById(id);
root.classList.add("js");

/** An element with attributes and children. Texts become text and nothing else. */
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

let told = 0;
/** Tell readers of screens, once things have come to rest. */
function announce(text) {
  clearTimeout(told);
  told = setTimeout(() => { $("live").textContent = text; }, 150);
}

function remember(name, value) {
  try { localStorage.setItem(name, value); } catch { /* Pages from files may not store anything. */ }
}

function recall(name) {
  try { return localStorage.getItem(name); } catch { return null; }
}

(function theme() {
  const button = $("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  const stored = recall("dlltracer-theme");
  if (stored === "dark" || stored === "light") root.dataset.theme = stored;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember("dlltracer-theme", root.dataset.theme);
    show();
  });
  dark.addEventListener("change", show);
  show();
})();

/** Put a text into the clipboard; pages from files may lack the modern way. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { class: "unseen", readonly: "" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  // What is copied is what is shown: characters that do not print stay escapes.
  const text = button.dataset.copy || button.parentElement.querySelector("code").textContent;
  const done = await copyText(text);
  button.focus();
  const label = button.firstChild;
  const before = button.dataset.label || label.nodeValue;
  button.dataset.label = before;
  label.nodeValue = done ? "Copied" : "Not copied";
  announce(done ? "Copied" : "The browser did not let it be copied");
  setTimeout(() => { label.nodeValue = before; }, 1500);
});

(function print() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("#verdict details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
})();
