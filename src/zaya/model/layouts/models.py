"""A model from a checkpoint directory, and back.

On a CPU a checkpoint stored in the wanted type is used where it lies: parameters are private views of the mapped
files, packed experts stay packed, experts stored one by one stay apart. Nothing is read before the model runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zaya.core.tensorfile import DTYPE_NAMES
from zaya.errors import CheckpointError, UsageError
from zaya.model.init import TensorSpec, tensor_table
from zaya.model.layouts.checkpoint import Checkpoint, dense_pieces, open_checkpoint
from zaya.model.layouts.directory import local_directory
from zaya.model.layouts.faithful import balancing_bias_names, check_faithful
from zaya.model.layouts.quantising import FORMATS, form_of, quantized
from zaya.model.layouts.writing import MAX_SHARD_BYTES, Progress, check_layout, write_checkpoint
from zaya.model.transformer import ZayaModel
from zaya.ops.packed import PackedWeight, StackedParts

if TYPE_CHECKING:
    from zaya.model.config import Precision
    from zaya.text import Tokenizer

_PRECISIONS: dict[str, Precision] = {"bfloat16": "report", "float32": "float32"}


def load(
    path: str | Path,
    *,
    dtype: str = "bfloat16",
    quantize: str | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[ZayaModel, Tokenizer | None]:
    """A model and its tokenizer (None where there is none) from a checkpoint directory or a hub id "org/name".

    dtype: "bfloat16" keeps weights as published and computes by the report's precision policy; "float32" converts.
    quantize: None keeps what the checkpoint has, "none" makes every weight an ordinary parameter, which training
    needs; "int8", "int4" and "int4-all" pack the large matrices on the way (`layouts.quantising`).
    progress: told how many bytes of the unpacked model are loaded, and of how many. Raises CheckpointError for a
    checkpoint that cannot be used, ConfigError for one we do not compute.
    """
    directory = local_directory(path)
    model = load_model(directory, dtype=dtype, quantize=quantize, device=device, progress=progress)
    from zaya.text import load_tokenizer

    return model, load_tokenizer(directory)


def load_model(
    path: str | Path,
    *,
    dtype: str = "bfloat16",
    quantize: str | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> ZayaModel:
    """The model alone; see `load`."""
    if dtype not in _PRECISIONS:
        raise UsageError(f"a model cannot be loaded as {dtype!r}", hint=f"dtype is {' or '.join(_PRECISIONS)}")
    if quantize not in (None, "none", *FORMATS):
        raise UsageError(
            f"a checkpoint cannot be loaded with quantize={quantize!r}",
            hint=f'it is None, "none", {", ".join(map(repr, FORMATS))}',
        )
    checkpoint = open_checkpoint(path)
    if quantize in FORMATS and any(packed.scale is None for packed in checkpoint.packed.values()):
        raise CheckpointError(
            f"{path} is quantised already, and was to be loaded as {quantize}", hint="leave quantize out"
        )
    model = ZayaModel(checkpoint.config, precision=_PRECISIONS[dtype], seed=None, device="meta")
    specs = list(tensor_table(checkpoint.config))
    done, total = 0, model.dtype.itemsize * sum(spec.numel for spec in specs)
    for spec in specs:
        module, _, leaf = spec.name.rpartition(".")
        form = None if quantize not in FORMATS else form_of(spec, quantize)
        if form is not None:
            weight = quantized(checkpoint.weight(spec.name), form)[0].to(device)
        else:
            in_place = torch.device(device).type == "cpu"
            weight = _weight(checkpoint, spec, model.dtype, keep_packed=quantize != "none", in_place=in_place)
            weight = weight.to(device)
        owner = model.get_submodule(module)
        if isinstance(weight, PackedWeight):
            delattr(owner, leaf)
            setattr(owner, leaf, weight)
        else:
            setattr(owner, leaf, weight if spec.is_buffer else nn.Parameter(weight))
        done += model.dtype.itemsize * spec.numel
        if progress is not None:
            progress(done, total)
    return model


def _weight(
    checkpoint: Checkpoint, spec: TensorSpec, dtype: torch.dtype, *, keep_packed: bool, in_place: bool
) -> Tensor | PackedWeight:
    weight = checkpoint.weight(spec.name)
    if spec.is_buffer:
        dtype = torch.float32  # whatever the policy: rounding a bias would change choices (spec trap 16)
    if isinstance(weight, Tensor):
        return weight.to(dtype)
    # parts that lie apart save a copy where they can be used in place; anywhere else one bank is the better form
    lies_apart = isinstance(weight, StackedParts)
    if keep_packed and (not lies_apart or (in_place and weight.dtype == dtype)):
        return weight
    if len(weight.shape) == 2:
        return weight.dequantize(dtype)
    dense = torch.empty(weight.shape, dtype=dtype)
    for index in range(len(dense)):
        matrix = weight[index]
        dense[index] = matrix if isinstance(matrix, Tensor) else matrix.dequantize(dtype)
    return dense


def save(
    model: ZayaModel,
    directory: str | Path,
    layout: str = "native",
    *,
    text_from: str | Path | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
) -> None:
    """Write a model as a checkpoint in the layout "native", which transformers opens, or "legacy".

    Values are written in the type they have, packed experts in that of the model. `text_from` names a checkpoint
    directory whose tokenizer files go along; with `overwrite` everything else that was in the directory goes. Raises
    CheckpointError where the layout cannot hold the model without changing what it computes. Transformers itself sets
    the skip class's bias to -1 when it loads, whatever a file holds; `inspect` says where that would matter.
    """
    layout = check_layout(layout)
    biases = [model.get_buffer(name).double().tolist() for name in balancing_bias_names(model.config)]
    check_faithful(model.config, layout, biases)

    def weight(name: str) -> Tensor | PackedWeight:
        module, _, leaf = name.rpartition(".")
        return getattr(model.get_submodule(module), leaf)

    def dtype(name: str) -> str:
        held = weight(name)
        stored = held.dtype if isinstance(held, Tensor | StackedParts) else model.dtype
        return DTYPE_NAMES[str(stored).removeprefix("torch.")]

    def pieces(name: str, part: int | None) -> Iterator[Tensor]:
        return dense_pieces(weight(name), part, model.dtype)

    write_checkpoint(
        directory,
        model.config,
        layout,
        dtype=dtype,
        pieces=pieces,
        text_from=None if text_from is None else Path(text_from),
        max_shard_bytes=max_shard_bytes,
        overwrite=overwrite,
    )
