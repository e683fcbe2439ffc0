"""zaya chat: talk to a model, turn after turn.

The conversation is kept as ids: what was sampled is never encoded again, and a question brings the ids that follow. An
answer that was stopped or cut is closed, as every turn of an assistant is.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from zaya.cli.answers import Answers, noting_ctrl_c, texts
from zaya.cli.asking import (
    MODEL_HELP,
    QUESTION_HELP,
    add_engine,
    add_loading,
    add_sampling,
    as_asked,
    check_engine,
    cut_note,
    open_chat_model,
    open_engine,
    sampling_params,
    standard_input,
    text,
    utf8,
)
from zaya.cli.printing import note, say, say_commands, say_error, show_chat
from zaya.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from zaya.engine.engine import Engine
    from zaya.engine.types import SamplingParams
    from zaya.model.transformer import ZayaModel
    from zaya.text import Tokenizer

_COMMANDS = {
    "/new": "forget what was said",
    "/exit": "leave, as Ctrl-D does",
    "/help": "this list",
    "Ctrl-C": "stop an answer",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--system", type=text, metavar="TEXT", help="a system message before the conversation")
    parser.add_argument("--no-thinking", action="store_true", help="ask for the answers at once")
    add_sampling(parser)
    add_loading(parser)
    add_engine(parser)
    parser.epilog = (
        "Questions are read line by line, also from a pipe. "
        f"{QUESTION_HELP} Commands: {', '.join(f'{name} ({what})' for name, what in _COMMANDS.items())}."
    )


def run(args: argparse.Namespace) -> int:
    params = sampling_params(args)
    check_engine(args)
    is_interactive = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    model, tokenizer = open_chat_model(args.model, args)
    chat = Chat(open_engine(model, tokenizer, args, max_batch=1), tokenizer, args, params)
    if is_interactive:
        _welcome(args.model, model)
    for line in _typed() if is_interactive else _piped():
        match line.strip():
            case "":
                pass
            case "/exit":
                break
            case "/new":
                chat.ids = []
                note("(a fresh conversation)")
            case "/help":
                say_commands(_COMMANDS)
            case question:
                try:
                    if question.startswith("/"):
                        raise UsageError(f"there is no {question.split()[0]}", hint=_nearest(question))
                    chat.ask(question, may_stop=is_interactive)
                except UsageError as error:
                    if not is_interactive:
                        raise
                    say_error(error)
        if is_interactive:
            print()
    return 0


@dataclass(slots=True)
class Chat:
    """A conversation."""

    engine: Engine
    tokenizer: Tokenizer
    args: argparse.Namespace
    params: SamplingParams
    ids: list[int] = field(default_factory=list)
    """All of it, up to the end of the last turn; empty before the first question."""
    turn: int = 0
    """Answers so far, those of forgotten conversations too: a question asked again is answered anew."""

    def ask(self, question: str, *, may_stop: bool) -> None:
        """Print the answer to a question, and keep both. With `may_stop` Ctrl-C ends the answer alone.

        Raises UsageError where the context holds no answer; the conversation is as it was.
        """
        from zaya.core.rng import derive_seed
        from zaya.text import opens_thinking

        args, engine, config = self.args, self.engine, self.engine.model.config
        prompt = self._prompt(as_asked(args.model, question))
        room = config.max_positions - len(prompt)
        if room < 1:
            raise UsageError(
                f"the context is full: with this question the conversation has {len(prompt):,} tokens, and the model "
                f"holds {config.max_positions:,}",
                hint="/new forgets what was said" if self.ids else "ask a shorter question",
            )
        params = replace(self.params, max_tokens=min(self.params.max_tokens, room))
        seed = derive_seed(args.seed, "chat", self.turn)
        stream = engine.stream(prompt, params, seed=seed)
        with noting_ctrl_c(raises=not may_stop) as was_pressed, contextlib.closing(stream) as deltas:
            answer = Answers(deltas, is_stopped=was_pressed)
            pieces = texts(answer.of(0), self.tokenizer, engine.stop_ids, params.stop)
            show_chat(pieces, opens_thinking(self.tokenizer, prompt))
            cut = cut_note(answer, params, prompt, config.max_positions, "; /new forgets what was said")
            if was_pressed():
                if not may_stop:
                    raise KeyboardInterrupt
                note("(stopped)")
            elif cut is not None:
                note(cut)
            self.turn += 1
            self.ids = self._closed([*prompt, *answer.ids[0]])

    def _prompt(self, question: str) -> list[int]:
        from zaya.text import render, render_next

        asked = {"role": "user", "content": question}
        thinking = not self.args.no_thinking
        if self.ids:
            return [*self.ids, *render_next(self.tokenizer, [asked], enable_thinking=thinking).ids]
        system = [] if self.args.system is None else [{"role": "system", "content": self.args.system}]
        return render(self.tokenizer, [*system, asked], enable_thinking=thinking).ids

    def _closed(self, ids: list[int]) -> list[int]:
        """The conversation with its last turn ended."""
        from zaya.text import opens_thinking, tags

        end = self.tokenizer.tags.turn_close
        if ids[-1] == end or end is None:
            return ids
        if opens_thinking(self.tokenizer, ids):
            ids = [*ids, *self.tokenizer.encode(f"\n{tags.THINK_CLOSE}\n\n", bos=False)]
        return [*ids, end]


def _welcome(name: str | None, model: ZayaModel) -> None:
    from zaya.model.flops import parameters

    size = f"{parameters(model.config).total / 1e6:,.2f} M parameters, context {model.config.max_positions:,} tokens"
    if name is None:
        say(f"Micro ZAYA, {size}. It solves small problems in writing and knows nothing else; try")
        say_commands({"What is 47 + 38 - 12?": "", "What is 61 - 29 + 44 + 7?": ""})
    else:
        say(f"{name}, {size}.")
    say("/help lists the commands, Ctrl-D leaves.")
    print()


def _piped() -> Iterator[str]:
    for line in standard_input():
        yield utf8(line)


def _typed() -> Iterator[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  with it, input() can edit a line and remembers those before
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\nCtrl-D or /exit leaves.")
            continue
        yield line


def _nearest(question: str) -> str:
    return did_you_mean(question.split()[0], [name for name in _COMMANDS if name.startswith("/")])
