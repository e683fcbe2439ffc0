"""Compressed convolutional attention (CCA): attention in a space narrower than the residual stream.

    1. project down to queries, keys and two halves of the value; there is no projection back up before the end
    2. mix queries and keys over the last few tokens, channel by channel and then within each head
    3. add the mean of query and key, taken before the mixing
    4. bring each head to length sqrt(head_dim); keys times a learned temperature
    5. rotate the first channels by position
    6. the second half of the value comes from the token before
    7. causal attention, then the output projection

Source: CCA paper (arXiv 2510.04476), spec checkpoint-and-model 5.2 to 5.6. What lies before the new tokens comes from
the context (model/cache.py).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zaya.model.cache import Context
from zaya.model.config import ModelConfig
from zaya.ops.cca import causal_mix, l2_norm, qk_mean, shift_values
from zaya.ops.linear import linear
from zaya.ops.rope import rotate
from zaya.ops.segments import Segments


class CCA(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        dim, channels = config.hidden_size, config.conv_channels
        self.q_proj = nn.Parameter(torch.empty(config.query_size, dim))
        self.k_proj = nn.Parameter(torch.empty(config.key_size, dim))
        self.v_proj_current = nn.Parameter(torch.empty(config.key_size // 2, dim))
        self.v_proj_delayed = nn.Parameter(torch.empty(config.key_size // 2, dim))
        self.depthwise_weight = nn.Parameter(torch.empty(channels, 1, config.conv_time0))
        self.depthwise_bias = nn.Parameter(torch.empty(channels))
        self.grouped_weight = nn.Parameter(torch.empty(channels, config.head_dim, config.conv_time1))
        self.grouped_bias = nn.Parameter(torch.empty(channels))
        self.key_temperature = nn.Parameter(torch.empty(config.num_kv_heads))
        self.o_proj = nn.Parameter(torch.empty(dim, config.query_size))

    def forward(
        self,
        x: Float[Tensor, "tokens dim"],
        segments: Segments,
        context: Context,
        rope: tuple[Float[Tensor, "tokens half"], Float[Tensor, "tokens half"]],
    ) -> Float[Tensor, "tokens dim"]:
        c = self.config
        u = torch.cat([linear(x, self.q_proj), linear(x, self.k_proj)], dim=-1)
        v_current, v_delayed = linear(x, self.v_proj_current), linear(x, self.v_proj_delayed)
        left_u, left_v = context.left_context(self.layer, u, v_delayed)

        mixed = causal_mix(
            u, left_u, segments,
            self.depthwise_weight, self.depthwise_bias, self.grouped_weight, self.grouped_bias,
        )  # fmt: skip
        # from here to the rotation in float32: mean, norm and temperature are in the report's float32 set
        sizes = (c.query_size, c.key_size)
        q, k = (y.unflatten(-1, (-1, c.head_dim)) for y in mixed.split(sizes, dim=-1))
        mean_q, mean_k = qk_mean(*(y.float().unflatten(-1, (-1, c.head_dim)) for y in u.split(sizes, dim=-1)))
        q = l2_norm(q + mean_q)
        k = l2_norm(k + mean_k) * self.key_temperature.float()[:, None]
        q, k = (rotate(y, *rope).to(x.dtype) for y in (q, k))

        # The halves meet before the split into heads: with two KV heads, head 0 holds current and head 1 delayed.
        v = torch.cat([v_current, shift_values(v_delayed, left_v, segments)], dim=-1)
        v = v.unflatten(-1, (-1, c.head_dim))
        out = context.attend(self.layer, q, k, v, c.window(self.layer))
        return linear(out.flatten(1), self.o_proj)
