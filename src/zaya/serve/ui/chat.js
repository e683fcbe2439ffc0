// One conversation: its turns, and the answer that is being written.
//
// A turn of the assistant is kept as {content, reasoning, calls, seconds, tokens, ...}: what is needed to show it again.

import { request } from "./api.js";
import { announce, byId, count } from "./dom.js";
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
    this.kept = conversation ?? { id: crypto.randomUUID?.() ?? String(Math.random()).slice(2), title: "", turns: [] };
    this.#show();
    if (conversation) toEnd();
    document.title = this.kept.title ? `${this.kept.title} - zaya` : "zaya";
  }

  #show() {
    byId("welcome").hidden = this.kept.turns.length > 0;
    byId("turns").replaceChildren(...this.kept.turns.map((turn, at) => (turn.role === "user" ? this.#question(turn, at) : this.#answered(turn, at)).root));
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
      view.begin({ ...turn.rsa.settings, question: this.kept.turns[at - 1]?.content }).then(() => view.finish(turn.rsa));
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
    await new Promise((resolve) => setTimeout(resolve, SETTLED_MS));
    if (!this.isBusy) follow(false);
  }

  #body(turns) {
    const prompt = system();
    const said = turns.filter((turn) => turn.role === "user" || turn.content).map(({ role, content }) => ({ role, content }));
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

/** Takes the chunks of a stream into a turn, and shows them. */
class Reading {
  #begun = performance.now();
  #first = null; // when something came
  #thinking = null; // when reasoning began
  #tokens = 0;
  #reason = null;
  #view = null;

  constructor(turn, answer) {
    this.turn = turn;
    this.answer = answer;
  }

  async together(plan) {
    this.answer.dots.hidden = true;
    this.#view = new Together(this.answer.population);
    await this.#view.begin(plan);
  }

  take(event) {
    if (event.usage) this.#count(event.usage);
    const choice = event.choices?.[0];
    if (event.rsa) this.#together(event.rsa);
    if (!choice) return;
    const { delta } = choice;
    if (delta.rsa_progress) this.#view?.feed(delta.rsa_progress.events);
    if (delta.reasoning) this.#think(delta.reasoning);
    if (delta.content) this.#write(delta.content);
    for (const call of delta.tool_calls ?? []) this.#call(call);
    if (choice.finish_reason) this.#reason = choice.finish_reason;
  }

  #count(usage) {
    this.#tokens = usage.completion_tokens;
    const details = usage.completion_tokens_details;
    if (details?.reasoning_tokens && this.turn.thought !== undefined) this.turn.thoughtTokens = details.reasoning_tokens;
  }

  #think(text) {
    this.#first ??= performance.now();
    if (this.#thinking === null) {
      this.#thinking = performance.now();
      announce("Thinking");
    }
    this.turn.reasoning += text;
    this.answer.think(text);
  }

  #thought() {
    if (this.#thinking === null || this.turn.thought !== undefined) return;
    if (this.#view === null) {
      this.turn.thought = (performance.now() - this.#thinking) / 1000;
      this.turn.thoughtTokens = this.#tokens;
      this.answer.thought(this.turn.thought, this.turn.thoughtTokens);
    } else this.answer.thought(); // it was thought before, by the one that was chosen
  }

  #write(text) {
    this.#first ??= performance.now();
    if (this.turn.content === "") {
      this.#thought();
      announce("Answering");
    }
    this.turn.content += text;
    this.answer.write(text);
  }

  #call({ index, function: { name = "", arguments: more = "" } }) {
    this.#thought();
    this.turn.calls ??= [];
    const call = (this.turn.calls[index] ??= { name: "", arguments: "" });
    call.name += name;
    call.arguments += more;
    this.answer.call(index, name, more);
  }

  #together(block) {
    this.#view?.finish(block);
    this.turn.rsa = withoutTexts(block);
    for (const text of block.warnings ?? []) this.#note(text);
  }

  #note(text) {
    (this.turn.notes ??= []).push(text);
    this.answer.note(text);
  }

  ended() {
    this.#thought();
    if (this.turn.thought !== undefined) this.answer.thought(this.turn.thought, this.turn.thoughtTokens);
    if (this.#reason === "length") this.#note("The answer was cut: it had used up its tokens. Settings has a larger bound.");
    this.#facts();
  }

  stopped() {
    this.#thought();
    this.#view?.fail("Stopped.");
    this.#facts("stopped");
  }

  failed(error) {
    this.#thought();
    this.turn.error = error.message;
    this.#view?.fail(error.message);
    this.answer.fail(error.message, error.status === 429 ? error.retryAfter : null);
    this.#facts();
  }

  #facts(...more) {
    const facts = [];
    if (this.#tokens) facts.push(count(this.#tokens, "token"));
    const since = this.#view === null ? this.#first : this.#begun;
    const seconds = (performance.now() - since) / 1000;
    if (this.#tokens && since !== null && seconds > 0.02) facts.push(`${speed(this.#tokens / seconds)} tokens/s`);
    this.turn.facts = [...facts, ...more];
  }
}

const speed = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en"));

/** What is kept of a run: its numbers. The texts of all attempts would fill what a browser gives. */
function withoutTexts(block) {
  const without = ({ candidates, ...round }) => round;
  return { ...block, rounds: block.rounds.map(without), closing: block.closing && without(block.closing) };
}

/** What was pressed may be gone. On a screen that is touched, a field in focus would bring up its keyboard. */
function keepFocus() {
  if (document.activeElement === document.body && matchMedia("(hover: hover)").matches) byId("question").focus({ preventScroll: true });
}

function titleOf(text) {
  const line = text.trim().split("\n")[0];
  return line.length > TITLE ? `${line.slice(0, TITLE - 1)}…` : line;
}
