"""The oracle: transformers' ZayaForCausalLM with every tensor randomised, and the same weights in ours.

Fresh transformers models prove nothing: their key temperature is 0, so every key vanishes (spec 9.3, trap 3). The name
map below is written by hand and shares nothing with zaya.model.layouts, which has tests of its own.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import ZayaConfig, ZayaForCausalLM

from zaya.model.config import ModelConfig
from zaya.model.transformer import ZayaModel

RENAMES = [
    (r"^model\.embed_tokens\.weight$", "embed"),
    (r"^model\.input_hidden_states_(scale|bias)$", r"input_\1"),
    (r"^model\.norm\.", "final_norm."),
    (r"^model\.layers\.", "blocks."),
    (r"\.input_layernorm\.", ".attention_norm."),
    (r"\.post_attention_layernorm\.", ".moe_norm."),
    (r"\.self_attn\.qkv_proj\.conv_qk_(depthwise|grouped)\.", r".attention.\1_"),
    (r"\.self_attn\.qkv_proj\.(\w+)\.weight$", r".attention.\1"),
    (r"\.self_attn\.qk_norm\.temp$", ".attention.key_temperature"),
    (r"\.self_attn\.o_proj\.weight$", ".attention.o_proj"),
    (r"\.post_attention_residual_scale\.", ".attention_merge."),
    (r"\.post_mlp_residual_scale\.", ".moe_merge."),
    (r"_merge\.hidden_states_", "_merge.branch_"),
    (r"\.mlp\.gate\.balancing_biases$", ".moe.router.balancing_bias"),
    (r"\.mlp\.gate\.router_states_scale$", ".moe.router.state_scale"),
    (r"\.mlp\.gate\.down_proj\.weight$", ".moe.router.down_proj"),
    (r"\.mlp\.gate\.down_proj\.bias$", ".moe.router.down_bias"),
    (r"\.mlp\.gate\.router_mlp\.norm\.", ".moe.router.norm."),
    (r"\.mlp\.gate\.router_mlp\.(fc1|fc2|out_proj)\.weight$", r".moe.router.\1"),
    (r"\.mlp\.gate\.router_mlp\.(fc1|fc2)\.bias$", r".moe.router.\1_bias"),
    (r"\.mlp\.experts\.gate_up_proj$", ".moe.experts.gate_up"),
    (r"\.mlp\.experts\.down_proj$", ".moe.experts.down"),
]


def our_name(theirs: str) -> str:
    for pattern, replacement in RENAMES:
        theirs = re.sub(pattern, replacement, theirs)
    return theirs


def make_pair(config: ModelConfig, seed: int = 0, skip_bias: float = -1.0) -> tuple[Any, ZayaModel]:
    """The same random model in transformers and in ours, float32."""
    theirs = ZayaForCausalLM(their_config(config)).float()
    randomize(theirs, seed, skip_bias)
    ours = ZayaModel(config, precision="float32", seed=None)
    tensors = dict(ours.named_parameters()) | dict(ours.named_buffers())
    source = {our_name(n): t for n, t in theirs.state_dict().items() if n != "lm_head.weight"}
    assert source.keys() == tensors.keys()
    with torch.no_grad():
        for name, tensor in tensors.items():
            assert tensor.shape == source[name].shape, name
            tensor.copy_(source[name])
    return theirs, ours


def their_config(c: ModelConfig) -> Any:
    return ZayaConfig(
        vocab_size=c.vocab_size, hidden_size=c.hidden_size, num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads, num_key_value_heads=c.num_kv_heads, head_dim=c.head_dim,
        moe_intermediate_size=c.expert_size, num_experts=c.num_experts, router_hidden_size=c.router_size,
        cca_time0=c.conv_time0, cca_time1=c.conv_time1, rms_norm_eps=c.norm_eps, sliding_window=c.sliding_window,
        layer_types=["hybrid_sliding" if c.span(i) == "sliding" else "hybrid" for i in range(c.num_layers)],
        rope_parameters={
            "hybrid": {
                "rope_type": "default", "rope_theta": c.rope_theta, "partial_rotary_factor": c.rope_fraction,
            },
            "hybrid_sliding": {
                "rope_type": "default", "rope_theta": c.sliding_rope_theta,
                "partial_rotary_factor": c.sliding_rope_fraction,
            },
        },
        attn_implementation="eager", experts_implementation="eager", eos_token_id=1,
    )  # fmt: skip


def randomize(model: Any, seed: int, skip_bias: float) -> None:
    """Every tensor away from its initial value, by the recipe of spec 9.3."""
    stream = torch.Generator().manual_seed(seed)

    def uniform(t: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(t.shape, generator=stream) * (high - low) + low

    def normal(t: torch.Tensor, std: float) -> torch.Tensor:
        return torch.randn(t.shape, generator=stream) * std

    with torch.no_grad():
        for name, t in model.state_dict().items():
            if name == "lm_head.weight":
                continue  # tied
            if name.endswith("qk_norm.temp"):
                t.copy_(uniform(t, 0.5, 3.0))
            elif name.endswith("balancing_biases"):
                t.copy_(normal(t, 0.05))
                t[-1] = skip_bias
            elif name.endswith(("bias", "_bias")):
                t.copy_(normal(t, 0.1))
            elif t.dim() == 1:  # norms, residual and router-state scales
                t.copy_(uniform(t, 0.5, 1.5))
            elif "embed_tokens" in name:
                t.copy_(normal(t, 0.3))
            else:
                fan_in = t[0].numel() if "conv" in name else t.shape[-1]
                t.copy_(normal(t, fan_in**-0.5))


def their_choices(theirs: Any, router_logits: Any) -> torch.Tensor:
    """Chosen classes (tokens, layers) before transformers redirects the skip class to expert 0."""
    chosen = []
    for layer, logits in zip(theirs.model.layers, router_logits, strict=True):
        chosen.append((logits.float().softmax(-1) + layer.mlp.gate.balancing_biases).argmax(-1))
    return torch.stack(chosen, dim=1)
