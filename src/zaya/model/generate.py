"""Text from a model, one sequence at a time: the plain way, which faster ones are measured against."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch

from zaya.errors import UsageError
from zaya.model.cache import DenseCache
from zaya.model.transformer import Want, ZayaModel
from zaya.ops.sampling import draw, probabilities

PREFILL_CHUNK = 1024
"""Prompt tokens per pass; bounds the memory of activations."""


def generate(
    model: ZayaModel,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    stop_ids: Collection[int] | None = None,
    never: Sequence[int] = (),
) -> Iterator[int]:
    """Yield new ids as they are drawn, up to `max_tokens`, a stop id included.

    stop_ids: by default the ids that the config names. never: ids that are not drawn, such as the model's padding rows
    (`Tokenizer.never_sampled`). The same seed gives the same ids.
    """
    if not prompt or min(prompt) < 0 or max(prompt) >= model.config.vocab_size:
        raise UsageError(f"a prompt is at least one id below {model.config.vocab_size}: {list(prompt)[:8]}")
    if len(prompt) + max_tokens > model.config.max_positions:
        raise UsageError(
            f"{len(prompt)} prompt tokens and {max_tokens} new ones exceed the context of "
            f"{model.config.max_positions} tokens"
        )
    stops = {model.config.eos_id, *model.config.more_eos_ids} if stop_ids is None else set(stop_ids)
    barred = torch.tensor(list(never), device=model.device) if len(never) else None
    cache = DenseCache(model.config, device=model.device)
    pending = list(prompt)
    for count in range(max_tokens):
        with torch.inference_mode():
            logits = _last_logits(model, cache, pending)
            probs = probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p, never=barred)
            token = draw(probs, seed, len(prompt) + count)
        yield token
        if token in stops:
            return
        pending = [token]


def _last_logits(model: ZayaModel, cache: DenseCache, ids: list[int]) -> torch.Tensor:
    *before, last = torch.tensor(ids, device=model.device).split(PREFILL_CHUNK)
    for chunk in before:
        model(chunk[None], cache=cache, want=Want(logits=None))
    logits = model(last[None], cache=cache, want=Want(logits="last")).logits
    assert logits is not None
    return logits[0]
