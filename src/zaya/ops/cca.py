"""The parts of compressed convolutional attention that are not attention (spec checkpoint-and-model 5.2 to 5.5).

Everything here looks at most a few tokens back. What lies before the first new token of a segment comes in as its
left context: zeros at the start of a text, cached columns when it continues, a neighbour's columns when a sequence
is cut over several devices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zaya.ops.path import use_reference
from zaya.ops.segments import Segments


def causal_mix(
    u: Float[Tensor, "tokens channels"],
    left: Float[Tensor, "segments context channels"],
    segments: Segments,
    depthwise_weight: Float[Tensor, "channels 1 time0"],
    depthwise_bias: Float[Tensor, " channels"],
    grouped_weight: Float[Tensor, "channels head_dim time1"],
    grouped_bias: Float[Tensor, " channels"],
) -> Float[Tensor, "tokens channels"]:
    """Two causal convolutions over queries and keys, the second within each head. Nothing lies between them.

    `left` holds the `time0 + time1 - 2` columns of u before each segment. Its zeros stand before the *first*
    convolution: at the start of a text the second one sees the bias of the first, not zero (trap 1).
    Tap 0 is the oldest token. The first convolution runs in float32; the second is a matrix product in u's dtype,
    returned in float32.
    """
    if use_reference():
        return causal_mix_reference(u, left, segments, depthwise_weight, depthwise_bias, grouped_weight, grouped_bias)
    time0, time1 = depthwise_weight.shape[-1], grouped_weight.shape[-1]
    head_dim = grouped_weight.shape[1]
    context = left.shape[1]
    # Rows of columns: each segment's context, then its tokens. Segments of one length are a row each; others share one,
    # where windows that straddle two of them are computed and dropped.
    stream = _with_left_context(u, left, segments).float()
    length = stream.shape[1] - time0 + 1
    taps = depthwise_weight.float().squeeze(1)
    delta = depthwise_bias.float().expand(stream.shape[0], length, -1)
    for tap in range(time0):
        delta = delta + taps[:, tap] * stream[:, tap : tap + length]

    heads = delta.to(u.dtype).unflatten(-1, (-1, head_dim)).movedim(2, 0)  # (heads, rows, length, head_dim)
    length -= time1 - 1
    windows = torch.cat([heads[:, :, tap : tap + length] for tap in range(time1)], dim=-1).flatten(1, 2)
    kernel = grouped_weight.unflatten(0, (-1, head_dim)).permute(0, 3, 2, 1).flatten(1, 2)
    mixed = torch.bmm(windows, kernel).transpose(0, 1).flatten(1)  # (rows * length, channels)
    if not segments.is_uniform:  # token t of segment s starts its window at t + s * context
        mixed = mixed[torch.arange(segments.total, device=u.device) + segments.index * context]
    return mixed.float() + grouped_bias.float()


def causal_mix_reference(
    u: Float[Tensor, "tokens channels"],
    left: Float[Tensor, "segments context channels"],
    segments: Segments,
    depthwise_weight: Float[Tensor, "channels 1 time0"],
    depthwise_bias: Float[Tensor, " channels"],
    grouped_weight: Float[Tensor, "channels head_dim time1"],
    grouped_bias: Float[Tensor, " channels"],
) -> Float[Tensor, "tokens channels"]:
    """As `causal_mix`, one segment at a time with torch's own convolutions."""
    out = []
    for tokens, before in zip(u.split(segments.lengths), left, strict=True):
        columns = torch.cat([before.to(u.dtype), tokens]).T
        delta = F.conv1d(columns, depthwise_weight, depthwise_bias, groups=columns.shape[0])
        groups = columns.shape[0] // grouped_weight.shape[1]
        out.append(F.conv1d(delta, grouped_weight, grouped_bias, groups=groups).T)
    return torch.cat(out).float()


def _with_left_context(
    u: Float[Tensor, "tokens channels"], left: Float[Tensor, "segments context channels"], segments: Segments
) -> Float[Tensor, "rows length channels"]:
    left = left.to(u.dtype)
    if segments.is_uniform:
        return torch.cat([left, u.unflatten(0, (segments.count, -1))], dim=1)
    pieces = [x for before, tokens in zip(left, u.split(segments.lengths), strict=True) for x in (before, tokens)]
    return torch.cat(pieces)[None]


def qk_mean(
    q: Float[Tensor, "tokens heads head_dim"], k: Float[Tensor, "tokens kv_heads head_dim"]
) -> tuple[Float[Tensor, "tokens heads head_dim"], Float[Tensor, "tokens kv_heads head_dim"]]:
    """Each query head with its key head, averaged; and for each key head the mean of its query heads' averages."""
    group = q.shape[1] // k.shape[1]
    mean_q = (q + k.repeat_interleave(group, dim=1)) * 0.5
    return mean_q, mean_q.unflatten(1, (-1, group)).mean(2)


def l2_norm(x: Float[Tensor, "tokens heads head_dim"]) -> Float[Tensor, "tokens heads head_dim"]:
    """Each head scaled to length sqrt(head_dim), in float32. A vanishing head stays finite."""
    x = x.float()
    length = x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).eps)
    return x * (x.shape[-1] ** 0.5 / length)


def shift_values(
    delayed: Float[Tensor, "tokens half"], left: Float[Tensor, "segments half"], segments: Segments
) -> Float[Tensor, "tokens half"]:
    """Each token gets the previous token's row; the first of a segment gets its left context."""
    shifted = delayed.roll(1, dims=0)
    return shifted.index_copy(0, segments.starts, left.to(delayed.dtype))
