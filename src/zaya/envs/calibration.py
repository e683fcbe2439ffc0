"""Where a policy's training begins: the level of an environment at which it solves about half of the problems.

There is a pool of curves, P(right) = 1 / (1 + exp((difficulty - mu) / s)), each with a weight. In turn: a curve is
drawn by weight, a group of rollouts is sampled at the level where that curve says one half, and every curve is weighed
by how well it explains what came out (Thompson sampling). When few curves carry all the weight, the pool is drawn anew
from them.

Two things let it find what the pool does not hold. The prior is heavy-tailed: half of the curves lie on a logarithmic
scale up to 200, since some tasks are solvable far beyond 100. And curves that are drawn anew are shaken a little, or
the pool could never leave the values it began with; they are then weighed by what was seen, old groups less than new
ones. That looks at the data twice, so the spread of the pool is no honest posterior any more; it leans to the curves
that fit, which is what a search wants. Source: spec post-training 8.4, with its simulated constants.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zaya.core.rng import derive_seed
from zaya.envs.base import About
from zaya.errors import ConfigError, UsageError

_LEAST_S = 0.25
"""Steeper than this, a curve is a step between two neighbouring levels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationConfig:
    """The pool, the draws, and when to stop."""

    curves: int = 512
    """In the pool."""
    budget: int = 24
    """Groups at most."""
    explore: float = 0.1
    """Part of the draws that ask for a rate of 0.25 or 0.75 in place of 0.5, which tells more of the slope."""
    least_effective: float = 0.1
    """The pool is drawn anew when its effective size falls below this part of it."""
    decay: float = 0.7
    """What a group counts against the one after it, when curves that were drawn anew are weighed."""
    jitter: float = 0.5
    """Standard deviation, in levels, of what is added to a curve that is drawn anew."""
    certain: float = 0.5
    """Spread of the level to start at, in levels, below which it is known well enough. The pool is too sure of itself:
    in simulation its spread is about half of the error that remains."""
    settle: int = 2
    """Groups after the pool was drawn anew before its spread is believed: right after, it is that of the jitter."""
    prior_mu: tuple[float, float] = (8.0, 15.0)
    """Mean and standard deviation of the Gaussian half of the prior."""
    prior_most: float = 200.0
    """Where the logarithmic half of it ends; it begins at 1."""
    prior_s: tuple[float, float] = (3.0, 2.0)
    """Mean and standard deviation of the slope, before its sign is dropped."""

    def __post_init__(self) -> None:
        for name in ("curves", "budget", "settle"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1: {getattr(self, name)}")
        for name in ("explore", "least_effective", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in [0, 1]: {getattr(self, name)}")
        if self.jitter < 0 or self.certain < 0:
            raise ConfigError(f"jitter and certain must not be negative: {self.jitter}, {self.certain}")
        if self.prior_most <= 1:
            raise ConfigError(f"prior_most must be above 1: {self.prior_most}")


@dataclass(frozen=True, slots=True)
class Curve:
    """How the rate of right answers falls with difficulty."""

    mu: float
    """The difficulty at which it is one half."""
    s: float
    """Levels over which it falls: from 0.73 to 0.27 within 2 s."""

    def difficulty(self, rate: float) -> float:
        """Where it has that rate."""
        return self.mu + self.s * math.log((1 - rate) / rate)

    def log_likelihood(self, observation: Observation) -> float:
        """Of what was seen, up to a constant that all curves share: the binomial coefficient."""
        x = (observation.difficulty - self.mu) / self.s
        wrong = observation.rollouts - observation.right
        return -observation.right * _softplus(x) - wrong * _softplus(-x)


@dataclass(frozen=True, slots=True)
class Observation:
    """A group of rollouts at a level."""

    difficulty: int
    right: int
    rollouts: int


def prior(config: CalibrationConfig, seed: int) -> list[Curve]:
    """The curves before anything was seen. One seed for all environments gives them the same ones."""
    rng = random.Random(derive_seed(seed, "calibration prior"))
    half = config.curves // 2
    mus = [rng.gauss(*config.prior_mu) for _ in range(config.curves - half)]
    mus += [math.exp(rng.uniform(0.0, math.log(config.prior_most))) for _ in range(half)]
    return [Curve(mu, max(_LEAST_S, abs(rng.gauss(*config.prior_s)))) for mu in mus]


def weighed(log_weights: Sequence[float], curves: Sequence[Curve], observation: Observation) -> list[float]:
    """The logarithms of the weights after a group, of weights that sum to 1."""
    pairs = zip(log_weights, curves, strict=True)
    return _normalised([weight + curve.log_likelihood(observation) for weight, curve in pairs])


def effective_size(log_weights: Sequence[float]) -> float:
    """How many curves of equal weight would be as spread out: 1 / sum of the squared weights."""
    return 1 / sum(math.exp(2 * weight) for weight in log_weights)


class Calibration:
    """The search for one environment. Its state is JSON.

    `next` may be called several times before `observe`: draws differ, so groups can be sampled side by side.
    """

    def __init__(self, about: About, config: CalibrationConfig, seed: int) -> None:
        self.about = about
        self.config = config
        self.seed = seed
        self.highest = about.highest
        """The hardest level that is asked for: what there is, or can be made; None where no end is known."""
        self.observations: list[Observation] = []
        self._curves = prior(config, seed)
        self._log_weights = [-math.log(len(self._curves))] * len(self._curves)
        self._draws = 0
        self._settled_at = 0
        """Observations from which on the spread is believed."""

    def next(self) -> int:
        """The level that the next group is to be sampled at."""
        rng = random.Random(derive_seed(self.seed, "calibration draw", self._draws))
        self._draws += 1
        curve = rng.choices(self._curves, self._weights())[0]
        rate = rng.choice((0.25, 0.75)) if rng.random() < self.config.explore else 0.5
        return round(self._clamp(curve.difficulty(rate)))

    def observe(self, difficulty: int, *, right: int, rollouts: int) -> None:
        """Of a group's rollouts at a level, so many are right."""
        if not 0 <= right <= rollouts:
            raise UsageError(f"of {rollouts} rollouts {right} cannot be right")
        if not rollouts:  # nothing could be judged
            return
        self.observations.append(Observation(difficulty, right, rollouts))
        self._log_weights = weighed(self._log_weights, self._curves, self.observations[-1])
        if effective_size(self._log_weights) < self.config.least_effective * len(self._curves):
            self._draw_anew()

    def failed(self, difficulty: int) -> None:
        """No problem can be made at a level, so none is asked for there or above. The new end is halfway down to what
        was made: one level at a time would take for ever, and what is too low only makes a start too easy."""
        made = max((seen.difficulty for seen in self.observations if seen.difficulty < difficulty), default=None)
        below = self.about.lowest - 1 if made is None else made
        self.highest = below + (difficulty - below) // 2

    @property
    def can_be_made(self) -> bool:
        """Whether there is a level left at which no making has failed."""
        return self.highest is None or self.highest >= self.about.lowest

    def is_unsolved(self, groups: int) -> bool:
        """Whether so many groups were sampled at the lowest level and nothing was right, there or anywhere."""
        at_lowest = sum(seen.difficulty == self.about.lowest for seen in self.observations)
        return at_lowest >= groups and not any(seen.right for seen in self.observations)

    @property
    def start(self) -> int:
        """The level to begin at. Tasks too hard at their lowest level begin there."""
        mean = sum(weight * curve.mu for weight, curve in zip(self._weights(), self._curves, strict=True))
        return round(self._clamp(mean))

    @property
    def spread(self) -> float:
        """Standard deviation of the level to begin at. How far beyond the levels on offer a curve lies is no matter."""
        weights, levels = self._weights(), [self._clamp(curve.mu) for curve in self._curves]
        mean = sum(weight * level for weight, level in zip(weights, levels, strict=True))
        variance = sum(weight * (level - mean) ** 2 for weight, level in zip(weights, levels, strict=True))
        return math.sqrt(variance)

    @property
    def is_done(self) -> bool:
        groups = len(self.observations)
        return groups >= self.config.budget or (groups >= self._settled_at and self.spread < self.config.certain)

    def state(self) -> dict[str, Any]:
        return {
            "curves": [[curve.mu, curve.s] for curve in self._curves],
            "log_weights": list(self._log_weights),
            "observations": [asdict(observation) for observation in self.observations],
            "draws": self._draws,
            "settled_at": self._settled_at,
            "highest": self.highest,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._curves = [Curve(mu, s) for mu, s in state["curves"]]
        self._log_weights = list(state["log_weights"])
        self.observations = [Observation(**observation) for observation in state["observations"]]
        self._draws, self._settled_at = state["draws"], state["settled_at"]
        self.highest = state["highest"]

    def _weights(self) -> list[float]:
        return [math.exp(weight) for weight in self._log_weights]

    def _draw_anew(self) -> None:
        self._settled_at = len(self.observations) + self.config.settle
        rng = random.Random(derive_seed(self.seed, "calibration anew", len(self.observations)))
        chosen = rng.choices(self._curves, self._weights(), k=len(self._curves))
        jitter = self.config.jitter
        self._curves = [Curve(curve.mu + rng.gauss(0, jitter), curve.s) for curve in chosen]
        ages = range(len(self.observations) - 1, -1, -1)
        recency = [self.config.decay**age for age in ages]
        self._log_weights = _normalised(
            [
                sum(part * curve.log_likelihood(seen) for part, seen in zip(recency, self.observations, strict=True))
                for curve in self._curves
            ]
        )

    def _clamp(self, level: float) -> float:
        if self.highest is not None:
            level = min(level, self.highest)
        return max(level, self.about.lowest)


def _softplus(x: float) -> float:
    """log(1 + exp(x)), at any x."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _normalised(log_weights: Sequence[float]) -> list[float]:
    most = max(log_weights)
    total = most + math.log(sum(math.exp(weight - most) for weight in log_weights))
    return [weight - total for weight in log_weights]
