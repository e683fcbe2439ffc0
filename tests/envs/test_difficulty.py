"""Which environment comes next, and at which level.

1. Rule `level`: a group of the present level raises it above 0.7 and lowers it at 0, never below the lowest or above
   the highest; a group of any other level does nothing, so that of sixteen in flight one counts.
2. Rule `window`: problems come evenly from the upper level and the three below it; the upper level rises after eight
   groups at it of which nine tenths are right, counts anew after each decision, and never falls.
3. Three problems in a row that cannot be made lower the level by one, under both rules and however many are in flight.
4. Three groups in a row with nothing right at the lowest level, or three problems that cannot be made there, park an
   environment; it comes back after so many groups, goes again at once if nothing changed, and stays if something did.
5. Environments are chosen by 1 / (1 + n / mean(n)).
6. A schedule that goes on from its state, as JSON, does what an unbroken one does.
7. A mixture led by a schedule gives problems of its levels, on its side of the split, none twice in one call, and goes
   on from its state; what cannot be made, or does not fit, lowers the level.
8. What cannot be is refused.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.envs.tasks import SCRIPTED
from zaya.envs.adaptive import AdaptiveMixture
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import About, Problem, Stream
from zaya.envs.difficulty import Schedule, ScheduleConfig, Standing, after_group, after_making
from zaya.envs.pool import TaskPool
from zaya.envs.stream import is_held_out
from zaya.errors import ConfigError, DataError, UsageError

ABOUT = About("any", "Apache-2.0")
BOUNDED = About("any", "Apache-2.0", lowest=2, highest=5)
LEVEL = ScheduleConfig()
WINDOW = ScheduleConfig(rule="window")


def schedule(config: ScheduleConfig = LEVEL, about: About = ABOUT, **start: int) -> Schedule:
    return Schedule({"env": about}, config, seed=1, start=start)


@pytest.mark.parametrize(
    ("right", "change"),
    [(16, 1), (12, 1), (11, 0), (5, 0), (1, 0), (0, -1)],  # 12 / 16 = 0.75 and 11 / 16 = 0.69
)
def test_the_level_follows_a_group(right: int, change: int) -> None:
    assert after_group(Standing(4), ABOUT, LEVEL, 1, 4, right, 16).level == 4 + change


def test_exactly_the_threshold_is_not_above_it() -> None:
    assert after_group(Standing(4), ABOUT, LEVEL, 1, 4, 7, 10).level == 4
    assert after_group(Standing(4), ABOUT, LEVEL, 1, 4, 8, 10).level == 5


@pytest.mark.parametrize("right", [16, 0])
@pytest.mark.parametrize("difficulty", [3, 5])
def test_a_group_of_another_level_does_nothing(right: int, difficulty: int) -> None:
    assert after_group(Standing(4), ABOUT, LEVEL, 1, difficulty, right, 16) == Standing(4, groups=1)


@pytest.mark.parametrize(("right", "expected"), [(16, 5), (0, 3)])
def test_of_sixteen_in_flight_one_counts(right: int, expected: int) -> None:
    levels = schedule(env=4)
    flight = [levels.next() for _ in range(16)]
    assert flight == [("env", 4)] * 16
    for env, difficulty in flight:
        levels.completed(env, difficulty, right=right, rollouts=16)
    assert levels.level("env") == expected
    assert levels.next() == ("env", expected)


def test_levels_end_where_the_environment_does() -> None:
    levels = schedule(about=BOUNDED)
    assert levels.next() == ("env", 2)
    levels.completed("env", 2, right=0, rollouts=16)
    assert levels.level("env") == 2
    for level in (2, 3, 4, 5, 5):
        assert levels.next() == ("env", level)
        levels.completed("env", level, right=16, rollouts=16)
    assert schedule(about=BOUNDED, env=9).level("env") == 5
    assert schedule(about=BOUNDED, env=0).level("env") == 2


def test_the_window_draws_evenly() -> None:
    levels = schedule(WINDOW, env=7)
    seen = Counter(levels.next()[1] for _ in range(4000))
    assert sorted(seen) == [4, 5, 6, 7]
    assert all(abs(count - 1000) < 110 for count in seen.values())  # four standard deviations
    assert {schedule(WINDOW).next()[1] for _ in range(20)} == {0}
    low = schedule(WINDOW, BOUNDED, env=3)
    assert {low.next()[1] for _ in range(200)} == {2, 3}


def test_the_window_rises_by_what_was_right() -> None:
    levels = schedule(WINDOW, env=3)
    for difficulty in (0, 1, 2) * 8:  # not the upper level
        levels.completed("env", difficulty, right=16, rollouts=16)
    assert levels.level("env") == 3
    # 8 groups of 16: 116 of 128 are above 0.9, 115 below
    for right in (16, 16, 16, 16, 16, 16, 16):
        levels.completed("env", 3, right=right, rollouts=16)
    assert levels.level("env") == 3
    levels.completed("env", 3, right=4, rollouts=16)
    assert levels.level("env") == 4
    for right in (16, 16, 16, 16, 16, 16, 16, 3):
        levels.completed("env", 4, right=right, rollouts=16)
    assert levels.level("env") == 4
    # had the last eight not been forgotten, one good group would not do, nor seven
    for _ in range(7):
        levels.completed("env", 4, right=16, rollouts=16)
    assert levels.level("env") == 4
    levels.completed("env", 4, right=16, rollouts=16)
    assert levels.level("env") == 5
    for _ in range(40):
        levels.completed("env", 5, right=0, rollouts=16)
    assert levels.level("env") == 5


def test_the_window_counts_rollouts_and_not_groups() -> None:
    levels = schedule(WINDOW)
    for _ in range(7):
        levels.completed("env", 0, right=16, rollouts=16)
    levels.completed("env", 0, right=0, rollouts=1)  # 112 of 113: the mean of the groups' rates is 0.875
    assert levels.level("env") == 1


@pytest.mark.parametrize("config", [LEVEL, WINDOW])
def test_failures_in_a_row_lower_the_level(config: ScheduleConfig) -> None:
    levels = schedule(config, env=6)
    for made in (False, False, True, False, False):
        (levels.made if made else levels.failed)("env", 6)
    assert levels.level("env") == 6
    for _ in range(16):  # all in flight at once
        levels.failed("env", 6)
    assert levels.level("env") == 5
    levels.made("env", 6)
    assert levels.level("env") == 5


def test_failures_are_forgotten_at_another_level() -> None:
    standing = Standing(6, failures=2)
    assert after_group(standing, ABOUT, LEVEL, 1, 6, 16, 16).failures == 0
    assert after_making(standing, ABOUT, LEVEL, 1, 5, False) == standing


def test_nobody_solves_it() -> None:
    config = ScheduleConfig(parked_groups=100)
    levels = Schedule({"hard": ABOUT, "easy": ABOUT}, config, seed=0, start={"hard": 1})
    assert not levels.is_parked("hard")
    for difficulty in (1, 0, 0):
        levels.completed("hard", difficulty, right=0, rollouts=16)
    assert not levels.is_parked("hard")
    levels.completed("hard", 0, right=0, rollouts=16)
    assert levels.is_parked("hard")
    assert {levels.next()[0] for _ in range(50)} == {"easy"}
    for _ in range(49):
        levels.completed("easy", 7, right=8, rollouts=16)
        levels.completed("hard", 0, right=0, rollouts=16)  # was in flight: does not prolong it
    assert levels.is_parked("hard")
    for _ in range(2):
        levels.completed("easy", 7, right=8, rollouts=16)
    assert not levels.is_parked("hard")
    assert {levels.next()[0] for _ in range(50)} == {"easy", "hard"}
    levels.completed("hard", 0, right=0, rollouts=16)
    assert levels.is_parked("hard")
    levels.completed("hard", 0, right=1, rollouts=16)  # in flight, and somebody did
    assert not levels.is_parked("hard")
    for _ in range(2):
        levels.completed("hard", 0, right=0, rollouts=16)
    assert not levels.is_parked("hard")


def test_it_cannot_be_made() -> None:
    levels = Schedule({"broken": ABOUT, "whole": ABOUT}, LEVEL, seed=0, start={"broken": 1})
    for difficulty in (1, 1, 1, 0, 0, 0):
        assert not levels.is_parked("broken")
        levels.failed("broken", difficulty)
    assert levels.is_parked("broken")
    assert levels.level("broken") == 0


def test_when_all_are_parked_all_come() -> None:
    levels = Schedule({"a": ABOUT, "b": ABOUT}, LEVEL, seed=0)
    for env in ("a", "b"):
        for _ in range(3):
            levels.completed(env, 0, right=0, rollouts=16)
    assert levels.is_parked("a")
    assert levels.is_parked("b")
    assert {levels.next()[0] for _ in range(50)} == {"a", "b"}


def test_choice() -> None:
    levels = Schedule(dict.fromkeys("abc", ABOUT), LEVEL, seed=3)
    seen = Counter(levels.next()[0] for _ in range(3000))
    assert all(abs(count - 1000) < 110 for count in seen.values())
    for env, groups in (("b", 10), ("c", 20)):
        for _ in range(groups):
            levels.completed(env, 9, right=8, rollouts=16)
    # mean 10: the weights are 1, 1/2 and 1/3, of a sum of 11/6
    seen = Counter(levels.next()[0] for _ in range(11_000))
    assert seen["a"] == pytest.approx(6000, abs=220)
    assert seen["b"] == pytest.approx(3000, abs=190)
    assert seen["c"] == pytest.approx(2000, abs=170)


def test_a_group_that_could_not_be_judged_counts_for_the_choice_alone() -> None:
    assert after_group(Standing(0, unsolved=2), ABOUT, LEVEL, 1, 0, 0, 0) == Standing(0, groups=1, unsolved=2)
    assert after_group(Standing(4), ABOUT, LEVEL, 1, 4, 0, 0) == Standing(4, groups=1)


@pytest.mark.parametrize("config", [LEVEL, WINDOW])
def test_goes_on(config: ScheduleConfig) -> None:
    def steps(levels: Schedule, rng: random.Random, count: int) -> list[tuple[str, int]]:
        drawn = []
        for _ in range(count):
            drawn.append(levels.next())
            if rng.random() < 0.2:
                levels.failed(*drawn[-1])
                continue
            levels.made(*drawn[-1])
            levels.completed(*drawn[-1], right=rng.choice([0, 8, 15, 16]), rollouts=16)
        return drawn

    abouts = {"a": ABOUT, "b": BOUNDED, "c": ABOUT}
    start = {"a": 9, "b": 5, "c": 4}
    whole = steps(Schedule(abouts, config, 5, start), random.Random(1), 400)
    rng = random.Random(1)
    first = Schedule(abouts, config, 5, start)
    begun = steps(first, rng, 150)
    second = Schedule(abouts, config, seed=5)
    second.load_state(json.loads(json.dumps(first.state())))
    assert second.state() == first.state()
    assert begun + steps(second, rng, 250) == whole
    assert len(set(whole)) > 10


def test_a_state_without_an_environment() -> None:
    old = Schedule({"a": ABOUT, "gone": ABOUT}, LEVEL, seed=0, start={"a": 3})
    new = Schedule({"a": ABOUT, "new": ABOUT}, LEVEL, seed=0, start={"new": 2})
    new.load_state(json.loads(json.dumps(old.state())))
    assert (new.level("a"), new.level("new")) == (3, 2)


def follow(levels: Schedule, mu: dict[str, float], groups: int, in_flight: int) -> None:
    """A policy that solves 16 of 16 below mu, half at it, and none above, with many groups on the way."""
    waiting: list[tuple[str, int]] = []
    for _ in range(groups):
        while len(waiting) < in_flight:
            waiting.append(levels.next())
        env, difficulty = waiting.pop(0)
        right = 16 if difficulty < mu[env] else 8 if difficulty == mu[env] else 0
        levels.completed(env, difficulty, right=right, rollouts=16)


@pytest.mark.parametrize("in_flight", [1, 16, 64])
def test_it_finds_the_level_and_stays(in_flight: int) -> None:
    mu = {"a": 3, "b": 8}
    levels = Schedule(dict.fromkeys(mu, ABOUT), LEVEL, seed=0)
    follow(levels, mu, 1500, in_flight)
    assert {env: levels.level(env) for env in mu} == mu


@pytest.fixture(scope="module")
def pool() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=60) as pool:
        yield pool


def mixture(pool: TaskPool, split: Any = "train", start: int = 2, **options: Any) -> AdaptiveMixture:
    levels = Schedule({"arithmetic": ARITHMETIC.about}, LEVEL, 0, {"arithmetic": start})
    return AdaptiveMixture(levels, Stream("practice", split, 0.3), pool, **options)


def test_problems_come_at_their_level(pool: TaskPool) -> None:
    mixed = mixture(pool)
    first = mixed.next(60)
    assert {problem.difficulty for problem in first} == {2}
    assert len({problem.prompt for problem in first}) == 60
    assert not any(is_held_out(problem, 0.3) for problem in first)
    assert all(is_held_out(problem, 0.3) for problem in mixture(pool, "held_out").next(20))
    mixed.completed(first[0], right=16, rollouts=16)
    mixed.completed(first[1], right=16, rollouts=16)
    second = mixed.next(5)
    assert {problem.difficulty for problem in second} == {3}
    other = mixture(pool)
    assert other.next(60) == first
    other.load_state(json.loads(json.dumps(mixed.state())))
    assert other.next(30) == mixed.next(30)
    assert other.count == mixed.count == 95


def test_what_does_not_fit_lowers_the_level(pool: TaskPool) -> None:
    def fits(problem: Problem) -> bool:
        return len(problem.meta["terms"]) <= 4  # difficulty 2

    mixed = mixture(pool, start=5, fits=fits)
    assert all(fits(problem) for problem in mixed.next(10))
    assert mixed.schedule.level("arithmetic") == 2


def test_what_fits_now_and_then_does_not(pool: TaskPool) -> None:
    turns = itertools.count(1)
    mixed = mixture(pool, start=5, fits=lambda problem: next(turns) % 3 == 0)
    assert len(mixed.next(10)) == 10
    assert mixed.schedule.level("arithmetic") == 5


def test_what_cannot_be_made_lowers_the_level() -> None:
    levels = Schedule({SCRIPTED.name: SCRIPTED.about}, LEVEL, 0, {SCRIPTED.name: 3})
    with TaskPool(sample_timeout_s=0.5) as impatient:
        mixed = AdaptiveMixture(levels, Stream("practice", "train", 0.1), impatient)
        found = mixed.next(3)  # level 3 has no problems, 2 raises, 1 takes for ever
        assert [problem.difficulty for problem in found] == [0, 0, 0]
        with pytest.raises(DataError, match=r"too few train problems: 3\d found, 60 wanted"):
            mixed.next(60)  # it has 40


def test_refusals() -> None:
    for bad in (
        {"rule": "other"}, {"window": 0}, {"raise_above": 1.0}, {"window_rate": 0.0}, {"failures": 0}, {"unsolved": 0},
        {"parked_groups": 0}, {"window_groups": 0},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            ScheduleConfig(**bad)
    with pytest.raises(ConfigError, match="nothing to schedule"):
        Schedule({}, LEVEL, 0)
    with pytest.raises(UsageError, match="not scheduled: b"):
        Schedule({"a": ABOUT}, LEVEL, 0, {"b": 1})
    with pytest.raises(UsageError, match="17 cannot be right"):
        schedule().completed("env", 0, right=17, rollouts=16)
    with pytest.raises(UsageError, match="'other' is not in the schedule"):
        schedule().completed("other", 0, right=1, rollouts=16)
