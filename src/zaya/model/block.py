"""One layer: attention and mixture of experts, each behind a norm and merged back by learned residual scaling."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zaya.model.cache import Context
from zaya.model.cca import CCA
from zaya.model.config import ModelConfig
from zaya.model.experts import MoE
from zaya.model.norm import RMSNorm
from zaya.model.router import Routing
from zaya.ops.segments import Segments


class ResidualScaling(nn.Module):
    """(branch + b) · s + (residual + b') · s', channel by channel, in float32. The bias comes before the scale.

    Source: spec checkpoint-and-model 5.1. Trained models use it to forget: the product of all residual scales of
    ZAYA1-8B has a median of 7e-6.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.branch_scale = nn.Parameter(torch.empty(size))
        self.branch_bias = nn.Parameter(torch.empty(size))
        self.residual_scale = nn.Parameter(torch.empty(size))
        self.residual_bias = nn.Parameter(torch.empty(size))

    def forward(
        self, branch: Float[Tensor, "tokens dim"], residual: Float[Tensor, "tokens dim"]
    ) -> Float[Tensor, "tokens dim"]:
        return (branch.float() + self.branch_bias.float()) * self.branch_scale.float() + (
            residual + self.residual_bias.float()
        ) * self.residual_scale.float()


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = CCA(config, layer)
        self.attention_merge = ResidualScaling(config.hidden_size)
        self.moe_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.moe = MoE(config, layer)
        self.moe_merge = ResidualScaling(config.hidden_size)

    def forward(
        self,
        x: Float[Tensor, "tokens dim"],
        router_state: Float[Tensor, "tokens route"] | None,
        segments: Segments,
        context: Context,
        rope: tuple[Float[Tensor, "tokens half"], Float[Tensor, "tokens half"]],
        forced: Int[Tensor, "tokens k"] | None = None,
    ) -> tuple[Float[Tensor, "tokens dim"], Routing]:
        """The residual stream x, float32, one layer on; and the routing, whose state the next layer takes."""
        x = self.attention_merge(self.attention(self.attention_norm(x), segments, context, rope), x)
        out, routing = self.moe(self.moe_norm(x), router_state, forced)
        return self.moe_merge(out, x), routing
