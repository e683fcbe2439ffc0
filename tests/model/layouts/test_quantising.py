"""int8 and int4 checkpoints.

1. What is packed is what makes the size; norms, routers, convolutions, residual scales and biases stay bit for bit.
2. A directory that was written holds what packing while loading makes, from either layout and from FP8 experts, and
   it is used in place.
3. It can be inspected, loaded dense, and converted to bfloat16; packed weights give the logits of their dense values.
4. What was lost is reported for every tensor.
5. What cannot be done is refused: a format nobody knows, a source that is packed already.
6. Matrices without whole tiles stay as they are.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.model.layouts.fixtures import BASE, state, their_model, write_checkpoint
from tests.model.layouts.test_quantised import quantised
from tests.tolerances import assert_close
from zaya.cli import main
from zaya.errors import CheckpointError, UsageError
from zaya.model.layouts import convert, inspect, load_model, native, quantize
from zaya.model.layouts.quantising import FORMATS
from zaya.ops.cpu import kernels
from zaya.ops.packed import Int4Weight, Int8Weight, TiledWeight

CONFIG = replace(BASE, hidden_size=64, expert_size=32, num_heads=4, num_kv_heads=2, head_dim=16, num_layers=2)
CONFIG = replace(CONFIG, vocab_size=96)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    write_checkpoint(path, native.config_to_json(CONFIG, "bfloat16"), state(their_model(CONFIG, torch.bfloat16)))
    return path


def tiled(model: torch.nn.Module) -> dict[str, TiledWeight]:
    return {name: module for name, module in model.named_modules() if isinstance(module, TiledWeight)}


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_packed(source: Path, tmp_path: Path, format: str) -> None:
    packings = quantize(source, tmp_path / "q", format)
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "q" / "model.safetensors")
    assert before.keys() == after.keys()
    packed = {name for name in after if after[name].dtype == torch.uint8}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - packed)
    kinds = {name if "layers" not in name else name.split(".", 3)[-1] for name in packed}
    assert kinds == {
        "model.embed_tokens.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj", "self_attn.o_proj.weight",
        *(f"self_attn.qkv_proj.{part}.weight" for part in ("q_proj", "k_proj", "v_proj_current", "v_proj_delayed")),
    }  # fmt: skip
    assert len(packings) == len(packed)
    loaded = tiled(load_model(tmp_path / "q"))
    assert isinstance(loaded["embed"], Int4Weight if format == "int4-all" else Int8Weight)
    assert isinstance(loaded["blocks.1.attention.o_proj"], Int4Weight if format == "int4-all" else Int8Weight)
    assert isinstance(loaded["blocks.1.moe.experts.down"], Int8Weight if format == "int8" else Int4Weight)
    plain = load_model(source)
    for packing in packings:
        dense = plain.get_parameter(packing.name).detach().float()
        lost = (loaded[packing.name].dequantize(torch.float32) - dense).norm() / dense.norm()
        assert packing.error == pytest.approx(float(lost), rel=0.05)
        assert 0.001 < packing.error < (0.012 if packing.form == "int8" else 0.1)


@pytest.mark.parametrize("origin", ["native", "legacy", "fp8"])
def test_a_directory_holds_what_loading_makes(source: Path, tmp_path: Path, origin: str) -> None:
    if origin == "legacy":
        convert(source, tmp_path / "legacy", "legacy")
    elif origin == "fp8":
        quantised(tmp_path / "fp8", "fp8", "", ".weight_scale")
    start = source if origin == "native" else tmp_path / origin
    quantize(start, tmp_path / "q", "int4", max_shard_bytes=20_000)
    written, made = load_model(tmp_path / "q"), load_model(start, quantize="int4")
    assert len(list((tmp_path / "q").glob("*.safetensors"))) > 1
    ours, theirs = tiled(written), tiled(made)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name].data, theirs[name].data) for name in ours)
    # in place: a private mapping, which is why the bytes are not the allocator's
    assert ours["blocks.0.moe.experts.gate_up"].data.untyped_storage().nbytes() > ours["embed"].data.nbytes


def test_dense_again(source: Path, tmp_path: Path) -> None:
    quantize(source, tmp_path / "q", "int4")
    packed, dense = (
        load_model(tmp_path / "q", dtype="float32"),
        load_model(tmp_path / "q", dtype="float32", quantize="none"),
    )
    assert not tiled(dense)
    ids = torch.randint(0, 96, (2, 70))
    with torch.inference_mode():
        with kernels.without_kernels():
            assert_close(packed(ids), dense(ids))
        error = (packed(ids) - dense(ids)).norm() / dense(ids).norm()
        assert error < 0.01  # 140 rows are unpacked, too
        few = (packed(ids[:, :5]) - dense(ids[:, :5])).norm() / dense(ids[:, :5]).norm()
        assert 0 < few < 0.05  # vectors in 8 bits
    convert(tmp_path / "q", tmp_path / "back", "legacy")
    back = load_model(tmp_path / "back", quantize="none")
    for name, weight in tiled(packed).items():
        assert torch.equal(back.get_parameter(name), weight.dequantize(torch.bfloat16))
    assert "experts packed as int4" in str(inspect(tmp_path / "q"))


def test_without_whole_tiles(tmp_path: Path) -> None:
    odd = replace(CONFIG, vocab_size=100, expert_size=24)
    path = tmp_path / "odd"
    write_checkpoint(path, native.config_to_json(odd, "bfloat16"), state(their_model(odd, torch.bfloat16)))
    quantize(path, tmp_path / "q", "int8")
    names = set(tiled(load_model(tmp_path / "q")))
    assert "embed" not in names
    assert "blocks.0.moe.experts.gate_up" in names  # 48 x 64
    assert "blocks.0.moe.experts.down" not in names  # 64 x 24


def test_refusals(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no format is called 'int5'"):
        quantize(source, tmp_path / "q", "int5")
    with pytest.raises(UsageError, match="apart"):
        quantize(source, source / "q")
    assert main(["quantize", str(source), str(tmp_path / "q"), "--errors"]) == 0
    said = capsys.readouterr().out
    assert "blocks.1.attention.o_proj" in said
    assert "in int4" in said
    with pytest.raises(CheckpointError, match="quantised already"):
        quantize(tmp_path / "q", tmp_path / "again")
    with pytest.raises(CheckpointError, match="quantised already, and was to be loaded as int8"):
        load_model(tmp_path / "q", quantize="int8")
    with pytest.raises(UsageError, match="cannot be loaded with quantize='int5'"):
        load_model(source, quantize="int5")
    config = tmp_path / "q" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(CheckpointError, match="packed by 'gptq'"):
        load_model(tmp_path / "q")
