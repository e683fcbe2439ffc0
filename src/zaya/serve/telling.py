"""What answers have in common: how a token is spelled, log-probabilities, usage, ids of answers.

Log-probabilities are those of the model's own distribution, at temperature 1 and before any setting, of every token
that was drawn: reasoning, tags and the token that ends the turn included (`zaya.engine.types.Completion.logprobs`).
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from zaya import __version__
from zaya.engine.types import Completion, Delta, FinishReason
from zaya.text import Tokenizer

_LEAST = -9999.0
"""Stands for the logarithm of 0, which JSON does not have; vLLM writes the same number."""

Tops = tuple[np.ndarray | None, np.ndarray | None]
"""The likeliest ids at each place and their log-probabilities, [len(ids), count]; None where none were asked for."""


def new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


def chat_head(model: str, kind: str) -> dict[str, Any]:
    """What every answer to a chat begins with, and every chunk of one."""
    return {
        "id": new_id("chatcmpl-"),
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": f"zaya-{__version__}",
    }


def spelled(tokenizer: Tokenizer, id: int) -> str:
    """A token as text. Half a character has none, so its bytes are written out, as OpenAI did."""
    data = tokenizer.token_bytes(id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def finite(logprob: float) -> float:
    return float(logprob) if math.isfinite(logprob) else _LEAST


def chat_logprobs(tokenizer: Tokenizer, ids: Sequence[int], logprobs: np.ndarray | None, tops: Tops) -> dict[str, Any]:
    """OpenAI's form for chats: an entry for each token."""
    return {
        "content": [
            {
                **_entry(tokenizer, id, logprob),
                "top_logprobs": [_entry(tokenizer, *top) for top in _pairs(tops, i)],
            }
            for i, (id, logprob) in enumerate(zip(ids, _numbers(logprobs, len(ids)), strict=True))
        ]
    }


def _entry(tokenizer: Tokenizer, id: int, logprob: float) -> dict[str, Any]:
    data = tokenizer.token_bytes(id)
    return {"token": data.decode("utf-8", "replace"), "logprob": finite(logprob), "bytes": list(data)}


def completion_logprobs(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    logprobs: Sequence[float | None] | np.ndarray | None,
    tops: Tops,
    *,
    count: int,
    offset: int,
    first_top: int = 0,
) -> dict[str, Any]:
    """The form for raw completions: a list for each property.

    `offset` is where the first token begins in the text. The first `first_top` ids have no likeliest ones beside them.
    The token itself is among the likeliest even where it is not one of them, unless none were asked for.
    """
    tokens = [spelled(tokenizer, id) for id in ids]
    numbers = [None if value is None else finite(value) for value in _numbers(logprobs, len(ids))]
    likeliest: list[dict[str, float] | None] = []
    offsets = []
    for i, (token, number) in enumerate(zip(tokens, numbers, strict=True)):
        offsets.append(offset)
        offset += len(token)
        if i < first_top or number is None:
            likeliest.append(None)
            continue
        found = {spelled(tokenizer, id): finite(logprob) for id, logprob in _pairs(tops, i - first_top)}
        likeliest.append({**found, token: number} if count else {})
    return {"tokens": tokens, "token_logprobs": numbers, "top_logprobs": likeliest, "text_offset": offsets}


def _numbers(values: Iterable[Any] | None, count: int) -> list[Any]:
    return [None] * count if values is None else [None if value is None else float(value) for value in values]


def _pairs(tops: Tops, at: int) -> list[tuple[int, float]]:
    ids, logprobs = tops
    if ids is None or logprobs is None:
        return []
    return list(zip(ids[at].tolist(), logprobs[at].tolist(), strict=True))


def usage(prompt: int, generated: int, reasoning: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def usage_of(results: Sequence[Sequence[Completion]]) -> dict[str, Any]:
    """Of the completions of each prompt. A prompt counts once, whatever is drawn behind it."""
    every = [completion for completions in results for completion in completions]
    return usage(
        sum(completions[0].prompt_tokens for completions in results if completions),
        sum(completion.generated_tokens for completion in every),
        sum(len(completion.reasoning_ids) for completion in every),
        # the first to read a prompt found less of it than those that share it
        sum(min(completion.cached_tokens for completion in completions) for completions in results if completions),
    )


def stop_reason(ended: Completion | Delta, turn_ends: Collection[int]) -> int | str | None:
    """The stop string or the further stop id that ended it; None for the end of a turn, as vLLM has it."""
    is_told = ended.finish_reason is FinishReason.STOP and ended.stop_reason not in turn_ends
    return ended.stop_reason if is_told else None
