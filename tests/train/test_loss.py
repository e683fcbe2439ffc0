"""The chunked loss and the chosen log-probabilities against the plain ones.

1. Value and gradients are those of full logits: float64 to its last digits, float32 to 1e-6 and 1e-7.
2. The size of a chunk, and of a block of the embedding, changes nothing.
3. Micro-batches, each divided by the count of all, add up to the whole.
4. In bfloat16 the logits are float32 and sums are rounded once, at the end.
5. Tokens outside the mask have no part in anything, whatever their targets are.
6. Without gradients none are computed. Nothing as large as full logits is ever made.
7. Log-probabilities of the targets hold 1, 2, 4 and 6 too; ids that are never drawn have no part in them, and they are
   those of the distribution that is sampled from.
"""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tolerances import assert_close
from zaya.model.config import preset
from zaya.model.transformer import Want, ZayaModel
from zaya.ops.sampling import probabilities
from zaya.train import loss as module
from zaya.train.loss import chosen_logprobs, next_token_loss


def draw(tokens: int, dim: int, vocab: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden = torch.randn(tokens, dim).to(dtype).requires_grad_()
    embed = (torch.randn(vocab, dim) / math.sqrt(dim)).to(dtype).requires_grad_()
    return hidden, embed, torch.randint(0, vocab, (tokens,)), torch.rand(tokens) < 0.7


def plain(hidden: Tensor, embed: Tensor, targets: Tensor, mask: Tensor, count: int) -> Tensor:
    return F.cross_entropy((hidden @ embed.T)[mask], targets[mask], reduction="sum") / count


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(3 * loss, inputs))


def test_two_tokens_on_paper() -> None:
    """Logits (0, ln 3) and (ln 3, 0) of the targets 1 and 1: probabilities 3/4 and 1/4."""
    hidden = torch.eye(2).requires_grad_()
    embed = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]]).requires_grad_()
    loss, losses = next_token_loss(hidden, embed, torch.tensor([1, 1]), torch.tensor([True, True]), count=2)
    assert_close(losses, torch.tensor([math.log(4 / 3), math.log(4)]))
    assert_close(loss, torch.tensor(math.log(16 / 3) / 2))
    loss.backward()
    # softmax - one-hot is (1/4, -1/4) and (3/4, -3/4), halved by the count
    assert_close(embed.grad, torch.tensor([[1.0, 3.0], [-1.0, -3.0]]) / 8)
    assert_close(hidden.grad, torch.tensor([[-1.0, 1.0], [-3.0, 3.0]]) / 8 * math.log(3))


@given(st.integers(1, 40), st.integers(1, 50), st.integers(2, 30))
@settings(max_examples=25)
def test_float64_is_exact_for_any_chunk(chunk: int, tokens: int, rows: int) -> None:
    hidden, embed, targets, mask = draw(tokens, 8, 29, torch.float64)
    with mock.patch.object(module, "_ROWS", rows):
        loss, losses = next_token_loss(hidden, embed, targets, mask, count=17, chunk_tokens=chunk)
    expected = plain(hidden, embed, targets, mask, 17)
    assert_close(loss, expected, "float64")
    assert_close(losses.sum() / 17, expected, "float64")
    assert (losses[~mask] == 0).all()
    for got, wanted in zip(gradients(loss, hidden, embed), gradients(expected, hidden, embed), strict=True):
        assert_close(got, wanted, "float64")


@pytest.mark.parametrize("chunk", [7, 64, 1000])
def test_float32(chunk: int) -> None:
    hidden, embed, targets, mask = draw(200, 64, 500, torch.float32)
    count = int(mask.sum())
    loss, _ = next_token_loss(hidden, embed, targets, mask, count=count, chunk_tokens=chunk)
    expected = plain(*(t.double() for t in (hidden, embed)), targets, mask, count)
    assert_close(loss.double(), expected, "loss")
    for got, wanted in zip(gradients(loss, hidden, embed), gradients(expected, hidden, embed), strict=True):
        assert_close(got, wanted, "loss_gradient")


def test_bfloat16_rounds_once() -> None:
    """Against the same bfloat16 values computed in float64: the loss is float32, gradients differ by their rounding."""
    hidden, embed, targets, mask = draw(300, 32, 100, torch.bfloat16)
    exact = [t.detach().double().requires_grad_() for t in (hidden, embed)]
    expected = plain(*exact, targets, mask, 300)
    loss, _ = next_token_loss(hidden, embed, targets, mask, count=300, chunk_tokens=8)
    assert loss.dtype == torch.float32
    assert_close(loss.double(), expected, "loss")
    for got, wanted in zip(gradients(loss, hidden, embed), gradients(expected, *exact), strict=True):
        assert got.dtype == torch.bfloat16
        assert_close(got.double(), wanted, "rounded_to_bfloat16")


def test_micro_batches_add_up() -> None:
    hidden, embed, targets, mask = draw(60, 16, 40, torch.float64)
    count = int(mask.sum())
    whole, _ = next_token_loss(hidden, embed, targets, mask, count=count)
    parts = [slice(0, 7), slice(7, 40), slice(40, 60)]
    total = sum(next_token_loss(hidden[p], embed, targets[p], mask[p], count=count)[0] for p in parts)
    assert_close(total, whole, "float64")
    for got, wanted in zip(gradients(total, hidden, embed), gradients(whole, hidden, embed), strict=True):
        assert_close(got, wanted, "float64")


def test_what_the_mask_leaves_out_does_not_matter() -> None:
    hidden, embed, targets, mask = draw(20, 8, 10, torch.float32)
    loss, _ = next_token_loss(hidden, embed, targets, mask, count=20)
    (by_hidden,) = torch.autograd.grad(loss, hidden)
    assert (by_hidden[~mask] == 0).all()
    assert (by_hidden[mask] != 0).any(1).all()
    spoilt = torch.where(mask[:, None], hidden, torch.nan)
    assert torch.equal(next_token_loss(spoilt, embed, targets.where(mask, -100), mask, count=20)[0], loss)
    empty, losses = next_token_loss(hidden, embed, targets, torch.zeros_like(mask), count=20)
    assert empty == 0
    assert (losses == 0).all()
    assert all((g == 0).all() for g in gradients(empty, hidden, embed))


def test_without_gradients_no_work_for_them() -> None:
    hidden, embed, targets, mask = draw(20, 8, 10, torch.float32)
    with torch.no_grad(), mock.patch.object(Tensor, "addmm_", side_effect=AssertionError):
        loss, _ = next_token_loss(hidden, embed, targets, mask, count=20)
    assert not loss.requires_grad
    frozen, _ = next_token_loss(hidden, embed.detach(), targets, mask, count=20)
    learning, _ = next_token_loss(hidden, embed, targets, mask, count=20)
    assert torch.equal(*(torch.autograd.grad(x, hidden)[0] for x in (frozen, learning)))


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that an operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [t.numel() for t in (out if isinstance(out, tuple | list) else [out]) if isinstance(t, Tensor)]
        self.numel = max([self.numel, *made])
        return out


def test_full_logits_are_never_made() -> None:
    hidden, embed, targets, _ = draw(1000, 8, 500, torch.float32)
    with Largest() as largest:
        loss, _ = next_token_loss(hidden, embed, targets, targets >= 0, count=1000, chunk_tokens=32)
        loss.backward()
    assert largest.numel == 32 * 500


def test_through_the_model() -> None:
    """The tied embedding gets both of its gradients: as input and as head."""
    model = ZayaModel(preset("micro", num_layers=2, vocab_size=64), precision="float32")
    ids = torch.randint(0, 64, (2, 9))
    inputs, targets = ids[:, :-1], ids[:, 1:]
    out = model(inputs, want=Want(logits=None, hidden=True))
    loss, losses = next_token_loss(
        out.hidden, model.embed, targets, torch.ones_like(targets, dtype=torch.bool), count=16
    )
    expected = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    assert losses.shape == (2, 8)
    assert_close(loss, expected)
    for name, parameter in model.named_parameters():
        wanted, got = (torch.autograd.grad(x, parameter, retain_graph=True)[0] for x in (expected, loss))
        assert_close(got, wanted, what=name)


def plain_chosen(hidden: Tensor, embed: Tensor, targets: Tensor, never: Tensor | None) -> Tensor:
    logits = hidden @ embed.T
    if never is not None:
        barred = torch.zeros(embed.shape[0], dtype=torch.bool).index_fill(0, never, True)
        logits = logits.masked_fill(barred, -torch.inf)
    return logits.log_softmax(1).gather(1, targets[:, None]).squeeze(1)


def bar(targets: Tensor, vocab: int) -> Tensor:
    """A third of the ids, and no target."""
    ids = torch.randperm(vocab)[: vocab // 3]
    return ids[~torch.isin(ids, targets)]


@given(st.integers(1, 40), st.integers(0, 50), st.integers(2, 30), st.booleans())
@settings(max_examples=25)
def test_chosen_logprobs_in_float64(chunk: int, tokens: int, rows: int, bars: bool) -> None:
    hidden, embed, targets, _ = draw(tokens, 8, 60, torch.float64)
    never = bar(targets, 60) if bars else None
    weights = torch.randn(tokens, dtype=torch.float64)
    with mock.patch.object(module, "_ROWS", rows):
        chosen = chosen_logprobs(hidden, embed, targets, never=never, chunk_tokens=chunk)
        got = gradients(chosen @ weights, hidden, embed)
    expected = plain_chosen(hidden, embed, targets, never)
    torch.testing.assert_close(chosen, expected, rtol=1e-12, atol=1e-13)
    for mine, wanted in zip(got, gradients(expected @ weights, hidden, embed), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("chunk", [7, 64, 1000])
def test_chosen_logprobs_in_float32(chunk: int) -> None:
    hidden, embed, targets, _ = draw(200, 64, 500, torch.float32)
    never = bar(targets, 500)
    weights = torch.randn(200) / 200
    chosen = chosen_logprobs(hidden, embed, targets, never=never, chunk_tokens=chunk)
    expected = plain_chosen(hidden.double(), embed.double(), targets, never)
    assert_close(chosen.double(), expected, "loss")
    got, wanted = (gradients(x, hidden, embed) for x in (chosen @ weights, expected @ weights.double()))
    for mine, theirs in zip(got, wanted, strict=True):
        assert_close(mine, theirs, "loss_gradient")


def test_chosen_logprobs_of_bfloat16() -> None:
    hidden, embed, targets, _ = draw(300, 32, 100, torch.bfloat16)
    exact = [t.detach().double().requires_grad_() for t in (hidden, embed)]
    chosen = chosen_logprobs(hidden, embed, targets, chunk_tokens=8)
    expected = plain_chosen(*exact, targets, None)
    assert chosen.dtype == torch.float32
    assert_close(chosen.double(), expected)
    got, wanted = gradients(chosen.mean(), hidden, embed), gradients(expected.mean(), *exact)
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine.dtype == torch.bfloat16
        assert_close(mine.double(), theirs, "rounded_to_bfloat16")


def test_chosen_logprobs_are_those_of_sampling() -> None:
    hidden, embed, targets, _ = draw(10, 8, 40, torch.float32)
    never = bar(targets, 40)
    chosen = chosen_logprobs(hidden, embed, targets, never=never)
    drawn = [probabilities(row @ embed.T, never=never)[t].log() for row, t in zip(hidden, targets, strict=True)]
    assert_close(chosen, torch.stack(drawn))
    _, by_embed = gradients(chosen.sum(), hidden, embed)
    assert (by_embed[never] == 0).all()
    with pytest.raises(AssertionError, match="cannot have been drawn"):
        chosen_logprobs(hidden, embed, targets, never=targets[:1])


def test_chosen_logprobs_keep_no_logits() -> None:
    hidden, embed, targets, _ = draw(1000, 8, 500, torch.float32)
    kept: list[int] = []
    with (
        Largest() as largest,
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t),
    ):
        chosen = chosen_logprobs(hidden, embed, targets, chunk_tokens=32)
        chosen.sum().backward()
    assert largest.numel == 32 * 500
    assert sum(kept) == hidden.numel() + embed.numel() + 2 * 1000
