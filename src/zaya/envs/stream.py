"""Problems one after another, from one side of the split.

Item i of a stream is made from a seed that names everything: environment, version, stream, difficulty, i. Two names
give two streams, and neighbouring numbers nothing in common. Which side of the split an item is on is decided by its
content, so that an item met under two seeds, or in two streams, is on one side. Source: spec post-training 8.1.
"""

from __future__ import annotations

from zaya.core.rng import derive_seed
from zaya.envs import registry
from zaya.envs.base import Problem, Stream
from zaya.envs.pool import TaskPool
from zaya.errors import DataError

_BATCH = 256
_FIRST_BATCH = 50
"""Items tried before we look whether there are problems at all: each may take the whole time limit."""


def is_held_out(problem: Problem, fraction: float) -> bool:
    """Whether the content of a problem falls into the held-out part of all contents."""
    return int(problem.digest[:16], 16) < fraction * 2**64


def item_seed(env_name: str, version: int, stream_name: str, difficulty: int, index: int) -> int:
    """What item `index` of a stream is made from."""
    return derive_seed("envs", env_name, version, stream_name, difficulty, index)


def take(
    pool: TaskPool, env_name: str, difficulty: int, stream: Stream, first: int, count: int
) -> tuple[list[Problem], int]:
    """The next `count` problems of a stream from item `first` on, no two alike, and the item to go on at.

    Raises DataError where the stream does not have that many, which small tasks do not.
    """
    version = registry.get(env_name).version
    share = stream.held_out if stream.split == "held_out" else 1 - stream.held_out
    limit = 1000 + int(5 * count / share)
    found: dict[str, Problem] = {}
    index, num_made = first, 0
    while len(found) < count:
        tried = index - first
        if tried >= limit or (tried >= _FIRST_BATCH and num_made == 0):
            failure = f"; the last failure: {pool.last_failure}" if num_made < tried and pool.last_failure else ""
            raise DataError(
                f"{env_name} at difficulty {difficulty} has too few {stream.split} problems: {len(found)} found, "
                f"{count} wanted, {tried} items tried, {num_made} of them made{failure}",
                hint="ask for fewer, or for another difficulty",
            )
        expected = int((count - len(found)) / share) + 1
        batch = range(index, index + min(expected, _BATCH if num_made else _FIRST_BATCH - tried))
        seeds = [item_seed(env_name, version, stream.name, difficulty, i) for i in batch]
        for problem in pool.sample([(env_name, seed, difficulty) for seed in seeds]):
            index += 1
            num_made += problem is not None
            if problem is not None and is_held_out(problem, stream.held_out) == (stream.split == "held_out"):
                found.setdefault(problem.digest, problem)
                if len(found) == count:
                    break
    return list(found.values()), index
