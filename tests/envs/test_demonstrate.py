"""Teachers, read by somebody who can count.

1. Without slips every step and every line is true, and the result is the reference, for every task and level.
2. A reasoning ends with what it came to, and the answer is that in a box.
3. With slips a step is false about as often as was asked, by a little, and what follows goes on from what was said.
4. The same seed slips in the same places, another in others; without slips the seed is nothing.
5. A task without a teacher is an error that names the nearest.
"""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from zaya.envs import registry
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Problem
from zaya.envs.demonstrate import TEACHERS, demonstrate
from zaya.envs.pool import TaskPool
from zaya.errors import UsageError

STEP = re.compile(r"(\d+) ([+x-]) (\d+)(?: ([+-]) (\d+))? = (\d+)")
LINE = re.compile(r"(\d+) ([+x-]) (\d+): (.*), (\d+)\.")
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "x": int.__mul__}


def made(task: str, **parameter: Any) -> Problem:
    """A problem as RLVE-Gym gives it, by hand."""
    return Problem(f"rlve/{task}", f"{task} {parameter}", {"config": {"parameter": parameter}}, 0, 0)


def problems() -> dict[str, list[tuple[Problem, str]]]:
    """Of each task a few hundred, with the result by other means."""
    rng = random.Random(0)
    arithmetic = [ARITHMETIC.sample(seed, difficulty) for difficulty in range(6) for seed in range(80)]
    pairs = [
        (rng.randrange(10**n), rng.randrange(10 ** rng.randrange(1, n + 1))) for n in range(1, 5) for _ in range(60)
    ]
    pairs += [(0, 0), (100, 10), (909, 90), (7, 1000)]
    arrays = [[rng.randrange(12) for _ in range(rng.randrange(1, 9))] for _ in range(200)]
    windows = [(numbers, rng.randint(1, len(numbers))) for numbers in arrays]
    return {
        "arithmetic": [(problem, str(sum(problem.meta["terms"]))) for problem in arithmetic],
        "rlve/Multiplication": [(made("Multiplication", a=a, b=b), str(a * b)) for a, b in pairs],
        "rlve/Sorting": [(made("Sorting", array=array), " ".join(map(str, sorted(array)))) for array in arrays],
        "rlve/SlidingWindow": [
            (
                made("SlidingWindow", A=numbers, K=size),
                " ".join(str(min(numbers[i : i + size])) for i in range(len(numbers) - size + 1)),
            )
            for numbers, size in windows
        ],
    }


PROBLEMS = problems()


def read_line(line: str) -> tuple[int, int]:
    """Follow the digits of one line from what it says, not from what is true; its steps, and how many are false."""
    found = LINE.fullmatch(line)
    assert found is not None, line
    a, sign, b, result = int(found[1]), found[2], int(found[3]), int(found[5])
    said, false, carried = [], 0, 0
    for place, step in enumerate(found[4].split(", ")):
        parts = STEP.fullmatch(step)
        assert parts is not None, step
        assert parts[2] == sign, step
        x, y, extra, value = int(parts[1]), int(parts[3]), int(parts[5] or 0), int(parts[6])
        assert y == (b if sign == "x" else b // 10**place % 10), step
        assert extra == carried, step
        assert parts[4] in (None, "-" if sign == "-" else "+"), step
        if sign == "-":
            lent = x - a // 10**place % 10
            assert lent in (0, 10), step
            carried = lent // 10
        else:
            assert x == a // 10**place % 10, step
            carried = value // 10
        true = OPERATIONS[sign](x, y) + (-extra if sign == "-" else extra)
        assert value == true or abs(value - true) in (1, 2, 10), step
        false += value != true
        said.append(value % 10)
    digits = sum(digit * 10**place for place, digit in enumerate(said))
    assert result == digits + (0 if sign == "-" else carried * 10 ** len(said)), line
    assert false or result == OPERATIONS[sign](a, b) or a < b, line
    return len(said), false


def read_lists(lines: list[str], *, shrinks: bool) -> tuple[int, int, list[int]]:
    """Lines `numbers: chosen`; how many there are, how many chose another than the least, and what was chosen."""
    rows = [([int(n) for n in head.split()], int(least)) for head, least in (line.split(": ") for line in lines)]
    for (numbers, least), (following, _) in pairwise(rows):
        if shrinks:
            numbers.remove(least)
            assert numbers == following
            numbers.append(least)
        else:
            assert numbers[1:] == following[:-1]
    assert all(least in numbers for numbers, least in rows)
    return len(rows), sum(least != min(numbers) for numbers, least in rows), [least for _, least in rows]


def read(problem: Problem, reasoning: str) -> tuple[int, int, str]:
    """Steps of a reasoning, false ones among them, and the result that follows from it."""
    *lines, _ = reasoning.split("\n")
    if problem.env in ("rlve/Sorting", "rlve/SlidingWindow"):
        steps, false, chosen = read_lists(lines, shrinks=problem.env == "rlve/Sorting")
        return steps, false, " ".join(map(str, chosen))
    counts = [read_line(line) for line in lines]
    if problem.env == "arithmetic":
        total, *terms = problem.meta["terms"]
        for line, term in zip(lines, terms, strict=True):
            assert line.startswith(f"{total} {'+' if term >= 0 else '-'} {abs(term)}: ")
            total = int(line.rstrip(".").split()[-1])
    else:
        parameter = problem.meta["config"]["parameter"]
        total, rest = None, iter(lines)
        for place, digit in enumerate(reversed(str(parameter["b"]))):
            line = next(rest)
            assert line.startswith(f"{parameter['a']} x {digit}: ")
            row = int(line.rstrip(".").split()[-1]) * 10**place
            if total is None:
                total = row
                continue
            line = next(rest)
            assert line.startswith(f"{total} + {row}: ")
            total = int(line.rstrip(".").split()[-1])
        assert next(rest, None) is None
    return sum(steps for steps, _ in counts), sum(false for _, false in counts), str(total)


@pytest.mark.parametrize("task", TEACHERS)
def test_without_slips_all_is_true(task: str) -> None:
    for problem, result in PROBLEMS[task]:
        shown = demonstrate(problem, seed=3)
        assert shown.result == result
        assert read(problem, shown.reasoning)[1:] == (0, result)
        assert shown.reasoning.splitlines()[-1] == f"So {result}."
        assert shown.answer == f"\\boxed{{{result}}}"
        assert shown == demonstrate(problem, slip=0.0, seed=4)


def test_one_of_each_on_paper() -> None:
    def lines(problem: Problem) -> list[str]:
        return demonstrate(problem).reasoning.split("\n")

    assert lines(Problem("arithmetic", "", {"terms": [47, 85, -39]}, 0, 0)) == [
        "47 + 85: 7 + 5 = 12, 4 + 8 + 1 = 13, 132.",
        "132 - 39: 12 - 9 = 3, 13 - 3 - 1 = 9, 1 - 0 - 1 = 0, 93.",
        "So 93.",
    ]
    assert lines(made("Multiplication", a=48, b=36)) == [
        "48 x 6: 8 x 6 = 48, 4 x 6 + 4 = 28, 288.",
        "48 x 3: 8 x 3 = 24, 4 x 3 + 2 = 14, 144.",
        "288 + 1440: 8 + 0 = 8, 8 + 4 = 12, 2 + 4 + 1 = 7, 0 + 1 = 1, 1728.",
        "So 1728.",
    ]
    assert lines(made("Sorting", array=[8, 3, 8])) == ["8 3 8: 3", "8 8: 8", "8: 8", "So 3 8 8."]
    assert lines(made("SlidingWindow", A=[4, 2, 5, 1], K=2)) == ["4 2: 2", "2 5: 2", "5 1: 1", "So 2 2 1."]


@pytest.mark.parametrize("task", TEACHERS)
@pytest.mark.parametrize("slip", [0.04, 0.3])
def test_slips(task: str, slip: float) -> None:
    steps, false, wrong = 0, 0, 0
    for problem, result in PROBLEMS[task]:
        shown = demonstrate(problem, slip=slip, seed=1)
        seen = read(problem, shown.reasoning)
        assert seen[2] == shown.result
        assert shown.reasoning.splitlines()[-1] == f"So {shown.result}."
        steps, false, wrong = steps + seen[0], false + seen[1], wrong + (shown.result != result)
    # who overlooks the least takes any number, now and then the least: a half to all of the slips show
    least = 0.5 if "S" in task else 1
    assert 0.7 * least * slip < false / steps < 1.3 * slip
    assert wrong > 0


@pytest.mark.parametrize("task", TEACHERS)
def test_slips_are_those_of_the_seed(task: str) -> None:
    some = [problem for problem, _ in PROBLEMS[task][-100:]]

    def texts(seed: int) -> list[str]:
        return [demonstrate(problem, slip=0.3, seed=seed).reasoning for problem in some]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_nobody_teaches_what_is_not_there() -> None:
    with pytest.raises(UsageError, match="nobody demonstrates rlve/Sortin") as caught:
        demonstrate(Problem("rlve/Sortin", "", {}, 0, 0))
    assert caught.value.hint == "did you mean rlve/Sorting?"


@pytest.fixture(scope="module")
def pool() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=60, score_timeout_s=60) as pool:
        yield pool


@pytest.mark.skipif(importlib.util.find_spec("Gym") is None, reason="needs the extra envs")
def test_the_tasks_themselves(pool: TaskPool) -> None:
    """What RLVE-Gym puts into a problem is what its teacher reads, and the scorer agrees."""
    items = [(env, seed, level) for env in TEACHERS if env != "arithmetic" for level in range(3) for seed in range(6)]
    found = [problem for problem in pool.sample(items) if problem is not None]
    assert len(found) == len(items)
    shown = [demonstrate(problem) for problem in found]
    for problem, one in zip(found, shown, strict=True):
        assert one.result == registry.get(problem.env).reference(problem)
        assert read(problem, one.reasoning)[1:] == (0, one.result)
    scores = pool.score([(problem, one.answer) for problem, one in zip(found, shown, strict=True)])
    assert all(score.correct for score in scores)
