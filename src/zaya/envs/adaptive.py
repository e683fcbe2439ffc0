"""Problems of several environments at levels that follow the policy: a mixture as `envs.mixture`, led by a schedule.

Which environment and level comes next is for the schedule to say; which item of that level, for how often the level
came before. A problem that cannot be made, or does not fit, tells the schedule so, and another is drawn in its place.
What became of a problem comes back by `completed`, from every group. Source: spec post-training 8.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zaya.envs import registry
from zaya.envs.base import Problem, Stream
from zaya.envs.difficulty import Schedule
from zaya.envs.pool import TaskPool
from zaya.envs.stream import is_held_out, item_seed
from zaya.errors import DataError


class AdaptiveMixture:
    """Problems without end, as far as their environments have them. Its state is JSON, with that of the schedule."""

    def __init__(
        self, schedule: Schedule, stream: Stream, pool: TaskPool, fits: Callable[[Problem], bool] | None = None
    ) -> None:
        """`fits`: whether a problem is short enough for who reads it; all are, if none is given."""
        self.schedule = schedule
        self.stream = stream
        self.pool = pool
        self.fits = fits
        self.count = 0
        """Problems given so far."""
        self._next: dict[str, int] = {}
        """Item of each level of an environment at which its stream goes on."""

    def next(self, count: int) -> list[Problem]:
        """The next problems, no two alike. Raises DataError where there are too few."""
        share = self.stream.held_out if self.stream.split == "held_out" else 1 - self.stream.held_out
        left = 1000 + int(5 * count / share)
        found: dict[str, Problem] = {}
        while len(found) < count:
            if left <= 0:
                raise DataError(
                    f"there are too few {self.stream.split} problems: {len(found)} found, {count} wanted",
                    hint=f"ask for fewer, or add environments; {self.pool.last_failure or 'none failed to be made'}",
                )
            drawn = [self.schedule.next() for _ in range(min(left, count - len(found)))]
            left -= len(drawn)
            items = [(env, self._seed(env, difficulty), difficulty) for env, difficulty in drawn]
            for (env, difficulty), problem in zip(drawn, self.pool.sample(items), strict=True):
                if problem is None or (self.fits is not None and not self.fits(problem)):
                    self.schedule.failed(env, difficulty)
                    continue
                self.schedule.made(env, difficulty)
                if is_held_out(problem, self.stream.held_out) == (self.stream.split == "held_out"):
                    found.setdefault(problem.digest, problem)
        self.count += count
        return list(found.values())

    def completed(self, problem: Problem, *, right: int, rollouts: int) -> None:
        """Of a group's rollouts of this problem that could be judged, so many are right."""
        self.schedule.completed(problem.env, problem.difficulty, right=right, rollouts=rollouts)

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "next": dict(self._next), "schedule": self.schedule.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.count, self._next = state["count"], dict(state["next"])
        self.schedule.load_state(state["schedule"])

    def _seed(self, env: str, difficulty: int) -> int:
        name = f"{env} {difficulty}"
        index = self._next.get(name, 0)
        self._next[name] = index + 1
        return item_seed(env, registry.get(env).version, self.stream.name, difficulty, index)
