"""Weights stored as codes and scales: which tensors of a checkpoint they are, and the packed weights they make.

Two published formats (spec checkpoint-and-model 4), both of experts, by compressed-tensors and in the native layout:
FP8 with a scale per output channel, and MXFP4 with a scale per 32 inputs. Only the weights are packed; a checkpoint
that also asks for packed activations is computed with plain ones. What the tensors are decides; the names vary.

And our own, which `quantize` writes: int8 or int4 in the tiles that the CPU kernels read, one tensor of bytes under the
name of the matrix it stands for, and `"quant_method": "zaya"` in config.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from zaya.core.tensorfile import Stored, TensorFiles
from zaya.errors import CheckpointError
from zaya.model.layouts.entry import Entry

if TYPE_CHECKING:
    from zaya.ops.packed import PackedWeight

_CODES = ("", ".weight", ".weight_packed", "_packed")
_SCALES = (".weight_scale", "_scale")
_SHAPE = ".weight_shape"  # some releases of compressed-tensors repeat the shape as a tensor
_MX_BLOCK = 32

OUR_METHOD = "zaya"
"""`quant_method` of a directory that `quantize` wrote."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The codes and scales that stand for one tensor of a layout."""

    format: Literal["fp8", "mxfp4", "int8", "int4"]
    codes: Stored
    scale: Stored | None = None
    """None where scales lie behind the codes."""

    def weight(self, files: TensorFiles) -> PackedWeight:
        """The packed weight, in place in the file."""
        import torch

        from zaya.ops.packed import Fp8Weight, Int4Weight, Int8Weight, Mxfp4Weight

        codes = files.tensor(self.codes)
        if self.scale is None:
            return Int8Weight(codes) if self.format == "int8" else Int4Weight(codes)
        scale = files.tensor(self.scale)
        return Fp8Weight(codes, scale) if self.format == "fp8" else Mxfp4Weight(codes, scale.view(torch.uint8))


def find_packed(entry: Entry, stored: Mapping[str, Stored]) -> tuple[Packed | None, set[str], list[str]]:
    """The packed form of an entry, the names it uses up, and what is wrong with it. Empty where it is not packed."""
    if entry.part is None and (tiled := stored.get(entry.published)) is not None and tiled.dtype == "U8":
        for format in TILED:
            if tiled.shape == tiled_shape(format, entry.shape):
                return Packed(format, tiled), {entry.published}, []
    if entry.part is not None or ".experts." not in entry.name:  # nothing else is published packed
        return None, set(), []
    scales = [name for suffix in _SCALES if (name := entry.published + suffix) in stored]
    codes = [name for suffix in _CODES if (name := entry.published + suffix) in stored]
    if not scales or not codes:
        return None, set(), []
    used = {codes[0], scales[0], entry.published + _SHAPE} & set(stored)
    code, scale = stored[codes[0]], stored[scales[0]]
    rows, inner = entry.shape[:-1], entry.shape[-1]
    if code.dtype == "F8_E4M3":
        packed = Packed("fp8", code, scale)
        shapes, scale_types = (entry.shape, (*rows, 1)), ("F32", "BF16", "F16")
    elif code.dtype == "U8":
        packed = Packed("mxfp4", code, scale)
        shapes, scale_types = ((*rows, inner // 2), (*rows, inner // _MX_BLOCK)), ("U8", "F8_E8M0")
    else:
        return None, used, [f"packed in a way that is not read: {code.name} holds {code.dtype}"]
    wrong = [
        f"shape: {part.name} has {list(part.shape)}, expected {list(shape)}"
        for part, shape in zip((code, scale), shapes, strict=True)
        if part.shape != shape
    ]
    if scale.dtype not in scale_types:
        wrong.append(f"type: {scale.name} holds {scale.dtype}, expected {' or '.join(scale_types)}")
    return packed, used, wrong


TILED: tuple[Literal["int8", "int4"], ...] = ("int8", "int4")


def tiled_shape(format: Literal["int8", "int4"], shape: Sequence[int]) -> tuple[int, ...] | None:
    """Shape of the bytes in which a matrix, or a stack of them, is stored; None where it has no whole tiles."""
    if len(shape) < 2 or shape[-2] % 16 or shape[-1] % 32:
        return None
    *n, outer, inner = shape
    return (*n, outer // 16, 16 * inner + 64 if format == "int8" else 9 * inner)


def check_method(raw: Mapping[str, object]) -> None:
    """Refuse a config.json that names a way of packing other than the published one."""
    packing = raw.get("quantization_config")
    if not packing:
        return
    method = packing.get("quant_method") if isinstance(packing, dict) else packing
    if method not in ("compressed-tensors", OUR_METHOD):
        raise CheckpointError(
            f"the checkpoint is packed by {method!r}; only compressed-tensors and our own int8 and int4 are read",
            hint="take an unpacked checkpoint, or ZAYA1-8B-FP8-Experts or ZAYA1-8B-MXFP4-Experts",
        )
