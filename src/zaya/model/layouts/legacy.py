"""The legacy layout: attention and experts as layers of their own, one tensor per expert. Imports no torch.

Layer 2i of the layout is the attention of our block i, layer 2i + 1 its experts. A residual scale is stored with the
layer that reads the stream, not the one that wrote it, so those names are one half-layer late (spec 3.3). Published
names and keys stop here. Source: spec checkpoint-and-model 2.2 to 2.4, 3.2, 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zaya.model.config import AttentionSpan, ModelConfig
from zaya.model.init import tensor_table
from zaya.model.layouts.entry import Entry
from zaya.model.layouts.keys import Keys

SKIP_OUTPUT = "identity"

MARKERS = ("cca", "zaya_layers", "ffn_hidden_size", "zaya_mlp_expansion")
"""Any of these keys makes a config.json a legacy one (spec 2.5)."""

TENSOR_MARKER = "zaya_block"
"""And so does this in the name of a tensor."""

_ROPE_FRACTION = 0.5
"""The one value every reader of this layout agrees on: the published converter ignores the key (spec 3.3)."""

_HARMLESS = frozenset({
    "zaya_high_prec", "residual_in_fp32", "mamba_cache_dtype", "bias_activation_fusion", "apply_rope_fusion",
    "fused_add_norm", "activation_func_fp8_input_store",
})  # fmt: skip
"""How other runtimes compute, not what: we always keep the residual stream in float32."""

_KNOWN = _HARMLESS | {
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "num_query_groups", "cca_num_q_heads", "num_query_groups_list", "head_dim", "kv_channels", "ffn_hidden_size",
    "intermediate_size", "ffn_hidden_size_list", "num_experts", "moe_router_topk", "num_experts_per_tok",
    "zaya_layers", "zaya_mlp_expansion", "zaya_use_eda", "zaya_use_mod", "cca", "cca_time0", "cca_time1",
    "activation_func", "gated_linear_unit", "normalization", "norm_epsilon", "rope_theta", "rope_scaling",
    "rope_parameters", "partial_rotary_factor", "sliding_window", "swa_layers", "swa_rotary_base", "layer_types",
    "scale_residual_merge", "clamp_temp", "add_bias_linear", "attention_bias", "lm_head_bias",
    "tie_word_embeddings", "max_position_embeddings", "pad_token_id", "bos_token_id", "eos_token_id",
}  # fmt: skip

_TOP = {
    "embed": "model.embed_tokens.weight",
    "input_scale": "model.layers.0.res_scale.hidden_states_scale",
    "input_bias": "model.layers.0.res_scale.hidden_states_bias",
    "final_norm.weight": "model.final_norm.weight",
}

# stored in layer 2i
_ATTENTION = {
    "attention_norm.weight": "input_norm.weight",
    "attention.q_proj": "self_attn.qkv.linear_q.weight",
    "attention.k_proj": "self_attn.qkv.linear_k.weight",
    "attention.v_proj_current": "self_attn.qkv.val_proj1.weight",
    "attention.v_proj_delayed": "self_attn.qkv.val_proj2.weight",
    "attention.depthwise_weight": "self_attn.qkv.conv_qk.0.weight",
    "attention.depthwise_bias": "self_attn.qkv.conv_qk.0.bias",
    "attention.grouped_weight": "self_attn.qkv.conv_qk.1.weight",
    "attention.grouped_bias": "self_attn.qkv.conv_qk.1.bias",
    "attention.key_temperature": "self_attn.qkv.temp",
    "attention.o_proj": "self_attn.o_proj.weight",
}

# stored in layer 2i + 1
_EXPERTS = {
    "moe_norm.weight": "input_norm.weight",
    "moe.router.down_proj": "zaya_block.router.down_proj.weight",
    "moe.router.down_bias": "zaya_block.router.down_proj.bias",
    "moe.router.state_scale": "zaya_block.router.router_states_scale",
    "moe.router.norm.weight": "zaya_block.router.rmsnorm_eda.weight",
    "moe.router.fc1": "zaya_block.router.router_mlp.0.weight",
    "moe.router.fc1_bias": "zaya_block.router.router_mlp.0.bias",
    "moe.router.fc2": "zaya_block.router.router_mlp.2.weight",
    "moe.router.fc2_bias": "zaya_block.router.router_mlp.2.bias",
    "moe.router.out_proj": "zaya_block.router.router_mlp.4.weight",
    "moe.router.balancing_bias": "zaya_block.router.balancing_biases",
}

# stored in layer 2i + 1, one tensor per expert
_PARTS = {"moe.experts.gate_up": "linear_fc1.weight", "moe.experts.down": "linear_fc2.weight"}

_RESIDUAL = {
    "branch_scale": "hidden_states_scale",
    "branch_bias": "hidden_states_bias",
    "residual_scale": "residual_scale",
    "residual_bias": "residual_bias",
}

FIRST_QUERY = "model.layers.0.self_attn.qkv.linear_q.weight"
"""The tensor whose rows tell the number of query heads where the config leaves it open."""


def entries(config: ModelConfig) -> Iterator[Entry]:
    """Every tensor of a checkpoint in this layout, in the order of our table."""
    for spec in tensor_table(config):
        if spec.name in _TOP:
            yield Entry(spec.name, None, _TOP[spec.name], spec.shape)
            continue
        _, layer, leaf = spec.name.split(".", 2)
        attention, experts = 2 * int(layer), 2 * int(layer) + 1
        module, _, field = leaf.partition(".")
        if leaf in _PARTS:
            for part in range(spec.shape[0]):
                published = f"model.layers.{experts}.zaya_block.experts.local_experts.{part}.{_PARTS[leaf]}"
                yield Entry(spec.name, part, published, spec.shape[1:])
        elif module == "attention_merge":
            yield Entry(spec.name, None, f"model.layers.{experts}.res_scale.{_RESIDUAL[field]}", spec.shape)
        elif module == "moe_merge":
            is_last = int(layer) == config.num_layers - 1
            at = "model" if is_last else f"model.layers.{experts + 1}"
            yield Entry(spec.name, None, f"{at}.res_scale.{_RESIDUAL[field]}", spec.shape)
        elif leaf in _ATTENTION:
            yield Entry(spec.name, None, f"model.layers.{attention}.{_ATTENTION[leaf]}", spec.shape)
        else:
            yield Entry(spec.name, None, f"model.layers.{experts}.{_EXPERTS[leaf]}", spec.shape)


def config_from_json(raw: Mapping[str, object], query_rows: int | None = None) -> ModelConfig:
    """Read a config.json of any age. Where a scalar and a per-layer list disagree the list wins.

    `query_rows`, the first size of `FIRST_QUERY` where the tensors are at hand, decides the number of query heads when
    the config may mean the width before compression. Raises ConfigError naming every key that is unknown, of the
    wrong type, or asks for what we do not compute.
    """
    keys = Keys(raw, _KNOWN)
    like_8b = ModelConfig()
    _require_what_we_compute(keys)
    count, num_experts = _layers(keys)
    hidden_size = keys.integer("hidden_size", like_8b.hidden_size)
    head_dim = _head_dim(keys, hidden_size)
    mlp_size = _per_layer(keys, ("ffn_hidden_size_list", "ffn_hidden_size", "intermediate_size"), count, odd=True)
    if mlp_size % 2:
        keys.wrong.append(f"ffn_hidden_size = {mlp_size}: expected twice the width of an expert")
    sliding, sliding_window = _sliding(keys, count)
    fields = dict(
        vocab_size=keys.integer("vocab_size", like_8b.vocab_size),
        hidden_size=hidden_size,
        num_layers=count // 2,
        num_heads=_num_heads(keys, count, hidden_size, head_dim, query_rows),
        num_kv_heads=_per_layer(
            keys, ("num_query_groups_list", "num_query_groups", "num_key_value_heads"), count, odd=False
        ),
        head_dim=head_dim,
        conv_time0=keys.integer("cca_time0", like_8b.conv_time0),
        conv_time1=keys.integer("cca_time1", like_8b.conv_time1),
        num_experts=num_experts,
        expert_size=mlp_size // 2,
        router_size=_per_layer(keys, ("zaya_mlp_expansion",), count, odd=True),
        norm_eps=keys.number("norm_epsilon", like_8b.norm_eps),
        max_positions=keys.integer("max_position_embeddings", like_8b.max_positions),
        pad_id=keys.token_id("pad_token_id", like_8b.pad_id),
        bos_id=keys.token_id("bos_token_id", like_8b.bos_id),
        eos_id=keys.token_id("eos_token_id", like_8b.eos_id),
        more_eos_ids=keys.more_token_ids("eos_token_id"),
        rope_theta=keys.number("rope_theta", like_8b.rope_theta),
        sliding_rope_theta=keys.number("swa_rotary_base", like_8b.sliding_rope_theta),
    )
    keys.finish()
    return ModelConfig(
        **fields,  # type: ignore[arg-type]
        skip_output=SKIP_OUTPUT,
        sliding_window=sliding_window,
        sliding_layers=sliding,
        rope_fraction=_ROPE_FRACTION,
        sliding_rope_fraction=_ROPE_FRACTION,
    )


def _require_what_we_compute(keys: Keys) -> None:
    keys.model_type()
    always = "every model we compute has it on"
    for key in ("cca", "zaya_use_eda", "zaya_use_mod", "scale_residual_merge", "gated_linear_unit"):
        keys.require(key, (True,), always)
    keys.require("activation_func", ("swiglu",), "only swiglu is computed")
    keys.require("normalization", ("RMSNorm",), "only RMSNorm is computed")
    keys.require("clamp_temp", (False,), "a clamped temperature is not computed")
    keys.require("add_bias_linear", (False,), "linear layers have no bias here")
    keys.require("attention_bias", (False,), "projections of the attention have no bias here")
    keys.require("lm_head_bias", (False,), "the output head has no bias here")
    keys.require("tie_word_embeddings", (True,), "the output head is always the embedding")
    for key in ("moe_router_topk", "num_experts_per_tok"):
        keys.require(key, (1,), "only one expert per token is defined for this layout")
    keys.require("rope_scaling", (None, False), "only the plain rotary embedding is computed")
    keys.require("rope_parameters", (None,), "this layout says its rotary base in rope_theta")
    keys.require("partial_rotary_factor", (_ROPE_FRACTION, None), "readers of this layout disagree on other values")


def _layers(keys: Keys) -> tuple[int, int]:
    """How many layers are stored (two per layer of ours), and how many experts each of the odd ones has."""
    kinds = keys.items("zaya_layers")
    if not kinds:
        lists = [keys.raw[key] for key in ("cca_num_q_heads", "num_query_groups_list", "ffn_hidden_size_list",
                                           "zaya_mlp_expansion") if key in keys.raw]  # fmt: skip
        lengths = [len(value) for value in lists if isinstance(value, list) and value]
        count = min(lengths) if lengths else keys.integer("num_hidden_layers")
        num_experts = keys.integer("num_experts")
    else:
        count = len(kinds)
        if any(kind != "a" for kind in kinds[::2]):
            keys.wrong.append('zaya_layers: expected "a" in every even place, experts on even layers are not computed')
        experts = set(map(str, kinds[1::2]))
        if len(experts) == 1 and next(iter(experts)).isdecimal():
            num_experts = int(next(iter(experts)))
        else:
            keys.wrong.append(f"zaya_layers: expected one number of experts in every odd place: {sorted(experts)}")
            num_experts = 1
    if count % 2:
        keys.wrong.append(f"num_hidden_layers = {count}: expected an even count, attention and experts in turn")
    return count, num_experts


def _per_layer(keys: Keys, names: tuple[str, ...], count: int, *, odd: bool) -> int:
    """The one value of all attention layers or all expert layers: from a list if any of the keys has one.

    Lists hold 0 where they do not apply and may be longer than the model.
    """
    for name in names:
        values = keys.raw.get(name)
        if isinstance(values, list) and values:
            there = [value for value in values[odd:count:2] if value != 0]
            if len(values) >= count and there and there.count(there[0]) == len(there) and isinstance(there[0], int):
                return there[0]
            keys.wrong.append(f"{name}: expected {count} entries, and one value where it is not 0")
            return 2
    present = [name for name in names if keys.raw.get(name) not in (None, [])]
    return keys.integer(present[0] if present else names[-1])


def _head_dim(keys: Keys, hidden_size: int) -> int:
    for key in ("head_dim", "kv_channels"):
        if keys.raw.get(key) is not None:
            return keys.integer(key)
    # the oldest files count heads before compression, and those share the whole width
    return hidden_size // max(1, keys.integer("num_attention_heads"))


def _num_heads(keys: Keys, count: int, hidden_size: int, head_dim: int, query_rows: int | None) -> int:
    """Query heads after compression. First-day files counted them before it: `num_attention_heads` times `head_dim`
    is then the whole width, and only `cca_num_q_heads` or the tensors tell."""
    if keys.raw.get("cca_num_q_heads") not in (None, []):
        return _per_layer(keys, ("cca_num_q_heads",), count, odd=False)
    num_heads = keys.integer("num_attention_heads")
    if query_rows is not None and num_heads * head_dim == hidden_size and query_rows % head_dim == 0:
        return query_rows // head_dim
    return num_heads


def _sliding(keys: Keys, count: int) -> tuple[tuple[int, ...], int | None]:
    """Which of our layers slide, and over how many tokens: stored windows do not count the token itself, ours do."""
    window = keys.optional_integer("sliding_window")
    windows = keys.items("swa_layers")
    kinds = keys.items("layer_types")
    if windows:
        sizes = windows[:count:2]
        if len(windows) != count or not all(isinstance(size, int) and size >= 0 for size in sizes):
            keys.wrong.append(f"swa_layers: expected {count} windows of 0 or more tokens, one for each layer")
            return (), window
        sliding = tuple(i for i, size in enumerate(sizes) if size)
        largest = max((size for size in sizes if isinstance(size, int)), default=0)
        return sliding, window if window is not None or not sliding else largest + 1
    if kinds:
        if len(kinds) == count:
            kinds = kinds[::2]
        if len(kinds) != count // 2 or any(kind not in ("full_attention", "sliding_attention") for kind in kinds):
            keys.wrong.append("layer_types: expected full_attention or sliding_attention, one for each layer")
            return (), window
        sliding = tuple(i for i, kind in enumerate(kinds) if kind == "sliding_attention")
        if sliding and window is None:
            keys.wrong.append("sliding_window: missing, though layer_types has sliding_attention")
        return sliding, window
    return (), window


def config_to_json(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """Write a config.json in the style of the 8B's. `dtype` is torch's name of the stored type."""
    c = config
    sliding = set(c.sliding_layers)
    swa_layers = None
    if sliding and c.sliding_window is not None:
        swa_layers = [size for i in range(c.num_layers) for size in (c.sliding_window - 1 if i in sliding else 0, 0)]
    return {
        "architectures": ["ZayaForCausalLM"],
        "model_type": "zaya",
        "dtype": dtype,
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "num_hidden_layers": 2 * c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "num_query_groups": c.num_kv_heads,
        "head_dim": c.head_dim,
        "kv_channels": c.head_dim,
        "ffn_hidden_size": 2 * c.expert_size,
        "num_experts": c.num_experts,
        "moe_router_topk": c.experts_per_token,
        "zaya_mlp_expansion": c.router_size,
        "zaya_use_eda": True,
        "zaya_use_mod": True,
        "zaya_high_prec": True,
        "clamp_temp": False,
        "cca": True,
        "cca_time0": c.conv_time0,
        "cca_time1": c.conv_time1,
        "activation_func": "swiglu",
        "gated_linear_unit": True,
        "normalization": "RMSNorm",
        "norm_epsilon": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": False,
        "partial_rotary_factor": _ROPE_FRACTION,
        "sliding_window": None,
        "swa_layers": swa_layers,
        "swa_rotary_base": c.sliding_rope_theta if sliding else None,
        "residual_in_fp32": True,
        "scale_residual_merge": True,
        "add_bias_linear": False,
        "attention_bias": False,
        "lm_head_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "max_position_embeddings": c.max_positions,
        "mamba_cache_dtype": "float32",
        "use_cache": True,
        "pad_token_id": c.pad_id,
        "bos_token_id": c.bos_id,
        "eos_token_id": [c.eos_id, *c.more_eos_ids] if c.more_eos_ids else c.eos_id,
    }


def limits(config: ModelConfig) -> list[str]:
    """Why a model of this shape cannot be written in this layout without changing what it computes; empty if it can."""
    reasons = []
    spans: set[AttentionSpan] = {config.span(i) for i in range(config.num_layers)}
    fractions = {"full": config.rope_fraction, "sliding": config.sliding_rope_fraction}
    for span in sorted(spans):
        if config.rotary_size(span) != int(config.head_dim * _ROPE_FRACTION):
            reasons.append(f"its {span} layers rotate {fractions[span]} of a head, and the layout always rotates half")
    if config.sliding_layers and config.sliding_window == 1:
        reasons.append("its sliding layers see one token, which the layout writes as 0 and reads as all")
    return reasons
