// A population as far as its events have told: pure state, no DOM and no clock.
//
// Events may be missing, late or repeated: a stream may have begun before anybody listened. What is over stays as it
// is, and places that were never mentioned appear when something happens there. Texts are kept as they came and are for
// `textContent` alone. Source of the events: serve/progress.py; drawn by population.js.

export const OVER = ["done", "cut", "lost", "stopped"];
export const UNDER_WAY = ["reading", "thinking", "answering", "again"];

// What is beyond these is no run of Markovian RSA, and would be a page that never ends.
const MOST_ROUNDS = 66;
const MOST_WORKERS = 1024;
const WINDOW_S = 5; // what the speed is a mean of

const isCount = (value) => Number.isInteger(value) && value >= 0;
const isText = (value) => typeof value === "string";
const number = (value) => (Number.isFinite(value) && value >= 0 ? value : 0);

export class Model {
  constructor({ question = "", population, fan_in, rounds, preset } = {}) {
    this.question = isText(question) ? question : "";
    this.settings = { population, fan_in, rounds, preset };
    this.rounds = [];
    this.groups = []; // of answers that say the same: the words of the first
    this.phase = "waiting"; // then "working", and "over" or "failed"
    this.at = 0; // seconds since the beginning
    this.begun = null; // of the first rollout
    this.tokens = 0;
    this.longest = 0; // context: tokens read and written by one rollout
    this.chosen = null;
    this.answer = null;
    this.selection = "";
    this.partial = false;
    this.stopped = null;
    this.message = "";
    this.changed = new Set(); // rollouts that look different since somebody cleared it
    this.shape = 0; // grows when there are more rounds or rollouts
    this._byText = new Map();
    this._byServer = new Map();
    this._spoken = [[0, 0]];
    if (isCount(rounds) && isCount(population) && population > 0) this._plan(rounds, population);
  }

  // How many rounds of aggregation there are; what is behind them weighs the last candidates.
  get last() {
    return isCount(this.settings.rounds) ? this.settings.rounds : Math.max(0, this.rounds.length - 1);
  }

  get current() {
    return this.rounds.findLastIndex((round) => this.hasBegun(round.number));
  }

  get speed() {
    const [at, tokens] = this.phase === "working" ? this._spoken[0] : [this.begun ?? 0, 0];
    return this.at > at ? (this.tokens - tokens) / (this.at - at) : 0;
  }

  feed(events) {
    if (!Array.isArray(events) || this.phase === "over" || this.phase === "failed") return;
    for (const event of events) if (event && typeof event === "object") this._event(event);
  }

  // What the end of the answer says: `rsa` of the last chunk. It is enough by itself.
  finish(block) {
    const told = block && typeof block === "object" ? block : {};
    this._settle(told.settings);
    const texts = Array.isArray(told.groups) ? told.groups : [];
    const rounds = Array.isArray(told.rounds) ? told.rounds : [];
    rounds.forEach((round, i) => this._finishRound(i, round, texts));
    if (told.closing && typeof told.closing === "object") this._finishRound(this.last + 1, told.closing, texts);
    this.selection = isText(told.selection) ? told.selection : this.selection;
    this.answer = isText(told.answer) ? told.answer : this.answer;
    this.partial = told.partial === true;
    this.stopped = isText(told.stopped) ? told.stopped : null;
    if (told.chosen) this._choose(told.chosen.round, told.chosen.worker);
    this._stop("over");
  }

  fail(message) {
    this.message = isText(message) ? message : "";
    this._stop("failed");
  }

  // Answers of a round, the most frequent first, of equal ones the one that turned up first.
  shares(round) {
    const counts = new Map();
    let none = 0;
    let open = 0;
    for (const rollout of this.rounds[round]?.rollouts ?? []) {
      if (rollout.group !== null) counts.set(rollout.group, (counts.get(rollout.group) ?? 0) + 1);
      else if (rollout.state === "done" || rollout.state === "cut") none += 1;
      else open += 1;
    }
    const found = [...counts].map(([group, count]) => ({ group, count }));
    return { groups: found.sort((a, b) => b.count - a.count || a.group - b.group), none, open };
  }

  // Of the round behind it, those who read the tail of a rollout.
  readers(rollout) {
    const next = this.rounds[rollout.round + 1]?.rollouts ?? [];
    return next.filter((reader) => reader.sources.includes(rollout.worker));
  }

  sources(rollout) {
    const before = this.rounds[rollout.round - 1]?.rollouts ?? [];
    return rollout.sources.map((worker) => before[worker]).filter(Boolean);
  }

  // Those of a round that came to an end; not those that were stopped.
  ended(round) {
    return this.rounds[round].rollouts.filter(({ state }) => OVER.includes(state) && state !== "stopped").length;
  }

  hasBegun(round) {
    const { rollouts } = this.rounds[round];
    return rollouts.some(({ state, tokens }) => tokens > 0 || (state !== "waiting" && state !== "stopped"));
  }

  // ----- what happened

  _event(event) {
    if (event.kind === "plan") return this._readPlan(event);
    this.at = Math.max(this.at, number(event.at));
    if (event.kind === "choice") {
      this.answer = isText(event.answer) ? event.answer : null;
      this.selection = isText(event.selection) ? event.selection : "";
      return this._choose(event.round, event.worker);
    }
    if (event.kind === "round") {
      if (isCount(event.round) && this.rounds[event.round]) this.rounds[event.round].isOver = true;
      return undefined;
    }
    const rollout = this._rollout(event.round, event.worker);
    if (!rollout || OVER.includes(rollout.state)) return undefined;
    if (this.phase === "waiting") this.phase = "working";
    this.begun ??= number(event.at);
    this.changed.add(rollout);
    switch (event.kind) {
      case "start":
        rollout.state = "reading";
        rollout.begun = number(event.at);
        this._read(rollout, event.sources);
        break;
      case "grow":
        rollout.state = event.is_answering === true ? "answering" : "thinking";
        this._grow(rollout, event.tokens);
        break;
      case "retry":
        rollout.state = "again";
        rollout.retries += 1;
        rollout.why = isText(event.why) ? event.why : "";
        this._grow(rollout, 0);
        break;
      case "lost":
        rollout.state = "lost";
        rollout.ended = number(event.at);
        rollout.why = isText(event.why) ? event.why : "";
        break;
      case "end":
        rollout.ended = number(event.at);
        this._end(rollout, event.candidate ?? event, event.group);
        break;
    }
    return undefined;
  }

  _end(rollout, told, group) {
    rollout.state = told.is_finished === true ? "done" : "cut";
    rollout.isForced = told.is_forced === true;
    rollout.prompt = number(told.prompt_tokens);
    this._grow(rollout, told.generated_tokens);
    this._read(rollout, told.sources);
    this.longest = Math.max(this.longest, rollout.prompt + rollout.tokens);
    if (isText(told.answer)) {
      rollout.answer = told.answer;
      rollout.group = this._group(told.answer, group);
    }
    if (isText(told.text) || isText(told.reasoning)) rollout.candidate = told;
    this.changed.add(rollout);
  }

  _grow(rollout, tokens) {
    this.tokens += number(tokens) - rollout.tokens;
    rollout.tokens = number(tokens);
    if (this.at >= this._spoken[this._spoken.length - 1][0] + WINDOW_S / 20) this._spoken.push([this.at, this.tokens]);
    while (this._spoken.length > 1 && this._spoken[1][0] <= this.at - WINDOW_S) this._spoken.shift();
  }

  _read(rollout, sources) {
    if (!Array.isArray(sources) || !sources.length || !rollout.round) return;
    rollout.sources = [...new Set(sources.filter((worker) => isCount(worker) && worker < MOST_WORKERS))];
    for (const worker of rollout.sources) this._rollout(rollout.round - 1, worker);
  }

  // Which group an answer is in: by what the server says, or else by its words.
  _group(answer, told) {
    const known = (isCount(told) ? this._byServer.get(told) : undefined) ?? this._byText.get(answer);
    const group = known ?? this.groups.push(answer) - 1;
    if (isCount(told)) this._byServer.set(told, group);
    this._byText.set(answer, group);
    return group;
  }

  // ----- the plan and the end

  _readPlan(event) {
    this._settle(event.settings);
    const rounds = Array.isArray(event.rounds) ? event.rounds.slice(0, MOST_ROUNDS) : [];
    const last = () => this.rounds.length - 1;
    while (rounds.length && last() >= rounds.length && !this.hasBegun(last())) this.rounds.pop();
    rounds.forEach((round, i) => {
      this._size(i, round?.workers);
      if (this.rounds[i]) this.rounds[i].budget = number(round?.budget);
    });
    this.shape += 1;
  }

  _settle(settings) {
    if (settings && typeof settings === "object") this.settings = { ...this.settings, ...settings };
  }

  _plan(rounds, population) {
    for (let i = 0; i <= Math.min(rounds, MOST_ROUNDS - 1); i += 1) this._size(i, population);
  }

  // A plan may be smaller than what was expected before it: places where nothing has happened go.
  _size(round, workers) {
    const wanted = Math.min(isCount(workers) ? workers : 0, MOST_WORKERS);
    if (wanted) this._rollout(round, wanted - 1);
    const rollouts = this.rounds[round]?.rollouts ?? [];
    while (rollouts.length > wanted && rollouts[rollouts.length - 1].state === "waiting") rollouts.pop();
  }

  _finishRound(i, told, texts) {
    if (!told || typeof told !== "object" || i >= MOST_ROUNDS) return;
    this._size(i, Math.max(number(told.requests), this.rounds[i]?.rollouts.length ?? 0));
    if (!this.rounds[i]) return;
    this.rounds[i].budget = number(told.budget) || this.rounds[i].budget;
    this.rounds[i].isOver = true;
    const candidates = new Map((Array.isArray(told.candidates) ? told.candidates : []).map((c) => [c.worker, c]));
    for (const one of Array.isArray(told.rollouts) ? told.rollouts : candidates.values()) {
      const rollout = this._rollout(i, one?.worker);
      if (!rollout) continue;
      const answer = rollout.answer ?? texts[one.group] ?? null;
      this._end(rollout, { answer, ...one, ...candidates.get(one.worker) }, one.group);
    }
    const failed = number(Object.values(told.lost ?? {}).reduce((sum, count) => sum + number(count), 0));
    const missing = this.rounds[i].rollouts.filter((rollout) => !OVER.includes(rollout.state));
    for (const rollout of missing.slice(0, failed)) {
      rollout.state = "lost";
      this.changed.add(rollout);
    }
  }

  _choose(round, worker) {
    const rollout = isCount(worker) ? this._rollout(round, worker) : null;
    if (!rollout) return;
    if (this.chosen) this.changed.add(this.chosen);
    this.chosen = rollout;
    this.changed.add(rollout);
  }

  _stop(phase) {
    this.phase = phase;
    for (const round of this.rounds) {
      for (const rollout of round.rollouts) {
        if (OVER.includes(rollout.state)) continue;
        rollout.state = "stopped";
        this.changed.add(rollout);
      }
    }
  }

  _rollout(round, worker) {
    if (!isCount(round) || !isCount(worker) || round >= MOST_ROUNDS || worker >= MOST_WORKERS) return null;
    while (this.rounds.length <= round) {
      this.rounds.push({ number: this.rounds.length, budget: 0, isOver: false, rollouts: [] });
      this.shape += 1;
    }
    const { rollouts } = this.rounds[round];
    while (rollouts.length <= worker) {
      rollouts.push({
        round, worker: rollouts.length, state: "waiting", tokens: 0, prompt: 0, begun: null, ended: null, sources: [],
        answer: null, group: null, why: "", retries: 0, isForced: false, candidate: null,
      });
      this.shape += 1;
    }
    return rollouts[worker];
  }
}
