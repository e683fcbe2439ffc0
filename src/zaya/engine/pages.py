"""Who holds which memory: pages of keys and values, slots of running sequences, snapshots of CCA state. No torch.

A page has room for the keys and values of `page_size` tokens in every layer. A sequence is a slot and a row of pages;
sequences, and the prefix cache, share pages by counting who refers to them. What has to be copied or cleared is only
written down here (`Pending`); engine.paged, which has the memory itself, does it before the next pass.

    slots       0 .. slots - 1                  rows of CCA state, one for every sequence that runs
    snapshots   slots .. slots + snapshots - 1  rows of the same storage, one for every state that is kept
    page 0      never given away and never written: what lies behind a sequence in a padded table reads as zeros
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class Pending:
    """What has to be done to the memory before the next pass. All that is copied is read before anything is written."""

    pages: dict[int, int] = field(default_factory=dict)
    """Page to write -> page to copy."""
    states: dict[int, int] = field(default_factory=dict)
    """Row of CCA state to write -> row to copy."""
    fresh: set[int] = field(default_factory=set)
    """Pages to fill with zeros, after the copies: a weight of 0 times a NaN that somebody left would still be one."""


class PageTable:
    """The bookkeeping of a pool. What is asked of it here either happens as a whole or was not asked for."""

    def __init__(self, pages: int, *, page_size: int, slots: int, snapshots: int) -> None:
        """`pages` counts page 0, which nobody gets."""
        self.page_size = page_size
        self.slots = slots
        self.snapshots = snapshots
        self.refs = np.zeros(pages, dtype=np.int32)
        """How many sequences and entries of the prefix cache refer to each page."""
        self.refs[0] = 1
        self.kept = np.zeros(pages, dtype=np.int32)
        """How many of them are entries of the prefix cache."""
        self._free = np.arange(pages - 1, 0, -1, dtype=np.int32)
        """A stack of which the first `free` are valid: pages used last are used first, others stay untouched."""
        self.free = pages - 1
        """Pages that nobody refers to."""
        self.table = np.zeros((slots, 8), dtype=np.int32)
        """The pages of each slot in order, then zeros."""
        self.held = np.zeros(slots, dtype=np.int64)
        """How many pages each slot has."""
        self.lengths = np.zeros(slots, dtype=np.int64)
        """Tokens of each slot that are in."""
        self._free_slots = list(range(slots - 1, -1, -1))
        self._free_snapshots = list(range(slots + snapshots - 1, slots - 1, -1))
        self._pending = Pending()

    @property
    def pages(self) -> int:
        """Pages that can be given away."""
        return len(self.refs) - 1

    @property
    def free_slots(self) -> int:
        return len(self._free_slots)

    @property
    def free_snapshots(self) -> int:
        return len(self._free_snapshots)

    @property
    def reclaimable(self) -> int:
        """Pages that are free, or would be if the prefix cache let go of everything."""
        return int(np.count_nonzero(self.refs == self.kept))

    def pages_for(self, tokens: int) -> int:
        """Pages that hold this many tokens."""
        return -(-tokens // self.page_size)

    # ----- sequences

    def open(self) -> int:
        """A slot with nothing in it. The layers start it from zeros (engine.paged)."""
        return self._free_slots.pop()

    def adopt(self, pages: np.ndarray, length: int, state: int) -> int:
        """A slot that continues a prefix: its pages are shared, the row `state` is where it stands."""
        slot = self.open()
        self._widen(len(pages))
        self.table[slot, : len(pages)] = pages
        self.refs[pages] += 1
        self.held[slot], self.lengths[slot] = len(pages), length
        self.copy_state(state, slot)
        return slot

    def fork(self, slot: int, count: int) -> list[int]:
        """`count` slots that continue as this one does, over the same pages."""
        length = int(self.lengths[slot])
        written = self.pages_of(slot)[: self.pages_for(length)]
        return [self.adopt(written, length, slot) for _ in range(count)]

    def close(self, slot: int) -> None:
        """The sequence is over, or has to make room."""
        self._release(self.pages_of(slot))
        self.table[slot, : self.held[slot]] = 0
        self.held[slot] = self.lengths[slot] = 0
        self._free_slots.append(slot)

    def pages_of(self, slot: int) -> np.ndarray:
        return self.table[slot, : self.held[slot]].copy()

    # ----- passes

    def needed(self, slots: Sequence[int], new: Sequence[int]) -> int:
        """Free pages that it takes to put `new` tokens, at least one each, behind the sequences in `slots`."""
        index, count = np.asarray(slots, dtype=np.int64), np.asarray(new, dtype=np.int64)
        more = np.maximum(0, -(-(self.lengths[index] + count) // self.page_size) - self.held[index]).sum()
        written = self._last_pages(index)
        written = written[self.refs[written] > 1]
        if not len(written):
            return int(more)
        written, writers = np.unique(written, return_counts=True)
        # the last of those that share a page may write where it is, if nobody else refers to it
        return int(more + np.where(self.refs[written] == writers, writers - 1, writers).sum())

    def reserve(self, slots: Sequence[int], new: Sequence[int]) -> None:
        """Have room for `new` tokens in every slot that no other sequence sees. Asks for no more than `needed`."""
        index, count = np.asarray(slots, dtype=np.int64), np.asarray(new, dtype=np.int64)
        assert self.needed(slots, new) <= self.free, "the scheduler asks before it reserves"
        last = self._last_pages(index)
        partial = index[self.lengths[index] % self.page_size != 0]
        for slot, page in zip(partial[self.refs[last] > 1].tolist(), last[self.refs[last] > 1].tolist(), strict=True):
            if self.refs[page] > 1:  # those before may have left it to this one
                (copy,) = self._take(1)
                self._pending.pages[int(copy)] = page
                self._pending.fresh.discard(int(copy))
                self.table[slot, self.lengths[slot] // self.page_size] = copy
                self._release(np.array([page]))
        wanted = -(-(self.lengths[index] + count) // self.page_size)
        for i in np.flatnonzero(wanted > self.held[index]).tolist():
            slot, held, total = int(index[i]), int(self.held[index[i]]), int(wanted[i])
            pages = self._take(total - held)
            self._pending.fresh.update(pages.tolist())
            self._widen(total)
            self.table[slot, held:total] = pages
            self.held[slot] = total

    def commit(self, slots: Sequence[int] | np.ndarray, new: Sequence[int] | np.ndarray) -> None:
        """`new` tokens of what was reserved are in; the rest is given back."""
        index = np.asarray(slots, dtype=np.int64)
        self.lengths[index] += np.asarray(new, dtype=np.int64)
        needed = -(-self.lengths[index] // self.page_size)
        for i in np.flatnonzero(needed < self.held[index]).tolist():
            slot, total = int(index[i]), int(needed[i])
            self._release(self.table[slot, total : self.held[slot]].copy())
            self.table[slot, total : self.held[slot]] = 0
            self.held[slot] = total

    def take_pending(self) -> Pending:
        """What is to be done to the memory now; whoever asks does it."""
        pending, self._pending = self._pending, Pending()
        return pending

    # ----- what the prefix cache keeps

    def keep(self, pages: np.ndarray) -> None:
        """An entry of the prefix cache refers to these pages."""
        self.refs[pages] += 1
        self.kept[pages] += 1

    def let_go(self, pages: np.ndarray) -> None:
        self.kept[pages] -= 1
        self._release(pages)

    def take_snapshot(self) -> int | None:
        """A row for a state that is to be kept; None where there is none."""
        return self._free_snapshots.pop() if self._free_snapshots else None

    def drop_snapshot(self, row: int) -> None:
        self._free_snapshots.append(row)

    def copy_state(self, source: int, target: int) -> None:
        """The state in row `target` becomes that of `source`, as it is now."""
        self._pending.states[target] = self._pending.states.get(source, source)

    # ----- truth

    def check(self) -> None:
        """Assert that everything is accounted for: every reference has its owner, what is free is referred to by
        nobody, nothing is lost. The prefix cache checks that what is `kept` is its own."""
        refs = self.kept.copy()
        refs[0] += 1
        for slot in range(self.slots):
            pages = self.pages_of(slot)
            assert (pages > 0).all(), f"slot {slot} has page 0 among its pages: {pages}"
            assert len(set(pages.tolist())) == len(pages), f"slot {slot} has a page twice: {pages}"
            assert not self.table[slot, self.held[slot] :].any(), f"slot {slot} has pages that it does not count"
            assert self.lengths[slot] <= self.held[slot] * self.page_size, f"slot {slot} has tokens without a page"
            refs[pages] += 1
        wrong = np.flatnonzero(refs != self.refs)
        assert not len(wrong), f"pages {wrong[:8]} have {self.refs[wrong[:8]]} references, counted {refs[wrong[:8]]}"
        free = self._free[: self.free]
        is_free = np.zeros(len(self.refs), dtype=bool)
        is_free[free] = True
        assert np.count_nonzero(is_free) == self.free, "a page is free twice"
        assert not self.refs[free].any(), "a page is free that somebody refers to"
        assert self.free == np.count_nonzero(self.refs == 0), "a page is lost"
        assert len(set(self._free_slots)) == len(self._free_slots), "a slot is free twice"
        assert not self.held[self._free_slots].any(), "a free slot has pages"
        assert len(set(self._free_snapshots)) == len(self._free_snapshots), "a snapshot is free twice"

    def _last_pages(self, index: np.ndarray) -> np.ndarray:
        """Of each slot whose last page is partly filled, that page."""
        partial = index[self.lengths[index] % self.page_size != 0]
        return self.table[partial, self.lengths[partial] // self.page_size]

    def _take(self, count: int) -> np.ndarray:
        assert count <= self.free
        self.free -= count
        pages = self._free[self.free : self.free + count].copy()
        self.refs[pages] = 1
        return pages

    def _release(self, pages: np.ndarray) -> None:
        """One reference less to each of these pages, which are distinct."""
        self.refs[pages] -= 1
        freed = pages[self.refs[pages] == 0]
        self._free[self.free : self.free + len(freed)] = freed
        self.free += len(freed)

    def _widen(self, pages: int) -> None:
        if pages > self.table.shape[1]:
            more = max(pages, 2 * self.table.shape[1]) - self.table.shape[1]
            self.table = np.pad(self.table, ((0, 0), (0, more)))
