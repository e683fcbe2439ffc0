"""What was read once is not read again: prefixes of texts, with the pages and the state to go on from them. No torch.

A text with CCA can be continued only where a snapshot of its state was taken (docs/concepts/cache.md). So the cache is
a tree whose entries end at snapshots: blocks of `block` tokens one under the other and, below the last whole block of
a text, tails of any length, for the end of a prompt and of a completion.

    root of a salt ─ block 0..256 ─ block 256..512 ─ tail 512..700
                   └ tail 0..90

An entry has references to the pages of its own tokens. It is found by these tokens themselves, not by a hash of them.
What was not used for longest goes first, entries below before those above. All entries are of the present weights:
`clear` is called when they change, and what runs on keeps its pages by its own references.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

import numpy as np

from zaya.engine.pages import PageTable


@dataclass(slots=True, eq=False)
class Entry:
    """A piece of text behind the piece of its parent."""

    parent: Entry | None
    """None for the root of a salt, which holds nothing."""
    key: bytes
    """Its tokens, int32; of a root, the salt."""
    length: int
    """Tokens from the beginning of the text to its end."""
    pages: np.ndarray
    """Those of its own tokens; the last may be partly filled."""
    snapshot: int
    """Row of the state at its end."""
    routes: np.ndarray | None
    """uint8 (its tokens, layers, k): experts of its tokens, where somebody asked for them when they were read."""
    blocks: dict[bytes, Entry] = field(default_factory=dict)
    tails: dict[bytes, Entry] = field(default_factory=dict)
    tail_sizes: Counter[int] = field(default_factory=Counter)
    """How many tails there are of each length in bytes."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A prefix that can be continued."""

    length: int
    pages: np.ndarray
    snapshot: int
    routes: np.ndarray | None
    """uint8 (length, layers, k), where they were asked for."""


class PrefixCache:
    """The tree. It keeps pages and snapshots of a `PageTable`, and gives them back when asked to."""

    def __init__(self, pages: PageTable, block: int) -> None:
        """`block` tokens are a multiple of a page's."""
        assert block % pages.page_size == 0, "a page belongs to one block"
        self.pages = pages
        self.block = block
        self.epoch = 0
        """Counts how often the weights have changed; what was computed before does not get in."""
        self._roots: dict[str, Entry] = {}
        self._by_use: OrderedDict[Entry, None] = OrderedDict()
        """Not used for longest first. Entries above count as used later than those below them."""

    def __len__(self) -> int:
        return len(self._by_use)

    def match(self, salt: str, ids: np.ndarray, *, with_routes: bool = False) -> Hit | None:
        """The longest known prefix of ids (int32) that leaves at least one to be read: its logits are wanted.

        With routes, the longest of which they are known.
        """
        entry = self._roots.get(salt)
        if entry is None:
            return None
        data, unit = ids.tobytes(), ids.itemsize
        path, end = [], (len(ids) - 1) * unit
        while (stop := (entry.length + self.block) * unit) <= end:
            below = entry.blocks.get(data[entry.length * unit : stop])
            if below is None or (with_routes and below.routes is None):
                break
            path.append(below)
            entry = below
        start = entry.length * unit
        for size in sorted(entry.tail_sizes, reverse=True):
            tail = entry.tails.get(data[start : start + size]) if start + size <= end else None
            if tail is not None and not (with_routes and tail.routes is None):
                path.append(tail)
                break
        if not path:
            return None
        self._touch(path[-1])
        routes = np.concatenate([e.routes for e in path if e.routes is not None]) if with_routes else None
        return Hit(path[-1].length, np.concatenate([e.pages for e in path]), path[-1].snapshot, routes)

    def insert(
        self, salt: str, ids: np.ndarray, pages: np.ndarray, snapshot: int, routes: np.ndarray | None = None
    ) -> None:
        """Keep a text that was read, all of ids (int32): `pages` are those of the text, `snapshot` is the state at its
        end, and belongs to the cache from now on.

        A text that lies over whole blocks that are no longer known cannot be found, and is not kept.
        """
        data, unit = ids.tobytes(), ids.itemsize
        entry: Entry | None = self._roots.get(salt)
        if entry is None and len(ids) <= self.block:
            entry = self._roots[salt] = Entry(None, salt.encode(), 0, pages[:0], -1, None)
        while entry is not None and len(ids) - entry.length > self.block:
            entry = entry.blocks.get(data[entry.length * unit : (entry.length + self.block) * unit])
        if entry is None:
            self.pages.drop_snapshot(snapshot)
            return
        key = data[entry.length * unit :]
        is_block = len(key) == self.block * unit
        siblings = entry.blocks if is_block else entry.tails
        known = siblings.get(key)
        own_routes = None if routes is None else routes[entry.length : len(ids)].copy()
        if known is not None:
            self.pages.drop_snapshot(snapshot)
            if known.routes is None:
                known.routes = own_routes
        else:
            own = pages[entry.length // self.pages.page_size : self.pages.pages_for(len(ids))].copy()
            known = Entry(entry, key, len(ids), own, snapshot, own_routes)
            self.pages.keep(own)
            siblings[key] = known
            if not is_block:
                entry.tail_sizes[len(key)] += 1
        self._touch(known)

    def evict(self) -> bool:
        """Let go of the entry that was not used for longest; False where there is none."""
        if not self._by_use:
            return False
        entry, _ = self._by_use.popitem(last=False)
        assert entry.parent is not None
        assert not entry.blocks, "entries above were used later than those below"
        assert not entry.tails
        self._forget(entry)
        return True

    def clear(self) -> None:
        """The weights have changed: what is kept is of no use."""
        while self.evict():
            pass
        self.epoch += 1

    def check(self) -> None:
        """Assert that pages and snapshots that are kept are those of the entries."""
        kept = np.zeros_like(self.pages.kept)
        for entry in self._by_use:
            kept[entry.pages] += 1
        assert (kept == self.pages.kept).all(), "the page table counts other entries"
        snapshots = [entry.snapshot for entry in self._by_use]
        assert len(set(snapshots)) == len(snapshots), "two entries have one snapshot"
        assert len(snapshots) + self.pages.free_snapshots == self.pages.snapshots, "a snapshot is lost"

    def _touch(self, entry: Entry) -> None:
        while entry.parent is not None:
            self._by_use[entry] = None
            self._by_use.move_to_end(entry)
            entry = entry.parent

    def _forget(self, entry: Entry) -> None:
        parent = entry.parent
        assert parent is not None
        self.pages.let_go(entry.pages)
        self.pages.drop_snapshot(entry.snapshot)
        if parent.blocks.get(entry.key) is entry:
            del parent.blocks[entry.key]
        else:
            del parent.tails[entry.key]
            parent.tail_sizes[len(entry.key)] -= 1
            if not parent.tail_sizes[len(entry.key)]:
                del parent.tail_sizes[len(entry.key)]
        if parent.parent is None and not parent.blocks and not parent.tails:
            del self._roots[parent.key.decode()]
