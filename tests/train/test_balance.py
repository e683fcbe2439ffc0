"""Promises of router balancing:

1. The rule is that of paper, step by step; so is the sign rule; `off` changes nothing.
2. Biases have a mean of 0 over the experts; the skip class stays at -1, takes no part, and never wins.
3. Counts do not depend on how a batch is divided or padded.
4. A shock to one bias is forgotten within 40 steps, three times as fast as under the sign rule (spec 13.3).
5. The metrics are those of their definitions.
6. Saved and loaded, it goes on to the bit.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tolerances import assert_close
from zaya.errors import CheckpointError, ConfigError
from zaya.model.config import preset
from zaya.model.router import choose
from zaya.model.transformer import Want, ZayaModel
from zaya.train.balance import BalanceConfig, Balancer, load_entropy, load_stats, max_violation


def make(experts: int = 3, layers: int = 1, skip_class: bool = True, **rule: Any) -> tuple[ZayaModel, Balancer]:
    shape = preset("micro", num_layers=layers, num_experts=experts, vocab_size=32, skip_class=skip_class)
    model = ZayaModel(shape, precision="float32")
    return model, Balancer(model, BalanceConfig(**rule))


def buffers(model: ZayaModel) -> list[Tensor]:
    return [buffer for name, buffer in model.named_buffers() if name.endswith("balancing_bias")]


def biases(model: ZayaModel) -> Tensor:
    return torch.stack(buffers(model))


def test_adamw_on_paper() -> None:
    """Loads 1/2, 1/4, 1/4 are 1/6, -1/12, -1/12 from even.

    Step 1: every first moment over the root of its second is +-1: (-1, 1, 1) lr, centred (-4/3, 2/3, 2/3) lr.
    Step 2, even load: m = g/4, v = 3 g^2 / 16; corrected g/3 and (3/7) g^2: the same once more, times sqrt(7/27).
    """
    model, balancer = make(lr=0.03, beta1=0.5, beta2=0.75, eps=1e-30)
    balancer.step(torch.tensor([[2, 1, 1, 0]]))
    direction = torch.tensor([-4 / 3, 2 / 3, 2 / 3]) * 0.03
    assert_close(biases(model)[0, :3], direction)
    balancer.step(torch.tensor([[5, 5, 5, 0]]))
    assert_close(biases(model)[0, :3], direction * (1 + math.sqrt(7 / 27)))
    assert biases(model)[0, 3] == -1


def test_the_schedule_scales_the_step() -> None:
    (full, a), (half, b) = make(lr=0.04), make(lr=0.04)
    for _ in range(3):
        a.step(torch.tensor([[9, 1, 4, 0]]), 0.25)
    b.config = BalanceConfig(lr=0.01)
    for _ in range(3):
        b.step(torch.tensor([[9, 1, 4, 0]]))
    assert_close(biases(full), biases(half))


def test_sign_on_paper() -> None:
    model, balancer = make(rule="sign", lr=0.003)
    balancer.step(torch.tensor([[2, 1, 0, 0]]))
    assert_close(biases(model)[0], torch.tensor([-0.003, 0.0, 0.003, -1.0]))
    assert balancer.state_dict().keys() == {"updates"}


def test_off() -> None:
    model, balancer = make(rule="off")
    buffers(model)[0].copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    balancer.step(torch.tensor([[9, 1, 0, 7]]))
    assert biases(model)[0].tolist() == [1, 2, 3, 4]


@given(st.lists(st.lists(st.integers(0, 50), min_size=8, max_size=8), min_size=1, max_size=6), st.booleans())
@settings(max_examples=20)
def test_centred_and_pinned(steps: list[list[int]], skip_class: bool) -> None:
    model, balancer = make(4, layers=2, skip_class=skip_class)
    for row in steps:
        counts = torch.tensor(row).view(2, 4)
        balancer.step(torch.nn.functional.pad(counts, (0, int(skip_class))))
        assert_close(biases(model)[:, :4].mean(1), torch.zeros(2))
        if skip_class:
            assert (biases(model)[:, 4] == -1).all()


def test_a_skip_bias_from_elsewhere_is_pinned_and_its_tokens_do_not_count() -> None:
    (model, balancer), (other, without) = make(), make()
    buffers(model)[0][3] = 2.0
    balancer.step(torch.tensor([[4, 2, 2, 100]]))
    without.step(torch.tensor([[4, 2, 2, 0]]))
    assert torch.equal(biases(model), biases(other))
    with pytest.raises(AssertionError, match="the skip class won"):
        balancer.step(torch.tensor([[4, 2, 2, 1]]))


@given(st.integers(0, 10**6))
def test_the_skip_class_never_wins_against_centred_biases(seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    bias = torch.randn(5, generator=stream)
    bias = torch.cat([bias - bias.mean(), torch.tensor([-1.0])])
    probs = (torch.randn(200, 6, generator=stream) * 5).softmax(-1)
    assert (choose(probs, bias, 1) < 5).all()


def test_counts_do_not_depend_on_the_division() -> None:
    model, _ = make(8, layers=3)
    ids = torch.randint(0, 32, (6, 10))

    def counts(ids: Tensor, **how: Any) -> Tensor:
        return model(ids, want=Want(logits=None, router=True), **how).router.counts

    whole = counts(ids)
    assert whole.sum(1).tolist() == [60] * 3
    assert torch.equal(sum(counts(part) for part in ids.split(2)), whole)
    assert torch.equal(counts(ids.flatten(), cu_seqlens=list(range(0, 61, 10))), whole)
    padded = torch.nn.functional.pad(ids, (0, 4))
    assert torch.equal(counts(padded, mask=torch.arange(14) < torch.full((6, 1), 10)), whole)


def steps_to_recover(**rule: Any) -> int:
    """Tokens of a fixed law meet a router that is balanced; then 0.2 is added to the bias of expert 0."""
    model, balancer = make(8, layers=2, **rule)
    model.requires_grad_(False)
    offsets = torch.linspace(-0.5, 0.5, 9)
    stream = torch.Generator().manual_seed(1)

    def entropy() -> float:
        probs = (offsets + torch.randn(2, 2048, 9, generator=stream)).softmax(-1)
        chosen = [choose(p, b, 1) for p, b in zip(probs, biases(model), strict=True)]
        counts = torch.stack([torch.bincount(c.flatten(), minlength=9) for c in chosen])
        balancer.step(counts)
        return float(load_entropy(counts[:, :8]).mean())

    before = [entropy() for _ in range(250)][-1]
    assert before > 0.99
    for bias in buffers(model):
        bias[0] += 0.2
    assert entropy() < before - 0.1
    return next(i for i in range(1, 1000) if entropy() > before - 0.005)


def test_a_shock_is_forgotten() -> None:
    fast = steps_to_recover(lr=1e-2)
    assert fast <= 40
    assert steps_to_recover(rule="sign", lr=1e-3) >= 3 * fast


def test_metrics_by_hand() -> None:
    counts = torch.tensor([[5, 5, 5, 5], [20, 0, 0, 0], [10, 10, 0, 0], [39, 40, 40, 1]])
    last = [39 / 120, 1 / 3, 1 / 3, 1 / 120]
    entropies = [1.0, 0.0, 0.5, -sum(p * math.log(p) for p in last) / math.log(4)]
    assert_close(load_entropy(counts), torch.tensor(entropies))
    assert_close(max_violation(counts), torch.tensor([0.0, 3.0, 1.0, 1 / 3]))
    stats = load_stats(counts)
    assert stats.entropy_mean == pytest.approx(sum(entropies) / 4)
    assert stats.violation_mean == pytest.approx(13 / 12)
    assert (stats.entropy_min, stats.violation_max, stats.worst_layer, stats.dead_experts) == (0, 3, 1, 6)


def test_saved_and_loaded_it_goes_on_to_the_bit() -> None:
    stream = torch.Generator().manual_seed(0)
    drawn = [torch.nn.functional.pad(torch.randint(0, 99, (2, 3), generator=stream), (0, 1)) for _ in range(6)]
    (model, balancer), (other, resumed) = make(layers=2), make(layers=2)
    for counts in drawn[:3]:
        balancer.step(counts)
    for mine, its in zip(buffers(other), buffers(model), strict=True):
        mine.copy_(its)
    resumed.load_state_dict({name: tensor.clone() for name, tensor in balancer.state_dict().items()})
    for counts in drawn[3:]:
        balancer.step(counts)
        resumed.step(counts)
    assert torch.equal(biases(model), biases(other))
    for stranger in (make(rule="sign", layers=2)[1], make(4, layers=2)[1]):
        with pytest.raises(CheckpointError, match="does not fit this run"):
            balancer.load_state_dict(stranger.state_dict())


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"eps": 0.0}, {"beta1": 1.0}, {"beta2": -0.5}])
def test_impossible_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BalanceConfig(**wrong)
