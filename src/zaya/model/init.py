"""Every tensor of a model, and the value each one starts from, in one table.

The table is the single statement of names and shapes: the modules, the checkpoint layouts, the parameter counts and
the optimiser's groups are all checked against it or read from it. Importing it needs no torch. Source for the values:
spec pretraining 2.5 (nothing is published; these are our recommendations) and 3.1 for the groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from zaya.core.rng import derive_seed
from zaya.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import nn

Group = Literal["matrix", "expert", "embedding", "conv", "router_out", "vector", "balance"]
"""Which update rule a tensor gets (spec pretraining 3.1): `matrix` and `expert` Muon, `balance` its own rule on a
buffer without gradient, the rest AdamW."""

Start = Literal["normal", "zeros", "ones", "newest_tap", "skip_last"]
"""Where a tensor starts: N(0, std²); 0; 1; 1 on the newest tap and 0 on older ones; 0 with -1 for the skip class."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of the model: its name, shape, optimiser group and initial value."""

    name: str
    shape: tuple[int, ...]
    group: Group
    start: Start
    std: float = 0.0
    """Standard deviation where `start` is normal, else 0."""
    stacked: int = 1
    """Matrices that lie one below the other in its rows; a rule for matrices takes them apart."""

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def is_buffer(self) -> bool:
        """Balancing biases are state, not parameters: no gradient reaches them, and they stay float32."""
        return self.group == "balance"


def tensor_table(config: ModelConfig) -> Iterator[TensorSpec]:
    """Every tensor of a model of this shape, in the order the modules hold them."""
    c = config
    dim, route, experts = c.hidden_size, c.router_size, c.num_experts
    embed_std = 0.02
    # What writes to the residual stream starts smaller, so that its variance does not grow with depth.
    depth = 1 / math.sqrt(2 * c.num_layers)

    def fan_in(size: int) -> float:
        return 1 / math.sqrt(size)

    yield TensorSpec("embed", (c.vocab_size, dim), "embedding", "normal", embed_std)
    yield TensorSpec("input_scale", (dim,), "vector", "ones")
    yield TensorSpec("input_bias", (dim,), "vector", "zeros")
    for i in range(c.num_layers):
        at = f"blocks.{i}."
        yield TensorSpec(at + "attention_norm.weight", (dim,), "vector", "ones")
        yield TensorSpec(at + "attention.q_proj", (c.query_size, dim), "matrix", "normal", fan_in(dim))
        yield TensorSpec(at + "attention.k_proj", (c.key_size, dim), "matrix", "normal", fan_in(dim))
        for which in ("current", "delayed"):
            shape = (c.key_size // 2, dim)
            yield TensorSpec(at + f"attention.v_proj_{which}", shape, "matrix", "normal", fan_in(dim))
        # Identity over time at first, and a small mix over channels: the q-k mean dominates (spec 2.5).
        yield TensorSpec(at + "attention.depthwise_weight", (c.conv_channels, 1, c.conv_time0), "conv", "newest_tap")
        yield TensorSpec(at + "attention.depthwise_bias", (c.conv_channels,), "vector", "zeros")
        shape = (c.conv_channels, c.head_dim, c.conv_time1)
        yield TensorSpec(at + "attention.grouped_weight", shape, "conv", "normal", 0.02)
        yield TensorSpec(at + "attention.grouped_bias", (c.conv_channels,), "vector", "zeros")
        # Not 0 as in the fresh models of transformers: a temperature of 0 makes every key vanish.
        yield TensorSpec(at + "attention.key_temperature", (c.num_kv_heads,), "vector", "ones")
        shape = (dim, c.query_size)
        yield TensorSpec(at + "attention.o_proj", shape, "matrix", "normal", fan_in(c.query_size) * depth)
        yield from _merge(at + "attention_merge.", dim)
        yield TensorSpec(at + "moe_norm.weight", (dim,), "vector", "ones")
        at_router = at + "moe.router."
        yield TensorSpec(at_router + "down_proj", (route, dim), "matrix", "normal", fan_in(dim))
        yield TensorSpec(at_router + "down_bias", (route,), "vector", "zeros")
        if i > 0:  # the first layer has no earlier state to average with
            yield TensorSpec(at_router + "state_scale", (route,), "vector", "ones")
        yield TensorSpec(at_router + "norm.weight", (route,), "vector", "ones")
        for fc in ("fc1", "fc2"):
            yield TensorSpec(at_router + fc, (route, route), "matrix", "normal", fan_in(route))
            yield TensorSpec(at_router + fc + "_bias", (route,), "vector", "zeros")
        yield TensorSpec(at_router + "out_proj", (c.num_classes, route), "router_out", "normal", fan_in(route))
        start: Start = "skip_last" if c.skip_class else "zeros"
        yield TensorSpec(at_router + "balancing_bias", (c.num_classes,), "balance", start)
        shape = (experts, 2 * c.expert_size, dim)  # rows of the gate, then rows of the up-projection
        yield TensorSpec(at + "moe.experts.gate_up", shape, "expert", "normal", fan_in(dim), stacked=2)
        shape = (experts, dim, c.expert_size)
        yield TensorSpec(at + "moe.experts.down", shape, "expert", "normal", fan_in(c.expert_size) * depth)
        yield from _merge(at + "moe_merge.", dim)
    yield TensorSpec("final_norm.weight", (dim,), "vector", "ones")


def _merge(at: str, dim: int) -> Iterator[TensorSpec]:
    for side in ("branch", "residual"):
        yield TensorSpec(at + f"{side}_scale", (dim,), "vector", "ones")
        yield TensorSpec(at + f"{side}_bias", (dim,), "vector", "zeros")


def initialize(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Give every tensor its initial value, in place.

    Each tensor draws from its own stream, derived from the seed and its name: the values do not depend on the order
    of creation, on other tensors, or on which process holds them.
    """
    import torch

    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for spec in tensor_table(config):
            target = tensors[spec.name]
            match spec.start:
                case "normal":
                    stream = torch.Generator().manual_seed(derive_seed(seed, "init", spec.name))
                    # drawn in float32 on the CPU, so that one seed means one model on every device and dtype
                    rows = target.reshape(-1, target.shape[-1]) if target.dim() > 2 else target
                    for chunk in rows.split(max(1, (1 << 24) // rows.shape[-1])):
                        chunk.copy_(torch.randn(chunk.shape, generator=stream).mul_(spec.std))
                case "zeros":
                    target.zero_()
                case "ones":
                    target.fill_(1.0)
                case "newest_tap":
                    target.zero_()
                    target[..., -1] = 1.0
                case "skip_last":
                    target.zero_()
                    target[-1] = -1.0
