// The list of conversations that this browser keeps.

import { byId, element, iconButton } from "./dom.js";
import { conversations, forget, forgetAll } from "./store.js";

/** `open` gets a conversation, or null for a new one; `drop` lets go of the one that is shown; `current` is its id. */
export class Past {
  constructor({ open, drop, current }) {
    this.open = open;
    this.drop = drop;
    this.current = current;
    byId("new").addEventListener("click", () => this.#leave(null));
    byId("forget").addEventListener("click", () => this.#forgetAll());
    this.show();
  }

  show({ isKept = true } = {}) {
    const found = conversations();
    byId("conversations").replaceChildren(...found.map((each) => this.#row(each)));
    byId("forget").hidden = found.length === 0;
    byId("past-note").textContent = isKept
      ? "The last 20 conversations stay in this browser, and nowhere else."
      : "This browser keeps nothing: conversations last as long as this page.";
  }

  #row(conversation) {
    const title = String(conversation.title ?? "Conversation");
    const leave = () => this.#leave(conversation);
    const open = element("button", { type: "button", class: "title", textContent: title, title, onclick: leave });
    if (conversation.id === this.current()) open.setAttribute("aria-current", "true");
    const remove = iconButton("delete", `Delete: ${title}`, () => {
      forget(conversation.id);
      if (conversation.id === this.current()) this.drop();
      this.show();
      byId("new").focus();
    });
    return element("li", {}, open, remove);
  }

  #forgetAll() {
    if (!confirm("Delete all conversations in this browser?")) return;
    forgetAll();
    this.drop();
    this.show();
  }

  #leave(conversation) {
    const past = byId("past");
    if (past.matches(":popover-open")) past.hidePopover();
    this.open(conversation);
    this.show();
  }
}
