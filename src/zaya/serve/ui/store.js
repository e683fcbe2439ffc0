// What this browser keeps: conversations, settings, the theme; and for this tab alone the key. Where it keeps nothing,
// all of it lasts as long as the page.

const MOST = 20;
const memory = new Map(); // what the browser did not take

function read(storage, name) {
  if (memory.has(name)) return memory.get(name);
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

/** Whether it is kept. */
function write(storage, name, value) {
  try {
    if (value === null) window[storage].removeItem(name);
    else window[storage].setItem(name, value);
    memory.delete(name);
    return true;
  } catch {
    memory.set(name, value);
    return false;
  }
}

function readJson(name, fallback) {
  try {
    return JSON.parse(read("localStorage", name)) ?? fallback;
  } catch {
    return fallback;
  }
}

export const key = {
  get: () => read("sessionStorage", "zaya.key"),
  set: (value) => write("sessionStorage", "zaya.key", value),
};

export const theme = {
  get: () => read("localStorage", "zaya.theme") ?? "system",
  set: (value) => write("localStorage", "zaya.theme", value === "system" ? null : value),
};

export const settings = {
  get: () => readJson("zaya.settings", {}),
  set: (values) => write("localStorage", "zaya.settings", JSON.stringify(values)),
};

/** Newest first. What somebody else wrote under our name is none. */
export function conversations() {
  const found = readJson("zaya.conversations", []);
  return Array.isArray(found) ? found.filter(isConversation) : [];
}

const isConversation = (each) =>
  typeof each?.id === "string" &&
  Array.isArray(each.turns) &&
  each.turns.every((turn) => typeof turn?.content === "string");

/** Puts a conversation first. The oldest go where there is no more room. Says whether it is kept. */
export function keep(conversation) {
  const kept = [conversation, ...conversations().filter((each) => each.id !== conversation.id)].slice(0, MOST);
  for (;;) {
    if (write("localStorage", "zaya.conversations", JSON.stringify(kept))) return true;
    if (kept.length === 1) return false;
    kept.pop();
  }
}

export function forget(id) {
  write("localStorage", "zaya.conversations", JSON.stringify(conversations().filter((each) => each.id !== id)));
}

export function forgetAll() {
  write("localStorage", "zaya.conversations", null);
}
