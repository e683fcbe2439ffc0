"""Problems from files in the formats of public benchmarks.

1. A field is found under its name, by dots in nested objects and lists, and inside JSON texts; a line without it is an
   error that names the file, the line and the field.
2. What is asked and judged is what the version stands for: another answer, option or test is another version, and the
   place of the file is none. A question that is asked twice is asked once, and it is said.
3. Of options in the order of the file the letter is as given; of a right one and wrong ones the order depends on the
   content alone, and every letter is right about equally often. A letter in a box counts, spelled in few ways.
4. Programs pass by all tests, shown and hidden, as scripts and as functions; numbers of a line are compared as numbers.
   Tests may be packed. A pickle is never loaded: one that holds a text is read, another one refused.
5. Instructions are judged with the arguments of the data, strictly; the reward is the part that is followed. What
   cannot be judged is left out and said, what does not exist is an error.
6. All of it works in the workers of a pool, where problems come as plain data.
"""

from __future__ import annotations

import base64
import json
import pickle
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from zaya.envs import registry
from zaya.envs.base import Problem, Status
from zaya.envs.files import programs
from zaya.envs.files.base import FileEnvironment, file_name
from zaya.envs.files.choice import letter_of
from zaya.envs.pool import TaskPool
from zaya.errors import UsageError


def opened(path: Path, kind: str, rows: Sequence[Mapping[str, Any]], **fields: str) -> FileEnvironment:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    environment = registry.get(file_name(kind, str(path), fields))
    assert isinstance(environment, FileEnvironment)
    return environment


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.jsonl"


# 1


@pytest.mark.parametrize(
    ("row", "where"),
    [
        ({"solution": {"final": 7}}, "solution.final"),
        ({"solution": [{"final": 6}, {"final": 7}]}, "solution.1.final"),
        ({"solution.final": 7, "solution": {"final": 1}}, "solution.final"),
        ({"info": json.dumps({"final": [1, 7]})}, "info.final.1"),
        ({"Short Answer": "7"}, "Short Answer"),
    ],
)
def test_where_fields_stand(path: Path, row: dict[str, Any], where: str) -> None:
    environment = opened(path, "math", [{"problem": "?", **row}], answer=where)
    assert environment.problems[0].meta == {"answer": "7"}


@pytest.mark.parametrize(
    ("kind", "rows", "fields", "says"),
    [
        ("math", [{"problem": "a", "answer": 1}, {"problem": "b"}], {}, ":2 has no field 'answer', which is its"),
        ("math", [{"problem": "a", "x": {"y": 1}}], {"answer": "x.z"}, ":1 has no field 'x.z'"),
        ("math", [{"problem": ["a"], "answer": 1}], {}, ":1: problem (prompt) must be a text: ['a']"),
        ("math", [{"problem": "a", "answer": 1}], {"difficulty": "d"}, "has no field 'd', which is its difficulty"),
        ("choice", [{"question": "a", "answer": "A"}], {}, "has no field 'options'"),
        ("choice", [{"question": "a", "options": ["x", "y"], "answer": "C"}], {}, "(answer) must be one of 2 options"),
        ("choice", [{"question": "a", "options": ["x", "y"], "answer": 2}], {}, "(answer) must be one of 2 options"),
        ("choice", [{"question": "a", "r": "x", "w": ["x"]}], {"answer": "r", "wrong": "w"}, "is among the wrong ones"),
        ("instruct", [{"prompt": "a", "instruction_id_list": ["no:such"], "kwargs": [{}]}], {}, "no:such"),
        ("instruct", [{"prompt": "a", "instruction_id_list": ["a:b"], "kwargs": []}], {}, "a list of 1 objects"),
        ("instruct", [{"prompt": "a", "instruction_id_list": ["keywords:existence"], "kwargs": [{"x": 1}]}], {},
         "keywords:existence does not take {'x': 1}"),
        ("code", [{"question_content": "a", "public_test_cases": "[]"}], {}, ":1 has no tests"),
        ("code", [{"question_content": "a", "public_test_cases": "{"}], {}, "neither JSON nor packed"),
        ("code", [{"question_content": "a", "public_test_cases": [{"input": "1"}]}], {}, "an input and an output"),
        ("code", [{"question_content": "a", "public_test_cases": [{"input": "x", "output": "1"}], "f": "g"}],
         {"function": "f"}, "holds JSON, a value a line"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    path: Path, kind: str, rows: list[dict[str, Any]], fields: dict[str, str], says: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        opened(path, kind, rows, **fields)
    assert "some.jsonl:" in str(caught.value)


def test_a_field_that_no_kind_has(path: Path) -> None:
    with pytest.raises(UsageError, match="math problems have no field 'promt'") as caught:
        opened(path, "math", [{"problem": "a", "answer": 1}], promt="problem")
    assert caught.value.hint == "did you mean prompt?"


# 2


def test_a_version_is_the_content(tmp_path: Path) -> None:
    rows = [{"problem": "1 + 1?", "answer": 2, "note": "x", "other": 4}, {"problem": "1 + 2?", "answer": 3, "other": 3}]
    one = opened(tmp_path / "a.jsonl", "math", rows)
    same = opened(tmp_path / "b.jsonl", "math", [{**rows[0], "note": "y"}, rows[1]])
    others = [
        opened(tmp_path / "c.jsonl", "math", [{**rows[0], "answer": 3}, rows[1]]),
        opened(tmp_path / "d.jsonl", "math", rows, answer="other"),
        opened(tmp_path / "e.jsonl", "math", rows[:1]),
        opened(tmp_path / "f.jsonl", "math", rows[::-1]),
    ]
    assert (same.version, same.content) == (one.version, one.content)
    assert len({environment.content for environment in (one, *others)}) == 5
    assert len({environment.version for environment in (one, *others)}) == 5


def test_a_question_is_asked_once(path: Path) -> None:
    environment = opened(path, "math", [{"problem": "1 + 1?", "answer": 2}, {"problem": "1 + 1?", "answer": 3}])
    assert [problem.meta["answer"] for problem in environment.problems] == ["2"]
    assert environment.left_out == [f"{path}:2 asks what line 1 asks"]


def test_levels_and_categories(path: Path) -> None:
    rows = [{"problem": str(i), "answer": i, "level": i % 2, "about": {"field": "sums"}} for i in range(6)]
    environment = opened(path, "math", rows, difficulty="level", category="about.field")
    assert {problem.meta["category"] for problem in environment.problems} == {"sums"}
    assert [problem.difficulty for problem in environment.problems] == [0, 1, 0, 1, 0, 1]
    drawn = [environment.sample(seed, 1) for seed in range(20)]
    assert {problem.prompt[0] for problem in drawn if problem} == {"1", "3", "5"}


# 3


def test_options_as_they_are_listed(path: Path) -> None:
    rows = [
        {"question": "Which?", "options": ["x", "y", "z"], "answer": "B"},
        {"question": "And which?", "options": ["x", "y", "z"], "answer": 2},
        {"question": "Last?", "options": ["p", "q"], "answer": "p"},
    ]
    environment = opened(path, "choice", rows)
    assert environment.problems[0].prompt == (
        "Which?\n\nA. x\nB. y\nC. z\n\nGive the letter of the right option in \\boxed{}."
    )
    assert [problem.meta["answer"] for problem in environment.problems] == ["B", "C", "A"]
    first = environment.problems[0]
    assert environment.score(first, "Surely \\boxed{\\text{(b)}}.").correct
    assert not environment.score(first, "\\boxed{A}").correct
    assert environment.score(first, "It is B.").status is Status.BAD_FORMAT
    every_letter = environment.score(first, "\\boxed{A, B, C}")
    assert (every_letter.reward, every_letter.status) == (0, Status.OK)


def test_a_letter_and_nothing_else() -> None:
    for text in ("C", "c", " C ", "(C)", "C.", "C)", "\\text{C}", "\\textbf{(C)}", "\\mathrm{ C }"):
        assert letter_of(text) == "C", text
    for text in ("", "AC", "A or C", "C, A", "C. 12", "option C", "\\boxed{C}", "¬C", "1"):
        assert letter_of(text) is None, text


def test_shuffled_options(tmp_path: Path) -> None:
    rows = [
        {"Question": f"Question {i}?", "Correct Answer": "right", **{f"Incorrect Answer {j}": f"no {j}" for j in "123"}}
        for i in range(400)
    ]  # fmt: skip
    fields = {
        "prompt": "Question",
        "answer": "Correct Answer",
        "wrong": "Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3",
    }
    environment = opened(tmp_path / "a.jsonl", "choice", rows, **fields)
    counts = Counter(problem.meta["answer"] for problem in environment.problems)
    assert set(counts) == set("ABCD")
    assert all(70 <= count <= 130 for count in counts.values()), counts  # 100 and at most 3.5 standard deviations
    for problem in environment.problems[:20]:
        assert f"\n{problem.meta['answer']}. right\n" in problem.prompt
    # neither its place in the file nor the order of the wrong ones decides
    turned = [{**row, "Incorrect Answer 1": "no 3", "Incorrect Answer 3": "no 1"} for row in reversed(rows)]
    other = opened(tmp_path / "b.jsonl", "choice", turned, **fields)
    place = {p.prompt.partition("\n")[0]: p.meta["answer"] for p in other.problems}
    moved = sum(place[p.prompt.partition("\n")[0]] != p.meta["answer"] for p in environment.problems)
    assert moved == 0


# 4

SCRIPT = "```python\nn = int(input())\nprint(*[n, %s])\n```"
DOUBLE = [{"input": "1\n", "output": "1 2"}, {"input": "5\n", "output": "5 10\n"}]
HIDDEN = [{"input": "-3\n", "output": "-3 -6\n"}]


def packed(value: object, *, pickled: bool) -> str:
    text = json.dumps(value)
    return base64.b64encode(zlib.compress(pickle.dumps(text) if pickled else text.encode())).decode()


@pytest.mark.parametrize("form", ["list", "text", "packed", "pickled"])
def test_scripts(path: Path, form: str) -> None:
    hidden = {
        "list": HIDDEN, "text": json.dumps(HIDDEN), "packed": packed(HIDDEN, pickled=False),
        "pickled": packed(HIDDEN, pickled=True),
    }[form]  # fmt: skip
    row = {"question_content": "Double it.", "public_test_cases": json.dumps(DOUBLE), "private_test_cases": hidden}
    environment = opened(path, "code", [row])
    problem = Problem.from_json(environment.problems[0].to_json())
    assert "output" not in problem.to_json().replace("standard output", "")  # what is expected does not travel
    assert environment.score(problem, SCRIPT % "2 * n").correct
    assert environment.score(problem, SCRIPT % "2.0 * n").correct  # 2.0 is 2
    wrong = environment.score(problem, SCRIPT % "2 * abs(n)")
    assert (wrong.correct, wrong.status) == (False, Status.OK)
    assert wrong.detail == "test 3 of 3: another output than expected"
    assert environment.score(problem, SCRIPT % "1 / 0").detail.startswith("test 1 of 3: error: ZeroDivisionError")
    assert environment.score(problem, "It is 2 * n.").status is Status.BAD_FORMAT


def test_functions(path: Path) -> None:
    starter = "class Solution:\n    def pick(self, items: List[int], k: int) -> List[int]:\n        "
    tests = [{"input": "[1, 2, 3]\n2", "output": "[1, 2]"}, {"input": "[]\n0", "output": "[]"}]
    row = {
        "question_content": "The first k.", "starter_code": starter, "public_test_cases": tests,
        "metadata": json.dumps({"func_name": "pick"}),
    }  # fmt: skip
    environment = opened(path, "code", [row])
    problem = environment.problems[0]
    assert starter.strip() in problem.prompt
    assert environment.score(problem, f"```python\n{starter}return items[:k]\n```").correct
    assert environment.score(problem, f"```python\n{starter}return tuple(items[:k])\n```").correct
    assert environment.score(problem, "```python\ndef pick(items, k):\n    return items[:k]\n```").correct
    assert not environment.score(problem, f"```python\n{starter}return items\n```").correct
    assert not environment.score(problem, f"```python\n{starter}return None\n```").correct


def test_a_pickle_is_never_loaded(path: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "loaded",))

    for held in (Hostile(), ["text", Hostile()], ["one", "two"], b"bytes"):
        hidden = base64.b64encode(zlib.compress(pickle.dumps(held))).decode()
        row = {"question_content": "?", "public_test_cases": DOUBLE, "private_test_cases": hidden}
        with pytest.raises(UsageError, match="a pickle of more than a text"):
            opened(path, "code", [row])
    assert not (tmp_path / "loaded").exists()
    bomb = base64.b64encode(zlib.compress(b" " * (1 << 20))).decode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "LARGEST_TESTS", 1 << 19)
        with pytest.raises(UsageError, match="broken off, or larger than"):
            opened(path, "code", [{"question_content": "?", "public_test_cases": bomb}])


def test_output_and_time() -> None:
    same = programs.same_output
    assert same("1 2 \n3\n\n", "1 2\n3")
    assert same("0.50", "0.5")
    assert same("yes", "yes\n")
    assert not same("Yes", "yes")
    assert not same("1 2", "1\n2")
    assert not same("1", "1 2")
    assert not same("0.5000001", "0.5")
    assert not same("", "0")
    assert not same("nan", "1")
    slow = programs.judge("import time; time.sleep(0.3)", [("", "")] * 3, None, total_s=0.1)
    assert (slow.reward, slow.status) == (0, Status.ANSWER_LIMIT)


# 5


def test_instructions(path: Path) -> None:
    nothing = {"relation": None, "keyword": None}
    rows = [
        {
            "prompt": "Write of boats.", "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
            "kwargs": [{"keywords": None, **nothing}, {"keywords": ["harbour", "sail"], **nothing}],
        },
        {"prompt": "Begin with a verb.", "instruction_id_list": ["words:start_verb"], "kwargs": [{}]},
    ]  # fmt: skip
    environment = opened(path, "instruct", rows)
    [problem] = environment.problems
    assert problem.prompt == "Write of boats."
    assert environment.left_out == [
        f"{path}:2: words:start_verb needs a tagger of parts of speech, which has to be downloaded"
    ]
    both = environment.score(problem, "We sail into the harbour.")
    assert (both.reward, both.correct) == (1, True)
    half = environment.score(problem, "Here, we sail into the harbour.")
    assert (half.reward, half.correct, half.detail) == (0.5, False, "does not follow punctuation:no_comma")
    assert environment.score(problem, "Ships, ships, ships.").reward == 0
    assert environment.score(problem, "  ").status is Status.BAD_FORMAT


# 6


def test_through_the_pool(tmp_path: Path) -> None:
    tasks: list[tuple[FileEnvironment, str]] = [
        (opened(tmp_path / "a.jsonl", "math", [{"problem": "1 + 1?", "answer": 2}]), "\\boxed{2}"),
        (opened(tmp_path / "b.jsonl", "choice", [{"question": "?", "options": [1, 2], "answer": 0}]), "\\boxed{A}"),
        (opened(tmp_path / "c", "code", [{"question_content": "?", "public_test_cases": DOUBLE}]), SCRIPT % "n+n"),
        (
            opened(tmp_path / "d.jsonl", "instruct", [
                {"prompt": "?", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}]),
            "Fine.",
        ),
    ]  # fmt: skip
    with TaskPool(score_timeout_s=20) as pool:
        assert all(s.correct for s in pool.score([(environment.problems[0], text) for environment, text in tasks]))
        stale = Problem(**{**json.loads(tasks[0][0].problems[0].to_json()), "version": 1})
        assert pool.score([(stale, "\\boxed{2}")])[0].status is Status.INFRA
