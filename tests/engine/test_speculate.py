"""Drafts out of a text: what followed the longest run of last tokens, where it stood last before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zaya.engine.speculate import LONGEST, SHORTEST, PromptLookup


def propose(ids: list[int], count: int = 3) -> list[int]:
    lookup = PromptLookup()
    lookup.extend(ids)
    return lookup.propose(count)


def test_examples() -> None:
    assert propose([1, 2, 3, 4, 9, 1, 2]) == [3, 4, 9]
    assert propose([1, 2, 3, 1, 2, 4, 1, 2], 1) == [4], "the last place"
    assert propose([5, 1, 2, 7, 6, 1, 2, 8, 5, 1, 2]) == [7, 6, 1], "the longest run"
    assert propose([1, 1, 1, 1], 5) == [1], "the run before, and what is known of what follows"
    assert propose([1, 2, 3, 2]) == []
    assert propose([1]) == []
    assert propose([1, 2, 1, 2], 0) == []


@given(st.lists(st.integers(0, 2), max_size=20), st.data())
def test_against_a_plain_search(ids: list[int], data: st.DataObject) -> None:
    lookup, at = PromptLookup(), 0
    while at < len(ids):  # in pieces, asked in between
        more = data.draw(st.integers(1, 4))
        lookup.extend(ids[at : at + more])
        at = len(lookup)
        expected: list[int] = []
        for size in range(LONGEST, SHORTEST - 1, -1):
            places = (
                [end for end in range(size, at) if ids[end - size : end] == ids[at - size : at]] if size <= at else []
            )
            if places:
                expected = ids[places[-1] : at][:3]
                break
        assert lookup.propose(3) == expected
