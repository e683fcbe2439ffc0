"""Root-mean-square normalisation, in float32 whatever comes in."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rms_norm(
    x: Float[Tensor, "*rows dim"],
    weight: Float[Tensor, " dim"],
    eps: float,
    out_dtype: torch.dtype | None = None,
) -> Float[Tensor, "*rows dim"]:
    """x / sqrt(mean(x²) + eps) · weight. The weight is plain, not 1 + weight (spec checkpoint-and-model 5.1)."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * weight.float()).to(out_dtype or x.dtype)
