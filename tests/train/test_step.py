"""Promises of train/step:

1. Loss and gradients are those of every sequence on its own, summed over the tokens that are learned and divided by
   their number in the whole step, however the step is cut into micro-batches.
2. Micro-batches are whole sequences in order, as many as fit.
3. Gradients add up in float32, also where the weights are bfloat16.
4. What is not finite, and a batch with nothing to learn, changes no weight; the former no balancing bias either.
5. Of a conversation only what the assistant says is learned.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.tolerances import assert_close
from tests.train.stages import SHAPE
from zaya.data.loader import Batch, Component, Loader, LoaderConfig
from zaya.data.prepare import prepare
from zaya.data.sources import Conversation, InMemory, Text
from zaya.model.config import Precision, preset
from zaya.model.transformer import ZayaModel
from zaya.text import byte_tokenizer
from zaya.train.balance import BalanceConfig, Balancer
from zaya.train.optim import OptimConfig, Optimizer, StepStats
from zaya.train.step import StepRecord, evaluate, micro_batches, train_step

CONFIG = preset("micro", **SHAPE)
LENGTHS = (7, 1, 20, 12, 5, 30, 2, 19)


class Spy(Optimizer):
    """Keeps the gradients of a step, and steps only where it is told to."""

    gradients: dict[str, Tensor]
    steps = False

    def step(self, lr: float) -> StepStats:
        self.gradients = {slot.spec.name: slot.grad().clone() for slot in self._slots}
        return super().step(lr) if self.steps else StepStats(1.0, False, None, {})


def batch(seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    n, lengths = sum(LENGTHS), np.array(LENGTHS)
    return Batch(
        ids=rng.integers(0, 268, n, dtype=np.int32),
        targets=rng.integers(0, 268, n, dtype=np.int32),
        loss_mask=rng.random(n) < 0.6,
        segments=np.zeros(n, np.uint8),
        positions=np.concatenate([np.arange(length, dtype=np.int32) for length in LENGTHS]),
        cu_seqlens=np.cumsum([0, *LENGTHS], dtype=np.int32),
        components=np.repeat(np.arange(len(LENGTHS), dtype=np.int32) % 2, lengths),
        documents=np.repeat(np.arange(len(LENGTHS)), lengths),
        step=0,
        tokens_before=0,
        tokens_global=n,
    )


def take(
    b: Batch, micro_tokens: int, precision: Precision = "float32", *, steps: bool = False, broken: float | None = None
) -> tuple[StepRecord, Spy, ZayaModel]:
    model = ZayaModel(CONFIG, precision=precision, seed=3)
    if broken is not None:
        model.embed.data[5] = broken
    spy, balancer = Spy(model, OptimConfig(lr=1e-2)), Balancer(model, BalanceConfig())
    spy.steps = steps
    record = train_step(
        model, spy, balancer, b, lr=1e-2, balance_fraction=1.0, micro_tokens=micro_tokens, components=["a", "b"]
    )
    return record, spy, model


def losses_alone(model: ZayaModel, b: Batch) -> Tensor:
    """The loss of every token, its sequence computed on its own and the logits in full."""
    logits = torch.cat([model(ids[None])[0] for ids in torch.from_numpy(b.ids).long().split(list(LENGTHS))])
    return nn.functional.cross_entropy(logits, torch.from_numpy(b.targets).long(), reduction="none")


# 1


@pytest.mark.parametrize("micro_tokens", [1000, 40, 30, 1])
def test_a_step_is_the_mean_over_its_loss_tokens(micro_tokens: int) -> None:
    b = batch()
    record, spy, _ = take(b, micro_tokens)
    oracle = ZayaModel(CONFIG, precision="float32", seed=3)
    losses, mask = losses_alone(oracle, b), torch.from_numpy(b.loss_mask)
    losses[mask].mean().backward()
    for name, parameter in oracle.named_parameters():
        assert_close(spy.gradients[name], parameter.grad, "loss", name)
    assert record.loss == pytest.approx(losses[mask].mean().item(), abs=1e-6)
    for i, name in enumerate(("a", "b")):
        of = mask & torch.from_numpy(b.components == i)
        assert record.losses[name] == pytest.approx(losses[of].mean().item(), abs=1e-6)
    assert (record.tokens, record.loss_tokens) == (sum(LENGTHS), int(mask.sum()))
    whole, _, _ = take(b, 1000)
    assert record.load == whole.load


def test_validation_is_the_same_loss_and_changes_nothing() -> None:
    model = ZayaModel(CONFIG, precision="float32", seed=3)
    b, other = batch(), batch(1)
    found = evaluate(model, {"one": b, "other": other}, micro_tokens=40)
    for name, part in (("one", b), ("other", other)):
        expected = losses_alone(model, part)[torch.from_numpy(part.loss_mask)].mean()
        assert found[name] == pytest.approx(expected.item(), abs=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


# 2


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 50))
def test_micro_batches(lengths: list[int], micro_tokens: int) -> None:
    bounds = np.cumsum([0, *lengths]).tolist()
    ranges = list(micro_batches(bounds, micro_tokens))
    assert [i for first, last in ranges for i in range(first, last)] == list(range(len(lengths)))
    for first, last in ranges:
        assert last - first == 1 or bounds[last] - bounds[first] <= micro_tokens
        if last < len(lengths):  # the next one would have been too many
            assert bounds[last + 1] - bounds[first] > micro_tokens


# 3


def test_gradients_add_up_in_float32() -> None:
    _, spy, model = take(batch(), 1, "report")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    for name in ("embed", "blocks.0.attention.q_proj", "final_norm.weight"):
        gradient = spy.gradients[name]
        assert gradient.dtype == torch.float32
        assert not torch.equal(gradient, gradient.bfloat16().float()), name


# 4


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_not_finite_changes_nothing(broken: float) -> None:
    b = batch()
    b.ids[:] = 5
    record, spy, model = take(b, 40, steps=True, broken=broken)
    assert (record.skipped, record.load) == ("not finite", None)
    assert spy.updates == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in ZayaModel(CONFIG, precision="float32", seed=3).state_dict().items():
        if name != "embed":
            assert torch.equal(model.state_dict()[name], tensor), name


def test_a_batch_with_nothing_to_learn_changes_no_weight() -> None:
    b = batch()
    record, _, model = take(replace(b, loss_mask=np.zeros_like(b.loss_mask)), 40, steps=True)
    assert (record.skipped, record.loss, record.loss_tokens, record.losses) == ("no signal", 0.0, 0, {})
    for name, parameter in ZayaModel(CONFIG, precision="float32", seed=3).named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name


# 5


def test_only_the_assistant_is_learned(tmp_path: Path) -> None:
    tokens = byte_tokenizer()
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "S"}, {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A", "reasoning": "R"},
    ]  # fmt: skip
    chats = prepare(InMemory([Conversation("c", messages)]), tokens, tmp_path / "chat")
    plain = prepare(InMemory([Text("t", "plain")]), tokens, tmp_path / "text")
    components = [Component("a", chats), Component("b", plain)]
    with Loader(components, LoaderConfig(context=200, bins_per_step=2), seed=0) as loader:
        b = loader.batch(0)
    record, _, _ = take(b, 200)

    model = ZayaModel(CONFIG, precision="float32", seed=3)
    ids = chats.tokens(0).tolist()
    reply = tokens.encode("R\n</think>\n\nA<|im_end|>", bos=False)
    start = next(i for i in range(len(ids)) if ids[i : i + len(reply)] == reply)
    logits = model(torch.tensor([ids]))[0, start - 1 : start - 1 + len(reply)]
    assert record.losses["a"] == pytest.approx(
        nn.functional.cross_entropy(logits, torch.tensor(reply)).item(), abs=1e-6
    )
    text = torch.tensor([tokens.encode("<bos>plain<eos>", bos=False)])
    expected = nn.functional.cross_entropy(model(text)[0, :-1], text[0, 1:])
    assert record.losses["b"] == pytest.approx(expected.item(), abs=1e-6)
