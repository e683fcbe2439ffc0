// Elements, made of text and never of HTML.

export const byId = (id) => document.getElementById(id);

/** An element. Properties that begin with "on" are listeners, "class" and names with a dash are attributes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "class") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "glyph");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon, whose name is read aloud and shown on hover. */
export function iconButton(name, label, onclick, properties = {}) {
  const own = { type: "button", class: "act", "aria-label": label, title: label, onclick };
  return element("button", { ...own, ...properties }, icon(name));
}

/** A button that copies. It says so, in place of its icon, for as long as one looks. */
export function copyButton(text, label = "Copy") {
  const button = iconButton("copy", label, async () => {
    const isCopied = await copied(text());
    announce(isCopied ? "Copied" : "This browser does not allow copying");
    button.replaceChildren(icon(isCopied ? "done" : "alert"));
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedAsEver(text); // over plain HTTP, from another machine, there is no other way
  }
}

function copiedAsEver(text) {
  const focused = document.activeElement;
  const field = element("textarea", { class: "unseen", value: text, readOnly: true });
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return isCopied;
}

/** For who listens: what is going on, once. */
export function announce(text) {
  byId("status").textContent = text;
}

export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
