// A card that is opened: the facts of a rollout and, where the server gave them, its texts, as text.

import { element } from "./dom.js";
import { OVER } from "./model.js";
import { clipped, count, letter, STATES } from "./words.js";

const MARKER = "..."; // stands before a tail that is not whole

export class Detail {
  constructor(root) {
    this.dialog = element("dialog", "attempt");
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside it
    });
    root.append(this.dialog);
  }

  open(model, rollout) {
    const title = `Attempt ${rollout.worker} of round ${rollout.round}`;
    const close = element("button", "close", "Close", { type: "button" });
    close.addEventListener("click", () => this.dialog.close());
    const head = element("header");
    head.append(element("h3", "", title), close);
    this.dialog.setAttribute("aria-label", title);
    this.dialog.replaceChildren(head, facts(model, rollout), ...texts(rollout.candidate));
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }
}

function facts(model, rollout) {
  const { budget } = model.rounds[rollout.round];
  const readers = model.readers(rollout).map((reader) => reader.worker);
  const rows = [["State", STATES[rollout.state] + (rollout.why ? `: ${clipped(rollout.why, 80)}` : "")]];
  if (rollout.answer !== null) rows.push(["Answer", `${letter(rollout.group)}  ${clipped(rollout.answer, 200)}`]);
  const most = budget ? ` of at most ${count(budget)}` : "";
  if (rollout.tokens) rows.push(["Wrote", `${count(rollout.tokens)} tokens${most}`]);
  if (rollout.prompt) rows.push(["Read", `${count(rollout.prompt)} tokens, question and tails`]);
  if (rollout.isForced) rows.push(["Thinking", "was closed at its budget, and the answer followed"]);
  if (rollout.sources.length) {
    rows.push(["Tails it read", `of attempts ${rollout.sources.join(", ")} of round ${rollout.round - 1}`]);
  }
  if (readers.length) {
    rows.push(["Its tail was read", `by attempts ${readers.join(", ")} of round ${rollout.round + 1}`]);
  } else if (rollout.round < model.last && OVER.includes(rollout.state)) {
    rows.push(["Its tail was read", "by nobody so far"]);
  }
  if (rollout.retries) rows.push(["Asked again", `${rollout.retries} time${rollout.retries === 1 ? "" : "s"}`]);
  if (rollout.ended !== null && rollout.begun !== null) {
    rows.push(["Took", `${(rollout.ended - rollout.begun).toFixed(1)} s`]);
  }
  const list = element("dl", "facts");
  for (const [name, value] of rows) list.append(element("dt", "", name), element("dd", "", value));
  return list;
}

function texts(candidate) {
  if (!candidate) return [];
  const [before, handed, after] = split(candidate.reasoning ?? "", candidate.tail ?? "");
  const found = [];
  if (candidate.reasoning) {
    const thought = element("pre", "thought");
    if (before) thought.append(element("span", "forgotten", before));
    if (handed) thought.append(element("mark", "", handed));
    if (after) thought.append(element("span", "forgotten", after));
    found.push(element("h4", "", "What it thought"), thought);
    if (handed) found.push(element("p", "note", "Marked: its tail, the only part that the next round may see."));
  }
  if (candidate.tail && !handed) found.push(element("h4", "", "What it handed on"), pre(candidate.tail));
  if (candidate.text) found.push(element("h4", "", "What it answered"), pre(candidate.text));
  return found;
}

function pre(text) {
  const made = element("pre");
  made.append(element("span", "", text));
  return made;
}

// A text into what is before its tail, the tail, and what is behind it. The tail has a marker where it was cut, and has
// lost what would have been a frame in the next prompt; where it is not found as it is, there is none.
export function split(text, tail) {
  for (const words of [tail, tail.startsWith(MARKER) ? tail.slice(MARKER.length) : ""]) {
    const at = words ? text.lastIndexOf(words) : -1;
    if (at >= 0) return [text.slice(0, at), words, text.slice(at + words.length)];
  }
  return [text, "", ""];
}
