// What is above the picture, and the key below it: the question, what is happening in a sentence, and four numbers.

import { element, write } from "./dom.js";
import * as words from "./words.js";

const NUMBERS = { time: "time", tokens: "tokens written", speed: "tokens/s", longest: "longest context" };
const KEY = {
  slips: "the tails that an attempt reads",
  ink: "what it writes, and then is forgotten",
  tail: "its tail: the end, all that is handed on",
  chip: "its answer; the same letter and color is the same answer",
};

export class Head {
  constructor() {
    this.question = element("p", "question");
    this.caption = element("p", "caption");
    this.aside = element("p", "aside");
    const said = element("div", "said");
    said.append(this.caption, this.aside);
    const stats = element("dl", "stats");
    this.stat = {};
    for (const [name, text] of Object.entries(NUMBERS)) {
      const pair = element("div");
      this.stat[name] = element("dd");
      pair.append(element("dt", "", text), this.stat[name]);
      stats.append(pair);
    }
    stats.lastChild.title = "Tokens that one attempt had to hold at once, read and written.";
    this.box = element("div", "top");
    this.box.append(said, stats);
  }

  // `since`: seconds since the model heard of anything.
  draw(model, since) {
    write(this.question, model.question);
    const [sentence, aside] = words.caption(model);
    write(this.caption, sentence);
    write(this.aside, aside);
    const now = model.at + since;
    write(this.stat.time, now ? words.clock(now) : "–");
    write(this.stat.tokens, words.count(model.tokens));
    write(this.stat.speed, model.speed ? words.count(model.speed) : "–");
    write(this.stat.longest, model.longest ? words.count(model.longest) : "–");
  }
}

export function legend() {
  const box = element("ul", "legend");
  for (const [name, text] of Object.entries(KEY)) {
    const item = element("li");
    const sample = element("span", `sample ${name}`, name === "chip" ? "A" : null, { "aria-hidden": "true" });
    item.append(sample, element("span", "", text));
    box.append(item);
  }
  return box;
}
