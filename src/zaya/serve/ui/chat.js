// One conversation: its turns, and the answer that is being written.
//
// A turn is kept as what is needed to show it again: {role, content, reasoning, calls, facts, ...}.

import { request } from "./api.js";
import { announce, byId } from "./dom.js";
import { Reading } from "./reading.js";
import { follow, toEnd } from "./scroll.js";
import { fields, system } from "./settings.js";
import { keep } from "./store.js";
import { events } from "./stream.js";
import { Together } from "./together.js";
import { Answer, Question } from "./turns.js";

const TITLE = 60;
const SETTLED_MS = 1000; // after which nothing of an answer moves any more

export class Chat {
  #stopping = null;

  /** `onKept` is told when something was kept, or could not be; `onBusy` when an answer begins and ends. */
  constructor(about, { onKept, onBusy }) {
    this.about = about;
    this.onKept = onKept;
    this.onBusy = onBusy;
    this.open(null);
  }

  get isBusy() {
    return this.#stopping !== null;
  }

  open(conversation) {
    this.stop();
    this.kept = conversation ?? { id: newId(), title: "", turns: [] };
    this.#show();
    if (conversation) {
      follow(true);
      toEnd();
      this.#settle();
    }
    document.title = this.kept.title ? `${this.kept.title} - zaya` : "zaya";
  }

  #show() {
    byId("welcome").hidden = this.kept.turns.length > 0;
    const shown = this.kept.turns.map((turn, at) =>
      turn.role === "user" ? this.#question(turn, at) : this.#answered(turn, at),
    );
    byId("turns").replaceChildren(...shown.map(({ root }) => root));
  }

  #question(turn, at) {
    return new Question(String(turn.content), (text) => this.ask(text, at));
  }

  #answer(at) {
    const again = () => this.#respond(at);
    return new Answer({ regenerate: again, goOn: again });
  }

  /** As it was kept. */
  #answered(turn, at) {
    const answer = this.#answer(at);
    if (turn.rsa) {
      const view = new Together(answer.population);
      const plan = { ...turn.rsa.settings, question: this.kept.turns[at - 1]?.content };
      view.begin(plan).then(() => view.finish(turn.rsa));
    }
    if (turn.reasoning) answer.thoughtBefore(turn.reasoning, turn.thought, turn.thoughtTokens);
    if (turn.content) answer.write(turn.content);
    for (const [index, call] of (turn.calls ?? []).entries()) answer.call(index, call.name, call.arguments);
    answer.end().then(() => answer.facts(turn.facts ?? []));
    for (const text of turn.notes ?? []) answer.note(text);
    if (turn.error) answer.fail(turn.error);
    return answer;
  }

  /** Sends a question in place of the turns from `at` on, by default behind all of them. */
  ask(text, at = this.kept.turns.length) {
    if (at === 0) this.kept.title = titleOf(text);
    this.stop();
    this.kept.turns = [...this.kept.turns.slice(0, at), { role: "user", content: text }];
    document.title = `${this.kept.title} - zaya`;
    this.#respond(at + 1);
  }

  stop() {
    this.#stopping?.abort();
    this.#stopping = null;
  }

  /** Writes the turn `at`, in place of what there is from there on. */
  async #respond(at) {
    this.stop();
    const stopping = (this.#stopping = new AbortController());
    const conversation = this.kept;
    const turns = (conversation.turns = conversation.turns.slice(0, at));
    this.#show();
    const answer = this.#answer(at);
    byId("turns").append(answer.root);
    keepFocus();
    follow(true);
    toEnd();
    this.#keep(conversation);
    this.onBusy(true);
    announce("Waiting for the answer");
    const turn = { role: "assistant", content: "", reasoning: "" };
    const reading = new Reading(turn, answer);
    try {
      const body = this.#body(conversation.turns);
      if (body.rsa) await reading.together({ ...body.rsa, question: conversation.turns[at - 1].content });
      const sent = await request("/v1/chat/completions", { body, signal: stopping.signal });
      for await (const event of events(sent)) reading.take(event);
      reading.ended();
      announce(turn.content ? "Answered" : "The answer is empty");
    } catch (error) {
      if (error.name === "AbortError") reading.stopped();
      else reading.failed(error);
      announce(error.name === "AbortError" ? "Stopped" : `Error: ${turn.error}`);
    }
    if (conversation.turns === turns) { // and not changed or deleted in the meantime
      turns.push(turn);
      this.#keep(conversation);
    }
    if (this.#stopping === stopping) {
      this.#stopping = null;
      this.onBusy(false);
    }
    await answer.end();
    answer.facts(turn.facts);
    this.#settle();
  }

  #settle() {
    setTimeout(() => this.isBusy || follow(false), SETTLED_MS);
  }

  #body(turns) {
    const prompt = system();
    const said = turns.filter((turn) => turn.content).map(({ role, content }) => ({ role, content }));
    return {
      model: this.about.model,
      messages: [...(prompt ? [{ role: "system", content: prompt }] : []), ...said],
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
      ...fields(),
    };
  }

  /** Forgets what is shown; what is still being written of it is not kept. */
  drop() {
    this.kept.turns = [];
  }

  #keep(conversation) {
    if (conversation.turns.length) this.onKept(keep(conversation));
  }
}

/** Browsers name things at random only on pages that came safely. */
const newId = () => crypto.randomUUID?.() ?? String(Math.random()).slice(2);

/** What was pressed may be gone. On a screen that is touched, a field in focus would bring up its keyboard. */
function keepFocus() {
  const isLost = document.activeElement === document.body && matchMedia("(hover: hover)").matches;
  if (isLost) byId("question").focus({ preventScroll: true });
}

function titleOf(text) {
  const line = text.trim().split("\n")[0];
  return line.length > TITLE ? `${line.slice(0, TITLE - 1)}…` : line;
}
