"""The policy loss: DPPO with the binary total-variation mask, summed by the Dr. GRPO rule.

    loss = -1 / (num_sequences * length_norm) * sum over tokens of  M * w * A * log pi

mu is the probability of the token when it was sampled, pi its probability under the weights being trained, A its
advantage, w = pi / mu, truncated. M is 0 where the update would push pi further from mu than delta, and 1 otherwise;
moving back is always allowed. M and w carry no gradient. |pi - mu| is the total variation between the two distributions
over {this token, any other}, which bounds the true one from below and needs no logits. There is no third policy, no
clipped ratio and no KL term. Source: spec post-training 3.6 and 3.7.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from zaya.errors import ConfigError

_LOG_RATIO = 20.0  # e^20 is 5e8: beyond it a ratio says nothing, and its square would leave float32


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The trust region, and what sums are divided by."""

    delta_low: float = 0.1
    """How far a token's probability may fall below the one it was sampled with."""
    delta_high: float = 0.1
    """How far it may rise above it."""
    mask_mode: Literal["signed", "symmetric"] = "signed"
    """Mask tokens that the update pushes further away, or all that are too far away."""
    rho_max: float | None = 20.0
    """Largest weight of a token, pi / mu; none for no bound of its own."""
    length_norm: float = 81_920.0
    """Z: tokens of the longest response. A constant, so that a token counts the same in short and long responses."""

    def __post_init__(self) -> None:
        if self.delta_low < 0 or self.delta_high < 0:
            raise ConfigError(
                f"loss.delta_low and delta_high must not be negative: {self.delta_low}, {self.delta_high}"
            )
        if self.length_norm <= 0:
            raise ConfigError(f"loss.length_norm must be positive: {self.length_norm}")
        if self.rho_max is not None and self.rho_max < 1:
            raise ConfigError(
                f"loss.rho_max must be at least 1: {self.rho_max}", hint="below 1 it would weigh down every fresh token"
            )


@dataclass(frozen=True, slots=True)
class LossStats:
    """What the loss saw, as counts and sums: those of micro-batches and ranks add up to those of the step."""

    tokens: int = 0
    positive: int = 0
    """Tokens with a positive advantage."""
    negative: int = 0
    masked_positive: int = 0
    """Of those, masked."""
    masked_negative: int = 0
    sum_distance: float = 0.0
    """Of |pi - mu|."""
    sum_k3: float = 0.0
    """Of pi / mu - 1 - log(pi / mu), whose mean estimates KL(mu || pi) and is never negative."""
    sum_ratio: float = 0.0
    sum_ratio_squared: float = 0.0
    sum_surprise: float = 0.0
    """Of -log mu."""
    max_log_ratio: float = 0.0
    """Largest |log(pi / mu)|."""

    def __add__(self, other: LossStats) -> LossStats:
        sums: dict[str, Any] = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        sums["max_log_ratio"] = max(self.max_log_ratio, other.max_log_ratio)
        return LossStats(**sums)

    @property
    def surviving(self) -> int:
        """Tokens that have a gradient. Where there are none, a step would move along noise."""
        return self.positive + self.negative - self.masked_positive - self.masked_negative

    @property
    def masked_positive_fraction(self) -> float:
        """Masked tokens, as a part of those with a positive advantage."""
        return self.masked_positive / max(1, self.positive)

    @property
    def masked_negative_fraction(self) -> float:
        return self.masked_negative / max(1, self.negative)

    @property
    def distance(self) -> float:
        """Mean |pi - mu|."""
        return self.sum_distance / max(1, self.tokens)

    @property
    def mismatch_kl(self) -> float:
        return self.sum_k3 / max(1, self.tokens)

    @property
    def effective_samples(self) -> float:
        """Effective sample size as a part of the tokens: 1 where all weights are equal."""
        return self.sum_ratio**2 / (self.tokens * self.sum_ratio_squared) if self.sum_ratio_squared else 0.0

    @property
    def entropy(self) -> float:
        """Of the distributions that were sampled from, in nats per token: an unbiased estimate."""
        return self.sum_surprise / max(1, self.tokens)


def policy_loss(
    logprobs: Float[Tensor, " tokens"],
    behavior: Float[Tensor, " tokens"],
    advantages: Float[Tensor, " tokens"],
    config: LossConfig,
    *,
    num_sequences: int,
) -> tuple[Float[Tensor, ""], LossStats]:
    """The loss of some tokens of a step, float32, and its statistics. Losses, and gradients, of micro-batches add up.

    logprobs: log pi of the sampled tokens, with gradient.
    behavior: log mu, as the engine recorded it.
    advantages: of the rollout that each token belongs to.
    num_sequences: rollouts of the whole step, over all micro-batches and ranks.
    """
    wide = torch.promote_types(logprobs.dtype, torch.float32)
    logprobs, behavior, advantages = (x.to(wide) for x in (logprobs, behavior.detach(), advantages.detach()))
    current = logprobs.detach()
    rise = current.exp() - behavior.exp()
    too_high, too_low = rise > config.delta_high, rise < -config.delta_low
    if config.mask_mode == "signed":
        masked = (too_high & (advantages > 0)) | (too_low & (advantages < 0))
    else:
        masked = too_high | too_low
    log_ratio = current - behavior
    bounded = log_ratio.clamp(-_LOG_RATIO, _LOG_RATIO)
    ratio = bounded.exp()
    weight = ratio if config.rho_max is None else ratio.clamp(max=config.rho_max)
    loss = -((weight * advantages).masked_fill(masked, 0) * logprobs).sum() / (num_sequences * config.length_norm)
    rising, falling = advantages > 0, advantages < 0
    counts = torch.stack([x.sum() for x in (rising, falling, rising & masked, falling & masked)]).tolist()
    # expm1: near 1 a ratio less 1 has lost the digits that its log still has
    sums = [rise.abs(), bounded.expm1() - bounded, ratio, ratio.square(), -behavior]
    largest = log_ratio.abs().max() if len(log_ratio) else log_ratio.sum()
    values = torch.stack([*(x.sum() for x in sums), largest]).tolist()
    return loss, LossStats(len(logprobs), *counts, *values)
