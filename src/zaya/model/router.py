"""The router: a small MLP over a state that is averaged over depth, and a bias that balances the load.

The state of a layer is its own projection plus the state of the layer before, scaled channel by channel: exponential
depth averaging (EDA). What is handed on is the state *before* its norm. The balancing bias steers the choice and
never the weight; a choice of more than the experts is the skip class. Source: spec checkpoint-and-model 5.7.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from zaya.model.config import ModelConfig
from zaya.model.norm import RMSNorm
from zaya.ops.linear import linear
from zaya.ops.pinned import PinnedBuffers


@dataclass(frozen=True, slots=True)
class Routing:
    """Where the tokens of one layer go."""

    choice: Int[Tensor, "tokens k"]
    """Classes; `num_experts` is the skip class."""
    weight: Float[Tensor, "tokens k"]
    """Probability of each choice over all classes, float32, neither biased nor renormalised."""
    probs: Float[Tensor, "tokens classes"]
    state: Float[Tensor, "tokens route"]
    """For the router of the next layer."""


class Router(PinnedBuffers):
    balancing_bias: Tensor

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.k = config.experts_per_token
        dim, size, classes = config.hidden_size, config.router_size, config.num_classes
        self.down_proj = nn.Parameter(torch.empty(size, dim))
        self.down_bias = nn.Parameter(torch.empty(size))
        self.state_scale = nn.Parameter(torch.empty(size)) if layer > 0 else None
        self.norm = RMSNorm(size, config.norm_eps)
        self.fc1 = nn.Parameter(torch.empty(size, size))
        self.fc1_bias = nn.Parameter(torch.empty(size))
        self.fc2 = nn.Parameter(torch.empty(size, size))
        self.fc2_bias = nn.Parameter(torch.empty(size))
        self.out_proj = nn.Parameter(torch.empty(classes, size))
        self.register_buffer("balancing_bias", torch.empty(classes, dtype=torch.float32))

    def forward(
        self,
        x: Float[Tensor, "tokens dim"],
        previous: Float[Tensor, "tokens route"] | None,
        forced: Int[Tensor, "tokens k"] | None = None,
    ) -> Routing:
        """Route tokens; `forced` replaces the choice and keeps the weights that this router gives it."""
        state = linear(x, self.down_proj, self.down_bias)
        if self.state_scale is not None and previous is not None:
            state = state + previous * self.state_scale
        hidden = F.gelu(linear(self.norm(state), self.fc1, self.fc1_bias))  # the exact form, with erf
        hidden = F.gelu(linear(hidden, self.fc2, self.fc2_bias))
        # logits, softmax, bias and choice in float32 (report section IV-D)
        probs = linear(hidden, self.out_proj, out_dtype=torch.float32).softmax(-1)
        choice = choose(probs, self.balancing_bias, self.k) if forced is None else forced
        return Routing(choice, probs.gather(-1, choice), probs, state)


def choose(probs: Float[Tensor, "tokens classes"], bias: Float[Tensor, " classes"], k: int) -> Int[Tensor, "tokens k"]:
    """The k classes with the largest biased probability, best first. Nothing here has a gradient.

    Of equals the first wins, so an expert before the skip class; `topk` promises no order.
    """
    return (probs.detach() + bias).sort(dim=-1, descending=True, stable=True).indices[:, :k]
