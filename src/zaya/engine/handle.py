"""A request under way, seen from outside: its deltas as they come, its completions, a way to cancel.

Filled by whatever thread steps the engine or listens to a server, read in any event loop or thread. Deltas that nobody
has fetched yet are joined, one for each completion, so that a slow reader costs no memory and gets longer pieces.

To wake readers at every token of a fast model would cost more than to draw it: their event loop and the thread that
draws take turns at one interpreter. So the readers of a loop are woken together, once in a while (`_Pulse`); only who
waits for a first delta or for the end is woken at once. Imports no torch.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np

from zaya.engine.types import Completion, Delta

LEAST_PAUSE_S = 0.016
"""Between two pulses: a frame of a screen."""
PAUSE_PER_READER_S = 0.0005
"""Where that is longer, for each reader that was woken: a piece takes the event loop of a server about 0.1 ms
(docs/numbers.md), so it spends a fifth of its time on pieces at most."""

MOST_APART = 64
"""Deltas of a completion that nobody has fetched yet, before they are made one: to join each with those before it would
cost the thread that draws as much as to tell it."""


def pause_after(readers: int) -> float:
    """Seconds from one pulse, in which so many readers were woken, to the next."""
    return max(LEAST_PAUSE_S, PAUSE_PER_READER_S * readers)


class _Pulse:
    """Wakes the readers in one event loop, all that have something to read at once, and then not for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: list[asyncio.Future[None]] = []
        self._is_beating = False

    def add(self, reader: asyncio.Future[None]) -> None:
        """It has something to read. May be called from any thread."""
        with self._lock:
            self._due.append(reader)
            if self._is_beating:
                return
            self._is_beating = True
        with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
            reader.get_loop().call_soon_threadsafe(self._beat)

    def _beat(self) -> None:
        with self._lock:
            due, self._due = self._due, []
            self._is_beating = bool(due)
        if due:
            for reader in due:
                _resolve(reader)
            asyncio.get_running_loop().call_later(pause_after(len(due)), self._beat)


_pulses: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pulse] = WeakKeyDictionary()


class Bell:
    """Wakes readers in other event loops where one loop has all there is to tell: for what comes together, once. To
    wake each by itself would hand the interpreter over at every one of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Used in this loop alone."""
        self._loop = loop
        self._due: list[asyncio.Future[None]] = []

    def add(self, future: asyncio.Future[None]) -> None:
        if not self._due:
            self._loop.call_soon(self._ring)  # behind whatever else is to be told now
        self._due.append(future)

    def _ring(self) -> None:
        due, self._due = self._due, []
        for loop in {future.get_loop() for future in due}:
            with suppress(RuntimeError):  # it was closed: nobody waits there any more
                loop.call_soon_threadsafe(_resolve_all, [future for future in due if future.get_loop() is loop])


@dataclass(slots=True, eq=False)
class _Reader:
    """Who waits for the next delta, or the end."""

    future: asyncio.Future[None]
    pulse: _Pulse
    is_due: bool = False


class RequestHandle:
    """What `Engine.submit` returns (`zaya.engine.types.Handle`)."""

    def __init__(
        self, n: int, on_cancel: Callable[[RequestHandle], None], *, wants_deltas: bool, bell: Bell | None = None
    ) -> None:
        """For a request of n completions. `on_cancel` asks the engine to end it. What is told in the loop of a `bell`
        comes in pulses already, and wakes its readers by it."""
        self.n = n
        self.wants_deltas = wants_deltas
        self.completions: dict[int, Completion] = {}
        """Those that have ended, by index."""
        self.failures: dict[int, Exception] = {}
        """What went wrong with those that never will, by index; the others are not touched by it."""
        self.error: Exception | None = None
        """What went wrong with the request as a whole."""
        self.drawn = 0
        """Tokens that were told, of all its completions."""
        self.first_at: float | None = None
        """When the first of them was, by `time.monotonic`."""
        self._on_cancel = on_cancel
        self._bell = bell
        self._lock = threading.Lock()
        self._deltas: dict[int, list[Delta]] = {}
        self._seen: set[int] = set()
        """Completions of which somebody has fetched a delta."""
        self._waiting: list[asyncio.Future[None]] = []
        """Who waits for the end."""
        self._readers: list[_Reader] = []
        self._watcher: Callable[[], None] | None = None

    @property
    def is_done(self) -> bool:
        return self.error is not None or len(self.completions) + len(self.failures) == self.n

    # ----- for whoever asked

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while not (self.is_done and not self._deltas):
            await self._something_to_read()
            for _ in range(len(self._deltas)):  # what comes in the meantime is for the next time
                if (delta := self.take()) is not None:
                    yield delta
        if self.error is not None:
            raise self.error

    async def result(self) -> list[Completion]:
        while not self.is_done:
            future = asyncio.get_running_loop().create_future()
            with self._lock:
                if self.is_done:
                    break
                self._waiting.append(future)
            await future
        return self.completed()

    def cancel(self) -> None:
        if not self.is_done:
            self._on_cancel(self)

    def completed(self) -> list[Completion]:
        """The completions in order, once it is done, without those that failed. Raises what went wrong with all."""
        if self.error is not None:
            raise self.error
        return [self.completions[index] for index in sorted(self.completions)]

    def take(self) -> Delta | None:
        """A delta that nobody has seen, if there is one."""
        with self._lock:
            if not self._deltas:
                return None
            index = next(iter(self._deltas))
            self._seen.add(index)
            return _joined(self._deltas.pop(index))

    def watch(self, watcher: Callable[[], None]) -> None:
        """In place of readers, for one that fetches the deltas of many handles: have it called whenever there is
        something to `take`, or the end, by the thread that brings it."""
        self._watcher = watcher
        if self._deltas or self.is_done:  # it came before
            watcher()

    # ----- for the engine

    def tell(self, delta: Delta, *, again: int = 0) -> None:
        """There is more of a completion. `again` of its ids were told before, and taken back."""
        with self._lock:
            is_first = self.first_at is None and len(delta.ids) > 0
            if is_first:
                self.first_at = time.monotonic()
            self.drawn += len(delta.ids) - again
            deltas = self._deltas.setdefault(delta.index, [])
            deltas.append(delta)
            if len(deltas) == MOST_APART:
                deltas[:] = [_joined(deltas)]
            for reader in self._readers:
                if self._bell is None and is_first:
                    _resolve_soon(reader.future)
                elif not reader.is_due:
                    reader.is_due = True
                    (reader.pulse if self._bell is None else self._bell).add(reader.future)
        if self._watcher is not None:
            self._watcher()

    def take_back(self, index: int) -> bool:
        """Forget what was told of a completion, because it begins anew. Not where somebody has seen some of it."""
        with self._lock:
            if index in self._seen:
                return False
            self._deltas.pop(index, None)
            return True

    def complete(self, index: int, completion: Completion) -> None:
        self.completions[index] = completion
        self._wake()

    def lose(self, index: int, error: Exception) -> None:
        """A completion will never come; the others may."""
        self.failures[index] = error
        self._wake()

    def fail(self, error: Exception) -> None:
        self.error = error
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            futures = [*self._waiting, *(reader.future for reader in self._readers)]
            self._waiting = []
        for future in futures:
            if self._bell is None:
                _resolve_soon(future)
            else:
                self._bell.add(future)
        if self._watcher is not None:
            self._watcher()

    async def _something_to_read(self) -> None:
        """Return when there may be a delta that is due, or the end."""
        loop = asyncio.get_running_loop()
        if (pulse := _pulses.get(loop)) is None:
            pulse = _pulses.setdefault(loop, _Pulse())
        reader = _Reader(loop.create_future(), pulse)
        with self._lock:
            if self.is_done or (self._deltas and self._bell is not None):
                return
            if self._deltas:
                reader.is_due = True
                pulse.add(reader.future)
            self._readers.append(reader)
        try:
            await reader.future
        finally:
            with self._lock:
                self._readers.remove(reader)


def _resolve_soon(future: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
        future.get_loop().call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _resolve_all(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        _resolve(future)


def _joined(deltas: list[Delta]) -> Delta:
    if len(deltas) == 1:
        return deltas[0]
    return replace(
        deltas[-1],
        ids=tuple(id for delta in deltas for id in delta.ids),
        text="".join(delta.text for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        logprobs=_one_behind_another([delta.logprobs for delta in deltas]),
        top_ids=_one_behind_another([delta.top_ids for delta in deltas]),
        top_logprobs=_one_behind_another([delta.top_logprobs for delta in deltas]),
    )


def _one_behind_another(arrays: list[np.ndarray | None]) -> np.ndarray | None:
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if len(there) == len(arrays) else None
