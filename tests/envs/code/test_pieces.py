"""What tasks about programs are made of: values, mutants, shapes of inputs.

1. Two values are the same by the table of the specification, and by nothing else.
2. The last fenced block is the answer; one that is never closed is none.
3. Every mutant is a program, differs from its original in one place, and is named by a number that stays.
4. A shape fits all it was made of; what is outside of it is refused.
"""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest

from zaya.envs.code import values
from zaya.envs.code.mutants import mutants
from zaya.envs.code.schema import shape_of

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("a", "b", "is_same"),
    [
        (1, 1, True), (1, 1.0, True), (1, 1.0000005, True), (1, 1.00001, False), (1e9, 1e9 + 100, True),
        (0, -0.0, True),
        (10**30, 10**30 + 1, False), (10**400, 1.0, False), (INF, INF, True), (INF, -INF, False), (INF, 10**400, False),
        (NAN, NAN, False), (1, True, False), (0, False, False), (True, True, True), (None, None, True),
        (None, 0, False),
        (None, False, False), ("", None, False), ("a", "a", True), ("a", "A", False), ("a", "a ", False),
        ("1", 1, False),
        ([1, 2], [1, 2], True), ([1, 2], [2, 1], False), ([1], [1, 1], False), ([], {}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False), ([[1, {"x": [0.1]}]], [[1, {"x": [0.10000000001]}]], True),
        ([NAN], [NAN], False),
        (0, 5e-7, True), (0, 2e-6, False),
    ],
)  # fmt: skip
def test_same(a: Any, b: Any, is_same: bool) -> None:
    assert values.same(a, b) is is_same
    assert values.same(b, a) is is_same


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```json\n1\n```", "1\n"), ("so\n```\n1\n```\n", "1\n"), ("```json\n1\n```\nno:\n```json\n2\n```", "2\n"),
        ("```json\n1\n```\n```json\n2", None), ("```python\n1\n```", None), ("```JSON\n1\n```", "1\n"), ("1", None),
        ("", None),
        ("`1`", None), ("```json 1```", None), ("```json\n1\n``` and", None), ("  ```json\n1\n```", None),
        ("```json\n```", ""),
    ],
)  # fmt: skip
def test_fenced(text: str, found: str | None) -> None:
    assert values.fenced(text, "json") == found


@pytest.mark.parametrize(
    "text", ["", "{", "1 2", "'a'", "[" * 5000, "[" * 100 + "]" * 100, "1" * 20_000, "__import__('os')"]
)
def test_what_is_no_value(text: str) -> None:
    with pytest.raises(values.NotAValue):
        values.parse(text)


def test_depth_and_values_of_programs() -> None:
    assert values.parse(" [1, -Infinity] ") == [1, -INF]
    assert values.dump({"ß": [1.5, None]}) == '{"ß": [1.5, null]}'


SOURCE = """
def main_solution(items, limit):
    total = 0
    for i in range(1, len(items)):
        if items[i] > limit and not items[i] == 3:
            total += items[i] * 2
        else:
            total = max(total, 1)
    return items[1:], total
"""


def test_mutants() -> None:
    found = list(mutants(SOURCE))
    assert found == list(mutants(SOURCE))
    kinds = {kind.partition(",")[0] for kind, _ in found}
    assert kinds == {
        "another comparison", "another operator", "and for or", "off by one", "a case is missing", "a not is missing",
        "another start", "min for max", "another slice",
    }  # fmt: skip
    original = ast.unparse(ast.parse(SOURCE))
    lines = original.splitlines()
    for kind, source in found:
        assert source != original, kind
        ast.parse(source)
        changed = [(x, y) for x, y in zip(lines, source.splitlines(), strict=False) if x != y]
        assert len(changed) <= (3 if "case" in kind else 1), kind
    by_kind = {kind: source for kind, source in found}
    assert (
        "items[i] >= limit" in by_kind["another comparison, line 5"] or "!= 3" in by_kind["another comparison, line 5"]
    )
    assert "items[2:]" in by_kind["another slice, line 9"] or "items[1 + 1:]" in by_kind["another slice, line 9"]
    namespace: dict[str, Any] = {}
    exec(by_kind["min for max, line 8"], namespace)
    assert namespace["main_solution"]([5, 9, 0], 4) == ([9, 0], 1)  # 18, then the lesser of 18 and 1


def test_a_mutant_that_is_a_truth() -> None:
    assert [kind for kind, _ in mutants("x = True")] == ["the other truth, line 1"]
    assert next(mutants("x = True"))[1] == "x = False"
    with pytest.raises(SyntaxError):
        next(mutants("def"))


def test_shapes() -> None:
    seen = [
        {"n": 3, "name": "ab", "mode": "up", "grid": [[1, 0], [0, 1]], "rate": 0.5, "flag": True, "extra": None},
        {"n": -7, "name": "bcd", "mode": "down", "grid": [[1]], "rate": 2, "flag": False, "extra": "z"},
    ]
    seen += [{**seen[1], "name": name} for name in ("cd", "dbc")]
    shape = shape_of(seen)
    assert all(map(shape.fits, seen))
    fine = seen[0]
    assert shape.fits({**fine, "n": 0, "name": "dd", "grid": [[0, 0]], "rate": 1.25, "extra": "z"})
    for bad in (
        {"n": 4}, {"n": -8}, {"n": 1.5}, {"n": "1"}, {"n": True}, {"n": None}, {"name": "a"}, {"name": "abcd"},
        {"name": "ax"},
        {"mode": "left"}, {"grid": []}, {"grid": [[1, 1, 1]]}, {"grid": [[2]]}, {"grid": [1]}, {"rate": 3},
        {"rate": float("nan")},
        {"flag": 1}, {"extra": "zz"}, {"extra": 0}, {"more": 1},
    ):  # fmt: skip
        assert not shape.fits({**fine, **bad}), bad
    assert not shape.fits({key: value for key, value in fine.items() if key != "n"})
    assert not shape.fits([fine])
    assert shape.keys is not None
    assert shape.keys["n"].words_for() == "whole number from -7 to 3"
    assert (
        shape.keys["grid"].words_for()
        == "list of 1 to 2 elements, each list of 1 to 2 elements, each whole number from 0 to 1"
    )
    assert shape.keys["mode"].words_for() == '"down" or "up"'


def test_objects_with_keys_of_any_name() -> None:
    shape = shape_of([{"a": 1, "b": 2}, {"c": 5}, {"d": 3, "e": 4, "f": 0}])
    assert shape.keys is None
    assert shape.fits({"anything": 0, "else": 5})
    assert not shape.fits({"x": 6})
    assert not shape.fits({})
    assert json.loads(json.dumps(shape.words_for())) == "object of 1 to 3 entries, each value whole number from 0 to 5"
