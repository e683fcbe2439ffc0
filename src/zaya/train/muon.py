"""Muon's direction for a matrix: the gradient with its singular values brought to about 1.

Newton-Schulz is not exact. Five steps take the singular values of a random 2:1 matrix into 0.67 to 1.21; of a square
one the smallest few stay small. That is the method, and more steps gain nothing. Source: spec pretraining 3.2,
arXiv 2502.16982 for the scale.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = 5
MIN_SIZE = 16
"""Matrices with a side shorter than this are left to AdamW."""

_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the odd quintic that each step applies to the singular values
_TINY = 1e-20  # a zero gradient gives a zero direction; gradients of RL can be as small as 1e-9 and count in full


def orthogonalize(u: Float[Tensor, "matrices rows cols"]) -> Float[Tensor, "matrices rows cols"]:
    """Each matrix with its singular values brought to about 1, float32; a zero matrix stays zero.

    Iterates in float32 on a CPU and in bfloat16 on accelerators, whose matrix units want it; singular values agree to
    0.01. All matrices go through one batched product.
    """
    x = u.float()
    x = x / x.flatten(1).norm(dim=1).clamp_min(_TINY)[:, None, None]
    return newton_schulz(x if x.device.type == "cpu" else x.bfloat16()).float()


def newton_schulz(x: Float[Tensor, "matrices rows cols"]) -> Float[Tensor, "matrices rows cols"]:
    """The iteration itself, for matrices of norm 1 and in their dtype."""
    if x.shape[-2] > x.shape[-1]:  # the Gram matrix of the shorter side is the smaller one
        return newton_schulz(x.mT).mT
    for _ in range(STEPS):  # x <- a x + (b g + c g²) x, with the sums inside the products
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x


def rms_scale(rows: int, cols: int) -> float:
    """Factor that gives an orthogonal matrix the root mean square of an AdamW step, 0.2."""
    return 0.2 * math.sqrt(max(rows, cols))
