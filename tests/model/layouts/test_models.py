"""A model loaded from any layout computes what transformers computes, and saves what it holds.

The exact comparison is in float32 (spec 5.11); trap 21 is why a skip class that wins is compared with the transformers
model in memory and not with one that transformers has loaded.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
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
from tests.tolerances import assert_close
from zaya.errors import CheckpointError, UsageError
from zaya.model.init import tensor_table
from zaya.model.layouts import load, load_model, native, save
from zaya.model.transformer import ZayaModel
from zaya.ops.packed import StackedParts
from zaya.text import byte_tokenizer

CONFIG = replace(BASE, sliding_layers=(1,), sliding_window=3)
IDS = torch.tensor([[1, 5, 2, 40, 7, 11, 3, 9]])


def write_both(path: Path, dtype: torch.dtype = torch.float32, skip_bias: float = -1.0) -> Any:
    """The same model in path/native and path/legacy, and in memory."""
    theirs = their_model(CONFIG, dtype, skip_bias=skip_bias)
    tensors = state(theirs)
    raw = native.config_to_json(CONFIG, str(dtype).removeprefix("torch."))
    write_checkpoint(path / "native", raw, tensors)
    write_checkpoint(path / "legacy", legacy_config(CONFIG), legacy_tensors(tensors))
    return theirs


@pytest.mark.parametrize("layout", ["native", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_those_of_transformers(tmp_path: Path, layout: str, dtype: torch.dtype) -> None:
    values = state(write_both(tmp_path, dtype))
    theirs = their_model(CONFIG)  # not .float() of the model above: its rotary angles have been rounded too
    theirs.load_state_dict(values, strict=False)
    model = load_model(tmp_path / layout, dtype="float32")
    with torch.no_grad():
        assert_close(model(IDS), theirs(IDS).logits)
    assert model.config.skip_output == {"native": "zero", "legacy": "identity"}[layout]


def test_a_winning_skip_class_is_read_as_the_file_has_it(tmp_path: Path) -> None:
    theirs = write_both(tmp_path, skip_bias=1.0)
    model = load_model(tmp_path / "native", dtype="float32")
    with torch.no_grad():
        assert_close(model(IDS), theirs(IDS).logits)
        assert not torch.allclose(load_model(tmp_path / "legacy", dtype="float32")(IDS), theirs(IDS).logits)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("layout", ["native", "legacy"])
def test_what_is_mapped_and_what_is_converted(tmp_path: Path, layout: str) -> None:
    theirs = write_both(tmp_path, torch.bfloat16)
    model = load_model(tmp_path / layout)
    file = (tmp_path / layout / "model.safetensors").read_bytes()
    mapped = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(tmp_path / layout / "model.safetensors"))
    ]

    def in_file(tensor: torch.Tensor) -> bool:
        return any(low <= tensor.data_ptr() < high for low, high in mapped)

    assert all(parameter.dtype == torch.bfloat16 and parameter.requires_grad for parameter in model.parameters())
    assert all(in_file(parameter) for parameter in model.parameters())
    for name, buffer in model.named_buffers():
        assert not buffer.requires_grad
        if name.endswith("balancing_bias"):
            assert buffer.dtype == torch.float32
            assert not in_file(buffer)
        else:
            assert layout == "legacy"
            assert buffer.dtype == torch.bfloat16
            assert in_file(buffer)
    experts = model.get_submodule("blocks.0.moe.experts")
    assert isinstance(experts.gate_up, StackedParts) == (layout == "legacy")

    dense = load_model(tmp_path / layout, quantize="none")
    expected = {our_name(name): tensor for name, tensor in state(theirs).items()}
    for name, parameter in dense.named_parameters():
        assert same(parameter.data, expected[name]), name
    assert set(expected) == {n for n, _ in dense.named_parameters()} | {n for n, _ in dense.named_buffers()}
    with torch.no_grad():
        assert torch.equal(dense(IDS), model(IDS))

    wide = load_model(tmp_path / layout, dtype="float32")
    for name, parameter in wide.named_parameters():
        assert same(parameter.data, expected[name].float()), name
    assert wide.precision == "float32"
    assert not any(isinstance(module, StackedParts) for module in wide.modules())

    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(3)
    assert (tmp_path / layout / "model.safetensors").read_bytes() == file


def test_float32_biases_in_a_bfloat16_file_keep_every_bit(tmp_path: Path) -> None:
    tensors = state(their_model(CONFIG, torch.bfloat16))
    name = "model.layers.0.mlp.gate.balancing_biases"
    tensors[name] = torch.tensor([0.1, 1e-7, -0.3, 1 / 3, -1.0])
    write_checkpoint(tmp_path, native.config_to_json(CONFIG, "bfloat16"), tensors)
    model = load_model(tmp_path)
    assert same(model.get_buffer("blocks.0.moe.router.balancing_bias"), tensors[name])
    save(model, tmp_path / "out")
    assert same(load_file(tmp_path / "out" / "model.safetensors")[name], tensors[name])


def test_a_loaded_model_trains(tmp_path: Path) -> None:
    write_both(tmp_path, torch.float32)
    model = load_model(tmp_path / "legacy", dtype="float32")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model(IDS)
    before.logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    assert not torch.allclose(model(IDS), before)


@pytest.mark.parametrize("layout", ["native", "legacy"])
@pytest.mark.parametrize("source", ["native", "legacy"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_saving_gives_back_the_checkpoint(tmp_path: Path, source: str, layout: str, dtype: str) -> None:
    write_both(tmp_path, getattr(torch, dtype))
    (tmp_path / source / "tokenizer.json").write_text("{}")
    model = load_model(tmp_path / source, dtype=dtype)
    save(model, tmp_path / "out", layout, text_from=tmp_path / source)
    saved, expected = (load_file(tmp_path / at / "model.safetensors") for at in ("out", layout))
    assert saved.keys() == expected.keys()
    for name, tensor in expected.items():
        wanted = tensor.float() if name.endswith("balancing_biases") else tensor
        assert same(saved[name], wanted), name
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_saving_a_new_model_for_transformers(tmp_path: Path) -> None:
    model = ZayaModel(CONFIG, precision="float32", seed=3)
    save(model, tmp_path / "out", max_shard_bytes=50_000)
    theirs = ZayaForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert_close(model(IDS), theirs(IDS).logits)


def test_saving_over_the_files_the_model_lives_in(tmp_path: Path) -> None:
    write_both(tmp_path, torch.bfloat16)
    model = load_model(tmp_path / "native")
    with torch.no_grad():
        expected = model(IDS)
    save(model, tmp_path / "native", "legacy", overwrite=True)
    with torch.no_grad():
        assert torch.equal(model(IDS), expected)
        assert torch.equal(load_model(tmp_path / "native")(IDS), expected)


@pytest.mark.parametrize("layout", ["native", "legacy"])
def test_models_that_no_layout_can_hold(tmp_path: Path, layout: str) -> None:
    model = ZayaModel(replace(CONFIG, skip_class=False, experts_per_token=2))
    with pytest.raises(CheckpointError) as error:
        save(model, tmp_path / "out", layout)
    assert str(error.value) == (
        f"the model cannot be written in the {layout} layout without changing what it computes:\n"
        "  it has no skip class, and the layout's router always scores one\n"
        "  2 experts work on a token, and the layout defines one"
    )
    assert not (tmp_path / "out").exists()


def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be loaded as 'float16'\nhint: dtype is bfloat16 or float32"):
        load_model(tmp_path, dtype="float16")
    with pytest.raises(UsageError, match="cannot be loaded with quantize='int3'"):
        load_model(tmp_path, quantize="int3")
    with pytest.raises(UsageError, match="no layout is called 'gguf'"):
        save(ZayaModel(CONFIG), tmp_path / "out", "gguf")


def test_load_gives_the_tokenizer_of_the_directory(tmp_path: Path) -> None:
    write_both(tmp_path)
    model, tokenizer = load(tmp_path / "native", dtype="float32")
    assert isinstance(model, ZayaModel)
    assert tokenizer is None
    byte_tokenizer().save(tmp_path / "native")
    save(model, tmp_path / "out", "legacy", text_from=tmp_path / "native")
    _, tokenizer = load(tmp_path / "out")
    assert tokenizer is not None
    assert tokenizer.encode("ab") == byte_tokenizer().encode("ab")


class TestHub:
    def test_an_id_is_fetched(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_both(tmp_path)
        asked = []

        def snapshot_download(name: str, **kwargs: Any) -> str:
            asked.append(name)
            return str(tmp_path / "native")

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        monkeypatch.setattr("zaya.text.load_tokenizer", lambda path: path)
        _, path = load("Zyphra/ZAYA1-8B", dtype="float32")
        assert asked == ["Zyphra/ZAYA1-8B"]
        assert path == tmp_path / "native"

    def test_a_failure_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def snapshot_download(name: str, **kwargs: Any) -> str:
            raise ConnectionError("no network")

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        with pytest.raises(CheckpointError) as error:
            load("no/such")
        assert str(error.value) == (
            "there is no no/such here, and it could not be fetched from the hub: no network\n"
            "hint: check the name and the network, or give a directory"
        )

    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(CheckpointError) as error:
            load("no/such")
        assert str(error.value) == (
            "there is no no/such, and fetching it as a hub id needs the extra 'hub'\nhint: pip install 'openzaya[hub]'"
        )

    @pytest.mark.parametrize("path", ["missing", "./a/b", "a/b/c", "/a/b", "../a"])
    def test_other_paths_stay_here(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(CheckpointError, match=r"there is no .*\nhint: give the directory of a checkpoint"):
            load(path)


@pytest.mark.parametrize("quantize", [None, "int4"])
def test_loading_tells_how_far_it_is(tmp_path: Path, quantize: str | None) -> None:
    told: list[tuple[int, int]] = []
    ZayaModel(BASE).save(tmp_path)
    load(tmp_path, quantize=quantize, progress=lambda done, total: told.append((done, total)))
    specs = list(tensor_table(BASE))
    total = 2 * sum(spec.numel for spec in specs)
    assert told[0] == (2 * specs[0].numel, total)
    assert told[-1] == (total, total)
    assert told == sorted(told)
