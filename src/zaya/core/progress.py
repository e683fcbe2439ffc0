"""One line that says how far long work has come, how fast it goes and how long it still takes.

On a terminal the line is rewritten in place, at most ten times a second, and never wider than the terminal. Elsewhere,
as in a log, a new line appears every half minute, so that short work leaves no trace.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import TextIO, TypeVar

T = TypeVar("T")

_TERMINAL_INTERVAL_S = 0.1
_LOG_INTERVAL_S = 30.0


class Progress:
    """Counts work done towards `total`, where that is known. A context manager; `unit="B"` counts bytes."""

    def __init__(
        self,
        total: int | None = None,
        label: str = "",
        *,
        unit: str = "",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.label = label
        self.unit = unit
        self.done = 0
        self._stream = sys.stderr if stream is None else stream
        self._in_place = self._stream.isatty()
        self._interval = _TERMINAL_INTERVAL_S if self._in_place else _LOG_INTERVAL_S
        self._clock = clock
        self._start = self._shown_at = clock()
        self._width = 0

    def update(self, n: int = 1) -> None:
        """Count n more, and show the line if it is due."""
        self.done += n
        now = self._clock()
        if now - self._shown_at >= self._interval:
            self._show(now)

    def reach(self, done: int, total: int) -> None:
        """As `update`, told where the work stands instead of what was added."""
        self.total = total
        self.update(done - self.done)

    def close(self) -> None:
        """Show the last state where any was shown, and leave the line."""
        if self._width:
            self._show(self._clock())
            if self._in_place:
                self._stream.write("\n")
                self._stream.flush()

    def clear(self) -> None:
        """Take the line away from a terminal, so that something else can be printed in its place."""
        if self._width and self._in_place:
            self._stream.write(f"\r{'':{self._width}}\r")
            self._stream.flush()
        self._width = 0

    def line(self, elapsed_s: float, width: int | None = None) -> str:
        """The line after that many seconds of work. Where `width` characters do not hold it, it says less."""
        rate = self.done / elapsed_s if elapsed_s > 0 else 0.0
        parts = {"label": self.label} if self.label else {}
        if self.total:
            parts["share"] = f"{self.done / self.total:4.0%}"
        of_total = f"/{amount(self.total, self.unit)}" if self.total else ""
        parts["amount"] = amount(self.done, self.unit) + of_total
        if rate:
            parts["rate"] = f"{amount(rate, self.unit)}/s"
        if self.total and rate and self.done < self.total:
            parts["time"] = f"{duration((self.total - self.done) / rate)} left"
        else:
            parts["time"] = duration(elapsed_s)
        for name in ("rate", "amount", "time"):
            if width is None or len("  ".join(parts.values())) <= width:
                break
            parts.pop(name, None)
        if width is not None and self.label:
            over = max(0, len("  ".join(parts.values())) - width)
            parts["label"] = self.label[: max(0, len(self.label) - over)]
        return "  ".join(parts.values())[:width]

    def _show(self, now: float) -> None:
        # One less: a terminal whose last column is written may go to the next line.
        line = self.line(now - self._start, columns(self._stream) - 1 if self._in_place else None)
        # Blanks over what a longer line left behind.
        self._stream.write(f"\r{line:{self._width}}" if self._in_place else f"{line}\n")
        self._stream.flush()
        self._shown_at, self._width = now, len(line)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def progress(items: Iterable[T], total: int | None = None, label: str = "", *, unit: str = "") -> Iterator[T]:
    """The same items, with a line about them. The total is their length where they have one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(total, label, unit=unit) as bar:
        for item in items:
            yield item
            bar.update()


def columns(stream: TextIO) -> int:
    """Width of the terminal behind a stream. COLUMNS has the last word; without either it is 80."""
    try:
        found = 0 if "COLUMNS" in os.environ else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # not a terminal, or closed
        found = 0
    return found or shutil.get_terminal_size().columns


def amount(number: float, unit: str = "") -> str:
    """Such as 1.27 GB, of bytes, or 1,270."""
    if unit == "B":
        prefixes = iter(("", "k", "M", "G", "T", "P"))
        prefix = next(prefixes)
        while number >= 999.5:  # what three digits would show as 1000
            number, prefix = number / 1000, next(prefixes)
        return f"{number:.3g} {prefix}B"
    shown = f"{number:,.0f}" if number == int(number) or number >= 100 else f"{number:.3g}"
    return f"{shown} {unit}" if unit else shown


def duration(seconds: float) -> str:
    """Such as 4:07, or 1:04:07."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
