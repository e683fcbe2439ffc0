"""From one checkpoint directory to another, tensor by tensor, without a model and without room for one."""

from __future__ import annotations

import os
from pathlib import Path

from zaya.errors import UsageError
from zaya.model.layouts.checkpoint import Checkpoint, open_checkpoint
from zaya.model.layouts.faithful import balancing_bias_names, check_faithful
from zaya.model.layouts.writing import MAX_SHARD_BYTES, Progress, check_layout, write_checkpoint


def convert(
    src: str | Path,
    dst: str | Path,
    layout: str,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write the checkpoint `src` as `dst` in the layout "native" or "legacy".

    Values and types stay as they are, bit for bit; quantised experts alone change: they become bfloat16. Memory stays
    at about one expert, whatever the size. `dst` appears whole or not at all. Raises CheckpointError for a source
    that cannot be read and for a conversion that would change what the model computes, UsageError for a destination
    that cannot be used.
    """
    layout = check_layout(layout)
    source, target = Path(os.path.realpath(src)), Path(os.path.realpath(dst))
    if source == target or source in target.parents or target in source.parents:
        raise UsageError(
            f"source and destination must be apart, neither inside the other: {src}, {dst}",
            hint="choose a destination beside the source",
        )
    checkpoint = open_checkpoint(Path(src))
    check_faithful(checkpoint.config, layout, balancing_biases(checkpoint))
    write_checkpoint(
        target,
        checkpoint.config,
        layout,
        dtype=checkpoint.dtype,
        pieces=checkpoint.pieces,
        text_from=checkpoint.path,
        max_shard_bytes=max_shard_bytes,
        overwrite=overwrite,
        progress=progress,
    )


def balancing_biases(checkpoint: Checkpoint) -> list[list[float]]:
    """The balancing biases of each layer."""
    names = balancing_bias_names(checkpoint.config)
    return [next(checkpoint.pieces(name)).double().tolist() for name in names]
