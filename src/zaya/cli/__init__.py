"""The command line: a table of commands, and what is the same for all of them.

Every command is a module of this package with `add_arguments(parser)` and `run(args) -> int`. It is imported when it is
chosen and not before, so that `zaya --help` answers at once and without torch.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn

from zaya import __version__
from zaya.cli.printing import say_error
from zaya.errors import UsageError, ZayaError, did_you_mean

COMMANDS: dict[str, tuple[str, str]] = {
    "quickstart": ("zaya.cli.quickstart", "see a small trained model think, alone and in rounds, in a minute"),
    "chat": ("zaya.cli.chat", "talk to a model"),
    "generate": ("zaya.cli.generate", "continue a prompt with a model"),
    "serve": ("zaya.cli.serve", "offer a model to programs, behind the interface of OpenAI"),
    "solve": ("zaya.cli.solve", "answer one question by Markovian RSA: many rollouts, in rounds"),
    "prepare": ("zaya.cli.prepare", "make text to learn from, and a tokenizer, out of tasks"),
    "aggregate": ("zaya.cli.aggregate", "make aggregation prompts out of rollouts, perhaps solved"),
    "pretrain": ("zaya.cli.pretrain", "train a model on text, or continue one, as a recipe says"),
    "sft": ("zaya.cli.sft", "fine-tune a model on conversations, as a recipe says"),
    "reward": ("zaya.cli.reward", "learn from pairs which answers are preferred, and score answers"),
    "rl": ("zaya.cli.rl", "improve a model on tasks whose answers can be checked"),
    "cascade": ("zaya.cli.cascade", "train a model through all stages, as a recipe of recipes says"),
    "eval": ("zaya.cli.eval", "measure models on held-out problems, as a recipe says"),
    "env": ("zaya.cli.env", "look at the tasks, check them, try one yourself"),
    "inspect": ("zaya.cli.inspect", "say what a checkpoint holds and whether it is complete"),
    "convert": ("zaya.cli.convert", "rewrite a checkpoint in another layout"),
    "quantize": ("zaya.cli.quantize", "rewrite a checkpoint in int8 or int4"),
    "config": ("zaya.cli.config", "list the model presets, or print one with every setting explained"),
}
"""Name -> (module, one-line summary), in the order of `zaya --help`."""

ACTIONS: dict[str, tuple[str, str]] = {
    "eval compare": (
        "zaya.cli.eval_compare",
        "say how much better the second of two evaluations is, on shared problems",
    ),
    "eval report": (
        "zaya.cli.eval_report",
        "make one HTML page of evaluations: tables, accuracy against tokens, samples",
    ),
}
"""Second words of a command that are commands of their own, explained by the help of the first."""

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE


class Parser(argparse.ArgumentParser):
    """argparse, except that a wrong command line is reported like every other error of the user."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=self._nearest(message) or f"see {self.prog} --help")

    def _nearest(self, message: str) -> str | None:
        """What may have been meant by what is not recognized."""
        _, found, rest = message.partition("unrecognized arguments: ")
        options = [word.partition("=")[0] for word in rest.split() if word.startswith("-")]
        if not options and found:
            return f"put a text of several words in quotes; see {self.prog} --help"
        known = [*self._option_string_actions]
        for action in self._actions:  # what an action of `zaya env` does not know is reported from up here
            if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
                known += [name for parser in action.choices.values() for name in parser._option_string_actions]
        near = [name for option in options for name in get_close_matches(option, known, n=1)]
        return f"did you mean {near[0]}? see {self.prog} --help" if near else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code. Errors of the user go to stderr in two lines, without a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    show_traceback = os.environ.get("ZAYA_TRACEBACK") == "1" or "--traceback" in words
    try:
        code = _dispatch(words)
        sys.stdout.flush()  # here, where a closed pipe can still be reported quietly
        return code
    except ZayaError as error:
        if show_traceback:
            traceback.print_exc()
        say_error(error)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_stdout()
        return BROKEN_PIPE
    except OSError as error:
        # a full disk, a directory that may not be read: the user's to mend, wherever we met it
        if show_traceback:
            traceback.print_exc()
        print(f"error: {error.filename or 'writing the output'}: {error.strerror or error}", file=sys.stderr)
        _give_up_stdout()
        return USER_ERROR


def _prepare_streams() -> None:
    """Make closed streams harmless, and let a terminal that lacks a character show another."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  it stays open until the end
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _give_up_stdout() -> None:
    """What is still buffered goes nowhere, else Python complains once more at exit."""
    with contextlib.suppress(io.UnsupportedOperation):  # not a file: a test's or a notebook's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command_parser(name: str) -> Parser:
    """The parser of one command; imports its module. Raises UsageError for a name that is not in the tables."""
    if name not in COMMANDS and name not in ACTIONS:
        raise UsageError(f"no command is called '{name}'", hint=did_you_mean(name, COMMANDS, "zaya "))
    module, summary = ACTIONS[name] if name in ACTIONS else COMMANDS[name]
    parser = Parser(prog=f"zaya {name}", description=summary, allow_abbrev=False)
    command = import_module(module)
    command.add_arguments(parser)
    _add_traceback(parser)
    parser.set_defaults(run=command.run)
    return parser


def _dispatch(words: list[str]) -> int:
    at = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    try:
        _top_parser().parse_args(words[:at])
        if at == len(words):
            _top_parser().print_help()
            return 0
        length = 2 if " ".join(words[at : at + 2]) in ACTIONS else 1
        parser, rest = command_parser(" ".join(words[at : at + length])), words[at + length :]
        # Intermixed: options may stand between a model and its prompt. It loses what follows a bare `--`, and knows no
        # actions below a command.
        is_plain = "--" in rest or parser.get_default("has_actions")
        args = parser.parse_args(rest) if is_plain else parser.parse_intermixed_args(rest)
    except SystemExit as done:  # argparse leaves this way after --help and --version
        return int(done.code or 0)
    return args.run(args)


def _top_parser() -> Parser:
    width = max(map(len, COMMANDS))
    lines = [
        textwrap.fill(
            summary, shutil.get_terminal_size().columns, initial_indent=f"  {name:{width}}  ",
            subsequent_indent=" " * (width + 4),
        )
        for name, (_, summary) in COMMANDS.items()
    ]  # fmt: skip
    parser = Parser(
        prog="zaya",
        usage="zaya [--help] [--version] COMMAND ...",
        description="The complete open implementation of ZAYA1.",
        epilog="\n".join(["commands:", *lines, "", "zaya COMMAND --help explains a command."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"zaya {__version__}")
    _add_traceback(parser)
    return parser


def _add_traceback(parser: Parser) -> None:
    parser.add_argument("--traceback", action="store_true", help="show where an error arose (or set ZAYA_TRACEBACK=1)")
