// Building elements without markup strings: texts are always texts, so nothing a
// person typed can become markup.

/** Makes an element. Attributes that are functions become listeners; null and false are left out. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === 'class') element.className = value;
    else if (name === 'value' || name === 'checked' || name === 'disabled' || name === 'hidden') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  append(element, children);
  return element;
}

/** Makes an SVG icon from one path of a 24 by 24 grid. */
export function icon(path) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child);
  }
}

/** Finds by data-testid: the same hooks people's tests use. */
export const hook = (name, root = document) => root.querySelector(`[data-testid="${name}"]`);

/** Sets a text only when it differs, so that live regions stay quiet when nothing changed. */
export function setText(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

/** Replaces the children of an element and keeps the keyboard focus where it was, by data-testid. */
export function fill(element, ...children) {
  const active = document.activeElement;
  const focused = element.contains(active) ? active?.dataset?.testid : null;
  element.replaceChildren();
  append(element, children);
  if (focused) hook(focused, element)?.focus({ preventScroll: true });
}

/** Shows a short message in the corner. Errors interrupt a screen reader, others wait. */
export function toast(text, kind = 'info') {
  const corner = document.getElementById('toasts');
  if (!corner) return;
  const note = h('div', { class: `toast ${kind}`, role: kind === 'error' ? 'alert' : 'status' }, text);
  corner.append(note);
  while (corner.children.length > 4) corner.firstElementChild.remove();
  setTimeout(() => note.remove(), kind === 'error' ? 9000 : 5000);
}
