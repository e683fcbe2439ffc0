"""Counts on paper against the published ones (spec pretraining 1, 2.1, 11; checkpoint-and-model 1, 6.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya.model.config import PRESETS, ModelConfig, preset
from zaya.model.flops import (
    active_parameters,
    decode_weight_bytes,
    kv_cache_bytes,
    parameters,
    sequence_flops,
    state_bytes,
    token_flops,
)
from zaya.model.init import tensor_table

ZAYA1 = ModelConfig()
SLIDING = replace(preset("micro"), sliding_window=7, sliding_layers=(0, 2))


def rounded(number: float, digits: int = 3) -> float:
    return round(number, digits)


def test_published_parameter_counts_of_the_8b():
    total, active = parameters(ZAYA1), active_parameters(ZAYA1)
    assert rounded(total.total / 1e9) == 8.840
    assert rounded(total.without_embedding / 1e9) == 8.303
    assert rounded(active.without_embedding / 1e9) == 0.754
    assert rounded(active.total / 1e9) == 1.291
    assert total.embedding == 262_272 * 2048
    assert rounded(total.attention / 40 / 1e6) == 5.576
    assert total.experts == 40 * 16 * 3 * 2048 * 2048
    assert rounded(total.experts / 40 / 16 / 1e6) == 12.583
    # the first layer has no scale for an earlier router state
    assert rounded((total.router + 256) / 40 / 1e6) == 0.661


def test_published_size_of_one_layer():
    grown = parameters(replace(ZAYA1, num_layers=41)).total - parameters(ZAYA1).total
    assert rounded(grown / 1e6, 2) == 207.58


def test_published_parameter_count_of_the_74b():
    assert parameters(preset("zaya1-74b")).total / 1e9 == pytest.approx(74.8, abs=0.1)


@pytest.mark.parametrize("name", PRESETS)
def test_nothing_but_the_balancing_biases_is_left_out(name: str):
    config = preset(name)
    held = sum(spec.numel for spec in tensor_table(config))
    assert held - parameters(config).total == config.num_layers * config.num_classes


def test_two_experts_per_token_make_twice_the_active_expert_weights():
    one, two = active_parameters(ZAYA1), active_parameters(replace(ZAYA1, experts_per_token=2))
    assert two == replace(one, experts=2 * one.experts)


def test_published_cache_sizes_of_the_8b():
    assert kv_cache_bytes(ZAYA1, 1) == 40 * 1024
    assert kv_cache_bytes(ZAYA1, 131_072) == 5 * 1024**3
    assert kv_cache_bytes(ZAYA1, 10, bytes_per_number=1) == 10 * 20 * 1024
    assert state_bytes(ZAYA1, 1) == 107_520
    assert state_bytes(ZAYA1) == 430_080


def test_a_sliding_layer_stops_growing_at_its_window():
    per_layer = kv_cache_bytes(SLIDING, 1) // SLIDING.num_layers
    assert kv_cache_bytes(SLIDING, 7) == 7 * 4 * per_layer
    assert kv_cache_bytes(SLIDING, 8) == kv_cache_bytes(SLIDING, 7) + 2 * per_layer
    assert (
        token_flops(SLIDING, 8).attention - token_flops(SLIDING, 7).attention
        == (token_flops(SLIDING, 2).attention - token_flops(SLIDING, 1).attention) // 2
    )


def test_published_multiply_adds_of_the_convolutions():
    assert token_flops(ZAYA1, 1).convolutions == 2 * 40 * 330_240


@pytest.mark.parametrize(
    ("length", "gflops", "attention_share", "head_share"),
    [(4096, 2.92, 0.115, 0.37), (32_768, 5.26, 0.51, 0.20), (131_072, 13.3, 0.81, 0.08)],
)
def test_published_forward_flops_per_token(length: int, gflops: float, attention_share: float, head_share: float):
    flops = sequence_flops(ZAYA1, length)
    assert flops.total / length / 1e9 == pytest.approx(gflops, rel=0.003)
    assert flops.attention / flops.total == pytest.approx(attention_share, abs=0.005)
    assert flops.head / flops.total == pytest.approx(head_share, abs=0.005)


@given(length=st.integers(1, 40), window=st.integers(1, 40))
def test_a_sequence_costs_what_its_tokens_cost(length: int, window: int):
    config = replace(SLIDING, sliding_window=window)
    tokens = [token_flops(config, context) for context in range(1, length + 1)]
    whole = sequence_flops(config, length)
    for part in type(whole).__slots__:
        assert getattr(whole, part) == sum(getattr(token, part) for token in tokens), part


def test_matrix_products_touch_every_active_matrix_once():
    """Two operations per active weight that is a matrix or a convolution: the table of tensors is the oracle."""
    for config in PRESETS.values():
        matrices = sum(
            spec.numel // (config.num_experts if spec.group == "expert" else 1)
            for spec in tensor_table(config)
            if spec.group in ("matrix", "expert", "embedding", "conv", "router_out")
        )
        flops = token_flops(config, 1)
        assert flops.total - flops.attention == 2 * matrices


def test_decoding_reads_the_active_weights_and_the_head():
    assert rounded(decode_weight_bytes(ZAYA1) / 1e9, 2) == 2.58
    assert decode_weight_bytes(ZAYA1, bytes_per_weight=1) * 2 == decode_weight_bytes(ZAYA1)
