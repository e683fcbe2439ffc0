"""Who holds which memory, without the memory.

1. What a sequence has written is what it reads, whatever others do: forks, prefixes, copies put off to the next pass,
   pages and slots that change hands in the same plan.
2. A page comes clean to whoever gets it, but for what was copied into it.
3. `needed` is what `reserve` takes, no more and no less.
4. Every reference has its owner; when all is over everything is free.
5. Drafts that are not accepted leave no page behind.
6. Pages that were used last are used first.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zaya.engine.pages import PageTable

PAGES, SIZE, SLOTS, SNAPSHOTS = 14, 3, 4, 4


class Memory:
    """A pool, a cell for each token of a page and one for each state, and what ought to be in them."""

    def __init__(self) -> None:
        self.table = PageTable(PAGES + 1, page_size=SIZE, slots=SLOTS, snapshots=SNAPSHOTS)
        self.cells = np.full((PAGES + 1, SIZE), -1)  # what somebody left
        self.cells[0] = 0
        self.states = np.full(SLOTS + SNAPSHOTS, -1)
        self.texts: dict[int, list[int]] = {}
        """Of each open slot."""
        self.prefixes: list[tuple[np.ndarray, list[int], int]] = []
        """Pages, text and snapshot of what is kept."""
        self.next = 1

    def open(self) -> None:
        self.texts[self.table.open()] = []

    def fork(self, slot: int) -> None:
        (other,) = self.table.fork(slot, 1)
        self.texts[other] = list(self.texts[slot])

    def close(self, slot: int) -> None:
        self.table.close(slot)
        del self.texts[slot]

    def keep(self, slot: int) -> None:
        row = self.table.take_snapshot()
        if row is not None and self.texts[slot]:
            pages = self.table.pages_of(slot)[: self.table.pages_for(len(self.texts[slot]))]
            self.table.keep(pages)
            self.table.copy_state(slot, row)
            self.prefixes.append((pages, list(self.texts[slot]), row))
        elif row is not None:
            self.table.drop_snapshot(row)

    def adopt(self, at: int) -> None:
        pages, text, row = self.prefixes[at]
        self.texts[self.table.adopt(pages, len(text), row)] = list(text)

    def let_go(self, at: int) -> None:
        pages, _, row = self.prefixes.pop(at)
        self.table.let_go(pages)
        self.table.drop_snapshot(row)

    def reserve(self, slots: list[int], new: list[int]) -> bool:
        needed, free = self.table.needed(slots, new), self.table.free
        if needed > free:
            return False
        self.table.reserve(slots, new)
        assert free - self.table.free == needed
        assert self.table.needed(slots, new) == 0
        return True

    def pass_(self, slots: list[int], new: list[int], accepted: list[int]) -> None:
        pending = self.table.take_pending()
        self.cells[list(pending.pages)] = self.cells[list(pending.pages.values())]
        self.cells[list(pending.fresh)] = 0
        self.states[list(pending.states)] = self.states[list(pending.states.values())]
        for slot, count, kept in zip(slots, new, accepted, strict=True):
            before = len(self.texts[slot])
            assert not before or self.states[slot] == self.texts[slot][-1]
            for position in range(before, before + count):
                page = self.table.table[slot, position // SIZE]
                if position % SIZE == 0:
                    assert not self.cells[page].any(), "a page comes clean"
                self.cells[page, position % SIZE] = self.next
                if position < before + kept:
                    self.texts[slot].append(self.next)
                self.next += 1
            self.states[slot] = self.texts[slot][-1]
        self.table.commit(slots, accepted)

    def check(self) -> None:
        self.table.check()
        assert not self.cells[0].any()

    def check_texts(self) -> None:
        """After a pass, when nothing is put off."""
        for slot, text in self.texts.items():
            cells = self.cells[self.table.pages_of(slot)].ravel()
            assert cells[: len(text)].tolist() == text
            assert self.table.lengths[slot] == len(text)
            assert self.table.held[slot] >= self.table.pages_for(len(text))


@given(st.data())
@settings(max_examples=150)
def test_everybody_reads_what_they_wrote(data: st.DataObject) -> None:
    memory = Memory()
    for _ in range(data.draw(st.integers(1, 25))):
        slots = sorted(memory.texts)
        choices = ["open", "fork", "adopt"] if memory.table.free_slots else []
        choices += ["close", "keep", "reserve", "pass"] if slots else []
        choices += ["let_go"] if memory.prefixes else []
        match data.draw(st.sampled_from(choices)):
            case "open":
                memory.open()
            case "fork" if slots:
                memory.fork(data.draw(st.sampled_from(slots)))
            case "adopt" if memory.prefixes:
                memory.adopt(data.draw(st.integers(0, len(memory.prefixes) - 1)))
            case "close":
                memory.close(data.draw(st.sampled_from(slots)))
            case "keep":
                memory.keep(data.draw(st.sampled_from(slots)))
            case "let_go":
                memory.let_go(data.draw(st.integers(0, len(memory.prefixes) - 1)))
            case "reserve" | "pass" as what:
                chosen = data.draw(st.lists(st.sampled_from(slots), min_size=1, unique=True))
                new = [data.draw(st.integers(1, 5)) for _ in chosen]
                if memory.reserve(chosen, new) and what == "pass":
                    accepted = [data.draw(st.integers(1, count)) for count in new]
                    memory.pass_(chosen, new, accepted)
                    memory.check_texts()
        memory.check()
    for slot in sorted(memory.texts):
        memory.close(slot)
    while memory.prefixes:
        memory.let_go(0)
    memory.check()
    table = memory.table
    assert (table.free, table.free_slots, table.free_snapshots) == (PAGES, SLOTS, SNAPSHOTS)


def test_a_page_changes_hands_twice_in_one_plan() -> None:
    """First one that was to be cleared is copied into, then one that was to be copied into is to be cleared."""
    memory = Memory()
    first, fork, other = 0, 1, 2
    memory.open()
    memory.reserve([first], [2])
    memory.pass_([first], [2], [2])
    memory.fork(first)
    memory.open()
    assert sorted(memory.texts) == [first, fork, other]
    memory.reserve([other], [1])
    (page,) = memory.table.pages_of(other)
    memory.close(other)
    memory.reserve([fork], [1])
    assert memory.table.pages_of(fork).tolist() == [page]
    memory.pass_([fork], [1], [1])
    memory.check_texts()

    memory.close(fork)
    memory.fork(first)
    memory.reserve([fork], [1])
    (page,) = memory.table.pages_of(fork)
    memory.close(fork)
    memory.open()
    memory.reserve([fork], [1])
    assert memory.table.pages_of(fork).tolist() == [page]
    memory.pass_([fork], [1], [1])
    memory.check_texts()


def test_pages_used_last_come_first() -> None:
    table = PageTable(101, page_size=SIZE, slots=2, snapshots=0)
    for _ in range(10):
        slot = table.open()
        table.reserve([slot], [9])
        assert sorted(table.pages_of(slot).tolist()) == [1, 2, 3]
        table.commit([slot], [9])
        table.close(slot)


def test_what_is_wrong_is_found() -> None:
    table = PageTable(9, page_size=SIZE, slots=2, snapshots=0)
    slot = table.open()
    table.reserve([slot], [4])
    table.refs[3] += 1
    with pytest.raises(AssertionError, match="have"):
        table.check()
