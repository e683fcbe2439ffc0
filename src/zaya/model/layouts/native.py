"""The native layout: what `ZayaForCausalLM` of transformers reads and writes. Imports no torch.

Published names and keys stop here. Source: spec checkpoint-and-model 2.1 and 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zaya.model.config import ModelConfig
from zaya.model.init import tensor_table
from zaya.model.layouts.entry import Entry
from zaya.model.layouts.keys import Keys

SKIP_OUTPUT = "zero"

_SPANS = {"hybrid": "full", "hybrid_sliding": "sliding"}

_KNOWN = frozenset({
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "hidden_act", "moe_intermediate_size", "num_experts", "num_experts_per_tok", "router_hidden_size", "cca_time0",
    "cca_time1", "rms_norm_eps", "max_position_embeddings", "partial_rotary_factor", "rope_parameters",
    "layer_types", "sliding_window", "attention_bias", "lm_head_bias", "tie_word_embeddings", "pad_token_id",
    "bos_token_id", "eos_token_id",
})  # fmt: skip

_TOP = {
    "embed": "model.embed_tokens.weight",
    "input_scale": "model.input_hidden_states_scale",
    "input_bias": "model.input_hidden_states_bias",
    "final_norm.weight": "model.norm.weight",
}

_LAYER = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.q_proj": "self_attn.qkv_proj.q_proj.weight",
    "attention.k_proj": "self_attn.qkv_proj.k_proj.weight",
    "attention.v_proj_current": "self_attn.qkv_proj.v_proj_current.weight",
    "attention.v_proj_delayed": "self_attn.qkv_proj.v_proj_delayed.weight",
    "attention.depthwise_weight": "self_attn.qkv_proj.conv_qk_depthwise.weight",
    "attention.depthwise_bias": "self_attn.qkv_proj.conv_qk_depthwise.bias",
    "attention.grouped_weight": "self_attn.qkv_proj.conv_qk_grouped.weight",
    "attention.grouped_bias": "self_attn.qkv_proj.conv_qk_grouped.bias",
    "attention.key_temperature": "self_attn.qk_norm.temp",
    "attention.o_proj": "self_attn.o_proj.weight",
    "attention_merge.branch_scale": "post_attention_residual_scale.hidden_states_scale",
    "attention_merge.branch_bias": "post_attention_residual_scale.hidden_states_bias",
    "attention_merge.residual_scale": "post_attention_residual_scale.residual_scale",
    "attention_merge.residual_bias": "post_attention_residual_scale.residual_bias",
    "moe_norm.weight": "post_attention_layernorm.weight",
    "moe.router.down_proj": "mlp.gate.down_proj.weight",
    "moe.router.down_bias": "mlp.gate.down_proj.bias",
    "moe.router.state_scale": "mlp.gate.router_states_scale",
    "moe.router.norm.weight": "mlp.gate.router_mlp.norm.weight",
    "moe.router.fc1": "mlp.gate.router_mlp.fc1.weight",
    "moe.router.fc1_bias": "mlp.gate.router_mlp.fc1.bias",
    "moe.router.fc2": "mlp.gate.router_mlp.fc2.weight",
    "moe.router.fc2_bias": "mlp.gate.router_mlp.fc2.bias",
    "moe.router.out_proj": "mlp.gate.router_mlp.out_proj.weight",
    "moe.router.balancing_bias": "mlp.gate.balancing_biases",
    "moe.experts.gate_up": "mlp.experts.gate_up_proj",
    "moe.experts.down": "mlp.experts.down_proj",
    "moe_merge.branch_scale": "post_mlp_residual_scale.hidden_states_scale",
    "moe_merge.branch_bias": "post_mlp_residual_scale.hidden_states_bias",
    "moe_merge.residual_scale": "post_mlp_residual_scale.residual_scale",
    "moe_merge.residual_bias": "post_mlp_residual_scale.residual_bias",
}


def entries(config: ModelConfig) -> Iterator[Entry]:
    """Every tensor of a checkpoint in this layout, in the order of our table."""
    for spec in tensor_table(config):
        if spec.name in _TOP:
            published = _TOP[spec.name]
        else:
            _, layer, leaf = spec.name.split(".", 2)
            published = f"model.layers.{layer}.{_LAYER[leaf]}"
        yield Entry(spec.name, None, published, spec.shape)


def config_from_json(raw: Mapping[str, object]) -> ModelConfig:
    """Read a config.json. A missing key means the 8B's value, as in transformers.

    Raises ConfigError naming every key that is unknown, of the wrong type, or asks for what we do not compute.
    """
    keys = Keys(raw, _KNOWN)
    like_8b = ModelConfig()
    keys.model_type()
    keys.require("hidden_act", ("silu",), "only silu is computed")
    keys.require("num_experts_per_tok", (1,), "only one expert per token is defined for this layout")
    keys.require("tie_word_embeddings", (True,), "the output head is always the embedding")
    keys.require("attention_bias", (False,), "projections of the attention have no bias here")
    keys.require("lm_head_bias", (False,), "the output head has no bias here")
    num_layers = keys.integer("num_hidden_layers", like_8b.num_layers)
    layer_types = keys.items("layer_types") or ["hybrid"] * num_layers
    if len(layer_types) != num_layers:
        keys.wrong.append(f"layer_types: {len(layer_types)} entries for {num_layers} layers")
    for kind in sorted({str(kind) for kind in layer_types} - set(_SPANS)):
        keys.wrong.append(f"layer_types: {kind!r} is none of {', '.join(_SPANS)}")
    sliding = tuple(i for i, kind in enumerate(layer_types) if kind == "hybrid_sliding")
    sliding_window = keys.optional_integer("sliding_window")
    if sliding and sliding_window is None:
        keys.wrong.append("sliding_window: missing, though layer_types has hybrid_sliding")
    full_rope = _rope(keys, "hybrid", used="hybrid" in layer_types)
    sliding_rope = _rope(keys, "hybrid_sliding", used=bool(sliding))
    fields = dict(
        vocab_size=keys.integer("vocab_size", like_8b.vocab_size),
        hidden_size=keys.integer("hidden_size", like_8b.hidden_size),
        num_layers=num_layers,
        num_heads=keys.integer("num_attention_heads", like_8b.num_heads),
        num_kv_heads=keys.integer("num_key_value_heads", like_8b.num_kv_heads),
        head_dim=keys.integer("head_dim", like_8b.head_dim),
        conv_time0=keys.integer("cca_time0", like_8b.conv_time0),
        conv_time1=keys.integer("cca_time1", like_8b.conv_time1),
        num_experts=keys.integer("num_experts", like_8b.num_experts),
        expert_size=keys.integer("moe_intermediate_size", like_8b.expert_size),
        router_size=keys.integer("router_hidden_size", like_8b.router_size),
        norm_eps=keys.number("rms_norm_eps", like_8b.norm_eps),
        max_positions=keys.integer("max_position_embeddings", like_8b.max_positions),
        pad_id=keys.token_id("pad_token_id", like_8b.pad_id),
        bos_id=keys.token_id("bos_token_id", like_8b.bos_id),
        eos_id=keys.token_id("eos_token_id", like_8b.eos_id),
        more_eos_ids=keys.more_token_ids("eos_token_id"),
    )
    keys.finish()
    return ModelConfig(
        **fields,  # type: ignore[arg-type]
        skip_output=SKIP_OUTPUT,
        sliding_window=sliding_window,
        sliding_layers=sliding,
        rope_theta=full_rope[0],
        rope_fraction=full_rope[1],
        sliding_rope_theta=sliding_rope[0],
        sliding_rope_fraction=sliding_rope[1],
    )


def _rope(keys: Keys, kind: str, *, used: bool) -> tuple[float, float]:
    """Base and rotated fraction of one kind of layer.

    Published files have a stray `rope_type` beside the entries, and leave out entries of kinds that do not occur.
    """
    default = (5_000_000.0, 0.5) if kind == "hybrid" else (10_000.0, 0.5)
    table = keys.raw.get("rope_parameters")
    if table is None:
        return default
    if not isinstance(table, dict):
        keys.wrong.append(f"rope_parameters = {table!r}: expected one entry per kind of layer")
        return default
    entry = table.get(kind)
    if entry is None:
        if used:
            keys.wrong.append(f"rope_parameters: no entry {kind}, though layer_types has it")
        return default
    unknown = set(table) - set(_SPANS) - {"rope_type"}
    if not isinstance(entry, dict) or unknown:
        keys.wrong.append(f"rope_parameters: expected one entry per kind of layer, found {sorted(map(str, table))}")
        return default
    at = Keys(entry, frozenset({"rope_type", "rope_theta", "partial_rotary_factor"}))
    at.require("rope_type", ("default",), "only the plain rotary embedding is computed")
    # transformers rotates the whole head where the entry does not say
    values = at.number("rope_theta"), at.number("partial_rotary_factor", 1.0)
    keys.wrong.extend(f"rope_parameters.{kind}.{wrong}" for wrong in at.wrong)
    return values


def config_to_json(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """Write a config.json that transformers reads. `dtype` is torch's name of the stored type."""
    c = config
    sliding = set(c.sliding_layers)
    return {
        "architectures": ["ZayaForCausalLM"],
        "model_type": "zaya",
        "dtype": dtype,
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "moe_intermediate_size": c.expert_size,
        "num_experts": c.num_experts,
        "num_experts_per_tok": c.experts_per_token,
        "router_hidden_size": c.router_size,
        "cca_time0": c.conv_time0,
        "cca_time1": c.conv_time1,
        "rms_norm_eps": c.norm_eps,
        "max_position_embeddings": c.max_positions,
        "rope_parameters": {
            "hybrid": _rope_entry(c.rope_theta, c.rope_fraction),
            "hybrid_sliding": _rope_entry(c.sliding_rope_theta, c.sliding_rope_fraction),
        },
        "layer_types": ["hybrid_sliding" if i in sliding else "hybrid" for i in range(c.num_layers)],
        "sliding_window": c.sliding_window,
        "attention_bias": False,
        "lm_head_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "pad_token_id": c.pad_id,
        "bos_token_id": c.bos_id,
        "eos_token_id": [c.eos_id, *c.more_eos_ids] if c.more_eos_ids else c.eos_id,
    }


def _rope_entry(theta: float, fraction: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": fraction}
