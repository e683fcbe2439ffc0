"""Writing a checkpoint directory in a published layout, from whatever can give the tensors one after the other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zaya.core.files import new_directory
from zaya.core.tensorfile import DTYPES, Planned, write_file
from zaya.errors import CheckpointError, UsageError
from zaya.model.config import ModelConfig
from zaya.model.layouts.checkpoint import LAYOUTS, Layout
from zaya.model.layouts.entry import Entry

if TYPE_CHECKING:
    from torch import Tensor

MAX_SHARD_BYTES = 5_000_000_000
"""Default size of a shard, that of the published checkpoints."""

TEXT_FILES = (
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json",
    "generation_config.json", "additional_chat_templates/tool_use.jinja",
)  # fmt: skip
"""What else belongs to a checkpoint; copied as it is."""

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and the bytes there are."""


def check_layout(layout: str) -> Layout:
    """The layout of that name. Raises UsageError for any other."""
    if layout not in LAYOUTS:
        raise UsageError(f"no layout is called {layout!r}", hint=f"there are {' and '.join(LAYOUTS)}")
    return layout  # type: ignore[return-value]


def write_checkpoint(
    directory: str | Path,
    config: ModelConfig,
    layout: Layout,
    *,
    dtype: Callable[[str], str],
    pieces: Callable[[str, int | None], Iterator[Tensor]],
    shape: Callable[[Entry], tuple[int, ...]] = lambda entry: entry.shape,
    about: Mapping[str, object] | None = None,
    text_from: Path | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write a directory that appears whole or not at all.

    `dtype(name)` is the stored type of a tensor of ours, `shape(entry)` its shape as stored, `pieces(name, part)` its
    values in order. `about` goes into config.json beside the configuration. `text_from` is a checkpoint whose
    tokenizer and generation settings go along. Raises UsageError for a destination that cannot be
    used, CheckpointError where the disk has no room or fails.
    """
    destination = Path(directory)
    if max_shard_bytes < 1:
        raise UsageError(f"a shard must have room for at least one byte: {max_shard_bytes}")
    if overwrite and destination.is_dir() and any(destination.iterdir()) and not (destination / "config.json").exists():
        raise UsageError(
            f"the destination is not a checkpoint and is not overwritten: {destination}", hint="choose another name"
        )
    entries = {entry.published: entry for entry in LAYOUTS[layout].entries(config)}
    planned = [Planned(entry.published, dtype(entry.name), shape(entry)) for entry in entries.values()]
    total = sum(tensor.nbytes for tensor in planned)
    _check_room(destination, total)
    done = 0
    try:
        with new_directory(destination, overwrite=overwrite) as partial:
            written = LAYOUTS[layout].config_to_json(config, DTYPES[dtype("final_norm.weight")][0]) | (about or {})
            (partial / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
            for name in TEXT_FILES:
                if text_from is not None and (text_from / name).is_file():
                    (partial / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(text_from / name, partial / name)

            def values(published: str) -> Iterator[Tensor]:
                entry = entries[published]
                return pieces(entry.name, entry.part)

            for nbytes in write_shards(partial, planned, values, max_shard_bytes):
                done += nbytes
                if progress is not None:
                    progress(done, total)
    except OSError as error:
        raise CheckpointError(f"writing {destination} failed: {error.strerror or error}") from error


def _check_room(destination: Path, total: int) -> None:
    existing = next(path for path in (destination.absolute(), *destination.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < total:
        raise CheckpointError(
            f"{destination} needs {total / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB free",
            hint="free some space, or write to another disk",
        )


def split(tensors: Iterable[Planned], max_shard_bytes: int) -> list[list[Planned]]:
    """Cut a list of tensors into shards of at most that many bytes; a larger tensor gets a shard of its own."""
    shards: list[list[Planned]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + tensor.nbytes > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.nbytes
    return shards


def write_shards(
    directory: Path,
    tensors: Sequence[Planned],
    pieces: Callable[[str], Iterator[Tensor]],
    max_shard_bytes: int,
) -> Iterator[int]:
    """Write a checkpoint's tensors: one file, or shards and the index that says which shard holds what."""
    shards = split(tensors, max_shard_bytes)
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for name, shard in zip(names, shards, strict=True):
        yield from write_file(directory / name, shard, pieces)
    if len(shards) > 1:
        where = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index: Mapping[str, object] = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors)},
            "weight_map": dict(sorted(where.items())),
        }
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
