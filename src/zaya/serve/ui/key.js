// Asks for the key of a server that has some. One question at a time, however many requests wait for it.

import { byId } from "./dom.js";
import { key } from "./store.js";

let asking = null;

/** The key that was given and kept for this tab; null where nobody gave one. */
export function askForKey(message) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key");
    const form = dialog.querySelector("form");
    const first = "Ask whoever runs it. Without one, you can look around but not ask.";
    byId("key-note").textContent = key.get() ? `The server says: ${message}.` : first;
    form.elements.key.value = "";
    const done = new AbortController();
    const give = (event) => {
      event.preventDefault();
      key.set(form.elements.key.value.trim());
      dialog.close("given");
    };
    dialog.returnValue = "";
    form.addEventListener("submit", give, { signal: done.signal });
    dialog.querySelector(".shut").addEventListener("click", () => dialog.close(), { signal: done.signal });
    dialog.addEventListener("close", () => {
      done.abort();
      asking = null;
      resolve(dialog.returnValue === "given" ? key.get() : null);
    }, { signal: done.signal });
    dialog.showModal();
  });
  return asking;
}
