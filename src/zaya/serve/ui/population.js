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
import { element, place, write } from "./population/dom.js";
import { Head, legend } from "./population/head.js";
import { layout, neighbour } from "./population/layout.js";
import { Lines } from "./population/lines.js";
import { Model } from "./population/model.js";
import { Replay } from "./population/replay.js";
import { Row } from "./population/row.js";
import { table } from "./population/table.js";
import * as words from "./population/words.js";

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
    this.head = new Head();
    this.again = element("button", "again", "Watch again", { type: "button", hidden: "" });
    this.again.addEventListener("click", () => this._replay());
    this.spoken = element("p", "spoken", "", { "aria-live": "polite" });
    this.graphic = element("div", "graphic", null, { role: "group", "aria-label": "Attempts, one row for each round" });
    this.lines = new Lines((rollout) => this.cards[rollout.round][rollout.worker].end ?? 0);
    this.answer = element("div", "answer ahead");
    this.answerBadge = element("span", "badge");
    this.answerText = element("strong");
    this.answerWhy = element("span", "why");
    this.answer.append(this.answerBadge, this.answerText, this.answerWhy);
    this.table = element("details", "as-table");
    this.table.append(element("summary", "", "As a table"));
    this.table.addEventListener("toggle", () => this._drawTable());
    const foot = element("div", "foot");
    foot.append(legend(), this.again);
    this.root.append(this.head.question, this.head.box, this.graphic, this.spoken, foot, this.table);
    this.detail = new Detail(this.root);
    this._listen();
  }

  _reset(model) {
    clearInterval(this._tick);
    this.detail.close();
    this.model = model;
    this.cards = []; // by round, by worker
    this.rows = [];
    this.at = { round: 0, worker: 0 };
    this.looked = null;
    this.shape = -1;
    this.lines.reset();
    this.graphic.replaceChildren(this.lines.under, this.lines.over, this.answer);
    this._wake({ layout: true });
  }

  _end(change) {
    clearInterval(this._tick);
    this._isOver = true;
    this._last = change;
    this.voted = null;
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
    for (const rollout of dirty) this.lines.connect(model, rollout, isNew);
    for (const round of rounds) this.rows[round]?.draw(model);
    this._drawAnswer();
    const isLive = model.phase === "working" && this._replaying === undefined;
    this.head.draw(model, isLive ? Math.max(0, performance.now() - this._fedAt) / 1000 : 0);
    this.root.dataset.phase = model.phase;
    if (dirty.length) this._relate();
    this._speak();
  }

  _arrange() {
    const { model } = this;
    this.shape = model.shape;
    model.rounds.forEach((round, i) => {
      this.cards[i] ??= [];
      this.rows[i] ??= this._row(i);
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
    for (const { box } of this.rows.splice(model.rounds.length)) box.remove();
    const width = Math.max(200, Math.floor(this.graphic.clientWidth || this.root.clientWidth));
    const sizes = model.rounds.map((round) => round.rollouts.length);
    this.places = layout(width, sizes);
    const { style } = this.graphic;
    style.height = `${this.places.height}px`;
    style.setProperty("--page", `${this.places.page}px`);
    this.graphic.dataset.kind = this.places.kind;
    this.graphic.dataset.side = this.places.side;
    this.graphic.dataset.tight = this.places.isTight;
    this.lines.arrange(this.places, model);
    this.places.rounds.forEach(({ label, cards }, i) => {
      this.rows[i].move(label);
      cards.forEach((box, worker) => this.cards[i][worker].move(box));
    });
    place(this.answer, this.places.answer);
    this.voted = null;
    this._focusable();
  }

  _row(round) {
    const row = new Row(round);
    this.graphic.append(row.box);
    return row;
  }

  // The answer, and lines from those who gave it.
  _drawAnswer() {
    const { model, places } = this;
    const { chosen } = model;
    this.answer.classList.toggle("ahead", !chosen);
    if (!chosen) {
      for (const made of [this.answerBadge, this.answerText]) write(made, "");
      const isOver = model.phase === "over" || model.phase === "failed";
      write(this.answerWhy, isOver ? "There is no answer." : "The answer will be one of the last round's.");
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
    this.lines.vote(voters, chosen);
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
      this.lines.describe(`${sentence} ${aside}`);
      this._drawTable();
    } else if (over > this._told) {
      this._told = over;
      write(this.spoken, words.roundOver(model, over - 1));
      this.lines.describe(words.roundOver(model, over - 1));
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
      this.detail.open(this.model, rollout);
      this.onChoose?.({ round: rollout.round, worker: rollout.worker, candidate: rollout.candidate });
    });
    graphic.addEventListener("pointerover", (event) => this._look(rolloutOf(event)));
    graphic.addEventListener("pointerleave", () => this._look(null));
    graphic.addEventListener("focusin", (event) => {
      const rollout = rolloutOf(event);
      if (rollout) this._go(rollout);
      this._look(rollout);
    });
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
    const readers = rollout ? this.model.readers(rollout) : [];
    this.lines.relate(this.model, rollout, readers);
    if (!rollout) return;
    this._mark(rollout, "looked");
    for (const source of this.model.sources(rollout)) this._mark(source, "source");
    for (const reader of readers) this._mark(reader, "reader");
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
