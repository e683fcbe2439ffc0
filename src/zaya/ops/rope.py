"""Rotary position embedding over the first channels of each head (spec checkpoint-and-model 5.5)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rotary_angles(
    positions: Int[Tensor, " tokens"], size: int, theta: float
) -> tuple[Float[Tensor, "tokens half"], Float[Tensor, "tokens half"]]:
    """Cosine and sine for `size` rotated channels, in float32. Frequency j is theta^(-2j/size)."""
    channel = torch.arange(0, size, 2, dtype=torch.float32, device=positions.device)
    angles = positions[:, None].float() * (1.0 / theta ** (channel / size))
    return angles.cos(), angles.sin()


def rotate(
    x: Float[Tensor, "tokens heads head_dim"],
    cos: Float[Tensor, "tokens half"],
    sin: Float[Tensor, "tokens half"],
) -> Float[Tensor, "tokens heads head_dim"]:
    """Rotate channel j with channel j + half; channels from 2 * half on stay as they are."""
    half = cos.shape[-1]
    cos, sin = cos[:, None], sin[:, None]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)
