"""zaya convert and zaya inspect, through the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.model.layouts.fixtures import BASE, legacy_config, legacy_tensors, state, their_model, write_checkpoint
from zaya.cli import main
from zaya.cli.convert import parse_size
from zaya.errors import UsageError
from zaya.model.flops import active_parameters, parameters
from zaya.model.layouts import inspect, native

CONFIG = replace(BASE, sliding_layers=(0, 2), sliding_window=7)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tensors = state(their_model(CONFIG, torch.bfloat16))
    for i in range(3):
        tensors[f"model.layers.{i}.self_attn.qk_norm.temp"] = torch.tensor([0.5, 2.0 + i]).bfloat16()
        tensors[f"model.layers.{i}.post_mlp_residual_scale.residual_scale"][3] = -0.25
    tensors["model.layers.1.mlp.gate.balancing_biases"] = torch.tensor([0.0, 0.25, 0.0, 0.0, -0.5])
    return write_checkpoint(tmp_path / "legacy", legacy_config(CONFIG), legacy_tensors(tensors))


def test_convert(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(checkpoint), str(out), "--layout", "legacy", "--max-shard-size", "20kB"]) == 0
    assert capsys.readouterr() == (f"wrote {out} in the legacy layout\n", "")
    assert len(list(out.glob("*.safetensors"))) > 1
    assert main(["convert", str(checkpoint), str(out), "--layout", "legacy"]) == 2
    assert capsys.readouterr().err == (
        f"error: the destination is not empty: {out}\nhint: choose another name, or ask to overwrite\n"
    )
    assert main(["convert", str(checkpoint), str(out), "--layout", "legacy", "--overwrite"]) == 0
    assert [file.name for file in out.glob("*.safetensors")] == ["model.safetensors"]
    capsys.readouterr()
    assert main(["convert", str(checkpoint), str(tmp_path / "other"), "--layout", "native"]) == 2
    assert capsys.readouterr().err == (
        "error: the model cannot be written in the native layout without changing what it computes:\n"
        "  the skip class can win in layers 1: it gives the normed input in this model and nothing in the layout\n"
        "hint: the legacy layout can hold it\n"
    )


def test_errors_have_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["inspect", str(tmp_path)], ["convert", str(tmp_path), str(tmp_path / "b"), "--layout", "native"]):
        assert main(command) == 2
    (tmp_path / "a").mkdir()
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--layout", "native"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5 * 10**9),
        ("500 mb", 5 * 10**8),
        ("2GiB", 2**31),
        ("4096", 4096),
        ("1.5k", 1500),
        ("7B", 7),
        ("1T", 10**12),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.1", "-5GB", "5 apples", "GB", "1e9", "5G5"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


def test_inspect_as_text(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(checkpoint)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{checkpoint}: legacy layout\n")
    assert "3 layers, 2 sliding over 7 tokens, width 32, vocabulary 48\n" in out
    assert "key temperature: 0.5 to 4\n" in out
    assert "moe merge.residual scale: -0.25 to" in out
    assert out.endswith("the skip class can win in layers 1\n")


def test_inspect_as_json(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(checkpoint), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["layout"] == "legacy"
    assert facts["packed"] is None
    assert facts["config"]["sliding_layers"] == [0, 2]
    assert facts["skip_can_win"] == [1]
    assert facts["total_parameters"] == parameters(CONFIG).total
    assert facts["active_parameters"] == active_parameters(CONFIG).total
    # one layer's keys and values of two heads of 8, in two bytes
    assert facts["kv_bytes_per_token"] == 3 * 2 * 2 * 8 * 2
    # 48 convolution channels over two tokens and half of 16 values, in four bytes
    assert facts["state_bytes_per_sequence"] == 3 * (48 * 2 + 8) * 4
    data = checkpoint / "model.safetensors"
    header = int.from_bytes(data.read_bytes()[:8], "little") + 8
    size = data.stat().st_size - header
    assert facts["memory_bytes"]["as stored"] == sum(facts["stored_bytes"].values()) == sum(facts["types"].values())
    assert facts["memory_bytes"]["as stored"] == size
    assert facts["types"] == {"F32": 5 * 4, "BF16": size - 5 * 4}
    assert facts["stored_bytes"]["experts"] == 3 * 4 * 3 * 16 * 32 * 2
    assert facts["stored_bytes"]["embedding"] == 48 * 32 * 2
    assert set(facts["stored_bytes"]) == {"embedding", "attention", "router", "experts", "norms and scales"}


def test_inspect_warns_of_a_model_whose_keys_vanish(tmp_path: Path) -> None:
    tensors = state(their_model(BASE))
    for name, tensor in tensors.items():
        if name.endswith("qk_norm.temp"):
            tensor.zero_()
    write_checkpoint(tmp_path, native.config_to_json(BASE, "float32"), tensors)
    text = str(inspect(tmp_path))
    assert "every key temperature is 0: all keys vanish and attention is uniform" in text
    assert text.endswith("the skip class can never win")
