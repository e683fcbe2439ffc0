// One rollout as a card: slips of what it reads, its number and state, its answer, and the page that it writes.

import { element, place, svg, write } from "./dom.js";
import { written } from "./layout.js";
import { OVER } from "./model.js";
import { clipped, label, letter, SHORT } from "./words.js";

// Drawn in a box of 12.
const ICONS = {
  waiting: "M6 1.5a4.5 4.5 0 1 0 .01 0M6 3.5V6l1.8 1",
  reading: "M1.5 6C4 2.5 8 2.5 10.5 6C8 9.5 4 9.5 1.5 6M6 6h.01",
  thinking: "M2.5 6h.01M6 6h.01M9.5 6h.01",
  answering: "M2 10l1-3 5.5-5.5 2 2L5 9z",
  again: "M10 6a4 4 0 1 1-1.2-2.9M9.5 1v2.5H7",
  done: "M2 6.5l3 3 5-6.5",
  cut: "M2 3.5h8M2 6h4M8 8l3 3M11 8l-3 3",
  lost: "M2.5 2.5l7 7M9.5 2.5l-7 7",
  stopped: "M3 6h6",
  chosen: "M6 .8l1.5 3.4 3.7.4-2.8 2.5.8 3.7L6 8.9l-3.2 1.9.8-3.7L.8 4.6l3.7-.4z",
};
const SLIPS = 8;

export class Card {
  constructor(rollout) {
    this.rollout = rollout;
    this.button = element("button", "card", null, { type: "button", tabindex: "-1" });
    this.button.dataset.round = rollout.round;
    this.button.dataset.worker = rollout.worker;
    this.slips = element("span", "slips");
    this.number = element("span", "number", String(rollout.worker));
    this.icon = svg("svg", { viewBox: "0 0 12 12", class: "icon", "aria-hidden": "true" });
    this.path = svg("path");
    this.icon.append(this.path);
    this.badge = element("span", "badge");
    this.words = element("span", "words");
    const chip = element("span", "chip");
    chip.append(this.words);
    this.ink = element("span", "ink");
    this.tail = element("span", "tail");
    const page = element("span", "page");
    this.ink.append(this.tail);
    page.append(this.ink);
    const head = element("span", "head");
    head.append(this.number, this.badge, this.icon);
    this.button.append(this.slips, head, chip, page);
    this.told = {};
  }

  move(box) {
    place(this.button, box);
  }

  // `ink`: pixels of a page; `hasSlips`: whether there is room for them.
  draw(model, { ink, hasSlips }) {
    const { rollout } = this;
    const isChosen = rollout === model.chosen;
    const group = rollout.group === null ? "" : String(rollout.group);
    const round = model.rounds[rollout.round];
    const { full, tail } = written(rollout.tokens, round.budget, handedOn(model, rollout), ink);
    this.end = full;
    const slips = hasSlips ? model.sources(rollout).map((source) => source.group ?? "-") : [];
    this._set("state", rollout.state, () => (this.button.dataset.state = rollout.state));
    this._set("icon", isChosen ? "chosen" : rollout.state, (name) => this.path.setAttribute("d", ICONS[name]));
    this._set("chosen", isChosen, () => this.button.classList.toggle("chosen", isChosen));
    this._set("group", group, () => paint(this.button, rollout.group));
    this._set("full", full, () => (this.ink.style.height = `${full}px`));
    this._set("tail", tail, () => {
      this.tail.style.height = `${tail}px`;
      this.button.classList.toggle("hands-on", tail > 0);
    });
    this._set("slips", slips.join(), () => this._slips(slips));
    const isOver = OVER.includes(rollout.state);
    write(this.badge, group === "" ? "" : letter(rollout.group));
    write(this.words, rollout.answer === null ? SHORT[rollout.state] : clipped(rollout.answer, 24));
    const told = `${rollout.state} ${isOver ? rollout.tokens : 0} ${group} ${isChosen} ${rollout.sources.length}`;
    this._set("label", told, () => this.button.setAttribute("aria-label", label(model, rollout)));
  }

  _slips(groups) {
    this.slips.replaceChildren(
      ...groups.slice(0, SLIPS).map((group) => {
        const slip = element("span", "slip");
        paint(slip, group === "-" ? null : group);
        return slip;
      }),
    );
  }

  _set(name, value, change) {
    if (this.told[name] === value) return;
    this.told[name] = value;
    change(value);
  }
}

// Tokens of a rollout that the next round may see; of the last round there are none.
function handedOn(model, rollout) {
  const isOver = rollout.state === "done" || rollout.state === "cut";
  if (!isOver || rollout.round >= model.rounds.length - 1) return 0;
  return model.settings.compaction === "full" ? rollout.tokens : model.settings.tail_tokens ?? 1;
}

// The color and the pattern of a group of answers; together with its letter they tell it from others.
export function paint(made, group) {
  for (const name of [...made.classList]) if (/^[gp]\d$/.test(name)) made.classList.remove(name);
  made.classList.toggle("has-group", group !== null);
  if (group !== null) made.classList.add(`g${group % 8}`, `p${group % 4}`);
}
