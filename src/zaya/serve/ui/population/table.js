// The same as the picture, for those who read rather than look: a row for each rollout.

import { element } from "./dom.js";
import { clipped, count, letter, STATES } from "./words.js";

export function table(model) {
  const made = element("table");
  const head = element("tr");
  for (const name of ["Round", "Attempt", "State", "Tokens", "Answer", "Read the tails of"]) {
    head.append(element("th", "", name, { scope: "col" }));
  }
  const top = element("thead");
  top.append(head);
  const body = element("tbody");
  for (const round of model.rounds) for (const rollout of round.rollouts) body.append(row(model, rollout));
  made.append(top, body);
  return made;
}

function row(model, rollout) {
  const made = element("tr");
  const answer = rollout.answer === null ? "" : `${letter(rollout.group)} ${clipped(rollout.answer)}`;
  const state = STATES[rollout.state] + (rollout === model.chosen ? ", chosen" : "");
  const tokens = rollout.tokens ? count(rollout.tokens) : "";
  const cells = [rollout.round, rollout.worker, state, tokens, answer, rollout.sources.join(", ")];
  for (const cell of cells) made.append(element("td", "", String(cell)));
  return made;
}
