"""For OpenEnv: an environment of one step, which its server offers to clients elsewhere.

    adapter = openenv("rlve/Sorting", pool, in_thinking=False)
    app = create_fastapi_app(adapter.environment, adapter.action, adapter.observation, max_concurrent_envs=64)

`environment()` makes one for each session; all score in the one pool. An episode whose scorer failed has no reward.
What scoring needs is never sent. `reset` belongs to the trainer: a policy that may reset to a seed may answer one
problem as often as it likes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zaya.envs import registry
from zaya.envs.adapters.episode import Episodes
from zaya.envs.adapters.library import library
from zaya.envs.base import Status, Stream
from zaya.envs.pool import TaskPool


@dataclass(frozen=True, slots=True)
class OpenEnv:
    """What OpenEnv's server wants."""

    environment: Callable[[], Any]
    """Makes an `Environment`."""
    action: type
    """`Action` with a `text`: the completion."""
    observation: type
    """`Observation` with `text`, the question, and after the step `status` and `correct`."""


def openenv(
    env: str, pool: TaskPool, *, in_thinking: bool, stream: Stream | None = None, difficulty: int | None = None
) -> OpenEnv:
    """One of our environments for OpenEnv. `in_thinking`, `stream` and `difficulty` as for `Episodes`; `reset` takes a
    `difficulty` too. Raises UsageError where openenv is not installed, or there is no such environment.
    """
    server = library("openenv.core.env_server", "openenv")
    registry.get(env)  # now, and not at the first client

    class Answer(server.Action):
        text: str

    class Question(server.Observation):
        text: str
        status: str | None = None
        correct: bool | None = None

    class OneStep(server.Environment):
        """One problem, one answer."""

        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            super().__init__()
            self._episodes = Episodes(env, pool, in_thinking=in_thinking, stream=stream, difficulty=difficulty)
            self._state = server.State()

        def reset(
            self,
            seed: int | None = None,
            episode_id: str | None = None,
            difficulty: int | None = None,
            **kwargs: Any,
        ) -> Question:
            problem = self._episodes.reset(seed, difficulty)
            self._state = server.State(
                episode_id=episode_id, env=problem.env, difficulty=problem.difficulty, seed=problem.seed
            )
            return Question(text=problem.prompt)

        def step(self, action: Answer, timeout_s: float | None = None, **kwargs: Any) -> Question:
            score = self._episodes.step(action.text)
            assert self._episodes.problem is not None
            self._state.step_count = 1
            return Question(
                text=self._episodes.problem.prompt,
                status=score.status.value,
                correct=score.correct,
                reward=None if score.status is Status.INFRA else score.reward,
                done=True,
            )

        @property
        def state(self) -> Any:
            return self._state

    return OpenEnv(OneStep, Answer, Question)
