"""A checkpoint's tensors in several files: none larger than asked where that is possible, and an index to find them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from zaya.core.tensorfile import Planned
from zaya.model.layouts.writing import split, write_shards


def test_shards_and_their_index(tmp_path: Path) -> None:
    tensors = {name: torch.full((10,), float(i)) for i, name in enumerate("dcba")}
    planned = [Planned(name, "F32", (10,)) for name in tensors]
    sizes = list(write_shards(tmp_path, planned, lambda name: iter([tensors[name]]), 80))
    assert sizes == [40] * 4
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    assert index == {
        "metadata": {"total_size": 160},
        "weight_map": {"a": second, "b": second, "c": first, "d": first},
    }
    assert set(load_file(tmp_path / first)) == {"c", "d"}


def test_a_tensor_larger_than_a_shard_gets_its_own() -> None:
    planned = [Planned(name, "U8", (size,)) for name, size in [("a", 3), ("b", 50), ("c", 4), ("d", 6), ("e", 1)]]
    assert [[t.name for t in shard] for shard in split(planned, 10)] == [["a"], ["b"], ["c", "d"], ["e"]]
