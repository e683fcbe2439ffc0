"""Promises of data/pack:

1. Every item is in exactly one bin, whole; no bin holds more than it can.
2. The bins are those of best fit decreasing, and hardly any space is lost.
3. The same lengths give the same bins.
4. An item that does not fit is an error; splitting is asked for and loses nothing.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya.data.pack import pack, split
from zaya.errors import DataError

problems = st.integers(1, 40).flatmap(
    lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=60))
)


def plain_best_fit(lengths: list[int], capacity: int) -> list[int]:
    """Tokens in each bin, by looking at every bin for every item."""
    bins: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, used in enumerate(bins) if used + length <= capacity]
        if fitting:
            bins[max(fitting, key=lambda i: bins[i])] += length
        else:
            bins.append(length)
    return bins


def fewest_bins(lengths: tuple[int, ...], capacity: int, bins: tuple[int, ...] = ()) -> int:
    """The optimum, by trying everything."""
    if not lengths:
        return len(bins)
    first, rest = lengths[0], lengths[1:]
    tries = [fewest_bins(rest, capacity, (*bins, first))]
    for i, used in enumerate(bins):
        if used + first <= capacity:
            tries.append(fewest_bins(rest, capacity, (*bins[:i], used + first, *bins[i + 1 :])))
    return min(tries)


@given(problems)
def test_items_are_placed_once_and_whole(problem: tuple[int, list[int]]):
    capacity, lengths = problem
    packing = pack(np.array(lengths, dtype=np.int32), capacity)
    assert sorted(packing.items.tolist()) == list(range(len(lengths)))
    held = [sum(lengths[item] for item in packing.bin(b)) for b in range(len(packing))]
    assert held == packing.tokens.tolist()
    assert all(0 < tokens <= capacity for tokens in held)
    if lengths:
        assert packing.fill == pytest.approx(sum(lengths) / (len(packing) * capacity))


@given(problems)
def test_the_bins_are_those_of_best_fit_decreasing(problem: tuple[int, list[int]]):
    capacity, lengths = problem
    assert sorted(pack(np.array(lengths), capacity).tokens) == sorted(plain_best_fit(lengths, capacity))


@given(st.integers(2, 12).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=7))))
def test_few_items_take_at_most_one_bin_more_than_the_optimum(problem: tuple[int, list[int]]):
    capacity, lengths = problem
    bins = len(pack(np.array(lengths), capacity))
    optimum = fewest_bins(tuple(lengths), capacity)
    assert math.ceil(sum(lengths) / capacity) <= optimum <= bins
    assert bins <= 11 / 9 * optimum + 6 / 9  # the proven bound of the method


def test_by_hand():
    packing = pack(np.array([2, 5, 4, 3, 6, 2]), 8)
    # 6 | 5 | 4 | 3 joins 5 | 2 joins 6 | 2 joins 4
    assert [packing.bin(b).tolist() for b in range(3)] == [[4, 0], [1, 3], [2, 5]]
    assert packing.tokens.tolist() == [8, 8, 6]
    assert packing.fill == 22 / 24


@pytest.mark.parametrize(
    ("median", "spread", "capacity", "least"),
    [(600, 1.2, 4096, 0.999), (9_000, 0.9, 32_768, 0.999)],
    ids=["web", "reasoning"],
)
def test_little_space_is_lost_on_realistic_lengths(median: int, spread: float, capacity: int, least: float):
    drawn = np.random.default_rng(0).lognormal(np.log(median), spread, 20_000).astype(np.int64) + 1
    _, _, lengths = split(drawn, capacity)
    packing = pack(lengths, capacity)
    assert packing.fill >= least
    assert len(packing) <= 1.001 * math.ceil(lengths.sum() / capacity) + 1
    again = pack(lengths.copy(), capacity)
    assert np.array_equal(packing.items, again.items)
    assert np.array_equal(packing.offsets, again.offsets)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="2 items are longer than a bin of 8 tokens, the longest has 11") as error:
        pack(np.array([3, 9, 8, 11]), 8)
    assert "trim" in str(error.value.hint)
    with pytest.raises(DataError, match="no tokens: item 1"):
        pack(np.array([3, 0]), 8)


def test_nothing_packs_into_nothing():
    packing = pack(np.array([], dtype=np.int32), 8)
    assert len(packing) == 0
    assert packing.fill == 1.0


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 12))
def test_splitting_cuts_only_long_documents_into_consecutive_chunks(lengths: list[int], capacity: int):
    rows = list(zip(*(column.tolist() for column in split(np.array(lengths, dtype=np.int32), capacity)), strict=True))
    for document, length in enumerate(lengths):
        covered = [start + i for d, start, chunk in rows if d == document for i in range(chunk)]
        assert covered == list(range(length))
        chunks = [chunk for d, _, chunk in rows if d == document]
        assert chunks[:-1] == [capacity] * (len(chunks) - 1)
        assert 1 <= chunks[-1] <= capacity
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
