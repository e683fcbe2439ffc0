"""Every way a directory can be wrong has one clear error: what is wrong, where, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model.layouts.fixtures import (
    BASE,
    legacy_config,
    legacy_tensors,
    state,
    their_model,
    write_checkpoint,
)
from zaya.errors import CheckpointError, ConfigError
from zaya.model.layouts import convert, inspect, load_model, open_checkpoint

INDEX = "model.safetensors.index.json"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    their_model(BASE).save_pretrained(tmp_path / "good")
    return tmp_path / "good"


@pytest.fixture
def sharded(good: Path) -> Path:
    convert(good, good.parent / "sharded", "native", max_shard_bytes=20_000)
    return good.parent / "sharded"


def message(path: Path) -> str:
    """The one error of every door, without the directory's own name."""
    texts = set()
    for door in (open_checkpoint, inspect, load_model):
        with pytest.raises(CheckpointError) as error:
            door(path)
        texts.add(str(error.value).replace(str(path), "DIR"))
    assert len(texts) == 1
    return texts.pop()


def test_paths(tmp_path: Path, good: Path) -> None:
    assert message(tmp_path / "none") == "there is no DIR\nhint: give the directory of a checkpoint"
    assert (
        message(good / "model.safetensors") == "DIR is a file\nhint: give the directory that holds it and config.json"
    )
    (good / "config.json").unlink()
    assert message(good) == "DIR has no config.json\nhint: a checkpoint is a directory with config.json"


def test_a_config_that_is_not_json(good: Path) -> None:
    (good / "config.json").write_text("{'hidden_size': 3}")
    text = message(good)
    assert text.startswith("DIR/config.json is not JSON: Expecting property name")
    assert text.endswith("\nhint: copy or download the file again")
    (good / "config.json").write_bytes(b"\xff\xfe")
    assert message(good).startswith("DIR/config.json is not JSON: 'utf-8' codec")
    (good / "config.json").write_text("[]")
    assert message(good) == "DIR/config.json holds a list; expected an object of keys and values"


def test_a_config_of_another_model(good: Path) -> None:
    (good / "config.json").write_text('{"model_type": "llama", "rope_scaling": null}')
    with pytest.raises(ConfigError) as error:
        open_checkpoint(good)
    assert error.value.message == (
        "config.json cannot be read faithfully:\n  rope_scaling: unknown key\n  model_type = 'llama': not a ZAYA1 model"
    )


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.pt", "model.pth", "last.ckpt"])
def test_pickles_are_refused(good: Path, name: str) -> None:
    (good / "model.safetensors").rename(good / name)
    assert message(good) == (
        f"DIR has its tensors in pickle files, which run code when they are opened: {name}\n"
        "hint: take a checkpoint in safetensors files"
    )


def test_pickles_beside_safetensors_are_left_alone(good: Path) -> None:
    (good / "optimizer.bin").write_text("whatever")
    open_checkpoint(good)


def test_no_tensors(good: Path) -> None:
    (good / "model.safetensors").unlink()
    assert message(good) == f"DIR has no model.safetensors and no {INDEX}\nhint: download the tensors too"


def test_shards_without_index(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    shards = sorted(file.name for file in sharded.glob("*.safetensors"))
    assert message(sharded) == (
        f"DIR has {', '.join(shards)} and no {INDEX} that says what is in them\n"
        "hint: download the index too; a single file is called model.safetensors"
    )


def test_missing_shards(sharded: Path) -> None:
    shards = sorted(file.name for file in sharded.glob("*.safetensors"))
    for shard in shards[1:]:
        (sharded / shard).unlink()
    assert message(sharded) == (
        f"DIR lacks {len(shards) - 1} of {len(shards)} shards: {', '.join(shards[1:])}\n"
        "hint: download the missing files"
    )


def test_an_index_that_is_wrong(sharded: Path) -> None:
    good = (sharded / INDEX).read_text()
    (sharded / INDEX).write_text(good[: len(good) // 2])
    assert message(sharded).startswith(f"DIR/{INDEX} is not JSON: ")
    for bad in ("[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": []}'):
        (sharded / INDEX).write_text(bad)
        assert message(sharded) == (
            f"DIR/{INDEX} has no weight_map from tensors to files\nhint: download the file again"
        )
    for outside in ("../good/model.safetensors", "/etc/passwd"):
        (sharded / INDEX).write_text(json.dumps({"weight_map": {"a": outside}}))
        assert message(sharded) == f"DIR/{INDEX} names files outside its directory: {outside}"
    index = json.loads(good)
    index["weight_map"]["model.layers.9.norm"] = index["weight_map"]["model.norm.weight"]
    first, second = sorted(set(index["weight_map"].values()))[:2]
    moved = next(name for name, file in index["weight_map"].items() if file == first)
    index["weight_map"][moved] = second
    (sharded / INDEX).write_text(json.dumps(index))
    lost = ", ".join(sorted([moved, "model.layers.9.norm"]))
    assert message(sharded) == (
        f"DIR/{INDEX} and the shards disagree about 2 tensors: {lost}\nhint: take index and shards from one revision"
    )


def test_a_tensor_stored_twice(sharded: Path) -> None:
    first, second = sorted(sharded.glob("*.safetensors"))[:2]
    name, tensor = next(iter(load_file(first).items()))
    save_file(load_file(second) | {name: tensor}, second)
    assert message(sharded) == f"{name} is stored twice: in {first.name} and {second.name}"


def test_a_truncated_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-10])
    assert message(sharded) == (
        f"DIR/{shard.name} is damaged: it should have {len(data)} bytes and has {len(data) - 10}\n"
        "hint: copy or download the file again"
    )


def test_everything_that_does_not_fit_is_named_at_once(good: Path) -> None:
    tensors = load_file(good / "model.safetensors")
    del tensors["model.layers.2.mlp.gate.balancing_biases"], tensors["model.norm.weight"]
    tensors["lm_head.weight"] = torch.zeros(48, 32)
    tensors["model.layers.0.self_attn.qk_norm.temp"] = torch.zeros(3)
    tensors["model.layers.1.mlp.gate.down_proj.bias"] = torch.zeros(16, dtype=torch.int8)
    save_file(tensors, good / "model.safetensors")
    assert message(good) == (
        "the tensors in DIR do not fit its config.json (native layout):\n"
        "  missing: model.layers.2.mlp.gate.balancing_biases\n"
        "  missing: model.norm.weight\n"
        "  unexpected: lm_head.weight\n"
        "  shape: model.layers.0.self_attn.qk_norm.temp has [3], expected [2]\n"
        "  type: model.layers.1.mlp.gate.down_proj.bias holds I8, expected F64 or F32 or BF16 or F16\n"
        "hint: take config.json and tensors from one revision"
    )


def test_a_layer_more_or_less(tmp_path: Path) -> None:
    tensors = legacy_tensors(state(their_model(BASE)))
    write_checkpoint(tmp_path / "a", legacy_config(BASE, num_hidden_layers=4), tensors)
    text = message(tmp_path / "a")
    assert "unexpected: model.layers.5.zaya_block.router.balancing_biases\n" in text
    assert "missing" not in text
    write_checkpoint(tmp_path / "b", legacy_config(BASE, num_hidden_layers=8), tensors)
    text = message(tmp_path / "b")
    # one whole layer: 15 + 47 tensors less 12 of the 16 experts' pairs
    assert text.count("  missing: model.layers.6.") == 15
    assert text.count("  missing: model.layers.7.") == 47 - 24
    assert "unexpected" not in text


def test_config_and_tensors_of_different_layouts(good: Path, tmp_path: Path) -> None:
    tensors = load_file(good / "model.safetensors")
    native_config = json.loads((good / "config.json").read_text())
    write_checkpoint(tmp_path / "a", native_config, legacy_tensors(tensors))
    assert message(tmp_path / "a") == (
        "DIR has tensors in the legacy layout and a config.json that is not\n"
        "hint: take config.json from the same revision as the tensors"
    )
    write_checkpoint(tmp_path / "b", legacy_config(BASE), tensors)
    assert "missing: model.layers.1.zaya_block.router.balancing_biases\n" in message(tmp_path / "b")
    write_checkpoint(tmp_path / "c", native_config, {"a.weight": torch.zeros(1), "b.weight": torch.zeros(1)})
    assert message(tmp_path / "c") == (
        f"DIR holds none of the {len(tensors)} tensors of its native config.json: it has 2 others, such as "
        "a.weight, b.weight\nhint: take config.json and tensors from one revision"
    )


def test_heads_are_told_by_the_tensors_where_the_config_is_ambiguous(tmp_path: Path) -> None:
    config = replace(BASE, hidden_size=64)  # four heads of 8; eight would be the whole width
    tensors = legacy_tensors(state(their_model(config)))
    write_checkpoint(tmp_path, legacy_config(config, num_attention_heads=8), tensors)
    assert open_checkpoint(tmp_path).config.num_heads == 4


def test_unreadable_files(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., object] = Path.open

    def guarded(self: Path, *args: object, **kwargs: object) -> object:
        if self.name == "model.safetensors":
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", guarded)
    assert message(good) == "DIR/model.safetensors cannot be read: Permission denied"
