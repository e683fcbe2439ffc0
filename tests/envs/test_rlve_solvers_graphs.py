"""Solvers of tasks of RLVE-Gym that ship no answer, against the scorers of the package.

1. For every task and for difficulties 0 to 3, what the solver gives is right: no better answer is known to the package,
   and none worse passes for best.
2. A solver reads what the prompt states: without the best value that stands beside it, it answers the same.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from zaya.envs.base import Status
from zaya.envs.pool import TaskPool
from zaya.envs.rlve import _from_json
from zaya.envs.rlve_solvers.graphs import SOLVERS

pytestmark = pytest.mark.skipif(importlib.util.find_spec("Gym") is None, reason="needs the extra envs")

SEEDS = 6


@pytest.fixture(scope="module")
def pool() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=60, score_timeout_s=60) as pool:
        yield pool


@pytest.mark.parametrize("task", SOLVERS)
def test_earns_all(pool: TaskPool, task: str) -> None:
    items = [(f"rlve/{task}", seed, difficulty) for difficulty in range(4) for seed in range(SEEDS)]
    problems = [problem for problem in pool.sample(items) if problem is not None]
    assert len(problems) >= len(items) * 3 // 4
    answers = []
    for problem in problems:
        parameters = _from_json(problem.meta["config"]["parameter"])
        known = {key: value for key, value in parameters.items() if key != "gold_answer"}
        answer = SOLVERS[task](known)
        assert answer is not None
        answers.append(answer)
    scores = pool.score([(p, f"\\boxed{{{answer}}}") for p, answer in zip(problems, answers, strict=True)])
    assert [(s.reward, s.status) for s in scores] == [(1, Status.OK)] * len(problems)
