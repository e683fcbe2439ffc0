"""The one door to matrix multiplication with weights.

A weight is a Tensor or a PackedWeight, the same matrix stored another way. Whoever multiplies calls `linear` and need
not know. For a packed form the plain reference is to dequantise and multiply; the compiled kernels read the codes.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from zaya.ops.cpu.matrix import product, unpacked
from zaya.ops.packed import TILE, PackedWeight, TiledWeight, Weight

FEW_ROWS = 64
"""Up to so many, a packed weight is multiplied as it is; more are worth unpacking it."""


def linear(
    x: Float[Tensor, "*rows inner"],
    weight: Weight,
    bias: Float[Tensor, " outer"] | None = None,
    *,
    out_dtype: torch.dtype | None = None,
) -> Float[Tensor, "*rows outer"]:
    """x · weightᵀ + bias, with weight (outer, inner).

    With `out_dtype` wider than x the products are accumulated and returned in it, and the weight is never copied to
    it as a whole: the head of ZAYA1-8B would take 2 GiB (report section IV-D).
    """
    if isinstance(weight, PackedWeight):
        is_few = x.numel() <= FEW_ROWS * x.shape[-1] and not (x.requires_grad and torch.is_grad_enabled())
        if is_few and (out := product(x, weight)) is not None:
            return (out if bias is None else out + bias).to(out_dtype or x.dtype)
        dense = unpacked(weight, x.dtype)
        dense = weight.dequantize(x.dtype) if dense is None else dense
    else:
        dense = weight
    if out_dtype is None or out_dtype == x.dtype:
        return F.linear(x, dense, bias)
    out = cast(Tensor, _WideLinear.apply(x, dense, out_dtype))
    return out if bias is None else out + bias


def embedding(ids: Int[Tensor, " tokens"], weight: Weight, dtype: torch.dtype) -> Float[Tensor, "tokens inner"]:
    """Row ids[i] of weight for every i; a packed row is unpacked to `dtype`."""
    if isinstance(weight, Tensor):
        return F.embedding(ids, weight)
    assert isinstance(weight, TiledWeight), type(weight).__name__
    tiles = type(weight)(weight.data[ids // TILE]).dequantize(dtype).unflatten(0, (-1, TILE))
    return tiles[torch.arange(len(ids), device=ids.device), ids % TILE]


class _WideLinear(torch.autograd.Function):
    """x · weightᵀ in a wider dtype, a block of weight rows at a time, forward and backward."""

    BLOCK_BYTES = 4 << 20  # of the wide copy: small enough for the cache, large enough for the kernel (docs/log.md)

    @staticmethod
    def _blocks(weight: Tensor, dtype: torch.dtype) -> range:
        rows = max(1, _WideLinear.BLOCK_BYTES // (weight.shape[1] * dtype.itemsize))
        return range(0, weight.shape[0], rows)

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dtype = dtype
        wide = x.to(dtype)
        out = wide.new_empty(*x.shape[:-1], weight.shape[0])
        blocks = _WideLinear._blocks(weight, dtype)
        for start in blocks:
            rows = slice(start, start + blocks.step)
            out[..., rows] = F.linear(wide, weight[rows].to(dtype))
        return out

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (grad,) = grad_outputs
        wide = x.reshape(-1, x.shape[-1]).to(ctx.dtype)
        grad = grad.reshape(-1, grad.shape[-1])
        grad_x = torch.zeros_like(wide) if ctx.needs_input_grad[0] else None
        grad_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        blocks = _WideLinear._blocks(weight, ctx.dtype)
        for start in blocks:
            rows = slice(start, start + blocks.step)
            if grad_x is not None:
                grad_x += grad[:, rows] @ weight[rows].to(ctx.dtype)
            if grad_weight is not None:
                grad_weight[rows] = grad[:, rows].T @ wide
        return None if grad_x is None else grad_x.to(x.dtype).view(x.shape), grad_weight, None
