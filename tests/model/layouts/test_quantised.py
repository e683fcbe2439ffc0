"""FP8 and MXFP4 experts: every code means what its format says, under every published spelling of the names.

The expectations are written out here from the formats' definitions, not computed by the code under test.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.model.layouts.fixtures import (
    BASE,
    legacy_config,
    legacy_tensors,
    same,
    state,
    their_model,
    write_checkpoint,
)
from zaya.errors import CheckpointError
from zaya.model.layouts import convert, load_model, native, open_checkpoint
from zaya.ops.packed import Fp8Weight, Mxfp4Weight, PackedWeight

CONFIG = replace(BASE, hidden_size=64, expert_size=32, num_layers=2)
E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]

METHOD: dict[str, Any] = {
    "quantization_config": {
        "quant_method": "compressed-tensors", "ignore": ["re:^(?!.*experts).*"],
        "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}, "input_activations": None}},
    }
}  # fmt: skip

SPELLINGS = {
    "fp8, no suffix": ("fp8", "", ".weight_scale"),
    "fp8, weight": ("fp8", ".weight", ".weight_scale"),
    "fp8, underscore": ("fp8", "", "_scale"),
    "mxfp4, weight": ("mxfp4", ".weight_packed", ".weight_scale"),
    "mxfp4, no suffix": ("mxfp4", "", ".weight_scale"),
    "mxfp4, underscore": ("mxfp4", "_packed", "_scale"),
}


def e4m3(code: int) -> float:
    """The value of a float8 e4m3 code, from its definition: no infinities, one NaN of each sign."""
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return math.nan
    if exponent == 0:
        return sign * mantissa * 2.0**-9
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def pack(kind: str, shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random codes and scales of a tensor of that shape, and the values they stand for, in float64."""
    stream = torch.Generator().manual_seed(seed)
    n, rows, inner = shape
    if kind == "fp8":
        codes = torch.randint(0, 256, shape, generator=stream, dtype=torch.uint8)
        codes[(codes & 0x7F) == 0x7F] = 0
        scale = torch.rand(n, rows, 1, generator=stream) + 0.01
        values = torch.tensor([e4m3(code) for code in range(256)], dtype=torch.float64)[codes.int()]
        return codes.view(torch.float8_e4m3fn), scale, values * scale.double()
    codes = torch.randint(0, 256, (n, rows, inner // 2), generator=stream, dtype=torch.uint8)
    scale = torch.randint(117, 137, (n, rows, inner // 32), generator=stream, dtype=torch.uint8)
    values = torch.empty(shape, dtype=torch.float64)
    table = torch.tensor(E2M1, dtype=torch.float64)
    values[..., 0::2], values[..., 1::2] = table[(codes % 16).int()], table[(codes // 16).int()]
    return codes, scale, values * (2.0 ** (scale.double() - 127)).repeat_interleave(32, dim=-1)


def quantised(path: Path, kind: str, codes_end: str, scale_end: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Write a checkpoint with packed experts; what was stored, and the dense values by native name, in float64."""
    tensors = state(their_model(CONFIG, torch.bfloat16))
    dense = {}
    for seed, name in enumerate(sorted(name for name in tensors if ".experts." in name)):
        codes, scale, dense[name] = pack(kind, tuple(tensors.pop(name).shape), seed)
        tensors[name + codes_end], tensors[name + scale_end] = codes, scale
    write_checkpoint(path, native.config_to_json(CONFIG, "bfloat16") | METHOD, tensors)
    return tensors, dense


@pytest.mark.parametrize(("kind", "codes_end", "scale_end"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_packed_experts(tmp_path: Path, kind: str, codes_end: str, scale_end: str) -> None:
    stored, dense = quantised(tmp_path / "q", kind, codes_end, scale_end)
    model = load_model(tmp_path / "q")
    plain = load_model(tmp_path / "q", quantize="none")
    for i in range(CONFIG.num_layers):
        for ours, theirs in (("gate_up", "gate_up_proj"), ("down", "down_proj")):
            name = f"model.layers.{i}.mlp.experts.{theirs}"
            weight = model.get_submodule(f"blocks.{i}.moe.experts.{ours}")
            assert isinstance(weight, Fp8Weight if kind == "fp8" else Mxfp4Weight)
            assert same(weight.codes, stored[name + codes_end])
            assert same(weight.scale, stored[name + scale_end])
            assert torch.equal(weight.dequantize(torch.float32), dense[name].float())
            parameter = plain.get_parameter(f"blocks.{i}.moe.experts.{ours}")
            assert parameter.requires_grad
            assert same(parameter.data, dense[name].float().bfloat16())
    assert not any(".experts." in name for name, _ in model.named_parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    assert torch.isfinite(model(ids)).all()
    exact = load_model(tmp_path / "q", dtype="float32")
    exact_plain = load_model(tmp_path / "q", dtype="float32", quantize="none")
    assert torch.equal(exact(ids), exact_plain(ids))


@pytest.mark.parametrize("kind", ["fp8", "mxfp4"])
@pytest.mark.parametrize("layout", ["native", "legacy"])
def test_converting_packed_experts_makes_them_bfloat16(tmp_path: Path, kind: str, layout: str) -> None:
    spelling = next(ends for k, *ends in SPELLINGS.values() if k == kind)
    _, dense = quantised(tmp_path / "q", kind, *spelling)
    convert(tmp_path / "q", tmp_path / "out", layout)
    converted = open_checkpoint(tmp_path / "out")
    for i in range(CONFIG.num_layers):
        for ours, theirs in (("gate_up", "gate_up_proj"), ("down", "down_proj")):
            pieces = list(converted.pieces(f"blocks.{i}.moe.experts.{ours}"))
            values = pieces[0] if layout == "native" else torch.stack(pieces)
            assert same(values, dense[f"model.layers.{i}.mlp.experts.{theirs}"].float().bfloat16())
    assert not converted.packed


def test_every_e2m1_code_and_every_scale() -> None:
    pairs = torch.tensor([[16 * high + low for low, high in zip(range(16), reversed(range(16)), strict=True)]])
    codes = pairs.to(torch.uint8).repeat(256, 1)
    scale = torch.arange(256, dtype=torch.uint8).reshape(256, 1)
    values = Mxfp4Weight(codes, scale).dequantize(torch.float32)
    expected = [value for low in range(16) for value in (E2M1[low], E2M1[15 - low])]
    for s in range(255):
        exact = [value * math.ldexp(1.0, s - 127) for value in expected]
        rounded = torch.tensor(exact, dtype=torch.float64).float()
        assert same(values[s], rounded), s
    assert values[255].isnan().all()
    assert values[0].tolist()[2] == 0.5 * 2.0**-127  # a float32 subnormal
    assert values[254].isinf().sum() == 2 * 8  # ±{2, 3, 4, 6} · 2^127, each code once low and once high


def test_every_e4m3_code() -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    weight = Fp8Weight(codes.reshape(2, 128), torch.ones(2, 1))
    values = weight.dequantize(torch.float32).flatten()
    assert torch.equal(values.nan_to_num(-12345), codes.float().nan_to_num(-12345))
    for code, value in enumerate(values.tolist()):
        assert value == e4m3(code) or (math.isnan(value) and code in (0x7F, 0xFF))


def test_scales_may_have_other_types_and_the_shape_may_be_repeated(tmp_path: Path) -> None:
    tensors, _ = quantised(tmp_path / "q", "mxfp4", ".weight_packed", ".weight_scale")
    for name in list(tensors):
        if name.endswith(".weight_scale"):
            tensors[name] = tensors[name].view(torch.float8_e8m0fnu)
            tensors[name.replace("_scale", "_shape")] = torch.tensor([4, 64, 64])
    save_file(tensors, tmp_path / "q" / "model.safetensors")
    weight = load_model(tmp_path / "q").get_submodule("blocks.0.moe.experts.gate_up")
    assert isinstance(weight, Mxfp4Weight)
    assert weight.scale.dtype == torch.uint8
    tensors, dense = quantised(tmp_path / "f", "fp8", "", ".weight_scale")
    for name in list(tensors):
        if name.endswith(".weight_scale"):
            tensors[name] = tensors[name].bfloat16()
    save_file(tensors, tmp_path / "f" / "model.safetensors")
    weight = load_model(tmp_path / "f").get_submodule("blocks.0.moe.experts.down")
    assert isinstance(weight, PackedWeight)
    close = weight.dequantize(torch.float32).double() - dense["model.layers.0.mlp.experts.down_proj"]
    assert close.abs().max() < 448 * 2**-8


def test_other_ways_of_packing_are_refused(tmp_path: Path) -> None:
    tensors, _ = quantised(tmp_path / "q", "mxfp4", ".weight_packed", ".weight_scale")
    raw = native.config_to_json(CONFIG, "bfloat16")
    write_checkpoint(tmp_path / "q", raw | {"quantization_config": {"quant_method": "modelopt"}}, tensors)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(tmp_path / "q")
    assert error.value.message == (
        "the checkpoint is packed by 'modelopt'; only compressed-tensors and our own int8 and int4 are read"
    )

    name = "model.layers.0.mlp.experts.gate_up_proj"
    nvfp4 = dict(tensors)
    nvfp4[name + ".weight_scale"] = torch.zeros(4, 64, 4).to(torch.float8_e4m3fn)
    nvfp4[name + ".weight_global_scale"] = torch.ones(1)
    nvfp4["model.layers.0.mlp.experts.down_proj.weight_packed"] = torch.zeros(4, 64, 16, dtype=torch.int32)
    write_checkpoint(tmp_path / "q", raw, nvfp4)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(tmp_path / "q")
    assert error.value.message.split("\n")[1:] == [
        f"  unexpected: {name}.weight_global_scale",
        f"  shape: {name}.weight_scale has [4, 64, 4], expected [4, 64, 2]",
        f"  type: {name}.weight_scale holds F8_E4M3, expected U8 or F8_E8M0",
        "  packed in a way that is not read: model.layers.0.mlp.experts.down_proj.weight_packed holds I32",
    ]

    lonely = dict(tensors)
    del lonely[name + ".weight_scale"]
    write_checkpoint(tmp_path / "q", raw, lonely)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(tmp_path / "q")
    assert error.value.message.split("\n")[1:] == [f"  missing: {name}", f"  unexpected: {name}.weight_packed"]


def test_experts_packed_one_by_one_are_refused(tmp_path: Path) -> None:
    tensors = legacy_tensors(state(their_model(CONFIG, torch.bfloat16)))
    name = "model.layers.1.zaya_block.experts.local_experts.0.linear_fc1.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    tensors[name + "_scale"] = torch.ones(64, 1)
    write_checkpoint(tmp_path, legacy_config(CONFIG), tensors)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(tmp_path)
    assert error.value.message.split("\n")[1:] == [
        f"  unexpected: {name}_scale",
        f"  type: {name} holds F8_E4M3, expected F64 or F32 or BF16 or F16",
    ]


def test_packed_weights_lie_in_the_file(tmp_path: Path) -> None:
    quantised(tmp_path / "q", "fp8", "", ".weight_scale")
    before = (tmp_path / "q" / "model.safetensors").read_bytes()
    weight = load_model(tmp_path / "q").get_submodule("blocks.0.moe.experts.down")
    assert isinstance(weight, Fp8Weight)
    weight.codes.view(torch.uint8).fill_(0)
    assert (tmp_path / "q" / "model.safetensors").read_bytes() == before
    assert load_file(tmp_path / "q" / "model.safetensors")
