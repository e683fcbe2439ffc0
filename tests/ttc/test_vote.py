"""The choice at the end.

1. The largest cluster of equivalent answers wins, of equal ones the earliest; who has no answer does not vote.
2. Of a cluster the member is returned that the model finished, then the shortest.
3. The selection table: auto, majority, single, random, a judge, what programs do, and when one more call is wanted.
4. The last box that is closed is the answer.
5. Answers as they come are in the groups that they are in together; of thousands that differ not all are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from zaya.errors import UsageError
from zaya.ttc.types import Candidate
from zaya.ttc.vote import Groups, boxed, check_selection, clusters, select


def candidate(answer: str | None, worker: int = 0, tokens: int = 10, finished: bool = True) -> Candidate:
    return Candidate(
        worker=worker, text=f"it is {answer}", reasoning="", answer=answer, is_finished=finished, prompt_tokens=1,
        generated_tokens=tokens,
    )  # fmt: skip


def chosen(candidates: Sequence[Candidate], selection: Any, seed: int = 0, **options: Any) -> Candidate | None:
    return select(candidates, selection, seed, **options).candidate


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
    assert chosen(crowd, "majority") is crowd[3]
    assert chosen(crowd[:2], "majority") is crowd[0]
    assert chosen([candidate(None)], "majority") is None
    assert select(crowd, "majority", 0).tally == (("2", 4), ("1", 1))


def test_selection() -> None:
    crowd = [candidate(None, 0), candidate("2", 1), candidate("3", 2), candidate("2", 3, 5)]
    silent = [candidate(None, i) for i in range(4)]
    assert chosen(crowd, "auto") is chosen(crowd, "majority") is crowd[3]
    assert chosen(crowd[:2], "auto") is crowd[1]
    assert chosen(crowd[:1], "single") is chosen(crowd[:1], "auto") is crowd[0]
    assert chosen(silent, "majority") is None
    for selection, who in (("random", crowd), ("auto", silent)):
        drawn = [select(who, selection, seed).candidate for seed in range(40)]
        assert {one.worker for one in drawn if one is not None} == {0, 1, 2, 3}
        assert chosen(who, selection, 7) is chosen(who, selection, 7)
    assert all(chosen([], selection) is None for selection in ("auto", "majority", "single", "random"))


def test_who_is_to_be_asked() -> None:
    """Spec 8.2: a majority of two answers or more; else the tails are weighed once more; else anybody."""
    one = [candidate("2", 0), candidate(None, 1)]
    tails = [replace(each, tail="so it is") for each in one]
    two = [*tails, candidate("3", 2)]
    assert select(two, "auto", 0, may_ask=True).how == "majority"
    asked = select(tails, "auto", 0, may_ask=True)
    assert (asked.candidate, asked.how, asked.tally) == (None, "aggregate", (("2", 1),))
    assert select(two, "aggregate", 0, may_ask=True).candidate is None
    # nobody to ask, or nothing to show
    assert select(tails, "auto", 0).candidate is tails[0]
    assert select(one, "auto", 0, may_ask=True).how == "random"


def test_a_judge_and_what_programs_do() -> None:
    crowd = [candidate("x + 1", 0, 9), candidate("1 + x", 1, 7), candidate("x", 2, 1), candidate(None, 3)]
    crowd = [replace(each, text=each.answer or "") for each in crowd]
    assert chosen(crowd, "external", judge=lambda each: each.worker % 3) is crowd[2]
    does = {"x + 1": "2 3", "1 + x": "2 3", "x": "1 2"}
    found = select(crowd, "behaviour", 0, behaviour=does.get)
    assert (found.candidate, found.how) == (crowd[1], "behaviour")
    assert select(crowd, "behaviour", 0, behaviour=lambda _: None).how == "random"
    with pytest.raises(UsageError, match="selection external needs a function to ask"):
        check_selection("external", 4, None, None)
    with pytest.raises(UsageError, match="selection behaviour needs a function to ask"):
        check_selection("behaviour", 4, None, None)
    with pytest.raises(UsageError, match="one final rollout: there are 4"):
        check_selection("single", 4, None, None)
    with pytest.raises(UsageError, match="no selection 'majorty'"):
        check_selection("majorty", 4, None, None)


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


def test_groups_as_they_come() -> None:
    answers = ["1/2", "7", "0.5", "7.0", "8", "7"]
    groups = Groups(equal_numbers)
    assert [groups.of(answer) for answer in answers] == [0, 1, 0, 1, 2, 1]
    assert groups.first == ["1/2", "7", "8"]
    assert sorted(map(sorted, clusters(answers, equal_numbers))) == [[0, 2], [1, 3, 5], [4]]


def test_many_that_differ() -> None:
    compared = 0

    def equal(gold: str, answer: str) -> bool:
        nonlocal compared
        compared += 1
        return False

    groups = Groups(equal)
    assert [groups.of(str(i)) for i in range(500)] == list(range(500))
    assert [groups.of(str(i)) for i in range(500)] == list(range(500))
    assert compared <= 64 * 500
