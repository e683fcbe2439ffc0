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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zaya.cli.asking import (
    MODEL_HELP,
    QUESTION_HELP,
    add_loading,
    add_sampling,
    as_asked,
    check_max_tokens,
    drawn_ids,
    open_chat_model,
    standard_input,
    utf8,
)
from zaya.cli.printing import note, say, say_commands, say_error, show_chat
from zaya.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from zaya.engine.engine import Engine
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
    parser.add_argument("--system", metavar="TEXT", help="a system message before the conversation")
    parser.add_argument("--no-thinking", action="store_true", help="ask for the answers at once")
    add_sampling(parser)
    add_loading(parser)
    parser.epilog = (
        "Questions are read line by line, also from a pipe. "
        f"{QUESTION_HELP} Commands: {', '.join(f'{name} ({what})' for name, what in _COMMANDS.items())}."
    )


def run(args: argparse.Namespace) -> int:
    from zaya.engine.engine import Engine

    check_max_tokens(args)
    is_interactive = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    model, tokenizer = open_chat_model(args.model, args)
    chat = Chat(Engine(model, tokenizer, max_batch=1), tokenizer, args)
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
    ids: list[int] = field(default_factory=list)
    """All of it, up to the end of the last turn; empty before the first question."""
    turn: int = 0
    """Answers so far, those of forgotten conversations too: a question asked again is answered anew."""

    def ask(self, question: str, *, may_stop: bool) -> None:
        """Print the answer to a question, and keep both. With `may_stop` Ctrl-C ends the answer alone.

        Raises UsageError where the context holds no answer; the conversation is as it was.
        """
        from zaya.core.rng import derive_seed
        from zaya.engine.types import SamplingParams
        from zaya.text import opens_thinking

        args, config = self.args, self.engine.model.config
        prompt = self._prompt(as_asked(args.model, question))
        room = config.max_positions - len(prompt)
        if room < 1:
            raise UsageError(
                f"the context is full: with this question the conversation has {len(prompt):,} tokens, and the model "
                f"holds {config.max_positions:,}",
                hint="/new forgets what was said" if self.ids else "ask a shorter question",
            )
        stops = self.engine.stop_ids
        drawn: list[int] = []
        params = SamplingParams(max_tokens=min(args.max_tokens, room), temperature=args.temperature, top_p=args.top_p)
        new = drawn_ids(self.engine, prompt, params, derive_seed(args.seed, "chat", self.turn))
        was_stopped = False
        try:
            show_chat(_kept(new, drawn, stops), self.tokenizer, opens_thinking(self.tokenizer, prompt))
        except KeyboardInterrupt:
            if not may_stop:
                raise
            was_stopped = True
            print()
        if was_stopped:
            note("(stopped)")
        elif drawn[-1] not in stops:
            if len(drawn) == room:
                note(f"(cut: the context of {config.max_positions:,} tokens is full; /new forgets what was said)")
            else:
                note(f"(cut after {len(drawn):,} tokens; --max-tokens allows more)")
        self.turn += 1
        self.ids = self._closed([*prompt, *drawn])

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


def _kept(new: Iterator[int], drawn: list[int], stops: frozenset[int]) -> Iterator[int]:
    """What is to be shown of the ids that are drawn; all are kept."""
    for id in new:
        drawn.append(id)
        if id not in stops:
            yield id


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
