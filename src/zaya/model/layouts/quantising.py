"""From a checkpoint to one of fewer bits: int8, or int4 with a scale for every 32 columns.

What is packed are the matrices that make up the size: experts, projections of the attention, and the embedding, which
is also the head. Norms, routers, convolutions, residual scales and biases stay as they are: they are small, and a
router that is off by little chooses another expert. Experts are nearly all of a checkpoint and bear four bits well; the
projections of the attention are a fortieth of it and do not, nor does the head. So "int4" keeps both in int8, and
"int4-all", which does not, is for who has no room (docs/concepts/quantisation.md).

`quantize` streams from a directory to another, in the kernels' own layout; `quantized` packs one tensor of a model
that is being loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zaya.errors import CheckpointError, UsageError, did_you_mean
from zaya.model.init import TensorSpec, tensor_table
from zaya.model.layouts.checkpoint import dense_pieces, open_checkpoint
from zaya.model.layouts.conversion import balancing_biases
from zaya.model.layouts.faithful import check_faithful
from zaya.model.layouts.quantised import OUR_METHOD, tiled_shape
from zaya.model.layouts.writing import MAX_SHARD_BYTES, Progress, write_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from zaya.ops.packed import PackedWeight, TiledWeight

Form = Literal["int8", "int4"]

FORMATS: dict[str, tuple[Form, Form]] = {
    "int8": ("int8", "int8"),
    "int4": ("int4", "int8"),
    "int4-all": ("int4", "int4"),
}
"""Name -> form of the experts, and of what every token touches: attention and embedding."""


def check_format(name: str) -> str:
    """The format of that name. Raises UsageError for any other."""
    if name not in FORMATS:
        raise UsageError(f"no format is called {name!r}", hint=did_you_mean(name, FORMATS))
    return name


def form_of(spec: TensorSpec, format: str) -> Form | None:
    """How a tensor is packed in a format; None where it stays as it is."""
    experts, shared = FORMATS[format]
    if spec.group == "expert":
        form = experts
    elif spec.name == "embed" or (".attention." in spec.name and spec.group == "matrix"):
        form = shared
    else:
        return None
    return form if tiled_shape(form, spec.shape) is not None else None


@dataclass(frozen=True, slots=True)
class Packing:
    """What became of one tensor."""

    name: str
    form: Form
    error: float
    """Norm of what is lost, by the norm of the tensor; of a stack, the mean over its matrices."""


def quantized(weight: Tensor | PackedWeight, form: Form) -> tuple[TiledWeight, float]:
    """A matrix or stack packed, and its relative error."""
    import torch

    from zaya.ops.cpu.matrix import pack
    from zaya.ops.packed import Int4Weight, Int8Weight

    kind = Int8Weight if form == "int8" else Int4Weight
    if len(weight.shape) == 2:
        return pack(next(dense_pieces(weight, None, torch.float32)), kind)
    packed = kind(torch.empty(kind.stored_shape(weight.shape), dtype=torch.uint8))
    errors = []
    for index in range(weight.shape[0]):
        matrix, error = pack(next(dense_pieces(weight, index, torch.float32)), kind)
        packed.data[index] = matrix.data
        errors.append(error)
    return packed, sum(errors) / len(errors)


def quantize(
    src: str | Path,
    dst: str | Path,
    format: str = "int4",
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Packing]:
    """Write the checkpoint `src`, of any layout, as `dst` in a format; what each packed tensor lost.

    Memory stays at about one expert's bank, whatever the size. `dst` appears whole or not at all, and is loaded like
    any other checkpoint. Raises CheckpointError for a source that cannot be read or is packed already, UsageError for
    a format or destination that cannot be used.
    """
    check_format(format)
    source, target = Path(os.path.realpath(src)), Path(os.path.realpath(dst))
    if source == target or source in target.parents or target in source.parents:
        raise UsageError(
            f"source and destination must be apart, neither inside the other: {src}, {dst}",
            hint="choose a destination beside the source",
        )
    checkpoint = open_checkpoint(Path(src))
    if any(packed.scale is None for packed in checkpoint.packed.values()):
        raise CheckpointError(f"{src} is quantised already", hint="start from the checkpoint it was made from")
    check_faithful(checkpoint.config, "native", balancing_biases(checkpoint))
    specs = {spec.name: spec for spec in tensor_table(checkpoint.config)}
    forms: dict[str, Form] = {name: form for name, spec in specs.items() if (form := form_of(spec, format)) is not None}
    packings: list[Packing] = []

    def pieces(name: str, part: int | None) -> Iterator[Tensor]:
        if name not in forms:
            yield from checkpoint.pieces(name, part)
            return
        errors = []
        for matrix in _matrices(checkpoint.weight(name)):
            packed, error = quantized(matrix, forms[name])
            errors.append(error)
            yield packed.data
        packings.append(Packing(name, forms[name], sum(errors) / len(errors)))

    def _matrices(weight: Tensor | PackedWeight) -> Iterator[Tensor | PackedWeight]:
        if len(weight.shape) == 2:
            yield weight
        else:
            yield from (weight[index] for index in range(weight.shape[0]))

    write_checkpoint(
        target,
        checkpoint.config,
        "native",
        dtype=lambda name: "U8" if name in forms else checkpoint.dtype(name),
        shape=lambda entry: tiled_shape(forms[entry.name], entry.shape) if entry.name in forms else entry.shape,  # type: ignore[return-value]
        pieces=pieces,
        about={"quantization_config": {"quant_method": OUR_METHOD, "format": format}},
        text_from=checkpoint.path,
        max_shard_bytes=max_shard_bytes,
        overwrite=overwrite,
        progress=progress,
    )
    return packings
