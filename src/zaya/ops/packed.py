"""The forms a weight can have besides a Tensor. Each knows its plain reference: how to become dense.

Fast kernels read the stored form in place; `zaya.ops.linear` is the door they stand behind.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from zaya.errors import UsageError
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
