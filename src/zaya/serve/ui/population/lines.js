// The lines of the picture: from tails to those who read them, and from the last candidates to the answer.
//
// Where cards stand in one line for each round, all lines are there, faintly; elsewhere they are shown for a moment
// when a rollout begins. Those of the card that is looked at are always drawn, on top.

import { paint } from "./card.js";
import { svg } from "./dom.js";
import { link } from "./layout.js";

const FLASHES = 256; // rollouts whose lines are shown for a moment at once
const LINES = 1200; // above that none are always there

export class Lines {
  // `endOf`: how far down the card of a rollout is written on, in pixels.
  constructor(endOf) {
    this.endOf = endOf;
    this.over = svg("svg", { class: "lines", role: "img" });
    this.under = svg("svg", { class: "lines under", "aria-hidden": "true" });
    this.always = svg("g", { class: "always" });
    this.flashing = svg("g", { class: "flashing" });
    this.related = svg("g", { class: "related" });
    this.over.append(this.always, this.flashing, this.related);
  }

  reset() {
    this.drawn = new Map(); // lines that are there, or were, by who reads
    for (const group of [this.always, this.flashing, this.related, this.under]) group.replaceChildren();
    this.describe("Who reads whose tail");
  }

  describe(text) {
    this.over.setAttribute("aria-label", text);
  }

  arrange(places, model) {
    this.places = places;
    const { width, height } = places;
    for (const lines of [this.over, this.under]) {
      lines.setAttribute("viewBox", `0 0 ${width} ${height}`);
      lines.setAttribute("width", width);
      lines.setAttribute("height", height);
    }
    const readers = model.rounds.slice(1).reduce((sum, { rollouts }) => sum + rollouts.length, 0);
    this.areKept = places.drawsLines && readers * Math.max(model.settings.fan_in ?? 0, 1) <= LINES;
  }

  // Lines to one that reads: once, and again where places have changed.
  connect(model, rollout, isNew) {
    const known = this.drawn.get(rollout);
    if (!rollout.sources.length || (known && !isNew)) return;
    known?.remove();
    const group = svg("g", { class: known ? "" : "fresh" });
    this.drawn.set(rollout, group);
    if (this.areKept) {
      group.append(...this._paths(model, rollout));
      this.always.append(group);
    } else if (!known && this.places.side && model.phase === "working" && this.flashing.childElementCount < FLASHES) {
      for (const path of this._paths(model, rollout)) {
        path.addEventListener("animationend", () => path.remove(), { once: true });
        this.flashing.append(path);
      }
    }
  }

  // Lines of the one that is looked at, to and from it.
  relate(model, rollout, readers) {
    this.related.replaceChildren();
    if (!rollout) return;
    this.related.append(...this._paths(model, rollout));
    for (const reader of readers) {
      const slip = model.sources(reader).indexOf(rollout);
      this.related.append(this._paths(model, reader)[slip]);
    }
  }

  // Lines from those who gave the answer.
  vote(voters, chosen) {
    const { answer, rounds } = this.places;
    const inside = { ...answer, x: answer.x + answer.w * 0.3, w: answer.w * 0.4 };
    this.under.replaceChildren(
      ...voters.map((voter, i) => {
        const card = rounds[voter.round].cards[voter.worker];
        const way = link(card, card.h, inside, i, voters.length);
        const path = svg("path", { d: way, pathLength: "1", class: voter === chosen ? "final" : "vote" });
        paint(path, chosen.group);
        return path;
      }),
    );
  }

  _paths(model, rollout) {
    const { rounds, inkTop } = this.places;
    const sources = model.sources(rollout);
    return sources.map((source, slip) => {
      const [from, to] = [source, rollout].map((each) => rounds[each.round].cards[each.worker]);
      const way = link(from, inkTop + this.endOf(source), to, slip, sources.length);
      const path = svg("path", { d: way, pathLength: "1" });
      paint(path, source.group);
      return path;
    });
  }
}
