"""Best-fit-decreasing packing: whole items into bins of one size, with hardly any space left.

The longest item goes first, each into the fullest bin that still has room; a segment tree over the room that is left
finds that bin in O(log capacity). Nothing is cut here: a long plain document is cut by `split` before, on request, and
an item that is too long for a bin is an error. Source: spec pretraining 6.3, after Ding et al. 2024 (2404.10830). Used
by `data.loader`; knows numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zaya.errors import DataError


@dataclass(frozen=True, slots=True)
class Packing:
    """Which items share a bin."""

    items: np.ndarray
    """Item numbers, int64, bin after bin; each item exactly once."""
    offsets: np.ndarray
    """int64 [bins + 1]: bin b holds items[offsets[b]:offsets[b + 1]]."""
    tokens: np.ndarray
    """Tokens in each bin, int64 [bins]."""
    capacity: int
    """Tokens a bin could hold."""

    def __len__(self) -> int:
        return len(self.tokens)

    def bin(self, number: int) -> np.ndarray:
        """The items of one bin."""
        return self.items[self.offsets[number] : self.offsets[number + 1]]

    @property
    def fill(self) -> float:
        """Part of the bins' room that holds tokens; 1 is full."""
        return float(self.tokens.sum()) / (len(self) * self.capacity) if len(self) else 1.0


def pack(lengths: np.ndarray, capacity: int) -> Packing:
    """Place items of these lengths, in tokens, into bins of `capacity`.

    The same lengths give the same bins: of items of one length the first goes first, of bins with the same room the
    one that came to it last is taken. Raises DataError for an item without tokens or longer than a bin.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    _check(lengths, capacity)
    order = np.argsort(-lengths, kind="stable")
    room_tree = _RoomTree(capacity)
    bins_with: dict[int, list[int]] = {}  # room -> bins that have exactly that much
    bins: list[list[int]] = []
    for item, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        room = room_tree.smallest_at_least(length)
        if room is None:
            room = capacity
            number = len(bins)
            bins.append([])
        else:
            number = bins_with[room].pop()
            if not bins_with[room]:
                room_tree.set(room, False)
        bins[number].append(item)
        left = room - length
        if not bins_with.setdefault(left, []):
            room_tree.set(left, True)
        bins_with[left].append(number)
    offsets = np.cumsum([0, *map(len, bins)], dtype=np.int64)
    items = np.array([item for members in bins for item in members], dtype=np.int64)
    tokens = np.add.reduceat(lengths[items], offsets[:-1]) if bins else np.zeros(0, dtype=np.int64)
    return Packing(items, offsets, tokens, capacity)


def split(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut documents longer than `capacity` into consecutive chunks, the last one shorter; leave the others whole.

    Three int64 arrays, one entry per chunk in the order of the documents: the document, where the chunk starts in it,
    and its length. For plain text; a conversation is trimmed instead.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    counts = -(-lengths // capacity)
    documents = np.repeat(np.arange(len(lengths), dtype=np.int64), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    starts = (np.arange(len(documents), dtype=np.int64) - first) * capacity
    return documents, starts, np.minimum(lengths[documents] - starts, capacity)


def _check(lengths: np.ndarray, capacity: int) -> None:
    if len(lengths) and lengths.min() < 1:
        raise DataError(f"an item to pack has no tokens: item {int(lengths.argmin())}")
    if len(lengths) and lengths.max() > capacity:
        raise DataError(
            f"{int((lengths > capacity).sum())} items are longer than a bin of {capacity} tokens, "
            f"the longest has {int(lengths.max())}",
            hint="trim conversations to the context when they are prepared; split plain documents",
        )


class _RoomTree:
    """The set of rooms 0..capacity that some open bin has left: a segment tree of "is there any below this node"."""

    def __init__(self, capacity: int) -> None:
        self.size = 1 << capacity.bit_length()
        self.any = [False] * (2 * self.size)

    def set(self, room: int, present: bool) -> None:
        node = room + self.size
        self.any[node] = present
        while node > 1:
            node //= 2
            self.any[node] = self.any[2 * node] or self.any[2 * node + 1]

    def smallest_at_least(self, room: int) -> int | None:
        node = room + self.size
        if self.any[node]:
            return room
        # Up until there is something to the right, then down to its leftmost leaf.
        while node % 2 or not self.any[node + 1]:
            node //= 2
            if node <= 1:
                return None
        node += 1
        while node < self.size:
            node = 2 * node if self.any[2 * node] else 2 * node + 1
        return node - self.size
