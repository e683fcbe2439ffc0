"""Metrics by hand.

1. avg@k and its two intervals have the values of paper, and the intervals hold what they say in simulation.
2. A paired difference sees what two intervals side by side do not.
3. pass@k and majority@k are those of all subsets, counted one by one.
4. What cannot be averaged or compared is refused.
5. The formula of a paired difference agrees with a bootstrap over problems, and holds what it says in simulation; so
   does the interval of pass@k.
6. The sign test is that of a fair coin, counted out.
"""

from __future__ import annotations

import math
import random
from itertools import combinations, permutations, product
from statistics import mean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zaya.errors import UsageError
from zaya.eval.metrics import (
    avg_at_k,
    majority_at_k,
    paired_difference,
    pass_at_k,
    pass_curve,
    percentile,
    sign_test,
)
from zaya.ttc.vote import clusters


def test_avg_at_k_on_paper() -> None:
    # p = 1/2, 1, 1/4: mean 7/12
    estimate = avg_at_k({"a": [1, 0, 1, 0], "b": [1, 1, 1, 1], "c": [0, 0, 0, 1]})
    assert estimate.mean == pytest.approx(7 / 12)
    # p(1-p)/(k-1): 1/12, 0, 1/16, their sum 7/48, over 9
    assert estimate.sampling == pytest.approx(1.96 * math.sqrt(7 / 48 / 9))
    # deviations -1/12, 5/12, -4/12: squares 42/144, over 2 and over 3
    assert estimate.problems == pytest.approx(1.96 * math.sqrt(42 / 144 / 6))
    assert (estimate.num_problems, estimate.num_values) == (3, 12)


def test_what_is_not_known() -> None:
    single = avg_at_k({"a": [1], "b": [0]})
    assert (single.mean, single.sampling) == (0.5, None)
    alone = avg_at_k({"a": [1, 0], "b": []})
    assert (alone.mean, alone.problems, alone.num_problems) == (0.5, None, 1)
    # a problem that lost all samples but one is as uncertain as the others: s² = 1/2 over 1, 1/2 over 2, over 4
    short = avg_at_k({"a": [1, 0], "b": [1]})
    assert short.sampling == pytest.approx(1.96 * math.sqrt((0.25 + 0.5) / 4))
    with pytest.raises(UsageError, match="no problem has a value"):
        avg_at_k({"a": []})


def test_intervals_hold_what_they_say() -> None:
    """Of 400 evaluations about 95 % hold the truth; 3 sigma of that count is 3.3 %."""
    rng = random.Random(1)

    def rates(number: int) -> list[float]:
        return [rng.betavariate(2, 1) for _ in range(number)]  # mean 2/3

    def sampled(rates: list[float]) -> dict[str, list[int]]:
        return {str(i): [int(rng.random() < rate) for _ in range(8)] for i, rate in enumerate(rates)}

    fixed = rates(40)
    held = {"sampling": 0, "problems": 0}
    for _ in range(400):
        same, other = avg_at_k(sampled(fixed)), avg_at_k(sampled(rates(40)))
        held["sampling"] += abs(same.mean - mean(fixed)) <= (same.sampling or 0)
        held["problems"] += abs(other.mean - 2 / 3) <= (other.problems or 0)
    assert 0.917 < held["sampling"] / 400 < 0.983
    assert 0.917 < held["problems"] / 400 < 0.983


def test_paired_difference_on_paper() -> None:
    hard, easy = [0, 0, 0, 1], [1, 1, 1, 0]
    a = {"a": [0, 0, 1, 1], "b": [1, 1, 1, 1], "c": hard}
    b = {"c": [0, 0, 0, 0], "a": hard, "b": easy}
    difference = paired_difference(a, b)
    # 1/4 on each: no doubt over problems, though either alone varies widely
    assert (difference.mean, difference.problems) == (0.25, 0)
    assert (avg_at_k(a).problems or 0) > 0.4
    # of a: 1/12 + 0 + 1/16, of b: 1/16 + 1/16 + 0, over 9
    assert difference.sampling == pytest.approx(1.96 * math.sqrt((7 / 48 + 1 / 8) / 9))
    assert (difference.num_problems, difference.num_values) == (3, 24)
    assert paired_difference({**a, "d": []}, {**b, "d": [1]}).num_problems == 3
    with pytest.raises(UsageError, match="1 of the first and 0 of the second"):
        paired_difference({**a, "d": [1]}, b)
    with pytest.raises(UsageError, match="nothing to compare"):
        paired_difference({"a": []}, {"a": [1]})


@pytest.mark.parametrize(("n", "right", "k"), [(5, 2, 1), (5, 2, 3), (5, 0, 3), (5, 5, 2), (6, 1, 6), (4, 3, 2)])
def test_pass_at_k_counts_subsets(n: int, right: int, k: int) -> None:
    subsets = list(combinations(range(n), k))
    assert pass_at_k(n, right, k) == pytest.approx(sum(min(s) < right for s in subsets) / len(subsets))


def test_majority_at_k_on_paper() -> None:
    answers, right = ["a", "a", "b", None], [True, True, False, False]
    assert majority_at_k(answers, right, 1) == 0.5
    # pairs: aa, a-, a- right; ab, ab half; b- wrong
    assert majority_at_k(answers, right, 2) == pytest.approx((3 + 2 * 0.5) / 6)
    assert majority_at_k(answers, right, 4) == 1
    assert majority_at_k([None, None], [False, False], 2) == 0
    # two spellings of the right answer: apart they lose to the wrong one, together they tie with it
    answers, right = ["1/2", "0.5", "3", "3"], [True, True, False, False]
    assert majority_at_k(answers, right, 4) == 0
    assert majority_at_k(answers, right, 4, lambda a, b: (a == "3") == (b == "3")) == 0.5
    for k in (0, 5):
        with pytest.raises(UsageError, match=f"number of samples: {k}, 4"):
            majority_at_k(answers, right, k)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=6), st.data())
def test_majority_at_k_is_that_of_votes_in_any_order(answers: list[str | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, min(4, len(answers))))
    won = []
    for order in permutations(range(len(answers)), k):
        found = clusters([answers[i] for i in order])
        won.append(bool(found) and answers[order[found[0][0]]] == "a")
    assert majority_at_k(answers, [answer == "a" for answer in answers], k) == pytest.approx(mean(won))


def test_majority_at_k_of_many_samples_takes_no_time() -> None:
    answers = [str(i % 40) for i in range(200)]
    assert 0 < majority_at_k(answers, [answer == "0" for answer in answers], 32) < 0.1


def systems(rng: random.Random, number: int, samples: int) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Two systems on as many problems: the second right a tenth more often, on problems hard for both."""
    found: tuple[dict[str, list[int]], dict[str, list[int]]] = ({}, {})
    for i in range(number):
        rate = 0.9 * rng.betavariate(1, 1)
        for side, own in zip(found, (rate, rate + 0.1), strict=True):
            side[str(i)] = [int(rng.random() < own) for _ in range(samples)]
    return found


def test_a_bootstrap_agrees_with_the_paired_interval() -> None:
    """Problems drawn again with replacement; its error from 4,000 draws is about 1 %."""
    rng = random.Random(2)
    a, b = systems(rng, 120, 8)
    estimate = paired_difference(b, a)
    differences = [mean(b[i]) - mean(a[i]) for i in a]
    drawn = [mean(rng.choices(differences, k=len(differences))) for _ in range(4000)]
    assert mean(drawn) == pytest.approx(estimate.mean, abs=0.002)
    assert 1.96 * stdev(drawn) == pytest.approx(estimate.problems, rel=0.05)
    unpaired = math.hypot(avg_at_k(a).problems or 0, avg_at_k(b).problems or 0)
    assert (estimate.problems or 1) < unpaired / 2


def test_the_intervals_of_differences_and_passes_hold_what_they_say() -> None:
    """Of 400 evaluations about 95 % hold the truth: a tenth, and the mean of 1 - (1 - p)^4 for p even on [0, 0.9]."""
    rng = random.Random(3)
    truth = 1 - (1 - 0.1**5) / (5 * 0.9)
    held = {"difference": 0, "pass": 0}
    for _ in range(400):
        a, b = systems(rng, 40, 8)
        difference, passed = paired_difference(b, a), pass_curve(a)[4]
        held["difference"] += abs(difference.mean - 0.1) <= (difference.problems or 0)
        held["pass"] += abs(passed.mean - truth) <= (passed.problems or 0)
    assert 0.917 < held["difference"] / 400 < 0.983
    assert 0.917 < held["pass"] / 400 < 0.983


def test_pass_curve() -> None:
    curve = pass_curve({"a": [1, 0, 0, 0, 0], "b": [1, 1, 1, 1, 0, 0, 0, 0], "c": []})
    assert list(curve) == [1, 2, 4], "five samples are the fewest"
    assert curve[1].mean == pytest.approx(avg_at_k({"a": [1, 0, 0, 0, 0], "b": [1, 0]}).mean)
    first, second = 4 / 5, 1 - 1 / 70
    assert curve[4].mean == pytest.approx((first + second) / 2)
    assert curve[4].problems == pytest.approx(1.96 * (second - first) / 2)  # of two: s² / 2 is the square of half
    assert pass_curve({}) == pass_curve({"a": []}) == {}


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 0), (0, 5), (3, 1), (4, 4), (7, 3)])
def test_sign_test_counts_coins(wins: int, losses: int) -> None:
    throws = list(product((0, 1), repeat=wins + losses))
    as_far = sum(abs(2 * sum(throw) - len(throw)) >= abs(wins - losses) for throw in throws)
    assert sign_test(wins, losses) == pytest.approx(as_far / len(throws))
    assert sign_test(400, 800) < 1e-20


def test_percentiles() -> None:
    assert [percentile([4, 1, 3, 2], share) for share in (0, 0.25, 0.5, 0.51, 0.9, 1)] == [1, 1, 2, 3, 4, 4]
    with pytest.raises(UsageError, match="no percentile of nothing"):
        percentile([], 0.5)
