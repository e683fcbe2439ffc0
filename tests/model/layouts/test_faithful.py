"""When a layout, or another reader of it, would make a model compute something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import ZayaForCausalLM

from tests.parity.oracle import make_pair
from tests.parity.shapes import BASE
from tests.tolerances import assert_close
from zaya.errors import CheckpointError
from zaya.model.layouts import inspect, load_model, save
from zaya.model.layouts.faithful import changed_by_transformers, skip_can_win
from zaya.model.transformer import ZayaModel

IDS = torch.randint(1, 97, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("biases", "can_win"),
    [
        ([0.1, -0.2, -1.0], False),
        ([0.0, 0.0, -1.0], False),  # a fresh model: at best a tie, and ties go to the expert
        ([-0.1, -0.2, -1.0], True),
        ([0.1, 0.2, 0.0], True),
        ([0.5, 0.2, -0.5], False),
        ([0.49, 0.2, -0.5], True),
    ],
)
def test_whether_the_skip_class_can_win(biases: list[float], can_win: bool) -> None:
    assert skip_can_win(biases) is can_win


def test_a_tie_never_skips() -> None:
    """The edge of the rule above, computed: a router so sure of skipping that its probability is exactly 1."""
    config = replace(BASE, num_layers=1, skip_output="identity")
    for expert in range(config.num_experts):
        model = make_pair(config, seed=2)[1]
        router = model.blocks[0].moe.router
        with torch.no_grad():
            router.balancing_bias[:] = -0.5
            router.balancing_bias[expert], router.balancing_bias[-1] = 0.0, -1.0
            router.out_proj *= 0
            router.out_proj[-1] = 1e4 * torch.sign(router.fc2_bias)
            out = model.blocks[0].moe(torch.randn(200, config.hidden_size), None)[1]
        sure = out.probs[:, -1] == 1
        assert sure.any()
        assert (out.choice[sure] == expert).all()


def test_transformers_changes_some_files_and_inspect_says_which(tmp_path: Path) -> None:
    """Its loader sets the last bias to -1. Where that matters the page says so, and there its logits differ."""
    for skip, matters in ((-2.0, True), (-1.5, False)):
        model = make_pair(BASE, seed=8)[1]
        for block in model.blocks:
            block.moe.router.balancing_bias[:-1] -= 1.5 if matters else -1.5
            block.moe.router.balancing_bias[-1] = skip
        directory = tmp_path / str(skip)
        save(model, directory, "native")
        seen = inspect(directory)
        assert seen.changed_by_transformers == ([0, 1, 2] if matters else [])
        assert ("transformers sets the skip class's bias" in str(seen)) == matters
        with torch.no_grad():
            ours = load_model(directory, dtype="float32")(IDS)
            theirs = ZayaForCausalLM.from_pretrained(directory, dtype=torch.float32)(IDS, use_cache=False).logits
        assert ((ours - theirs).abs().max() > 1e-2) == matters


def test_the_published_bias_is_never_changed() -> None:
    assert changed_by_transformers([[-0.5, -0.5, -1.0]]) == []


@pytest.mark.parametrize("packed", ["float32", "bfloat16"])
def test_packed_experts_are_saved_in_the_type_of_the_model(packed: str, tmp_path: Path) -> None:
    from zaya.ops.cpu import kernels
    from zaya.ops.packed import Fp8Weight

    model = make_pair(BASE, seed=5)[1]
    if packed == "bfloat16":
        model.set_precision("report")
    for block in model.blocks:
        for name in ("gate_up", "down"):
            dense = getattr(block.moe.experts, name)
            codes = Fp8Weight(dense.detach().to(torch.float8_e4m3fn), torch.full((*dense.shape[:-1], 1), 1.0 / 3))
            delattr(block.moe.experts, name)
            setattr(block.moe.experts, name, codes)
    save(model, tmp_path / "dense", "native")
    with torch.no_grad(), kernels.without_kernels():  # which multiply in float32 also where the model is bfloat16
        assert_close(load_model(tmp_path / "dense", dtype=packed)(IDS), model(IDS))


def test_a_config_that_asks_for_far_more_than_there_is(tmp_path: Path) -> None:
    ZayaModel(BASE).save(tmp_path / "legacy", "legacy")
    file = tmp_path / "legacy" / "config.json"
    file.write_text(file.read_text().replace('"num_experts": 4', '"num_experts": 10000000'))
    with pytest.raises(CheckpointError, match="asks for 3 layers of 10000000 experts"):
        load_model(tmp_path / "legacy")
