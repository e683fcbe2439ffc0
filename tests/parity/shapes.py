"""Small models that together visit every branch of the definition."""

from __future__ import annotations

from dataclasses import replace

from zaya.model.config import ModelConfig

BASE = ModelConfig(
    vocab_size=97, hidden_size=32, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, num_experts=4,
    expert_size=16, router_size=16, rope_theta=10_000.0,
)  # fmt: skip

SHAPES: dict[str, ModelConfig] = {
    "two_kv_heads": BASE,
    "one_kv_head": replace(BASE, num_kv_heads=1),
    "three_kv_heads": replace(BASE, num_heads=6, num_kv_heads=3),
    "four_kv_heads": replace(BASE, num_heads=8, num_kv_heads=4),
    "as_many_kv_heads_as_heads": replace(BASE, num_kv_heads=4),
    "one_head": replace(BASE, num_heads=1, num_kv_heads=1),
    "group_of_eight": replace(BASE, num_heads=16),
    "all_sliding": replace(BASE, sliding_layers=(0, 1, 2), sliding_window=5),
    "alternating": replace(BASE, num_layers=4, sliding_layers=(0, 2), sliding_window=3),
    "window_of_one": replace(BASE, sliding_layers=(1,), sliding_window=1),
    "window_of_two_odd_layers": replace(BASE, num_layers=4, sliding_layers=(1, 3), sliding_window=2),
    "conv_3_2": replace(BASE, conv_time0=3),
    "conv_2_4": replace(BASE, conv_time1=4),
    "conv_1_2": replace(BASE, conv_time0=1),
    "conv_2_1": replace(BASE, conv_time1=1),
    "conv_1_1": replace(BASE, conv_time0=1, conv_time1=1),
    "rotate_all_and_a_quarter": replace(
        BASE, head_dim=16, rope_fraction=1.0, sliding_rope_fraction=0.25, sliding_layers=(0, 2), sliding_window=4
    ),
    "one_layer": replace(BASE, num_layers=1),
    "many_narrow_experts": replace(BASE, num_experts=24, expert_size=8),
    "wide_heads": replace(BASE, hidden_size=24, head_dim=32),
}
