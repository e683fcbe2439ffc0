"""Several replicas as one `Completer`: what works over an engine works over them.

    submit ─► choose a replica (`serve.routing`) ─► begin there ─► its stream: deltas, completions ─► the handle
                                   ▲                                      │ breaks off, or is silent for too long
                                   └──────── once more, elsewhere ◄───────┘

1. Who is alive is for `serve.lives` to say; a replica that dies loses all that it had under way.
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
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Any

from zaya.engine.handle import Bell, RequestHandle
from zaya.engine.types import Completion, EngineStats, OnProgress, Request, Scores
from zaya.errors import CompletionError
from zaya.serve.lives import SILENCE_S, Life, Link, Lives, Lost
from zaya.serve.log import Write, write_nothing
from zaya.serve.replay import Differs, Track
from zaya.serve.replica import Ended, Event, Failed, Gone, Told
from zaya.serve.routing import Known, blocks, choose

_MOST_RUNS = 2
"""Of a request. One that has taken two replicas with it is not given a third."""


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
    life: Life | None = None
    """Where it is now, or was lost."""
    is_begun: bool = False
    """The replica has taken it."""
    runs: int = 0
    is_unwanted: bool = False


class ReplicaCompleter:
    """Several replicas (`zaya.engine.types.Completer`)."""

    def __init__(self, links: Sequence[Link], *, silence_s: float = SILENCE_S, write: Write = write_nothing) -> None:
        """`write` gets a record when a replica is ready or lost."""
        self._silence_s = silence_s
        self._lives = Lives(links, silence_s=silence_s, write=write, on_event=self._take, on_loss=self._lose)
        self._known = Known()
        self._turns: dict[int, int] = {}
        self._counter = count()
        self._jobs: dict[int, _Job] = {}
        """By id."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._bell = Bell(self._loop)
        self._thread = threading.Thread(target=self._loop.run_forever, name="zaya-replicas", daemon=True)
        self._thread.start()
        for replica in range(len(links)):
            self._loop.call_soon_threadsafe(self._spawn, self._lives.keep(replica))

    # ----- asking

    @property
    def context(self) -> int | None:
        """Tokens that prompt and completion may have together, in any replica."""
        return self._lives.context

    @property
    def alive(self) -> int:
        return len(self._lives.alive)

    @property
    def is_ready(self) -> bool:
        """Whether a request would be taken now."""
        return self.alive > 0

    @property
    def refused(self) -> Exception | None:
        """Why no request will ever be taken again."""
        return self._lives.refused

    @property
    def stats(self) -> EngineStats | None:
        """Of all replicas together; what dead ones have done stays."""
        return self._lives.stats

    def wait(self) -> None:
        """Until all replicas are there. Raises what keeps one from ever being there."""
        self._lives.wait()

    def submit(self, request: Request) -> RequestHandle:
        """Start on a request, and wait until a replica has taken it. May be called from any thread. Raises UsageError
        for one that cannot be answered, CompletionError where there is no replica."""
        return self.start(request).result()

    def start(self, request: Request) -> Future[RequestHandle]:
        """What `submit` does, for whoever has other things to do meanwhile."""
        id = next(self._counter)
        handle = RequestHandle(request.n, lambda _: self._cancel(id), wants_deltas=True, bell=self._bell)
        keys = blocks(request.prompt_ids or (), request.cache_salt)
        job = _Job(id, request, handle, keys, [Track() for _ in range(request.n)])
        return asyncio.run_coroutine_threadsafe(self._begin(job), self._loop)

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
        self._lives.is_closed = True
        for job in [*self._jobs.values()]:
            self._fail(job, CompletionError("the server was closed", kind="replica_lost"))
        tasks = asyncio.all_tasks() - {asyncio.current_task()}  # those that other threads wait for as well
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ----- requests

    async def _begin(self, job: _Job) -> RequestHandle:
        """Have a replica take it. Raises what keeps it from that."""
        self._jobs[job.id] = job
        try:
            await self._run(job)
        except BaseException:
            self._jobs.pop(job.id, None)
            raise
        return job.handle

    def _lose(self, life: Life) -> int:
        """A replica has died."""
        self._known.forget(life.replica)
        lost = [job for job in self._jobs.values() if job.life is life]
        for job in lost:
            if job.is_begun:  # else whoever is handing it over will see it
                job.is_begun = False
                self._spawn(self._go_on(job))
        return len(lost)

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
            life.load += job.request.n
            try:
                error = await life.answer(life.link.begin(life.name, job.id, job.request))
                if isinstance(error, Gone):
                    raise Lost
                if error is not None:
                    raise error
            except Lost:
                if job.handle.is_done:  # it was over before it was said to have begun
                    return
                life.load -= job.request.n
                if job.runs == _MOST_RUNS:
                    raise _lost() from None
                continue
            except BaseException:
                life.load -= job.request.n
                raise
            job.is_begun = job.id in self._jobs
            return

    def _chosen(self, job: _Job) -> Life:
        """Raises CompletionError where there is none."""
        loads = {life.replica: life.load for life in self._lives.alive if life is not job.life}
        if not loads:
            raise _none() if job.runs == 0 else _lost()
        return self._lives[choose(job.keys, loads, self._known, self._turns)]

    def _take(self, life: Life, event: Event) -> None:
        """Something has happened in a replica."""
        assert isinstance(event, Told | Ended | Failed)
        job = self._jobs.get(event.id)
        if job is None or job.life is not life:
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
        if self._jobs.pop(job.id, None) is not None and job.life is not None:
            job.life.load -= job.request.n

    def _cancel(self, id: int) -> None:
        self._loop.call_soon_threadsafe(lambda: id in self._jobs and self._end(self._jobs[id]))

    def _end(self, job: _Job) -> None:
        job.is_unwanted = True
        if job.life is not None and job.is_begun:  # else whoever is handing it over will see it
            self._spawn(self._ended(job.life, job))

    async def _ended(self, life: Life, job: _Job) -> None:
        try:
            await asyncio.wait_for(life.link.end(life.name, job.id), self._silence_s)
        except Exception:  # a replica that is not there draws nothing either
            return

    async def _score(self, ids: Sequence[int], top_logprobs: int) -> Any:
        tried: list[Life] = []
        while True:
            alive = [life for life in self._lives.alive if life not in tried]
            if not alive or len(tried) == _MOST_RUNS:
                raise _lost() if tried else _none()
            life = min(alive, key=lambda life: life.load)
            tried.append(life)
            life.load += 1
            try:
                found = await life.answer(life.link.score(life.name, ids, top_logprobs))
            except Lost:
                continue
            finally:
                life.load -= 1
            if isinstance(found, Gone):
                continue
            if isinstance(found, Exception):
                raise found
            return found


def _none() -> CompletionError:
    return CompletionError("no replica is up; they are started again", kind="no_replica")


def _lost() -> CompletionError:
    return CompletionError("the replica that was answering died, and no other could go on", kind="replica_lost")
