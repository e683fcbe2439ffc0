// How the turns of a conversation look. They show what they are given; what it means is decided in chat.js.

import { copyButton, count, element, icon, iconButton } from "./dom.js";
import { Rendered } from "./rendering.js";
import { Thinking } from "./thinking.js";

export class Question {
  /** `resend` gets the text as it was changed. */
  constructor(text, resend) {
    this.text = text;
    this.resend = resend;
    this.root = element("li", { class: "turn asked" });
    this.#show();
  }

  #show() {
    this.edit = iconButton("edit", "Edit and send again", () => this.#change());
    this.root.replaceChildren(
      element("h2", { class: "unseen", textContent: "You" }),
      element("div", { class: "bubble", textContent: this.text }),
      element("div", { class: "acts" }, copyButton(() => this.text), this.edit),
    );
  }

  #change() {
    const field = element("textarea", { value: this.text, rows: 2, "aria-label": "Your question, changed" });
    const give = () => {
      if (field.value.trim()) this.resend(field.value);
    };
    const leave = () => {
      this.#show();
      this.edit.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        give();
      } else if (event.key === "Escape") {
        event.stopPropagation();
        leave();
      }
    });
    this.root.replaceChildren(
      element("h2", { class: "unseen", textContent: "You" }),
      element("div", { class: "editing" }, field,
        element("div", { class: "dialog-foot" },
          element("button", { type: "button", class: "quiet", textContent: "Cancel", onclick: leave }),
          element("button", { type: "button", class: "main", textContent: "Send", onclick: give }))),
    );
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
}

export class Answer {
  #thinking = null;
  #rendered = null;
  #tools = new Map();

  constructor({ regenerate, goOn }) {
    this.regenerate = regenerate;
    this.goOn = goOn;
    this.text = "";
    this.population = element("div", { class: "together" });
    this.thoughts = element("div");
    this.body = element("div", { class: "reply" });
    this.calls = element("div", { class: "calls" });
    this.trouble = element("div");
    this.dots = element("p", { class: "dots", "aria-hidden": "true" }, element("i"), element("i"), element("i"));
    this.foot = element("div", { class: "turn-foot", hidden: true });
    this.root = element("li", { class: "turn" }, element("h2", { class: "unseen", textContent: "Answer" }),
      this.population, this.thoughts, this.body, this.calls, this.dots, this.trouble, this.foot);
  }

  think(text) {
    this.dots.hidden = true;
    if (this.#thinking === null) {
      this.#thinking = new Thinking(this.thoughts);
      this.#thinking.start();
    }
    this.#thinking.append(text);
  }

  thought(seconds, tokens) {
    this.#thinking?.end(seconds, tokens);
  }

  /** All of it, as it was thought before. */
  thoughtBefore(text, seconds, tokens) {
    this.#thinking = new Thinking(this.thoughts);
    this.#thinking.append(text);
    this.#thinking.end(seconds, tokens);
  }

  write(text) {
    this.dots.hidden = true;
    this.text += text;
    this.#rendered ??= new Rendered(this.body);
    this.#rendered.update(this.text);
  }

  call(index, name, more) {
    this.dots.hidden = true;
    let block = this.#tools.get(index);
    if (block === undefined) {
      const title = element("code");
      const body = element("pre", { tabIndex: 0 });
      this.calls.append(element("div", { class: "call" }, element("p", {}, icon("tool"), "Calls ", title), body));
      this.#tools.set(index, (block = { title, body }));
    }
    block.title.append(name);
    block.body.append(more);
  }

  async end() {
    this.dots.hidden = true;
    if (this.text) {
      this.#rendered ??= new Rendered(this.body);
      await this.#rendered.finish(this.text);
    }
  }

  /** What is known of it, and what can be done with it. */
  facts(parts) {
    const acts = element("div", { class: "acts" });
    if (this.text) acts.append(copyButton(() => this.text, "Copy the answer"));
    this.again = iconButton("again", "Answer again", this.regenerate, { class: "act regenerate" });
    acts.append(this.again);
    this.foot.replaceChildren(acts, element("p", { class: "small", textContent: parts.join(" · ") }));
    this.foot.hidden = false;
  }

  note(text) {
    this.trouble.append(element("p", { class: "notice", textContent: text }));
  }

  /** What went wrong, in the server's words, and a way on. With `wait`, so many seconds later. */
  fail(message, wait) {
    this.dots.hidden = true;
    const own = { type: "button", class: "wide-button", onclick: () => this.goOn() };
    const button = element("button", own, icon("again"), "Try again");
    const words = element("div", {}, element("p", { textContent: message }), button);
    const box = element("div", { class: "trouble" }, icon("alert"), words);
    this.trouble.append(box);
    if (wait) countDown(button, wait);
  }
}

function countDown(button, seconds) {
  const words = button.lastChild;
  const end = Date.now() + seconds * 1000;
  button.disabled = true;
  const tick = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    button.disabled = left > 0;
    words.textContent = left > 0 ? `Try again in ${count(left, "second")}` : "Try again";
    if (left > 0 && button.isConnected !== false) setTimeout(tick, 250);
  };
  tick();
}
