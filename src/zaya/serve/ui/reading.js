// From the chunks of a stream to a turn that is kept, and shown while it comes.

import { announce, count } from "./dom.js";
import { Together } from "./together.js";

/** Takes the chunks of a stream into a turn, and shows them. */
export class Reading {
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
    const reasoning = usage.completion_tokens_details?.reasoning_tokens;
    if (reasoning && this.turn.thought !== undefined) this.turn.thoughtTokens = reasoning;
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
    if (this.#reason === "length") this.#note("The answer was cut: it had used up its tokens, or the model's memory.");
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
