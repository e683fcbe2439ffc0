"""RMSNorm as a module."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zaya.ops.norm import rms_norm


class RMSNorm(nn.Module):
    """Normalises in float32, from the float32 residual stream directly, and returns its weight's dtype."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens dim"]:
        return rms_norm(x, self.weight, self.eps, self.weight.dtype)
