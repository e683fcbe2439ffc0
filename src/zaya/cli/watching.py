"""Shows a population while it works, or again from its record, on standard error.

In a terminal it is drawn ten times a second by a thread of its own, since a rollout that reads tells nothing; a round
that is over leaves a line. Elsewhere, as in a log, those lines are all there is, and how far it is every half minute.
The lines come from `cli.population`, the terminal is `cli.screen`.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TextIO

from zaya.cli.population import View, told
from zaya.cli.screen import Screen, one_line
from zaya.errors import CompletionError
from zaya.ttc.config import RsaConfig
from zaya.ttc.types import Event

_TERMINAL_INTERVAL_S = 0.1
_LOG_INTERVAL_S = 30.0
_LISTENING_INTERVAL_S = 1.0
"""Between two looks at what goes wrong, where nothing is drawn."""


class Watch:
    """Somebody to tell events to. A context manager; when it is over, lines about rounds stay."""

    def __init__(
        self,
        config: RsaConfig,
        *,
        before: Iterable[Event] = (),
        deadline_s: float | None = None,
        terminal_only: bool = False,
        speed: float = 1.0,
        trouble: Callable[[], CompletionError | None] = lambda: None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`before`: what had happened when the run was interrupted, shown with the first event. `terminal_only`:
        elsewhere nothing is said. `speed`: seconds of the events in one of the clock. `trouble`: what went wrong last
        and is tried again; said once of each kind."""
        shown_on = stream or sys.stderr
        self.screen = Screen(shown_on)
        self._view = View(config, has_blocks=_can_show(shown_on, "█░"))
        self._before = list(before)
        self._deadline_s = deadline_s
        self._trouble = trouble
        self._said: set[str] = set()
        self._is_quiet = terminal_only and not self.screen.in_place
        self._clock, self._speed = clock, speed
        self._at, self._seen = 0.0, clock()
        self._has_begun = False
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_drawing, name="zaya-watch", daemon=True)
        self._shows_warning: Any = None

    def __call__(self, event: Event) -> None:
        with self._lock:
            if not self._has_begun:
                self._has_begun = True
                for earlier in self._before:
                    self._take(earlier)
                if self._deadline_s is not None:
                    self._view.deadline_at = event.at + self._deadline_s
            self._take(event)
            self._at, self._seen = event.at, self._clock()
            if event.kind == "round" and self.screen.in_place:
                self._draw()

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self._is_quiet:
            self.screen.say(text)

    def _take(self, event: Event) -> None:
        self._view.feed(event)
        if event.kind == "round" and event.summary is not None:
            self.say(told(event.round, event.summary, self.screen.size[0]))

    def _keep_drawing(self) -> None:
        interval_s = _TERMINAL_INTERVAL_S if self.screen.in_place else _LISTENING_INTERVAL_S
        shown = self._clock()
        while not self._over.wait(interval_s):
            with self._lock:
                self._say_trouble()
                if self.screen.in_place or self._clock() - shown >= _LOG_INTERVAL_S:
                    shown = self._clock()
                    self._draw()

    def _say_trouble(self) -> None:
        error = self._trouble()
        if error is not None and error.kind not in self._said:
            self._said.add(error.kind)
            self.say(f"warning: {one_line(error.message)}; trying again")

    def _draw(self) -> None:
        now = self._at + (self._clock() - self._seen) * self._speed
        columns, rows = self.screen.size
        if self.screen.in_place:
            self.screen.draw(self._view.frame(now, columns, rows - 1))
        else:
            self.say(self._view.heading(now, columns))

    def _show_warning(self, message: Warning | str, *_: Any, **__: Any) -> None:
        with self._lock:
            self.say(f"warning: {message}")

    def __enter__(self) -> Watch:
        # a warning in the middle of a frame would tear it
        self._shows_warning, warnings.showwarning = warnings.showwarning, self._show_warning
        if not self._is_quiet:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        warnings.showwarning = self._shows_warning
        self._over.set()
        if not self._is_quiet:
            self._thread.join()
        self.screen.close()


def play(events: Iterable[Event], watch: Watch, speed: float) -> None:
    """Tell events at the pace at which they happened, times `speed`; at once with 0, and where nobody watches."""
    at = 0.0
    for event in events:
        if speed and watch.screen.in_place:
            time.sleep(max(0.0, event.at - at) / speed)
        watch(event)
        at = event.at


def _can_show(stream: TextIO, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
