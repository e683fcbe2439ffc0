"""The memory of the engine: keys and values in pages, CCA state in rows, and a forward pass over some sequences.

`pages.PageTable` says which pages belong to whom; here they are read and written. One pass (`PagedPass`, a
`zaya.model.cache.Context`) may hold single tokens of hundreds of sequences, chunks of prompts, and drafts of which
only some will be accepted. Everything that depends on the pass alone is computed once for it, as index tensors; a
layer then takes a fixed number of operations, however many sequences decode.

The states that a pass leaves behind are all named in the same way, as (segment, tokens): the state of a segment after
so many of its new tokens. Its end is one, a snapshot at a boundary of the prefix cache is one, and so is every place
where a run of drafts may turn out to end.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8, Int32, Shaped
from torch import Tensor

from zaya.engine.pages import PageTable
from zaya.model.config import ModelConfig
from zaya.model.native import NativeModel, NativeOutput, Past
from zaya.ops.attention import causal_attention
from zaya.ops.path import use_reference
from zaya.ops.segments import Segments

KVDtype = Literal["model", "int8"]
"""How keys and values are kept: as the model computes them, or in a byte each."""

GATHER = 1 << 22
"""Numbers of keys that one gather of decoding sequences copies at most, unless a single sequence has more: bounds the
memory of a pass over long texts."""


class PagedCache:
    """Keys, values and CCA state of everything the engine remembers.

    Memory is zero at first and, on a CPU, not taken before it is written.
    """

    def __init__(
        self,
        config: ModelConfig,
        pages: PageTable,
        *,
        dtype: torch.dtype = torch.float32,
        kv_dtype: KVDtype = "model",
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.pages = pages
        self.dtype = dtype
        self.device = torch.device(device)
        c, count, rows = config, len(pages.refs), pages.slots + pages.snapshots
        # what one head reads of a page lies together
        shape = (c.num_layers, count, c.num_kv_heads, pages.page_size, c.head_dim)
        is_int8 = kv_dtype == "int8"
        self.keys: Shaped[Tensor, "layers pages kv_heads page_size head_dim"] = self._zeros(shape, is_int8)
        self.values: Shaped[Tensor, "layers pages kv_heads page_size head_dim"] = self._zeros(shape, is_int8)
        self.key_scales: Float[Tensor, "layers pages kv_heads page_size"] | None = None
        """With int8: what the bytes of a token and head are to be multiplied with."""
        self.value_scales: Float[Tensor, "layers pages kv_heads page_size"] | None = None
        if is_int8:
            self.key_scales, self.value_scales = (_zeros(shape[:-1], torch.float32, self.device) for _ in range(2))
        self.columns: Float[Tensor, "layers rows context channels"] = _zeros(
            (c.num_layers, rows, c.conv_context, c.conv_channels), torch.float32, self.device
        )
        """Slots, then snapshots; float32 as the report asks (IV-D)."""
        self.delayed: Float[Tensor, "layers rows half"] = _zeros(
            (c.num_layers, rows, c.key_size // 2), torch.float32, self.device
        )

    @cached_property
    def past(self) -> Past:
        """The same memory, as the compiled kernels read and write it."""
        return Past(
            page_size=self.pages.page_size,
            keys=self.keys.unbind(),
            values=self.values.unbind(),
            key_scales=None if self.key_scales is None else self.key_scales.unbind(),
            value_scales=None if self.value_scales is None else self.value_scales.unbind(),
            columns=self.columns,
            delayed=self.delayed,
        )

    def begin_pass(
        self,
        chunks: Sequence[tuple[int, int]],
        *,
        snapshots: Sequence[tuple[int, int, int]] = (),
        tentative: Sequence[int] = (),
    ) -> PagedPass:
        """The context of a pass in which segment i puts chunks[i] = (slot, new tokens) behind the sequence there.

        snapshots: (segment, tokens, row): the state after so many of the segment's new tokens is to be kept there.
        tentative: segments of which `PagedPass.accept` will say how many tokens count.
        """
        slots, new = [slot for slot, _ in chunks], [count for _, count in chunks]
        self.pages.reserve(slots, new)
        self._catch_up()
        return PagedPass(self, slots, new, snapshots, tentative)

    def _zeros(self, shape: tuple[int, ...], is_int8: bool) -> Tensor:
        return _zeros(shape, torch.int8 if is_int8 else self.dtype, self.device)

    def _catch_up(self) -> None:
        """Do to the memory what the page table has decided since the last pass."""
        pending = self.pages.take_pending()
        held = [self.keys, self.values, *(x for x in (self.key_scales, self.value_scales) if x is not None)]
        if pending.pages:
            target, source = self._index(list(pending.pages)), self._index(list(pending.pages.values()))
            for x in held:
                x[:, target] = x[:, source]
        if pending.fresh:
            fresh = self._index(sorted(pending.fresh))
            for x in held:
                x.index_fill_(1, fresh, 0)
        if pending.states:
            target, source = self._index(list(pending.states)), self._index(list(pending.states.values()))
            self.columns[:, target] = self.columns[:, source]
            self.delayed[:, target] = self.delayed[:, source]

    def _index(self, numbers: Sequence[int] | np.ndarray) -> Int[Tensor, "*numbers"]:
        return torch.as_tensor(np.asarray(numbers, dtype=np.int64), device=self.device)

    # ----- rows of pages

    def _store(
        self, layer: int, place: Int[Tensor, " rows"], k: Tensor, v: Tensor
    ) -> tuple[Float[Tensor, "tokens kv_heads head_dim"], Float[Tensor, "tokens kv_heads head_dim"]]:
        """Write the new keys and values; returned as they will be read, which for int8 is not as they came."""
        k = _write(self.keys[layer], None if self.key_scales is None else self.key_scales[layer], place, k)
        v = _write(self.values[layer], None if self.value_scales is None else self.value_scales[layer], place, v)
        return k, v

    def _gather(
        self, layer: int, group: _Group
    ) -> tuple[Float[Tensor, "rows kv_heads keys head_dim"], Float[Tensor, "rows kv_heads keys head_dim"]]:
        k = _read(self.keys[layer], None if self.key_scales is None else self.key_scales[layer], group, self.dtype)
        v = _read(
            self.values[layer], None if self.value_scales is None else self.value_scales[layer], group, self.dtype
        )
        return k, v


@dataclass(slots=True)
class _Group:
    """Segments of a pass whose attention is computed together."""

    tokens: Int[Tensor, " tokens"] | slice
    """Where their new tokens lie in the pass."""
    blocks: Int[Tensor, " blocks"]
    """Their pages, one for each KV head: page * kv_heads + head, padded with page 0."""
    rows: int
    longest: int
    shortest: int
    lengths: Int[Tensor, " rows"]
    """Tokens of each, the new ones included."""
    masks: dict[int | None, Tensor | None]
    """By window: what is added to the scores of one new token each; computed when a layer asks."""


class PagedPass:
    """One forward pass (`zaya.model.cache.Context`). What it brings counts from its `end`; of tentative segments it
    counts once `accept` has said how much.

    A `ZayaModel` is given it as its cache; `run` is the whole pass by the compiled kernels instead.
    """

    def __init__(
        self,
        cache: PagedCache,
        slots: Sequence[int],
        new: Sequence[int],
        snapshots: Sequence[tuple[int, int, int]],
        tentative: Sequence[int],
    ) -> None:
        pages, self.cache = cache.pages, cache
        self.slots = np.asarray(slots, dtype=np.int64)
        self.new = np.asarray(new, dtype=np.int64)
        self.starts = pages.lengths[self.slots]
        self.lengths = self.starts + self.new
        """Tokens of each segment's sequence, the new ones included."""
        self.table: np.ndarray = pages.table[self.slots, : pages.pages_for(int(self.lengths.max()))]
        """int32 (segments, pages): the pages of each, then zeros."""
        self._first = np.cumsum(self.new) - self.new  # of each segment, where it begins in the pass
        self._is_plain = not snapshots and not tentative
        self._set_states(snapshots, tentative)

    def run(
        self,
        native: NativeModel,
        ids: Int[Tensor, " tokens"],
        rows: Sequence[int],
        *,
        want_routes: bool = False,
        may_round: bool = True,
    ) -> NativeOutput:
        """All layers, and the logits of these rows."""

        def numbers(x: np.ndarray | Sequence[int]) -> Int32[Tensor, " numbers"]:
            return torch.from_numpy(np.ascontiguousarray(x, dtype=np.int32))

        out = native.forward(
            ids,
            numbers(np.cumsum([0, *self.new])),
            numbers(self.starts),
            numbers(self.slots),
            torch.from_numpy(np.ascontiguousarray(self.table)),
            self.cache.past,
            rows=numbers(rows),
            commit=self._is_plain,
            may_round=may_round,
            want_routes=want_routes,
            want_columns=not self._is_plain,
        )
        if self._is_plain:
            self.cache.pages.commit(self.slots, self.new)
        else:
            assert out.columns is not None
            assert out.delayed is not None
            self._take_left()
            parts = zip(*self._left, out.columns, out.delayed, strict=True)
            kept = [self._kept(*part) for part in parts]
            self._columns, self._delayed = [columns for columns, _ in kept], [delayed for _, delayed in kept]
            self.end()
        return out

    # ----- the protocol

    def begin(self, segments: Segments) -> Int[Tensor, " segments"] | Tensor:
        assert segments.lengths == tuple(self.new.tolist()), f"{segments.lengths}, where {self.new} were announced"
        self._set_places()
        self._set_groups()
        self._take_left()
        self._columns: list[Tensor] = []
        self._delayed: list[Tensor] = []
        return self.cache._index(self.starts)

    def left_context(self, layer: int, u: Tensor, v_delayed: Tensor) -> tuple[Tensor, Tensor]:
        left = self._left[0][layer], self._left[1][layer]
        columns, delayed = self._kept(*left, u, v_delayed)
        self._columns.append(columns)
        self._delayed.append(delayed)
        return left

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        k, v = self.cache._store(layer, self._places, k, v)
        out = torch.empty_like(q)
        for group in self._singles:
            out[group.tokens] = self._decode(layer, group, q, window)
        for group in self._beginning:
            out[group.tokens] = self._fresh(group, q, k, v, window)
        for group in self._others:
            out[group.tokens] = self._continue(layer, group, q, window)
        return out

    def end(self) -> None:
        """The states of what is certain are written; those of drafts are kept until `accept`."""
        columns, delayed = torch.stack(self._columns, dim=1), torch.stack(self._delayed, dim=1)
        certain = len(self._rows)
        self._write_states(self._rows, columns[:certain], delayed[:certain])
        self._candidates = columns[certain:], delayed[certain:]
        self.cache.pages.commit(self.slots[self._is_certain], self.new[self._is_certain])
        del self._columns, self._delayed, self._left

    def accept(self, counts: Sequence[int]) -> None:
        """Of the tentative segments, in order: how many tokens count, at least one each."""
        columns, delayed = self._candidates
        rows, chosen = [], []
        for segment, count in zip(self._tentative, counts, strict=True):
            first = self._first_candidate[segment]
            rows.append(int(self.slots[segment]))
            chosen.append(first + count - 1)
            for tokens, row in self._tentative_snapshots.get(segment, ()):
                if tokens <= count:
                    rows.append(row)
                    chosen.append(first + tokens - 1)
        index = self.cache._index(chosen)
        self._write_states(rows, columns[index], delayed[index])
        self.cache.pages.commit(self.slots[self._tentative], counts)

    def _take_left(self) -> None:
        """What stands before each segment, in all layers."""
        index = self.cache._index
        rows = index(self.slots)
        self._left = self.cache.columns.index_select(1, rows), self.cache.delayed.index_select(1, rows)
        if (fresh := self.starts == 0).any():
            for left in self._left:  # whoever had the slot before
                left[:, index(np.flatnonzero(fresh))] = 0

    def _kept(self, columns: Tensor, delayed: Tensor, u: Tensor, v_delayed: Tensor) -> tuple[Tensor, Tensor]:
        """The states of one layer that are taken out of the pass."""
        return (
            torch.cat([columns.flatten(0, 1), u.float()])[self._kept_columns],
            torch.cat([delayed, v_delayed.float()])[self._kept_delayed],
        )

    # ----- attention

    def _decode(self, layer: int, group: _Group, q: Tensor, window: int | None) -> Tensor:
        """One new token each: the kernel's place."""
        keys, values = self.cache._gather(layer, group)
        # the query heads of one key head become that head's queries: its keys are read once
        folded = q[group.tokens].unflatten(1, (keys.shape[1], -1))
        mask = self._mask(group, window, q.dtype)
        return F.scaled_dot_product_attention(folded, keys, values, attn_mask=mask).flatten(1, 2)

    def _fresh(self, group: _Group, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """Whole texts of similar length, side by side; causality hides the padding behind the shorter ones."""
        row, place = self._padded
        shape = (group.rows, group.longest)
        padded = [x.new_zeros(*shape, *x.shape[1:]).index_put_((row, place), x[group.tokens]) for x in (q, k, v)]
        return causal_attention(*padded, window=window)[row, place]

    def _continue(self, layer: int, group: _Group, q: Tensor, window: int | None) -> Tensor:
        """A chunk of one text."""
        keys, values = (x.transpose(1, 2) for x in self.cache._gather(layer, group))
        return causal_attention(q[group.tokens][None], keys, values, window=window)[0]

    def _mask(self, group: _Group, window: int | None, dtype: torch.dtype) -> Tensor | None:
        if window is not None and window >= group.longest:
            window = None
        if window not in group.masks:
            position = torch.arange(group.longest, device=self.cache.device)
            hidden = position >= group.lengths[:, None]
            if window is not None:
                hidden |= position < group.lengths[:, None] - window
            is_needed = window is not None or group.shortest < group.longest
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, -torch.inf)
            group.masks[window] = mask[:, None, None] if is_needed else None
        return group.masks[window]

    # ----- what the pass alone decides

    def _set_places(self) -> None:
        """Where each new token goes in the pages, a row for each KV head."""
        size, kv_heads = self.cache.pages.page_size, self.cache.config.num_kv_heads
        segment = np.repeat(np.arange(len(self.new)), self.new)
        position = np.arange(len(segment)) - self._first[segment] + self.starts[segment]
        page = self.table[segment, position // size].astype(np.int64)
        head = np.arange(kv_heads)
        row = (page[:, None] * kv_heads + head) * size + position[:, None] % size
        self._places = self.cache._index(row.ravel())

    def _set_groups(self) -> None:
        is_single = (self.new == 1) & (not use_reference())
        is_fresh = (self.starts == 0) & ~is_single & (not use_reference())
        if (self.lengths[is_fresh]).max(initial=0) * is_fresh.sum() > 2 * self.new[is_fresh].sum():
            is_fresh[:] = False  # too different to be padded
        self._singles = [self._group(part) for part in self._parts(np.flatnonzero(is_single))]
        self._beginning = [self._group(np.flatnonzero(is_fresh))] if is_fresh.any() else []
        self._others = [self._group(np.array([i])) for i in np.flatnonzero(~is_single & ~is_fresh)]
        if self._beginning:
            lengths = self.new[is_fresh]
            row = np.repeat(np.arange(len(lengths)), lengths)
            place = np.arange(len(row)) - (np.cumsum(lengths) - lengths)[row]
            self._padded = self.cache._index(row), self.cache._index(place)

    def _parts(self, segments: np.ndarray) -> list[np.ndarray]:
        """Segments of one token each, cut so that padding to the longest at most doubles what is read."""
        width, parts = self.cache.config.key_size, []
        if len(segments) == 0:
            return parts
        if self.lengths[segments].max() * len(segments) > 2 * self.lengths[segments].sum():
            segments = segments[np.argsort(-self.lengths[segments], kind="stable")]
        while len(segments):
            lengths = self.lengths[segments]
            longest = lengths.max()
            count = len(segments)
            if longest * count > 2 * lengths.sum():
                count = int(np.count_nonzero(2 * lengths >= longest))
            count = max(1, min(count, int(GATHER // (longest * width))))
            parts.append(segments[:count])
            segments = segments[count:]
        return parts

    def _group(self, segments: np.ndarray) -> _Group:
        index, lengths = self.cache._index, self.lengths[segments]
        kv_heads, longest = self.cache.config.num_kv_heads, int(lengths.max())
        table = self.table[segments, : self.cache.pages.pages_for(longest)].astype(np.int64)
        blocks = table[:, None, :] * kv_heads + np.arange(kv_heads)[:, None]
        parts = zip(self._first[segments].tolist(), self.new[segments].tolist(), strict=True)
        tokens = np.concatenate([np.arange(first, first + count) for first, count in parts])
        first, stop = int(tokens[0]), int(tokens[0]) + len(tokens)
        return _Group(
            tokens=slice(first, stop) if (np.diff(tokens) == 1).all() else index(tokens),
            blocks=index(blocks.ravel()),
            rows=len(segments),
            longest=longest,
            shortest=int(lengths.min()),
            lengths=index(lengths),
            masks={},
        )

    def _set_states(self, snapshots: Sequence[tuple[int, int, int]], tentative: Sequence[int]) -> None:
        """Which states are taken out of each layer: (segment, tokens), the certain ones first."""
        self._tentative = list(tentative)
        self._is_certain = np.ones(len(self.new), dtype=bool)
        self._is_certain[self._tentative] = False
        certain = np.flatnonzero(self._is_certain)
        segment, tokens, rows = certain.tolist(), self.new[certain].tolist(), self.slots[certain].tolist()
        self._tentative_snapshots: dict[int, list[tuple[int, int]]] = {}
        for i, count, row in snapshots:
            if self._is_certain[i]:
                segment.append(i)
                tokens.append(count)
                rows.append(row)
            else:
                self._tentative_snapshots.setdefault(i, []).append((count, row))
        self._rows: list[int] = rows
        self._first_candidate: dict[int, int] = {}
        for i in self._tentative:
            self._first_candidate[i] = len(segment) - len(rows)
            segment += [i] * int(self.new[i])
            tokens += range(1, int(self.new[i]) + 1)
        # Places in a row of all left contexts, then all new tokens. A state after fewer tokens than the convolutions
        # look back at has columns from before.
        context, count = self.cache.config.conv_context, len(self.new)
        at, taken = np.array(segment)[:, None], np.array(tokens)[:, None]
        place = taken + np.arange(-context, 0)
        before, after = (at + 1) * context + place, count * context + self._first[at] + place
        self._kept_columns = self.cache._index(np.where(place < 0, before, after))
        self._kept_delayed = self.cache._index(np.where(taken == 0, at, count + self._first[at] + taken - 1).squeeze(1))

    def _write_states(self, rows: Sequence[int], columns: Tensor, delayed: Tensor) -> None:
        index = self.cache._index(rows)
        self.cache.columns[:, index] = columns.transpose(0, 1)
        self.cache.delayed[:, index] = delayed.transpose(0, 1)


def _write(
    held: Shaped[Tensor, "pages kv_heads page_size head_dim"],
    scales: Float[Tensor, "pages kv_heads page_size"] | None,
    place: Int[Tensor, " rows"],
    new: Float[Tensor, "tokens kv_heads head_dim"],
) -> Float[Tensor, "tokens kv_heads head_dim"]:
    flat = held.view(-1, held.shape[-1])
    if scales is None:
        flat.index_copy_(0, place, new.flatten(0, 1))
        return new
    codes, scale = _to_int8(new)
    flat.index_copy_(0, place, codes.flatten(0, 1))
    scales.view(-1).index_copy_(0, place, scale.flatten())
    return (codes * scale[..., None]).to(new.dtype)


def _read(
    held: Shaped[Tensor, "pages kv_heads page_size head_dim"],
    scales: Float[Tensor, "pages kv_heads page_size"] | None,
    group: _Group,
    dtype: torch.dtype,
) -> Float[Tensor, "rows kv_heads keys head_dim"]:
    pages, kv_heads, size, head_dim = held.shape
    rows = held.view(pages * kv_heads, size * head_dim).index_select(0, group.blocks)
    rows = rows.view(group.rows, kv_heads, -1, head_dim)
    if scales is not None:
        scale = scales.view(pages * kv_heads, size).index_select(0, group.blocks).view(group.rows, kv_heads, -1, 1)
        rows = (rows * scale).to(dtype)
    return rows[:, :, : group.longest]


def _to_int8(
    x: Float[Tensor, "tokens kv_heads head_dim"],
) -> tuple[Int8[Tensor, "tokens kv_heads head_dim"], Float[Tensor, "tokens kv_heads"]]:
    """x as bytes times one float32 scale for each token and head: the largest number becomes 127."""
    scale = x.float().abs().amax(-1).clamp_min(1e-30) / 127
    return (x.float() / scale[..., None]).round().to(torch.int8), scale


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU memory that is not taken before it is written, in small pages. `torch.zeros` takes it, and
    numpy asks for pages of 2 MB, of which a single token would touch three in every layer."""
    count = math.prod(shape)
    if device.type != "cpu" or count == 0:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype=dtype, count=count).view(shape)
