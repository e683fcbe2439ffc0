"""Tasks of RLVE-Gym through the pool.

1. The reference earns 1; garbage, nothing, another problem's answer and a right answer with more beside it earn 0.
2. A problem is a function of seed and difficulty, in every process; difficulty d is d updates of the task's controller.
3. Outside of a worker nothing is made or scored, and nothing that belongs to it is imported.
4. What is too long is no problem; what does not exist is refused by name.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import zaya.envs
from zaya.envs import registry
from zaya.envs.answers import INSTRUCTION
from zaya.envs.base import Problem, Status
from zaya.envs.pool import TaskPool
from zaya.envs.worker import MEMORY_BYTES
from zaya.errors import UsageError

TASKS = ("Sorting", "Multiplication", "Division", "LCM", "SlidingWindow")
needs_gym = pytest.mark.skipif(importlib.util.find_spec("Gym") is None, reason="needs the extra envs")


@pytest.fixture(scope="module")
def pool() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=60, score_timeout_s=60) as pool:
        yield pool


def made(problems: list[Problem | None]) -> list[Problem]:
    assert None not in problems
    return [problem for problem in problems if problem is not None]


@needs_gym
@pytest.mark.parametrize("task", TASKS)
def test_scores(pool: TaskPool, task: str) -> None:
    items = [(f"rlve/{task}", seed, difficulty) for difficulty in range(3) for seed in (1, 2**62, 3)]
    problems = made(pool.sample(items))
    references = [registry.get(problem.env).reference(problem) for problem in problems]
    right = pool.score([(p, f"\\boxed{{0}} no: \\boxed{{{r}}}.") for p, r in zip(problems, references, strict=True)])
    assert [(score.reward, score.correct, score.status) for score in right] == [(1, True, Status.OK)] * 9
    others = [next(other for other in references if other != reference) for reference in references]
    for contents in (
        [""] * 9,
        ["garbage"] * 9,
        ["\\frac{1}{2}"] * 9,
        others,
        [f"{reference} or 7" for reference in references],
        [f"{reference}\x03 or 7" for reference in references],
        [f"7 Assistant:{reference}" for reference in references],
        [" ".join(str(i) for i in range(200))] * 9,
    ):
        pairs = [(p, f"\\boxed{{{content}}}") for p, content in zip(problems, contents, strict=True)]
        scores = pool.score(pairs)
        assert [(score.reward, score.correct, score.status) for score in scores] == [(0, False, Status.OK)] * 9
    for text in ("", "garbage", references[0], "<answer>" + str(references[0]) + "</answer>"):
        scores = pool.score([(problem, str(text)) for problem in problems])
        assert {(score.reward, score.status) for score in scores} == {(0, Status.BAD_FORMAT)}


@needs_gym
def test_problems(pool: TaskPool) -> None:
    items = [(f"rlve/{task}", seed, difficulty) for task in TASKS for seed in (0, 7) for difficulty in (0, 2)]
    problems = made(pool.sample(items))
    with TaskPool(2, sample_timeout_s=60) as other:
        assert made(other.sample([*reversed(items)])) == problems[::-1]
    assert len({problem.digest for problem in problems}) == len(problems)
    for problem in problems:
        assert problem.prompt.endswith("\n" + INSTRUCTION)
        assert Problem.from_json(problem.to_json()) == problem
        assert json.loads(json.dumps(problem.meta)) == problem.meta
    # the controller of Sorting starts at 3 and makes int(1.1 N + 1) of N: 3, 4, 5, 6
    for difficulty, numbers in enumerate([3, 4, 5, 6]):
        (problem,) = made(pool.sample([("rlve/Sorting", 0, difficulty)]))
        array = problem.meta["config"]["parameter"]["array"]
        assert len(array) == numbers
        assert problem.meta["reference"] == " ".join(map(str, sorted(array)))


@needs_gym
@pytest.mark.parametrize("task", ["BucketSorting", "Cinema", "QuadMagicItems"])
def test_tasks_whose_scorers_compare_types(pool: TaskPool, task: str) -> None:
    """One looks its answer up by an integer, two compare it with tuples: JSON alone would make them always wrong."""
    problems = made(pool.sample([(f"rlve/{task}", seed, difficulty) for seed in (1, 2) for difficulty in (0, 2)]))
    assert [Problem.from_json(problem.to_json()) for problem in problems] == problems
    assert {s.reward for s in pool.score([(p, f"\\boxed{{{p.meta['reference']}}}") for p in problems])} == {1}


@needs_gym
def test_a_seed_chooses_among_the_parameters_of_a_level(pool: TaskPool) -> None:
    """CountdownEqual has six sizes of operands at each level: 8, 16, ..., 48."""
    problems = made(pool.sample([("rlve/CountdownEqual", seed, 0) for seed in range(60)]))
    sizes = [problem.meta["config"]["parameter"]["max_operand"] for problem in problems]
    assert set(sizes) == {8, 16, 24, 32, 40, 48}


@needs_gym
def test_refused(pool: TaskPool) -> None:
    with pytest.raises(UsageError, match="no task 'Sortin'\nhint: did you mean rlve/Sorting"):
        pool.sample([("rlve/Sortin", 0, 0)])
    with pytest.raises(UsageError, match="did you mean rlve/Sorting"):
        registry.get("sorting")
    assert pool.sample([("rlve/FBI_BinaryTree", 0, 12)]) == [None]


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Gym.py").write_text("raise ImportError('no Gym here')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with TaskPool() as pool, pytest.raises(UsageError, match=r"needs the extra 'envs'(.|\n)*openzaya\[envs\]"):
        pool.sample([("rlve/Sorting", 0, 0)])


FAKE_GYM = """
class Hungry:
    def __init__(self, answer_markers):
        self.open, self.close = answer_markers

    def set_config(self, config):
        pass

    def scorer(self, output):
        bytearray(int(output.split(self.open)[1].split(self.close)[0]))
        return 1.0

    def verifier(self, output):
        try:
            score = self.scorer(output)
        except:
            score = -1.0
        return {"accuracy": int(score == 1.0)}

identifier2environment = identifier2controller = {"Sorting": Hungry}
"""


def test_running_out_of_memory_is_told_from_a_wrong_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its verifiers call every exception a wrong format."""
    (tmp_path / "Gym").mkdir()
    (tmp_path / "Gym" / "__init__.py").touch()
    for module in ("environments", "parameter_controllers"):
        (tmp_path / "Gym" / f"{module}.py").write_text(FAKE_GYM)
    monkeypatch.syspath_prepend(tmp_path)
    problem = Problem("rlve/Sorting", "", {"config": {}}, 0, 0)
    with TaskPool() as pool:
        scores = pool.score([(problem, f"\\boxed{{{size}}}") for size in ("10", "many", str(MEMORY_BYTES + (1 << 30)))])
    assert [score.status for score in scores] == [Status.OK, Status.OK, Status.ANSWER_LIMIT]
    assert [score.reward for score in scores] == [1, 0, 0]


def test_outside_of_a_worker() -> None:
    environment = registry.get("rlve/Sorting")
    problem = Problem("rlve/Sorting", "", {"reference": "1 2"}, 0, 0)
    assert environment.reference(problem) == "1 2"
    with pytest.raises(UsageError, match=r"worker processes only(.|\n)*TaskPool"):
        environment.sample(0, 0)
    with pytest.raises(UsageError, match="worker processes only"):
        environment.score(problem, "\\boxed{1 2}")


def test_nothing_heavy_is_imported() -> None:
    folder = Path(zaya.envs.__file__).parent
    modules = ", ".join(f"zaya.envs.{file.stem}" for file in folder.glob("*.py") if file.stem != "__init__")
    code = (
        f"import sys, {modules}\n"
        "from zaya.envs import registry\n"
        "registry.get('rlve/Sorting'), registry.names()\n"
        "print({'torch', 'Gym', 'numpy', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
