"""A process that makes and scores problems for `envs.pool`, which may kill it at any moment.

Reads requests from its standard input and writes replies to its standard output, JSON lines, in order:

    ["sample", environment, seed, difficulty]    ->  ["done", problem or null]
    ["score", problem, text]                     ->  ["done", [reward, correct, status, answer, detail]]
    ["loose", problem, text]                     ->  ["done", whether it is right when read loosely]

    instead of "done":   ["failed", detail]              the environment raised, or gave back what it must not
                         ["memory"]                      it ran out of memory
                         ["unusable", message, hint]     there is no such environment here
    before it:           ["loaded", environment]         when it was not loaded yet: time runs from here

It ends when its input is closed, so it does not outlive its parent.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from zaya.envs import registry
from zaya.envs.base import Environment, LooselyRead, Problem, Score
from zaya.errors import UsageError, ZayaError

MEMORY_BYTES = 2 << 30
"""Address space an item may take, beyond what the process has once its environment is loaded."""
LARGEST_PROBLEM = 1 << 20
"""Characters of a problem as JSON."""
LONGEST_ANSWER = 10_000
"""Characters of what was read as the answer that come back with a score."""


def main() -> None:
    requests, replies = _take_pipes()
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read, args=(requests, lines), daemon=True).start()
    environments: dict[str, Environment] = {}
    while True:
        for reply in _answer(json.loads(lines.get()), environments):
            replies.write(json.dumps(reply).encode() + b"\n")
            replies.flush()


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the parent, moved to where no task can read or print into them."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return open(requests, "rb"), open(replies, "wb")


def _read(requests: BinaryIO, lines: SimpleQueue[bytes]) -> None:
    """In a thread of its own, so that the end of the parent is seen while an item runs."""
    try:
        for line in requests:
            lines.put(line)
    finally:
        os._exit(0)


def _answer(request: list[Any], environments: dict[str, Environment]) -> Any:
    kind, *arguments = request
    problem = None if kind == "sample" else Problem.from_json(arguments[0])
    name = arguments[0] if problem is None else problem.env
    if name not in environments:
        try:
            _limit_memory(None)
            environments[name] = registry.get(name)
            _limit_memory(MEMORY_BYTES)
        except ZayaError as error:
            yield ["unusable", error.message, error.hint]
            return
        except Exception as error:
            yield ["unusable", f"environment {name!r} cannot be loaded: {_said(error)}", None]
            return
        yield ["loaded", name]
    try:
        if problem is None:
            yield ["done", _sample(environments[name], *arguments[1:])]
        elif kind == "score":
            yield ["done", _score(environments[name], problem, arguments[1])]
        else:
            yield ["done", _is_loosely_right(environments[name], problem, arguments[1])]
    except MemoryError:
        yield ["memory"]
    except Exception as error:
        yield ["failed", _said(error)]


def _sample(environment: Environment, seed: int, difficulty: int) -> str | None:
    problem = environment.sample(seed, difficulty)
    if problem is None:
        return None
    text = problem.to_json()
    if len(text) > LARGEST_PROBLEM:
        raise ValueError(f"a problem of {len(text):,} characters; at most {LARGEST_PROBLEM:,} are sent")
    return text


def _score(environment: Environment, problem: Problem, text: str) -> list[Any]:
    _check_version(environment, problem)
    score = environment.score(problem, text)
    if not isinstance(score, Score) or not 0 <= score.reward <= 1:
        raise ValueError(f"not a score: {score!r}")
    answer = None if score.answer is None else score.answer[:LONGEST_ANSWER]
    return [score.reward, score.correct, score.status.value, answer, score.detail[:1000]]


def _is_loosely_right(environment: Environment, problem: Problem, text: str) -> bool:
    _check_version(environment, problem)
    assert isinstance(environment, LooselyRead)
    return bool(environment.is_loosely_right(problem, text))


def _check_version(environment: Environment, problem: Problem) -> None:
    if problem.version != environment.version:
        raise UsageError(f"{problem.env} made the problem as version {problem.version} and is {environment.version}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:1000]


def _limit_memory(more: int | None) -> None:
    """Let the process grow by that much from here; None lifts the limit. Nothing where the system does not know it."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = hard if more is None else pages * resource.getpagesize() + more
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(0)
