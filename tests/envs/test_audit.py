"""The audit against tasks that pay when they should not.

1. A sound task passes; each kind of unsound one fails, by the name of the check that it fails.
2. What is written down of it is JSON, and makes a page and a mix of those that passed.
3. The lowest level that can be trusted is found by what a guess earns.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zaya.envs.answers import NO_ANSWER, boxed
from zaya.envs.audit import Audit, AuditConfig, audit, lowest_trusted
from zaya.envs.base import About, Problem, Score, Status
from zaya.envs.catalogue import in_default_mix, reference_page, write_catalogue
from zaya.envs.pool import TaskPool

CONFIG = AuditConfig(items=24)


class Sum:
    """A sound task, and one that has one fault, by its name."""

    version = 1

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.name = f"tests.envs.test_audit:{fault.upper() or 'SOUND'}"
        self.about = About("sums", "Apache-2.0", choices=2 if fault in ("coin", "loaded") else None)

    def sample(self, seed: int, difficulty: int) -> Problem | None:
        rng = random.Random(f"{seed} {difficulty}")
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        match self.fault:
            case "rare" if seed % 3:
                return None
            case "drifting":
                a += random.randint(0, 5)
            case "wordy":
                return Problem(self.name, "and " * 3000 + f"{a} + {b}?", {"answer": a + b}, difficulty, seed)
            case "constant" if difficulty < 2 and rng.random() < 0.6:
                a, b = 1, 2
            case "coin" | "loaded":
                a, b = int(rng.random() < (0.5 if self.fault == "coin" else 0.9)), 0
        return Problem(self.name, f"{a} + {b}?", {"answer": a + b}, difficulty, seed)

    def score(self, problem: Problem, text: str) -> Score:
        answer, right = boxed(text), str(problem.meta["answer"])
        if self.fault == "unboxed":
            answer = text
            is_right = answer.endswith((right, right + "}"))
        elif answer is None:
            return NO_ANSWER
        else:
            is_right = answer == right
        match self.fault:
            case "empty":
                is_right = is_right or not answer
            case "substring":
                is_right = right in answer
            case "generous" if answer:
                return Score(1.0 if is_right else 0.05, is_right, answer=answer)
            case "fragile" if answer and not answer.isdigit() and len(answer) > 1000:
                raise ValueError("what is this?")
            case "strict":
                is_right = False
        return Score(float(is_right), is_right, answer=answer)

    def reference(self, problem: Problem) -> str | None:
        return None if self.fault == "unknown" else str(problem.meta["answer"])


SOUND = Sum()
RARE, DRIFTING, WORDY, CONSTANT, COIN, LOADED, UNBOXED, EMPTY, SUBSTRING, GENEROUS, FRAGILE, STRICT, UNKNOWN = map(
    Sum,
    (
        "rare", "drifting", "wordy", "constant", "coin", "loaded", "unboxed", "empty", "substring", "generous",
        "fragile",
        "strict", "unknown",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def pools() -> Iterator[tuple[TaskPool, TaskPool]]:
    with TaskPool() as pool, TaskPool() as other:
        yield pool, other


def look(fault: str, pools: tuple[TaskPool, TaskPool]) -> Audit:
    return audit(Sum(fault).name, *pools, CONFIG)


def test_a_sound_task_passes(pools: tuple[TaskPool, TaskPool]) -> None:
    found = look("", pools)
    assert found.failures == []
    assert [level.difficulty for level in found.levels] == [0, 3]
    assert all(level.oracle == 1 and level.made == 1 for level in found.levels)
    assert look("coin", pools).failures == []


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("rare", "makes"), ("drifting", "makes"), ("wordy", "size"), ("constant", "constant"), ("loaded", "constant"),
        ("unboxed", "nothing"), ("empty", "nothing"), ("substring", "contains"), ("generous", "nothing"),
        ("fragile", "hostile"), ("strict", "oracle"), ("unknown", "no reference"),
    ],
)  # fmt: skip
def test_a_fault_is_found(fault: str, check: str, pools: tuple[TaskPool, TaskPool]) -> None:
    found = look(fault, pools)
    assert any(failure.startswith(check) for failure in found.failures), found.failures


def test_what_is_written_down(pools: tuple[TaskPool, TaskPool], tmp_path: Path) -> None:
    rows = [look(fault, pools).row() for fault in ("substring", "", "coin")]
    write_catalogue(rows, tmp_path / "catalogue.json")
    read: list[dict[str, Any]] = json.loads((tmp_path / "catalogue.json").read_text())
    assert [row["env"] for row in read] == sorted(str(row["env"]) for row in rows)
    assert [in_default_mix(row) for row in read] == [True, True, False]
    page = reference_page(read)
    assert "2 of 3 environments pass every check" in page
    assert "| no: contains: " in page
    assert "yes, at half weight: two answers" in page


def test_the_lowest_level_to_trust(pools: tuple[TaskPool, TaskPool]) -> None:
    assert lowest_trusted(CONSTANT.name, pools[0], CONFIG) == 2
    assert lowest_trusted(SOUND.name, pools[0], CONFIG) == 0
    assert lowest_trusted(LOADED.name, pools[0], CONFIG, most=2) is None


def test_a_broken_scorer_is_told_from_a_wrong_answer() -> None:
    with TaskPool() as pool:
        problem = SOUND.sample(1, 0)
        assert problem is not None
        assert pool.score([(problem, "\\boxed{x}")])[0].status is Status.OK
