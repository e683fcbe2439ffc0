"""Worker processes that make and score problems, and that can be killed.

An item has a deadline. The worker that misses it is killed and replaced, and the items behind go to another: an answer
that takes for ever costs its own score and nobody else's. Items are sent ahead, so that a worker does not wait for us
between two of them. What the workers do is in `envs.worker`.

    a problem that takes too long or too much memory, or whose making failed    None
    an answer that takes too long or too much memory to judge                   ANSWER_LIMIT, which scores 0
    a scorer that raises; a worker that dies, twice in a row                    INFRA, which is no score

Not a sandbox: a worker has the rights of its user. Source: spec post-training 8.1.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NoReturn

from zaya.envs import registry
from zaya.envs.base import LooselyRead, Problem, Score, Status
from zaya.errors import UsageError

LOAD_TIMEOUT_S = 120.0
"""For a worker to start and to load an environment. Importing torch takes a while from a cold disk."""
_AHEAD = 32
"""Items a worker holds at most, the one in work included."""


@dataclass(slots=True, eq=False)
class _Item:
    index: int
    env: str
    line: bytes
    is_retry: bool = False


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of an item."""

    kind: Literal["done", "limit", "failed"]
    value: Any = None
    detail: str = ""
    failure: str = ""
    """What kind of failure it was: time, memory, raised or died."""


class _Worker:
    """One process, the items it holds, and the bytes on their way."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C is for the parent, which then ends the workers. -P with the parent's path: a
        # worker imports what the parent would, and no namesake from the working directory.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "zaya.envs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                "PYTHONHASHSEED": "0",  # a task that walks over a set makes the same problem everywhere
                "OMP_NUM_THREADS": "1",
            },
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self.stdin.fileno(), False)
        os.set_blocking(self.stdout.fileno(), False)
        self.held: deque[_Item] = deque()
        self.loaded: set[str] = set()
        self.deadline = 0.0
        self.unsent = bytearray()
        self._unread = b""

    def give(self, items: Iterable[_Item], timeout_s: float) -> None:
        was_idle = not self.held
        for item in items:
            self.held.append(item)
            self.unsent += item.line
        if was_idle:
            self.set_deadline(timeout_s)
        self.send()

    def set_deadline(self, timeout_s: float) -> None:
        """Start the clock of the item in front. It starts late rather than early: when we learn that the last ended."""
        if self.held:
            is_loaded = self.held[0].env in self.loaded
            self.deadline = time.monotonic() + (timeout_s if is_loaded else LOAD_TIMEOUT_S)

    def send(self) -> None:
        try:
            sent = os.write(self.stdin.fileno(), self.unsent) if self.unsent else 0
            del self.unsent[:sent]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self.unsent.clear()  # it is dead, which reading will show

    def receive(self) -> list[list[Any]] | None:
        """The replies that have come; None at the end of a worker that died."""
        data = os.read(self.stdout.fileno(), 1 << 16)
        if not data:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def kill(self) -> int:
        """End it, if it has not ended, and say how it ended. In a fork of the parent this does nothing to it."""
        self.process.kill()
        self.stdin.close()
        self.stdout.close()
        return self.process.wait()


class TaskPool:
    """Makes and scores problems in `workers` processes, which start when first needed. A context manager.

    Deadlines are wall-clock seconds for one item. One call runs at a time; others wait for it.
    """

    def __init__(self, workers: int = 1, *, sample_timeout_s: float = 10.0, score_timeout_s: float = 5.0) -> None:
        if workers < 1:
            raise UsageError(f"a pool needs at least 1 worker: {workers}")
        if sample_timeout_s <= 0 or score_timeout_s <= 0:
            raise UsageError(f"timeouts must be above 0: {sample_timeout_s}, {score_timeout_s}")
        self.workers = workers
        self.sample_timeout_s = sample_timeout_s
        self.score_timeout_s = score_timeout_s
        self.last_failure = ""
        """Why an item of the last call came to nothing, the last that did; for people."""
        self.failures: Counter[tuple[str, str]] = Counter()
        """How often items of an environment failed since the pool was made, by (environment, kind): `time` and `memory`
        for what was over its limits, `raised` for an exception, `died` for a process that ended."""
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _end, self._workers)  # also when Python ends

    def sample(self, items: Sequence[tuple[str, int, int]]) -> list[Problem | None]:
        """A problem for each (environment, seed, difficulty), in order; None where there is none.

        Raises UsageError for an environment that does not exist or cannot be loaded.
        """
        for _, _, difficulty in items:
            if difficulty < 0:
                raise UsageError(f"a difficulty must not be negative: {difficulty}")
        lines = [(env, _line("sample", env, seed, difficulty)) for env, seed, difficulty in items]
        outcomes = self._run(lines, self.sample_timeout_s)
        return [None if outcome.value is None else Problem.from_json(outcome.value) for outcome in outcomes]

    def score(self, items: Sequence[tuple[Problem, str]]) -> list[Score]:
        """A score for each visible answer to a problem, in order. Raises UsageError as `sample` does."""
        lines = [(problem.env, _line("score", problem.to_json(), text)) for problem, text in items]
        return [_score(outcome) for outcome in self._run(lines, self.score_timeout_s)]

    def loosely_right(self, items: Sequence[tuple[Problem, str]]) -> list[bool | None]:
        """Whether each visible answer is right when read loosely; None where the task has one reading only, and where
        its judge failed. For reports: an item of its own, so that no score depends on it. Raises UsageError as `sample`
        does."""
        read = {env: isinstance(registry.get(env), LooselyRead) for env in {problem.env for problem, _ in items}}
        places = [i for i, (problem, _) in enumerate(items) if read[problem.env]]
        lines = [(items[i][0].env, _line("loose", items[i][0].to_json(), items[i][1])) for i in places]
        found: list[bool | None] = [None] * len(items)
        for i, outcome in zip(places, self._run(lines, self.score_timeout_s), strict=True):
            found[i] = outcome.value if outcome.kind == "done" else False if outcome.kind == "limit" else None
        return found

    def close(self) -> None:
        """End the workers. The pool can still be used: they start again."""
        _end(self._workers)

    def __enter__(self) -> TaskPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, lines: Sequence[tuple[str, bytes]], timeout_s: float) -> list[_Outcome]:
        with self._lock:
            self.last_failure = ""
            outcomes: dict[int, _Outcome] = {}
            waiting = deque(_Item(index, env, line) for index, (env, line) in enumerate(lines))
            try:
                while len(outcomes) < len(lines):
                    self._deal(waiting, timeout_s)
                    ready = self._wait()
                    for worker in [*self._workers]:
                        self._attend(worker, worker in ready, waiting, outcomes, timeout_s)
            except BaseException:  # Ctrl-C too: workers in the middle of something are of no use to the next call
                self.close()
                raise
            return [outcomes[index] for index in range(len(lines))]

    def _deal(self, waiting: deque[_Item], timeout_s: float) -> None:
        """Give items to the workers, fewer to each as they run out: none is to sit behind a slow one at the end."""
        wanted = len(waiting) + sum(bool(worker.held) for worker in self._workers)
        while len(self._workers) < min(self.workers, wanted):
            self._workers.append(_Worker())
        share = min(_AHEAD, max(1, len(waiting) // (2 * self.workers)))
        for worker in self._workers:
            count = min(share - len(worker.held), len(waiting))
            if count > 0:
                worker.give([waiting.popleft() for _ in range(count)], timeout_s)

    def _wait(self) -> set[_Worker]:
        """Send what can be sent, until a worker has something to say or misses its deadline."""
        busy = [worker for worker in self._workers if worker.held]
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.stdout, selectors.EVENT_READ, worker)
                if worker.unsent:
                    selector.register(worker.stdin, selectors.EVENT_WRITE, worker)
            ready = selector.select(max(0.0, min(worker.deadline for worker in busy) - time.monotonic()))
        for key, events in ready:
            if events & selectors.EVENT_WRITE:
                key.data.send()
        return {key.data for key, events in ready if events & selectors.EVENT_READ}

    def _attend(
        self,
        worker: _Worker,
        is_ready: bool,
        waiting: deque[_Item],
        outcomes: dict[int, _Outcome],
        timeout_s: float,
    ) -> None:
        """Take what a worker has to say, or its silence."""

        def settle(outcome: _Outcome) -> None:
            item = worker.held.popleft()
            outcomes[item.index] = outcome
            if outcome.failure:
                self.last_failure = outcome.detail
                self.failures[item.env, outcome.failure] += 1

        def replace() -> int:
            self._workers.remove(worker)
            waiting.extendleft(reversed(worker.held))
            return worker.kill()

        if not is_ready:
            if worker.held and time.monotonic() >= worker.deadline:
                if worker.held[0].env not in worker.loaded:
                    _cannot_load(worker.held[0].env, f"it took more than {LOAD_TIMEOUT_S:g} s")
                settle(_Outcome("limit", None, f"took more than {timeout_s:g} s", "time"))
                replace()
            return
        replies = worker.receive()
        if replies is None:
            front, env_is_loaded = worker.held[0], worker.held[0].env in worker.loaded
            if front.is_retry:
                status = worker.kill()
                if not env_is_loaded:
                    _cannot_load(front.env, f"a worker ended with status {status}")
                settle(_Outcome("failed", None, f"the worker ended with status {status}", "died"))
            front.is_retry = True
            replace()
            return
        for kind, *values in replies:
            match kind:
                case "loaded":
                    worker.loaded.add(values[0])
                case "unusable":
                    raise UsageError(values[0], hint=values[1])
                case "memory":
                    settle(_Outcome("limit", None, "took more memory than allowed", "memory"))
                    replace()  # what ran out of memory may have been anything, half done
                    return
                case "failed":
                    settle(_Outcome("failed", None, values[0], "raised"))
                case _:
                    settle(_Outcome("done", values[0]))
        worker.set_deadline(timeout_s)


def is_worker() -> bool:
    """Whether this process is a worker of a pool."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == "zaya.envs.worker"


def _line(*request: Any) -> bytes:
    return json.dumps(request).encode() + b"\n"


def _score(outcome: _Outcome) -> Score:
    match outcome.kind:
        case "done":
            reward, correct, status, answer, detail = outcome.value
            return Score(reward, correct, Status(status), answer, detail)
        case "limit":
            return Score(0.0, False, Status.ANSWER_LIMIT, detail=outcome.detail)
        case "failed":
            return Score(0.0, False, Status.INFRA, detail=outcome.detail)


def _cannot_load(env: str, reason: str) -> NoReturn:
    raise UsageError(f"environment {env!r} could not be loaded: {reason}", hint="what it printed may say why")


def _end(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().kill()
