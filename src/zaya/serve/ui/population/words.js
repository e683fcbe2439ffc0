// What is said about a population, in plain words with the numbers of the run. Pure: a model in, sentences out.

import { UNDER_WAY } from "./model.js";

export const STATES = {
  waiting: "waiting", reading: "reading", thinking: "thinking", answering: "answering", again: "asked again",
  done: "ended by itself", cut: "cut at its budget", lost: "failed", stopped: "not needed any more",
};
export const SHORT = {
  waiting: "", reading: "reads", thinking: "thinks", answering: "answers", again: "again",
  done: "none", cut: "cut", lost: "failed", stopped: "",
};
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LONGEST = 40;

export const letter = (group) => LETTERS[group] ?? "*";
export const count = (value) => Math.round(value).toLocaleString("en-US");

// One line, so long at most.
export function clipped(text, longest = LONGEST) {
  const line = String(text).replace(/\s+/gu, " ").trim();
  const characters = [...line.slice(0, 4 * longest)];
  if (characters.length <= longest && line.length <= 4 * longest) return line;
  return `${characters.slice(0, longest - 1).join("")}…`;
}

export function clock(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  return `${minutes}:${String(whole % 60).padStart(2, "0")}`;
}

const attempts = (n) => `${count(n)} attempt${n === 1 ? "" : "s"}`;
const tails = (n) => `${count(n)} earlier one${n === 1 ? "" : "s"}`;

function shown({ tail_tokens: tail, compaction }) {
  if (compaction === "full") return "everything";
  if (compaction === "hybrid") return "only the answers, or else the ends,";
  return tail ? `only the last ${count(tail)} tokens` : "only the ends";
}

// What is happening, and what to look at.
export function caption(model) {
  if (model.phase === "failed") return ["It stopped.", clipped(model.message, 400)];
  if (model.phase === "over" || model.chosen) return outcome(model);
  const now = model.current;
  if (now < 0) {
    const size = model.rounds[0]?.rollouts.length;
    if (!size) return ["Waiting for the first attempt.", ""];
    return [`${attempts(size)} ${size === 1 ? "is" : "are"} about to begin.`, ""];
  }
  return [happening(model, now), progress(model, now)];
}

function happening(model, now) {
  const size = model.rounds[now].rollouts.length;
  const { fan_in: fan, rounds } = model.settings;
  if (now === 0) {
    return size === 1
      ? "One attempt thinks about the question."
      : `${attempts(size)} think about the same question, and none sees another.`;
  }
  const reads = Math.max(0, ...model.rounds[now].rollouts.map((rollout) => rollout.sources.length)) || fan || 1;
  const part = shown(model.settings);
  const what = `reads ${part} of ${tails(reads)}`;
  if (now > model.last) return `Their answers differ or are missing, so one more attempt ${what} and decides.`;
  if (fan === 1) return `Each attempt starts afresh from ${part.replace("only ", "")} of its own.`;
  if (now === rounds && size === 1) return `The last attempt ${what}, and writes the answer.`;
  if (now === rounds) return `Last round: each new attempt ${what}, thinks afresh, and answers.`;
  return `Each new attempt ${what}, then thinks afresh.`;
}

function progress(model, now) {
  const { rollouts, budget } = model.rounds[now];
  const over = model.ended(now);
  const parts = [];
  if (rollouts.length > 1) parts.push(`${count(over)} of ${count(rollouts.length)} have ended.`);
  if (now === 0 && budget) parts.push(`Whoever has not ended after ${count(budget)} tokens is cut there.`);
  if (now === 0 && model.last > 0) parts.push("What each hands on to the next round is the end of its thinking.");
  if (now > 0) parts.push("All else that was written is forgotten, so there is never much to read.");
  return parts.join(" ");
}

function outcome(model) {
  const { chosen, answer } = model;
  if (!chosen) return ["There is no answer that could be chosen.", ""];
  const says = answer === null ? "" : `: ${clipped(answer)}`;
  if (model.partial) return [`Time was up. The best so far is from round ${chosen.round}${says}.`, ""];
  const size = model.rounds[chosen.round].rollouts.length;
  if (model.selection === "majority") {
    return [`The answers of the last round vote: ${votes(model)}.`, grown(model)];
  }
  if (chosen.round > model.last) return [`The attempt that weighed the others decides${says}.`, ""];
  if (size === 1) return [`The ${chosen.round ? "last " : ""}attempt has the answer${says}.`, grown(model)];
  if (model.selection === "random") return ["No answer could be counted, so one attempt was taken by chance.", ""];
  return [`One attempt of the last round was chosen${says}.`, grown(model)];
}

function votes(model) {
  const { groups } = model.shares(model.chosen.round);
  const size = model.rounds[model.chosen.round].rollouts.length;
  const own = groups.find(({ group }) => group === model.chosen.group);
  if (!own) return "nobody has one";
  return `${clipped(model.answer ?? model.groups[own.group])} has ${count(own.count)} of ${count(size)}`;
}

// How agreement on the answer went from round to round, and what it took.
function grown(model) {
  const { group, round } = model.chosen;
  const held = model.longest && model.longest < model.tokens
    ? `Of ${count(model.tokens)} tokens that were written, no attempt had to hold more than ${count(model.longest)}.`
    : "";
  if (group === null || !round) return held;
  const had = model.rounds.slice(0, round + 1).map((each, i) => {
    const found = model.shares(i).groups.find((share) => share.group === group)?.count ?? 0;
    return `${count(found)} of ${count(each.rollouts.length)}`;
  });
  if (had.length > 4) return `At first it was the answer of ${had[0]}, at last of ${had[had.length - 1]}. ${held}`;
  return `Round by round it was the answer of ${had.join(", then ")}. ${held}`;
}

export function title(model, round) {
  if (round > model.last) return "Weighing";
  if (round === 0) return model.last === 0 ? "Round 0, the only one" : "Round 0";
  return round === model.settings.rounds ? `Round ${round}, the last` : `Round ${round}`;
}

export function subtitle(model, round) {
  const { rollouts } = model.rounds[round];
  if (round === 0) return rollouts.length > 1 ? "each by itself" : "by itself";
  const reads = Math.max(0, ...rollouts.map((rollout) => rollout.sources.length)) || model.settings.fan_in;
  const who = rollouts.length > 1 ? "each reads" : "reads";
  return reads ? `${who} ${count(reads)} tail${reads === 1 ? "" : "s"}` : "";
}

export function answersOf(model, round) {
  const { groups, none } = model.shares(round);
  const parts = groups.map(({ group, count: n }) => `${clipped(model.groups[group])} ×${count(n)}`);
  if (none) parts.push(`no answer ×${count(none)}`);
  return parts;
}

// For those who do not see the picture: once when a round is over, and at the end.
export function roundOver(model, round) {
  const { rollouts } = model.rounds[round];
  const lost = rollouts.filter((rollout) => rollout.state === "lost").length;
  const answers = answersOf(model, round);
  const shown = answers.slice(0, 5).join(", ") + (answers.length > 5 ? `, and ${answers.length - 5} more` : "");
  return [
    `${title(model, round)} is over: ${attempts(rollouts.length)}${lost ? `, ${count(lost)} failed` : ""}.`,
    answers.length ? `Answers: ${shown}.` : "Nobody has an answer.",
  ].join(" ");
}

export function label(model, rollout) {
  const parts = [`Attempt ${rollout.worker}, round ${rollout.round}`, STATES[rollout.state]];
  if (rollout === model.chosen) parts.push("chosen");
  if (rollout.answer !== null) parts.push(`answer ${letter(rollout.group)}, ${clipped(rollout.answer)}`);
  if (!UNDER_WAY.includes(rollout.state) && rollout.tokens) parts.push(`${count(rollout.tokens)} tokens`);
  if (rollout.sources.length) parts.push(`read ${rollout.sources.join(", ")}`);
  return parts.join(", ");
}

// Why the chosen one was chosen.
export function why(model) {
  const { chosen } = model;
  const who = `attempt ${chosen.worker} of round ${chosen.round}`;
  const { groups } = model.shares(chosen.round);
  const own = groups.find(({ group }) => group === chosen.group);
  const size = model.rounds[chosen.round].rollouts.length;
  if (model.selection === "majority" && own) {
    return `${count(own.count)} of ${count(size)} agree; in the words of ${who}`;
  }
  return `in the words of ${who}`;
}
