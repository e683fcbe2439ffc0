"""Promises of the optimiser:

1. Every tensor of the model has the rule of its group; matrices too narrow for Muon go to AdamW.
2. AdamW is that of paper: two steps by hand. So is Muon with its momentum, against a plain loop over single matrices.
3. Gate and up of each expert are orthogonalised apart; how matrices are batched changes nothing.
4. Without momentum Muon holds no state.
5. Learning rates and decay follow the group, and the router's multiplier its tensors.
6. The global norm is clipped; a gradient of nothing, or one that is not finite, changes nothing at all.
7. Narrow weights are updated through float32 masters: steps too small for them add up.
8. Saved and loaded, the next steps are the same to the bit; another configuration's state is refused.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from tests.tolerances import assert_close
from zaya.config import load, to_toml
from zaya.errors import CheckpointError, ConfigError
from zaya.model.config import preset
from zaya.model.init import tensor_table
from zaya.model.transformer import ZayaModel
from zaya.train import optim as module
from zaya.train.muon import orthogonalize
from zaya.train.optim import GroupConfig, OptimConfig, Optimizer

SHAPE = preset("micro", num_layers=2, vocab_size=32, hidden_size=32, expert_size=24, num_experts=3, router_size=16)
PLAIN = GroupConfig()
BARE = OptimConfig(clip=None, matrix=PLAIN, expert=PLAIN, router_out=PLAIN)
GATE_UP, DOWN = "blocks.1.moe.experts.gate_up", "blocks.1.moe.experts.down"
Q, FC1 = "blocks.0.attention.q_proj", "blocks.0.moe.router.fc1"


def make(config: OptimConfig = BARE, precision: Any = "float32", **shape: Any) -> tuple[ZayaModel, Optimizer]:
    model = ZayaModel(replace(SHAPE, **shape), precision=precision)
    return model, Optimizer(model, config)


def draw_gradients(model: ZayaModel, seed: int = 0, scale: float = 1.0) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = (torch.randn(parameter.shape, generator=stream) * scale).to(parameter.dtype)
    return {name: grad_of(p).clone() for name, p in model.named_parameters()}


def grad_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def weights(model: ZayaModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def root_mean_square(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def test_who_gets_which_rule() -> None:
    model, optimizer = make(head_dim=8)  # half a key is then 8 wide, and so are the values' projections
    kinds: dict[str, set[str]] = {name: set() for name, _ in model.named_parameters()}
    for entry in optimizer.state_dict():
        if entry != "updates":
            kind, _, name = entry.partition("/")
            kinds[name].add(kind)
    for spec in tensor_table(model.config):
        if spec.is_buffer:
            assert spec.name not in kinds
        elif spec.group in ("matrix", "expert") and "v_proj" not in spec.name:
            assert kinds[spec.name] == {"momentum"}, spec.name
        else:
            assert kinds[spec.name] == {"first", "second"}, spec.name


def test_without_momentum_no_state() -> None:
    _, optimizer = make(replace(BARE, momentum=0.0))
    muon = {spec.name for spec in tensor_table(SHAPE) if spec.group in ("matrix", "expert")}
    assert muon
    assert not [name for name in optimizer.state_dict() if name.partition("/")[2] in muon]


def test_two_steps_of_adamw_on_paper() -> None:
    """beta 0.5 and 0.75, gradients 2 and -1, rate 0.1, decay 0.5 on one element that starts at 1.

    Step 1: m = 1, v = 1; corrected 2 and 4; 1 * 0.95 - 0.1 * 2/2 = 0.85.
    Step 2: m = 0, v = 1; corrected 0 and 1/(1 - 0.5625); 0.85 * 0.95 - 0 = 0.8075.
    Then 2: m = 1, v = 1.75; corrected 8/7 and 1.75/(1 - 27/64) = 112/37.
    """
    config = replace(BARE, beta1=0.5, beta2=0.75, eps=1e-30, vector=GroupConfig(weight_decay=0.5))
    model, optimizer = make(config)
    scale = model.input_scale
    after = []
    for gradient in (2.0, -1.0, 2.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step(0.1)
        after.append(scale[0].item())
    third = 0.8075 * 0.95 - 0.1 * (8 / 7) / math.sqrt(112 / 37)
    assert after == pytest.approx([0.85, 0.8075, third], abs=1e-6)


def test_epsilon_is_added_to_the_root() -> None:
    model, optimizer = make(replace(BARE, eps=1.0))
    draw_gradients(model)
    model.input_scale.grad = torch.full_like(model.input_scale, 3.0)
    optimizer.step(0.1)
    assert_close(model.input_scale.detach(), torch.full((32,), 1 - 0.1 * 3 / (3 + 1)))


def plain_muon(weight: Tensor, gradients: list[Tensor], lr: float, momentum: float, decay: float) -> Tensor:
    """Spec 3.2, one matrix."""
    m = torch.zeros_like(weight)
    for gradient in gradients:
        m = momentum * m + gradient
        direction = orthogonalize((gradient + momentum * m)[None])[0]
        weight = (1 - lr * decay) * weight - lr * 0.2 * math.sqrt(max(weight.shape)) * direction
    return weight


@pytest.mark.parametrize("momentum", [0.0, 0.95])
@pytest.mark.parametrize("batch", [1, 5000, 1 << 26])
def test_muon_is_a_loop_over_matrices(momentum: float, batch: int) -> None:
    decayed = GroupConfig(weight_decay=0.3)
    model, optimizer = make(replace(BARE, momentum=momentum, matrix=decayed, expert=decayed))
    before = weights(model)
    with mock.patch.object(module, "_BATCH_ELEMENTS", batch):
        drawn = []
        for seed in range(3):
            drawn.append(draw_gradients(model, seed))
            optimizer.step(0.02)
    after = weights(model)

    def check(name: str, *where: Any) -> None:
        gradients = [gradient[name][where] for gradient in drawn]
        assert_close(after[name][where], plain_muon(before[name][where], gradients, 0.02, momentum, 0.3), what=name)

    check(Q, ...)
    check(FC1, ...)
    for expert in range(3):
        check(DOWN, expert)
        check(GATE_UP, expert, slice(0, 24))
        check(GATE_UP, expert, slice(24, 48))


def test_matrices_of_one_shape_go_together() -> None:
    model, optimizer = make()
    draw_gradients(model)
    shapes = []
    with mock.patch.object(module, "orthogonalize", side_effect=lambda x: shapes.append(tuple(x.shape)) or x):
        optimizer.step(0.1)
    assert len({shape[1:] for shape in shapes}) == len(shapes)
    assert (2 * 3 * 2, 24, 32) in shapes  # layers, experts, gate and up


def test_groups_have_their_own_rates_and_decay() -> None:
    config = replace(
        BARE,
        router_lr_scale=0.5,
        matrix=GroupConfig(lr_scale=3.0),
        embedding=GroupConfig(lr_scale=2.0, weight_decay=0.1),
        conv=GroupConfig(lr_scale=0.0, weight_decay=9.0),
    )
    model, optimizer = make(config)
    plain, plain_optimizer = make()
    before = weights(model)
    draw_gradients(model)
    draw_gradients(plain)
    stats = optimizer.step(0.01)
    plain_stats = plain_optimizer.step(0.01)

    def moved(of: ZayaModel, name: str) -> Tensor:
        return of.get_parameter(name).detach() - before[name]

    for name, factor in [
        (Q, 3), (FC1, 1.5), ("blocks.0.moe.router.out_proj", 0.5), ("blocks.0.moe.router.norm.weight", 0.5),
        (DOWN, 1), ("final_norm.weight", 1), ("blocks.1.attention.grouped_weight", 0),
    ]:  # fmt: skip
        assert_close(moved(model, name), factor * moved(plain, name), what=name)
    assert_close(moved(model, "embed"), 2 * moved(plain, "embed") - 0.02 * 0.1 * before["embed"])
    for group, stat in stats.groups.items():
        assert stat.grad_norm == plain_stats.groups[group].grad_norm


def test_statistics() -> None:
    model, optimizer = make()
    before = weights(model)
    drawn = draw_gradients(model, scale=0.1)
    stats = optimizer.step(0.01)
    after = weights(model)
    assert set(stats.groups) == {"matrix", "expert", "embedding", "conv", "router_out", "vector"}
    assert_close(stats.grad_norm, float(torch.cat([g.flatten() for g in drawn.values()]).norm()))
    for group, names in {"embedding": ["embed"], "expert": [n for n in after if ".experts." in n]}.items():
        got = stats.groups[group]
        flat = [torch.cat([values[n].flatten() for n in names]) for values in (drawn, before, after)]
        assert_close(got.grad_norm, float(flat[0].norm()))
        assert_close(got.update_rms, float(root_mean_square(flat[2] - flat[1])))
        assert_close(got.weight_rms, float(root_mean_square(flat[2])))
    # AdamW's first step is the rate in every element; Muon's is about a fifth of it
    assert stats.groups["embedding"].update_rms == pytest.approx(0.01, rel=1e-4)
    assert 0.0015 < stats.groups["expert"].update_rms < 0.0021


def test_clipping() -> None:
    """A clipped step is the step of the gradients scaled down; with momentum it is what the next one remembers."""
    (clipped, optimizer), (scaled, scaled_optimizer) = make(replace(BARE, clip=2.0)), make()
    drawn = draw_gradients(clipped)
    norm = float(torch.cat([g.flatten() for g in drawn.values()]).norm())
    assert norm > 2
    for name, parameter in scaled.named_parameters():
        parameter.grad = drawn[name] * (2.0 / norm)
    stats, scaled_stats = optimizer.step(0.1), scaled_optimizer.step(0.1)
    assert stats.is_clipped
    assert not scaled_stats.is_clipped
    assert stats.grad_norm == pytest.approx(norm, rel=1e-5)
    expected = scaled_optimizer.state_dict()
    for name, tensor in optimizer.state_dict().items():
        assert_close(tensor, expected[name], what=name)
    draw_gradients(clipped, scale=1e-4)
    assert not optimizer.step(0.1).is_clipped


@pytest.mark.parametrize(
    ("value", "reason"), [(0.0, "no signal"), (None, "no signal"), (math.nan, "not finite"), (math.inf, "not finite")]
)
def test_a_gradient_of_nothing_changes_nothing(value: float | None, reason: str) -> None:
    model, optimizer = make(OptimConfig())
    draw_gradients(model)
    optimizer.step(0.1)
    before, state = weights(model), {n: t.clone() for n, t in optimizer.state_dict().items()}
    for parameter in model.parameters():
        if not value:
            parameter.grad = None if value is None else torch.zeros_like(parameter)
    if value:
        grad_of(model.final_norm.weight)[3] = value
    stats = optimizer.step(0.1)
    assert stats.skipped == reason
    assert stats.groups == {}
    assert all(torch.equal(before[n], t) for n, t in weights(model).items())
    assert all(torch.equal(state[n], t) for n, t in optimizer.state_dict().items())


def test_no_gradient_is_a_gradient_of_zero() -> None:
    (without, first), (zero, second) = make(OptimConfig()), make(OptimConfig())
    for model, optimizer in ((without, first), (zero, second)):
        draw_gradients(model)
        optimizer.step(0.1)
        optimizer.zero_grad()
        assert model.embed.grad is None
        draw_gradients(model, 1)
    without.get_parameter(DOWN).grad = None
    grad_of(zero.get_parameter(DOWN)).zero_()
    first.step(0.1)
    second.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(without.parameters(), zero.parameters(), strict=True))


def test_frozen_tensors_are_left_alone() -> None:
    model = ZayaModel(SHAPE, precision="float32")
    model.embed.requires_grad_(False)
    optimizer = Optimizer(model, OptimConfig())
    draw_gradients(model)
    before = model.embed.detach().clone()
    assert "embedding" not in optimizer.step(0.1).groups
    assert torch.equal(model.embed, before)


def test_masters_add_up_what_bfloat16_would_lose() -> None:
    model, optimizer = make(precision="report")
    assert {name.partition("/")[0] for name in optimizer.state_dict()} >= {"master", "momentum", "first"}
    for _ in range(40):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(1e-4)  # the last bit of a bfloat16 1 is 4e-3 below it
    assert_close(optimizer.state_dict()["master/input_scale"], torch.full((32,), 1 - 40e-4), "float32")
    assert (model.input_scale == torch.tensor(1 - 40e-4).bfloat16()).all()
    assert model.input_scale.dtype == torch.bfloat16
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, optimizer.state_dict()[f"master/{name}"].bfloat16())


@pytest.mark.parametrize("precision", ["float32", "report"])
@pytest.mark.parametrize("momentum", [0.0, 0.95])
def test_saved_and_loaded_it_goes_on_to_the_bit(precision: Any, momentum: float) -> None:
    config = replace(OptimConfig(), momentum=momentum)
    model, optimizer = make(config, precision)
    for seed in range(3):
        draw_gradients(model, seed)
        optimizer.step(0.01)
    saved = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    held = weights(model)
    other, resumed = make(config, precision)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(held[name])
    resumed.load_state_dict(saved)
    for seed in range(3, 6):
        for each, its_optimizer in ((model, optimizer), (other, resumed)):
            draw_gradients(each, seed)
            its_optimizer.step(0.01)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for name, tensor in optimizer.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_state_that_does_not_fit_is_refused() -> None:
    _, optimizer = make()
    _, without = make(replace(BARE, momentum=0.0))
    _, wider = make(vocab_size=40)
    for other, names in ((without, "momentum/blocks.0.attention"), (wider, "first/embed, second/embed, 2 in all")):
        with pytest.raises(CheckpointError, match=names) as error:
            optimizer.load_state_dict(other.state_dict())
        assert error.value.hint


def test_configuration_round_trip(tmp_path) -> None:
    config = load(OptimConfig, overrides=["embedding.lr_scale=0.3", "clip=none", "expert.lr_scale=2"])
    assert config.expert == GroupConfig(lr_scale=2.0, weight_decay=0.1)
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert load(OptimConfig, tmp_path / "c.toml") == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, "optim.momentum must be at least 0 and below 1"),
        ({"beta2": -0.1}, "optim.beta2"),
        ({"lr": -1.0}, "must not be negative"),
        ({"eps": 0.0}, "optim.eps must be positive"),
        ({"clip": 0.0}, "optim.clip must be positive"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimConfig(**settings)
    with pytest.raises(ConfigError, match="must not be negative"):
        GroupConfig(weight_decay=-0.1)
