"""One replica: an engine in a process of its own, as the front of the server hears of it.

    listen()  ─►  Hello, then every change of every request in one stream, and a sign of life twice a second
    begin(life, id, request), end(life, id), score(life, ids, top)

One stream for all requests: a message costs the same whatever is in it, so deltas of one step share one. First deltas
and ends go at once. What lies between is told in pulses, all requests in the same step. Whoever is in the same process
may listen without an event loop (`begin_life`, `fetch`), and so have it all done by the thread that draws.

A front that listens begins a new life of the replica: what was asked in the one before is cancelled, and calls that
name it are refused. All that travels is pickled here, so that arrays arrive as memory of the front's own. The process
is kept alive by `serve.apart` or `serve.replicas`, and asked by `serve.fleet`. Imports no torch.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import secrets
import time
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from zaya.engine.handle import RequestHandle, pause_after
from zaya.engine.types import Completion, Delta, EngineStats, Request
from zaya.serve.log import places

if TYPE_CHECKING:
    from zaya.engine.engine import Engine

PULSE_S = 0.5
"""Between two signs of life."""


@dataclass(frozen=True, slots=True, eq=False)
class Hello:
    """The first thing that a listener gets."""

    life: str
    """Names this life in calls."""
    process: int
    """Its id."""
    context: int | None
    error: Exception | None
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

_DELTA = ("logprobs", *(field.name for field in fields(Delta) if field.name != "logprobs"))
_COMPLETION = tuple(field.name for field in fields(Completion))
_delta_row, _completion_row = attrgetter(*_DELTA), attrgetter(*_COMPLETION)


def pack(events: Sequence[Event]) -> bytes:
    """Events as they travel: deltas and completions as tuples of what they hold, because to take objects apart and to
    put them together is most of the time otherwise."""
    rows: list[Any] = []
    for event in events:
        if isinstance(event, Told):
            logprobs, *rest = _delta_row(event.delta)
            rows.append((event.id, None if logprobs is None else logprobs.tobytes(), rest))
        elif isinstance(event, Ended):
            ended = [(index, _completion_row(completion)) for index, completion in event.completions.items()]
            rows.append((event.id, ended, event.failures))
        else:
            rows.append(event)
    return pickle.dumps(rows)


def unpack(data: bytes) -> Iterator[Event]:
    """What `pack` was given."""
    for row in pickle.loads(data):
        match row:
            case (id, bytes() | None as logprobs, rest):
                known = None if logprobs is None else np.frombuffer(logprobs, np.float32)
                held: dict[str, Any] = dict(zip(_DELTA, [known, *rest], strict=True))
                yield Told(id, Delta(**held))
            case (id, ended, failures):
                completions = {index: Completion(**dict(zip(_COMPLETION, its, strict=True))) for index, its in ended}
                yield Ended(id, completions, failures)
            case event:
                yield event


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
    """An engine, and who listens to it."""

    def __init__(self, open: Callable[[], Any]) -> None:
        """`open` makes the completer, whose handles are `RequestHandle`s. What keeps it from that is told to whoever
        listens: a process that ends for it would be started again and again."""
        self._completer: Any = None
        self._error: Exception | None = None
        try:
            self._completer = open()
        except Exception as error:
            self._error = _portable(error)
            self._error.add_note("".join(traceback.format_exception(error)))  # for whoever is shown a traceback
        self._has_steps = hasattr(self._completer, "after_step")
        """What is told comes in steps, and is fetched behind them: in the midst of one it would come in two parts."""
        if self._has_steps:
            self._completer.after_step, self._completer.pace = self._say, self._pulse
        self._life = ""
        self._on_news: Callable[[], None] = lambda: None
        self._handles: dict[int, RequestHandle] = {}
        self._due: deque[int] = deque()
        """Requests of which there may be something to tell, in the order in which it came."""
        self._sign_at = 0.0
        """When the next sign of life is due."""
        self._pulses = 0
        self._pulse_ends = 0.0

    # ----- for whoever listens

    def begin_life(self, on_news: Callable[[], None]) -> tuple[str, bytes]:
        """Somebody listens, in place of whoever did before, who gets nothing more. Returns what names this life, and
        its Hello, packed. `on_news` is called by the thread that draws, behind a step that has brought something."""
        self._life = secrets.token_hex(8)
        self._let_go()
        self._on_news = on_news
        context = getattr(self._completer, "context", None)
        return self._life, pack([Hello(self._life, os.getpid(), context, self._error)])

    def end_life(self, life: str) -> None:
        """Nobody listens any more."""
        if self._life == life:
            self._let_go()

    def fetch(self) -> bytes | None:
        """What has happened since it was last asked, packed; None where that is nothing. For one thread at a
        time, which asks at least every `PULSE_S`: a sign of life is among it as often."""
        events: list[Event] = []
        while self._due:
            events += self._new(self._due.popleft())
        now = time.monotonic()
        if now >= self._sign_at or (events and not self._handles):  # the last word on what is under way is right
            self._sign_at = now + PULSE_S
            events.insert(0, Pulse(getattr(self._completer, "stats", None)))
        return pack(events) if events else None

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """A life, as a stream of what is fetched. There is one listener; another one takes its place."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed: nobody listens any more
                loop.call_soon_threadsafe(news.set)

        life, hello = self.begin_life(wake)
        yield hello
        try:
            while self._life == life:
                if (data := self.fetch()) is not None:
                    yield data
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), PULSE_S)
                news.clear()
        finally:
            self.end_life(life)

    def will_say(self, id: int) -> bool:
        """Whether a step is to come for a request. `on_news` is called behind the next one, whatever it brings."""
        if not self._has_steps or (handle := self._handles.get(id)) is None or handle.is_done:
            return False
        self._due.append(id)
        return True

    # ----- what happens

    def _say(self) -> None:
        """Have what is due fetched. Called by the thread that draws."""
        if self._due:
            self._on_news()

    def _pulse(self) -> int:
        """The number of the pulse, in which every completion is told of once. Called by the thread that draws."""
        now = time.monotonic()
        if now >= self._pulse_ends:
            self._pulses, self._pulse_ends = self._pulses + 1, now + pause_after(len(self._handles))
        return self._pulses

    def _new(self, id: int) -> list[Event]:
        """What has happened to a request since it was last asked for."""
        handle = self._handles.get(id)
        if handle is None:
            return []
        is_done = handle.is_done  # before its deltas are fetched: nothing comes behind the end
        events: list[Event] = []
        while (delta := handle.take()) is not None:
            events.append(Told(id, delta))
        if is_done:
            del self._handles[id]
            if handle.error is not None:
                events.append(Failed(id, _portable(handle.error)))
            else:
                failures = {index: _portable(error) for index, error in handle.failures.items()}
                events.append(Ended(id, dict(handle.completions), failures))
        return events

    # ----- calls, all in one event loop

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
            if request.params.structure is None:
                handle = self._completer.submit(request)
            else:  # in a thread, because a grammar may take long to compile
                handle = await asyncio.to_thread(self._completer.submit, request)
        except Exception as error:
            return _portable(error)
        if life != self._life:
            handle.cancel()
            return Gone()
        self._handles[id] = handle

        def notice() -> None:
            self._due.append(id)
            if not self._has_steps:
                self._on_news()

        handle.watch(notice)
        return None

    def _let_go(self) -> None:
        """Whoever asked for these has gone."""
        handles, self._handles = [*self._handles.values()], {}
        self._due.clear()
        self._sign_at = 0.0
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
