"""Configurations as published, key by key (spec 2.1 to 2.5), and what is refused and why."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import ZayaConfig

from tests.model.layouts.fixtures import BASE, legacy_config
from tests.parity.oracle import their_config
from tests.parity.shapes import SHAPES
from zaya.errors import ConfigError
from zaya.model.config import ModelConfig
from zaya.model.layouts import legacy, native
from zaya.model.layouts.checkpoint import detect_layout

NATIVE_8B: dict[str, Any] = {
    "architectures": ["ZayaForCausalLM"], "model_type": "zaya", "dtype": "bfloat16", "vocab_size": 262272,
    "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 128,
    "hidden_act": "silu", "moe_intermediate_size": 2048, "num_experts": 16, "num_experts_per_tok": 1,
    "router_hidden_size": 256, "cca_time0": 2, "cca_time1": 2, "rms_norm_eps": 1e-05,
    "max_position_embeddings": 131072, "partial_rotary_factor": 0.5,
    "rope_parameters": {
        "hybrid": {"rope_type": "default", "rope_theta": 5000000, "partial_rotary_factor": 0.5},
        "hybrid_sliding": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        "rope_type": "default",
    },
    "layer_types": ["hybrid"] * 40, "sliding_window": None, "attention_bias": False, "lm_head_bias": False,
    "attention_dropout": 0.0, "tie_word_embeddings": True, "use_cache": True, "output_router_logits": False,
    "initializer_range": 0.02, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 106,
    "transformers_version": "5.12.0",
}  # fmt: skip

LEGACY_8B: dict[str, Any] = {
    "num_hidden_layers": 80, "hidden_size": 2048, "ffn_hidden_size": 4096, "head_dim": 128, "kv_channels": 128,
    "num_attention_heads": 8, "num_key_value_heads": 2, "num_query_groups": 2, "num_experts": 16, "moe_router_topk": 1,
    "zaya_mlp_expansion": 256, "zaya_use_eda": True, "zaya_use_mod": True, "activation_func": "swiglu",
    "gated_linear_unit": True, "normalization": "RMSNorm", "norm_epsilon": 1e-05, "rope_theta": 5000000,
    "partial_rotary_factor": 0.5, "rope_scaling": False, "sliding_window": None, "residual_in_fp32": True,
    "scale_residual_merge": True, "cca": True, "add_bias_linear": False, "attention_bias": False,
    "lm_head_bias": False, "mamba_cache_dtype": "float32", "max_position_embeddings": 131072,
    "bias_activation_fusion": True, "activation_func_fp8_input_store": False, "bos_token_id": 2, "eos_token_id": 106,
    "pad_token_id": 0, "vocab_size": 262272, "attention_dropout": 0.0, "dtype": "bfloat16", "use_cache": True,
    "model_type": "zaya",
}  # fmt: skip

OLDEST_TINY: dict[str, Any] = {
    "model_type": "zaya", "num_hidden_layers": 2, "zaya_layers": ["a", 16], "cca_num_q_heads": [2, 0],
    "num_query_groups_list": [1, 0], "ffn_hidden_size_list": [0, 32], "zaya_mlp_expansion": [0, 8],
    "hidden_size": 512, "kv_channels": 128, "num_attention_heads": 4, "num_key_value_heads": 1,
    "residual_in_fp32": False, "vocab_size": 262272, "eos_token_id": 1, "rope_theta": 1000000.0, "rope_scaling": False,
    "max_position_embeddings": 32768, "cca": True, "clamp_temp": False, "moe_router_topk": 1,
}  # fmt: skip


def without(raw: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key not in keys}


def test_the_published_8b_is_our_default() -> None:
    assert native.config_from_json(NATIVE_8B) == ModelConfig()
    assert legacy.config_from_json(LEGACY_8B) == ModelConfig(skip_output="identity")


def test_the_oldest_style_lists_win() -> None:
    expected = ModelConfig(
        vocab_size=262_272, hidden_size=512, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=128, num_experts=16,
        expert_size=16, router_size=8, rope_theta=1e6, max_positions=32_768, eos_id=1, skip_output="identity",
    )  # fmt: skip
    assert legacy.config_from_json(OLDEST_TINY) == expected
    disagreeing = OLDEST_TINY | {
        "num_hidden_layers": 120, "num_experts": 3, "num_query_groups": 7, "ffn_hidden_size": 9, "head_dim": None,
    }  # fmt: skip
    assert legacy.config_from_json(disagreeing) == expected


def test_lists_may_be_longer_than_the_model_and_tell_its_length_without_zaya_layers() -> None:
    longer = OLDEST_TINY | {"ffn_hidden_size_list": [0, 32, 0, 32, 0, 48]}
    assert legacy.config_from_json(longer).expert_size == 16
    raw = without(OLDEST_TINY, "zaya_layers") | {"num_hidden_layers": 120, "num_experts": 5}
    config = legacy.config_from_json(raw)
    assert (config.num_layers, config.num_experts) == (1, 5)


def test_first_day_files_count_heads_before_compression() -> None:
    first_day = LEGACY_8B | {"num_attention_heads": 16, "cca_num_q_heads": 8}
    assert legacy.config_from_json(first_day).num_heads == 8
    ported = without(LEGACY_8B, "cca_num_q_heads") | {"num_attention_heads": 16}
    assert legacy.config_from_json(ported, query_rows=1024).num_heads == 8
    assert legacy.config_from_json(ported).num_heads == 16
    # nothing to decide: 8 heads of 128 are not the whole width, so tensors of another size are wrong ones
    assert legacy.config_from_json(LEGACY_8B, query_rows=2048).num_heads == 8


def test_head_dim_without_any_key_for_it() -> None:
    assert legacy.config_from_json(without(OLDEST_TINY, "kv_channels")).head_dim == 128


def test_sliding_layers_of_the_74b() -> None:
    windows = [4096, 0, 0, 0] * 30
    raw = LEGACY_8B | {"num_hidden_layers": 120, "swa_layers": windows, "swa_rotary_base": 12345}
    config = legacy.config_from_json(raw)
    assert config.sliding_layers == tuple(range(0, 60, 2))
    assert config.sliding_window == 4097
    assert config.sliding_rope_theta == 12345
    assert legacy.config_from_json(raw | {"swa_rotary_base": None}).sliding_rope_theta == 10_000
    assert legacy.config_from_json(raw | {"swa_layers": [100, 0, 7, 0] * 30}).sliding_window == 101
    assert legacy.config_from_json(raw | {"sliding_window": 50}).sliding_window == 50
    kinds = ["full_attention", "sliding_attention"]
    named = without(raw, "swa_layers") | {"layer_types": kinds * 30, "sliding_window": 9}
    assert legacy.config_from_json(named).sliding_layers == tuple(range(1, 60, 2))
    twice = [kind for kind in kinds * 30 for _ in range(2)]
    assert legacy.config_from_json(named | {"layer_types": twice}).sliding_layers == tuple(range(1, 60, 2))


def test_native_keys_that_may_be_missing() -> None:
    assert native.config_from_json(without(NATIVE_8B, "layer_types")) == ModelConfig()
    rope = {"hybrid": NATIVE_8B["rope_parameters"]["hybrid"]}
    assert native.config_from_json(NATIVE_8B | {"rope_parameters": rope}) == ModelConfig()
    assert native.config_from_json(without(NATIVE_8B, "rope_parameters")) == ModelConfig()
    assert native.config_from_json({"model_type": "zaya"}) == ModelConfig()
    several = native.config_from_json(NATIVE_8B | {"eos_token_id": [1, 106]})
    assert (several.eos_id, several.more_eos_ids) == (1, (106,))
    for layout in (native, legacy):
        assert layout.config_to_json(several, "bfloat16")["eos_token_id"] == [1, 106]
    assert native.config_from_json(NATIVE_8B | {"pad_token_id": None}).pad_id == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_what_transformers_saves_is_read_and_what_we_write_it_reads(tmp_path: Path, shape: str) -> None:
    config = replace(SHAPES[shape], eos_id=1)
    theirs = their_config(config)
    theirs.save_pretrained(tmp_path)
    assert native.config_from_json(json.loads((tmp_path / "config.json").read_text())) == config
    assert native.config_from_json(theirs.to_dict()) == config
    (tmp_path / "config.json").write_text(json.dumps(native.config_to_json(config, "float32")))
    again = ZayaConfig.from_pretrained(tmp_path).to_dict()
    ignored = {"_name_or_path", "transformers_version", "architectures", "dtype"}
    assert {k: v for k, v in again.items() if k not in ignored} == {
        k: v for k, v in theirs.to_dict().items() if k not in ignored
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_legacy_written_and_read_again(shape: str) -> None:
    config = replace(SHAPES[shape], skip_output="identity")
    if legacy.limits(config):
        assert shape in ("window_of_one", "rotate_all_and_a_quarter")
        return
    again = legacy.config_from_json(json.loads(json.dumps(legacy.config_to_json(config, "bfloat16"))))
    assert again == config
    assert legacy.config_from_json(legacy_config(config)) == config


def test_legacy_limits() -> None:
    assert legacy.limits(replace(BASE, sliding_layers=(0,), sliding_window=1)) == [
        "its sliding layers see one token, which the layout writes as 0 and reads as all"
    ]
    assert legacy.limits(replace(BASE, rope_fraction=0.25)) == [
        "its full layers rotate 0.25 of a head, and the layout always rotates half"
    ]
    # a fraction that no layer uses, or that rotates as many channels, changes nothing
    assert legacy.limits(replace(BASE, sliding_rope_fraction=0.25)) == []
    rounded = replace(BASE, rope_fraction=0.55)
    assert legacy.limits(rounded) == []
    assert legacy.config_from_json(legacy.config_to_json(rounded, "float32")).rope_fraction == 0.5


def test_any_legacy_marker_wins() -> None:
    assert detect_layout(NATIVE_8B, {"model.norm.weight"}) == "native"
    for key in ("cca", "zaya_layers", "ffn_hidden_size", "zaya_mlp_expansion"):
        assert detect_layout(NATIVE_8B | {key: None}, set()) == "legacy"
    assert detect_layout(NATIVE_8B, {"model.layers.1.zaya_block.router.balancing_biases"}) == "legacy"


ROPE = NATIVE_8B["rope_parameters"]
NATIVE_REFUSED = {
    "unknown": ({"num_expert": 4, "zzz": 1}, [
        "num_expert: unknown key; did you mean num_experts?", "zzz: unknown key"]),
    "activation": ({"hidden_act": "gelu"}, ["hidden_act = 'gelu': only silu is computed"]),
    "top-k": ({"num_experts_per_tok": 2}, [
        "num_experts_per_tok = 2: only one expert per token is defined for this layout"]),
    "untied": ({"tie_word_embeddings": False}, [
        "tie_word_embeddings = False: the output head is always the embedding"]),
    "biases": ({"attention_bias": True, "lm_head_bias": True}, [
        "attention_bias = True: projections of the attention have no bias here",
        "lm_head_bias = True: the output head has no bias here"]),
    "types": ({"hidden_size": "2048", "rms_norm_eps": "1e-5", "head_dim": True}, [
        "hidden_size = '2048' is a str; expected an integer", "head_dim = True is a bool; expected an integer",
        "rms_norm_eps = '1e-5' is a str; expected a number"]),
    "eos": ({"eos_token_id": "x"}, ["eos_token_id = 'x' is a str; expected an integer or a list of them"]),
    "layers": ({"layer_types": ["hybrid"]}, ["layer_types: 1 entries for 40 layers"]),
    "kind": ({"layer_types": ["hybrid"] * 39 + ["mamba"]}, ["layer_types: 'mamba' is none of hybrid, hybrid_sliding"]),
    "window": ({"layer_types": ["hybrid_sliding"] * 40}, [
        "sliding_window: missing, though layer_types has hybrid_sliding"]),
    "no rope": ({"rope_parameters": {"hybrid_sliding": ROPE["hybrid"]}}, [
        "rope_parameters: no entry hybrid, though layer_types has it"]),
    "yarn": ({"rope_parameters": {"hybrid": ROPE["hybrid"] | {"rope_type": "yarn", "factor": 4.0}}}, [
        "rope_parameters.hybrid.factor: unknown key",
        "rope_parameters.hybrid.rope_type = 'yarn': only the plain rotary embedding is computed"]),
    "no base": ({"rope_parameters": {"hybrid": {"rope_type": "default", "partial_rotary_factor": 0.5}}}, [
        "rope_parameters.hybrid.rope_theta: missing; expected a number"]),
    "flat rope": ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, [
        "rope_parameters: no entry hybrid, though layer_types has it"]),
    "rope": ({"rope_parameters": 3}, ["rope_parameters = 3: expected one entry per kind of layer"]),
    "images": ({"model_type": "zaya1_vl"}, [
        "model_type = 'zaya1_vl': it takes images; only the text models are read"]),
    "other": ({"model_type": "llama"}, ["model_type = 'llama': not a ZAYA1 model"]),
}  # fmt: skip

ON = "every model we compute has it on"
LEGACY_REFUSED = {
    "unknown": ({"zaya_use_edaa": True}, ["zaya_use_edaa: unknown key; did you mean zaya_use_eda?"]),
    "clamp": ({"clamp_temp": True}, ["clamp_temp = True: a clamped temperature is not computed"]),
    "switches": ({"cca": False, "zaya_use_eda": False, "zaya_use_mod": False, "scale_residual_merge": False}, [
        f"cca = False: {ON}", f"zaya_use_eda = False: {ON}", f"zaya_use_mod = False: {ON}",
        f"scale_residual_merge = False: {ON}"]),
    "biases": ({"add_bias_linear": True}, ["add_bias_linear = True: linear layers have no bias here"]),
    "top-k": ({"moe_router_topk": 2}, ["moe_router_topk = 2: only one expert per token is defined for this layout"]),
    "activation": ({"activation_func": "gelu"}, ["activation_func = 'gelu': only swiglu is computed"]),
    "norm": ({"normalization": "LayerNorm"}, ["normalization = 'LayerNorm': only RMSNorm is computed"]),
    "rope": ({"rope_scaling": {"type": "yarn"}}, [
        "rope_scaling = {'type': 'yarn'}: only the plain rotary embedding is computed"]),
    "fraction": ({"partial_rotary_factor": 1.0}, [
        "partial_rotary_factor = 1.0: readers of this layout disagree on other values"]),
    "odd": ({"num_hidden_layers": 81}, [
        "num_hidden_layers = 81: expected an even count, attention and experts in turn"]),
    "odd width": ({"ffn_hidden_size": 4095}, ["ffn_hidden_size = 4095: expected twice the width of an expert"]),
    "even experts": ({"zaya_layers": [16, "a"] * 40}, [
        'zaya_layers: expected "a" in every even place, experts on even layers are not computed',
        "zaya_layers: expected one number of experts in every odd place: ['a']"]),
    "two counts": ({"zaya_layers": ["a", 16, "a", 8]}, [
        "zaya_layers: expected one number of experts in every odd place: ['16', '8']"]),
    "two widths": ({"ffn_hidden_size_list": [0, 8, 0, 16] * 20}, [
        "ffn_hidden_size_list: expected 80 entries, and one value where it is not 0"]),
    "windows": ({"zaya_layers": ["a", 16] * 40, "swa_layers": [4096, 0]}, [
        "swa_layers: expected 80 windows of 0 or more tokens, one for each layer"]),
    "kinds": ({"layer_types": ["full_attention"] * 3}, [
        "layer_types: expected full_attention or sliding_attention, one for each layer"]),
    "no window": ({"layer_types": ["sliding_attention"] * 40}, [
        "sliding_window: missing, though layer_types has sliding_attention"]),
    "no experts": ({"num_experts": None}, ["num_experts: missing; expected an integer"]),
    "lists of lists": ({"zaya_mlp_expansion": [[1], [2]] * 40}, [
        "zaya_mlp_expansion: expected 80 entries, and one value where it is not 0"]),
}  # fmt: skip


@pytest.mark.parametrize(("change", "lines"), NATIVE_REFUSED.values(), ids=NATIVE_REFUSED.keys())
def test_native_refusals(change: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        native.config_from_json(NATIVE_8B | change)
    assert error.value.message == "\n  ".join(["config.json cannot be read faithfully:", *lines])
    assert error.value.hint == "compare it with the file of the published model"


@pytest.mark.parametrize(("change", "lines"), LEGACY_REFUSED.values(), ids=LEGACY_REFUSED.keys())
def test_legacy_refusals(change: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        legacy.config_from_json(LEGACY_8B | change)
    assert error.value.message == "\n  ".join(["config.json cannot be read faithfully:", *lines])


def test_harmless_keys_are_accepted() -> None:
    harmless = {"attention_dropout": 0.1, "torch_dtype": "bfloat16", "id2label": {"0": "LABEL_0"}, "return_dict": True}
    assert native.config_from_json(NATIVE_8B | harmless) == ModelConfig()
    assert legacy.config_from_json(
        LEGACY_8B | harmless | {"residual_in_fp32": False, "zaya_high_prec": False, "fused_add_norm": True}
    ) == ModelConfig(skip_output="identity")


def test_configurations_and_headers_are_read_without_torch() -> None:
    code = (
        "import sys; import zaya.model.layouts.checkpoint, zaya.model.layouts.native, zaya.model.layouts.legacy\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("field", ["norm_eps", "rope_theta", "rope_fraction", "sliding_rope_theta"])
def test_impossible_numbers_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field} must be a finite number of at least"):
        ModelConfig(**{field: value})


def test_the_layer_count_of_legacy_files() -> None:
    """zaya_layers overrules num_hidden_layers, a list of windows does not: an odd count stays an error."""
    with pytest.raises(ConfigError, match="num_hidden_layers = 7: expected an even count"):
        legacy.config_from_json(LEGACY_8B | {"num_hidden_layers": 7, "swa_layers": [0] * 80})
