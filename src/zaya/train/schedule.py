"""Learning rate and batch size as pure functions of the tokens consumed.

Of tokens and not of steps: a batch that grows, a restart or another number of machines then changes nothing. What is
computed is a fraction of the peak, so that every group of tensors, and the balancer, can have a peak of its own.
Source: spec pretraining 5. Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from zaya.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """How the learning rate runs over a phase."""

    total_tokens: int
    """Length of the phase. What comes after it keeps the last rate."""
    shape: Literal["constant", "cosine", "wsd"] = "wsd"
    """What follows the warm-up: nothing, half a cosine, or a plateau with a decay at its end (WSD)."""
    warmup_tokens: int = 0
    """Tokens over which the rate climbs from 0, in a straight line."""
    decay_tokens: int = 0
    """Tokens of the decay at the end of `wsd`; a run can branch off anywhere before it."""
    decay: Literal["linear", "1-sqrt"] = "linear"
    """Course of that decay; 1-sqrt falls fast at first."""
    floor: float = 0.0
    """Fraction of the peak at which a cosine or a decay ends."""
    rewarm_at: tuple[int, ...] = ()
    """Consumed tokens at which the data changes: there the rate climbs from 0 again to where it would be."""
    rewarm_tokens: int = 0
    """Tokens over which it does."""

    def __post_init__(self) -> None:
        for name in ("warmup_tokens", "decay_tokens", "rewarm_tokens"):
            if not 0 <= getattr(self, name) <= self.total_tokens:
                raise ConfigError(
                    f"schedule.{name} must be between 0 and total_tokens: {getattr(self, name)}, {self.total_tokens}"
                )
        if self.total_tokens < 1:
            raise ConfigError(f"schedule.total_tokens must be at least 1: {self.total_tokens}")
        if self.warmup_tokens + self.decay_tokens > self.total_tokens:
            raise ConfigError(
                "schedule.warmup_tokens and decay_tokens do not fit into total_tokens: "
                f"{self.warmup_tokens} + {self.decay_tokens} > {self.total_tokens}"
            )
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"schedule.floor must be a fraction: {self.floor}", hint="0.1 ends at a tenth")
        starts = (0, *self.rewarm_at, self.total_tokens)
        if any(a >= b for a, b in pairwise(starts)):
            raise ConfigError(f"schedule.rewarm_at must rise within the phase: {list(self.rewarm_at)}")
        if bool(self.rewarm_at) != bool(self.rewarm_tokens):
            raise ConfigError("schedule.rewarm_at and rewarm_tokens need each other")


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig:
    """How many sequences one step takes."""

    sequences: int
    """Sequences of a step, once any ramp is over."""
    ramp_from: int | None = None
    """Sequences of the first step; none for a batch that does not grow."""
    ramp_tokens: int = 0
    """Tokens over which the batch grows."""
    multiple: int = 1
    """A growing batch is a multiple of this, for instance of the number of ranks."""

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.multiple < 1:
            raise ConfigError(f"batch.sequences and multiple must be at least 1: {self.sequences}, {self.multiple}")
        if (self.ramp_from is None) != (self.ramp_tokens == 0):
            raise ConfigError("batch.ramp_from and ramp_tokens need each other")
        if self.ramp_tokens < 0:
            raise ConfigError(f"batch.ramp_tokens must not be negative: {self.ramp_tokens}")
        if self.ramp_from is not None and not self.multiple <= self.ramp_from <= self.sequences:
            raise ConfigError(
                "batch.ramp_from must be between multiple and sequences: "
                f"{self.ramp_from}, {self.multiple}, {self.sequences}"
            )


def lr_fraction(config: ScheduleConfig, tokens: int) -> float:
    """Learning rate over its peak, in [0, 1], of the step with which `tokens` have been consumed.

    The step's own tokens count: the first step of a warm-up moves, and the last step of the phase is at the floor.
    """
    return _warmth(config, tokens) * decay_fraction(config, tokens)


def decay_fraction(config: ScheduleConfig, tokens: int) -> float:
    """The same without any warm-up: what the balancer follows, which has to work from the first step."""
    if config.shape == "constant":
        return 1.0
    start = config.warmup_tokens if config.shape == "cosine" else config.total_tokens - config.decay_tokens
    if tokens <= start:
        return 1.0
    done = min(1.0, (tokens - start) / (config.total_tokens - start)) if start < config.total_tokens else 0.0
    if config.shape == "cosine":
        left = (1 + math.cos(math.pi * done)) / 2
    else:
        left = 1 - (done if config.decay == "linear" else math.sqrt(done))
    return config.floor + (1 - config.floor) * left


def batch_sequences(config: BatchConfig, tokens: int) -> int:
    """Sequences of the step before which `tokens` have been consumed."""
    if config.ramp_from is None or tokens >= config.ramp_tokens:
        return config.sequences
    # in integers: exact, however many tokens there are
    grown = config.ramp_from + (config.sequences - config.ramp_from) * tokens // config.ramp_tokens
    return grown // config.multiple * config.multiple


def _warmth(config: ScheduleConfig, tokens: int) -> float:
    begun = [at for at in config.rewarm_at if at < tokens]
    since, length = (tokens - begun[-1], config.rewarm_tokens) if begun else (tokens, config.warmup_tokens)
    return min(1.0, since / length) if length else 1.0
