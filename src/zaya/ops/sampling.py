"""From logits to a token: temperature, top-k, top-p, one draw.

The draw is a function of (seed, position) alone, so that a text can be resumed, batched or replayed and stay the same.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zaya.core.rng import derive_seed
from zaya.errors import UsageError


def probabilities(
    logits: Float[Tensor, " vocab"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    never: Int[Tensor, " ids"] | None = None,
) -> Float[Tensor, " vocab"]:
    """The distribution that is sampled from, float32.

    `never` are ids that get probability 0, such as rows of the model that have no token. Temperature comes first, then
    the k largest, then the smallest set of largest probabilities that reaches `top_p`.
    Temperature 0 puts everything on the largest logit, the first of equals.
    """
    if not 0 <= temperature < math.inf or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
        raise UsageError(
            f"a finite temperature >= 0, 0 < top_p <= 1 and top_k >= 1 are possible: {temperature}, {top_p}, {top_k}"
        )
    logits = logits.float()
    if logits.isnan().any():
        raise UsageError("the model's logits are not numbers", hint="its weights are damaged, or were trained to be so")
    if never is not None:
        logits = logits.index_fill(0, never, -torch.inf)
        if logits.isneginf().all():
            raise UsageError("every id is barred from being drawn")
    if temperature == 0:
        return torch.zeros_like(logits).index_fill_(0, logits.argmax(), 1.0)
    probs = ((logits - logits.max()) / temperature).softmax(-1)  # the largest at 0: no overflow near temperature 0
    if top_k is None and top_p == 1:
        return probs
    ordered, index = probs.sort(descending=True, stable=True)
    if top_k is not None:
        ordered[top_k:] = 0
        ordered /= ordered.sum()
    before = ordered.cumsum(0) - ordered
    ordered[before >= top_p] = 0
    ordered /= ordered.sum()
    return torch.zeros_like(probs).index_copy_(0, index, ordered)


def draw(probs: Float[Tensor, " vocab"], seed: int, position: int) -> int:
    """One id, by the point that (seed, position) names on the cumulative distribution."""
    point = derive_seed(seed, "sample", position) / 2**63
    cumulative = probs.double().cumsum(0)
    index = int(torch.searchsorted(cumulative, cumulative[-1] * point, right=True))
    # the point rounds to 1 once in 2^54 draws; what lies at the end may have no probability
    return min(index, int(probs.nonzero()[-1]))
