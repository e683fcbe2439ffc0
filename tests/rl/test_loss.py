"""The policy loss on paper, and what it must not depend on.

1. The mask: of the eight cases of sign, direction and distance the two that lead further away are masked, or with the
   symmetric mask the four that are far away. A distance of exactly delta is allowed.
2. A masked token, and one whose advantage is 0, has a gradient of exactly 0.
3. Without mask and bound the gradient is that of the importance-weighted objective sum A * pi / mu.
4. The weight is bounded by rho_max, and by e^20 without it; it has no gradient of its own.
5. A token counts 1 / (num_sequences * Z), whatever the length of its response. Order and micro-batches do not matter.
6. The statistics are those of paper, and add up.
7. What is computed is float32, also from bfloat16, and near 1 a ratio keeps its digits.
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
from zaya.errors import ConfigError
from zaya.rl.loss import LossConfig, LossStats, policy_loss

FREE = LossConfig(delta_low=1, delta_high=1, rho_max=None, length_norm=1)  # no distance is above 1


def logs(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def loss_and_gradient(
    pi: Tensor, mu: Tensor, advantages: Any, config: LossConfig, num_sequences: int = 1
) -> tuple[Tensor, Tensor, LossStats]:
    pi = pi.clone().requires_grad_()
    loss, stats = policy_loss(pi, mu, torch.as_tensor(advantages, dtype=pi.dtype), config, num_sequences=num_sequences)
    return loss.detach(), torch.autograd.grad(loss, pi)[0], stats


CASES = [
    # A, pi, mu, masked when signed, masked when symmetric; delta_low 0.2, delta_high 0.1
    (+1, 0.65, 0.5, True, True),
    (+1, 0.55, 0.5, False, False),
    (+1, 0.25, 0.5, False, True),
    (+1, 0.35, 0.5, False, False),
    (-1, 0.65, 0.5, False, True),
    (-1, 0.55, 0.5, False, False),
    (-1, 0.25, 0.5, True, True),
    (-1, 0.35, 0.5, False, False),
]


@pytest.mark.parametrize(("advantage", "pi", "mu", "signed", "symmetric"), CASES)
def test_mask(advantage: float, pi: float, mu: float, signed: bool, symmetric: bool) -> None:
    for mode, is_masked in (("signed", signed), ("symmetric", symmetric)):
        config = LossConfig(delta_low=0.2, delta_high=0.1, mask_mode=mode, length_norm=1)  # pyright: ignore[reportArgumentType]
        loss, gradient, stats = loss_and_gradient(logs(pi), logs(mu), [advantage], config)
        assert (stats.masked_positive, stats.masked_negative) == (
            is_masked * (advantage > 0),
            is_masked * (advantage < 0),
        )
        assert stats.surviving == 1 - is_masked
        if is_masked:
            assert gradient.tolist() == [0]
            assert loss == 0
        else:
            assert_close(gradient, torch.tensor([-advantage * pi / mu], dtype=torch.float64), "float64")


@pytest.mark.parametrize("mode", ["signed", "symmetric"])
@pytest.mark.parametrize(("advantage", "pi", "mu"), [(1.0, 1.0, 0.5), (-1.0, 0.5, 1.0)])
def test_exactly_delta_is_allowed(mode: Any, advantage: float, pi: float, mu: float) -> None:
    pi_log, mu_log = logs(pi).float(), logs(mu).float()
    assert (pi_log.exp() - mu_log.exp()).abs().item() == 0.5
    for delta, masked in ((0.5, 0), (0.4999, 1)):
        config = LossConfig(delta_low=delta, delta_high=delta, mask_mode=mode)
        _, gradient, stats = loss_and_gradient(pi_log, mu_log, [advantage], config)
        assert stats.masked_positive + stats.masked_negative == masked
        assert (gradient == 0).all() == bool(masked)


@pytest.mark.parametrize("mode", ["signed", "symmetric"])
def test_without_advantage_no_gradient(mode: Any) -> None:
    config = LossConfig(mask_mode=mode)
    loss, gradient, stats = loss_and_gradient(logs(0.9, 0.5, 0.1), logs(0.1, 0.5, 0.9), [0.0, 0.0, 0.0], config)
    assert loss == 0
    assert (gradient == 0).all()
    assert (stats.surviving, stats.positive, stats.negative, stats.masked_positive, stats.masked_negative) == (0,) * 5


def test_the_gradient_is_that_of_the_importance_objective() -> None:
    """By logits of whole distributions, not by the log-probabilities alone."""
    logits = torch.randn(40, 7, dtype=torch.float64, requires_grad=True)
    mu = torch.randn(40, 7, dtype=torch.float64).log_softmax(1)
    ids = torch.randint(0, 7, (40, 1))
    advantages = torch.randn(40, dtype=torch.float64)
    pi, behavior = (x.gather(1, ids).squeeze(1) for x in (logits.log_softmax(1), mu))
    objective = (advantages * logits.softmax(1).gather(1, ids).squeeze(1) / behavior.exp()).sum()
    loss, _ = policy_loss(pi, behavior, advantages, FREE, num_sequences=5)
    got, wanted = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, objective / -5))
    assert_close(got, wanted, "float64")


def test_ratios_are_truncated_and_constant() -> None:
    pi, mu = logs(0.5, 0.5, 0.01), logs(0.01, 0.25, 0.5)
    config = LossConfig(delta_low=1, delta_high=1, rho_max=20, length_norm=1)
    loss, gradient, stats = loss_and_gradient(pi, mu, [1, 1, 1], config)
    assert_close(gradient, torch.tensor([-20, -2, -0.02], dtype=torch.float64), "float64")
    assert_close(loss, (gradient * pi).sum(), "float64")
    assert stats.sum_ratio == pytest.approx(52.02)  # what is reported is not truncated
    _, gradient, _ = loss_and_gradient(pi, mu, [1, 1, 1], FREE)
    assert_close(gradient, torch.tensor([-50, -2, -0.02], dtype=torch.float64), "float64")


def test_absurd_ratios_stay_finite() -> None:
    loss, gradient, stats = loss_and_gradient(torch.tensor([-0.1, -300.0]), torch.tensor([-300.0, -0.1]), [1, 1], FREE)
    assert gradient.tolist() == pytest.approx([-math.exp(20), -math.exp(-20)])
    assert loss.isfinite()
    assert stats.max_log_ratio == pytest.approx(299.9)
    assert all(map(math.isfinite, (stats.mismatch_kl, stats.effective_samples)))


def test_two_responses_on_paper() -> None:
    """One token with A = 2 and three with A = -1, pi = mu: each counts A / (2 * 8), however long its response is."""
    pi = logs(0.5, 0.25, 0.5, 0.125)
    config = LossConfig(length_norm=8)
    loss, gradient, _ = loss_and_gradient(pi, pi, [2, -1, -1, -1], config, num_sequences=2)
    assert_close(gradient, torch.tensor([-2, 1, 1, 1], dtype=torch.float64) / 16, "float64")
    # logs are -1, -2, -1, -3 times ln 2: -(2 * -1 + 2 + 1 + 3) ln 2 / 16
    assert_close(loss, torch.tensor(-4 * math.log(2) / 16, dtype=torch.float64), "float64")


def draw(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    mu = -torch.rand(tokens, dtype=torch.float64) * 3
    return mu + 0.5 * torch.randn_like(mu).clamp(-1, 1) - 0.5, mu, torch.randn(tokens, dtype=torch.float64)


@given(st.integers(1, 40), st.data())
@settings(max_examples=25)
def test_order_and_micro_batches_do_not_matter(tokens: int, data: st.DataObject) -> None:
    pi, mu, advantages = draw(tokens)
    config = LossConfig(length_norm=16)
    loss, gradient, stats = loss_and_gradient(pi, mu, advantages, config, num_sequences=7)
    order = torch.tensor(data.draw(st.permutations(range(tokens))))
    cuts = sorted(data.draw(st.lists(st.integers(0, tokens), max_size=3)))
    total, scattered, added = torch.zeros_like(loss), torch.zeros_like(gradient), LossStats()
    for start, end in zip([0, *cuts], [*cuts, tokens], strict=True):
        part = order[start:end]  # empty ones too
        value, grad, more = loss_and_gradient(pi[part], mu[part], advantages[part], config, num_sequences=7)
        total, added = total + value, added + more
        scattered[part] = grad
    assert_close(total, loss, "float64")
    assert torch.equal(scattered, gradient)
    assert [getattr(added, name) for name in LossStats.__slots__] == pytest.approx(
        [getattr(stats, name) for name in LossStats.__slots__], rel=1e-12
    )


def test_statistics_on_paper() -> None:
    pi, mu = logs(0.5, 0.5, 0.25, 0.25), logs(0.25, 0.5, 0.5, 0.25)
    _, _, stats = loss_and_gradient(pi, mu, [1, 1, -1, 0], LossConfig())
    assert (stats.tokens, stats.positive, stats.negative) == (4, 2, 1)
    assert (stats.masked_positive_fraction, stats.masked_negative_fraction, stats.surviving) == (0.5, 1, 1)
    assert stats.distance == pytest.approx((0.25 + 0.25) / 4)
    # ratios 2, 1, 1/2, 1; r - 1 - ln r: 1 - ln 2, 0, ln 2 - 1/2, 0
    assert stats.mismatch_kl == pytest.approx(0.5 / 4)
    assert stats.effective_samples == pytest.approx(4.5**2 / (4 * 6.25))
    assert stats.max_log_ratio == pytest.approx(math.log(2))
    assert stats.entropy == pytest.approx(6 * math.log(2) / 4)


def test_statistics_of_nothing() -> None:
    loss, _, stats = loss_and_gradient(logs(), logs(), [], LossConfig())
    assert loss == 0
    assert stats == LossStats()
    named = (stats.masked_positive_fraction, stats.masked_negative_fraction, stats.distance, stats.mismatch_kl)
    assert (*named, stats.effective_samples, stats.entropy) == (0,) * 6


def test_what_is_computed_is_float32() -> None:
    pi, mu = logs(0.5, 0.3).bfloat16(), logs(0.45, 0.31).bfloat16()
    loss, gradient, _ = loss_and_gradient(pi, mu, [1, 1], FREE)
    assert (loss.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
    exact, _, _ = loss_and_gradient(pi.double(), mu.double(), [1, 1], FREE)
    assert_close(loss.double(), exact, "loss")


def test_small_distances_keep_their_digits() -> None:
    """k3 of a log-ratio x is x^2 / 2 + x^3 / 6: for 1e-4 far below what 1 + x still resolves in float32."""
    pi, mu = torch.tensor([1e-4]), torch.tensor([0.0])
    assert loss_and_gradient(pi, mu, [1], FREE)[2].mismatch_kl == pytest.approx(5e-9, rel=1e-2)


def test_neither_mu_nor_the_advantage_gets_a_gradient() -> None:
    pi, mu, advantages = (x.float().requires_grad_() for x in draw(5))
    policy_loss(pi, mu, advantages, FREE, num_sequences=1)[0].backward()
    assert pi.grad is not None
    assert mu.grad is None
    assert advantages.grad is None


@pytest.mark.parametrize(
    "settings",
    [{"delta_low": -0.1}, {"delta_high": -0.1}, {"length_norm": 0.0}, {"rho_max": 0.5}],
)
def test_impossible_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        LossConfig(**settings)
