// Markdown, rendered by the server while it comes. What is complete is rendered once, the last block again and again,
// one request at a time. Where that fails, text is text.

import { request } from "./api.js";
import { copyButton, element } from "./dom.js";

const PAUSE_MS = 250;
const MOST_AT_ONCE = 60_000;

// The one place where HTML is made of text. The server has let nothing through that could do anything.
const policy = globalThis.trustedTypes?.createPolicy("rendered", { createHTML: (html) => html });

function nodesOf(html) {
  const parsed = new DOMParser().parseFromString(policy ? policy.createHTML(html) : html, "text/html");
  for (const pre of parsed.querySelectorAll("pre")) dressCode(pre);
  return [...parsed.body.childNodes];
}

function dressCode(pre) {
  const head = element("div", { class: "code-head" }, element("span", { textContent: pre.dataset.language ?? "" }));
  const frame = element("div", { class: "code" }, head);
  pre.replaceWith(frame);
  frame.append(pre);
  head.append(copyButton(() => pre.textContent, "Copy code"));
}

export class Rendered {
  #text = "";
  #lines = 0; // that are complete, and rendered
  #complete = element("div", { class: "complete" });
  #growing = element("div", { class: "growing" });
  #running = null;
  #timer = null;

  constructor(root) {
    root.replaceChildren(this.#complete, this.#growing);
  }

  /** The text as it is by now. */
  update(text) {
    this.#text = normal(text);
    if (!this.#complete.hasChildNodes() && !this.#growing.hasChildNodes()) this.#showPlain(this.#text);
    if (this.#running === null && this.#timer === null) this.#start();
  }

  #start() {
    this.#running = this.#more().finally(() => {
      this.#running = null;
      this.#timer = setTimeout(() => {
        this.#timer = null;
        if (this.#text !== this.#shown) this.#start();
      }, PAUSE_MS);
    });
  }

  #shown = null;

  async #more() {
    const text = this.#text;
    this.#shown = text;
    const rest = text.split("\n").slice(this.#lines).join("\n");
    try {
      const blocks = await render(rest);
      const last = blocks.pop();
      for (const block of blocks) this.#complete.append(...nodesOf(block.html));
      this.#growing.replaceChildren(...(last ? nodesOf(last.html) : []));
      if (blocks.length) this.#lines += last.line;
    } catch {
      this.#showPlain(rest);
    }
  }

  /** The whole, once more in one piece where it is not too long: a reference may be explained at the end. */
  async finish(text) {
    this.#text = normal(text);
    clearTimeout(this.#timer);
    await this.#running;
    clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#text.length > MOST_AT_ONCE) {
      await this.#more();
      return;
    }
    try {
      const blocks = await render(this.#text);
      this.#complete.replaceChildren(...blocks.flatMap((block) => nodesOf(block.html)));
      this.#growing.replaceChildren();
    } catch {
      this.#complete.replaceChildren();
      this.#showPlain(this.#text);
    }
  }

  #showPlain(text) {
    this.#growing.replaceChildren(element("p", { class: "plain", textContent: text }));
  }
}

async function render(text) {
  if (!text.trim()) return [];
  return (await (await request("/ui/render", { body: { text } })).json()).blocks;
}

/** Line breaks as the server counts them, and no half characters, which no request may hold. */
function normal(text) {
  return text.replace(/\r\n?/g, "\n").toWellFormed();
}
