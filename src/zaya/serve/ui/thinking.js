// What a model thought: plain text that opens while it thinks and closes by itself when the answer begins, unless
// somebody has opened or closed it by hand.

import { count, element } from "./dom.js";

export class Thinking {
  #box;
  #label;
  #body;
  #isTouched = false;

  constructor(root) {
    this.#label = element("span", { textContent: "Thinking" });
    this.#body = element("div", { class: "reasoning", tabIndex: 0, role: "region", "aria-label": "Reasoning" });
    const summary = element("summary", { onclick: () => (this.#isTouched = true) }, this.#label);
    this.#box = element("details", { class: "thinking" }, summary, this.#body);
    root.replaceChildren(this.#box);
  }

  start() {
    this.#box.open = true;
    this.#box.classList.add("live");
  }

  append(text) {
    const isAtEnd = this.#body.scrollHeight - this.#body.clientHeight - this.#body.scrollTop < 24;
    this.#body.append(text);
    if (isAtEnd) this.#body.scrollTop = this.#body.scrollHeight;
  }

  /** `seconds` and `tokens` where they are known. */
  end(seconds, tokens) {
    this.#box.classList.remove("live");
    if (!this.#isTouched) this.#box.open = false;
    const parts = [
      ...(seconds === undefined ? [] : [`for ${duration(seconds)} s`]),
      ...(tokens ? [count(tokens, "token")] : []),
    ];
    this.#label.textContent = parts.length ? `Thought ${parts.join(", ")}` : "Thoughts";
  }
}

const duration = (seconds) => (seconds < 9.5 ? Math.max(0.1, seconds).toFixed(1) : Math.round(seconds));
