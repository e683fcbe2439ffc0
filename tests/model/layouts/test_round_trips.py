"""Values survive: from transformers to ours, from one layout to the other and back, and from ours to transformers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import ZayaForCausalLM

from tests.model.layouts.fixtures import (
    BASE,
    legacy_config,
    legacy_tensors,
    same,
    state,
    their_model,
    write_checkpoint,
)
from tests.parity.oracle import our_name
from tests.parity.shapes import SHAPES
from zaya.errors import CheckpointError, UsageError
from zaya.model.config import ModelConfig
from zaya.model.init import tensor_table
from zaya.model.layouts import convert, legacy, native, open_checkpoint


def values(path: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, stacked, by our names."""
    checkpoint = open_checkpoint(path)
    out = {}
    for spec in tensor_table(checkpoint.config):
        pieces = list(checkpoint.pieces(spec.name))
        out[spec.name] = pieces[0] if len(pieces) == 1 and pieces[0].shape == spec.shape else torch.stack(pieces)
    return out


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert same(actual[name], tensor), name


def by_our_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {our_name(name): tensor for name, tensor in tensors.items()}


def every_file(path: Path) -> dict[str, Tensor]:
    return {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_transformers_saves(tmp_path: Path, shape: str, dtype: torch.dtype) -> None:
    config = replace(SHAPES[shape], eos_id=1)
    theirs = their_model(config, dtype)
    theirs.save_pretrained(tmp_path)
    assert open_checkpoint(tmp_path).config == config
    assert_same(values(tmp_path), by_our_names(state(theirs)))


@pytest.mark.parametrize("shape", [name for name, config in SHAPES.items() if not legacy.limits(config)])
def test_legacy_native_legacy(tmp_path: Path, shape: str) -> None:
    config = replace(SHAPES[shape], eos_id=1)
    native_tensors = state(their_model(config, torch.bfloat16))
    for name in native_tensors:  # as a file may hold them: biases wider than the rest (spec trap 16)
        if name.endswith("balancing_biases"):
            native_tensors[name] = native_tensors[name].float() + 1e-5
    old = legacy_tensors(native_tensors)
    write_checkpoint(tmp_path / "old", legacy_config(config), old)
    assert_same(values(tmp_path / "old"), by_our_names(native_tensors))
    convert(tmp_path / "old", tmp_path / "new", "native")
    assert_same(load_file(tmp_path / "new" / "model.safetensors"), native_tensors)
    convert(tmp_path / "new", tmp_path / "again", "legacy", max_shard_bytes=3000)
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > 3
    assert_same(every_file(tmp_path / "again"), old)
    assert open_checkpoint(tmp_path / "again").config == replace(config, skip_output="identity")


def test_our_native_opens_in_transformers_with_every_bit(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        config = replace(BASE, sliding_layers=(1,), sliding_window=3)
        theirs = their_model(config, dtype)
        at = tmp_path / str(dtype)
        write_checkpoint(at / "old", legacy_config(config), legacy_tensors(state(theirs)))
        convert(at / "old", at / "new", "native", max_shard_bytes=20_000)
        assert (at / "new" / "model.safetensors.index.json").exists()
        loaded: Any = ZayaForCausalLM.from_pretrained(at / "new", dtype=dtype, output_loading_info=True)
        again, info = loaded
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        theirs.save_pretrained(at / "theirs")
        theirs = ZayaForCausalLM.from_pretrained(at / "theirs", dtype=dtype)
        assert_same(state(again), state(theirs))
        ids = torch.tensor([[1, 5, 2, 40, 7]])
        for model in (again, theirs):  # a file's offsets decide alignment, and that the order of additions
            for tensor in model.parameters():
                tensor.data = tensor.data.clone()
        with torch.no_grad():
            assert torch.equal(again(ids).logits, theirs(ids).logits)


def test_a_residual_scale_is_stored_with_the_layer_that_reads_the_stream() -> None:
    at = {(e.name, e.part): e.published for e in legacy.entries(BASE)}
    assert at["input_scale", None] == "model.layers.0.res_scale.hidden_states_scale"
    assert at["input_bias", None] == "model.layers.0.res_scale.hidden_states_bias"
    assert at["blocks.0.attention_merge.branch_scale", None] == "model.layers.1.res_scale.hidden_states_scale"
    assert at["blocks.0.moe_merge.residual_bias", None] == "model.layers.2.res_scale.residual_bias"
    assert at["blocks.1.attention_merge.residual_scale", None] == "model.layers.3.res_scale.residual_scale"
    assert at["blocks.2.moe_merge.branch_bias", None] == "model.res_scale.hidden_states_bias"
    assert sum(name.startswith("model.layers.0.res_scale.") for name in at.values()) == 2


def test_tensor_counts_of_the_8b() -> None:
    assert len(list(native.entries(ModelConfig()))) == 1283
    assert len(list(legacy.entries(ModelConfig()))) == 2483
    large = {"num_layers": 60, "hidden_size": 4096, "num_heads": 16, "num_experts": 24, "expert_size": 4096}
    assert len(list(native.entries(replace(ModelConfig(), **large)))) == 1923
    assert len(list(legacy.entries(replace(ModelConfig(), **large)))) == 4683


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_survives_both_ways(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    draw = data.draw
    num_layers = draw(st.integers(1, 3))
    num_kv_heads = draw(st.integers(1, 3))
    sliding = tuple(sorted(draw(st.sets(st.integers(0, num_layers - 1)))))
    config = ModelConfig(
        vocab_size=draw(st.integers(8, 40)), hidden_size=draw(st.integers(1, 24)), num_layers=num_layers,
        num_heads=num_kv_heads * draw(st.integers(1, 3)), num_kv_heads=num_kv_heads,
        head_dim=draw(st.sampled_from([4, 8])), conv_time0=draw(st.integers(1, 3)), conv_time1=draw(st.integers(1, 3)),
        num_experts=draw(st.integers(1, 5)), expert_size=draw(st.integers(1, 9)), router_size=draw(st.integers(1, 9)),
        sliding_layers=sliding, sliding_window=draw(st.integers(2, 9)) if sliding else None,
        rope_theta=draw(st.sampled_from([1e4, 5e6])), norm_eps=draw(st.sampled_from([1e-5, 1e-6])), eos_id=1,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("shape")
    theirs = their_model(config, draw(st.sampled_from([torch.float32, torch.bfloat16])), seed=draw(st.integers(0, 9)))
    theirs.save_pretrained(path / "a")
    convert(path / "a", path / "b", "legacy", max_shard_bytes=draw(st.sampled_from([1, 1000, 10**9])))
    convert(path / "b", path / "c", "native")
    assert open_checkpoint(path / "c").config == config
    assert_same(load_file(path / "c" / "model.safetensors"), state(theirs))


def oldest(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint with the numbers of tiny-random/zaya1 (spec 2.3), its vocabulary made small."""
    config = ModelConfig(
        vocab_size=40, hidden_size=512, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=128, num_experts=16,
        expert_size=16, router_size=8, rope_theta=1e6, eos_id=1,
    )  # fmt: skip
    raw = {
        "num_hidden_layers": 2, "zaya_layers": ["a", 16], "cca_num_q_heads": [2, 0], "num_query_groups_list": [1, 0],
        "ffn_hidden_size_list": [0, 32], "zaya_mlp_expansion": [0, 8], "hidden_size": 512, "kv_channels": 128,
        "num_attention_heads": 4, "num_key_value_heads": 1, "residual_in_fp32": False, "vocab_size": 40,
        "eos_token_id": 1, "rope_theta": 1e6, "rope_scaling": False, "max_position_embeddings": 32768, "cca": True,
        "model_type": "zaya",
    }  # fmt: skip
    tensors = state(their_model(config, torch.bfloat16))
    write_checkpoint(path, raw, legacy_tensors(tensors))
    return raw, tensors


def test_the_oldest_style(tmp_path: Path) -> None:
    _, tensors = oldest(tmp_path / "old")
    assert_same(values(tmp_path / "old"), by_our_names(tensors))
    convert(tmp_path / "old", tmp_path / "new", "native")
    assert_same(load_file(tmp_path / "new" / "model.safetensors"), tensors)
    assert ZayaForCausalLM.from_pretrained(tmp_path / "new").config.head_dim == 128


def test_text_files_and_nothing_else_go_along(tmp_path: Path) -> None:
    theirs = their_model(BASE)
    theirs.save_pretrained(tmp_path / "a")
    kept = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"]
    for name in [*kept, "README.md", "secret.env"]:
        (tmp_path / "a" / name).write_text(f"contents of {name} \u2581")
    convert(tmp_path / "a", tmp_path / "b", "legacy")
    files = sorted(file.name for file in (tmp_path / "b").iterdir())
    assert files == sorted([*kept, "generation_config.json", "config.json", "model.safetensors"])
    for name in [*kept, "generation_config.json"]:
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    their_model(BASE).save_pretrained(tmp_path / "a")
    seen: list[tuple[int, int]] = []
    convert(tmp_path / "a", tmp_path / "b", "legacy", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == sum(t.nbytes for t in load_file(tmp_path / "b/model.safetensors").values())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


class TestRefusedConversions:
    def test_a_skip_class_that_can_win(self, tmp_path: Path) -> None:
        tensors = state(their_model(BASE))
        for i in range(3):
            tensors[f"model.layers.{i}.mlp.gate.balancing_biases"] = torch.tensor([0.5, 0.25, -1.0, 0.0, -0.5])
        tensors["model.layers.1.mlp.gate.balancing_biases"][-1] = -0.25
        write_checkpoint(tmp_path / "old", legacy_config(BASE), legacy_tensors(tensors))
        write_checkpoint(tmp_path / "new", native.config_to_json(BASE, "float32"), tensors)
        for src, layout, in_model, in_layout, other in [
            ("old", "native", "the normed input", "nothing", "legacy"),
            ("new", "legacy", "nothing", "the normed input", "native"),
        ]:
            with pytest.raises(CheckpointError) as error:
                convert(tmp_path / src, tmp_path / "out", layout)
            assert error.value.message == (
                f"the model cannot be written in the {layout} layout without changing what it computes:\n"
                f"  the skip class can win in layers 1: it gives {in_model} in this model and {in_layout} in the layout"
            )
            assert error.value.hint == f"the {other} layout can hold it"
        assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "old"]
        # where both layouts mean the same, nothing changes
        convert(tmp_path / "old", tmp_path / "copy", "legacy")
        assert_same(every_file(tmp_path / "copy"), every_file(tmp_path / "old"))

    def test_a_tie_goes_to_the_expert(self, tmp_path: Path) -> None:
        tensors = state(their_model(replace(BASE, num_layers=1)))
        tensors["model.layers.0.mlp.gate.balancing_biases"] = torch.tensor([-1.0, 0.0, -2.0, -1.0, -1.0])
        raw = native.config_to_json(replace(BASE, num_layers=1), "float32")
        write_checkpoint(tmp_path / "new", raw, tensors)
        convert(tmp_path / "new", tmp_path / "old", "legacy")

    def test_rotation_and_window(self, tmp_path: Path) -> None:
        config = replace(BASE, rope_fraction=1.0, sliding_layers=(0,), sliding_window=1)
        their_model(config).save_pretrained(tmp_path / "a")
        with pytest.raises(CheckpointError) as error:
            convert(tmp_path / "a", tmp_path / "b", "legacy")
        assert error.value.message == (
            "the model cannot be written in the legacy layout without changing what it computes:\n"
            "  its full layers rotate 1.0 of a head, and the layout always rotates half\n"
            "  its sliding layers see one token, which the layout writes as 0 and reads as all"
        )

    def test_source_and_destination_must_be_apart(self, tmp_path: Path) -> None:
        their_model(BASE).save_pretrained(tmp_path / "a")
        (tmp_path / "link").symlink_to(tmp_path / "a")
        for dst in ("a", "a/b", ".", "link", "link/deeper"):
            with pytest.raises(UsageError, match="must be apart, neither inside the other"):
                convert(tmp_path / "a", tmp_path / dst, "legacy", overwrite=True)
        assert (tmp_path / "a" / "model.safetensors").exists()

    def test_destinations_in_use(self, tmp_path: Path) -> None:
        their_model(BASE).save_pretrained(tmp_path / "a")
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "thesis.txt").write_text("mine")
        with pytest.raises(UsageError, match="the destination is not empty"):
            convert(tmp_path / "a", tmp_path / "home", "legacy")
        with pytest.raises(UsageError, match="the destination is not a checkpoint and is not overwritten"):
            convert(tmp_path / "a", tmp_path / "home", "legacy", overwrite=True)
        assert (tmp_path / "home" / "thesis.txt").read_text() == "mine"
        convert(tmp_path / "a", tmp_path / "b", "legacy")
        with pytest.raises(UsageError, match="the destination is not empty"):
            convert(tmp_path / "a", tmp_path / "b", "native")
        convert(tmp_path / "a", tmp_path / "b", "native", overwrite=True)
        assert open_checkpoint(tmp_path / "b").layout == "native"

    def test_other_arguments(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no layout is called 'gguf'\nhint: there are native and legacy"):
            convert(tmp_path / "a", tmp_path / "b", "gguf")
        their_model(BASE).save_pretrained(tmp_path / "a")
        with pytest.raises(UsageError, match="room for at least one byte: 0"):
            convert(tmp_path / "a", tmp_path / "b", "legacy", max_shard_bytes=0)

    def test_a_full_disk_is_told_before(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        their_model(BASE).save_pretrained(tmp_path / "a")
        total = sum(t.nbytes for t in load_file(tmp_path / "a" / "model.safetensors").values())
        usage = type("usage", (), {"free": total - 1})
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
        with pytest.raises(CheckpointError, match=r"b needs 0\.00 GB and the disk has 0\.00 GB free"):
            convert(tmp_path / "a", tmp_path / "b", "legacy")
        assert not (tmp_path / "b").exists()

    @pytest.mark.parametrize("raised", [KeyboardInterrupt(), OSError(28, "No space left on device")])
    def test_an_interruption_leaves_nothing(self, tmp_path: Path, raised: BaseException) -> None:
        their_model(BASE).save_pretrained(tmp_path / "a")

        def progress(done: int, total: int) -> None:
            if done > total // 2:
                raise raised

        expected = CheckpointError if isinstance(raised, OSError) else KeyboardInterrupt
        with pytest.raises(expected) as error:
            convert(tmp_path / "a", tmp_path / "b", "legacy", max_shard_bytes=5000, progress=progress)
        if isinstance(raised, OSError):
            assert str(error.value) == f"writing {tmp_path / 'b'} failed: No space left on device"
        assert [file.name for file in tmp_path.iterdir()] == ["a"]

    def test_parts_of_different_types(self, tmp_path: Path) -> None:
        tensors = legacy_tensors(state(their_model(BASE)))
        name = "model.layers.1.zaya_block.experts.local_experts.2.linear_fc1.weight"
        tensors[name] = tensors[name].bfloat16()
        write_checkpoint(tmp_path / "a", legacy_config(BASE), tensors)
        with pytest.raises(
            CheckpointError, match=r"parts of blocks\.0\.moe\.experts\.gate_up are stored in different types: BF16, F32"
        ):
            convert(tmp_path / "a", tmp_path / "b", "native")


def anonymous_kb() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("layout", ["native", "legacy"])
def test_converting_takes_little_memory_whatever_the_size(tmp_path: Path, layout: str) -> None:
    config = replace(BASE, num_layers=1, hidden_size=1024, expert_size=512, num_experts=16)
    tensors = {e.published: torch.empty(e.shape, dtype=torch.bfloat16).normal_() for e in native.entries(config)}
    tensors["model.layers.0.mlp.gate.balancing_biases"] = torch.tensor([0.0] * 16 + [-1.0])
    size = sum(t.nbytes for t in tensors.values())
    write_checkpoint(tmp_path / "a", native.config_to_json(config, "bfloat16"), tensors)
    del tensors
    most = start = anonymous_kb()

    def progress(done: int, total: int) -> None:
        nonlocal most
        most = max(most, anonymous_kb())

    convert(tmp_path / "a", tmp_path / "b", layout, progress=progress)
    assert (most - start) * 1024 < size / 5
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == "bfloat16"
