"""Credit on paper, and the identities that make it MaxRL.

1. MaxRL: advantages sum to 0, those of correct rollouts to the number of failures; each lies in [-1, G - 1], and a lone
   success has G - 1. GRPO gives the same success 3.87 of 16. The expected update is that of log p, cut off at order
   G - 1.
2. A group in which all earned the same is dropped, by any rule.
3. The length bonus has the values of its formula, touches correct rollouts alone, and is off where it must be: one
   correct rollout, a solve rate below the best of the source, lengths that cannot be told apart.
4. The bonus enters the numerator: the denominator is the mean reward without it.
5. The best solve rate of a source is the maximum of its moving average, and survives being saved.
6. The samples of a group follow from the rewards after the canary, and leave the solve rates alone.
7. Credit does not depend on log-probabilities or on the age of weights. A sampled log-ratio, subtracted from the
   reward, would be a bonus of beta * KL for every token: computed exactly, for all sequences of two fixed policies.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya.engine.types import FinishReason
from zaya.envs.base import Score
from zaya.errors import ConfigError, UsageError
from zaya.rl.advantage import AdvantageConfig, SolveRates, group_advantages, is_informative, length_bonus, samples
from zaya.rl.types import Rollout, RolloutGroup

MAXRL = AdvantageConfig()
GRPO = AdvantageConfig(kind="grpo")
SHAPED = AdvantageConfig(length_weight=1.0, l_max=1000, t_len=50)


def credit(rewards: list[float], config: AdvantageConfig = MAXRL, **more: Any) -> tuple[float, ...]:
    advantages = group_advantages(rewards, more.pop("lengths", [10] * len(rewards)), config, best_rate=0.0, **more)
    assert advantages is not None
    return advantages


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=32).filter(is_informative))
def test_maxrl_identities(rewards: list[float]) -> None:
    advantages = credit(rewards)
    failures = rewards.count(0.0)
    assert math.fsum(advantages) == pytest.approx(0, abs=1e-12)
    assert math.fsum(a for a, r in zip(advantages, rewards, strict=True) if r) == pytest.approx(failures)
    for advantage, reward in zip(advantages, rewards, strict=True):
        assert 0 < advantage < len(rewards) - 1 + 1e-9 if reward else advantage == pytest.approx(-1)


def test_a_lone_success() -> None:
    rewards = [0.0] * 15 + [1.0]
    assert credit(rewards) == (-1.0,) * 15 + (15.0,)
    # mean 1/16, deviation sqrt(1/16 * 15/16): 15/16 over that is sqrt(15)
    assert credit(rewards, GRPO) == pytest.approx((-1 / math.sqrt(15),) * 15 + (math.sqrt(15),), abs=2e-5)
    assert round(credit(rewards, GRPO)[-1], 2) == 3.87


@pytest.mark.parametrize(("size", "p"), [(2, 0.3), (4, 0.5), (8, 0.05), (16, 0.9)])
def test_the_expected_update_is_that_of_maximum_likelihood(size: int, p: float) -> None:
    """By p, with scores 1/p of a success and -1/(1 - p) of a failure, over all numbers of successes:
    log p has 1/p = sum over j >= 0 of (1 - p)^j, of which size - 1 terms are left."""
    expected = 0.0
    for right in range(size + 1):
        advantages = group_advantages([1.0] * right + [0.0] * (size - right), [1] * size, MAXRL, best_rate=0.0)
        scores = [1 / p] * right + [-1 / (1 - p)] * (size - right)
        if advantages is not None:
            update = math.fsum(a * s for a, s in zip(advantages, scores, strict=True)) / size
            expected += math.comb(size, right) * p**right * (1 - p) ** (size - right) * update
    assert expected == pytest.approx(sum((1 - p) ** j for j in range(size - 1)))


def test_rewards_between_0_and_1() -> None:
    assert credit([0.0, 0.5, 1.0, 0.5]) == (-1, 0, 1, 0)
    assert credit([-3.0, 1.0], GRPO) == pytest.approx((-1, 1), abs=1e-6)
    with pytest.raises(UsageError, match=r"between 0 and 1: -1\.0 to 0\.5"):
        credit([-1.0, 0.5])


@pytest.mark.parametrize("rewards", [[], [1.0], [0.0] * 4, [1.0] * 4, [0.1] * 3, [0.7] * 16])
@pytest.mark.parametrize("config", [MAXRL, GRPO, SHAPED])
def test_what_says_nothing_is_dropped(rewards: list[float], config: AdvantageConfig) -> None:
    """Also where sums of equal rewards round to another mean."""
    assert not is_informative(rewards)
    assert group_advantages(rewards, list(range(1, len(rewards) + 1)), config, best_rate=0.0) is None


@pytest.mark.parametrize(
    ("lengths", "right", "bonus"),
    [
        # p = 3/4; shortest 200, of 1000: 1/2 - (600 - 200) / 800 = 0, and 1/2 - 1 at the end
        ([200, 600, 1000, 100], 3, [0.375, 0, -0.375, 0]),
        # within 50 of the shortest the whole; just beyond, 1/2 - 51/800
        ([200, 250, 251, 100], 3, [0.375, 0.375, 0.75 * (0.5 - 51 / 800), 0]),
        # longer than l_max is no worse than l_max
        ([200, 5000, 200, 100], 3, [0.375, -0.375, 0.375, 0]),
        # two correct: p = 1/2; the wrong ones do not set the shortest
        ([200, 600, 1, 2], 2, [0.25, 0, 0, 0]),
        # one correct
        ([200, 600, 1, 2], 1, [0, 0, 0, 0]),
        ([200, 600, 1, 2], 0, [0, 0, 0, 0]),
        # all as long as allowed, or longer
        ([1000, 1000, 1500, 100], 3, [0.375, 0.375, 0.375, 0]),
        ([400, 400, 400, 400], 4, [0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_length_bonus(lengths: list[int], right: int, bonus: list[float]) -> None:
    correct = [i < right for i in range(4)]
    assert length_bonus(lengths, correct, SHAPED, best_rate=0.0) == pytest.approx(bonus, abs=1e-15)
    half = AdvantageConfig(length_weight=0.5, l_max=1000, t_len=50)
    assert length_bonus(lengths, correct, half, best_rate=0.0) == pytest.approx([b / 2 for b in bonus], abs=1e-15)
    assert length_bonus(lengths, correct, AdvantageConfig(l_max=1000), best_rate=0.0) == (0, 0, 0, 0)


def test_the_tolerance_is_a_hundredth_of_l_max() -> None:
    config = AdvantageConfig(length_weight=1.0, l_max=1000)
    assert length_bonus([200, 210, 211], [True] * 3, config, best_rate=0.0) == (0.5, 0.5, 0.5 - 11 / 800)


@pytest.mark.parametrize(("best", "is_on"), [(0.5, True), (0.74, True), (0.75, False), (1.0, False)])
def test_no_bonus_while_the_source_does_worse_than_before(best: float, is_on: bool) -> None:
    """p = 1/2 has to lie above p* - 1/4."""
    config = AdvantageConfig(length_weight=1.0, l_max=1000, t_acc=0.25)
    assert any(length_bonus([200, 600, 1, 2], [True, True, False, False], config, best_rate=best)) == is_on


def test_the_bonus_enters_the_numerator_alone() -> None:
    rewards, lengths = [1.0, 1.0, 1.0, 0.0], [200, 600, 1000, 100]
    # rewards with bonus 1.375, 1, 0.625, 0; their mean is 3/4 again, which is also what divides
    assert credit(rewards, SHAPED, lengths=lengths) == pytest.approx((0.625 / 0.75, 1 / 3, -0.125 / 0.75, -1))
    # 1.375, 1.375, 0.625, 0 have mean 27/32, and 3/4 still divides
    lengths = [200, 200, 1000, 100]
    shaped = credit(rewards, SHAPED, lengths=lengths)
    assert shaped == pytest.approx([(x - 27 / 32) / 0.75 for x in (1.375, 1.375, 0.625, 0)])
    assert math.fsum(shaped) == pytest.approx(0, abs=1e-12)
    task = AdvantageConfig(length_weight=1.0, length_baseline="task", l_max=1000, t_len=50)
    assert credit(rewards, task, lengths=lengths) == pytest.approx(
        [(x - 0.75) / 0.75 for x in (1.375, 1.375, 0.625, 0)]
    )


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(1, 1500)), min_size=2, max_size=16),
    st.floats(0, 1),
)
def test_the_denominator_is_not_touched(rollouts: list[tuple[float, int]], weight: float) -> None:
    """Differences to the plain advantages, times the mean reward, are the bonus and nothing else."""
    rewards, lengths = [r for r, _ in rollouts], [n for _, n in rollouts]
    config = AdvantageConfig(length_weight=weight, length_baseline="task", l_max=1000)
    plain = group_advantages(rewards, lengths, MAXRL, best_rate=0.0)
    shaped = group_advantages(rewards, lengths, config, best_rate=0.0)
    assert (plain is None) == (shaped is None)
    if plain is None or shaped is None:
        return
    mean = sum(rewards) / len(rewards)
    bonus = length_bonus(lengths, [r == 1 for r in rewards], config, best_rate=0.0)
    assert [(s - p) * mean for s, p in zip(shaped, plain, strict=True)] == pytest.approx(bonus, abs=1e-12)
    assert max(map(abs, bonus)) <= weight * mean / 2 + 1e-12


def test_solve_rates() -> None:
    rates = SolveRates()
    seen = []
    for rate in (1.0, 0.0, 1.0, 0.5):
        rates.update("a", rate)
        seen.append((rates.average("a"), rates.best("a")))
    expected = [(0.1, 0.1), (0.09, 0.1), (0.181, 0.181), (0.2129, 0.2129)]
    assert seen == [pytest.approx(pair) for pair in expected]
    for _ in range(300):
        rates.update("a", 0.75)
    for _ in range(300):
        rates.update("a", 0.25)
    assert (rates.average("a"), rates.best("a")) == pytest.approx((0.25, 0.75))
    assert (rates.average("b"), rates.best("b")) == (0, 0)


def test_solve_rates_are_saved() -> None:
    rates, other = SolveRates(), SolveRates()
    for rate in (1.0, 0.0):
        rates.update("a", rate)
    saved = rates.state()
    other.load_state(json.loads(json.dumps(saved)))
    rates.update("a", 0.5)
    assert (other.average("a"), other.best("a")) == pytest.approx((0.09, 0.1))
    other.update("a", 0.5)
    assert other.state() == rates.state()
    assert saved["average"] == pytest.approx({"a": 0.09})


def rollout(reward: float, length: int, *, flagged: bool = False) -> Rollout:
    return Rollout(
        ids=tuple(range(length)),
        behavior_logprobs=np.full(length, -1.0, np.float32),
        routes=None,
        weight_versions=(0,) * length,
        finish_reason=FinishReason.STOP,
        score=Score(reward, reward == 1),
        is_flagged=flagged,
    )


def group(*rollouts: Rollout) -> RolloutGroup:
    return RolloutGroup("key", "arithmetic", (1, 2), rollouts)


def test_samples_of_a_group() -> None:
    rates = SolveRates(decay=0)
    given = group(rollout(1, 200), rollout(1, 600), rollout(0, 100), rollout(1, 10, flagged=True))
    made = samples(given, SHAPED, rates)
    # the flagged one counts as wrong: p = 1/2, and its 10 tokens are not the shortest
    assert [s.advantage for s in made] == pytest.approx([(x - 9 / 16) / 0.5 for x in (1.25, 1, 0, 0)])
    assert [s.rollout for s in made] == list(given.rollouts)
    assert all(s.group is given for s in made)
    assert rates.state() == SolveRates().state()
    rates.update("arithmetic", 0.6)
    assert [s.advantage for s in samples(given, SHAPED, rates)] == [1, 1, -1, -1]


def test_flagged_to_the_last_is_dropped() -> None:
    given = group(rollout(1, 20, flagged=True), rollout(0, 20), rollout(0, 30))
    assert samples(given, MAXRL, SolveRates()) == []
    assert samples(group(), MAXRL, SolveRates()) == []


@pytest.mark.parametrize("length", [1, 2, 4, 8])
def test_a_log_ratio_in_the_reward_would_pay_for_length(length: int) -> None:
    """l = log pi(y) - log mu(y), y drawn from mu: -beta * sum(l) looks like a penalty for distance."""
    mu, pi, beta = (0.5, 0.25, 0.25), (0.25, 0.25, 0.5), 0.1
    kl = 0.25 * math.log(2)  # KL(mu || pi) = 1/2 ln 2 + 0 - 1/4 ln 2
    bonus = 0.0
    for ids in product(range(3), repeat=length):
        probability = math.prod(mu[i] for i in ids)
        bonus -= probability * beta * sum(math.log(pi[i] / mu[i]) for i in ids)
    assert bonus == pytest.approx(beta * length * kl, rel=1e-12)
    assert bonus > 0


def test_credit_knows_no_log_probabilities() -> None:
    """Two right answers, one of them long and stale, and a wrong one."""
    fresh = group(rollout(1, 10), rollout(1, 400), rollout(0, 10))
    short, long, wrong = fresh.rollouts
    stale = replace(long, behavior_logprobs=np.full(400, -9.0, np.float32), weight_versions=(-3,) * 400)
    given, wanted = (
        [s.advantage for s in samples(g, MAXRL, SolveRates())] for g in (group(short, stale, wrong), fresh)
    )
    assert given == wanted == pytest.approx([0.5, 0.5, -1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length_weight": -1.0}, "must not be negative"),
        ({"t_acc": -0.1}, "must not be negative"),
        ({"l_max": 0}, "l_max must be at least 1"),
        ({"t_len": -1}, "t_len at least 0"),
        ({"kind": "grpo", "length_weight": 0.5}, "belongs to maxrl"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdvantageConfig(**settings)
