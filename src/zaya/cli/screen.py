"""A few lines of a terminal that are drawn again in place, below lines that stay.

A line is a sequence of spans, text and how it looks, so that who makes it knows of no escape codes. A frame is one
write, which hides the cursor and keeps lines from wrapping for as long as it takes: whenever a program is killed, the
terminal is as it was. Where there is no terminal only the lines that stay are written. Used by `cli.watching`.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from zaya.cli.printing import visible
from zaya.core.progress import columns

Span = tuple[str, str]
"""Text, and codes of how it looks, such as "1;36"; empty for plain."""
Line = Sequence[Span]

_BEGIN, _END = "\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h"
"""Hide the cursor and let lines end at the edge; undo both."""
_TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[K", "\x1b[J"


class Screen:
    """The lower end of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.in_place = stream.isatty() and os.environ.get("TERM") != "dumb"
        """Whether lines can be drawn again."""
        self.has_color = self.in_place and "NO_COLOR" not in os.environ
        self._lines: Sequence[Line] = ()
        """What is there now."""

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, as they are now."""
        return columns(self._stream), _rows(self._stream)

    def draw(self, lines: Sequence[Line]) -> None:
        """Put these in the place of the last ones."""
        if self.in_place:
            self._write(self._home() + self._frame(lines))
            self._lines = lines

    def say(self, text: str) -> None:
        """Write a text that stays, in the place of the lines, which come below it when they are drawn again."""
        self.close()
        self._write(f"{text}\n")

    def close(self) -> None:
        """Take the lines away."""
        if self._lines:
            self._write(self._home() + _TO_END_OF_SCREEN)
            self._lines = ()

    def _frame(self, lines: Sequence[Line]) -> str:
        width, _ = self.size
        painted = [self._painted(line, width) + _TO_END_OF_LINE for line in lines]
        return _BEGIN + "\r\n".join(painted) + _TO_END_OF_SCREEN + _END

    def _home(self) -> str:
        """To the beginning of the first line. In a terminal that has become narrower each may now take several."""
        width, rows = self.size
        up = sum(max(1, -(-cells(plain(line)) // width)) for line in self._lines) - 1
        return f"\r\x1b[{min(up, rows - 1)}A" if min(up, rows - 1) > 0 else "\r"

    def _painted(self, line: Line, width: int) -> str:
        parts = []
        for text, look in line:
            part = clipped(text, width)
            width -= cells(part)
            parts.append(f"\x1b[{look}m{part}\x1b[0m" if look and part and self.has_color else part)
        return "".join(parts)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def plain(line: Line) -> str:
    return "".join(text for text, _ in line)


def one_line(text: str) -> str:
    """Text of a model in a line, without what a terminal obeys: controls, and marks that turn the direction around."""
    kept = visible(" ".join(text.split()))
    return "".join("\ufffd" if unicodedata.category(char) in ("Cf", "Cs", "Co") else char for char in kept)


def cells(text: str) -> int:
    """Columns that a text takes."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def clipped(text: str, width: int) -> str:
    """As much of a text as fits, with three dots where that is not all."""
    if cells(text) <= width:
        return text
    kept, room = [], width - 1
    for char in text:
        room -= _cell(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + "…" * (width > 0)


def padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def _cell(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _rows(stream: TextIO) -> int:
    try:
        found = 0 if "LINES" in os.environ else os.get_terminal_size(stream.fileno()).lines
    except (OSError, ValueError):
        found = 0
    return found or shutil.get_terminal_size().lines
