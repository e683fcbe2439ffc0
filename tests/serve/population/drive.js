// Runs the pure modules of the view for a test: tasks on standard input, what came of them on its output.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const load = (name) => import(pathToFileURL(`${folder}/${name}.js`));
const [{ Model }, { layout, link, neighbour, written }, words, { Replay }, { split }] = await Promise.all(
  ["model", "layout", "words", "replay", "detail"].map(load),
);

function seen(model) {
  const { phase, at, tokens, longest, answer, selection, partial, groups, settings, speed } = model;
  const chosen = model.chosen && [model.chosen.round, model.chosen.worker];
  return {
    phase, at, tokens, longest, answer, selection, partial, groups, settings, speed, chosen,
    caption: words.caption(model),
    rounds: model.rounds.map((round, i) => ({
      budget: round.budget,
      isOver: round.isOver,
      ended: model.ended(i),
      shares: model.shares(i),
      title: words.title(model, i),
      subtitle: words.subtitle(model, i),
      spoken: words.roundOver(model, i),
      rollouts: round.rollouts.map((rollout) => ({
        ...rollout,
        candidate: rollout.candidate !== null,
        words: rollout.group === null ? null : model.groups[rollout.group],
        label: words.label(model, rollout),
        readers: model.readers(rollout).map((reader) => reader.worker),
      })),
    })),
  };
}

function run({ begin, steps, all }) {
  const model = new Model(begin);
  const found = [];
  for (const [what, value] of steps) {
    model[what](value);
    if (all) found.push(seen(model));
  }
  return all ? found : seen(model);
}

const TASKS = {
  run,
  layout: ({ width, sizes }) => layout(width, sizes),
  link: (task) => link(...task.of),
  written: (task) => written(...task.of),
  split: (task) => split(...task.of),
  words: ({ name, of }) => words[name](...of),
  walk({ width, sizes }) {
    const places = layout(width, sizes);
    const todo = [{ round: 0, worker: 0 }];
    const known = new Set(["0 0"]);
    for (const { round, worker } of todo) {
      const next = [
        neighbour(places, round, worker, -1), neighbour(places, round, worker, 1),
        { round, worker: Math.max(0, worker - 1) }, { round, worker: Math.min(sizes[round] - 1, worker + 1) },
      ];
      for (const to of next) {
        const key = `${to.round} ${to.worker}`;
        if (!known.has(key)) todo.push(to);
        known.add(key);
      }
    }
    return known.size;
  },
  replay({ events, step }) {
    const replay = new Replay(events);
    const model = new Model();
    const times = [];
    const tokens = [];
    for (let seconds = 0; !replay.isOver && seconds < 1000; seconds += step) {
      model.feed(replay.take(seconds));
      times.push(replay.at(seconds));
      tokens.push(model.tokens);
    }
    return { length: replay.length, times, tokens, end: seen(model) };
  },
};

const tasks = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(tasks.map((task) => TASKS[task.task](task))));
