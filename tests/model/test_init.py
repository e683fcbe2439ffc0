"""The table of tensors is the model, and every tensor starts where the table says."""

from __future__ import annotations

import pytest
import torch

from zaya.core.rng import derive_seed
from zaya.model.config import PRESETS, preset
from zaya.model.init import tensor_table
from zaya.model.transformer import ZayaModel


@pytest.mark.parametrize("name", PRESETS)
def test_modules_hold_the_table(name: str) -> None:
    model = ZayaModel(preset(name), seed=None, device="meta")
    parameters = {n: tuple(p.shape) for n, p in model.named_parameters()}
    buffers = {n: tuple(b.shape) for n, b in model.named_buffers()}
    table = list(tensor_table(preset(name)))
    assert parameters == {s.name: s.shape for s in table if not s.is_buffer}
    assert buffers == {s.name: s.shape for s in table if s.is_buffer}


@pytest.mark.parametrize(("name", "tensors"), [("zaya1-8b", 1283), ("zaya1-74b", 1923)])
def test_as_many_tensors_as_published(name: str, tensors: int) -> None:
    assert len(list(tensor_table(preset(name)))) == tensors


def test_every_tensor_starts_as_the_table_says() -> None:
    config = preset("micro")
    model = ZayaModel(config, precision="float32", seed=3)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for spec in tensor_table(config):
        values = tensors[spec.name].detach()
        match spec.start:
            case "normal":
                assert abs(values.std() / spec.std - 1) < 0.25, spec.name
                assert abs(values.mean()) < 5 * spec.std / spec.numel**0.5, spec.name
            case "zeros":
                assert (values == 0).all(), spec.name
            case "ones":
                assert (values == 1).all(), spec.name
            case "newest_tap":
                assert (values[..., -1] == 1).all(), spec.name
                assert (values[..., :-1] == 0).all(), spec.name
            case "skip_last":
                assert values.tolist() == [0.0] * config.num_experts + [-1.0], spec.name


def test_seeds() -> None:
    config = preset("micro")
    first, again, other = (ZayaModel(config, precision="float32", seed=s) for s in (1, 1, 2))
    assert torch.equal(first.embed, again.embed)
    assert not torch.equal(first.embed, other.embed)
    rounded = ZayaModel(config, precision="report", seed=1)
    assert torch.equal(first.blocks[2].moe.experts.down.bfloat16(), rounded.blocks[2].moe.experts.down)


def test_a_tensor_does_not_depend_on_the_others() -> None:
    """A deeper model of the same width has the same first tensors, where their scale does not know the depth."""
    shallow, deep = (ZayaModel(preset("micro", num_layers=n), precision="float32", seed=1) for n in (2, 3))
    assert torch.equal(shallow.blocks[1].attention.q_proj, deep.blocks[1].attention.q_proj)


def test_no_skip_class() -> None:
    """An ablation: 16 classes for 16 experts, none of them pinned."""
    model = ZayaModel(preset("micro", skip_class=False), precision="float32")
    assert model.blocks[0].moe.router.balancing_bias.tolist() == [0.0] * 8
    assert model(torch.ones(1, 3, dtype=torch.long)).isfinite().all()


def test_names_of_streams() -> None:
    seeds = {derive_seed("a", "bc"), derive_seed("ab", "c"), derive_seed("abc"), derive_seed(1), derive_seed("1")}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "init", "embed") == derive_seed(0, "init", "embed")
