"""Checkpoints of a run: named tensors and a little state, a directory for each step.

    run/ckpt/step_00000040/
        manifest.json         step, state, and of every tensor its dtype, shape and checksum
        tensors.safetensors

A directory appears whole or not at all (core/files); there is no pointer to the newest that could be wrong, it is found
by looking. Names are logical: they say which tensor of the run it is, never who holds it or how it was divided. What a
checkpoint is read back from is checked byte by byte. Source: spec pretraining 8.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zaya.core.files import new_directory, remove_leftovers
from zaya.core.tensorfile import DTYPE_NAMES, Planned, TensorFiles, read_header, write_file
from zaya.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_MANIFEST = "manifest.json"
_TENSORS = "tensors.safetensors"
_STEP = re.compile(r"step_(\d{8,})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint that was read and found whole."""

    directory: Path
    step: int
    is_marked: bool
    """Stays, whatever comes after it."""
    state: dict[str, Any]
    """What is no tensor: counters, configuration, hashes. JSON."""
    tensors: dict[str, Tensor]
    """On the CPU, mapped from the file; copy what is to be kept."""


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    keep: int = 2,
    mark: bool = False,
) -> Path:
    """Write the checkpoint of a step, read it back, and only then remove what is no longer needed.

    Of the unmarked checkpoints the newest `keep` stay. Those beyond `step` belong to a future that this run has left by
    resuming before it, and go. Whatever happens on the way, what was there before is still there. Returns the
    directory. Raises CheckpointError where the disk has no room, fails, or gives back something else.
    """
    assert step >= 0
    assert keep >= 1
    directory = folder / f"step_{step:08d}"
    planned = [
        Planned(name, DTYPE_NAMES[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    checksums: dict[str, str] = {}

    def pieces(name: str) -> Iterator[Tensor]:
        tensor = tensors[name].detach().cpu()
        checksums[name] = _checksum(tensor)
        yield tensor

    try:
        with new_directory(directory, overwrite=True) as partial:
            for _ in write_file(partial / _TENSORS, planned, pieces):
                pass
            content = {
                "step": step,
                "marked": mark,
                "state": dict(state),
                "tensors": {
                    tensor.name: {"dtype": tensor.dtype, "shape": tensor.shape, "sha256": checksums[tensor.name]}
                    for tensor in planned
                },
            }
            manifest = {"sha256": _digest(content), **content}
            (partial / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        load_checkpoint(directory)
        _retain(folder, step, keep)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {directory} could not be written: {error.strerror or error}",
            hint="the checkpoints before it are untouched; make room and resume",
        ) from error
    return directory


def load_checkpoint(directory: Path) -> Checkpoint:
    """A checkpoint, every byte of it checked. Raises CheckpointError that says what is missing or damaged."""
    manifest = _read_manifest(directory)
    stored = read_header(directory / _TENSORS)
    listed = manifest["tensors"]
    if stored.keys() != listed.keys():
        odd = sorted(stored.keys() ^ listed.keys())
        raise _damaged(directory, f"manifest and tensors disagree about {', '.join(odd[:3])}")
    files = TensorFiles()
    tensors = {}
    for name, about in listed.items():
        tensors[name] = files.tensor(stored[name])
        same = (stored[name].dtype, list(stored[name].shape)) == (about["dtype"], about["shape"])
        if not same or _checksum(tensors[name]) != about["sha256"]:
            raise _damaged(directory, f"the tensor {name} is not what was saved")
    return Checkpoint(directory, manifest["step"], manifest["marked"], manifest["state"], tensors)


def latest_checkpoint(folder: Path, notice: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint of a run that is whole; None where there is none at all.

    A damaged one is passed over, and `notice` is told what is wrong with it. Raises CheckpointError where there are
    checkpoints and none is whole: to start from nothing then has to be somebody's decision.
    """
    directories = [directory for _, directory in reversed(_directories(folder))]
    for directory in directories:
        try:
            return load_checkpoint(directory)
        except CheckpointError as error:
            notice(f"{error.message}; trying the checkpoint before it")
    if directories:
        raise CheckpointError(
            f"none of the {len(directories)} checkpoints in {folder} is whole", hint="move them away to start anew"
        )
    return None


def _directories(folder: Path) -> list[tuple[int, Path]]:
    """Steps and directories of a folder, oldest first. Names alone: what is in them is looked at when it is read."""
    if not folder.is_dir():
        return []
    matches = [(_STEP.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match[1]), path) for match, path in matches if match is not None)


def _retain(folder: Path, step: int, keep: int) -> None:
    """Remove what the checkpoint of `step`, which was verified, makes superfluous."""
    plain = []
    for other, directory in _directories(folder):
        if other > step:
            shutil.rmtree(directory)
        elif not _is_marked(directory):
            plain.append(directory)
    for directory in plain[:-keep]:
        shutil.rmtree(directory)
    remove_leftovers(folder)


def _is_marked(directory: Path) -> bool:
    try:
        return _read_manifest(directory)["marked"]
    except CheckpointError:
        return False  # whether it was, nobody can say any more


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        content = {name: manifest[name] for name in ("step", "marked", "state", "tensors")}
        intact = manifest["sha256"] == _digest(content)
    except OSError as error:
        raise _damaged(directory, f"{_MANIFEST} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(directory, f"{_MANIFEST} is not a manifest") from error
    if not intact:
        raise _damaged(directory, f"{_MANIFEST} is not what was saved")
    return content


def _damaged(directory: Path, why: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint {directory} is damaged: {why}", hint="resume from an earlier one")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checksum(tensor: Tensor) -> str:
    import torch

    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data).hexdigest()
