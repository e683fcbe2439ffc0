"""The records that travel from sampling to training. Source: spec post-training 3.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zaya.engine.types import FinishReason
from zaya.envs.base import Score

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One answer to a prompt, as it was sampled, and what it earned."""

    ids: tuple[int, ...]
    """What was drawn, the token that ended it included."""
    behavior_logprobs: np.ndarray
    """float32 [len(ids)]: under the distribution that was sampled from, by the engine that sampled."""
    routes: np.ndarray | None
    """uint8 [prompt + len(ids) - 1, layers, k]: experts chosen while sampling; None without router replay."""
    weight_versions: tuple[int, ...]
    """Optimiser steps behind the weights that drew each id."""
    finish_reason: FinishReason
    score: Score
    is_flagged: bool = False
    """Whether the canary found it degenerate: its reward then counts as 0 (`rl.canary`)."""

    @property
    def reward(self) -> float:
        """What counts for the advantage."""
        return 0.0 if self.is_flagged else self.score.reward


@dataclass(frozen=True, slots=True, eq=False)
class RolloutGroup:
    """The rollouts of one prompt. Those whose scorer failed are not in it."""

    key: str
    """Names the prompt: hash of its content."""
    source: str
    """The environment, or another name under which solve rates are kept."""
    prompt_ids: tuple[int, ...]
    rollouts: tuple[Rollout, ...]
    num_failed: int = 0
    """Rollouts that were taken out because the scorer failed, not the answer."""

    @property
    def rewards(self) -> tuple[float, ...]:
        return tuple(rollout.reward for rollout in self.rollouts)

    @property
    def num_right(self) -> int:
        """Rollouts that are right, after the canary."""
        return sum(rollout.score.correct and not rollout.is_flagged for rollout in self.rollouts)

    @property
    def solve_rate(self) -> float:
        """Part of the rollouts that are right, after the canary."""
        return self.num_right / len(self.rollouts) if self.rollouts else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One rollout with its credit, ready for the loss: the trainer knows no algorithm, only these."""

    group: RolloutGroup
    rollout: Rollout
    advantage: float
    """The same for every token of the rollout."""


@dataclass(frozen=True, slots=True)
class Start:
    """What calibration found of one environment (`rl.calibrate`). JSON by `asdict`."""

    level: int
    """The level to begin at."""
    groups: int
    """Sampled to find it."""
    solve_rate: float
    """Of all of them."""
    spread: float
    """How uncertain the level is, in levels."""
    is_parked: bool
    """Whether nobody solved it at its lowest level, or none of its problems can be made."""
