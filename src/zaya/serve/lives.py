"""Replicas as the front hears of them: each from its first word to the moment when its stream breaks off, and again.

Each is listened to in one stream (`serve.replica`). Where that breaks off, or nothing comes for `silence_s`, the
replica counts as dead until its stream can be opened again, and all it had under way is lost at once. How replicas are
reached is a `Link`; what is asked of them is `serve.fleet`. All of it runs in one event loop. Imports no torch.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from zaya.engine.types import EngineStats, Request
from zaya.serve.log import Write
from zaya.serve.replica import Event, Hello, Pulse, unpack

SILENCE_S = 30.0
"""A replica tells twice a second that it lives. A process without time to tell it for so long has none for tokens."""
_PAUSE_S = 0.2
"""Until a replica that could not be heard is listened to again."""
_NOW = ("running", "waiting", "pages_used", "pages_free", "pages_reclaimable", "snapshots")
"""Of an engine's statistics, what it has at the moment; the rest is what it has done."""


class Link(Protocol):
    """The way to one replica (`serve.replica.Replica`), whoever keeps it alive. What is called may fail by any
    exception, which means that the replica is not there."""

    def listen(self) -> AsyncGenerator[bytes, None]:
        """Waits for a replica that is only just starting."""
        ...

    async def begin(self, life: str, id: int, request: Request) -> bytes: ...

    async def end(self, life: str, id: int) -> None: ...

    async def score(self, life: str, ids: Sequence[int], top_logprobs: int) -> bytes: ...


class Lost(Exception):
    """The replica that was asked is not there any more."""


@dataclass(eq=False)
class Life:
    """A replica, from when it is heard of to when it is not any more."""

    replica: int
    name: str
    link: Link
    context: int | None
    lost: asyncio.Future[None]
    load: int = 0
    """Completions that it has, and texts that it scores."""
    stats: EngineStats | None = None

    async def answer(self, call: Coroutine[Any, Any, bytes]) -> Any:
        """What a call to it says. Raises Lost where it dies over it."""
        asked = asyncio.ensure_future(call)
        asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())  # or asyncio complains of it
        try:
            await asyncio.wait([asked, self.lost], return_when=asyncio.FIRST_COMPLETED)
            if self.lost.done() or asked.exception() is not None:
                raise Lost
            return pickle.loads(asked.result())
        finally:
            asked.cancel()


class Lives:
    """Those that are alive, and what the dead have done."""

    def __init__(
        self,
        links: Sequence[Link],
        *,
        silence_s: float,
        write: Write,
        on_event: Callable[[Life, Event], None],
        on_loss: Callable[[Life], int],
    ) -> None:
        """`on_event` is told what happens in a replica, `on_loss` which one has died, and says how many requests it
        had. `write` gets a record when a replica is ready or lost."""
        self._links = links
        self._silence_s = silence_s
        self._write = write
        self._on_event = on_event
        self._on_loss = on_loss
        self._alive: dict[int, Life] = {}
        self._past: EngineStats | None = None
        """What replicas have done that are dead."""
        self._changed = threading.Condition()
        self.context: int | None = None
        """Tokens that prompt and completion may have together, in any of them."""
        self._refused: dict[int, Exception] = {}
        """Why replicas have no engine, and never will."""
        self.is_closed = False

    @property
    def alive(self) -> Sequence[Life]:
        return [*self._alive.values()]

    def __getitem__(self, replica: int) -> Life:
        return self._alive[replica]

    @property
    def stats(self) -> EngineStats | None:
        """Of all replicas together; what dead ones have done stays."""
        found = [life.stats for life in self.alive if life.stats is not None]
        return _sum([*found, *([] if self._past is None else [self._past])])

    @property
    def refused(self) -> Exception | None:
        """Why none of them will ever be alive again."""
        return next(iter(self._refused.values())) if len(self._refused) == len(self._links) else None

    def wait(self) -> None:
        """Until all replicas are there. Raises what keeps one from ever being there. For another thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._refused or len(self._alive) == len(self._links))
        for error in self._refused.values():
            raise error

    async def keep(self, replica: int) -> None:
        """Listen to a replica, one life after another."""
        while not self.is_closed:  # not every stream passes on that it is cancelled
            life, why = None, "its stream ended"
            try:
                async with aclosing(self._links[replica].listen()) as news:
                    [hello] = unpack(await anext(news))
                    assert isinstance(hello, Hello)
                    if hello.error is not None:
                        self._refuse(replica, hello.error)
                        return
                    life = self._welcome(replica, hello)
                    while True:
                        data = await self._next(news)
                        for event in unpack(data):
                            if isinstance(event, Pulse):
                                life.stats = event.stats
                            else:
                                self._on_event(life, event)
            except StopAsyncIteration:
                pass
            except Exception as error:  # whatever it is: who does not tell anything is not there
                why = type(error).__name__
            finally:
                if life is not None:
                    self._lose(life, why)
            await asyncio.sleep(_PAUSE_S)

    async def _next(self, news: AsyncGenerator[bytes, None]) -> bytes:
        """What comes next. Raises TimeoutError where nothing does."""
        coming = asyncio.ensure_future(anext(news))
        try:
            for _ in range(2):  # if it was this process that had no time, what has come meanwhile gets half of it
                done, _ = await asyncio.wait([coming], timeout=self._silence_s / 2)
                if done:
                    return coming.result()
            raise TimeoutError
        finally:
            if coming.cancel():  # a generator cannot be closed while somebody waits in it
                await asyncio.wait([coming])

    def _welcome(self, replica: int, hello: Hello) -> Life:
        life = Life(
            replica, hello.life, self._links[replica], hello.context, asyncio.get_running_loop().create_future()
        )
        with self._changed:
            self._alive[replica] = life
            contexts = [life.context for life in self._alive.values() if life.context is not None]
            self.context = min(contexts, default=None)
            self._changed.notify_all()
        self._write({"event": "replica", "replica": replica, "state": "ready", "process": hello.process})
        return life

    def _refuse(self, replica: int, error: Exception) -> None:
        with self._changed:
            self._refused[replica] = error
            self._changed.notify_all()
        self._write({"event": "replica", "replica": replica, "state": "failed", "why": str(error)})

    def _lose(self, life: Life, why: str) -> None:
        del self._alive[life.replica]
        if life.stats is not None:
            done = replace(life.stats, **dict.fromkeys(_NOW, 0))
            self._past = _sum([done, *([] if self._past is None else [self._past])])
        life.lost.set_result(None)  # and with it whoever waits for an answer
        requests = self._on_loss(life)
        if not self.is_closed:
            state = {"state": "lost", "why": why, "requests": requests}
            self._write({"event": "replica", "replica": life.replica, **state})


def _sum(stats: Sequence[EngineStats]) -> EngineStats | None:
    if not stats:
        return None
    first = stats[0]
    return replace(first, **{each.name: sum(getattr(one, each.name) for one in stats) for each in fields(first)})
