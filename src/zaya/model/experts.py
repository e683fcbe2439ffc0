"""The mixture-of-experts block: route, run the chosen experts, and treat the skip class as the checkpoint means it."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zaya.model.config import ModelConfig
from zaya.model.router import Router, Routing
from zaya.ops.experts import experts
from zaya.ops.packed import Weight


class Experts(nn.Module):
    """The weights of all experts of a layer, stacked; each bank a Parameter or a PackedWeight."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        n, dim, size = config.num_experts, config.hidden_size, config.expert_size
        self.gate_up = nn.Parameter(torch.empty(n, 2 * size, dim))
        self.down = nn.Parameter(torch.empty(n, dim, size))

    def forward(
        self,
        x: Float[Tensor, "tokens dim"],
        choice: Int[Tensor, "tokens k"],
        weight: Float[Tensor, "tokens k"],
    ) -> Float[Tensor, "tokens dim"]:
        return experts(x, choice, weight, cast(Weight, self.gate_up), cast(Weight, self.down))


class MoE(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        self.skip_passes_input = config.skip_class and config.skip_output == "identity"
        self.router = Router(config, layer)
        self.experts = Experts(config)

    def forward(
        self,
        x: Float[Tensor, "tokens dim"],
        previous: Float[Tensor, "tokens route"] | None,
        forced: Int[Tensor, "tokens k"] | None = None,
    ) -> tuple[Float[Tensor, "tokens dim"], Routing]:
        routing = self.router(x, previous, forced)
        out = self.experts(x, routing.choice, routing.weight)
        if self.skip_passes_input:
            skipped = (routing.weight * (routing.choice == self.num_experts)).sum(-1, keepdim=True)
            out = out + (skipped * x.float()).to(x.dtype)
        return out, routing
