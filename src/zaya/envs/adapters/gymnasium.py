"""For Gymnasium: an environment whose observation is the question, and whose one action is the answer.

    env = gymnasium_env("rlve/Sorting", pool, in_thinking=False)
    question, info = env.reset(seed=1, options={"difficulty": 2})
    question, reward, terminated, truncated, info = env.step("\\boxed{1 2 3}")

An episode that was judged is terminated. One whose scorer failed is truncated, with reward 0 and status `infra`: no
verdict, which a trainer should leave out. What scoring needs is not among what is shown.
"""

from __future__ import annotations

import string
from typing import Any

from zaya.envs.adapters.episode import Episodes
from zaya.envs.adapters.library import library
from zaya.envs.base import Problem, Status, Stream
from zaya.envs.pool import TaskPool

MAX_CHARS = 1 << 24
"""Longest text of the two spaces."""


def gymnasium_env(
    env: str, pool: TaskPool, *, in_thinking: bool, stream: Stream | None = None, difficulty: int | None = None
) -> Any:
    """A `gymnasium.Env` of one of our environments. `in_thinking`, `stream` and `difficulty` as for `Episodes`.

    Raises UsageError where gymnasium is not installed, or there is no such environment.
    """
    gymnasium = library("gymnasium", "gymnasium")
    episodes = Episodes(env, pool, in_thinking=in_thinking, stream=stream, difficulty=difficulty)

    class AnyText(gymnasium.spaces.Text):
        """Every string. Its samples are of printable ASCII."""

        def contains(self, x: object) -> bool:
            return isinstance(x, str) and len(x) <= self.max_length

    class OneStep(gymnasium.Env):
        """One problem, one answer."""

        metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # theirs

        def __init__(self) -> None:
            self.observation_space = AnyText(MAX_CHARS, min_length=0, charset=string.printable)
            self.action_space = AnyText(MAX_CHARS, min_length=0, charset=string.printable)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[str, dict[str, Any]]:
            super().reset(seed=seed)
            problem = episodes.reset(seed, (options or {}).get("difficulty"))
            return problem.prompt, _info(problem)

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            score = episodes.step(action)
            assert episodes.problem is not None
            failed = score.status is Status.INFRA
            info = _info(episodes.problem) | {"status": score.status.value, "correct": score.correct}
            return episodes.problem.prompt, score.reward, not failed, failed, info

    return OneStep()


def _info(problem: Problem) -> dict[str, Any]:
    return {"env": problem.env, "version": problem.version, "difficulty": problem.difficulty, "seed": problem.seed}
