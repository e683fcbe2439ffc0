"""The past of many sequences in slots of one padded storage: what continuous batching decodes from.

`DenseCache` keeps each sequence in tensors of its own and visits them one by one. Here a sequence is a row of tensors
that all share, so one token for each of hundreds costs as many operations as one for a single sequence. The price is
padding: every slot has room for the longest. Driven by engine.batch, without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from zaya.model.config import ModelConfig
from zaya.ops.attention import causal_attention
from zaya.ops.path import use_reference
from zaya.ops.segments import Segments

STEP = 64
"""Room for tokens comes in multiples of this."""


class SlotCache:
    """Keys, values and CCA state of `slots` sequences, empty at first.

    Room for tokens grows by half when a sequence needs more, and never beyond `limit` tokens. Keys and values keep
    the model's dtype, the CCA state is float32 (report IV-D).
    """

    def __init__(
        self,
        config: ModelConfig,
        slots: int,
        *,
        limit: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.limit = limit
        self.device = torch.device(device)
        # (slots, kv_heads, capacity, head_dim): what one head reads lies together
        shape = (slots, config.num_kv_heads, 0, config.head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_layers)]
        layers = (config.num_layers, slots)
        self.columns: Float[Tensor, "layers slots context channels"] = torch.zeros(
            *layers, config.conv_context, config.conv_channels, device=device
        )
        self.delayed: Float[Tensor, "layers slots half"] = torch.zeros(*layers, config.key_size // 2, device=device)
        self.lengths: Int[Tensor, " slots"] = torch.zeros(slots, dtype=torch.long, device=device)

    @property
    def capacity(self) -> int:
        """Tokens that every slot has room for."""
        return self.keys[0].shape[2]

    def select(self, slots: Sequence[int]) -> SlotPass:
        """The context of a forward pass in which segment i continues the sequence in slots[i]."""
        return SlotPass(self, slots)

    def clear(self, slots: Sequence[int]) -> None:
        """Forget the sequences in these slots."""
        index = torch.tensor(slots, device=self.device)
        self.lengths[index] = 0
        self.columns[:, index] = 0
        self.delayed[:, index] = 0

    def fork(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy the sequence of each source slot into the target slot beside it; what was there is gone.

        All sources are read before a target is written. One source may go to many targets.
        """
        assert len(sources) == len(targets) == len(set(targets))
        if not len(targets):
            return
        source = torch.tensor(sources, device=self.device)
        target = torch.tensor(targets, device=self.device)
        held = int(self.lengths[source].max())
        for rows in (*self.keys, *self.values):
            rows[target, :, :held] = rows[source, :, :held]
        self.columns[:, target] = self.columns[:, source]
        self.delayed[:, target] = self.delayed[:, source]
        self.lengths[target] = self.lengths[source]

    def reserve(self, tokens: int) -> None:
        """Have room for this many tokens in every slot."""
        if tokens <= self.capacity:
            return
        assert tokens <= self.limit, f"{tokens} tokens, where no sequence was to have more than {self.limit}"
        wanted = max(tokens, self.capacity + self.capacity // 2)
        more = min(self.limit, -(-wanted // STEP) * STEP) - self.capacity
        for rows in (self.keys, self.values):
            for layer, held in enumerate(rows):
                # Zeros, not whatever memory holds: a weight of 0 times a NaN would still be one.
                rows[layer] = F.pad(held, (0, 0, 0, more))


class SlotPass:
    """Passes over some of the slots (`zaya.model.cache.Context`). What a pass hands in counts from its `end`."""

    def __init__(self, cache: SlotCache, slots: Sequence[int]) -> None:
        self._cache = cache
        slots = list(slots)
        self._slots: Int[Tensor, " segments"] = torch.tensor(slots, device=cache.device)
        first, stop = slots[0], slots[0] + len(slots)
        # neighbours are read where they lie, others are gathered
        self._rows = slice(first, stop) if slots == list(range(first, stop)) else self._slots

    def begin(self, segments: Segments) -> Tensor:
        cache, context = self._cache, self._cache.config.conv_context
        assert segments.count == len(self._slots), f"{segments.count} segments for {len(self._slots)} slots"
        self._columns: list[Tensor] = []
        self._delayed: list[Tensor] = []
        self._masks: dict[int | None, Tensor | None] = {}
        self._segments = segments
        self._has_one_each = segments.total == segments.count and not use_reference()
        starts = cache.lengths[self._slots]
        self._new = torch.tensor(segments.lengths, device=cache.device)
        self._lengths = starts + self._new
        self._longest = int(self._lengths.max())
        self._shortest = int(self._lengths.min())
        # whole texts of similar length, which one padded call serves
        total = segments.count * self._longest
        self._is_fresh = not starts.any() and total <= 2 * segments.total and not use_reference()
        cache.reserve(self._longest)
        self._token_slot = self._slots[segments.index]
        self._token_position = segments.offsets + starts[segments.index]
        # The last columns of each segment, as places in a row of all left contexts, then all new tokens. A segment
        # shorter than the context keeps some of the columns before it.
        self._ends = segments.starts + self._new - 1
        back = torch.arange(context, device=cache.device) - context  # -context .. -1, the newest last
        before = torch.arange(1, segments.count + 1, device=cache.device)[:, None] * context
        place = self._new[:, None] + back
        new_tokens = segments.count * context + segments.starts[:, None] + place
        self._kept = torch.where(place < 0, before + place, new_tokens)
        return starts

    def left_context(self, layer: int, u: Tensor, v_delayed: Tensor) -> tuple[Tensor, Tensor]:
        columns, delayed = self._cache.columns[layer, self._rows], self._cache.delayed[layer, self._rows]
        self._columns.append(torch.cat([columns.flatten(0, 1), u.float()])[self._kept])
        self._delayed.append(v_delayed[self._ends].float())
        return columns, delayed

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys[self._token_slot, :, self._token_position] = k
        values[self._token_slot, :, self._token_position] = v
        if self._has_one_each:
            held = (x[self._rows, :, : self._longest] for x in (keys, values))
            # the query heads of one key head become that head's queries: its keys are read once
            folded = q.unflatten(1, (k.shape[1], -1))
            return F.scaled_dot_product_attention(folded, *held, attn_mask=self._mask(window, q.dtype)).flatten(1, 2)
        if self._is_fresh:
            # Padding behind the shorter ones: causality hides it from the tokens before.
            held = (x[self._rows, :, : self._longest].transpose(1, 2) for x in (keys, values))
            index = self._segments.index, self._segments.offsets
            padded = q.new_zeros(self._segments.count, self._longest, *q.shape[1:]).index_put_(index, q)
            return causal_attention(padded, *held, window=window)[index]
        out = []
        parts = zip(q.split(self._segments.lengths), self._slots.tolist(), self._lengths.tolist(), strict=True)
        for part, slot, length in parts:
            held = (x[slot, :, :length].transpose(0, 1)[None] for x in (keys, values))
            out.append(causal_attention(part[None], *held, window=window)[0])
        return torch.cat(out)

    def end(self) -> None:
        cache = self._cache
        cache.columns[:, self._rows] = torch.stack(self._columns)
        cache.delayed[:, self._rows] = torch.stack(self._delayed)
        cache.lengths[self._slots] = self._lengths

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """What is added to the scores of one new token each: 0 where it sees, -inf where it does not."""
        if window is not None and window >= self._longest:
            window = None
        if window not in self._masks:
            position = torch.arange(self._longest, device=self._cache.device)
            hidden = position >= self._lengths[:, None]
            if window is not None:
                hidden |= position < self._lengths[:, None] - window
            is_needed = window is not None or self._shortest < self._longest
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, -torch.inf)
            self._masks[window] = mask[:, None, None] if is_needed else None
        return self._masks[window]
