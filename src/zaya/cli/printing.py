"""What commands print, and what a terminal can show: text of a model as it comes, paragraphs, tables.

Model text goes to standard output as it is; on a terminal its control characters are shown, not obeyed, and thinking
is dimmed unless NO_COLOR is set. Nothing else here is wider than the terminal.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from zaya.core.progress import columns
from zaya.errors import ZayaError

if TYPE_CHECKING:
    from zaya.engine.types import Delta
    from zaya.text import Event

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_GAP = "  "


def write(text: str, *, dim: bool = False) -> None:
    """Model text, at once."""
    if sys.stdout.isatty():
        text = visible(text)
        if dim:
            text = dimmed(text, sys.stdout)
    print(text, end="", flush=True)


def visible(text: str) -> str:
    """The text without control characters but tabs and ends of lines."""
    return _CONTROL.sub("\ufffd", text)


def dimmed(text: str, stream: TextIO) -> str:
    """The text as a terminal shows what matters less."""
    plain = not text or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"{DIM}{text}{PLAIN}"


def note(text: str) -> None:
    """A remark beside what is printed, on standard error."""
    print(dimmed(wrapped(text, columns(sys.stderr)), sys.stderr), file=sys.stderr, flush=True)


def notice(text: str) -> None:
    """What work says while it is done, on standard error."""
    if sys.stderr.isatty():
        text = "\n".join(wrapped(line, columns(sys.stderr)) for line in text.split("\n"))
    print(text, file=sys.stderr, flush=True)


def say_error(error: ZayaError) -> None:
    """What is wrong and what to do, on standard error."""
    notice(f"error: {error}")


def say(text: str, *, indent: str = "") -> None:
    """A paragraph."""
    print(wrapped(text, columns(sys.stdout), indent), flush=True)


def wrapped(text: str, width: int, indent: str = "", hanging: str | None = None) -> str:
    """Lines of at most so many characters, as far as words are no longer. `hanging` indents all but the first."""
    after = indent if hanging is None else hanging
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=after, break_long_words=False, break_on_hyphens=False
    )


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """A remark on a terminal that is gone when the work is done."""
    shown = f"{text} ..." if sys.stderr.isatty() else ""
    print(dimmed(shown, sys.stderr), end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print(f"\r{'':{len(shown)}}\r", end="", file=sys.stderr, flush=True)


def program() -> str:
    """How to call this program again from here."""
    called = sys.argv[0]
    if Path(called).name != "zaya" or shutil.which("zaya"):
        return "zaya"
    return shlex.quote(os.path.relpath(called))


def say_commands(commands: Mapping[str, str], width: int | None = None) -> None:
    """Commands and what each is for: beside each other, or below where a line does not hold both."""
    width = columns(sys.stdout) if width is None else width
    longest = max(map(len, commands))
    beside = all(2 + longest + len(_GAP) + len(purpose) <= width for purpose in commands.values())
    for command, purpose in commands.items():
        if beside:
            print(f"  {command:{longest}}{_GAP}{purpose}".rstrip())
        else:
            print(f"  {command}")  # never broken: it is there to be copied
            print(wrapped(purpose, width, "    "))


def counted(number: int, name: str) -> str:
    """Such as `1 prompt`, `2,000 prompts`."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def table(cells: Sequence[Sequence[str]], width: int, drop: Sequence[str] = (), words: Sequence[str] = ()) -> str:
    """Head and rows, aligned, in lines of at most so many characters: the first column and those of `words` to the
    left, numbers to the right.

    What has no value in any row is left out. Where the rest does not fit, columns go in the order of `drop`, named by
    their heads, and then the names in the first are shortened.
    """
    kept = [column for column in zip(*cells, strict=True) if any(column[1:])]
    for name in drop:
        if _width(kept) <= width:
            break
        kept = [column for column in kept if column[0] != name]
    first, *others = kept
    room = max(4, max(map(len, first)) - max(0, _width(kept) - width))
    first = [cell if len(cell) <= room else f"{cell[: room - 1]}…" for cell in first]
    looks = [f"{'<' if column[0] in words else '>'}{max(map(len, column))}" for column in others]
    return "\n".join(
        _GAP.join([f"{name:{room}}", *map(format, row, looks)]).rstrip()
        for name, *row in zip(first, *others, strict=True)
    )


def _width(kept: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) for column in kept) + len(_GAP) * (len(kept) - 1)


class Flow:
    """Text of a model as it comes, wrapped between words and behind an indent; dimmed."""

    def __init__(self, indent: str) -> None:
        self._indent = indent
        self._width = columns(sys.stdout)
        self._column = 0
        self._held = ""

    def feed(self, text: str) -> None:
        *words, self._held = re.split(r"(?<=[ \n])", self._held + text)
        for word in words:
            self._put(word)

    def finish(self) -> None:
        """Show what was held back, and end the line."""
        self._put(self._held)
        if self._column:
            print(flush=True)

    def _put(self, word: str) -> None:
        """Show a word and the one space or end of line behind it."""
        body = word.rstrip(" \n")
        if body:
            if self._column > len(self._indent) and self._column + len(body) > self._width:
                print()
                self._column = 0
            if not self._column:
                write(self._indent)
                self._column = len(self._indent)
            write(body, dim=True)
            self._column += len(body)
        if word.endswith("\n"):
            print()
            self._column = 0
        elif self._column:
            print(end=word[len(body) :])
            self._column += len(word) - len(body)


def show_ids(ids: Iterable[int]) -> None:
    """Token ids as they come."""
    for id in ids:
        print(id, end=" ", flush=True)
    print()


def show_text(pieces: Iterable[str]) -> None:
    """Text as it comes."""
    for piece in pieces:
        write(piece)
    write("\n")


def show_chat(pieces: Iterable[str], in_thinking: bool) -> None:
    """An assistant's turn as its text comes, thinking dimmed where the terminal can, the answer plain."""
    from zaya.text import Parser

    parser = Parser(in_thinking=in_thinking)
    before: object = None
    for piece in pieces:
        before = _show_events(parser.feed(piece), before)
    _show_events(parser.finish(), before)
    print(flush=True)


def show_structured(deltas: Iterable[Delta]) -> None:
    """An answer for programs as it comes: exactly the answer, and the reasoning on standard error."""
    is_thinking = False
    for delta in deltas:
        if delta.reasoning:
            is_thinking = True
            reasoning = visible(delta.reasoning) if sys.stderr.isatty() else delta.reasoning
            print(dimmed(reasoning, sys.stderr), end="", file=sys.stderr, flush=True)
        if delta.text:
            if is_thinking:
                print("\n", file=sys.stderr, flush=True)
                is_thinking = False
            write(delta.text)
    print(file=sys.stderr if is_thinking else sys.stdout, flush=True)


def _show_events(events: Iterable[Event], before: object) -> object:
    """Print events behind the one shown before, an empty line between thinking and answer; the last one shown."""
    from zaya.text import CallArguments, CallStart, Content, Reasoning

    for event in events:
        match event:
            case Reasoning(text):
                write(text, dim=True)
            case Content(text):
                write(f"\n\n{text}" if isinstance(before, Reasoning) else text)
            case CallStart(_, name):
                write(f"{name} " if before is None else f"\n\n{name} ")
            case CallArguments(_, text):
                write(text)
        before = event
    return before
