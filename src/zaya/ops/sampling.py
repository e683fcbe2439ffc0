"""From logits to a token: temperature, top-k, top-p, one draw.

The draw is a function of (seed, position) alone, so that a text can be resumed, batched or replayed and stay the same.
`batch_probabilities` and `batch_draw` do for many rows at once what `probabilities` and `draw` do for one; `point` says
where a row is drawn.
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


def point(seed: int, index: int, position: int) -> float:
    """Where on the cumulative distribution the token at a position of completion `index` is drawn: 0 up to 1."""
    return derive_seed(seed, "completion", index, position) / 2**63


def batch_probabilities(
    logits: Float[Tensor, "rows vocab"],
    temperature: Float[Tensor, " rows"],
    top_k: Int[Tensor, " rows"] | None = None,
    top_p: Float[Tensor, " rows"] | None = None,
) -> Float[Tensor, "rows vocab"]:
    """`probabilities` of every row under settings of its own. Ids that are barred have logits of -inf.

    A row that keeps everything has a top_k of the vocabulary's size and a top_p of 1; None says that all do. Only rows
    that cut are sorted.
    """
    is_greedy = temperature == 0
    top, likeliest = logits.max(-1, keepdim=True)
    if not top.isfinite().all():
        raise UsageError("the model's logits are not numbers", hint="its weights are damaged, or were trained to be so")
    probs = ((logits.float() - top) / temperature.masked_fill(is_greedy, 1.0)[:, None]).softmax(-1)
    if is_greedy.any():
        greedy = torch.zeros_like(probs).scatter_(1, likeliest, 1.0)
        probs = torch.where(is_greedy[:, None], greedy, probs)
    if top_k is None and top_p is None:
        return probs
    size = probs.shape[1]
    top_k = torch.full_like(likeliest, size).squeeze(1) if top_k is None else top_k
    top_p = torch.ones_like(temperature) if top_p is None else top_p
    cut = ((top_k < size) | (top_p < 1)).nonzero().squeeze(1)
    ordered, index = probs[cut].sort(dim=-1, descending=True, stable=True)
    ordered.masked_fill_(torch.arange(size, device=probs.device) >= top_k[cut, None], 0)
    ordered /= ordered.sum(-1, keepdim=True)
    before = ordered.cumsum(-1) - ordered
    # a top_p of 1 cuts nothing, also where the sum reaches 1 by rounding
    ordered.masked_fill_((before >= top_p[cut, None]) & (top_p[cut, None] < 1), 0)
    ordered /= ordered.sum(-1, keepdim=True)
    probs[cut] = torch.zeros_like(ordered).scatter_(1, index, ordered)
    return probs


def batch_draw(probs: Float[Tensor, "rows vocab"], points: Float[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """One id per row, by a point of each on its cumulative distribution. Never an id of probability 0."""
    cumulative = probs.double().cumsum(-1)
    total = cumulative[:, -1:]
    # Strictly below the end, also for a point that rounds to 1: the id that is found is the first whose sum lies
    # above, so its own probability is not 0.
    target = torch.minimum(points.double()[:, None] * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).squeeze(1)
