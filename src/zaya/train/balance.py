"""Router balancing: a bias per expert and layer, moved once per step so that every expert gets its share.

The biases steer choices and have no gradient (model/router.py). The rule of the report takes *load - 1/experts* for
one and hands it to AdamW. By what it adds up a bias is the integral of the imbalance, the first moment smooths it, and
the second makes the pace independent of how large it is. Then each layer is centred: only differences count, and
with a mean of 0 some bias is at least 0, so that the skip class, pinned at -1, can never win. The other rule, a
fixed step against the sign of the imbalance, is what others use; here it is for comparison. Source: spec pretraining 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zaya.errors import CheckpointError, ConfigError
from zaya.model.init import tensor_table
from zaya.model.transformer import ZayaModel


@dataclass(frozen=True, kw_only=True, slots=True)
class BalanceConfig:
    """How the balancing biases follow the load."""

    rule: Literal["adamw", "sign", "off"] = "adamw"
    """AdamW on the imbalance, a step against its sign, or biases that stay as they are."""
    lr: float = 1e-2
    """Of the biases, in units of router probability. For `sign` 1e-3 is usual."""
    beta1: float = 0.9
    """Of AdamW: the average of imbalances."""
    beta2: float = 0.95
    """Of AdamW: the average of their squares."""
    eps: float = 1e-8
    """Of AdamW: added to the root of that average."""

    def __post_init__(self) -> None:
        if self.lr < 0 or self.eps <= 0:
            raise ConfigError(f"balance.lr must not be negative, and eps be positive: {self.lr}, {self.eps}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigError(f"balance.beta1 and beta2 must be at least 0 and below 1: {self.beta1}, {self.beta2}")


@dataclass(frozen=True, slots=True)
class LoadStats:
    """How evenly the experts of all layers were used."""

    entropy_mean: float
    """Of the load over the experts, normalised: 1 where all get the same, 0 where one gets everything."""
    entropy_min: float
    violation_mean: float
    """MaxVio: by how much the busiest expert exceeds its share, as a fraction of the share."""
    violation_max: float
    worst_layer: int
    """The layer with the least entropy."""
    dead_experts: int
    """Over all layers, experts with less than a tenth of their share."""


class Balancer:
    """Moves the balancing biases of a model by the counts of a step."""

    def __init__(self, model: ZayaModel, config: BalanceConfig) -> None:
        self.config = config
        self.updates = 0
        self.num_experts = model.config.num_experts
        # of several choices of one token a later one can be the skip class
        self.never_skips = model.config.skip_class and model.config.experts_per_token == 1
        self._biases = [model.get_buffer(spec.name) for spec in tensor_table(model.config) if spec.group == "balance"]
        shape = (len(self._biases), self.num_experts)
        self._moments: dict[str, Tensor] = {}
        if config.rule == "adamw":
            self._moments = {name: torch.zeros(shape, device=model.device) for name in ("first", "second")}

    @torch.no_grad()
    def step(self, counts: Int[Tensor, "layers classes"], fraction: float = 1.0) -> None:
        """Move every bias once, by the counts of all tokens of a step: micro-batches and ranks added up, padding and
        recomputation left out. `fraction` of the learning rate is where its schedule stands."""
        if self.config.rule == "off":
            return
        if self.never_skips and self.updates:
            assert not counts[:, self.num_experts :].any(), "the skip class won against centred biases"
        self.updates += 1
        gap = imbalance(counts[:, : self.num_experts])
        bias = torch.stack([b[: self.num_experts] for b in self._biases])
        bias = bias - fraction * self.config.lr * self._direction(gap)
        bias = bias - bias.mean(1, keepdim=True)
        for buffer, row in zip(self._biases, bias, strict=True):
            buffer[: self.num_experts] = row
            buffer[self.num_experts :] = -1.0  # the skip class, where there is one

    def _direction(self, gap: Tensor) -> Tensor:
        if self.config.rule == "sign":
            return gap.sign()
        c, m = self.config, self._moments
        first = m["first"].lerp_(gap, 1 - c.beta1)
        second = m["second"].lerp_(gap.square(), 1 - c.beta2)
        return first / (1 - c.beta1**self.updates) / ((second / (1 - c.beta2**self.updates)).sqrt() + c.eps)

    def state_dict(self) -> dict[str, Tensor]:
        """What the next step depends on besides the biases, which belong to the model: `updates`, and for AdamW
        `first` and `second`, (layers, experts). The tensors themselves, not copies."""
        return {"updates": torch.tensor(self.updates), **self._moments}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave. Raises CheckpointError where it belongs to another model or rule."""
        own = self.state_dict()
        if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
            raise CheckpointError(
                f"the balancer's state does not fit this run: it holds {', '.join(sorted(state))}",
                hint="resume with the configuration the run was started with",
            )
        for name, tensor in self._moments.items():
            tensor.copy_(state[name])
        self.updates = int(state["updates"])


def imbalance(counts: Int[Tensor, "layers experts"]) -> Float[Tensor, "layers experts"]:
    """Load of each expert less its share, 1/experts: what the biases descend along."""
    return load(counts) - 1 / counts.shape[1]


def load(counts: Int[Tensor, "layers experts"]) -> Float[Tensor, "layers experts"]:
    """Share of a layer's choices that each expert got."""
    return counts / counts.sum(1, keepdim=True).clamp_min(1)


def load_entropy(counts: Int[Tensor, "layers experts"]) -> Float[Tensor, " layers"]:
    """Entropy of the load over its largest possible value, ln(experts)."""
    return torch.special.entr(load(counts)).sum(1) / torch.tensor(counts.shape[1]).log()


def max_violation(counts: Int[Tensor, "layers experts"]) -> Float[Tensor, " layers"]:
    """MaxVio: load of the busiest expert over its share, less 1."""
    return load(counts).amax(1) * counts.shape[1] - 1


def load_stats(counts: Int[Tensor, "layers experts"]) -> LoadStats:
    """The metrics of one step. `counts` leaves the skip class out."""
    entropy, violation = load_entropy(counts), max_violation(counts)
    return LoadStats(
        entropy_mean=float(entropy.mean()),
        entropy_min=float(entropy.min()),
        violation_mean=float(violation.mean()),
        violation_max=float(violation.max()),
        worst_layer=int(entropy.argmin()),
        dead_experts=int((load(counts) * counts.shape[1] < 0.1).sum()),
    )
