"""Which environment comes next, and at which level: a schedule that follows what the policy can do.

    Schedule.next()                            ->  environment, level to make a problem at
    Schedule.made / failed(env, difficulty)        whether that could be done
    Schedule.completed(env, difficulty, ...)       how many of the group's rollouts are right

Of two rules for the level, `level` is the one of ZAYA1: one level for each environment, which a group moves by one. Far
more groups are in flight than one, all of them made at the level of a while ago. So only a group of the present level
may move it, up or down: the first to come in does, those behind it are of a level that is gone. `window` is the one of
RLVE: problems come from the upper level and the few below it, and the upper level rises, and never falls, when enough
groups at it were mostly solved.

For every rule: an environment that cannot make problems at its level falls back by one, and one that nobody can solve,
or that cannot be made, at its lowest level is parked for a while. Time is counted in completed groups of all
environments, so that what is decided depends on what was seen and on nothing else. A schedule sees every group, also
those that teach nothing and are dropped. Source: spec post-training 8.3, the parking 8.4.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from zaya.core.rng import derive_seed
from zaya.envs.base import About
from zaya.errors import ConfigError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """How levels follow what the policy can do. The defaults are those of ZAYA1, and for the window those of RLVE."""

    rule: Literal["level", "window"] = "level"
    """One level for each environment, or an upper level and the few below it."""
    raise_above: float = 0.7
    """Rule `level`: a group raises the level if more than this part is right, and lowers it if nothing is."""
    window: int = 4
    """Rule `window`: levels that problems come from."""
    window_groups: int = 8
    """Rule `window`: groups at the upper level behind each decision."""
    window_rate: float = 0.9
    """Rule `window`: part of their rollouts that must be right for the upper level to rise."""
    failures: int = 3
    """Problems in a row that could not be made at a level before it is lowered."""
    unsolved: int = 3
    """Groups in a row at the lowest level with nothing right before the environment is parked."""
    parked_groups: int = 2560
    """Groups, of all environments, that complete before a parked one is tried again: 20 steps of 128."""

    def __post_init__(self) -> None:
        if self.rule not in ("level", "window"):
            raise ConfigError(f"there is no rule {self.rule!r}", hint="it is level or window")
        for name in ("window", "window_groups", "failures", "unsolved", "parked_groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1: {getattr(self, name)}")
        if not 0 <= self.raise_above < 1:
            raise ConfigError(f"raise_above must be at least 0 and below 1: {self.raise_above}")
        if not 0 < self.window_rate <= 1:
            raise ConfigError(f"window_rate must be above 0 and at most 1: {self.window_rate}")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one environment stands. JSON by `asdict`."""

    level: int
    """The level, or the upper one of the window."""
    groups: int = 0
    """Completed so far, at any level."""
    failures: int = 0
    """Problems in a row, up to here, that could not be made at this level."""
    unsolved: int = 0
    """Groups in a row, up to here, with nothing right, at the lowest level as the present one."""
    parked_until: int = 0
    """Groups of all environments after which it may be chosen again; 0 for one that was never parked."""
    seen_groups: int = 0
    """Groups at the upper level since the last decision about the window."""
    seen_rollouts: int = 0
    seen_right: int = 0


def after_group(
    standing: Standing, about: About, config: ScheduleConfig, clock: int, difficulty: int, right: int, rollouts: int
) -> Standing:
    """Where an environment stands once a group is complete; `clock` counts the groups of all, this one included.

    A group without rollouts, whose scorer always failed, counts for how often the environment was chosen, and no more.
    """
    standing = replace(standing, groups=standing.groups + 1)
    if not rollouts or difficulty != standing.level:
        return standing
    if difficulty == about.lowest:
        standing = _after_group_at_lowest(standing, config, clock, right)
    if config.rule == "level":
        change = 1 if right > config.raise_above * rollouts else -1 if right == 0 else 0
        return _moved(standing, about, change)
    standing = replace(
        standing,
        seen_groups=standing.seen_groups + 1,
        seen_rollouts=standing.seen_rollouts + rollouts,
        seen_right=standing.seen_right + right,
    )
    if standing.seen_groups < config.window_groups:
        return standing
    is_solved = standing.seen_right >= config.window_rate * standing.seen_rollouts
    return _moved(replace(standing, seen_groups=0, seen_rollouts=0, seen_right=0), about, int(is_solved))


def _after_group_at_lowest(standing: Standing, config: ScheduleConfig, clock: int, right: int) -> Standing:
    if right:  # also of one that was made before it was parked: somebody can solve it
        return replace(standing, unsolved=0, parked_until=0)
    if clock < standing.parked_until:  # made before it was parked: no news
        return standing
    # A parked one that is tried again and still not solved goes back at once: its count was kept.
    unsolved = min(standing.unsolved + 1, config.unsolved)
    until = clock + config.parked_groups if unsolved == config.unsolved else standing.parked_until
    return replace(standing, unsolved=unsolved, parked_until=until)


def after_making(
    standing: Standing, about: About, config: ScheduleConfig, clock: int, difficulty: int, is_made: bool
) -> Standing:
    """Where an environment stands once a problem was made, or could not be; like groups, only of the present level."""
    if difficulty != standing.level:
        return standing
    failures = 0 if is_made else standing.failures + 1
    if failures < config.failures:
        return replace(standing, failures=failures)
    if standing.level > about.lowest:
        return _moved(standing, about, -1)
    return replace(standing, failures=0, parked_until=max(standing.parked_until, clock + config.parked_groups))


def _moved(standing: Standing, about: About, change: int) -> Standing:
    """At another level, what was counted at this one is over."""
    level = _clamp(standing.level + change, about)
    if level == standing.level:
        return standing
    return replace(standing, level=level, failures=0, seen_groups=0, seen_rollouts=0, seen_right=0)


def _clamp(level: int, about: About) -> int:
    level = max(level, about.lowest)
    return level if about.highest is None else min(level, about.highest)


class Schedule:
    """Environments and the levels they stand at. Its state is JSON."""

    def __init__(
        self,
        abouts: Mapping[str, About],
        config: ScheduleConfig,
        seed: int,
        start: Mapping[str, int] | None = None,
    ) -> None:
        """`abouts`: the environments by name, for the levels they offer. `start`: the level that each begins at, where
        it is not the lowest (`envs.calibration` finds one)."""
        if not abouts:
            raise ConfigError("there is nothing to schedule: no environment is given")
        unknown = sorted((start or {}).keys() - abouts.keys())
        if unknown:
            raise UsageError(f"a start is given for what is not scheduled: {unknown[0]}")
        self.config = config
        self.seed = seed
        self._abouts = dict(abouts)
        self._standings = {
            name: Standing(_clamp((start or {}).get(name, about.lowest), about)) for name, about in abouts.items()
        }
        self._draws = 0
        self._clock = 0

    def begin(self, env: str, level: int, *, is_parked: bool = False) -> None:
        """Before the first problem: the level that an environment begins at, or that it waits, since nobody solved it
        at its lowest level."""
        standing = Standing(_clamp(level, self._abouts[env]))
        if is_parked:
            standing = replace(standing, unsolved=self.config.unsolved, parked_until=self.config.parked_groups)
        self._standings[env] = standing

    def next(self) -> tuple[str, int]:
        """An environment and a level. Those with fewest completed groups are the likeliest; parked ones do not come,
        as long as there are others."""
        rng = random.Random(derive_seed(self.seed, "schedule", self._draws))
        self._draws += 1
        active = [name for name, standing in self._standings.items() if standing.parked_until <= self._clock]
        names = active or list(self._standings)
        name = rng.choices(names, _weights([self._standings[name].groups for name in names]))[0]
        level, lowest = self._standings[name].level, self._abouts[name].lowest
        if self.config.rule == "window":
            return name, rng.randint(max(lowest, level - self.config.window + 1), level)
        return name, level

    def completed(self, env: str, difficulty: int, *, right: int, rollouts: int) -> None:
        """Of a group's rollouts that could be judged, so many are right. Every group counts, once."""
        if not 0 <= right <= rollouts:
            raise UsageError(f"of {rollouts} rollouts {right} cannot be right")
        self._clock += 1
        standing = self._standing(env)
        about = self._abouts[env]
        self._standings[env] = after_group(standing, about, self.config, self._clock, difficulty, right, rollouts)

    def made(self, env: str, difficulty: int) -> None:
        """A problem was made."""
        self._after_making(env, difficulty, True)

    def failed(self, env: str, difficulty: int) -> None:
        """A problem could not be made, or was too long for its reader."""
        self._after_making(env, difficulty, False)

    def level(self, env: str) -> int:
        return self._standing(env).level

    def levels(self) -> dict[str, int]:
        """Of all environments."""
        return {name: standing.level for name, standing in self._standings.items()}

    def is_parked(self, env: str) -> bool:
        return self._standing(env).parked_until > self._clock

    def state(self) -> dict[str, Any]:
        standings = {name: asdict(standing) for name, standing in self._standings.items()}
        return {"draws": self._draws, "clock": self._clock, "standings": standings}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. An environment that it does not know stays at its start; one that is gone is left out."""
        self._draws, self._clock = state["draws"], state["clock"]
        for name in self._standings.keys() & state["standings"].keys():
            self._standings[name] = Standing(**state["standings"][name])

    def _after_making(self, env: str, difficulty: int, is_made: bool) -> None:
        standing, about = self._standing(env), self._abouts[env]
        self._standings[env] = after_making(standing, about, self.config, self._clock, difficulty, is_made)

    def _standing(self, env: str) -> Standing:
        if env not in self._standings:
            raise UsageError(f"environment {env!r} is not in the schedule")
        return self._standings[env]


def _weights(groups: list[int]) -> list[float]:
    """1 / (1 + n / mean(n)): the form is ours, the report only says that the least sampled has the highest weight."""
    total = sum(groups)
    return [total / (total + count * len(groups)) if total else 1.0 for count in groups]
