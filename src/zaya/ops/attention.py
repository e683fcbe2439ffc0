"""Causal attention of a block of queries over everything up to and including them.

`causal_attention` is the fast path over torch's fused kernel, `causal_attention_reference` the plain one; one test
runs both. Both take keys that start before the queries, so one function serves a whole prompt, a chunk that
continues one, and a single new token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zaya.ops.path import use_reference

QUERY_BLOCK = 512
"""Queries per kernel call where a mask has to be written out; bounds its size at any context length."""


def causal_attention_reference(
    q: Float[Tensor, "batch queries heads head_dim"],
    k: Float[Tensor, "batch keys kv_heads head_dim"],
    v: Float[Tensor, "batch keys kv_heads head_dim"],
    window: int | None = None,
) -> Float[Tensor, "batch queries heads head_dim"]:
    """Softmax attention, written out. The queries are the last of the keys; `window` counts the token itself.

    Query head h reads key head h // (heads / kv_heads). The softmax is taken in float32 (spec 5.6).
    """
    group = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k).float() / q.shape[-1] ** 0.5
    mask = _visible(0, q.shape[1], 0, k.shape[1], k.shape[1] - q.shape[1], window, q.device)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).to(v.dtype)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)


def causal_attention(
    q: Float[Tensor, "batch queries heads head_dim"],
    k: Float[Tensor, "batch keys kv_heads head_dim"],
    v: Float[Tensor, "batch keys kv_heads head_dim"],
    window: int | None = None,
) -> Float[Tensor, "batch queries heads head_dim"]:
    """As the reference, through torch's fused kernel; memory linear in the number of keys."""
    if use_reference():
        return causal_attention_reference(q, k, v, window)
    queries, keys = q.shape[1], k.shape[1]
    if window is not None and window >= keys:
        window = None
    if queries == 1:
        first = 0 if window is None else keys - window
        return _one_query(q, k[:, first:], v[:, first:])
    if queries == keys and window is None:
        return _fused(q, k, v, is_causal=True)
    past = keys - queries
    blocks = []
    for start in range(0, queries, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, queries)
        first = 0 if window is None else max(0, past + start - window + 1)
        last = past + stop
        mask = _visible(start, stop, first, last, past, window, q.device)
        blocks.append(_fused(q[:, start:stop], k[:, first:last], v[:, first:last], mask=mask))
    return torch.cat(blocks, dim=1)


def _visible(
    start: int, stop: int, first: int, last: int, past: int, window: int | None, device: torch.device
) -> Bool[Tensor, "queries keys"]:
    """Which of the keys first..last the queries start..stop see, when `past` keys come before query 0."""
    query = torch.arange(past + start, past + stop, device=device)[:, None]
    key = torch.arange(first, last, device=device)[None, :]
    visible = key <= query
    return visible if window is None else visible & (key > query - window)


def _one_query(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The query heads of one key head become that head's queries: its keys are read once, not once for each."""
    folded = q.squeeze(1).unflatten(1, (k.shape[2], -1))  # (batch, kv_heads, group, head_dim)
    out = F.scaled_dot_product_attention(folded, k.transpose(1, 2), v.transpose(1, 2))
    return out.flatten(1, 2).unsqueeze(1)


def _fused(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out.transpose(1, 2)
