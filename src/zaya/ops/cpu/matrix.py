"""Products, packing and unpacking of matrices by the compiled kernels. None, or False, where they cannot."""

from __future__ import annotations

import ctypes
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from zaya.ops.cpu import kernels
from zaya.ops.packed import PackedWeight, StackedParts, TiledWeight, Weight

_DENSE = {torch.float32: kernels.F32, torch.bfloat16: kernels.BF16}
Tiled = TypeVar("Tiled", bound=TiledWeight)


def matrix_of(weight: Weight) -> tuple[kernels.Matrix, tuple[Tensor | None, ...]]:
    """A matrix as the kernels see it, and what must live as long as that is used."""
    if isinstance(weight, Tensor):
        data, scale, kind = weight.detach(), None, _DENSE[weight.dtype]
    else:
        data, scale, kind = weight.kernel_form()
    outer, inner = weight.shape
    pointer = None if scale is None else scale.data_ptr()
    return kernels.Matrix(data.data_ptr(), pointer, kind, outer, inner), (data, scale)


def product(x: Float[Tensor, "*rows inner"], weight: PackedWeight) -> Float[Tensor, "*rows outer"] | None:
    """x · weightᵀ in float32, without unpacking the weight. The codes of int8 and int4 meet x in 8 bits."""
    library = kernels.library()
    if library is None or weight.device.type != "cpu" or weight.shape[-1] % kernels.GROUP:
        return None
    matrix, _kept = matrix_of(weight)
    rows = x.detach().float().reshape(-1, x.shape[-1]).contiguous()
    out = torch.empty(rows.shape[0], weight.shape[0])
    scratch = torch.empty(library.zaya_linear_scratch(*rows.shape), dtype=torch.uint8)
    library.zaya_linear(matrix, rows.data_ptr(), len(rows), out.data_ptr(), scratch.data_ptr(), torch.get_num_threads())
    return out.view(*x.shape[:-1], -1)


def unpacked(weight: PackedWeight, dtype: torch.dtype) -> Tensor | None:
    """As `weight.dequantize(dtype)`, for a matrix that is none of a stack."""
    library = kernels.library()
    is_possible = weight.device.type == "cpu" and len(weight.shape) == 2 and dtype in _DENSE
    if library is None or not is_possible or isinstance(weight, StackedParts) or weight.shape[-1] % kernels.GROUP:
        return None
    matrix, _kept = matrix_of(weight)
    out = torch.empty(weight.shape, dtype=dtype)
    is_bf16 = dtype == torch.bfloat16
    library.zaya_dequantize(matrix, 0, len(out), out.data_ptr(), is_bf16, torch.get_num_threads())
    return out


def pack(dense: Float[Tensor, "outer inner"], form: type[Tiled]) -> tuple[Tiled, float]:
    """A matrix as int8 or int4, and the relative error of that: the norm of what is lost by the norm of the whole.

    Raises UsageError for a matrix without whole tiles.
    """
    shape = form.stored_shape(dense.shape)
    library = kernels.library()
    if library is None or dense.device.type != "cpu" or dense.dtype not in _DENSE:
        packed = cast(Tiled, form.of(dense))
        lost, whole = (packed.dequantize(torch.float32) - dense.float()).double(), dense.double()
        return packed, float(lost.norm() / whole.norm().clamp_min(1e-30))
    packed = form(torch.empty(shape, dtype=torch.uint8))
    (source, _kept), (target, _) = matrix_of(dense.contiguous()), matrix_of(packed)
    sums = (ctypes.c_double * 2)()
    library.zaya_quantize(target, source, sums, torch.get_num_threads())
    return packed, (sums[0] / max(sums[1], 1e-60)) ** 0.5
