"""Promises of data/mix:

1. After any number of samples each component has its share to within one sample, whatever the weights.
2. Which component a sample is from, and how many came before, is known without walking there.
3. A permutation is one, for every size; seeds give different ones, and all of them.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya.data.mix import Blend, Permutation
from zaya.errors import ConfigError


def worst_error(weights: list[float], samples: int) -> Fraction:
    """The greatest distance of any component from its share among the first samples, counted one by one."""
    blend = Blend(weights)
    shares = [Fraction(str(weight)) / sum(Fraction(str(w)) for w in weights) for weight in weights]
    counts = [0] * len(weights)
    worst = Fraction(0)
    for n in range(samples):
        counts[blend.component(n)] += 1
        worst = max(worst, *(abs(share * (n + 1) - count) for share, count in zip(shares, counts, strict=True)))
    return worst


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_no_component_is_a_sample_away_from_its_share(weights: list[int]):
    k = len(weights)
    worst = worst_error([float(weight) for weight in weights], 2 * sum(weights))
    assert worst <= 1 - Fraction(1, max(2 * k - 2, 1))


def test_weights_for_which_the_greatest_deficit_fails():
    weights = [1, 5, 3, 500, 500, 1, 1, 500, 1, 1, 57]
    counts = [0] * len(weights)
    behind = 0.0
    for n in range(sum(weights)):
        deficits = [w * (n + 1) / sum(weights) - c for w, c in zip(weights, counts, strict=True)]
        counts[deficits.index(max(deficits))] += 1
        behind = max(behind, max(w * (n + 1) / sum(weights) - c for w, c in zip(weights, counts, strict=True)))
    assert behind > 1.4
    assert worst_error([float(weight) for weight in weights], sum(weights)) < 1


def test_the_published_mixture():
    weights = [86.1, 5.7, 0.8, 3.0, 3.0, 1.4]
    assert Blend(weights).period == 1000
    assert worst_error(weights, 2000) <= Fraction(9, 10)


def test_by_hand():
    blend = Blend([0.5, 0.25, 0.25])
    # deficits in quarters before each choice: 2 1 1 | 0 2 2 | 2 -1 3 | 4 0 0
    assert [blend.component(n) for n in range(8)] == [0, 1, 2, 0, 0, 1, 2, 0]
    assert Blend([3]).component(12) == 0


@given(st.lists(st.sampled_from([0.1, 0.25, 1, 2, 7.5]), min_size=1, max_size=4), st.integers(0, 500))
def test_counts_are_known_without_walking(weights: list[float], samples: int):
    blend = Blend(weights)
    seen = Counter(blend.component(n) for n in range(samples))
    assert blend.counts(samples).tolist() == [seen[i] for i in range(len(weights))]


def test_far_away():
    blend = Blend([1, 2])
    assert blend.counts(3 * 10**12).tolist() == [10**12, 2 * 10**12]
    assert blend.component(3 * 10**12 + 1) == blend.component(1)


@pytest.mark.parametrize("weights", [[], [0.0], [1, -1], [float("nan")], [float("inf")]])
def test_weights_that_are_none(weights: list[float]):
    with pytest.raises(ConfigError, match="must be positive"):
        Blend(weights)


def test_weights_with_too_many_digits():
    with pytest.raises(ConfigError, match="come out even only after 10000000 samples") as error:
        Blend([0.1234567, 0.8765433])
    assert "fewer digits" in str(error.value.hint)


@pytest.mark.parametrize("size", [*range(1, 70), 255, 256, 257, 1000, 4097])
def test_a_permutation_takes_every_place_once(size: int):
    order = Permutation(size, 7).at(np.arange(size))
    assert sorted(order.tolist()) == list(range(size))


def test_any_place_is_known_alone():
    permutation = Permutation(1000, 1)
    order = permutation.at(np.arange(1000))
    assert [int(permutation.at([place])[0]) for place in range(1000)] == order.tolist()


def test_large_sizes_stay_inside_and_do_not_repeat():
    size = 10**12 + 39
    values = Permutation(size, 3).at(np.arange(size - 5000, size))
    assert values.min() >= 0
    assert values.max() < size
    assert len(set(values.tolist())) == 5000


def test_every_order_of_four_turns_up_about_as_often():
    orders = Counter(tuple(Permutation(4, seed).at(range(4)).tolist()) for seed in range(2400))
    assert len(orders) == 24
    assert min(orders.values()) > 60
    assert max(orders.values()) < 145


def test_each_place_gets_every_value_about_as_often():
    counts = np.zeros((10, 10), dtype=int)
    for seed in range(2000):
        counts[np.arange(10), Permutation(10, seed).at(range(10))] += 1
    assert counts.min() > 200 - 70  # five standard deviations
    assert counts.max() < 200 + 70
