// How answers are asked for: the settings as a form has them, and as fields of a request.

import { byId, element } from "./dom.js";
import { settings as kept } from "./store.js";

const RSA_NUMBERS = ["population", "fan_in", "rounds", "think_budget", "tail_tokens", "final_budget"];

let about = { presets: {}, preset: "" };
const form = () => byId("settings").querySelector("form");
let changed = () => {};

/** The values as strings and booleans, those that are empty or out of bounds left out. */
export function values() {
  const found = {};
  for (const field of form().elements) {
    if (!field.name) continue;
    if (field.type === "checkbox") found[field.name] = field.checked;
    else if (field.value !== "" && field.checkValidity()) found[field.name] = field.value;
  }
  return found;
}

/** What of a request is asked for by settings. */
export function fields() {
  const set = values();
  const number = (name) => (set[name] === undefined ? undefined : Number(set[name]));
  const asked = Object.fromEntries(["temperature", "top_p", "top_k", "seed"].map((name) => [name, number(name)]));
  if (set.preset) {
    asked.rsa = { preset: set.preset, return_candidates: true, ...plan() };
    if (set.last !== "one") asked.rsa.final_workers = asked.rsa.population;
  } else {
    asked.max_tokens = number("max_tokens");
    if (set.thinks) asked.thinking_token_budget = number("think_budget_chat");
    else asked.chat_template_kwargs = { enable_thinking: false };
  }
  return Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined));
}

export const system = () => (values().system ?? "").trim();
export const isTogether = () => Boolean(values().preset);

/** The numbers of Markovian RSA: those given here, else the preset's. What goes with a smaller one follows it. */
function plan() {
  const set = values();
  const found = { ...about.presets[set.preset] };
  for (const name of RSA_NUMBERS) if (set[name] !== undefined) found[name] = Number(set[name]);
  if (set.fan_in === undefined) found.fan_in = Math.min(found.fan_in, found.population);
  if (set.tail_tokens === undefined) found.tail_tokens = Math.min(found.tail_tokens, found.think_budget);
  return found;
}

/** `told` is what the server says of itself; `onChange` is called with every change. */
export function openSettings(told, onChange) {
  about = told;
  changed = onChange;
  const presets = form().elements.preset;
  presets.append(...Object.keys(about.presets).map((name) => element("option", { value: name, textContent: name })));
  form().elements.population.max = about.max_population;
  restore(kept.get());
  form().addEventListener("input", save);
  form().addEventListener("submit", (event) => {
    event.preventDefault();
    byId("settings").close();
  });
  byId("settings").querySelector(".shut").addEventListener("click", () => byId("settings").close());
  byId("reset").addEventListener("click", () => {
    form().reset();
    save();
  });
  byId("open-settings").addEventListener("click", () => byId("settings").showModal());
  byId("think").addEventListener("click", () => {
    form().elements.thinks.checked = !form().elements.thinks.checked;
    save();
  });
  byId("together").addEventListener("click", () => {
    presets.value = presets.value ? "" : (kept.get().lastPreset ?? about.preset);
    if (!presets.value && presets.selectedIndex < 0) presets.value = about.preset;
    save();
  });
  show();
}

function restore(stored) {
  for (const field of form().elements) {
    if (!(field.name in stored)) continue;
    if (field.type === "checkbox") field.checked = stored[field.name] === true;
    else field.value = String(stored[field.name]);
  }
  const presets = form().elements.preset;
  if (presets.selectedIndex < 0) presets.value = ""; // another server's
}

function save() {
  const found = values();
  kept.set({ ...found, lastPreset: found.preset ?? kept.get().lastPreset });
  show();
  changed();
}

function show() {
  const { preset, thinks } = values();
  byId("together").setAttribute("aria-pressed", String(Boolean(preset)));
  byId("think").setAttribute("aria-pressed", String(Boolean(preset) || thinks));
  byId("think").disabled = Boolean(preset); // every attempt thinks
  byId("rsa-fields").hidden = !preset;
  for (const name of RSA_NUMBERS) form().elements[name].placeholder = about.presets[preset]?.[name] ?? "";
}
