"""The datasets of reasoning-gym.

1. Every dataset of the package is offered or left out with a reason.
2. A level more raises one setting, in turn, and the package takes the settings of every level.
3. The reference earns 1; nothing, garbage, another problem's answer and a right answer with more beside it earn 0.
4. A problem is a function of seed and level, in every process; a dataset that is kept gives what a new one gives.
5. Outside of a worker nothing is made, and nothing of the package is imported; scoring imports it for one judge only.
6. Every environment passes the audit that a run asks for.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import zaya.envs
from zaya.envs import reasoning_gym, registry
from zaya.envs.answers import INSTRUCTION
from zaya.envs.audit import AuditConfig, audit
from zaya.envs.base import Problem, Status
from zaya.envs.judges import JUDGES
from zaya.envs.pool import TaskPool
from zaya.envs.reasoning_gym_tasks import LEFT_OUT, TASKS, each, offered, spans
from zaya.errors import UsageError

PINNED = ("chain_sum", "graph_color", "rush_hour", "rotate_matrix", "word_ladder", "polynomial_multiplication")
needs_gym = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs the extra envs")


@pytest.fixture(scope="module")
def pool() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=60, score_timeout_s=60) as pool:
        yield pool


@pytest.fixture(scope="module")
def other() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=60, score_timeout_s=60) as pool:
        yield pool


def sampled(pool: TaskPool, dataset: str, level: int, count: int = 4) -> list[Problem]:
    problems = pool.sample([(f"reasoning-gym/{dataset}", seed, level) for seed in range(count)])
    found = [problem for problem in problems if problem is not None]
    assert len(found) == count, f"{dataset} at {level}: {pool.last_failure}"
    return found


@needs_gym
def test_every_dataset_is_accounted_for() -> None:
    from reasoning_gym.factory import DATASETS

    assert set(TASKS) | set(LEFT_OUT) == set(DATASETS)
    assert set(TASKS).isdisjoint(LEFT_OUT)
    assert {dataset.task.judge for dataset in TASKS.values()} <= set(JUDGES)


def test_levels_raise_one_setting_in_turn() -> None:
    dataset = offered((spans("n", 2, (3, 4)), each("a b", 1, 2, 3)), {"c": 0}, category="x", judge="text")
    assert [dataset.settings(level) for level in range(dataset.task.highest + 1)] == [
        {"min_n": 2, "max_n": 2, "a": 1, "b": 1, "c": 0},
        {"min_n": 3, "max_n": 4, "a": 1, "b": 1, "c": 0},
        {"min_n": 3, "max_n": 4, "a": 2, "b": 2, "c": 0},
        {"min_n": 3, "max_n": 4, "a": 3, "b": 3, "c": 0},
    ]


@needs_gym
def test_the_package_takes_the_settings_of_every_level() -> None:
    from reasoning_gym.factory import DATASETS

    for name, dataset in TASKS.items():
        for level in range(dataset.task.highest + 1):
            config = DATASETS[name][1](**dataset.settings(level), seed=0, size=1)
            if hasattr(config, "validate"):
                config.validate()


@needs_gym
@pytest.mark.parametrize("dataset", PINNED)
def test_scores(pool: TaskPool, dataset: str) -> None:
    for level in (0, 3):
        problems = sampled(pool, dataset, level)
        references = [problem.meta["answer"] for problem in problems]
        assert all(problem.prompt.endswith(f"\n{INSTRUCTION}") for problem in problems)
        right = pool.score([(p, f"\\boxed{{0}} no: \\boxed{{{r}}}") for p, r in zip(problems, references, strict=True)])
        assert [(score.reward, score.correct, score.status) for score in right] == [(1, True, Status.OK)] * 4
        others = [references[(i + 1) % 4] for i in range(4)]
        for contents in (
            [""] * 4,
            ["garbage"] * 4,
            others,
            [f"{r} or 7" for r in references],
            ["".join(references)] * 4,
        ):
            scores = pool.score([(p, f"\\boxed{{{c}}}") for p, c in zip(problems, contents, strict=True)])
            assert [(score.reward, score.correct, score.status) for score in scores] == [(0, False, Status.OK)] * 4
        scores = pool.score(list(zip(problems, references, strict=True)))
        assert {(score.reward, score.status) for score in scores} == {(0, Status.BAD_FORMAT)}


@needs_gym
def test_words_of_a_ladder_are_of_the_list_of_the_package() -> None:
    ends = {"start_word": "COLD", "end_word": "WARM"}
    assert JUDGES["ladder"](ends, "COLD,CORD,CARD,WARD,WARM")
    for wrong in ("COLD,WARM", "COLD,CORD,CARD,WARD", "COLD,CXLD,CORD,CARD,WARD,WARM", "COLD CORD CARD WARD WARM"):
        assert not JUDGES["ladder"](ends, wrong)


@needs_gym
@pytest.mark.parametrize("dataset", PINNED)
def test_a_seed_is_a_problem_in_every_process(pool: TaskPool, other: TaskPool, dataset: str) -> None:
    items = [(f"reasoning-gym/{dataset}", seed, 2) for seed in range(6)]
    assert pool.sample(items) == other.sample(items[::-1])[::-1]


@needs_gym
@pytest.mark.slow
@pytest.mark.parametrize("dataset", sorted(TASKS))
def test_a_kept_dataset_gives_what_a_new_one_gives(dataset: str) -> None:
    for seed in (5, 3, 5):
        kept = reasoning_gym.draw(dataset, 1 if TASKS[dataset].task.highest else 0, seed)
        reasoning_gym._made.cache_clear()
        new = reasoning_gym.draw(dataset, 1 if TASKS[dataset].task.highest else 0, seed)
        assert (kept and (kept.question, kept.answer)) == (new and (new.question, new.answer))


def test_names_cost_nothing() -> None:
    script = (
        "import sys; from zaya.envs import registry, base;"
        "env = registry.get('reasoning-gym/chain_sum');"
        "problem = base.Problem(env.name, '', {'answer': '3'}, 0, 0);"
        "print(env.score(problem, '\\\\boxed{3}').reward);"
        "print([m for m in ('reasoning_gym', 'reasoning_core', 'numpy', 'sympy', 'torch') if m in sys.modules])"
    )
    source = str(Path(zaya.envs.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": source}, capture_output=True, text=True, check=True
    )
    assert run.stdout.split("\n") == ["1.0", "[]", ""]


def test_refusals_say_why() -> None:
    with pytest.raises(UsageError, match="our own code tasks"):
        registry.get("reasoning-gym/codeio")
    with pytest.raises(UsageError, match="no dataset 'chainsum'"):
        registry.get("reasoning-gym/chainsum")
    with pytest.raises(UsageError, match="in worker processes only"):
        registry.get("reasoning-gym/chain_sum").sample(0, 0)


@needs_gym
@pytest.mark.slow
@pytest.mark.parametrize("dataset", sorted(TASKS))
def test_audit(pool: TaskPool, other: TaskPool, dataset: str) -> None:
    found = audit(f"reasoning-gym/{dataset}", pool, other, AuditConfig())
    if TASKS[dataset].task.choices == 3:  # a third, and what 48 problems leave to chance
        found.failures = [why for why in found.failures if not why.startswith("constant")]
        assert max(level.constant for level in found.levels) < 0.6
    if dataset == "circuit_logic":  # random text of one letter may be the 0 or 1 that is right
        found.failures = [why for why in found.failures if not why.startswith("nothing: '\\\\boxed{")]
    assert found.failures == []
