"""From logits to a token: penalties, temperature, top-k, top-p, min-p, one draw.

The draw is a function of (seed, position) alone, so that a text can be resumed, batched or replayed and stay the same.
`batch_probabilities` and `batch_draw` do for many rows at once what `probabilities` and `draw` do for one; `point` says
where a row is drawn. Which settings a row has, and what comes of its token, is known to engine.sampler.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zaya.core.rng import Seeds, derive_seed
from zaya.errors import UsageError
from zaya.ops.cpu import kernels


def probabilities(
    logits: Float[Tensor, " vocab"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float = 0.0,
    never: Int[Tensor, " ids"] | None = None,
) -> Float[Tensor, " vocab"]:
    """The distribution that is sampled from, float32.

    `never` are ids that get probability 0, such as rows of the model that have no token. Temperature comes first, then
    the k largest, then the smallest set of largest probabilities that reaches `top_p`, then what has at least `min_p`
    of the largest.
    Temperature 0 puts everything on the largest logit, the first of equals.
    """
    if not 0 <= temperature < math.inf or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
        raise UsageError(
            f"a finite temperature >= 0, 0 < top_p <= 1 and top_k >= 1 are possible: {temperature}, {top_p}, {top_k}"
        )
    if not 0 <= min_p <= 1:
        raise UsageError(f"a min_p from 0 to 1 is possible: {min_p}")
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
    if top_k is None and top_p == 1 and min_p == 0:
        return probs
    ordered, index = probs.sort(descending=True, stable=True)
    if top_k is not None:
        ordered[top_k:] = 0
        ordered /= ordered.sum()
    before = ordered.cumsum(0) - ordered
    ordered[before >= top_p] = 0
    ordered[ordered < min_p * ordered[0]] = 0
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


def points(seed: int, index: int) -> Callable[[int], float]:
    """`point` of every position of one completion; what the positions have in common is hashed once."""
    seeds = Seeds(seed, "completion", index)
    return lambda position: seeds.derive(position) / 2**63


def penalize(
    logits: Float[Tensor, "rows vocab"],
    rows: Int[Tensor, " pairs"],
    ids: Int[Tensor, " pairs"],
    counts: Int[Tensor, " pairs"],
    repetition: Float[Tensor, " rows"],
    presence: Float[Tensor, " rows"],
    frequency: Float[Tensor, " rows"],
) -> None:
    """Lower, in place, the logits of ids that were there before.

    The pairs (rows, ids), each there once, are the ids that prompt and text of a row hold; `counts` is how often the
    text does. A logit is divided by `repetition` where positive and multiplied where not; then `presence` is taken from
    it if the text holds the id, and `frequency` as often as it does.
    """
    values = logits[rows, ids]
    factor = repetition[rows]
    values = torch.where(values > 0, values / factor, values * factor)
    values -= presence[rows] * (counts > 0) + frequency[rows] * counts
    logits[rows, ids] = values


def batch_probabilities(
    logits: Float[Tensor, "rows vocab"],
    temperature: Float[Tensor, " rows"] | None = None,
    top_k: Int[Tensor, " rows"] | None = None,
    top_p: Float[Tensor, " rows"] | None = None,
    min_p: Float[Tensor, " rows"] | None = None,
) -> Float[Tensor, "rows vocab"]:
    """`probabilities` of every row under settings of its own. Ids that are barred have logits of -inf.

    A row that keeps everything has a top_k of the vocabulary's size, a top_p of 1 and a min_p of 0; None says that all
    do, and of the temperature that it is 1 for all. Only rows that cut are sorted. A row whose largest logit is not a
    finite number gets NaN everywhere: one sequence that has gone wrong does not keep the others from their tokens.
    """
    top, likeliest = logits.max(-1, keepdim=True)
    shifted = logits.float() - top
    if temperature is None:
        probs = shifted.softmax(-1)
    else:
        is_greedy = temperature == 0
        probs = (shifted / temperature.masked_fill(is_greedy, 1.0)[:, None]).softmax(-1)
        if is_greedy.any():
            greedy = torch.zeros_like(probs).scatter_(1, likeliest, 1.0)
            probs = torch.where(is_greedy[:, None] & top.isfinite(), greedy, probs)
    if top_k is not None or top_p is not None:
        _cut_tail(probs, top_k, top_p)
    if min_p is not None:
        cut = (min_p > 0).nonzero().squeeze(1)
        kept = probs[cut]
        kept.masked_fill_(kept < min_p[cut, None] * kept.amax(-1, keepdim=True), 0)
        probs[cut] = kept / kept.sum(-1, keepdim=True)
    return probs


def _cut_tail(
    probs: Float[Tensor, "rows vocab"], top_k: Int[Tensor, " rows"] | None, top_p: Float[Tensor, " rows"] | None
) -> None:
    rows, size = probs.shape
    top_k = torch.full((rows,), size, device=probs.device) if top_k is None else top_k
    top_p = torch.ones(rows, device=probs.device) if top_p is None else top_p
    cut = ((top_k < size) | (top_p < 1)).nonzero().squeeze(1)
    ordered, index = probs[cut].sort(dim=-1, descending=True, stable=True)
    ordered.masked_fill_(torch.arange(size, device=probs.device) >= top_k[cut, None], 0)
    ordered /= ordered.sum(-1, keepdim=True)
    before = ordered.cumsum(-1) - ordered
    # a top_p of 1 cuts nothing, also where the sum reaches 1 by rounding
    ordered.masked_fill_((before >= top_p[cut, None]) & (top_p[cut, None] < 1), 0)
    ordered /= ordered.sum(-1, keepdim=True)
    probs[cut] = torch.zeros_like(ordered).scatter_(1, index, ordered)


def draw_rows(
    logits: Float[Tensor, "rows vocab"],
    points: Float[Tensor, " rows"],
    temperature: Float[Tensor, " rows"] | None = None,
    top_k: Int[Tensor, " rows"] | None = None,
    top_p: Float[Tensor, " rows"] | None = None,
    min_p: Float[Tensor, " rows"] | None = None,
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """An id for each row, and its log-probability in what was drawn from: `batch_probabilities` and `batch_draw`.

    NaN is the log-probability in a row whose largest logit is not a finite number.
    """
    library = kernels.library()
    if library is None or logits.device.type != "cpu":
        probs = batch_probabilities(logits, temperature, top_k, top_p, min_p)
        ids = batch_draw(probs, points)
        return ids, probs.gather(1, ids[:, None]).squeeze(1).log()
    rows, vocab = logits.shape
    ids, logprobs = torch.empty(rows, dtype=torch.long), torch.empty(rows)
    given = (
        logits.float().contiguous(),
        points.double(),
        None if temperature is None else temperature.float(),
        None if top_k is None else top_k.int(),
        None if top_p is None else top_p.float(),
        None if min_p is None else min_p.float(),
    )
    values, at, *settings = (None if x is None else x.data_ptr() for x in given)
    library.zaya_draw(
        kernels.Draws(values, rows, vocab, at, *settings, ids.data_ptr(), logprobs.data_ptr()), torch.get_num_threads()
    )
    return ids, logprobs


def log_sums(logits: Float[Tensor, "rows vocab"]) -> Float[Tensor, " rows"]:
    """log Σ exp of each row of float32: what takes a logit to the log-probability of its id."""
    library = kernels.library()
    if library is None or logits.device.type != "cpu":
        return logits.logsumexp(-1)
    logits, out = logits.contiguous(), torch.empty(logits.shape[0])
    library.zaya_log_sums(logits.data_ptr(), *logits.shape, out.data_ptr(), torch.get_num_threads())
    return out


def batch_draw(probs: Float[Tensor, "rows vocab"], points: Float[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """One id per row, by a point of each on its cumulative distribution. Never an id of probability 0.

    A row of NaN gets some id.
    """
    cumulative = probs.double().cumsum(-1)
    total = cumulative[:, -1:]
    # Strictly below the end, also for a point that rounds to 1: the id that is found is the first whose sum lies
    # above, so its own probability is not 0.
    target = torch.minimum(points.double()[:, None] * total, total.nextafter(torch.zeros_like(total)))
    ids = torch.searchsorted(cumulative, target, right=True).squeeze(1)
    return ids.clamp_(max=probs.shape[1] - 1)  # of NaN it may lie behind the end
