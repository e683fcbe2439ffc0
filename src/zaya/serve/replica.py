"""One replica: an engine in a process of its own, as the front of the server hears of it.

    listen()  ─►  Hello, then every change of every request in one stream, and a sign of life each second
    begin(life, id, request), end(life, id), score(life, ids, top)

One stream for all requests: a message costs a millisecond whatever is in it, so deltas that come at the same time
share one. A front that listens begins a new life of the replica: what was asked in the one before is cancelled, and
calls that name it are refused. All that travels is pickled here, so that arrays arrive as memory of the front's own.
What keeps the process alive is for `serve.replicas`, what asks it is `serve.fleet`. Imports no torch.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zaya.engine.handle import RequestHandle
from zaya.engine.types import Completion, Delta, Request
from zaya.errors import ZayaError
from zaya.serve.log import places

if TYPE_CHECKING:
    from zaya.engine.engine import Engine, EngineStats

PULSE_S = 1.0
"""Between two signs of life."""


@dataclass(frozen=True, slots=True, eq=False)
class Hello:
    """The first thing that a listener gets."""

    life: str
    """Names this life in calls."""
    process: int
    """Its id."""
    context: int | None
    error: ZayaError | None
    """Why there is no engine, and never will be."""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """There is more of a completion."""

    id: int
    delta: Delta


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """All completions of a request are over."""

    id: int
    completions: Mapping[int, Completion]
    failures: Mapping[int, Exception]


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """A request has gone wrong as a whole."""

    id: int
    error: Exception


@dataclass(frozen=True, slots=True, eq=False)
class Pulse:
    """It is alive."""

    stats: EngineStats | None


Event = Hello | Told | Ended | Failed | Pulse


class Gone(Exception):
    """The life that a call names is over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """Everything an engine is made of, to be made in another process."""

    directory: str
    """Of the checkpoint."""
    dtype: str
    quantize: str | None
    device: str
    threads: int
    """Of the processor, for one replica."""
    replicas: int
    """How many there are, who share the free memory of a CPU."""
    max_batch: int
    kv_dtype: Any
    speculate: int
    deterministic: bool

    def open(self) -> Engine:
        """Errors as of `zaya.load` and `Engine`."""
        import torch

        from zaya.core.device import free_bytes, pick
        from zaya.engine.engine import MEMORY_SHARE, Engine
        from zaya.model.layouts import load

        torch.set_num_threads(self.threads)
        device = pick(self.device)
        model, tokenizer = load(self.directory, dtype=self.dtype, quantize=self.quantize, device=device)
        # accelerators are one for each replica, and their memory is nobody else's
        room = int(MEMORY_SHARE * free_bytes(device) / self.replicas) if device.type == "cpu" else None
        return Engine(
            model, tokenizer, memory_bytes=room, max_batch=self.max_batch, kv_dtype=self.kv_dtype,
            speculate=self.speculate, deterministic=self.deterministic,
        )  # fmt: skip


class Replica:
    """An engine, and who listens to it. All its methods run in one event loop."""

    def __init__(self, open: Callable[[], Any]) -> None:
        """`open` makes the completer, whose handles are `RequestHandle`s. What a user can cause is told to whoever
        listens: a process that ends for it would be started again and again."""
        self._completer: Any = None
        self._error: ZayaError | None = None
        try:
            self._completer = open()
        except ZayaError as error:
            self._error = error
        self._life = ""
        self._handles: dict[int, RequestHandle] = {}
        self._following: set[asyncio.Task[None]] = set()
        self._outbox: list[Event] = []
        self._news = asyncio.Event()

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Lists of events, pickled. There is one listener; another one takes its place."""
        life = self._life = secrets.token_hex(8)
        self._let_go()
        context = getattr(self._completer, "context", None)
        yield pickle.dumps([Hello(life, os.getpid(), context, self._error)])
        try:
            while self._life == life:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PULSE_S):
                        await self._news.wait()
                self._news.clear()
                events, self._outbox = self._outbox, []
                yield pickle.dumps([*events, Pulse(getattr(self._completer, "stats", None))])
        finally:
            if self._life == life:
                self._let_go()

    async def begin(self, life: str, id: int, request: Request) -> bytes:
        """Start on a request. None, pickled, or the exception that it ended in: Gone, UsageError."""
        error = await self._begin(life, id, request)
        return pickle.dumps(error)

    async def end(self, life: str, id: int) -> None:
        """Nobody wants the rest of it."""
        if life == self._life and id in self._handles:
            self._handles[id].cancel()

    async def score(self, life: str, ids: Sequence[int], top_logprobs: int) -> bytes:
        """`Scores`, pickled, or the exception that it ended in."""
        if life != self._life:
            return pickle.dumps(Gone())
        try:
            return pickle.dumps(await asyncio.to_thread(self._completer.score, ids, top_logprobs))
        except Exception as error:
            return pickle.dumps(_portable(error))

    async def _begin(self, life: str, id: int, request: Request) -> Exception | None:
        if life != self._life:
            return Gone()
        try:
            # in a thread, because a grammar may take long to compile
            handle = await asyncio.to_thread(self._completer.submit, request)
        except Exception as error:
            return _portable(error)
        if life != self._life:
            handle.cancel()
            return Gone()
        self._handles[id] = handle
        task = asyncio.create_task(self._follow(id, handle))
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return None

    async def _follow(self, id: int, handle: RequestHandle) -> None:
        try:
            async for delta in handle:
                self._post(handle, Told(id, delta))
            failures = {index: _portable(error) for index, error in handle.failures.items()}
            self._post(handle, Ended(id, dict(handle.completions), failures))
        except Exception as error:
            self._post(handle, Failed(id, _portable(error)))
        if self._handles.get(id) is handle:
            del self._handles[id]

    def _post(self, handle: RequestHandle, event: Told | Ended | Failed) -> None:
        if self._handles.get(event.id) is handle:
            self._outbox.append(event)
            self._news.set()

    def _let_go(self) -> None:
        """Whoever asked for these has gone."""
        handles, self._handles, self._outbox = [*self._handles.values()], {}, []
        for handle in handles:
            handle.cancel()


def _portable(error: Exception) -> Exception:
    """The error as it can be sent, with the places where it arose, which are lost on the way otherwise."""
    found = places(error)
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = RuntimeError(type(error).__name__)
    vars(copy)["places"] = found
    return copy
