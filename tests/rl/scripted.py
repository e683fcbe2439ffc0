"""A policy that follows a script, sums in this process and a recipe, for the tests of what surrounds the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from zaya.config import from_mapping
from zaya.engine.scripted import Prompt as Asked
from zaya.engine.scripted import ScriptedCompleter
from zaya.engine.types import Completion, OnProgress, Request
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Problem, Score, Status
from zaya.envs.pool import TaskPool
from zaya.rl.recipe import RlConfig
from zaya.text import byte_tokenizer

TOKENIZER = byte_tokenizer()


class Pool(TaskPool):
    """The task in this process. An answer that says so breaks the scorer."""

    def __init__(self) -> None:
        super().__init__()

    def sample(self, items: Sequence[tuple[str, int, int]]) -> list[Problem | None]:
        return [ARITHMETIC.sample(seed, difficulty) for _, seed, difficulty in items]

    def score(self, items: Sequence[tuple[Problem, str]]) -> list[Score]:
        failed = Score(0.0, False, Status.INFRA)
        return [failed if "break" in text else ARITHMETIC.score(problem, text) for problem, text in items]


class Policy(ScriptedCompleter):
    """Says what a script says, with what an engine knows of it."""

    def __init__(self, script: Callable[[Asked, int, int], str]) -> None:
        super().__init__(TOKENIZER, script)
        self.answers: list[list[Completion]] = []
        self.model = SimpleNamespace(config=SimpleNamespace(vocab_size=268))

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        answers = super().complete(requests, on_progress=on_progress)
        self.answers += [[self._known(completion) for completion in group] for group in answers]
        return self.answers[-len(requests) :]

    def _known(self, completion: Completion) -> Completion:
        size = len(completion.ids)
        return replace(
            completion,
            behavior_logprobs=-np.arange(1, size + 1, dtype=np.float32),
            weight_versions=(3,) * size,
            routes=np.zeros((len(completion.prompt_ids) + size - 1, 2, 1), np.uint8),
        )


def config(**changes: Any) -> RlConfig:
    tree: dict[str, Any] = {
        "init": "nowhere",
        "run": {"steps": 9, "seed": 1},
        "tasks": {"sums": {"env": "arithmetic", "difficulties": [0, 3]}},
        "sampling": {"prompts": 4, "group_size": 4, "max_tokens": 80, "max_rounds": 1},
        "aggregation": {"share": 0.5, "fan_in": 2, "tail_tokens": 12},
    }
    for key, value in changes.items():
        tree[key] = tree.get(key, {}) | value
    return from_mapping(RlConfig, tree)


def question(prompt: Asked) -> Problem:
    """The problem in a prompt, with its answer."""
    assert not isinstance(prompt, str)
    text = prompt[-1]["content"]
    sum_of = next(line for line in text.split("\n") if line.startswith("What is "))
    terms = sum_of.removeprefix("What is ").removesuffix("?").replace(" - ", " -").replace(" + ", " ").split()
    return Problem("arithmetic", sum_of, {"answer": sum(map(int, terms))}, 0, 0)


def says(answer: object, reasoning: str = "hm") -> str:
    return f"{reasoning}\n</think>\n\n\\boxed{{{answer}}}"


def first_is_right(prompt: Asked, seed: int, index: int) -> str:
    return says(question(prompt).meta["answer"] + index, f"thought {index} of {seed % 1000}")
