// The page: puts the parts together, and listens to the keyboard.

import { request, whenKeyIsNeeded } from "./api.js";
import { Chat } from "./chat.js";
import { byId, element, icon } from "./dom.js";
import { askForKey } from "./key.js";
import { Past } from "./past.js";
import { startFollowing } from "./scroll.js";
import { openSettings } from "./settings.js";
import { conversations, theme } from "./store.js";

const THEMES = ["system", "light", "dark"];
const LAST = "zaya.open"; // the conversation that this tab shows

function showTheme() {
  const now = theme.get();
  if (now === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = now;
  const button = byId("theme");
  button.replaceChildren(icon(now));
  button.title = `Theme: ${now}`;
  button.setAttribute("aria-label", `Theme: ${now}`);
}

byId("theme").addEventListener("click", () => {
  theme.set(THEMES[(THEMES.indexOf(theme.get()) + 1) % THEMES.length]);
  showTheme();
});
showTheme();
whenKeyIsNeeded(askForKey);
startFollowing();

const question = byId("question");

async function aboutServer() {
  for (;;) {
    try {
      return await (await request("/ui/about")).json();
    } catch (error) {
      byId("welcome-note").textContent = error.message;
      byId("welcome").classList.remove("early");
      await new Promise((resolve) => {
        const again = { type: "button", class: "wide-button", onclick: resolve };
        byId("questions").replaceChildren(element("li", {}, element("button", again, icon("again"), "Try again")));
      });
      byId("questions").replaceChildren();
    }
  }
}

function memoryOf({ model, context }) {
  return context ? `${model} remembers ${context.toLocaleString("en")} tokens of a conversation.` : "";
}

function example(text, chat) {
  const words = element("span", { textContent: text.replaceAll("\n", " ") });
  return element("button", { type: "button", class: "example", title: text, onclick: () => chat.ask(text) }, words);
}

function start(about) {
  byId("model").textContent = about.model;
  byId("welcome-note").textContent = about.note ?? memoryOf(about);
  question.placeholder = `Ask ${about.model}`;
  let past = null;
  const chat = new Chat(about, {
    onKept: (isKept) => past?.show({ isKept }),
    onBusy: (isBusy) => {
      byId("send").hidden = isBusy;
      byId("stop").hidden = !isBusy;
    },
  });
  const open = (conversation) => {
    chat.open(conversation);
    byId("send").hidden = false;
    byId("stop").hidden = true;
    question.focus();
  };
  const drop = () => {
    chat.drop();
    open(null);
  };
  past = new Past({ open, drop, current: () => chat.kept.id });
  openSettings(about, () => {});
  byId("questions").replaceChildren(...about.questions.map((text) => element("li", {}, example(text, chat))));

  byId("welcome").classList.remove("early");

  const send = () => {
    const text = question.value;
    if (!text.trim() || chat.isBusy) return;
    question.value = "";
    fit();
    chat.ask(text);
    past.show();
    question.focus({ preventScroll: true });
  };
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  const stop = () => {
    chat.stop();
    byId("send").hidden = false;
    byId("stop").hidden = true;
    question.focus({ preventScroll: true });
  };
  byId("stop").addEventListener("click", stop);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chat.isBusy && !document.querySelector("dialog:modal, :popover-open")) stop();
  });
  addEventListener("pagehide", () => remember(chat.kept.turns.length ? chat.kept.id : null));
  const last = conversations().find((each) => each.id === remembered());
  if (last) chat.open(last);
  past.show();
}

function remember(id) {
  try {
    if (id) sessionStorage.setItem(LAST, id);
    else sessionStorage.removeItem(LAST);
  } catch {
    // then a reload begins anew
  }
}

function remembered() {
  try {
    return sessionStorage.getItem(LAST);
  } catch {
    return null;
  }
}

/** The field is as high as its text, for browsers that cannot do that by themselves. */
function fit() {
  if (CSS.supports("field-sizing", "content")) return;
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}
question.addEventListener("input", fit);

start(await aboutServer());
