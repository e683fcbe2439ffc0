// The view of a population inside an answer, which can be enlarged to the window. One element serves both: a dialog
// that lies in the page until it is shown as one.

import { element, iconButton } from "./dom.js";

export class Together {
  #view = null;
  #dialog;

  constructor(root) {
    this.holder = element("div");
    const enlarge = iconButton("large", "Enlarge", () => this.#enlarge(), { class: "act enlarge" });
    const close = iconButton("close", "Back into the page", () => this.#dialog.close(), { class: "act shut" });
    const title = element("span", { textContent: "Thinking together" });
    const head = element("div", { class: "frame-head" }, title, enlarge, close);
    const own = { class: "population-frame", "aria-label": "Thinking together" };
    this.#dialog = element("dialog", own, head, this.holder);
    this.#dialog.setAttribute("open", "");
    this.#dialog.addEventListener("close", () => {
      this.#dialog.setAttribute("open", "");
      enlarge.focus();
    });
    root.replaceChildren(this.#dialog);
  }

  async begin(plan) {
    const { PopulationView } = await import("./population.js");
    this.#view = new PopulationView(this.holder);
    this.#view.begin(plan);
  }

  feed(events) {
    this.#view.feed(events);
  }

  finish(block) {
    this.#view.finish(block);
  }

  fail(message) {
    this.#view?.fail(message);
  }

  #enlarge() {
    this.#dialog.removeAttribute("open");
    this.#dialog.showModal();
  }
}
