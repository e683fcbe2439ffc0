"""From rewards to credit: the advantage of each rollout, by comparison within its group.

    canary gate -> is the group informative? -> length bonus -> advantage

The gate is in `RolloutGroup.rewards`. The main rule is MaxRL, whose objective is log p of the solve rate p: it divides
by the mean reward, so a prompt that is rarely solved pulls harder, and no constant is needed against division by zero,
because a group with mean 0 is dropped. The length bonus goes into the numerator alone and only ever moves correct
rollouts. Log-probabilities have no part in credit: a sampled log-ratio subtracted from the reward is a bonus for length
(tests/rl/test_advantage.py computes it). Source: spec post-training 3.2 to 3.5. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from zaya.errors import ConfigError, UsageError
from zaya.rl.types import RolloutGroup, Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class AdvantageConfig:
    """How rewards become advantages."""

    kind: Literal["maxrl", "grpo"] = "maxrl"
    """Divide by the mean reward of the group, or by its standard deviation (of the population)."""
    length_weight: float = 0.0
    """c: a correct rollout gains or loses at most half of this, times the solve rate, by its length. 0 turns it off."""
    length_baseline: Literal["shaped", "task"] = "shaped"
    """What is subtracted: the mean of reward and bonus, so that advantages sum to 0, or the mean of the reward."""
    l_max: int = 81_920
    """Tokens at which the bonus is lowest: the longest response that is allowed."""
    t_len: int | None = None
    """T_len: tokens above the shortest correct response that still get the whole bonus; none for a hundredth of
    l_max."""
    t_acc: float = 0.1
    """T_acc: the bonus is off in groups whose solve rate lies this far below the best of their source."""

    def __post_init__(self) -> None:
        if self.length_weight < 0 or self.t_acc < 0:
            raise ConfigError(
                f"advantage.length_weight and t_acc must not be negative: {self.length_weight}, {self.t_acc}"
            )
        if self.l_max < 1 or (self.t_len is not None and self.t_len < 0):
            raise ConfigError(f"advantage.l_max must be at least 1, and t_len at least 0: {self.l_max}, {self.t_len}")
        if self.kind == "grpo" and self.length_weight:
            raise ConfigError(
                f"advantage.length_weight belongs to maxrl; with grpo it has no meaning: {self.length_weight}",
                hint="set advantage.length_weight=0",
            )


class SolveRates:
    """Of each source, a moving average of the solve rates of its groups, and the highest it has been: p*.

    The highest rate of a single group would be 1 almost at once, and the length bonus off ever after. For the same
    reason the average starts at 0: a first group that happens to be solved must not set the mark. Every group counts,
    also one that is dropped, and counts after its own samples are made.
    """

    def __init__(self, decay: float = 0.9) -> None:
        assert 0 <= decay < 1
        self.decay = decay
        self._average: dict[str, float] = {}
        self._best: dict[str, float] = {}

    def average(self, source: str) -> float:
        return self._average.get(source, 0.0)

    def best(self, source: str) -> float:
        """p*. 0 for a source that was never seen."""
        return self._best.get(source, 0.0)

    def update(self, source: str, rate: float) -> None:
        average = self.decay * self.average(source) + (1 - self.decay) * rate
        self._average[source] = average
        self._best[source] = max(self.best(source), average)

    def state(self) -> dict[str, dict[str, float]]:
        """JSON: what `load_state` of another one needs."""
        return {"average": dict(self._average), "best": dict(self._best)}

    def load_state(self, state: Mapping[str, Mapping[str, float]]) -> None:
        self._average, self._best = dict(state["average"]), dict(state["best"])


def samples(group: RolloutGroup, config: AdvantageConfig, rates: SolveRates) -> list[Sample]:
    """The rollouts of a group with their credit; none where the group is dropped. Leaves `rates` as they are."""
    advantages = group_advantages(
        group.rewards,
        [len(rollout.ids) for rollout in group.rollouts],
        config,
        best_rate=rates.best(group.source),
        correct=[rollout.score.correct and not rollout.is_flagged for rollout in group.rollouts],
    )
    if advantages is None:
        return []
    return [Sample(group, rollout, a) for rollout, a in zip(group.rollouts, advantages, strict=True)]


def is_informative(rewards: Sequence[float]) -> bool:
    """Whether the group says anything about which rollout is better: not where all earned the same, 0, 1 or between."""
    return len(set(rewards)) > 1


def group_advantages(
    rewards: Sequence[float],
    lengths: Sequence[int],
    config: AdvantageConfig,
    *,
    best_rate: float,
    correct: Sequence[bool] | None = None,
) -> tuple[float, ...] | None:
    """The advantage of each rollout of one group; None where the group is not informative, and dropped.

    rewards: after the canary. For MaxRL in [0, 1].
    lengths: tokens of the responses.
    best_rate: p* of the group's source.
    correct: where rewards are not binary; by default those that earned 1.
    """
    if not is_informative(rewards):
        return None
    mean = _mean(rewards)
    if config.kind == "grpo":
        std = math.sqrt(_mean([(reward - mean) ** 2 for reward in rewards]))
        return tuple((reward - mean) / (std + 1e-6) for reward in rewards)
    if min(rewards) < 0 or max(rewards) > 1:
        raise UsageError(
            f"MaxRL needs rewards between 0 and 1: {min(rewards)} to {max(rewards)}",
            hint="map the environment's scale to [0, 1] in its score",
        )
    if correct is None:
        correct = [reward == 1 for reward in rewards]
    bonus = length_bonus(lengths, correct, config, best_rate=best_rate)
    shaped = [reward + extra for reward, extra in zip(rewards, bonus, strict=True)]
    base = _mean(shaped) if config.length_baseline == "shaped" else mean
    return tuple((reward - base) / mean for reward in shaped)


def length_bonus(
    lengths: Sequence[int], correct: Sequence[bool], config: AdvantageConfig, *, best_rate: float
) -> tuple[float, ...]:
    """What each rollout gains or loses by its length: between half of c * p and its negative, for correct ones.

    All 0 where the group solves clearly less than its source has before (shortness must not be bought with errors), and
    where only one rollout is correct, which has nothing to be compared with.
    """
    right, size = sum(correct), len(correct)
    rate = right / size
    if right < 2 or rate <= best_rate - config.t_acc or not config.length_weight:
        return (0.0,) * size
    shortest = min(length for length, is_correct in zip(lengths, correct, strict=True) if is_correct)
    whole = shortest + (config.l_max // 100 if config.t_len is None else config.t_len)

    def share(length: int) -> float:
        if length <= whole or shortest >= config.l_max:
            return 0.5
        return 0.5 - min(1.0, (length - shortest) / (config.l_max - shortest))

    return tuple(
        config.length_weight * rate * share(length) if is_correct else 0.0
        for length, is_correct in zip(lengths, correct, strict=True)
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
