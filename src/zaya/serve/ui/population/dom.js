// The few ways in which elements are made. Text goes in as text: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, className = "", text = null, attributes = {}) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export function svg(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export function place(made, { x, y, w, h }) {
  made.style.left = `${x}px`;
  made.style.top = `${y}px`;
  made.style.width = `${w}px`;
  made.style.height = `${h}px`;
}

// Text that changes seldom is written seldom: writing it again would make the browser lay it out again.
export function write(made, text) {
  if (made.textContent !== text) made.textContent = text;
}
