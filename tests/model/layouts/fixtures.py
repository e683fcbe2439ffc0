"""Checkpoints to read in tests, written by other hands: transformers, the safetensors library, and rules copied here
from the published specification one by one. Nothing here uses zaya.model.layouts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import ZayaForCausalLM

from tests.parity.oracle import randomize, their_config
from zaya.model.config import ModelConfig

torch.set_num_threads(1)

BASE = ModelConfig(
    vocab_size=48, hidden_size=32, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, num_experts=4,
    expert_size=16, router_size=16, rope_theta=10_000.0, eos_id=1,
)  # fmt: skip


def their_model(config: ModelConfig, dtype: torch.dtype = torch.float32, seed: int = 0, skip_bias: float = -1.0) -> Any:
    """A transformers model with every tensor random. Its balancing biases have its dtype, as those it saves have; one
    expert's is positive, as in every released layer, so that the skip class cannot win against it."""
    model: Any = ZayaForCausalLM(their_config(config)).float()
    randomize(model, seed, skip_bias)
    for layer in model.model.layers:
        layer.mlp.gate.balancing_biases[0].abs_()
    return model.to(dtype)


def state(model: Any) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}


def write_checkpoint(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    save_file({name: t.contiguous() for name, t in tensors.items()}, path / "model.safetensors")
    return path


def legacy_tensors(native: dict[str, Tensor]) -> dict[str, Tensor]:
    """Native tensors under legacy names, by the table of spec 3.3 read from right to left."""
    last = max(int(name.split(".")[2]) for name in native if name.startswith("model.layers."))
    leaves = {
        "self_attn.qkv_proj.q_proj.weight": "self_attn.qkv.linear_q.weight",
        "self_attn.qkv_proj.k_proj.weight": "self_attn.qkv.linear_k.weight",
        "self_attn.qkv_proj.v_proj_current.weight": "self_attn.qkv.val_proj1.weight",
        "self_attn.qkv_proj.v_proj_delayed.weight": "self_attn.qkv.val_proj2.weight",
        "self_attn.qk_norm.temp": "self_attn.qkv.temp",
        "self_attn.o_proj.weight": "self_attn.o_proj.weight",
        "input_layernorm.weight": "input_norm.weight",
    }
    out = {}
    for name, tensor in native.items():
        match = re.match(r"model\.layers\.(\d+)\.(.*)", name)
        if match is None:
            top = {
                "model.embed_tokens.weight": "model.embed_tokens.weight",
                "model.norm.weight": "model.final_norm.weight",
                "model.input_hidden_states_scale": "model.layers.0.res_scale.hidden_states_scale",
                "model.input_hidden_states_bias": "model.layers.0.res_scale.hidden_states_bias",
            }
            out[top[name]] = tensor
            continue
        i, leaf = int(match[1]), match[2]
        even, odd = f"model.layers.{2 * i}.", f"model.layers.{2 * i + 1}."
        if leaf in leaves:
            out[even + leaves[leaf]] = tensor
        elif leaf.startswith("self_attn.qkv_proj.conv_qk_"):
            kind, end = leaf.removeprefix("self_attn.qkv_proj.conv_qk_").split(".")
            out[even + f"self_attn.qkv.conv_qk.{ {'depthwise': 0, 'grouped': 1}[kind] }.{end}"] = tensor
        elif leaf.startswith("post_attention_residual_scale."):
            out[odd + "res_scale." + leaf.split(".")[1]] = tensor
        elif leaf.startswith("post_mlp_residual_scale."):
            at = "model." if i == last else f"model.layers.{2 * i + 2}."
            out[at + "res_scale." + leaf.split(".")[1]] = tensor
        elif leaf == "post_attention_layernorm.weight":
            out[odd + "input_norm.weight"] = tensor
        elif leaf == "mlp.experts.gate_up_proj":
            for e, expert in enumerate(tensor):
                out[odd + f"zaya_block.experts.local_experts.{e}.linear_fc1.weight"] = expert
        elif leaf == "mlp.experts.down_proj":
            for e, expert in enumerate(tensor):
                out[odd + f"zaya_block.experts.local_experts.{e}.linear_fc2.weight"] = expert
        else:
            router = leaf.removeprefix("mlp.gate.")
            router = router.replace("router_mlp.norm", "rmsnorm_eda").replace("router_mlp.fc1", "router_mlp.0")
            router = router.replace("router_mlp.fc2", "router_mlp.2").replace("router_mlp.out_proj", "router_mlp.4")
            out[odd + "zaya_block.router." + router] = tensor
    return out


def legacy_config(c: ModelConfig, **changes: Any) -> dict[str, Any]:
    """config.json in the style of ZAYA1-8B-legacy (spec 2.2)."""
    windows = None
    if c.sliding_layers:
        assert c.sliding_window is not None
        windows = [n for i in range(c.num_layers) for n in (c.sliding_window - 1 if i in c.sliding_layers else 0, 0)]
    raw = {
        "num_hidden_layers": 2 * c.num_layers, "hidden_size": c.hidden_size, "ffn_hidden_size": 2 * c.expert_size,
        "head_dim": c.head_dim, "kv_channels": c.head_dim, "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads, "num_query_groups": c.num_kv_heads, "num_experts": c.num_experts,
        "moe_router_topk": 1, "zaya_mlp_expansion": c.router_size, "zaya_use_eda": True, "zaya_use_mod": True,
        "activation_func": "swiglu", "gated_linear_unit": True, "normalization": "RMSNorm", "norm_epsilon": c.norm_eps,
        "rope_theta": c.rope_theta, "partial_rotary_factor": 0.5, "rope_scaling": False, "sliding_window": None,
        "swa_layers": windows, "swa_rotary_base": c.sliding_rope_theta, "residual_in_fp32": True,
        "scale_residual_merge": True, "cca": True, "cca_time0": c.conv_time0, "cca_time1": c.conv_time1,
        "add_bias_linear": False, "attention_bias": False, "lm_head_bias": False, "mamba_cache_dtype": "float32",
        "max_position_embeddings": c.max_positions, "bias_activation_fusion": True,
        "activation_func_fp8_input_store": False, "bos_token_id": c.bos_id, "eos_token_id": c.eos_id,
        "pad_token_id": c.pad_id, "vocab_size": c.vocab_size, "attention_dropout": 0.0, "dtype": "bfloat16",
        "use_cache": True, "model_type": "zaya",
    }  # fmt: skip
    return raw | changes


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to the bit, types and NaNs included."""
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
    )
