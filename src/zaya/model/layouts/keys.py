"""The keys of one published config.json, taken one by one. Imports no torch.

Every key is either taken, known to change nothing we compute, or wrong. What is wrong is collected and raised at once:
a key nobody knows may be a feature nobody computes, so it is never dropped in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from zaya.errors import ConfigError

# Written by transformers, of every release, beside what describes the model. None of it changes what is computed.
BOOKKEEPING = frozenset({
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "add_cross_attention",
    "architectures", "attention_dropout", "auto_map", "bad_words_ids", "begin_suppress_tokens",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label", "initializer_range", "is_decoder",
    "is_encoder_decoder", "label2id", "length_penalty", "max_length", "min_length", "model_type",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_router_logits", "output_scores", "prefix", "problem_type", "pruned_heads",
    "quantization_config", "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate",
    "sep_token_id", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss",
    "tie_encoder_decoder", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript",
    "transformers_version", "typical_p", "use_bfloat16", "use_cache",
})  # fmt: skip


class Keys:
    """A config.json while it is being read. Call `finish` at the end: it raises what was found wrong."""

    def __init__(self, raw: Mapping[str, object], known: frozenset[str]) -> None:
        self.raw = raw
        self.wrong: list[str] = []
        for key in raw:
            if key not in known and key not in BOOKKEEPING:
                near = difflib.get_close_matches(key, sorted(known), n=1)
                self.wrong.append(f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else ""))

    def integer(self, key: str, default: int | None = None) -> int:
        """A count. A missing key and null mean the default; without one the key must be there."""
        value = default if self.raw.get(key) is None else self.raw[key]
        if isinstance(value, bool) or not isinstance(value, int):
            self._mistyped(key, value, "an integer")
            return 2
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = default if self.raw.get(key) is None else self.raw[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._mistyped(key, value, "a number")
            return 1.0
        return float(value)

    def optional_integer(self, key: str) -> int | None:
        return None if self.raw.get(key) is None else self.integer(key)

    def items(self, key: str) -> list[object] | None:
        """A list, or None where the key is missing or null."""
        value = self.raw.get(key)
        if value is not None and not isinstance(value, list):
            self._mistyped(key, value, "a list")
            return None
        return value

    def require(self, key: str, allowed: tuple[object, ...], why: str) -> None:
        """Refuse any value but those allowed; a missing key has the first of them."""
        value = self.raw.get(key, allowed[0])
        # 0 and False are equal in Python and not in JSON, but no published file tells them apart
        if value not in allowed:
            self.wrong.append(f"{key} = {value!r}: {why}")

    def token_id(self, key: str, default: int) -> int:
        """A special token's id: the first where several are listed, the family's own where there is none."""
        value = self.raw.get(key)
        if value is None:
            return default
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int):
            self._mistyped(key, value, "an integer or a list of them")
            return default
        return value

    def more_token_ids(self, key: str) -> tuple[int, ...]:
        """The ids after the first, where several are listed."""
        value = self.raw.get(key)
        more = value[1:] if isinstance(value, list) else []
        if not all(isinstance(id, int) and not isinstance(id, bool) for id in more):
            self._mistyped(key, value, "an integer or a list of them")
            return ()
        return tuple(more)

    def model_type(self) -> None:
        kind = self.raw.get("model_type", "zaya")
        if kind != "zaya":
            why = "it takes images; only the text models are read" if kind == "zaya1_vl" else "not a ZAYA1 model"
            self.wrong.append(f"model_type = {kind!r}: {why}")

    def finish(self) -> None:
        if self.wrong:
            raise ConfigError(
                "config.json cannot be read faithfully:\n  " + "\n  ".join(dict.fromkeys(self.wrong)),
                hint="compare it with the file of the published model",
            )

    def _mistyped(self, key: str, value: object, expected: str) -> None:
        if value is None:
            self.wrong.append(f"{key}: missing; expected {expected}")
        else:
            self.wrong.append(f"{key} = {value!r} is a {type(value).__name__}; expected {expected}")
