"""A problem as an episode of one step: what the adapters for Gymnasium and OpenEnv have in common."""

from __future__ import annotations

import secrets

from zaya.envs import registry
from zaya.envs.adapters.visible import visible
from zaya.envs.base import Problem, Score, Stream
from zaya.envs.pool import TaskPool
from zaya.envs.stream import take
from zaya.errors import UsageError


class Episodes:
    """Problems of one environment, each of which can be answered once."""

    def __init__(
        self,
        env: str,
        pool: TaskPool,
        *,
        in_thinking: bool,
        stream: Stream | None = None,
        difficulty: int | None = None,
    ) -> None:
        """`stream` names the seeds and the side of the split; `difficulty` is the lowest if none is given.
        `in_thinking` as for `visible`."""
        about = registry.get(env).about
        self.env = env
        self.pool = pool
        self.in_thinking = in_thinking
        self.stream = stream or Stream("episodes")
        self.difficulty = about.lowest if difficulty is None else difficulty
        self.problem: Problem | None = None
        self.is_open = False
        """Whether the problem still waits for its answer."""
        self._seed: int | None = None
        self._next: dict[int, int] = {}
        """Item at which each level goes on, in the stream of the seed."""

    def reset(self, seed: int | None = None, difficulty: int | None = None) -> Problem:
        """Another problem. A seed begins a stream, so that it always gives the same problem first; none goes on in the
        stream of the last one. Raises DataError where a level has too few problems."""
        if seed is not None or self._seed is None:
            self._seed = secrets.randbits(63) if seed is None else seed
            self._next = {}
        level = self.difficulty if difficulty is None else difficulty
        stream = Stream(f"{self.stream.name} {self._seed}", self.stream.split, self.stream.held_out)
        (self.problem,), self._next[level] = take(self.pool, self.env, level, stream, self._next.get(level, 0), 1)
        self.is_open = True
        return self.problem

    def step(self, completion: str) -> Score:
        """What a completion earns. A problem is answered once: who could try again could try everything."""
        if not self.is_open or self.problem is None:
            raise UsageError("the episode is over: it has one step", hint="reset begins another")
        self.is_open = False
        text = visible(completion, in_thinking=self.in_thinking)
        return self.pool.score([(self.problem, text)])[0]
