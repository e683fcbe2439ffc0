"""For verifiers (its v1 interface): a taskset whose tasks are our problems and whose reward is our score.

A taskset is chosen by the name of a module. That module is yours, two lines:

    from zaya.envs.adapters.verifiers import ZayaTaskset
    __all__ = ["ZayaTaskset"]

and its settings are those of `config` below. The taskset has no end. A scorer that failed raises, which verifiers keeps
as an error of its trace, and not as a wrong answer.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

from zaya.envs import registry
from zaya.envs.adapters.library import library
from zaya.envs.adapters.visible import visible
from zaya.envs.base import Problem, Status, Stream
from zaya.envs.mixture import Mixture, TaskConfig
from zaya.envs.pool import TaskPool

_AT_ONCE = 64
"""Problems made at a time."""


def __getattr__(name: str) -> Any:
    if name == "ZayaTaskset":
        return _taskset()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _pool(workers: int) -> TaskPool:
    """One for the process: its workers end with it."""
    return TaskPool(workers)


@cache
def _taskset() -> type:
    vf = library("verifiers.v1", "verifiers")

    class ZayaTaskConfig(vf.TaskConfig):
        in_thinking: bool = False
        """The prompt ends inside `<think>`, and the server gives reasoning and answer in one text."""
        workers: int = 1
        """Processes that make and score problems."""

    class ZayaTasksetConfig(vf.TasksetConfig):
        task: ZayaTaskConfig = ZayaTaskConfig()
        envs: tuple[str, ...] = ("arithmetic",)
        """Names of our environments, each as often as the others."""
        difficulties: tuple[int, ...] = (0,)
        """Levels, each as often as the others."""
        split: Literal["train", "held_out"] = "train"
        """Which side of the split."""
        held_out: float = 0.1
        """Part of all items that is held out."""
        seed: int = 0
        """Another seed, other problems."""

    class ZayaData(vf.TaskData):
        problem: str
        """As JSON, with what scoring needs."""

    class ZayaTask(vf.Task[ZayaData, vf.State, ZayaTaskConfig]):
        @vf.reward
        async def verified(self, trace: Any) -> float:
            replies = [message.model_dump() for message in trace.assistant_messages[-1:]]
            score = await self._score(visible(replies, in_thinking=self.config.in_thinking))
            return score.reward

        async def validate(self, runtime: Any) -> bool | None:
            problem = Problem.from_json(self.data.problem)
            environment = registry.get(problem.env)
            reference = environment.reference(problem)
            if reference is None:
                return None
            score = await self._score(environment.about.framed(reference))
            return score.correct

        async def _score(self, text: str) -> Any:
            problem = Problem.from_json(self.data.problem)
            (score,) = await asyncio.to_thread(_pool(self.config.workers).score, [(problem, text)])
            if score.status is Status.INFRA:
                raise vf.TaskError(f"the scorer of {problem.env} failed: {score.detail}")
            return score

    class ZayaTaskset(vf.Taskset[ZayaTask, ZayaTasksetConfig]):
        """Problems of our environments."""

        INFINITE = True

        def load(self) -> Iterator[ZayaTask]:
            config = self.config
            stream = Stream(f"verifiers {config.seed}", config.split, config.held_out)
            tasks = {name: TaskConfig(env=name, difficulties=tuple(config.difficulties)) for name in config.envs}
            mixture = Mixture(tasks, stream, _pool(config.task.workers), config.seed)
            for problem in itertools.chain.from_iterable(mixture.next(_AT_ONCE) for _ in itertools.count()):
                data = ZayaData(
                    name=f"{problem.env} at {problem.difficulty}", prompt=problem.prompt, problem=problem.to_json()
                )
                yield ZayaTask(data, config.task)

    return ZayaTaskset
