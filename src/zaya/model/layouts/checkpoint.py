"""A checkpoint directory, opened: its layout, its configuration, and where every tensor of ours lies in it.

Opening reads headers only and checks everything that can be checked without the data; what is wrong is said in one
error. Loading, converting and inspecting all start here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zaya.core.tensorfile import FLOATS, Stored, TensorFiles, read_header
from zaya.errors import CheckpointError
from zaya.model.config import ModelConfig
from zaya.model.layouts import legacy, native
from zaya.model.layouts.entry import Entry
from zaya.model.layouts.quantised import Packed, check_method, find_packed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from zaya.ops.packed import PackedWeight

Layout = Literal["native", "legacy"]

LAYOUTS: dict[Layout, Any] = {"native": native, "legacy": legacy}

_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. Tensors are asked for by our names."""

    path: Path
    layout: Layout
    config: ModelConfig
    entries: dict[str, list[Entry]]
    """What is stored for each tensor of ours: the whole, or its parts in order."""
    stored: dict[str, Stored]
    """By published name."""
    packed: dict[str, Packed]
    """By published name."""
    _files: TensorFiles = field(default_factory=TensorFiles)

    def weight(self, name: str) -> Tensor | PackedWeight:
        """A tensor of ours as it is stored, in place: dense, packed, or a stack of parts that lie apart."""
        from zaya.ops.packed import StackedParts

        entries = self.entries[name]
        if entries[0].part is not None:
            return StackedParts([self._tensor(entry) for entry in entries])
        packed = self.packed.get(entries[0].published)
        return self._tensor(entries[0]) if packed is None else packed.weight(self._files)

    def pieces(self, name: str, part: int | None = None) -> Iterator[Tensor]:
        """The values of a tensor of ours, or of one part of it, as dense tensors one after the other.

        Packed matrices are dequantised to bfloat16 one at a time; everything else is as stored, in place.
        """
        import torch

        return dense_pieces(self.weight(name), part, torch.bfloat16)

    def dtype(self, name: str) -> str:
        """Type of the values that `pieces` gives, as the files write it."""
        entries = self.entries[name]
        if entries[0].published in self.packed:
            return "BF16"
        types = {self.stored[entry.published].dtype for entry in entries}
        if len(types) > 1:
            raise CheckpointError(f"the parts of {name} are stored in different types: {', '.join(sorted(types))}")
        return types.pop()

    def nbytes(self, name: str) -> int:
        """Bytes that a tensor of ours takes in the files, scales included."""
        total = 0
        for entry in self.entries[name]:
            packed = self.packed.get(entry.published)
            parts = [self.stored[entry.published]] if packed is None else [packed.codes, packed.scale]
            total += sum(part.end - part.start for part in parts if part is not None)
        return total

    def _tensor(self, entry: Entry) -> Tensor:
        return self._files.tensor(self.stored[entry.published])


def dense_pieces(weight: Tensor | PackedWeight, part: int | None, unpacked: torch.dtype) -> Iterator[Tensor]:
    """The values of a weight, or of one matrix of a stack, in order; packed matrices one at a time, as `unpacked`."""
    import torch

    if isinstance(weight, torch.Tensor):
        yield weight if part is None else weight[part]
        return
    if len(weight.shape) == 2:
        yield weight.dequantize(unpacked)
        return
    for index in range(weight.shape[0]) if part is None else [part]:
        matrix = weight[index]
        yield matrix if isinstance(matrix, torch.Tensor) else matrix.dequantize(unpacked)


def detect_layout(raw: Mapping[str, object], names: Mapping[str, object] | set[str]) -> Layout:
    """Which layout a config.json and tensor names are in: any legacy marker wins (spec 2.5)."""
    is_legacy = any(key in raw for key in legacy.MARKERS) or any(legacy.TENSOR_MARKER in name for name in names)
    return "legacy" if is_legacy else "native"


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a directory with config.json and safetensors files, in any of the published layouts.

    Raises CheckpointError for what is missing, damaged or does not fit, and ConfigError for what is not computed.
    """
    path = Path(path)
    raw = read_config(path)
    stored = _stored_tensors(path)
    check_method(raw)
    layout = detect_layout(raw, set(stored))
    if layout == "legacy":
        if not any(key in raw for key in legacy.MARKERS):
            raise CheckpointError(
                f"{path} has tensors in the legacy layout and a config.json that is not",
                hint="take config.json from the same revision as the tensors",
            )
        first = stored.get(legacy.FIRST_QUERY)
        config = legacy.config_from_json(raw, first.shape[0] if first and first.shape else None)
    else:
        config = native.config_from_json(raw)
    wanted = config.num_layers * (config.num_experts if layout == "legacy" else 1)
    if wanted > 10 * len(stored):  # before a list of everything that is missing is made
        raise CheckpointError(
            f"{path} holds {len(stored)} tensors; its config.json asks for {config.num_layers} layers of "
            f"{config.num_experts} experts",
            hint="take config.json and tensors from one revision",
        )
    entries, packed = _match(path, layout, list(LAYOUTS[layout].entries(config)), stored)
    return Checkpoint(path, layout, config, entries, stored, packed)


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a checkpoint directory, as it is."""
    if not path.exists():
        raise CheckpointError(f"there is no {path}", hint="give the directory of a checkpoint")
    if not path.is_dir():
        raise CheckpointError(f"{path} is a file", hint="give the directory that holds it and config.json")
    file = path / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{path} has no config.json", hint="a checkpoint is a directory with config.json")
    raw = _read_json(file)
    if not isinstance(raw, dict):
        raise CheckpointError(f"{file} holds a {type(raw).__name__}; expected an object of keys and values")
    return raw


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}", hint="copy or download the file again") from error


def _stored_tensors(path: Path) -> dict[str, Stored]:
    """Every tensor of the directory, by published name."""
    single, index = path / "model.safetensors", path / _INDEX
    if single.is_file():
        return read_header(single)
    if not index.is_file():
        raise _no_tensors(path)
    listing = _read_json(index)
    where = listing.get("weight_map") if isinstance(listing, dict) else None
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise CheckpointError(f"{index} has no weight_map from tensors to files", hint="download the file again")
    shards = sorted(set(where.values()))
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise CheckpointError(f"{index} names files outside its directory: {', '.join(outside)}")
    if missing := [shard for shard in shards if not (path / shard).is_file()]:
        raise CheckpointError(
            f"{path} lacks {len(missing)} of {len(shards)} shards: {', '.join(missing)}",
            hint="download the missing files",
        )
    stored: dict[str, Stored] = {}
    for shard in shards:
        for name, tensor in read_header(path / shard).items():
            if name in stored:
                raise CheckpointError(f"{name} is stored twice: in {stored[name].file.name} and {shard}")
            stored[name] = tensor
    if lost := [name for name, shard in where.items() if name not in stored or stored[name].file.name != shard]:
        raise CheckpointError(
            f"{index} and the shards disagree about {len(lost)} tensors: {', '.join(sorted(lost))}",
            hint="take index and shards from one revision",
        )
    return stored


def _no_tensors(path: Path) -> CheckpointError:
    shards = sorted(file.name for file in path.glob("*.safetensors"))
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if shards:
        return CheckpointError(
            f"{path} has {', '.join(shards)} and no {_INDEX} that says what is in them",
            hint="download the index too; a single file is called model.safetensors",
        )
    if pickles:
        return CheckpointError(
            f"{path} has its tensors in pickle files, which run code when they are opened: {', '.join(pickles)}",
            hint="take a checkpoint in safetensors files",
        )
    return CheckpointError(f"{path} has no model.safetensors and no {_INDEX}", hint="download the tensors too")


def _match(
    path: Path, layout: Layout, entries: list[Entry], stored: Mapping[str, Stored]
) -> tuple[dict[str, list[Entry]], dict[str, Packed]]:
    """Pair what should be there with what is. Everything that does not fit is named in one error."""
    by_name: dict[str, list[Entry]] = defaultdict(list)
    packed: dict[str, Packed] = {}
    missing: list[str] = []
    wrong: list[str] = []
    left = set(stored)
    for entry in entries:
        by_name[entry.name].append(entry)
        found, used, faults = find_packed(entry, stored)
        wrong += faults
        left -= used | {entry.published}
        if found is not None:
            packed[entry.published] = found
        elif used:
            continue
        elif entry.published not in stored:
            missing.append(entry.published)
        else:
            wrong += _faults(entry, stored[entry.published])
    if len(missing) == len(entries):
        raise CheckpointError(
            f"{path} holds none of the {len(entries)} tensors of its {layout} config.json: it has "
            f"{len(stored)} others, such as {', '.join(sorted(stored)[:3])}",
            hint="take config.json and tensors from one revision",
        )
    lines = [f"missing: {name}" for name in missing] + [f"unexpected: {name}" for name in sorted(left)] + wrong
    if lines:
        raise CheckpointError(
            f"the tensors in {path} do not fit its config.json ({layout} layout):\n  " + "\n  ".join(lines),
            hint="take config.json and tensors from one revision",
        )
    return dict(by_name), packed


def _faults(entry: Entry, tensor: Stored) -> list[str]:
    faults = []
    if tensor.shape != entry.shape:
        faults.append(f"shape: {tensor.name} has {list(tensor.shape)}, expected {list(entry.shape)}")
    if tensor.dtype not in FLOATS:
        faults.append(f"type: {tensor.name} holds {tensor.dtype}, expected {' or '.join(FLOATS)}")
    return faults
