"""Problems of several tasks and levels, mixed by weight, one after another.

Which task and level a place gets is a function of the seed, the stream and the place; which item of it, of how often it
came before. So a mixture that stops goes on from a few counters. Used for training texts, practice and evaluation.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zaya.core.rng import derive_seed
from zaya.envs.base import Problem, Stream
from zaya.envs.pool import TaskPool
from zaya.envs.stream import take
from zaya.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """One environment and the levels its problems come from."""

    env: str
    """Name of the environment, such as `arithmetic` or `rlve/Sorting`."""
    difficulties: tuple[int, ...] = (0,)
    """Levels, each as often as the others."""
    weight: float = 1.0
    """Share of the problems, relative to the other tasks."""

    def __post_init__(self) -> None:
        if not self.difficulties or min(self.difficulties) < 0:
            raise ConfigError(f"{self.env}: difficulties must be levels from 0 on: {list(self.difficulties)}")
        if self.weight <= 0:
            raise ConfigError(f"{self.env}: weight must be positive: {self.weight}")


class Mixture:
    """Problems without end, as far as their tasks have them. Its state is JSON."""

    def __init__(self, tasks: Mapping[str, TaskConfig], stream: Stream, pool: TaskPool, seed: int) -> None:
        if not tasks:
            raise ConfigError("there are no problems: tasks is empty", hint="add a table [tasks.NAME]")
        self.tasks = list(tasks.values())
        self.stream = stream
        self.pool = pool
        self.seed = seed
        self.count = 0
        """Problems given so far."""
        self._next: dict[str, int] = {}
        """Item of each level of a task at which its stream goes on."""

    def next(self, count: int) -> list[Problem]:
        """The next problems. Raises DataError where a level has too few, UsageError for a task that does not exist."""
        levels = [self._level(place) for place in range(self.count, self.count + count)]
        self.count += count
        ready: dict[tuple[str, int], list[Problem]] = {}
        for level in dict.fromkeys(levels):
            name = f"{level[0]} {level[1]}"
            first = self._next.get(name, 0)
            found, self._next[name] = take(self.pool, *level, self.stream, first, levels.count(level))
            ready[level] = found[::-1]
        return [ready[level].pop() for level in levels]

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "next": dict(self._next)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.count, self._next = state["count"], dict(state["next"])

    def _level(self, place: int) -> tuple[str, int]:
        rng = random.Random(derive_seed(self.seed, "level", self.stream.name, place))
        task = rng.choices(self.tasks, [task.weight for task in self.tasks])[0]
        return task.env, rng.choice(task.difficulties)
