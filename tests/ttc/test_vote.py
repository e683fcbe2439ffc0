"""The choice at the end.

1. The largest cluster of equivalent answers wins, of equal ones the earliest; who has no answer does not vote.
2. Of a cluster the member is returned that the model finished, then the shortest.
3. The selection table: auto, majority, single, random.
4. The last box that is closed is the answer.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from zaya.ttc.types import Candidate
from zaya.ttc.vote import boxed, clusters, majority, select


def candidate(answer: str | None, worker: int = 0, tokens: int = 10, finished: bool = True) -> Candidate:
    return Candidate(
        worker=worker, text=f"it is {answer}", reasoning="", answer=answer, is_finished=finished, prompt_tokens=1,
        generated_tokens=tokens,
    )  # fmt: skip


def equal_numbers(a: str, b: str) -> bool:
    return Fraction(a) == Fraction(b)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["a", "b", "b", None, "c"], [[1, 2], [0], [4]]),
        (["a", "b", "b ", "a"], [[0, 3], [1, 2]]),
        (["c", "b", "b", "a", "a"], [[1, 2], [3, 4], [0]]),
        ([None, None], []),
        ([], []),
    ],
)
def test_clusters(answers: list[str | None], expected: list[list[int]]) -> None:
    assert clusters(answers) == expected


def test_equivalent_answers_are_one() -> None:
    answers = ["3", "1/2", "3", "0.5", "2/4"]
    assert clusters(answers)[0] == [0, 2]
    assert clusters(answers, equal_numbers) == [[1, 3, 4], [0, 2]]


def test_the_member() -> None:
    crowd = [
        candidate("1", 0, 5),
        candidate("2", 1, 3, finished=False),
        candidate("2", 2, 9),
        candidate("2", 3, 8),
        candidate("2", 4, 8),
    ]
    assert majority(crowd) is crowd[3]
    assert majority(crowd[:2]) is crowd[0]
    assert majority([candidate(None)]) is None
    # answers can be read anew
    assert majority(crowd, lambda text: None if "2" in text else text) is crowd[0]


def test_selection() -> None:
    crowd = [candidate(None, 0), candidate("2", 1), candidate("3", 2), candidate("2", 3, 5)]
    silent = [candidate(None, i) for i in range(4)]
    assert select(crowd, "auto", 0) is select(crowd, "majority", 0) is crowd[3]
    assert select(crowd[:2], "auto", 0) is crowd[1]
    assert select(crowd[:1], "single", 0) is crowd[0]
    assert select(silent, "majority", 0) is None
    for selection, who in (("random", crowd), ("auto", silent)):
        drawn = [select(who, selection, seed) for seed in range(40)]
        assert {chosen.worker for chosen in drawn if chosen is not None} == {0, 1, 2, 3}
        assert select(who, selection, 7) is select(who, selection, 7)
    assert all(select([], selection, 0) is None for selection in ("auto", "majority", "single", "random"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} no, \boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"} { \boxed{1}", "1"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{}", None),
        ("42", None),
        ("", None),
    ],
)
def test_boxes(text: str, answer: str | None) -> None:
    assert boxed(text) == answer


def test_boxes_without_end_take_no_time() -> None:
    assert boxed("\\boxed{" * 100_000) is None
