"""Tasks about programs, end to end through the sandbox.

1. References earn 1: outputs, inputs, programs, counterexamples.
2. An input that is another one and gives the output is right; one outside of the form proves nothing.
3. A program is judged on held-out inputs, and one that fails each stored mutant is among them.
4. What has been shown is not what is asked; forged verdicts, endless loops and exits earn nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from zaya.envs.base import Problem, Score, Status
from zaya.envs.code import programs, values
from zaya.envs.code.programs import Program
from zaya.envs.code.tasks import TASKS
from zaya.errors import UsageError

if importlib.util.find_spec("reasoning_gym") is None:
    pytest.skip("needs the extra envs", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def _sandbox() -> Iterator[None]:
    try:
        programs.sandbox().run("pass")
    except UsageError as error:
        pytest.skip(error.message)
    yield
    programs.sandbox().close()


SOURCE = """
def main_solution(items, limit):
    total = 0
    for item in items:
        if item > limit:
            total += item
    return {"total": total}
"""
GENERATOR = """
def generate_inputs(rng):
    return {"items": [rng.randint(0, 20) for _ in range(rng.randint(1, 6))], "limit": rng.randint(0, 20)}
"""


@pytest.fixture(autouse=True)
def _one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """One program of our own, whose third mutant takes >= for >."""
    from zaya.envs.code.mutants import mutants

    number = next(i for i, (kind, _) in enumerate(mutants(SOURCE)) if kind.startswith("another comparison"))
    program = Program("0123", "Sum what is above a limit.", "items, limit -> total", SOURCE, GENERATOR, 0, (number,))
    monkeypatch.setattr(programs, "at_level", lambda level: (program,))
    monkeypatch.setattr(programs, "by_digest", lambda: {program.digest: program})


def made(kind: str) -> Problem:
    task = TASKS[f"code/{kind}"]
    found = (task.sample(seed, 0) for seed in range(10))
    return next(problem for problem in found if problem is not None)


def judged(problem: Problem, answer: str) -> Score:
    task = TASKS[problem.env]
    return task.score(problem, task.about.framed(answer))


@pytest.mark.parametrize("kind", ["output", "input", "reconstruct", "solve", "falsify"])
def test_references_earn_1(kind: str) -> None:
    problem = made(kind)
    reference = TASKS[problem.env].reference(problem)
    assert reference is not None
    assert judged(problem, reference) == Score(1.0, True, answer=reference + "\n")
    assert problem == TASKS[problem.env].sample(problem.seed, 0)
    assert TASKS[problem.env].score(problem, reference).status is Status.BAD_FORMAT


def test_output() -> None:
    problem = made("output")
    total = problem.meta["output"]["total"]
    assert judged(problem, f'{{"total": {total}.0}}').correct
    assert not judged(problem, str(total)).correct
    assert not judged(problem, f'{{"total": {total + 1}}}').correct
    assert judged(problem, "{'total': 1}").status is Status.BAD_FORMAT


def test_any_input_that_gives_the_output() -> None:
    problem = made("input")
    total = problem.meta["output"]["total"]
    assert total > 0
    assert judged(problem, f'{{"items": [{total}], "limit": 0}}').correct
    assert judged(problem, f'{{"items": [{total - 1}, 1, 0], "limit": 0}}').correct is (total != 1) or total == 1
    for wrong in (
        f'{{"items": [{total + 1}], "limit": 0}}',
        f'{{"items": [{total}]}}',
        f'{{"items": {total}, "limit": 0}}',
        "[]",
    ):
        assert not judged(problem, wrong).correct


def test_programs() -> None:
    problem = made("reconstruct")
    tests = problem.meta["tests"]
    shown = problem.prompt
    assert not any(f"Input: {values.dump(x)}\n" in shown for x, _ in tests)
    assert any(item == x["limit"] for x, _ in tests for item in x["items"]), "no test tells > from >="
    body = "    return {'total': sum(item for item in items if item > limit)}"
    assert judged(problem, f"def main_solution(items, limit):\n{body}").correct
    assert judged(problem, f"import math\nprint('noise')\ndef main_solution(limit, items):\n{body}").correct
    table = {values.dump(x): y for x, y in tests[:-1]}
    for wrong in (
        "def main_solution(items, limit):\n" + body.replace("> limit", ">= limit"),
        "def main_solution(items, limit):\n    return {'total': 0}",
        "def main_solution(items):\n" + body,
        f"import json\nT = {table!r}\ndef main_solution(items, limit):\n"
        "    return T[json.dumps(dict(items=items, limit=limit))]",
        "def main_solution(items, limit):\n    while True: pass",
        "raise SystemExit(0)",
        "import os\nos._exit(0)",
        "def main_solution(items, limit):\n    import os\n    os._exit(0)",
        'print(\'{"value": [[{"total": 0}]]}\')',
        "def __zaya_run(inputs, limit):\n    return [[True]] * len(inputs)",
        "class Same:\n    def __eq__(self, other): return True\ndef main_solution(items, limit):\n    return Same()",
        "class D(dict):\n    def __eq__(self, other): return True\n"
        "def main_solution(items, limit):\n    return D(total=-1)",
        "x" * 30_000,
        "def main_solution(items, limit:",
    ):
        assert judged(problem, wrong).reward == 0, wrong[:60]


def test_counterexamples() -> None:
    problem = made("falsify")
    assert ">= limit" in problem.prompt
    assert "- limit: whole number from 0 to 20" in problem.prompt
    assert judged(problem, '{"items": [5, 7], "limit": 5}').correct
    for wrong in (
        '{"items": [5, 7], "limit": 6}',  # both say 7
        '{"items": [0], "limit": 0}',  # both say 0
        '{"items": [25], "limit": 25}',  # such a limit is none of the generator's
        '{"items": ["a"], "limit": 5}', '{"items": 5, "limit": 5}', '{"items": [5], "limit": 5, "more": 1}',
        '{"items": [5, 5, 5, 5, 5, 5, 5], "limit": 5}', '{"limit": 5}', "[]", "null",
    ):  # fmt: skip
        assert not judged(problem, wrong).correct, wrong
