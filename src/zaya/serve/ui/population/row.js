// What stands beside the cards of a round: its name, how far it is, and the shares of its answers.

import { paint } from "./card.js";
import { element, place, write } from "./dom.js";
import * as words from "./words.js";

const KEYS = 2; // answers that are spelled out

export class Row {
  constructor(round) {
    this.round = round;
    this.box = element("div", "round");
    this.title = element("div", "title");
    this.sub = element("div", "sub");
    this.strip = element("div", "strip", null, { role: "img" });
    this.keys = element("div", "keys", null, { "aria-hidden": "true" });
    this.box.append(this.title, this.sub, this.strip, this.keys);
  }

  move(box) {
    place(this.box, box);
  }

  draw(model) {
    const { round } = this;
    const size = model.rounds[round].rollouts.length;
    const ended = model.ended(round);
    const hasBegun = model.hasBegun(round);
    this.box.classList.toggle("ahead", !hasBegun);
    write(this.title, words.title(model, round));
    const far = !hasBegun || size === 1 ? "" : ended < size ? `, ${ended} of ${size} ended` : ", all ended";
    write(this.sub, words.subtitle(model, round) + far);
    this._shares(model);
  }

  _shares(model) {
    const { groups, none, open } = model.shares(this.round);
    const told = JSON.stringify([groups, none, open]);
    if (this.told === told) return;
    this.told = told;
    const parts = groups.map((share) => this._part(model, share));
    if (none) parts.push(sized(element("span", "part none"), none));
    if (open) parts.push(sized(element("span", "part open"), open));
    this.strip.replaceChildren(...parts);
    const answers = words.answersOf(model, this.round);
    const spelled = answers.length ? `Answers: ${answers.slice(0, 8).join(", ")}` : "No answers yet";
    this.strip.setAttribute("aria-label", spelled);
    this.keys.replaceChildren(...groups.slice(0, KEYS).map((share) => key(model, share)));
    if (groups.length > KEYS) this.keys.append(element("span", "more", `+${groups.length - KEYS}`));
  }

  _part(model, { group, count }) {
    const part = sized(element("span", "part", words.letter(group)), count);
    paint(part, group);
    part.title = `${words.letter(group)} ${words.clipped(model.groups[group], 16)} ×${count}`;
    return part;
  }
}

function sized(part, count) {
  part.style.flexGrow = count;
  return part;
}

function key(model, { group, count }) {
  const made = element("span", "key");
  paint(made, group);
  made.append(
    element("span", "badge", words.letter(group)),
    element("span", "words", words.clipped(model.groups[group], 14)),
    element("span", "times", `×${count}`),
  );
  return made;
}
