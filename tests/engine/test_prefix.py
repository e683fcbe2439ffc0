"""Prefixes that are kept, without a model.

1. A text finds the longest known beginning that leaves a token to be read: whole blocks, then a tail. Only equal tokens
   count, and only of its salt.
2. An entry holds its own pages and its state, and gives both back; what a running sequence has stays alive.
3. What was not used for longest goes first, below before above, and a hit is a use.
4. Routes are part of what is kept where they are known; who needs them gets no further than they go.
5. What follows a block that is gone is not kept. New weights leave nothing.
6. It says what a plain search over all that was put in says, whatever was put in.
7. A state takes 4% of the keys and values of a block, in ZAYA1-8B.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya.engine.engine import PAGES_PER_BLOCK, PoolSizes
from zaya.engine.pages import PageTable
from zaya.engine.prefix import PrefixCache
from zaya.model.config import preset

BLOCK = 4


def make_cache(pages: int = 60, snapshots: int = 20) -> PrefixCache:
    return PrefixCache(PageTable(pages + 1, page_size=2, slots=3, snapshots=snapshots), BLOCK)


def text(ids: list[int] | str) -> np.ndarray:
    return np.array([ord(id) if isinstance(id, str) else id for id in ids], dtype=np.int32)


def read(cache: PrefixCache, ids: list[int] | str, *lengths: int, salt: str = "", routes: bool = False) -> None:
    """A sequence reads a text; the states at these lengths are kept."""
    pages = cache.pages
    slot = pages.open()
    pages.reserve([slot], [len(ids)])
    pages.commit([slot], [len(ids)])
    known = np.arange(len(ids), dtype=np.uint8)[:, None, None] if routes else None
    for length in lengths or (len(ids),):
        row = pages.take_snapshot()
        assert row is not None
        cache.insert(salt, text(ids[:length]), pages.pages_of(slot), row, known)
    pages.close(slot)
    pages.check()
    cache.check()


def found(cache: PrefixCache, ids: list[int] | str, **options) -> int:
    hit = cache.match(options.pop("salt", ""), text(ids), **options)
    return 0 if hit is None else hit.length


def test_the_longest_beginning() -> None:
    cache = make_cache()
    read(cache, "abcdefghij", 4, 8, 9, 10)
    cases = {
        "abcdefghijk": 10, "abcdefghij": 9, "abcdefghi": 8, "abcdefgh": 4, "abcd": 0, "abcde": 4,
        "abcdefghix": 9, "abcdefgx": 4, "abcxefghij": 0, "x": 0, "bcdefghij": 0,
    }  # fmt: skip
    assert {ids: found(cache, ids) for ids in cases} == cases
    assert found(cache, "abcdefghijk", salt="other") == 0
    hit = cache.match("", text("abcdefghijk"))
    assert hit is not None
    assert len(hit.pages) == 5


def test_tails_of_all_lengths() -> None:
    cache = make_cache()
    read(cache, "ab", 1, 2)
    read(cache, "abc", 3)
    read(cache, "ax", 2)
    assert [found(cache, ids) for ids in ("a", "ab", "abc", "abcd", "ax", "axy", "ay")] == [0, 1, 2, 3, 1, 2, 1]


def test_what_goes_and_what_stays() -> None:
    cache = make_cache()
    pages = cache.pages
    read(cache, "abcdefghij", 4, 8, 10)
    hit = cache.match("", text("abcdefghijk"))
    assert hit is not None
    slot = pages.adopt(hit.pages, hit.length, hit.snapshot)
    used = pages.pages - pages.free
    assert used == 5
    cache.clear()
    assert pages.pages - pages.free == used
    pages.check()
    pages.close(slot)
    assert (pages.free, pages.free_snapshots) == (pages.pages, pages.snapshots)
    assert len(cache) == 0
    assert not cache.evict()


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = make_cache()
    read(cache, "abcdefgh", 4, 8)
    read(cache, "abcdxy", 6)
    read(cache, "pqrs", 4)
    assert found(cache, "abcdefghi") == 8
    cache.evict()  # the tail xy
    assert (found(cache, "pqrst"), found(cache, "abcdxyz")) == (4, 4)
    cache.evict()  # the block efgh: pqrs was used since, and so was abcd
    assert (found(cache, "pqrst"), found(cache, "abcdefghi")) == (4, 4)
    cache.evict()
    assert (found(cache, "pqrst"), found(cache, "abcdefghi")) == (0, 4)


def test_routes() -> None:
    cache = make_cache()
    read(cache, "abcdefgh", 4, 8)
    read(cache, "abcdxyz", 7, routes=True)
    assert [found(cache, ids, with_routes=True) for ids in ("abcdefghi", "abcdxyzk")] == [0, 0]
    assert [found(cache, ids) for ids in ("abcdefghi", "abcdxyzk")] == [8, 7]
    read(cache, "abcdefgh", 4, routes=True)  # the block is known; its routes are not
    assert [found(cache, ids, with_routes=True) for ids in ("abcdefghi", "abcdxyzk")] == [4, 7]
    hit = cache.match("", text("abcdxyzk"), with_routes=True)
    assert hit is not None
    assert hit.routes is not None
    assert hit.routes[:, 0, 0].tolist() == list(range(7))
    assert hit.routes.base is None or len(hit.routes.base) == 7, "a long text is not kept for a piece of it"


def test_over_a_block_that_is_gone() -> None:
    cache = make_cache()
    read(cache, "abcdefghij", 8, 10)  # the block before was never kept
    assert len(cache) == 0
    assert cache.pages.free_snapshots == 20
    read(cache, "abcdefghij", 4, 8, 10)
    cache.clear()
    assert cache.epoch == 1
    assert found(cache, "abcdefghijk") == 0
    assert cache.pages.free == cache.pages.pages


TEXTS = st.lists(st.integers(0, 1), min_size=1, max_size=13)


@given(st.lists(st.tuples(st.one_of(st.none(), TEXTS), TEXTS), max_size=14))
def test_against_a_plain_search(steps: list[tuple[list[int] | None, list[int]]]) -> None:
    """Put in a text, at all its blocks and its end, or let go of one; then ask."""
    cache = make_cache(pages=300, snapshots=100)
    for new, asked in steps:
        if new is None:
            cache.evict()
        else:
            lengths = [*range(BLOCK, len(new), BLOCK), len(new)]
            read(cache, new, *lengths)
        held = set()
        for entry in cache._by_use:
            whole, above = entry.key, entry.parent
            while above is not None and above.parent is not None:
                whole, above = above.key + whole, above.parent
            held.add(whole)
        assert len(held) == len(cache)
        expected = [n for n in range(1, len(asked)) if text(asked[:n]).tobytes() in held]
        assert found(cache, asked) == max(expected, default=0)
    cache.clear()
    assert cache.pages.free == cache.pages.pages


def test_a_snapshot_is_a_twentieth_of_its_block() -> None:
    """40 layers of 2 columns of 1280 channels and 128 delayed values, 4 bytes each, beside 256 tokens of keys and
    values of 2 heads of 128 channels, 2 bytes each."""
    sizes = PoolSizes.of(preset("zaya1-8b"), page_size=32, itemsize=2, slots=0)
    assert sizes.state == 40 * (2 * 1280 + 128) * 4 == 430_080
    assert sizes.page * PAGES_PER_BLOCK == 256 * 40 * 2 * 2 * 128 * 2 == 256 * 40 * 1024
    assert sizes.state / (sizes.page * PAGES_PER_BLOCK) == pytest.approx(0.041, abs=0.001)
    pages = sizes.pages_in(8 << 30)
    taken = (pages + 1) * sizes.page + sizes.snapshots(pages) * sizes.state
    assert (8 << 30) - sizes.page - sizes.state <= taken <= 8 << 30
