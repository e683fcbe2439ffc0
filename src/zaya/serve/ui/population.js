// Markovian RSA, live: a population of attempts, round by round, who reads whose tail, and how they come to agree.
//
//     const view = new PopulationView(root, { onChoose });
//     view.begin({ question, population, fan_in, rounds, preset });
//     view.feed(delta.rsa_progress.events);      // as often as there are any
//     view.finish(chunk.rsa);                    // or view.fail(message)
//
// A model (population/model.js) takes events in; at most once in a frame what changed is drawn, at places that
// population/layout.js works out. All text of models and people goes in by `textContent`. Styles: population.css.

import { Card, paint } from "./population/card.js";
import { Detail } from "./population/detail.js";
import { element, place, svg, write } from "./population/dom.js";
import { layout, link, neighbour } from "./population/layout.js";
import { Model } from "./population/model.js";
import { Replay } from "./population/replay.js";
import { table } from "./population/table.js";
import * as words from "./population/words.js";

const FLASHES = 256; // lines that are shown for a moment at once, where they are not always
const LINES = 1200; // above that they are shown for a moment too
const TICK_MS = 250;

export class PopulationView {
  constructor(root, { onChoose = null } = {}) {
    this.root = root;
    this.onChoose = onChoose;
    this._events = [];
    this._told = 0; // rounds of which the end was said
    this._isOver = false;
    this._fedAt = performance.now();
    this._build();
    this._reset(new Model());
    this._watch = new ResizeObserver(() => this._wake({ layout: true }));
    this._watch.observe(this.graphic);
  }

  begin(plan = {}) {
    this._events = [];
    this._told = 0;
    this._isOver = false;
    this._fedAt = performance.now();
    this._stopReplay();
    this._reset(new Model(plan));
    write(this.spoken, "");
    this._tick = setInterval(() => this._wake({}), TICK_MS);
  }

  feed(events) {
    if (!Array.isArray(events) || this._isOver) return;
    for (const event of events) if (event && typeof event === "object") this._events.push(event);
    this._fedAt = performance.now();
    this.model.feed(events);
    this._wake({});
  }

  finish(block) {
    this._end((model) => model.finish(block));
  }

  fail(message) {
    this._end((model) => model.fail(message));
  }

  // Nothing more is drawn; for a page that lets go of it.
  close() {
    this._stopReplay();
    clearInterval(this._tick);
    cancelAnimationFrame(this._frame);
    this._watch.disconnect();
    this.detail.close();
    this.root.replaceChildren();
  }

  // ----- what there is

  _build() {
    this.root.replaceChildren();
    this.root.classList.add("population");
    this.root.setAttribute("role", "group");
    this.root.setAttribute("aria-label", "Markovian RSA");
    this.question = element("p", "question");
    this.caption = element("p", "caption");
    this.aside = element("p", "aside");
    this.stats = element("dl", "stats");
    this.stat = {};
    const names = [["time", "time"], ["tokens", "tokens written"], ["speed", "tokens/s"], ["longest", "longest context"]];
    for (const [name, text] of names) {
      const pair = element("div");
      this.stat[name] = element("dd", "", "0");
      pair.append(element("dt", "", text), this.stat[name]);
      this.stats.append(pair);
    }
    this.stats.lastChild.title = "Tokens that one attempt had to hold at once, read and written: that it stays small is the point.";
    this.again = element("button", "again", "Watch again", { type: "button", hidden: "" });
    this.again.addEventListener("click", () => this._replay());
    this.spoken = element("p", "spoken", "", { "aria-live": "polite" });
    this.graphic = element("div", "graphic", null, { role: "group", "aria-label": "Attempts, one row for each round" });
    this.lines = svg("svg", { class: "lines", role: "img" });
    this.always = svg("g", { class: "always" });
    this.flashing = svg("g", { class: "flashing" });
    this.under = svg("svg", { class: "lines under", "aria-hidden": "true" });
    this.related = svg("g", { class: "related" });
    this.lines.append(this.always, this.flashing, this.related);
    this.answer = element("div", "answer ahead");
    this.answerBadge = element("span", "badge");
    this.answerText = element("strong");
    this.answerWhy = element("span", "why");
    this.answer.append(this.answerBadge, this.answerText, this.answerWhy);
    this.table = element("details", "as-table");
    this.table.append(element("summary", "", "As a table"));
    this.table.addEventListener("toggle", () => this._drawTable());
    const head = element("div", "top");
    const said = element("div", "said");
    said.append(this.caption, this.aside);
    head.append(said, this.stats);
    const foot = element("div", "foot");
    foot.append(legend(), this.again);
    this.root.append(this.question, head, this.graphic, this.spoken, foot, this.table);
    this.detail = new Detail(this.root);
    this._listen();
  }

  _reset(model) {
    clearInterval(this._tick);
    this.detail.close();
    this.model = model;
    this.cards = []; // by round, by worker
    this.labels = [];
    this.drawn = new Map(); // lines that are always there, by rollout
    this.at = { round: 0, worker: 0 };
    this.looked = null;
    this.shape = -1;
    this.lines.setAttribute("aria-label", "Who reads whose tail");
    for (const group of [this.always, this.flashing, this.related]) group.replaceChildren();
    this.graphic.replaceChildren(this.under, this.lines, this.answer);
    this._wake({ layout: true });
  }

  _end(change) {
    clearInterval(this._tick);
    this._isOver = true;
    this._last = change;
    change(this.model);
    this.again.hidden = !this._events.some((event) => event.kind === "end");
    this._wake({});
  }

  // ----- a frame

  _wake({ layout: isNew = false }) {
    this._isNew ||= isNew;
    this._frame ??= requestAnimationFrame(() => {
      this._frame = undefined;
      this._draw();
    });
  }

  _draw() {
    const { model } = this;
    const isNew = this._isNew || this.shape !== model.shape;
    this._isNew = false;
    if (isNew) this._arrange();
    const dirty = [...(isNew ? model.rounds.flatMap((round) => round.rollouts) : model.changed)];
    model.changed.clear();
    const rounds = new Set();
    for (const rollout of dirty) {
      this.cards[rollout.round]?.[rollout.worker]?.draw(model, this.places);
      rounds.add(rollout.round);
    }
    for (const rollout of dirty) this._connect(rollout, isNew);
    for (const round of rounds) this._drawLabel(round);
    this._drawAnswer();
    this._drawHead();
    if (dirty.length) this._relate();
    this._speak();
  }

  _arrange() {
    const { model } = this;
    this.shape = model.shape;
    model.rounds.forEach((round, i) => {
      this.cards[i] ??= [];
      this.labels[i] ??= this._label(i);
      const row = this.cards[i];
      for (const card of row.splice(round.rollouts.length)) card.button.remove();
      round.rollouts.forEach((rollout, worker) => {
        if (row[worker]?.rollout === rollout) return;
        row[worker]?.button.remove();
        row[worker] = new Card(rollout);
        this.graphic.append(row[worker].button);
      });
    });
    for (const row of this.cards.splice(model.rounds.length)) for (const card of row) card.button.remove();
    for (const { box } of this.labels.splice(model.rounds.length)) box.remove();
    const width = Math.max(200, Math.floor(this.graphic.clientWidth || this.root.clientWidth));
    const sizes = model.rounds.map((round) => round.rollouts.length);
    this.places = layout(width, sizes);
    const { style } = this.graphic;
    style.height = `${this.places.height}px`;
    style.setProperty("--page", `${this.places.page}px`);
    style.setProperty("--gap", `${this.places.gap}px`);
    this.graphic.dataset.kind = this.places.kind;
    this.graphic.dataset.side = this.places.side;
    this.graphic.dataset.tight = this.places.isTight;
    for (const lines of [this.under, this.lines]) {
      lines.setAttribute("viewBox", `0 0 ${width} ${this.places.height}`);
      lines.setAttribute("width", width);
      lines.setAttribute("height", this.places.height);
    }
    this.places.rounds.forEach(({ label, cards }, i) => {
      place(this.labels[i].box, label);
      cards.forEach((box, worker) => this.cards[i][worker].move(box));
    });
    place(this.answer, this.places.answer);
    this.voted = null;
    const fan = Math.max(model.settings.fan_in ?? 0, 1);
    const links = sizes.slice(1).reduce((sum, size) => sum + size * fan, 0);
    this.hasLines = this.places.drawsLines && links <= LINES;
    this._focusable();
  }

  // Lines from the tails that a rollout reads, drawn when it is known, and in their places.
  _connect(rollout, isNew) {
    const known = this.drawn.get(rollout);
    if (!rollout.sources.length || (known && !isNew)) return;
    if (this.hasLines) {
      known?.remove();
      const group = svg("g", { class: known ? "" : "fresh" });
      group.append(...this._paths(rollout));
      this.always.append(group);
      this.drawn.set(rollout, group);
      return;
    }
    known?.remove();
    this.drawn.set(rollout, svg("g"));
    if (known || !this.places.side || this.model.phase !== "working" || this.flashing.childElementCount >= FLASHES) return;
    for (const path of this._paths(rollout)) {
      path.addEventListener("animationend", () => path.remove(), { once: true });
      this.flashing.append(path);
    }
  }

  _paths(rollout) {
    const sources = this.model.sources(rollout);
    return sources.map((source, slip) => {
      const path = svg("path", { d: this._way(source, rollout, slip, sources.length), pathLength: "1" });
      paint(path, source.group);
      return path;
    });
  }

  _way(source, rollout, slip, count) {
    const from = this.places.rounds[source.round].cards[source.worker];
    const to = this.places.rounds[rollout.round].cards[rollout.worker];
    const end = this.places.inkTop + (this.cards[source.round][source.worker].end ?? 0);
    return link(from, end, to, slip, count);
  }

  // ----- rounds, the answer, the head

  _label(round) {
    const box = element("div", "round");
    const title = element("div", "title");
    const sub = element("div", "sub");
    const strip = element("div", "strip", null, { role: "img" });
    const keys = element("div", "keys", null, { "aria-hidden": "true" });
    box.append(title, sub, strip, keys);
    this.graphic.append(box);
    return { box, title, sub, strip, keys, round };
  }

  _drawLabel(round) {
    const { title, sub, strip, keys, box } = this.labels[round];
    const { model } = this;
    const { rollouts } = model.rounds[round];
    const over = model.ended(round);
    const hasBegun = model.hasBegun(round);
    box.classList.toggle("ahead", !hasBegun);
    write(title, words.title(model, round));
    const ended = !hasBegun || rollouts.length === 1 ? "" : over < rollouts.length ? `, ${over} of ${rollouts.length} ended` : ", all ended";
    write(sub, words.subtitle(model, round) + ended);
    const { groups, none, open } = model.shares(round);
    const parts = [...groups.map(({ group, count }) => [group, count]), ["none", none], ["open", open]];
    const key = parts.join(" ");
    if (strip.dataset.key === key) return;
    strip.dataset.key = key;
    strip.replaceChildren(
      ...parts.filter(([, count]) => count).map(([group, count]) => {
        const part = element("span", typeof group === "number" ? "part" : `part ${group}`);
        part.style.flexGrow = count;
        if (typeof group === "number") {
          paint(part, group);
          const share = `${words.letter(group)} ${words.clipped(model.groups[group], 16)} ×${count}`;
          part.append(element("span", "", words.letter(group)));
          part.title = share;
        }
        return part;
      }),
    );
    const answers = words.answersOf(model, round);
    strip.setAttribute("aria-label", answers.length ? `Answers: ${answers.slice(0, 8).join(", ")}` : "No answers yet");
    keys.replaceChildren(
      ...groups.slice(0, 2).map(({ group, count }) => {
        const one = element("span", "key");
        const badge = element("span", "badge", words.letter(group));
        paint(one, group);
        one.append(badge, element("span", "words", words.clipped(model.groups[group], 14)), element("span", "times", `×${count}`));
        return one;
      }),
    );
    if (groups.length > 2) keys.append(element("span", "more", `+${groups.length - 2}`));
  }

  // The answer, and lines from those who gave it.
  _drawAnswer() {
    const { model, places } = this;
    const { chosen } = model;
    this.answer.classList.toggle("ahead", !chosen);
    if (!chosen) {
      for (const made of [this.answerBadge, this.answerText]) write(made, "");
      write(this.answerWhy, model.phase === "failed" ? "There is no answer." : "The answer will be one of the last round's.");
      this.under.replaceChildren();
      paint(this.answer, null);
      return;
    }
    if (this.voted === chosen) return;
    this.voted = chosen;
    paint(this.answer, chosen.group);
    write(this.answerBadge, chosen.group === null ? "" : words.letter(chosen.group));
    write(this.answerText, model.answer === null ? "(see the text)" : words.clipped(model.answer, 120));
    write(this.answerWhy, words.why(model));
    const { rollouts } = model.rounds[chosen.round];
    const agrees = (each) => model.selection === "majority" && places.drawsLines && each.group === chosen.group;
    const voters = rollouts.filter((each) => each === chosen || (each.group !== null && agrees(each)));
    const { cards } = places.rounds[chosen.round];
    const inside = { ...places.answer, x: places.answer.x + places.answer.w * 0.3, w: places.answer.w * 0.4 };
    this.under.replaceChildren(
      ...voters.map((voter, i) => {
        const way = link(cards[voter.worker], cards[voter.worker].h, inside, i, voters.length);
        const path = svg("path", { d: way, pathLength: "1", class: voter === chosen ? "final" : "vote" });
        paint(path, chosen.group);
        return path;
      }),
    );
  }

  _drawHead() {
    const { model } = this;
    write(this.question, model.question);
    const [sentence, aside] = words.caption(model);
    write(this.caption, sentence);
    write(this.aside, aside);
    this.root.dataset.phase = model.phase;
    const isLive = model.phase === "working" && this._replaying === undefined;
    const since = isLive ? Math.max(0, performance.now() - this._fedAt) / 1000 : 0;
    write(this.stat.time, model.at || isLive ? words.clock(model.at + since) : "–");
    write(this.stat.tokens, words.count(model.tokens));
    write(this.stat.speed, model.speed ? words.count(model.speed) : "–");
    write(this.stat.longest, model.longest ? words.count(model.longest) : "–");
  }

  // Once for each round that is over, and for the end.
  _speak() {
    if (this._replaying !== undefined) return;
    const { model } = this;
    const isEnd = model.phase === "over" || model.phase === "failed";
    const whole = model.rounds.findIndex((round) => !round.isOver);
    const over = whole < 0 ? model.rounds.length : whole;
    if (isEnd && this._told !== Infinity) {
      this._told = Infinity;
      const [sentence, aside] = words.caption(model);
      write(this.spoken, `${sentence} ${aside}`);
      this.lines.setAttribute("aria-label", `${sentence} ${aside}`);
      this._drawTable();
    } else if (over > this._told) {
      this._told = over;
      write(this.spoken, words.roundOver(model, over - 1));
      this.lines.setAttribute("aria-label", words.roundOver(model, over - 1));
      this._drawTable();
    }
  }

  _drawTable() {
    this.table.querySelector("table")?.remove();
    if (this.table.open) this.table.append(table(this.model));
  }

  // ----- hands and eyes

  _listen() {
    const { graphic } = this;
    const rolloutOf = (event) => {
      const card = event.target.closest?.(".card");
      return card ? this.model.rounds[card.dataset.round]?.rollouts[card.dataset.worker] : null;
    };
    graphic.addEventListener("click", (event) => {
      const rollout = rolloutOf(event);
      if (!rollout) return;
      this._go(rollout);
      this.detail.open(this.model, rollout);
      this.onChoose?.({ round: rollout.round, worker: rollout.worker, candidate: rollout.candidate });
    });
    graphic.addEventListener("pointerover", (event) => this._look(rolloutOf(event)));
    graphic.addEventListener("pointerleave", () => this._look(null));
    graphic.addEventListener("focusin", (event) => this._look(rolloutOf(event)));
    graphic.addEventListener("focusout", () => this._look(null));
    graphic.addEventListener("keydown", (event) => this._key(event));
  }

  _key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !event.target.closest?.(".card")) return;
    const { round, worker } = this.at;
    const size = this.model.rounds[round].rollouts.length;
    const moves = {
      ArrowLeft: () => ({ round, worker: Math.max(0, worker - 1) }),
      ArrowRight: () => ({ round, worker: Math.min(size - 1, worker + 1) }),
      ArrowUp: () => neighbour(this.places, round, worker, -1),
      ArrowDown: () => neighbour(this.places, round, worker, 1),
      Home: () => ({ round, worker: 0 }),
      End: () => ({ round, worker: size - 1 }),
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    const to = moves[event.key]();
    this._go(to);
    this.cards[to.round][to.worker].button.focus();
  }

  _go({ round, worker }) {
    this.cards[this.at.round]?.[this.at.worker]?.button.setAttribute("tabindex", "-1");
    this.at = { round, worker };
    this._focusable();
  }

  _focusable() {
    const card = this.cards[this.at.round]?.[this.at.worker] ?? this.cards[0]?.[0];
    if (!card) return;
    this.at = { round: card.rollout.round, worker: card.rollout.worker };
    card.button.setAttribute("tabindex", "0");
  }

  // Who is looked at, with those whose tails it read and those who read its tail.
  _look(rollout) {
    if (rollout === this.looked) return;
    this.looked = rollout;
    this._relate();
  }

  _relate() {
    for (const button of this._marked ?? []) button.classList.remove("looked", "source", "reader");
    this._marked = [];
    const rollout = this.looked;
    this.graphic.classList.toggle("looking", Boolean(rollout));
    this.related.replaceChildren();
    if (!rollout) return;
    const readers = this.model.readers(rollout);
    this._mark(rollout, "looked");
    for (const source of this.model.sources(rollout)) this._mark(source, "source");
    for (const reader of readers) this._mark(reader, "reader");
    this.related.append(...this._paths(rollout));
    for (const reader of readers) {
      const slip = this.model.sources(reader).indexOf(rollout);
      this.related.append(this._paths(reader)[slip]);
    }
  }

  _mark(rollout, name) {
    const { button } = this.cards[rollout.round][rollout.worker];
    button.classList.add(name);
    this._marked.push(button);
  }

  // ----- once more

  _replay() {
    const begun = performance.now();
    const replay = new Replay(this._events);
    const { question, settings } = this.model;
    this._reset(new Model({ ...settings, question }));
    this.again.hidden = true;
    const step = () => {
      const seen = (performance.now() - begun) / 1000;
      this.model.feed(replay.take(seen));
      this._wake({});
      this._replaying = requestAnimationFrame(step);
      if (!replay.isOver) return;
      this._stopReplay();
      this._end(this._last);
    };
    this._replaying = requestAnimationFrame(step);
  }

  _stopReplay() {
    if (this._replaying !== undefined) cancelAnimationFrame(this._replaying);
    this._replaying = undefined;
  }
}

function legend() {
  const box = element("ul", "legend");
  const items = [
    ["slips", "the tails that an attempt reads"],
    ["ink", "what it writes, and then is forgotten"],
    ["tail", "its tail: the end, all that is handed on"],
    ["chip", "its answer; the same letter and color is the same answer"],
  ];
  for (const [name, text] of items) {
    const item = element("li");
    item.append(element("span", `sample ${name}`, name === "chip" ? "A" : null, { "aria-hidden": "true" }), element("span", "", text));
    box.append(item);
  }
  return box;
}
