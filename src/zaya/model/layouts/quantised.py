"""Experts stored as codes and scales: which tensors of a checkpoint they are, and the packed weights they make.

Two published formats (spec checkpoint-and-model 4), both by compressed-tensors and in the native layout: FP8 with a
scale per output channel, and MXFP4 with a scale per 32 inputs. Only the weights are packed; a checkpoint that also
asks for packed activations is computed with plain ones. What the tensors are decides; the names vary.
"""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class Packed:
    """The codes and scales that stand for one tensor of a layout."""

    format: Literal["fp8", "mxfp4"]
    codes: Stored
    scale: Stored

    def weight(self, files: TensorFiles) -> PackedWeight:
        """The packed weight, in place in the file."""
        import torch

        from zaya.ops.packed import Fp8Weight, Mxfp4Weight

        codes, scale = files.tensor(self.codes), files.tensor(self.scale)
        return Fp8Weight(codes, scale) if self.format == "fp8" else Mxfp4Weight(codes, scale.view(torch.uint8))


def find_packed(entry: Entry, stored: Mapping[str, Stored]) -> tuple[Packed | None, set[str], list[str]]:
    """The packed form of an entry, the names it uses up, and what is wrong with it. Empty where it is not packed."""
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


def check_method(raw: Mapping[str, object]) -> None:
    """Refuse a config.json that names a way of packing other than the published one."""
    packing = raw.get("quantization_config")
    if not packing:
        return
    method = packing.get("quant_method") if isinstance(packing, dict) else packing
    if method != "compressed-tensors":
        raise CheckpointError(
            f"the checkpoint is packed by {method!r}; only compressed-tensors is read",
            hint="take an unpacked checkpoint, or ZAYA1-8B-FP8-Experts or ZAYA1-8B-MXFP4-Experts",
        )
