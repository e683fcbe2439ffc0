// A run once more, at a pace at which one can follow it: pure, from events and seconds of a viewer to events.
//
// Events tell now and then how far a rollout is; between its beginning and its end it is drawn as if it wrote evenly.
// A round lasts as many seconds as its part of the whole, but never less than `LEAST_S`. Used by population.js.

const WHOLE_S = 18;
const LEAST_S = 5;

export class Replay {
  constructor(events) {
    let latest = 0;
    this.kept = events
      .filter((event) => event.kind !== "grow")
      .map((event) => ({ ...event, at: (latest = Math.max(latest, Number.isFinite(event.at) ? event.at : 0)) }));
    this.sizes = new Map();
    this.begun = new Map();
    for (const event of this.kept) {
      const key = `${event.round} ${event.worker}`;
      if (event.kind === "start") this.begun.set(key, event.at);
      if (event.kind === "end") {
        const tokens = event.candidate?.generated_tokens ?? event.generated_tokens ?? 0;
        this.sizes.set(key, { ...event, tokens, from: this.begun.get(key) ?? event.at });
      }
    }
    this.marks = marks(this.kept);
    this.next = 0;
  }

  get length() {
    return this.marks[this.marks.length - 1].seen;
  }

  // The time of the run that is shown at a second of the viewer's.
  at(seen) {
    const last = this.marks[this.marks.length - 1];
    if (seen >= last.seen) return last.at;
    const i = Math.max(1, this.marks.findIndex((mark) => mark.seen > seen));
    const [from, to] = [this.marks[i - 1], this.marks[i]];
    return from.at + ((to.at - from.at) * Math.max(0, seen - from.seen)) / (to.seen - from.seen || 1);
  }

  // What has happened since the last call.
  take(seen) {
    const now = this.at(seen);
    const found = [];
    while (this.next < this.kept.length && this.kept[this.next].at <= now) found.push(this.kept[this.next++]);
    for (const end of this.sizes.values()) {
      if (end.from > now || end.at <= now) continue;
      const part = (now - end.from) / (end.at - end.from);
      const { round, worker } = end;
      found.push({ kind: "grow", at: now, round, worker, tokens: Math.floor(end.tokens * part) });
    }
    return found;
  }

  get isOver() {
    return this.next >= this.kept.length;
  }
}

// Where rounds begin, in both clocks.
function marks(events) {
  const first = new Map();
  let end = 0;
  for (const event of events) {
    end = event.at;
    if (event.kind === "start" && !first.has(event.round)) first.set(event.round, event.at);
  }
  const times = [...new Set([0, ...[...first.values()].slice(1), end])].sort((a, b) => a - b);
  let seen = 0;
  return times.map((at, i) => {
    if (i) seen += Math.max(LEAST_S, ((at - times[i - 1]) / (end || 1)) * WHOLE_S);
    return { at, seen };
  });
}
