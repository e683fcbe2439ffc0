"""Which problems a task stands for, and how they are sampled.

1. Problems are spread over tasks by weight and over levels evenly, whatever else is in the recipe; what a task says for
   itself goes before what its benchmark says, and that before the suite.
2. A pattern stands for environments that passed the audit, at levels counted from the lowest of each; one that has too
   few held-out problems is said and left out, where an environment that was named stops the run.
3. Of a file all problems are asked, or so many by lot, the same wherever they stand, or those of some categories. What
   is wrong in a file is said before anything is made.
4. Two tasks share no problem.
5. Every preset can be used, and is in the listing; samplings are the report's.
6. The guide's recipes are recipes, and its table of benchmarks is that of the code.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zaya.config import from_mapping
from zaya.envs import catalogue
from zaya.envs.base import Problem
from zaya.envs.files.kinds import KINDS
from zaya.envs.pool import TaskPool
from zaya.errors import ConfigError, DataError, UsageError, ZayaError
from zaya.eval import presets
from zaya.eval.presets import BENCHMARKS, SAMPLING, SamplingConfig
from zaya.eval.suite import SuiteConfig
from zaya.eval.tasks import EvalTask, TaskSet, task_sets


@pytest.fixture(scope="module")
def pool() -> Any:
    with TaskPool() as made:
        yield made


def sets(
    pool: TaskPool, tasks: dict[str, Any], notice: Callable[[str], Any] = pytest.fail, problems: int = 10
) -> dict[str, TaskSet]:
    built = {name: from_mapping(EvalTask, task) for name, task in tasks.items()}
    found = task_sets(
        built, pool, notice, problems=problems, k=3, usual=SamplingConfig(), max_tokens=50, held_out=0.3, seed=0
    )
    return {one.name: one for one in found}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# 1


def test_shares(pool: TaskPool) -> None:
    three = {
        "a": {"env": "arithmetic", "weight": 2.0},
        "b": {"env": "arithmetic", "difficulties": [1, 2]},
        "c": {"env": "arithmetic", "difficulties": [3], "problems": 2},
    }
    found = sets(pool, three, problems=11)
    assert {name: len(task.problems) for name, task in found.items()} == {"a": 7, "b": 4, "c": 2}
    assert Counter(problem.difficulty for problem in found["b"].problems) == {1: 2, 2: 2}
    assert set(found["b"].steps.values()) == {1, 2}
    alone = sets(pool, {"c": three["c"]})
    assert alone["c"].problems == found["c"].problems
    few = sets(pool, {name: {"env": "arithmetic", "difficulties": [i]} for i, name in enumerate("xyz")}, problems=2)
    assert list(few) == ["x", "y"]


def test_settings(pool: TaskPool, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"problem": "1?", "answer": 1}])
    found = sets(
        pool,
        {
            "made": {"env": "arithmetic"},
            "own": {"env": "arithmetic", "k": 5, "sampling": "report_code", "max_tokens": 9},
            "plain": {"file": file, "kind": "math"},
            "known": {"file": file, "benchmark": "aime"},
            "changed": {"file": file, "benchmark": "aime", "k": 2, "sampling": {"temperature": 0.5}},
        },
    )
    assert [(task.k, task.sampling, task.max_tokens) for task in found.values()] == [
        (3, SAMPLING["model"], 50), (5, SAMPLING["report_code"], 9), (3, SAMPLING["model"], 50),
        (64, SAMPLING["report_math"], 50), (2, SamplingConfig(temperature=0.5), 50),
    ]  # fmt: skip
    assert found["known"].problems == found["plain"].problems
    assert found["plain"].content is not None
    assert found["made"].content is None


# 2


def test_a_pattern(pool: TaskPool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "arithmetic": {"env": "arithmetic", "lowest": 2, "highest": None, "failures": []},
        "math/linear": {"env": "math/linear", "lowest": 0, "highest": 1, "failures": []},
        "math/broken": {"env": "math/broken", "lowest": 0, "highest": None, "failures": ["constant"]},
    }
    monkeypatch.setattr("zaya.eval.tasks.catalogue", lambda: rows)
    found = sets(pool, {"all": {"env": "arith*", "difficulties": [0, 1]}})["all"]
    assert {(p.difficulty, found.steps[p.digest]) for p in found.problems} == {(2, 0), (3, 1)}
    found = sets(pool, {"all": {"env": "math/*", "difficulties": [0, 3]}})["all"]
    assert {(p.env, p.difficulty) for p in found.problems} == {("math/linear", 0)}  # 3 is above its highest
    with pytest.raises(UsageError, match="no environment that passed the audit is called maths/"):
        sets(pool, {"all": {"env": "maths/*"}})


def test_the_audit_knows_what_recipes_name() -> None:
    names = [row["env"] for row in catalogue.catalogue().values() if catalogue.in_default_mix(row)]
    for prefix in ("rlve/", "reasoning-gym/", "code/", "instruct/", "math/"):
        assert any(name.startswith(prefix) for name in names)


def test_too_few(pool: TaskPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(*_: object) -> Any:
        raise DataError("too few")

    monkeypatch.setattr("zaya.eval.tasks.take", take)
    with pytest.raises(DataError, match="too few"):
        sets(pool, {"a": {"env": "arithmetic"}})
    said: list[str] = []
    sets(pool, {"a": {"env": "arith*"}}, said.append)
    assert said == ["a: too few"]


# 3


def test_files(pool: TaskPool, tmp_path: Path) -> None:
    rows = [{"problem": f"{i}?", "answer": i, "about": {"field": "xyz"[i % 3]}} for i in range(30)]
    one, other = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows[::-1])
    fields = {"fields": {"category": "about.field"}, "kind": "math"}
    assert len(sets(pool, {"t": {"file": one, **fields}})["t"].problems) == 30
    five = [sets(pool, {"t": {"file": file, **fields, "problems": 5}})["t"].problems for file in (one, other)]
    assert {p.prompt for p in five[0]} == {p.prompt for p in five[1]}
    assert len(five[0]) == 5
    some = sets(pool, {"t": {"file": one, **fields, "categories": ["x", "z"]}})["t"].problems
    assert Counter(p.meta["category"] for p in some) == {"x": 10, "z": 10}
    with pytest.raises(UsageError, match="has no category 'w'"):
        sets(pool, {"t": {"file": one, **fields, "categories": ["w"]}})


def test_files_come_first(tmp_path: Path) -> None:
    class Nobody:
        def sample(self, *_: object) -> None:
            pytest.fail("something was made")

    file = write(tmp_path / "a.jsonl", [{"problem": "1?", "answer": 1}, {"problem": "2?"}])
    with pytest.raises(ZayaError, match=r"a\.jsonl:2 has no field 'answer'"):
        sets(Nobody(), {"made": {"env": "arithmetic"}, "own": {"file": file, "kind": "math"}})  # type: ignore[arg-type]


def test_what_is_left_out_is_said(pool: TaskPool, tmp_path: Path) -> None:
    said: list[str] = []
    file = write(tmp_path / "a.jsonl", [{"problem": "1?", "answer": 1}] * 3)
    assert len(sets(pool, {"t": {"file": file, "kind": "math"}}, said.append)["t"].problems) == 1
    assert said == [f"t: 2 left out, such as {file}:2 asks what line 1 asks"]


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({}, "an env or a file, one of the two"),
        ({"env": "a", "file": "b"}, "an env or a file, one of the two"),
        ({"file": "b"}, "b: say what it is"),
        ({"file": "b", "kind": "maths"}, "there is no kind 'maths'"),
        ({"file": "b", "benchmark": "aimee"}, "there is no benchmark 'aimee'"),
        ({"env": "a", "kind": "math"}, "are for files"),
        ({"env": "a", "weight": 0.0}, "weight must be positive"),
        ({"env": "a", "difficulties": [-1]}, "levels from 0 on"),
        ({"env": "a", "k": 0}, "k must be at least 1: 0"),
        ({"env": "a", "sampling": "hot"}, "sampling = 'hot' does not exist"),
    ],
)
def test_a_task_that_cannot_be(task: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        from_mapping(EvalTask, task)


# 4


def test_no_problem_twice(pool: TaskPool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sets(pool, {"a": {"env": "arithmetic"}, "b": {"env": "arithmetic"}}, problems=40)
    digests: list[Problem] = [*found["a"].problems, *found["b"].problems]
    assert len({problem.digest for problem in digests}) == 40
    same = [Problem("arithmetic", str(i), {}, 0, 0) for i in range(3)]
    monkeypatch.setattr("zaya.eval.tasks.take", lambda *given: (same[: given[-1]], 0))
    with pytest.raises(DataError, match="that no other task has: 1 found, 3 wanted"):
        sets(pool, {"a": {"env": "arithmetic", "problems": 2}, "b": {"env": "arithmetic", "problems": 3}})


# 5


def test_presets() -> None:
    assert all(benchmark.sampling in SAMPLING for benchmark in BENCHMARKS.values())
    for name, benchmark in BENCHMARKS.items():
        kind = KINDS[benchmark.kind]
        assert set(benchmark.fields) <= {*kind.fields, "category"}, name
        assert EvalTask(file="x.jsonl", benchmark=name).environment.startswith(f"{benchmark.kind}:x.jsonl")
    own = EvalTask(file="x.jsonl", benchmark="imo_answer", fields={"answer": "Long Answer"})
    assert own.environment == "math:x.jsonl?prompt=Problem&answer=Long+Answer&category=Category"
    assert [row[0] for row in presets.listing()[1:]] == list(BENCHMARKS)
    assert [row[0] for row in presets.sampling_listing()[1:]] == list(SAMPLING)


def test_the_reports_sampling() -> None:
    """Spec post-training 12, its table."""
    math = SamplingConfig(temperature=1.0, top_p=0.95)
    code = SamplingConfig(temperature=0.6, top_p=0.95, top_k=20)
    expected = {
        "aime": (64, math), "hmmt": (64, math), "imo_answer": (64, math), "apex": (64, math), "gpqa": (16, math),
        "mmlu_pro": (1, math), "ifeval": (1, math), "ifbench": (1, math), "livecodebench": (16, code),
        "bfcl": (1, code),
    }  # fmt: skip
    assert {name: (b.k, SAMPLING[b.sampling]) for name, b in BENCHMARKS.items()} == expected


# 6

GUIDE = (Path(__file__).parents[2] / "docs/guides/evaluation.md").read_text("utf-8")


def test_the_guides_recipes() -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    config = from_mapping(SuiteConfig, tomllib.loads("\n".join(blocks)))
    assert config.tasks["aime25"].environment == "math:data/aime25.jsonl?prompt=problem&answer=solution.final"
    assert config.ttc["wide"].config.population == 32


def test_the_guides_benchmarks() -> None:
    rows = {}
    for line in GUIDE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[3].isdecimal():
            rows |= {name: cells for name in re.findall(r"`(\w+)`", cells[0])}
    assert set(rows) == set(BENCHMARKS)
    for name, (_, kind, fields, k, preset) in rows.items():
        known = BENCHMARKS[name]
        assert (kind, int(k), preset) == (known.kind, known.k, f"`{known.sampling}`")
        if known.kind != "tools":
            paths = {key: field.path for key, field in KINDS[kind].fields.items() if field.path} | dict(known.fields)
            if name == "gpqa":
                del paths["options"]
            for path in paths.values():
                start = path.split(",")[0].split(".")[0]
                assert f"`{start}`" in fields or start == "difficulty", (name, start)
