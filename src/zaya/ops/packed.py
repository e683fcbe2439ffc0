"""The forms a weight can have besides a Tensor. Each knows its plain reference: how to become dense.

Fast kernels read the stored form in place; `zaya.ops.linear` is the door they stand behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from zaya.errors import UsageError
from zaya.ops.cpu import kernels
from zaya.ops.pinned import PinnedBuffers


class PackedWeight(nn.Module):
    """A matrix (outer, inner), or a stack of them (n, outer, inner), that is stored in another form than a Tensor.

    It takes the place of a Parameter in a module. It carries no gradient.
    """

    @property
    def shape(self) -> torch.Size:
        """Shape of the matrix it stands for."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """Dtype in which the codes are stored."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return sum(t.nbytes for t in (*self.buffers(), *self.parameters()))

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The dense matrix, or stack of matrices."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Tensor | PackedWeight:
        """One matrix of a stack, still packed."""
        raise NotImplementedError

    def kernel_form(self) -> tuple[Tensor, Tensor | None, int]:
        """Data, scales where they lie apart, and how the compiled kernels call this form."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{tuple(self.shape)}, {self.nbytes:,} bytes"


Weight = Tensor | PackedWeight


class CodedWeight(PinnedBuffers, PackedWeight):
    """Codes, and scales for blocks of them. Neither changes its type when the model is converted."""

    codes: Tensor
    scale: Tensor

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.codes.dtype

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def __getitem__(self, index: int) -> CodedWeight:
        return type(self)(self.codes[index], self.scale[index])


class Fp8Weight(CodedWeight):
    """float8 e4m3 codes with one scale per output channel (spec checkpoint-and-model 4.1)."""

    def __init__(self, codes: Float[Tensor, "*n outer inner"], scale: Float[Tensor, "*n outer 1"]) -> None:
        if codes.dtype != torch.float8_e4m3fn or scale.shape != (*codes.shape[:-1], 1):
            raise UsageError(
                f"fp8 codes are float8_e4m3fn with a scale per row: {codes.dtype} {tuple(codes.shape)}, "
                f"scale {tuple(scale.shape)}"
            )
        super().__init__(codes, scale)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return (self.codes.float() * self.scale.float()).to(dtype)

    def kernel_form(self) -> tuple[Tensor, Tensor | None, int]:
        return self.codes, self.scale.float(), kernels.FP8


# e2m1: one sign bit, then 0, 0.5, 1, 1.5, 2, 3, 4, 6
_E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])
_BYTES = torch.arange(256)
# The two values of a byte in bfloat16, packed as one int32, so that one look-up reads both.
_E2M1_PAIRS = _E2M1[torch.stack((_BYTES & 15, _BYTES >> 4), dim=-1)].bfloat16().view(torch.int32).squeeze(-1)
_E8M0 = torch.ldexp(torch.ones(256), _BYTES - 127).bfloat16()
_E8M0[255] = torch.nan


class Mxfp4Weight(CodedWeight):
    """MXFP4: two e2m1 codes per byte, the even one low, and a power of two for every 32 (spec 4.2).

    A scale byte s means 2^(s-127); 255 is the format's NaN.
    """

    BLOCK = 32

    def __init__(self, codes: UInt8[Tensor, "*n outer half"], scale: UInt8[Tensor, "*n outer blocks"]) -> None:
        if scale.shape != (*codes.shape[:-1], codes.shape[-1] * 2 // self.BLOCK) or codes.shape[-1] * 2 % self.BLOCK:
            raise UsageError(
                f"mxfp4 needs one scale byte per {self.BLOCK} codes: codes {tuple(codes.shape)} (two a byte), "
                f"scale {tuple(scale.shape)}"
            )
        super().__init__(codes, scale)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.codes.shape[:-1], self.codes.shape[-1] * 2))

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        # in bfloat16: two significant bits times a power of two is exact there, its smallest and largest included
        pairs = _E2M1_PAIRS.to(self.device).index_select(0, self.codes.flatten().int())
        values = pairs.view(torch.bfloat16).view(*self.scale.shape, self.BLOCK)
        factors = _E8M0.to(self.device)[self.scale.int()]
        return (values * factors.unsqueeze(-1)).flatten(-2).to(dtype)

    def kernel_form(self) -> tuple[Tensor, Tensor | None, int]:
        return self.codes, self.scale, kernels.MXFP4


TILE, GROUP = 16, 32
"""Rows of a tile, and columns that share a scale of int4."""


class TiledWeight(PinnedBuffers, PackedWeight):
    """int8 or int4 in tiles of 16 rows, codes first and their scales behind them, as the CPU kernels read them.

    For every 4 columns a tile has a line of 64 codes, 4 of each row. The same bytes lie in a quantised checkpoint,
    and are used where they lie. Layout: `ops/cpu/native/matrix.h`.
    """

    data: Tensor

    def __init__(self, data: UInt8[Tensor, "*n tiles bytes"]) -> None:
        super().__init__()
        self.register_buffer("data", data)

    @classmethod
    def stored_shape(cls, shape: Sequence[int]) -> tuple[int, ...]:
        """Of the bytes of a matrix, or stack of them, of this shape. Raises UsageError where it has no whole tiles."""
        *n, outer, inner = shape
        if outer % TILE or inner % GROUP:
            raise UsageError(
                f"a matrix is packed in tiles of {TILE} rows and groups of {GROUP} columns: {outer} x {inner}"
            )
        return (*n, outer // TILE, cls.tile_bytes(inner))

    @staticmethod
    def tile_bytes(inner: int) -> int:
        """Bytes of a tile of rows of this length."""
        raise NotImplementedError

    @property
    def inner(self) -> int:
        """Columns of the matrix."""
        raise NotImplementedError

    @classmethod
    def of(cls, dense: Float[Tensor, "outer inner"]) -> TiledWeight:
        """A matrix packed. The plain reference of `ops.cpu.matrix.pack`."""
        raise NotImplementedError

    @property
    def shape(self) -> torch.Size:
        *n, tiles, _ = self.data.shape
        return torch.Size((*n, tiles * TILE, self.inner))

    @property
    def dtype(self) -> torch.dtype:
        return self.data.dtype

    @property
    def device(self) -> torch.device:
        return self.data.device

    def __getitem__(self, index: int) -> TiledWeight:
        return type(self)(self.data[index])


class Int8Weight(TiledWeight):
    """One byte a weight, of value + 128, and a float32 scale for each row."""

    @staticmethod
    def tile_bytes(inner: int) -> int:
        return TILE * inner + TILE * 4

    @property
    def inner(self) -> int:
        return self.data.shape[-1] // TILE - 4

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        codes, scale = self.data.split((TILE * self.inner, TILE * 4), dim=-1)
        lines = codes.unflatten(-1, (-1, TILE, 4)).transpose(-3, -2).flatten(-2)  # (*n, tiles, 16, inner)
        scales = scale.contiguous().view(torch.float32).unsqueeze(-1)
        return ((lines.float() - 128) * scales).flatten(-3, -2).to(dtype)

    def kernel_form(self) -> tuple[Tensor, Tensor | None, int]:
        return self.data, None, kernels.INT8

    @classmethod
    def of(cls, dense: Tensor) -> Int8Weight:
        """The nearest codes; the largest value of each row becomes 127."""
        cls.stored_shape(dense.shape)
        dense = dense.float()
        scale = dense.abs().amax(-1, keepdim=True) / 127
        codes = (dense / scale.where(scale > 0, 1)).round() + 128
        lines = codes.to(torch.uint8).unflatten(0, (-1, TILE)).unflatten(-1, (-1, 4)).transpose(1, 2).flatten(1)
        return cls(torch.cat([lines, scale.view(-1, TILE).view(torch.uint8)], dim=-1))


class Int4Weight(TiledWeight):
    """Half a byte a weight, of value + 8, and a bfloat16 scale for each 32 columns of a row: 4.5 bits."""

    @staticmethod
    def tile_bytes(inner: int) -> int:
        return TILE * inner // 2 + inner // GROUP * TILE * 2

    @property
    def inner(self) -> int:
        return self.data.shape[-1] // 9

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        codes, scale = self.data.split((8 * self.inner, self.inner), dim=-1)
        pairs = codes.unflatten(-1, (-1, 1, TILE, 4))
        lines = torch.cat([pairs & 15, pairs >> 4], dim=-3)  # (*n, tiles, inner / 8, 2, 16, 4)
        values = lines.movedim(-2, -4).flatten(-3).unflatten(-1, (-1, GROUP)).float() - 8
        scales = scale.contiguous().view(torch.bfloat16).unflatten(-1, (-1, TILE)).transpose(-2, -1)
        return (values * scales.float().unsqueeze(-1)).flatten(-2).flatten(-3, -2).to(dtype)

    def kernel_form(self) -> tuple[Tensor, Tensor | None, int]:
        return self.data, None, kernels.INT4

    @classmethod
    def of(cls, dense: Tensor) -> Int4Weight:
        """Codes and scales of a small squared error.

        The largest value of a group becomes -8 or nearly, by a scale of either sign; nineteen scales around that are
        tried, and the best is fitted to its codes.
        """
        cls.stored_shape(dense.shape)
        groups = dense.float().unflatten(-1, (-1, GROUP))
        extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
        safe = extreme.where(extreme != 0, 1)
        best, scale = torch.zeros_like(extreme), extreme / -8
        for step in range(19):
            codes = (groups * (-(7.1 + 0.1 * step) / safe)).round().clamp(-8, 7)
            products, squares = (codes * groups).sum(-1, keepdim=True), codes.square().sum(-1, keepdim=True)
            gain = products.square() / squares.clamp_min(1)
            scale, best = torch.where(gain > best, products / squares.clamp_min(1), scale), best.maximum(gain)
        scale = scale.bfloat16()
        inverse = torch.where(scale != 0, 1 / scale.float(), 0.0)
        codes = ((groups * inverse).round().clamp(-8, 7) + 8).to(torch.uint8)  # (outer, groups, 32)
        lines = codes.flatten(1).unflatten(0, (-1, TILE)).unflatten(-1, (-1, 2, 4)).movedim(1, -2)
        packed = (lines[:, :, 0] | lines[:, :, 1] << 4).flatten(1)
        scales = scale.squeeze(-1).unflatten(0, (-1, TILE)).transpose(1, 2).flatten(1)
        return cls(torch.cat([packed, scales.view(torch.uint8)], dim=-1))


class StackedParts(PackedWeight):
    """A stack whose matrices lie apart, used where they are.

    The legacy layout stores every expert on its own. Stacking them would copy the whole file into memory; this does
    not. The parts are plain values and are converted with the model.
    """

    def __init__(self, parts: list[Tensor]) -> None:
        super().__init__()
        if not parts or any(p.shape != parts[0].shape for p in parts):
            raise UsageError(f"the parts of a stack must have one shape: {[tuple(p.shape) for p in parts][:4]}")
        for index, part in enumerate(parts):
            self.register_buffer(str(index), part)

    @property
    def parts(self) -> list[Tensor]:
        return list(self.buffers())

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.parts), *self.parts[0].shape))

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return torch.stack(self.parts).to(dtype)

    def __getitem__(self, index: int) -> Tensor:
        return cast(Tensor, self._buffers[str(index)])
