"""Each operation's fast path against its plain reference, in values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.tolerances import assert_close
from zaya.ops import experts as experts_module
from zaya.ops.attention import QUERY_BLOCK, causal_attention, causal_attention_reference
from zaya.ops.cca import causal_mix, causal_mix_reference, l2_norm, qk_mean, shift_values
from zaya.ops.experts import experts, experts_reference
from zaya.ops.linear import linear
from zaya.ops.norm import rms_norm
from zaya.ops.packed import StackedParts
from zaya.ops.rope import rotary_angles, rotate
from zaya.ops.segments import Segments


def leaf(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    stream = torch.Generator().manual_seed(seed * 1009 + len(shape))
    return torch.randn(shape, generator=stream).to(dtype).requires_grad_()


def assert_same_with_gradients(fast: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    actual, expected = fast(*inputs), plain(*inputs)
    assert_close(actual, expected)
    weights = torch.randn_like(expected)
    for got, wanted in zip(
        torch.autograd.grad(actual, inputs, weights), torch.autograd.grad(expected, inputs, weights), strict=True
    ):
        assert_close(got, wanted)


@pytest.mark.parametrize("window", [None, 1, 3, 700])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 9), (9, 9), (4, 9), (QUERY_BLOCK + 3, QUERY_BLOCK + 40)])
def test_attention(queries: int, keys: int, window: int | None) -> None:
    inputs = [leaf(2, queries, 6, 8), leaf(2, keys, 3, 8, seed=1), leaf(2, keys, 3, 8, seed=2)]
    assert_same_with_gradients(
        lambda *x: causal_attention(*x, window), lambda *x: causal_attention_reference(*x, window), inputs
    )


@pytest.mark.parametrize(("time0", "time1"), [(2, 2), (1, 1), (3, 2), (2, 4), (1, 3), (3, 1)])
@pytest.mark.parametrize("lengths", [[7], [4, 4, 4], [1, 5, 2], [1]])
def test_causal_mix(time0: int, time1: int, lengths: list[int]) -> None:
    segments, channels, head_dim = Segments.from_lengths(lengths), 12, 4
    inputs = [
        leaf(sum(lengths), channels), leaf(len(lengths), time0 + time1 - 2, channels, seed=1),
        leaf(channels, 1, time0, seed=2), leaf(channels, seed=3), leaf(channels, head_dim, time1, seed=4),
        leaf(channels, seed=5),
    ]  # fmt: skip
    assert_same_with_gradients(
        lambda u, left, *w: causal_mix(u, left, segments, *w),
        lambda u, left, *w: causal_mix_reference(u, left, segments, *w),
        inputs,
    )


def test_first_token_sees_the_first_bias() -> None:
    """By hand: one channel, both kernels of two taps, u = 1 at t = 0. The step before is the bias, not zero."""
    segments = Segments.from_lengths([1])
    weight0, bias0 = torch.tensor([[[5.0, 2.0]]]), torch.tensor([0.5])
    weight1, bias1 = torch.tensor([[[10.0, 3.0]]]), torch.tensor([0.25])
    mixed = causal_mix(torch.ones(1, 1), torch.zeros(1, 2, 1), segments, weight0, bias0, weight1, bias1)
    assert mixed.item() == 10.0 * 0.5 + 3.0 * (2.0 * 1 + 0.5) + 0.25


def test_qk_mean_by_hand() -> None:
    q = torch.tensor([[[1.0], [3.0], [10.0], [20.0]]])
    k = torch.tensor([[[5.0], [0.0]]])
    mean_q, mean_k = qk_mean(q, k)
    assert mean_q.flatten().tolist() == [3.0, 4.0, 5.0, 10.0]
    assert mean_k.flatten().tolist() == [3.5, 7.5]


def test_l2_norm_has_length_and_survives_zero() -> None:
    x = leaf(3, 2, 16)
    assert_close(l2_norm(x).norm(dim=-1), torch.full((3, 2), 4.0))
    zero = torch.zeros(1, 1, 16, requires_grad=True)
    out = l2_norm(zero)
    out.sum().backward()
    assert (out == 0).all()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


def test_values_shift_within_segments() -> None:
    delayed = torch.arange(1.0, 6.0)[:, None]
    shifted = shift_values(delayed, torch.tensor([[10.0], [20.0]]), Segments([0, 3, 5]))
    assert shifted.flatten().tolist() == [10.0, 1.0, 2.0, 20.0, 4.0]


def test_rotation_depends_on_distance_only() -> None:
    q, k = leaf(1, 1, 8), leaf(1, 1, 8, seed=1)

    def product(i: int, j: int) -> Tensor:
        cos, sin = rotary_angles(torch.tensor([i, j]), 4, 100.0)
        return (rotate(q, cos[:1], sin[:1]) * rotate(k, cos[1:], sin[1:])).sum()

    assert_close(product(7, 3), product(104, 100))
    assert (product(7, 3) - product(7, 4)).abs() > 1e-3
    rotated = rotate(q, *rotary_angles(torch.tensor([5]), 4, 100.0))
    assert torch.equal(rotated[..., 4:], q[..., 4:])
    assert_close(rotated.norm(), q.norm())


def test_rms_norm_by_hand() -> None:
    out = rms_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([2.0, 1.0]), eps=0.0)
    assert_close(out, torch.tensor([[6.0, 4.0]]) / 12.5**0.5)


def routed(tokens: int, k: int, classes: int) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(3)
    choice = torch.stack([torch.randperm(classes, generator=stream)[:k] for _ in range(tokens)])
    return choice, torch.rand(tokens, k, generator=stream).requires_grad_()


@pytest.mark.parametrize("path", ["by_expert", "grouped", "parts"])
@pytest.mark.parametrize(("tokens", "k"), [(1, 1), (13, 1), (13, 2)])
def test_experts(path: str, tokens: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class 4 is no expert and contributes nothing."""
    monkeypatch.setattr(experts_module, "_can_group", lambda *_: path == "grouped")
    choice, weight = routed(tokens, k, 5)
    inputs = [leaf(tokens, 8), weight, leaf(4, 16, 8, seed=1), leaf(4, 8, 8, seed=2)]

    def fast(x: Tensor, w: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        if path == "parts":
            return experts(x, choice, w, StackedParts(list(gate_up.unbind())), StackedParts(list(down.unbind())))
        return experts(x, choice, w, gate_up, down)

    assert_same_with_gradients(fast, lambda x, w, g, d: experts_reference(x, choice, w, g, d), inputs)


@pytest.mark.parametrize("path", ["by_expert", "grouped"])
def test_experts_when_every_token_skips(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts_module, "_can_group", lambda rows, *_: path == "grouped" and rows.shape[0] > 0)
    out = experts(leaf(3, 8), torch.full((3, 1), 4), torch.ones(3, 1), leaf(4, 16, 8), leaf(4, 8, 8))
    assert (out == 0).all()


def test_idle_experts_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(experts_module, "linear", lambda x, w: calls.append(x.shape[0]) or linear(x, w))
    experts(leaf(5, 8), torch.tensor([[2], [2], [0], [2], [2]]), torch.ones(5, 1), leaf(4, 16, 8), leaf(4, 8, 8))
    assert calls == [1, 1, 4, 4]


class TwoRanks:
    """What a rank that holds the last two of four experts sees, and a neighbour that sends it rows."""

    num_experts = 4

    def __init__(self, from_neighbour: Tensor) -> None:
        self.from_neighbour = from_neighbour
        self.counts = torch.zeros(0)

    def send(self, rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        self.counts = counts
        ours = rows[int(counts[:2].sum()) :]
        first, second = ours.split(counts[2:].tolist())
        # the neighbour has one row for each local expert
        received = torch.cat([first, self.from_neighbour[:1], second, self.from_neighbour[1:]])
        return received, counts[2:] + 1

    def collect(self, rows: Tensor) -> Tensor:
        first = int(self.counts[2])
        mine = torch.cat([rows[:first], rows[first + 1 : -1]])
        return torch.cat([mine.new_zeros(int(self.counts[:2].sum()), rows.shape[1]), mine])


def test_dispatch_sends_rows_to_their_experts() -> None:
    x, gate_up, down = leaf(6, 8), leaf(4, 16, 8, seed=1), leaf(4, 8, 8, seed=2)
    choice, weight = torch.tensor([[3], [0], [2], [2], [3], [1]]), torch.rand(6, 1)
    out = experts(x, choice, weight, gate_up[2:], down[2:], dispatch=TwoRanks(leaf(2, 8, seed=5)))
    expected = experts_reference(x, choice, weight, gate_up, down)
    here = (choice >= 2).squeeze(-1)
    assert_close(out[here], expected[here])
    assert (out[~here] == 0).all()


@pytest.mark.parametrize("rows_per_block", [1, 7, 1000])
def test_wide_linear(rows_per_block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 in, float32 products: as if both had been converted first."""
    monkeypatch.setattr("zaya.ops.linear._WideLinear.BLOCK_BYTES", rows_per_block * 8 * 4)
    inputs = [leaf(2, 3, 8, dtype=torch.bfloat16), leaf(20, 8, seed=1, dtype=torch.bfloat16)]
    assert_same_with_gradients(
        lambda x, w: linear(x, w, out_dtype=torch.float32), lambda x, w: x.float() @ w.float().T, inputs
    )


def test_segments() -> None:
    segments = Segments.from_lengths([2, 1, 3])
    assert segments.bounds == (0, 2, 3, 6)
    assert segments.lengths == (2, 1, 3)
    assert segments.index.tolist() == [0, 0, 1, 2, 2, 2]
    assert segments.offsets.tolist() == [0, 1, 0, 0, 1, 2]
    assert not segments.is_uniform
    assert Segments([0, 2, 4]).is_uniform
