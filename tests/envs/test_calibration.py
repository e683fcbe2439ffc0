"""Where a policy's training begins.

1. The weight of a curve after a group is what Bayes' rule makes it, by hand, and stays a number where the likelihood of
   every curve is too small for one.
2. The prior is half Gaussian, half logarithmic, and the same for all who share a seed.
3. Draws go where a likely curve has one half, now and then a quarter or three quarters, on the levels on offer.
4. A pool that collapsed is drawn anew around the curves that are left, shaken, and weighed by what was seen, old groups
   less than new ones.
5. In simulation the level of one half is found to within one level, root mean square, for 0 to 20, in 24 groups at
   most; 60 and 110 are reached; what is too hard at its lowest level starts there, and what is too easy at its highest.
6. It is a function of its seed and of what it saw, and goes on from its state, as JSON.
7. A level that cannot be made ends the levels halfway down to one that could, so that few are tried in vain.
8. Unsolved is what had nothing right anywhere, and so many groups at its lowest level.
"""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from zaya.envs.base import About
from zaya.envs.calibration import Calibration, CalibrationConfig, Curve, Observation, effective_size, prior, weighed
from zaya.errors import ConfigError, UsageError

ABOUT = About("any", "Apache-2.0")


def logs(*weights: float) -> list[float]:
    return [math.log(weight) for weight in weights]


def of(curves: list[Curve], weights: list[float], about: About = ABOUT, **config: Any) -> Calibration:
    """A calibration with a pool of our own."""
    calibration = Calibration(about, CalibrationConfig(curves=len(curves), **config), seed=0)
    state = calibration.state()
    state |= {"curves": [[curve.mu, curve.s] for curve in curves], "log_weights": logs(*weights)}
    calibration.load_state(state)
    return calibration


def test_the_weights_by_hand() -> None:
    # s ln 3 away from mu the rate is 1/4 or 3/4, at mu 1/2; of 4 rollouts 3 are right:
    # (3/4)^3 (1/4) = 27/256, (1/2)^4 = 16/256, (1/4)^3 (3/4) = 3/256
    step = math.log(3)
    curves = [Curve(5 + step, 1.0), Curve(5.0, 2.0), Curve(5 - 2 * step, 2.0)]
    seen = Observation(5, 3, 4)
    found = weighed(logs(1 / 3, 1 / 3, 1 / 3), curves, seen)
    assert [math.exp(weight) for weight in found] == pytest.approx([27 / 46, 16 / 46, 3 / 46])
    # with the weights 1/2, 1/4, 1/4 before: 54, 16, 3 of 73
    found = weighed(logs(1 / 2, 1 / 4, 1 / 4), curves, seen)
    assert [math.exp(weight) for weight in found] == pytest.approx([54 / 73, 16 / 73, 3 / 73])
    assert effective_size(logs(1 / 2, 1 / 4, 1 / 4)) == pytest.approx(1 / (1 / 4 + 1 / 16 + 1 / 16))
    assert curves[2].difficulty(1 / 4) == pytest.approx(5.0)


def test_weights_stay_numbers() -> None:
    # exp(-16 * 4000) and exp(-16 * 4004) are 0 as floats; their ratio is e^64, not 0/0
    curves = [Curve(-1000.0, 0.25), Curve(-1001.0, 0.25)]
    found = weighed(logs(0.5, 0.5), curves, Observation(0, 16, 16))
    assert found[0] == pytest.approx(0.0, abs=1e-12)
    assert found[1] == pytest.approx(-64.0)


def test_the_prior() -> None:
    curves = prior(CalibrationConfig(curves=20_000), 1)
    gauss, tail = curves[:10_000], curves[10_000:]
    mus = [curve.mu for curve in gauss]
    mean = sum(mus) / len(mus)
    assert mean == pytest.approx(8, abs=0.6)
    assert math.sqrt(sum((mu - mean) ** 2 for mu in mus) / len(mus)) == pytest.approx(15, abs=0.5)
    assert all(1 <= curve.mu <= 200 for curve in tail)
    # a logarithmic scale: half lie below the square root of 200, a quarter above 200^(3/4) = 53
    assert sum(curve.mu < math.sqrt(200) for curve in tail) == pytest.approx(5000, abs=200)
    assert sum(curve.mu > 200**0.75 for curve in tail) == pytest.approx(2500, abs=180)
    assert min(curve.s for curve in curves) > 0
    assert prior(CalibrationConfig(), 1) == prior(CalibrationConfig(), 1) != prior(CalibrationConfig(), 2)


def test_draws() -> None:
    # one curve, s = 10 / ln 3: one half at 40, three quarters at 30, a quarter at 50
    calibration = of([Curve(40.0, 10 / math.log(3))], [1.0])
    drawn = [calibration.next() for _ in range(2000)]
    assert set(drawn) == {30, 40, 50}
    assert drawn.count(30) == pytest.approx(100, abs=40)
    assert drawn.count(50) == pytest.approx(100, abs=40)
    assert {of([Curve(40.0, 3.0)], [1.0], About("any", "", highest=20)).next()} == {20}
    assert {of([Curve(-40.0, 3.0)], [1.0], About("any", "", lowest=3)).next()} == {3}
    two = of([Curve(10.0, 1.0), Curve(20.0, 1.0)], [0.75, 0.25], explore=0.0)
    drawn = [two.next() for _ in range(2000)]
    assert drawn.count(10) == pytest.approx(1500, abs=80)
    assert drawn.count(20) == 2000 - drawn.count(10)


def test_drawn_anew() -> None:
    curves = [Curve(float(mu), 1.0) for mu in range(0, 400, 2)]
    calibration = of(curves, [1 / len(curves)] * len(curves))
    calibration.observe(200, right=0, rollouts=16)  # half of them explain that
    assert calibration.state()["curves"] == [[curve.mu, curve.s] for curve in curves]
    calibration = of(curves, [1 / len(curves)] * len(curves))
    calibration.observe(20, right=8, rollouts=16)
    pool = calibration.state()["curves"]
    assert len(pool) == len(curves)
    assert all(15 < mu < 25 for mu, _ in pool)
    assert len({mu for mu, _ in pool}) == len(curves), "not shaken"
    assert not calibration.is_done, "believed the spread of the jitter"
    expected = [Curve(mu, s).log_likelihood(Observation(20, 8, 16)) for mu, s in pool]
    total = math.log(sum(map(math.exp, expected)))
    assert calibration.state()["log_weights"] == pytest.approx([value - total for value in expected])


def test_old_groups_count_less() -> None:
    curves = [Curve(9 + i / 4, 3.0) for i in range(20)]
    calibration = of(curves, [1 / 20] * 20, least_effective=1.0, decay=0.5)
    seen = [Observation(10, 4, 6), Observation(14, 3, 6), Observation(12, 1, 6)]
    for each in seen:
        calibration.observe(each.difficulty, right=each.right, rollouts=each.rollouts)
    state = calibration.state()
    assert len({mu for mu, _ in state["curves"]}) > 5
    values = [
        sum(part * Curve(mu, s).log_likelihood(each) for part, each in zip((0.25, 0.5, 1.0), seen, strict=True))
        for mu, s in state["curves"]
    ]
    total = math.log(sum(map(math.exp, values)))
    assert state["log_weights"] == pytest.approx([value - total for value in values])


def calibrated(mu: float, s: float, seed: int, about: About = ABOUT) -> Calibration:
    """One that asked a policy whose rates lie on a curve."""
    calibration = Calibration(about, CalibrationConfig(), seed)
    rng = random.Random(f"{mu} {s} {seed}")
    while not calibration.is_done:
        difficulty = calibration.next()
        rate = 1 / (1 + math.exp(min(700.0, (difficulty - mu) / s)))
        calibration.observe(difficulty, right=sum(rng.random() < rate for _ in range(16)), rollouts=16)
    return calibration


def errors(mu: float, runs: int) -> list[float]:
    found = [calibrated(mu, (1.5, 3.0, 5.0)[seed % 3], seed) for seed in range(runs)]
    assert all(len(one.observations) <= 24 for one in found)
    return [one.start - mu for one in found]


@pytest.mark.parametrize("mu", [0, 1, 4, 8, 12, 16, 20])
def test_the_level_is_found(mu: int) -> None:
    assert math.sqrt(sum(error**2 for error in errors(mu, 18)) / 18) <= 1


@pytest.mark.parametrize(("mu", "most"), [(60, 4), (110, 6)])
def test_far_levels_are_reached(mu: int, most: int) -> None:
    # a pool without the logarithmic half is off by 8 and 55
    assert max(map(abs, errors(mu, 12))) <= most


@pytest.mark.parametrize("mu", [-3, -10, -40])
def test_too_hard(mu: float) -> None:
    for seed in range(6):
        found = calibrated(mu, 2.0, seed)
        assert found.start == 0
        assert len(found.observations) < 24


def test_too_easy() -> None:
    assert {calibrated(40, 3.0, seed, About("any", "", highest=6)).start for seed in range(6)} == {6}


def test_goes_on() -> None:
    whole = calibrated(30, 4.0, 3)
    assert whole.state() == calibrated(30, 4.0, 3).state()
    assert len(whole.observations) > 6
    first = Calibration(ABOUT, CalibrationConfig(), 3)
    for seen in whole.observations[:6]:
        assert first.next() == seen.difficulty
        first.observe(seen.difficulty, right=seen.right, rollouts=seen.rollouts)
    second = Calibration(ABOUT, CalibrationConfig(), 3)
    second.load_state(json.loads(json.dumps(first.state())))
    for seen in whole.observations[6:]:
        assert second.next() == seen.difficulty
        second.observe(seen.difficulty, right=seen.right, rollouts=seen.rollouts)
    assert second.state() == whole.state()
    assert second.is_done


def test_a_group_that_could_not_be_judged_says_nothing() -> None:
    calibration = Calibration(ABOUT, CalibrationConfig(), 0)
    before = calibration.state()
    calibration.observe(3, right=0, rollouts=0)
    assert calibration.state() == before


def test_levels_that_cannot_be_made() -> None:
    calibration = Calibration(About("any", "Apache-2.0", lowest=2), CalibrationConfig(), seed=0)
    ends = []
    for level in (150, 75, 38, 20):
        calibration.failed(level)
        ends.append(calibration.highest)
    assert ends == [75, 38, 19, 10]  # halfway to 1, below the lowest
    assert max(calibration.next() for _ in range(200)) == 10
    calibration.observe(8, right=4, rollouts=4)
    calibration.failed(10)
    assert calibration.highest == 9  # halfway to 8, which could be made
    other = Calibration(About("any", "Apache-2.0", lowest=2), CalibrationConfig(), seed=0)
    other.load_state(json.loads(json.dumps(calibration.state())))
    assert other.highest == 9
    calibration.failed(9)
    assert (calibration.highest, calibration.can_be_made) == (8, True)
    other = Calibration(About("any", "Apache-2.0", lowest=2), CalibrationConfig(), seed=0)
    other.failed(3)
    assert (other.highest, other.can_be_made) == (2, True)
    other.failed(2)
    assert not other.can_be_made


def test_unsolved() -> None:
    calibration = Calibration(About("any", "Apache-2.0", lowest=1), CalibrationConfig(), seed=0)
    for level in (5, 1, 1):
        calibration.observe(level, right=0, rollouts=4)
    assert not calibration.is_unsolved(3)
    calibration.observe(1, right=0, rollouts=4)
    assert calibration.is_unsolved(3)
    calibration.observe(5, right=1, rollouts=4)
    assert not calibration.is_unsolved(3)


def test_refusals() -> None:
    for bad in (
        {"curves": 0}, {"budget": 0}, {"explore": 2.0}, {"decay": -1.0}, {"least_effective": 2.0}, {"jitter": -1.0},
        {"certain": -1.0}, {"prior_most": 1.0}, {"settle": 0},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            CalibrationConfig(**bad)
    with pytest.raises(UsageError, match="9 cannot be right"):
        Calibration(ABOUT, CalibrationConfig(), 0).observe(1, right=9, rollouts=8)
