// Making elements. Texts only ever become text, never HTML: a camera may have any name.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with attributes, listeners (onclick: function) and children: elements or texts. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function icon(name) {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("aria-hidden", "true");
  made.setAttribute("focusable", "false");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  made.append(use);
  return made;
}

export const hidden = (text) => make("span", { class: "hidden" }, text);

/** Foreign text on its own, so that its direction does not change the text around it. */
export const foreign = (text) => make("bdi", {}, String(text));

/** Show or hide an element. */
export function show(element, shown) {
  element.hidden = !shown;
}

/** Open a modal dialog. When it closes, the focus goes back to where it was, or where `restore` puts it. */
export function openDialog(dialog, restore = null) {
  if (dialog.open) return;
  const before = document.activeElement;
  dialog.showModal();
  dialog.addEventListener("close", restore || (() => { if (before?.isConnected) before.focus(); }), { once: true });
}

/** Tell people who listen to the page. */
export function say(text) {
  byId("said").textContent = "";
  setTimeout(() => { byId("said").textContent = text; }, 60); // a change is announced, the same text again is not
}
