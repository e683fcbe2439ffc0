"""Mixtures of tasks.

1. Places go to tasks by weight, to the levels of a task evenly; problems of a level come in the order of its stream,
   none twice in one call.
2. A mixture that goes on from its state, written down as JSON in between, gives what an unbroken one gives.
3. Both sides of the split have nothing in common; two names, and two seeds, give two sequences.
4. What cannot be mixed is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from zaya.envs.base import Problem, Stream
from zaya.envs.mixture import Mixture, TaskConfig
from zaya.envs.pool import TaskPool
from zaya.envs.stream import take
from zaya.errors import ConfigError, DataError, UsageError

TASKS = {
    "easy": TaskConfig(env="arithmetic", difficulties=(0,), weight=3.0),
    "hard": TaskConfig(env="arithmetic", difficulties=(2, 5)),
}
TRAIN = Stream("practice", "train", 0.5)


@pytest.fixture(scope="module")
def pool() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=60) as pool:
        yield pool


def mixture(pool: TaskPool, stream: Stream = TRAIN, seed: int = 7, tasks: Any = None) -> Mixture:
    return Mixture(TASKS if tasks is None else tasks, stream, pool, seed)


def prompts(problems: list[Problem]) -> list[str]:
    return [problem.prompt for problem in problems]


def test_shares(pool: TaskPool) -> None:
    problems = mixture(pool).next(1200)
    levels = Counter(problem.difficulty for problem in problems)
    # four standard deviations of 3/4 and of 1/8 are 0.05 and 0.04
    assert levels[0] / 1200 == pytest.approx(3 / 4, abs=0.05)
    assert levels[2] / 1200 == pytest.approx(1 / 8, abs=0.04)
    assert levels[5] / 1200 == pytest.approx(1 / 8, abs=0.04)
    assert len(set(prompts(problems))) == 1200


def test_two_entries_of_one_level_share_its_problems(pool: TaskPool) -> None:
    one = TaskConfig(env="arithmetic", difficulties=(4,))
    twice = mixture(pool, tasks={"a": one, "b": one})
    assert prompts(twice.next(30)) == prompts(mixture(pool, tasks={"a": one}).next(30))


def test_problems_of_a_level_come_in_the_order_of_its_stream(pool: TaskPool) -> None:
    tasks = {"a": TaskConfig(env="arithmetic", difficulties=(5,))}
    one, other = mixture(pool, tasks=tasks), mixture(pool, tasks=tasks)
    problems = one.next(20)
    assert problems == take(pool, "arithmetic", 5, TRAIN, 0, 20)[0]
    assert problems == [*other.next(7), *other.next(13)]


def test_it_goes_on_where_it_stopped(pool: TaskPool) -> None:
    unbroken = mixture(pool)
    whole = [unbroken.next(count) for count in (5, 1, 30, 12)]
    first = mixture(pool)
    assert [first.next(5), first.next(1)] == whole[:2]
    second = mixture(pool)
    second.load_state(json.loads(json.dumps(first.state())))
    first.next(100)  # what was taken over is a copy
    assert [second.next(30), second.next(12)] == whole[2:]
    assert second.state() == unbroken.state()
    assert second.count == 48
    assert second.next(0) == []


def test_sides_and_names(pool: TaskPool) -> None:
    streams = [TRAIN, Stream("other", "train", 0.5), Stream("practice", "held_out", 0.5)]
    train, other, kept = (prompts(mixture(pool, stream).next(500)) for stream in streams)
    assert not (set(train) | set(other)) & set(kept)
    assert train != other
    assert train != prompts(mixture(pool, seed=8).next(500))
    assert train == prompts(mixture(pool).next(500))


def test_what_cannot_be_mixed(pool: TaskPool) -> None:
    with pytest.raises(ConfigError, match="tasks is empty"):
        mixture(pool, tasks={})
    with pytest.raises(ConfigError, match=r"sums: difficulties must be levels from 0 on: \[0, -1\]"):
        TaskConfig(env="sums", difficulties=(0, -1))
    with pytest.raises(ConfigError, match="sums: difficulties"):
        TaskConfig(env="sums", difficulties=())
    with pytest.raises(ConfigError, match="sums: weight must be positive: 0"):
        TaskConfig(env="sums", weight=0)
    with pytest.raises(UsageError, match="there is no environment 'arithmetics'"):
        mixture(pool, tasks={"a": TaskConfig(env="arithmetics")}).next(1)
    with pytest.raises(DataError, match="too few train problems"):
        mixture(pool, tasks={"a": TaskConfig(env="tests.envs.tasks:SCRIPTED")}).next(60)
