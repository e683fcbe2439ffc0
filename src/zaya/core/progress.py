"""One line that says how far long work has come, how fast it goes and how long it still takes.

On a terminal the line is rewritten in place, at most ten times a second. Elsewhere, as in a log, a new line appears
every half minute, so that short work leaves no trace.
"""

from __future__ import annotations

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

    def line(self, elapsed_s: float) -> str:
        """The line after that many seconds of work."""
        rate = self.done / elapsed_s if elapsed_s > 0 else 0.0
        parts = [self.label] if self.label else []
        if self.total:
            parts.append(f"{self.done / self.total:4.0%}")
        of_total = f"/{_amount(self.total, self.unit)}" if self.total else ""
        parts.append(_amount(self.done, self.unit) + of_total)
        if rate:
            parts.append(f"{_amount(rate, self.unit)}/s")
        if self.total and rate and self.done < self.total:
            parts.append(f"{_duration((self.total - self.done) / rate)} left")
        else:
            parts.append(_duration(elapsed_s))
        return "  ".join(parts)

    def _show(self, now: float) -> None:
        line = self.line(now - self._start)
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


def _amount(number: float, unit: str) -> str:
    if unit == "B":
        prefixes = iter(("", "k", "M", "G", "T", "P"))
        prefix = next(prefixes)
        while number >= 999.5:  # what three digits would show as 1000
            number, prefix = number / 1000, next(prefixes)
        return f"{number:.3g} {prefix}B"
    shown = f"{number:,.0f}" if number == int(number) or number >= 100 else f"{number:.3g}"
    return f"{shown} {unit}" if unit else shown


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
