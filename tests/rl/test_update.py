"""One update of the policy.

1. The gradient is that of the policy objective, computed for one rollout at a time without packing, tokens that are
   masked or truncated and ids that cannot be drawn included. How rollouts are packed makes no difference, nor that
   those which are the same are read once.
2. Every token goes through the experts that are recorded for it. A row of them too few or too many is caught.
3. What an engine recorded, replayed, gives the engine's own log-probabilities.
4. A batch without signal leaves weights and optimiser as they are, to the bit.
5. After a small step tokens with a positive advantage are likelier, and those with a negative one less so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity.shapes import BASE
from tests.parity.test_paths import make_model
from tests.tolerances import assert_close
from zaya.engine.engine import Engine
from zaya.engine.types import FinishReason, Request, SamplingParams
from zaya.envs.base import Score
from zaya.model.config import ModelConfig
from zaya.model.transformer import ZayaModel
from zaya.rl.loss import LossConfig
from zaya.rl.types import Rollout, RolloutGroup, Sample
from zaya.rl.update import UpdateRecord, update
from zaya.train.optim import OptimConfig, Optimizer, StepStats

NEVER = (5, 9)
LOSS = LossConfig(delta_low=0.002, delta_high=0.003, rho_max=1.5, length_norm=7.0)
SHAPES = [(4, 6, 1.5), (1, 1, -1.0), (9, 1, 0.5), (3, 12, -0.25), (5, 2, 0.0)]
"""Tokens of prompt and response, and the advantage."""


class Watched(Optimizer):
    """Keeps what it was given to step by."""

    gradients: dict[str, Tensor]

    def __init__(self, model: ZayaModel, config: OptimConfig) -> None:
        super().__init__(model, config)
        self.model = model

    def step(self, lr: float) -> StepStats:
        named = self.model.named_parameters()
        self.gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named}
        return super().step(lr)


def sample(prompt: Sequence[int], response: Sequence[int], behavior: Any, routes: Any, advantage: float) -> Sample:
    rollout = Rollout(
        ids=tuple(response),
        behavior_logprobs=np.asarray(behavior, np.float32),
        routes=routes,
        weight_versions=(0,) * len(response),
        finish_reason=FinishReason.STOP,
        score=Score(1.0, True),
    )
    return Sample(RolloutGroup("key", "source", tuple(prompt), (rollout,)), rollout, advantage)


def drawn(model: ZayaModel, *, with_routes: bool = True) -> list[Sample]:
    """Rollouts at random, sampled by weights that were a little different, through experts at random."""
    stream = np.random.default_rng(0)
    config, samples = model.config, []
    allowed = [id for id in range(1, config.vocab_size) if id not in NEVER]
    for prompt_size, size, advantage in SHAPES:
        prompt, response = (stream.choice(allowed, n).tolist() for n in (prompt_size, size))
        rows = stream.integers(0, config.num_experts, (prompt_size + size - 1, config.num_layers, 1), dtype=np.uint8)
        routes = rows if with_routes else None
        one = sample(prompt, response, np.zeros(size), routes, advantage)
        with torch.no_grad():
            behavior = alone(model, one).numpy() + stream.uniform(-0.7, 0.7, size)
        samples.append(sample(prompt, response, np.minimum(behavior, -1e-3), routes, advantage))
    return samples


def alone(model: ZayaModel, one: Sample) -> Tensor:
    """The log-probabilities of a response, from a plain pass over prompt and response, one for each next token."""
    prompt, response, routes = one.group.prompt_ids, one.rollout.ids, one.rollout.routes
    ids = torch.tensor([[*prompt, *response]])
    if routes is not None:
        last = np.zeros_like(routes[:1])  # nothing is read off there
        routes = torch.from_numpy(np.concatenate([routes, last]).astype(np.int64))[None]
    logits = model(ids, routes=routes)[0, len(prompt) - 1 : -1].clone()
    logits[:, list(NEVER)] = -torch.inf
    return logits.log_softmax(1)[torch.arange(len(response)), torch.tensor(response)]


def objective(model: ZayaModel, samples: Sequence[Sample], config: LossConfig) -> tuple[Tensor, int, int]:
    """The loss as the spec writes it, token by token; how many were masked, and truncated."""
    total, masked, truncated = torch.zeros(()), 0, 0
    for one in samples:
        for logprob, mu in zip(alone(model, one), one.rollout.behavior_logprobs.tolist(), strict=True):
            ratio = (logprob.detach() - mu).exp().item()
            distance = logprob.detach().exp().item() - np.exp(mu)
            if (one.advantage > 0 and distance > config.delta_high) or (
                one.advantage < 0 and -distance > config.delta_low
            ):
                masked += 1
                continue
            assert config.rho_max is not None
            truncated += ratio > config.rho_max
            total = total - min(ratio, config.rho_max) * one.advantage * logprob
    return total / (len(samples) * config.length_norm), masked, truncated


@pytest.fixture(scope="module")
def model() -> ZayaModel:
    return make_model(BASE)


@pytest.fixture(params=["routes", "none"])
def samples(model: ZayaModel, request: pytest.FixtureRequest) -> list[Sample]:
    return drawn(model, with_routes=request.param == "routes")


def updated(model: ZayaModel, samples: Sequence[Sample], lr: float = 0.0, **options: Any) -> tuple[UpdateRecord, Any]:
    optimizer = Watched(model, OptimConfig(momentum=0.0))
    settings = {"config": LOSS, "micro_tokens": 1000, "never": NEVER} | options
    return update(model, optimizer, samples, lr=lr, **settings), optimizer


# 1


def test_the_gradient_is_that_of_the_objective(model: ZayaModel, samples: list[Sample]) -> None:
    record, optimizer = updated(model, samples)
    loss, masked, truncated = objective(model, samples, LOSS)
    expected = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    assert record.loss == pytest.approx(loss.item(), abs=1e-6)
    for (name, _), gradient in zip(model.named_parameters(), expected, strict=True):
        assert_close(optimizer.gradients[name], gradient, what=name)
    stats = record.stats
    assert stats.tokens == sum(size for _, size, _ in SHAPES)
    assert stats.masked_positive + stats.masked_negative == masked
    assert 2 < masked < stats.positive + stats.negative - 2
    assert truncated > 1
    assert max(gradient.abs().max() for gradient in expected) > 1e-2
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("micro_tokens", [1, 13, 20])
def test_packing_makes_no_difference(model: ZayaModel, samples: list[Sample], micro_tokens: int) -> None:
    whole, expected = updated(model, samples)
    cut, optimizer = updated(model, samples[::-1], micro_tokens=micro_tokens)
    assert cut.loss == pytest.approx(whole.loss, abs=1e-6)
    assert cut.stats.surviving == whole.stats.surviving
    for name, gradient in expected.gradients.items():
        assert_close(optimizer.gradients[name], gradient, what=name)


def test_micro_batches_are_as_large_as_allowed(model: ZayaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, sizes = drawn(model), []
    original = ZayaModel.forward

    def forward(self: ZayaModel, ids: Tensor, **options: Any) -> Any:
        sizes.append(len(ids))
        return original(self, ids, **options)

    monkeypatch.setattr(ZayaModel, "forward", forward)
    for micro_tokens, expected in ((1, [14, 9, 9, 6, 1]), (18, [14, 18, 7]), (1000, [39])):
        sizes.clear()
        updated(model, samples, micro_tokens=micro_tokens)
        assert sizes == expected


def test_rollouts_that_are_the_same_are_read_once(model: ZayaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same prompt, ids and experts; credit and recorded probabilities are each rollout's own."""
    samples, sizes = drawn(model), []
    longest = samples[3]
    again = replace(longest.rollout, behavior_logprobs=longest.rollout.behavior_logprobs + np.float32(0.1))
    assert again.routes is not None
    elsewhere = replace(again, routes=(again.routes + 1) % BASE.num_experts)
    samples += [samples[0], replace(longest, rollout=again, advantage=0.75), replace(longest, rollout=elsewhere)]
    original = ZayaModel.forward

    def forward(self: ZayaModel, ids: Tensor, **options: Any) -> Any:
        sizes.append(len(ids))
        return original(self, ids, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ZayaModel, "forward", forward)
        record, optimizer = updated(model, samples)
    assert sizes == [39 + 14]
    loss, masked, _ = objective(model, samples, LOSS)
    expected = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    assert record.loss == pytest.approx(loss.item(), abs=1e-6)
    for (name, _), gradient in zip(model.named_parameters(), expected, strict=True):
        assert_close(optimizer.gradients[name], gradient, what=name)
    stats = record.stats
    assert stats.tokens == sum(size for _, size, _ in SHAPES) + 6 + 12 + 12
    assert stats.masked_positive + stats.masked_negative == masked


# 2


def test_other_routes_are_another_gradient(model: ZayaModel) -> None:
    """Of one rollout and one token alone: nothing less would show a row in a wrong place."""
    samples = drawn(model)
    _, before = updated(model, samples)
    routes = samples[3].rollout.routes
    assert routes is not None
    turned = routes.copy()
    turned[4, 1] = (turned[4, 1] + 1) % BASE.num_experts
    samples[3] = replace(samples[3], rollout=replace(samples[3].rollout, routes=turned))
    _, after = updated(model, samples)
    assert max((after.gradients[n] - g).abs().max() for n, g in before.gradients.items()) > 1e-4


@pytest.mark.parametrize("rows", [slice(0, -1), slice(1, None), slice(0, 0)])
def test_a_row_too_few_is_caught(model: ZayaModel, rows: slice) -> None:
    samples = drawn(model)
    routes = samples[1].rollout.routes, samples[0].rollout.routes
    assert routes[1] is not None
    samples[0] = replace(samples[0], rollout=replace(samples[0].rollout, routes=routes[1][rows]))
    with pytest.raises(AssertionError):
        updated(model, samples)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_row_that_went_to_a_neighbour_is_caught(model: ZayaModel) -> None:
    """The number of rows is right in all, and not in each."""
    samples = drawn(model)
    a, b = samples[3].rollout.routes, samples[0].rollout.routes
    assert a is not None
    assert b is not None
    samples[3] = replace(samples[3], rollout=replace(samples[3].rollout, routes=a[:-1]))
    samples[0] = replace(samples[0], rollout=replace(samples[0].rollout, routes=np.concatenate([b, a[-1:]])))
    with pytest.raises(AssertionError):
        updated(model, samples)


def test_some_with_routes_and_some_without_are_caught(model: ZayaModel) -> None:
    samples = drawn(model)
    samples[2] = replace(samples[2], rollout=replace(samples[2].rollout, routes=None))
    with pytest.raises(AssertionError):
        updated(model, samples)


# 3

WIDE = replace(BASE, vocab_size=97, eos_id=1)


def sampled(model: ZayaModel, config: ModelConfig = WIDE) -> list[Sample]:
    """Rollouts of the engine, several prompts of several lengths."""
    engine = Engine(model, max_batch=3)
    prompts = [[2, 7, 11], [2, 40], [2, *range(20, 37)]]
    requests = [
        Request(prompt_ids=ids, params=SamplingParams(max_tokens=12), n=3, seed=i, want_routes=True)
        for i, ids in enumerate(prompts)
    ]
    return [
        sample(completion.prompt_ids, completion.ids, completion.behavior_logprobs, completion.routes, 1.0)
        for completions in engine.complete(requests)
        for completion in completions
    ]


def test_replayed_routes_give_the_engine_s_probabilities() -> None:
    model = make_model(WIDE)
    samples = sampled(model)
    routes = [one.rollout.routes for one in samples]
    assert len({row.tobytes() for rows in routes if rows is not None for row in rows}) > 5
    record, _ = updated(model, samples, never=(), micro_tokens=50)
    assert record.stats.mismatch_kl < 1e-8
    assert record.stats.max_log_ratio < 1e-4
    assert record.stats.masked_positive == 0
    assert record.stats.effective_samples == pytest.approx(1, abs=1e-6)
    # rows moved by one token are the commonest mistake there is, and would show
    moved = [
        replace(one, rollout=replace(one.rollout, routes=np.roll(one.rollout.routes, 1, axis=0)))  # pyright: ignore[reportArgumentType, reportCallIssue]
        for one in samples
    ]
    assert updated(model, moved, never=(), micro_tokens=50)[0].stats.mismatch_kl > 1e-4


# 4


def state(model: ZayaModel, optimizer: Optimizer) -> dict[str, Tensor]:
    tensors = {**model.state_dict(), **{f"optim {name}": t for name, t in optimizer.state_dict().items()}}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def no_samples(samples: list[Sample]) -> list[Sample]:
    return []


def no_advantage(samples: list[Sample]) -> list[Sample]:
    return [replace(one, advantage=0.0) for one in samples]


def all_masked(samples: list[Sample]) -> list[Sample]:
    """Far above what was sampled, and asked to rise."""
    behavior = [np.full(len(one.rollout.ids), -30, np.float32) for one in samples]
    return [
        replace(one, advantage=1.0, rollout=replace(one.rollout, behavior_logprobs=mu))
        for one, mu in zip(samples, behavior, strict=True)
    ]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nothing", [no_samples, no_advantage, all_masked])
def test_no_signal_no_step(nothing: Any, momentum: float) -> None:
    model = make_model(BASE)
    optimizer = Optimizer(model, OptimConfig(momentum=momentum))
    tight = replace(LOSS, delta_high=0.0)
    samples = drawn(model)
    # a step with signal before: what AdamW and momentum remember of it must not act alone
    assert update(model, optimizer, samples, LOSS, lr=1e-3, micro_tokens=99, never=NEVER).step is not None
    before = state(model, optimizer)
    record = update(model, optimizer, nothing(samples), tight, lr=1e-3, micro_tokens=99, never=NEVER)
    assert record.step is None
    assert record.stats.surviving == 0
    for name, tensor in state(model, optimizer).items():
        assert torch.equal(tensor, before[name]), name


# 5


def test_credit_moves_probabilities() -> None:
    model = make_model(WIDE)
    samples = [replace(one, advantage=advantage) for one, advantage in zip(sampled(model), signs(), strict=False)]
    with torch.no_grad():
        before = [alone(model, one).sum().item() for one in samples]
    optimizer = Optimizer(model, OptimConfig(momentum=0.0))
    update(model, optimizer, samples, replace(LOSS, length_norm=12.0), lr=1e-4, micro_tokens=99)
    with torch.no_grad():
        after = [alone(model, one).sum().item() for one in samples]
    rises = np.array(after) - np.array(before)
    advantages = np.array([one.advantage for one in samples])
    assert (rises * advantages).sum() > 0
    assert rises[advantages > 0].mean() > 0 > rises[advantages < 0].mean()


def signs() -> Iterator[float]:
    while True:
        yield from (1.0, -1.0, 1.0)
