"""The tasks of reasoning-core, where the package is installed.

1. Every task of the package is offered or left out with a reason, and what is left out is refused by name.
2. Outside of a worker nothing is made, and the package is not imported.
3. A seed gives one problem, also after others; its reference earns 1, and other problems' answers mostly nothing.
4. The audit finds what the catalogue says of every environment: only the two that have three answers do not pass, since
   one of these is right a little too often.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator

import pytest

from zaya.envs import registry
from zaya.envs.audit import audit
from zaya.envs.catalogue import catalogue
from zaya.envs.judges import JUDGES
from zaya.envs.pool import TaskPool
from zaya.envs.reasoning_core import LEFT_OUT, TASKS
from zaya.errors import UsageError

PINNED = ("planning", "graph_pathfinding", "string_transduction", "controlled_code_execution")
needs_core = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_core") is None, reason="needs the package reasoning-core"
)


@pytest.fixture(scope="module")
def pool() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=60, score_timeout_s=60) as pool:
        yield pool


@pytest.fixture(scope="module")
def other() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=60, score_timeout_s=60) as pool:
        yield pool


@needs_core
def test_every_task_is_accounted_for() -> None:
    package = importlib.import_module("reasoning_core")
    assert set(TASKS) | set(LEFT_OUT) == set(package.list_tasks())


def test_tables_agree() -> None:
    assert set(TASKS).isdisjoint(LEFT_OUT)
    assert {task.judge for task in TASKS.values()} <= set(JUDGES)


def test_refusals_say_why() -> None:
    with pytest.raises(UsageError, match="needs a download"):
        registry.get("reasoning-core/metamath_entailment")
    with pytest.raises(UsageError, match="no task 'plannning'"):
        registry.get("reasoning-core/plannning")
    with pytest.raises(UsageError, match="in worker processes only"):
        registry.get("reasoning-core/planning").sample(0, 0)


@needs_core
@pytest.mark.parametrize("task", PINNED)
def test_a_seed_is_a_problem_whose_reference_is_right(pool: TaskPool, other: TaskPool, task: str) -> None:
    items = [(f"reasoning-core/{task}", seed, level) for level in (0, 2) for seed in range(4)]
    problems = [problem for problem in pool.sample(items) if problem is not None]
    assert problems == other.sample(items[::-1])[::-1]
    references = [problem.meta["answer"] for problem in problems]
    right = pool.score([(p, f"\\boxed{{{r}}}") for p, r in zip(problems, references, strict=True)])
    assert [score.reward for score in right] == [1] * 8
    others = [references[(i + 1) % 8] for i in range(8)]
    for contents in (others, [""] * 8, [f"{r} or 7" for r in references], ["\n".join(references)] * 8):
        scores = pool.score([(p, f"\\boxed{{{c}}}") for p, c in zip(problems, contents, strict=True)])
        assert [score.reward for score in scores] == [0] * 8


@needs_core
@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(TASKS))
def test_audit(pool: TaskPool, other: TaskPool, task: str) -> None:
    found = audit(f"reasoning-core/{task}", pool, other)
    row = found.row()
    known = catalogue()[f"reasoning-core/{task}"]
    assert {key: row[key] for key in row if not key.endswith("_ms")} == {
        key: known[key] for key in known if not key.endswith("_ms")
    }
    assert row["passed"] == (TASKS[task].choices != 3)
    assert all(why.startswith("constant") for why in found.failures)
