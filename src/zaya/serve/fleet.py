"""Several replicas as one `Completer`: what works over an engine works over them.

    submit ─► choose a replica (`serve.routing`) ─► begin there ─► its stream: deltas, completions ─► the handle
                                   ▲                                      │ breaks off, or is silent for too long
                                   └──────── once more, elsewhere ◄───────┘

1. Each replica is listened to in one stream (`serve.replica`). Where that breaks off, or nothing comes for
   `silence_s`, the replica counts as dead until its stream can be opened again; all it had under way is lost at once.
2. A request that was lost is asked once more, of another replica, with the same seed. Nobody has heard anything of it:
   it is told from the beginning. Somebody has: what they heard is skipped, as long as the same ids come
   (`serve.replay`). Where others come, no other replica is there, or the second one dies as well, it ends in a
   CompletionError of the kind "replica_lost".
3. Where no replica is alive, a request is refused at once, kind "no_replica".

One event loop in one thread has all of it. Knows nothing of Ray: how replicas are reached is a `Link`. Imports no
torch.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from zaya.engine.handle import RequestHandle
from zaya.engine.types import Completion, OnProgress, Request
from zaya.errors import CompletionError, ZayaError
from zaya.serve.log import Write, write_nothing
from zaya.serve.replay import Differs, Track
from zaya.serve.replica import Ended, Event, Failed, Gone, Hello, Pulse, Told
from zaya.serve.routing import Known, blocks, choose

if TYPE_CHECKING:
    from zaya.engine.engine import EngineStats
    from zaya.engine.scoring import Scores

SILENCE_S = 30.0
"""A replica tells each second that it lives. A process that has no time to tell it for so long has none for tokens."""
_PAUSE_S = 0.2
"""Until a replica that could not be heard is listened to again."""
_MOST_RUNS = 2
"""Of a request. One that has taken two replicas with it is not given a third."""
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


@dataclass(eq=False)
class _Job:
    """A request under way."""

    id: int
    request: Request
    handle: RequestHandle
    keys: list[int]
    """Of its prompt, for `choose`."""
    tracks: list[Track]
    """Of its completions."""
    life: _Life | None = None
    """Where it is now."""
    runs: int = 0
    is_unwanted: bool = False


@dataclass(eq=False)
class _Life:
    """A replica, from when it is heard of to when it is not any more."""

    replica: int
    name: str
    link: Link
    context: int | None
    lost: asyncio.Future[None]
    jobs: dict[int, _Job] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    """Those of them that the replica has taken."""
    stats: EngineStats | None = None
    scoring: int = 0

    @property
    def load(self) -> int:
        return self.scoring + sum(job.request.n for job in self.jobs.values())


class _Lost(Exception):
    """The replica that was asked is not there any more."""


class ReplicaCompleter:
    """Several replicas (`zaya.engine.types.Completer`)."""

    def __init__(self, links: Sequence[Link], *, silence_s: float = SILENCE_S, write: Write = write_nothing) -> None:
        """`write` gets a record when a replica is ready or lost."""
        self._links = links
        self._silence_s = silence_s
        self._write = write
        self._lives: dict[int, _Life] = {}
        """Those that are alive, by their number."""
        self._known = Known()
        self._turns: dict[int, int] = {}
        self._counter = count()
        self._jobs: dict[RequestHandle, _Job] = {}
        self._past: EngineStats | None = None
        """What replicas have done that are dead."""
        self._context: int | None = None
        self._refused: ZayaError | None = None
        """Why a replica has no engine."""
        self._is_closed = False
        self._changed = threading.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="zaya-replicas", daemon=True)
        self._thread.start()
        for replica in range(len(links)):
            self._loop.call_soon_threadsafe(self._spawn, self._keep(replica))

    # ----- asking

    @property
    def context(self) -> int | None:
        """Tokens that prompt and completion may have together, in any replica."""
        return self._context

    @property
    def alive(self) -> int:
        return len(self._lives)

    @property
    def is_ready(self) -> bool:
        """Whether a request would be taken now."""
        return self.alive > 0

    @property
    def stats(self) -> EngineStats | None:
        """Of all replicas together; what dead ones have done stays."""
        found = [life.stats for life in [*self._lives.values()] if life.stats is not None]
        return _sum([*found, *([] if self._past is None else [self._past])])

    def wait(self) -> None:
        """Until all replicas are there. Raises what keeps one from ever being there."""
        with self._changed:
            self._changed.wait_for(lambda: self._refused is not None or self.alive == len(self._links))
        if self._refused is not None:
            raise self._refused

    def submit(self, request: Request) -> RequestHandle:
        """Start on a request, and wait until a replica has taken it. May be called from any thread. Raises UsageError
        for one that cannot be answered, CompletionError where there is no replica."""
        handle = RequestHandle(request.n, self._cancel, wants_deltas=True)
        keys = blocks(request.prompt_ids or (), request.cache_salt)
        job = _Job(next(self._counter), request, handle, keys, [Track() for _ in range(request.n)])
        self._wait_for(self._begin(job))
        return handle

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        """For each request its `n` completions, in order. Errors as of `submit`. A call that breaks off cancels what it
        has asked for."""
        handles: list[RequestHandle] = []
        done, total = 0, sum(request.n for request in requests)
        try:
            for request in requests:
                handles.append(self.submit(request))
            for handle in handles:
                self._wait_for(handle.result())
                done += handle.n
                if on_progress is not None:
                    on_progress(done, total)
        except BaseException:
            for handle in handles:
                handle.cancel()
            raise
        return [handle.completed() for handle in handles]

    def score(self, ids: Sequence[int], top_logprobs: int = 0) -> Scores:
        """As `Engine.score`, by the replica that has least to do."""
        return self._wait_for(self._score(ids, top_logprobs))

    def close(self) -> None:
        """Fail what is under way, and listen no more."""
        self._wait_for(self._wind_up())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> ReplicaCompleter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ----- the thread

    def _wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop alone would let go of it
        task.add_done_callback(self._tasks.discard)

    async def _wind_up(self) -> None:
        self._is_closed = True
        for job in [*self._jobs.values()]:
            self._fail(job, CompletionError("the server was closed", kind="replica_lost"))
        tasks = asyncio.all_tasks() - {asyncio.current_task()}  # those that other threads wait for as well
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ----- replicas

    async def _keep(self, replica: int) -> None:
        """Listen to a replica, one life after another."""
        while not self._is_closed:  # not every stream passes on that it is cancelled
            life, why = None, "its stream ended"
            try:
                async with aclosing(self._links[replica].listen()) as news:
                    [hello] = pickle.loads(await anext(news))
                    if hello.error is not None:
                        self._refuse(replica, hello.error)
                        return
                    life = self._welcome(replica, hello)
                    while True:
                        data = await self._next(news)
                        for event in pickle.loads(data):
                            self._take(life, event)
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

    def _welcome(self, replica: int, hello: Hello) -> _Life:
        life = _Life(replica, hello.life, self._links[replica], hello.context, self._loop.create_future())
        with self._changed:
            self._lives[replica] = life
            contexts = [life.context for life in self._lives.values() if life.context is not None]
            self._context = min(contexts, default=None)
            self._changed.notify_all()
        self._write({"event": "replica", "replica": replica, "state": "ready", "process": hello.process})
        return life

    def _refuse(self, replica: int, error: ZayaError) -> None:
        with self._changed:
            self._refused = error
            self._changed.notify_all()
        self._write({"event": "replica", "replica": replica, "state": "failed", "why": error.message})

    def _lose(self, life: _Life, why: str) -> None:
        del self._lives[life.replica]
        self._known.forget(life.replica)
        if life.stats is not None:
            done = replace(life.stats, **dict.fromkeys(_NOW, 0))
            self._past = _sum([done, *([] if self._past is None else [self._past])])
        life.lost.set_result(None)  # and with it whoever waits for an answer
        taken = [life.jobs[id] for id in life.begun]
        if not self._is_closed:
            state = {"state": "lost", "why": why, "requests": len(life.jobs)}
            self._write({"event": "replica", "replica": life.replica, **state})
        life.jobs.clear()
        for job in taken:
            self._spawn(self._go_on(job))

    # ----- requests

    async def _begin(self, job: _Job) -> None:
        """Have a replica take it. Raises what keeps it from that."""
        self._jobs[job.handle] = job
        try:
            await self._run(job)
        except BaseException:
            self._jobs.pop(job.handle, None)
            raise

    async def _go_on(self, job: _Job) -> None:
        """It was lost."""
        try:
            if job.is_unwanted or job.runs == _MOST_RUNS:
                raise _lost()
            await self._run(job)
        except Exception as error:
            self._fail(job, error)
        else:
            if job.is_unwanted:
                self._end(job)

    async def _run(self, job: _Job) -> None:
        """Have it drawn, from the beginning, by a replica that is not the one it was lost with."""
        while True:
            life = self._chosen(job)
            job.life, job.runs = life, job.runs + 1
            if job.runs > 1:
                for index, track in enumerate(job.tracks):
                    track.begin_again(taken_back=job.handle.take_back(index))
            self._known.note(life.replica, job.keys)
            self._turns[life.replica] = next(self._counter)
            life.jobs[job.id] = job
            try:
                with _given_up(life, job):
                    error = pickle.loads(await self._answer(life, life.link.begin(life.name, job.id, job.request)))
                    if isinstance(error, Gone):
                        raise _Lost
                    if error is not None:
                        raise error
            except _Lost:
                if job.handle.is_done:  # it was over before it was said to have begun
                    return
                if job.runs == _MOST_RUNS:
                    raise _lost() from None
                continue
            if job.id in life.jobs:
                life.begun.add(job.id)
            return

    def _chosen(self, job: _Job) -> _Life:
        """Raises CompletionError where there is none."""
        loads = {replica: life.load for replica, life in self._lives.items() if life is not job.life}
        if not loads:
            raise _none() if job.runs == 0 else _lost()
        return self._lives[choose(job.keys, loads, self._known, self._turns)]

    async def _answer(self, life: _Life, call: Coroutine[Any, Any, bytes]) -> bytes:
        """What a call says. Raises _Lost where the replica dies over it."""
        asked = asyncio.ensure_future(call)
        asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())  # or asyncio complains of it
        try:
            await asyncio.wait([asked, life.lost], return_when=asyncio.FIRST_COMPLETED)
            if life.lost.done() or asked.exception() is not None:
                raise _Lost
            return asked.result()
        finally:
            asked.cancel()

    def _take(self, life: _Life, event: Event) -> None:
        """Something has happened in a replica."""
        if isinstance(event, Pulse):
            life.stats = event.stats
            return
        assert not isinstance(event, Hello)
        job = life.jobs.get(event.id)
        if job is None:
            return
        match event:
            case Told(_, delta):
                try:
                    new, again = job.tracks[delta.index].new(delta)
                except Differs:
                    self._fail(job, _lost())
                    self._spawn(self._ended(life, job))
                    return
                if new is not None:
                    job.handle.tell(new, again=again)
            case Ended(_, completions, failures):
                self._forget(job)
                for index, error in failures.items():
                    job.handle.lose(index, error)
                for index, completion in completions.items():
                    job.handle.complete(index, completion)
            case Failed(_, error):
                self._fail(job, error)

    def _fail(self, job: _Job, error: Exception) -> None:
        self._forget(job)
        job.handle.fail(error)

    def _forget(self, job: _Job) -> None:
        self._jobs.pop(job.handle, None)
        if job.life is not None:
            job.life.jobs.pop(job.id, None)
            job.life.begun.discard(job.id)

    def _cancel(self, handle: RequestHandle) -> None:
        self._loop.call_soon_threadsafe(lambda: handle in self._jobs and self._end(self._jobs[handle]))

    def _end(self, job: _Job) -> None:
        job.is_unwanted = True
        life = job.life
        if life is not None and job.id in life.begun:  # else whoever is handing it over will see it
            self._spawn(self._ended(life, job))

    async def _ended(self, life: _Life, job: _Job) -> None:
        try:
            await asyncio.wait_for(life.link.end(life.name, job.id), self._silence_s)
        except Exception:  # a replica that is not there draws nothing either
            return

    async def _score(self, ids: Sequence[int], top_logprobs: int) -> Any:
        tried: list[_Life] = []
        while True:
            alive = [life for life in self._lives.values() if life not in tried]
            if not alive or len(tried) == _MOST_RUNS:
                raise _lost() if tried else _none()
            life = min(alive, key=lambda life: life.load)
            tried.append(life)
            life.scoring += 1
            try:
                found = pickle.loads(await self._answer(life, life.link.score(life.name, ids, top_logprobs)))
            except _Lost:
                continue
            finally:
                life.scoring -= 1
            if isinstance(found, Gone):
                continue
            if isinstance(found, Exception):
                raise found
            return found


@contextmanager
def _given_up(life: _Life, job: _Job) -> Iterator[None]:
    """A replica that has not taken a job does not have it."""
    try:
        yield
    except BaseException:
        life.jobs.pop(job.id, None)
        raise


def _none() -> CompletionError:
    return CompletionError("no replica is up; they are started again", kind="no_replica")


def _lost() -> CompletionError:
    return CompletionError("the replica that was answering died, and no other could go on", kind="replica_lost")


def _sum(stats: Sequence[EngineStats]) -> EngineStats | None:
    if not stats:
        return None
    first = stats[0]
    return replace(first, **{each.name: sum(getattr(one, each.name) for one in stats) for each in fields(first)})
