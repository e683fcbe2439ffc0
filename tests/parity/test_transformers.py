"""Our model is transformers' model.

1. Logits, chosen classes, every cache tensor and every gradient agree with ZayaForCausalLM in float32.
2. They agree for every shape in shapes.py and for shapes drawn at random.
3. They agree when the skip class wins, with the meaning the native layout gives it: no output.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from tests.parity.oracle import make_pair, our_name, their_choices
from tests.parity.shapes import BASE, SHAPES
from tests.tolerances import assert_close
from zaya.model.cache import DenseCache
from zaya.model.config import ModelConfig
from zaya.model.transformer import Want, ZayaModel

SKIP_WINS = 0.0
"""A skip bias that wins for some tokens and loses for others."""


def draw_ids(config: ModelConfig, batch: int, seq: int, seed: int = 0) -> torch.Tensor:
    # not the padding id 0: their embedding drops its gradient, in ours padding never gets that far
    return torch.randint(1, config.vocab_size, (batch, seq), generator=torch.Generator().manual_seed(seed))


def check_forward_and_gradients(
    theirs: Any, ours: ZayaModel, ids: torch.Tensor, gradient: str = "float32"
) -> torch.Tensor:
    """Compare one pass and its gradients; returns the chosen classes."""
    out = theirs(ids, output_router_logits=True, use_cache=False)
    mine = ours(ids, want=Want(routes=True))
    assert_close(mine.logits, out.logits, what="logits")
    choices = their_choices(theirs, out.router_logits).unflatten(0, ids.shape)
    assert torch.equal(mine.routes.squeeze(-1), choices)

    targets = ids.roll(-1, 1).flatten()
    F.cross_entropy(out.logits.flatten(0, 1), targets).backward()
    F.cross_entropy(mine.logits.flatten(0, 1), targets).backward()
    mine_by_name = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        # no gradient at all is a zero gradient: the experts of a layer where every token skips
        expected, actual = (
            torch.zeros_like(p) if p.grad is None else p.grad for p in (parameter, mine_by_name[our_name(name)])
        )
        assert_close(actual, expected, gradient, what=f"gradient of {name}")
    return choices


def check_caches(theirs: Any, ours: ZayaModel, ids: torch.Tensor, chunks: list[int]) -> None:
    """Compare logits and every cache tensor after each chunk."""
    config = ours.config
    if config.sliding_window == 1:
        # theirs then keeps the last `-1 + 1 = -0` tokens, which is all of them, and contradicts its own full pass
        with torch.no_grad():
            cache = DenseCache(config, ids.shape[0])
            cached = torch.cat([ours(chunk, cache=cache) for chunk in ids.split(chunks, dim=1)], dim=1)
            assert_close(cached, theirs(ids, use_cache=False).logits, what="cached logits")
        return
    their_cache, our_cache = DynamicCache(config=theirs.config), DenseCache(config, ids.shape[0])
    with torch.no_grad():
        for chunk in ids.split(chunks, dim=1):
            out = theirs(chunk, past_key_values=their_cache, use_cache=True)
            assert_close(ours(chunk, cache=our_cache), out.logits, what="cached logits")
            for layer in range(config.num_layers):
                compare_layer(their_cache.layers[layer], our_cache, layer, config)


def compare_layer(expected: Any, cache: DenseCache, layer: int, config: ModelConfig) -> None:
    for seq in range(len(cache)):
        keys, values = cache.keys_values(seq, layer)
        held = expected.keys.shape[2]  # a sliding layer of theirs holds window - 1 tokens, ours at least as many
        assert keys.shape[0] >= held
        first = keys.shape[0] - held
        assert_close(keys[first:].transpose(0, 1), expected.keys[seq], what=f"keys of layer {layer}")
        assert_close(values[first:].transpose(0, 1), expected.values[seq], what=f"values of layer {layer}")
        snap = cache.snapshot(seq)
        if config.conv_context:
            assert_close(snap.columns[layer].T, expected.conv_states[0][seq], what=f"conv state of layer {layer}")
        assert_close(snap.delayed[layer], expected.recurrent_states[0][seq], what=f"delayed value of layer {layer}")


@pytest.mark.parametrize("name", SHAPES)
def test_forward_and_gradients(name: str) -> None:
    theirs, ours = make_pair(SHAPES[name], seed=1)
    check_forward_and_gradients(theirs, ours, draw_ids(ours.config, 2, 11))


@pytest.mark.parametrize("name", SHAPES)
def test_every_cache_tensor(name: str) -> None:
    theirs, ours = make_pair(SHAPES[name], seed=2)
    check_caches(theirs, ours, draw_ids(ours.config, 2, 12), [5, 1, 1, 3, 2])


@pytest.mark.parametrize("name", ["two_kv_heads", "alternating", "conv_3_2"])
def test_winning_skip_class(name: str) -> None:
    theirs, ours = make_pair(SHAPES[name], seed=3, skip_bias=SKIP_WINS)
    choices = check_forward_and_gradients(theirs, ours, draw_ids(ours.config, 2, 16))
    skipped = (choices == ours.config.num_experts).float().mean()
    assert 0.04 < skipped < 0.96, f"{skipped:.0%} of the choices skip: the case tests too little"


def test_skip_class_always_wins() -> None:
    theirs, ours = make_pair(BASE, seed=4, skip_bias=+1.5)
    choices = check_forward_and_gradients(theirs, ours, draw_ids(BASE, 2, 7))
    assert (choices == BASE.num_experts).all()


def test_left_padding_as_transformers_does_it() -> None:
    """They mask, we leave padding out: the real tokens must not notice."""
    theirs, ours = make_pair(SHAPES["alternating"], seed=5)
    ids = draw_ids(ours.config, 3, 9)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :4], mask[2, :1] = False, False
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long(), position_ids=positions, use_cache=False).logits
        actual = ours(ids, mask=mask)
    assert_close(actual[mask], expected[mask])
    assert (actual[~mask] == 0).all()


@pytest.mark.parametrize("start", [250, 5_000, 130_000])
def test_far_positions(start: int) -> None:
    """Far into a text angles are large; a rotation rounded to bfloat16 or counted in float16 would show here."""
    theirs, ours = make_pair(SHAPES["alternating"], seed=6)
    ids = draw_ids(ours.config, 1, 12)
    positions = start + torch.arange(12)[None]  # in steps of one: theirs takes a jump for a new packed sequence
    with torch.no_grad():
        expected = theirs(ids, position_ids=positions, use_cache=False).logits
    assert_close(ours(ids, positions=positions), expected)


@st.composite
def shapes(draw: st.DrawFn) -> ModelConfig:
    kv_heads = draw(st.integers(1, 4))
    head_dim = draw(st.sampled_from([4, 8, 12]))
    layers = draw(st.integers(1, 3))
    sliding = tuple(i for i in range(layers) if draw(st.booleans()))
    return ModelConfig(
        vocab_size=61, hidden_size=draw(st.sampled_from([8, 20, 32])), num_layers=layers, num_kv_heads=kv_heads,
        num_heads=kv_heads * draw(st.integers(1, 3)), head_dim=head_dim, num_experts=draw(st.integers(1, 6)),
        expert_size=draw(st.integers(1, 12)), router_size=draw(st.sampled_from([4, 10])),
        conv_time0=draw(st.integers(1, 4)), conv_time1=draw(st.integers(1, 4)),
        sliding_layers=sliding, sliding_window=draw(st.integers(1, 9)) if sliding else None,
        rope_theta=draw(st.sampled_from([1e2, 1e4, 5e6])),
        rope_fraction=draw(st.sampled_from([0.5, 1.0])), norm_eps=draw(st.sampled_from([1e-5, 1e-3])),
    )  # fmt: skip


CASES = (shapes(), st.integers(1, 10), st.integers(0, 99), st.sampled_from([-1.0, 0.0]), st.data())


@given(*CASES)
@settings(max_examples=30)
def test_random_shapes(config: ModelConfig, seq: int, seed: int, skip_bias: float, data: st.DataObject) -> None:
    check_random_shape(config, seq, seed, skip_bias, data)


@pytest.mark.slow
@given(*CASES)
@settings(max_examples=500, derandomize=False)
def test_many_random_shapes(config: ModelConfig, seq: int, seed: int, skip_bias: float, data: st.DataObject) -> None:
    check_random_shape(config, seq, seed, skip_bias, data)


def check_random_shape(config: ModelConfig, seq: int, seed: int, skip_bias: float, data: st.DataObject) -> None:
    theirs, ours = make_pair(config, seed, skip_bias)
    ids = draw_ids(config, data.draw(st.integers(1, 3)), seq, seed)
    check_forward_and_gradients(theirs, ours, ids, "float32_random_gradient")
    chunks = []
    while sum(chunks) < seq:
        chunks.append(data.draw(st.integers(1, seq - sum(chunks))))
    check_caches(theirs, ours, ids, chunks)
