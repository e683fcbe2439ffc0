"""A request under way, seen from outside: its deltas as they come, its completions, a way to cancel.

Filled by whatever thread steps the engine or listens to a server, read in any event loop or thread. Deltas that nobody
has fetched yet are joined, one for each completion, so that a slow reader costs no memory and gets longer pieces.
Imports no torch.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from zaya.engine.types import Completion, Delta

_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class RequestHandle:
    """What `Engine.submit` returns (`zaya.engine.types.Handle`)."""

    def __init__(self, n: int, on_cancel: Callable[[RequestHandle], None], *, wants_deltas: bool) -> None:
        """For a request of n completions. `on_cancel` asks the engine to end it."""
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
        self._lock = threading.Lock()
        self._deltas: dict[int, Delta] = {}
        self._seen: set[int] = set()
        """Completions of which somebody has fetched a delta."""
        self._waiting: list[_Waiter] = []
        """Who waits for the end."""
        self._listening: list[_Waiter] = []
        """Who waits for the next delta, or the end."""

    @property
    def is_done(self) -> bool:
        return self.error is not None or len(self.completions) + len(self.failures) == self.n

    # ----- for whoever asked

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while True:
            delta = self.take()
            if delta is not None:
                yield delta
            elif self.is_done:
                break
            else:
                await self._change(or_delta=True)
        if self.error is not None:
            raise self.error

    async def result(self) -> list[Completion]:
        while not self.is_done:
            await self._change(or_delta=False)
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
            return self._deltas.pop(index)

    # ----- for the engine

    def tell(self, delta: Delta, *, again: int = 0) -> None:
        """There is more of a completion. `again` of its ids were told before, and taken back."""
        with self._lock:
            if self.first_at is None and delta.ids:
                self.first_at = time.monotonic()
            self.drawn += len(delta.ids) - again
            before = self._deltas.get(delta.index)
            self._deltas[delta.index] = delta if before is None else _joined(before, delta)
            listening, self._listening = self._listening, []
        _resolve_all(listening)

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
            waiting, self._waiting, self._listening = [*self._waiting, *self._listening], [], []
        _resolve_all(waiting)

    async def _change(self, *, or_delta: bool) -> None:
        """Return when the request may be done, or there may be a delta."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self.is_done or (or_delta and self._deltas):
                return
            (self._listening if or_delta else self._waiting).append((loop, future))
        await future


def _resolve_all(waiting: list[_Waiter]) -> None:
    for loop, future in waiting:
        with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
            loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _joined(first: Delta, second: Delta) -> Delta:
    return replace(
        second,
        ids=first.ids + second.ids,
        text=first.text + second.text,
        reasoning=first.reasoning + second.reasoning,
        logprobs=_behind(first.logprobs, second.logprobs),
        top_ids=_behind(first.top_ids, second.top_ids),
        top_logprobs=_behind(first.top_logprobs, second.top_logprobs),
    )


def _behind(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return None if first is None or second is None else np.concatenate([first, second])
