"""The cache of slots, against each sequence run alone.

1. Any schedule of passes over any slots, in any order, gives the logits of the whole texts: prefill, chunks, single
   tokens, mixed; with sliding windows, any number of taps, on the fast path and on the reference.
2. A fork continues like its source and disturbs nothing; slots that trade places keep what they had.
3. A cleared slot starts from nothing, whatever was in it.
4. A pass that fails leaves the cache as it was.
5. Room grows in steps and stops at the limit.
6. One token for each of many sequences takes one attention per layer, without visiting them one by one.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parity.shapes import BASE, SHAPES
from tests.parity.test_paths import alone, draw_rows, make_model
from tests.tolerances import assert_close
from zaya.engine import slots as module
from zaya.engine.slots import SlotCache
from zaya.ops.path import reference_path

NAMES = ["two_kv_heads", "one_kv_head", "group_of_eight", "alternating", "window_of_one", "conv_2_4", "conv_1_1"]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.sampled_from(NAMES), st.booleans(), st.data())
@settings(max_examples=15)
def test_any_schedule(lengths: list[int], name: str, by_one: bool, data: st.DataObject) -> None:
    model = make_model(SHAPES[name])
    rows = draw_rows(model.config, lengths)
    cache = SlotCache(model.config, 5, limit=9)
    slot_of = data.draw(st.permutations(range(5)))[: len(rows)]
    fed = [0] * len(rows)
    logits: list[list[torch.Tensor]] = [[] for _ in rows]
    with torch.inference_mode():
        while any(f < len(r) for f, r in zip(fed, rows, strict=True)):
            ready = [i for i, r in enumerate(rows) if fed[i] < len(r)]
            chosen = data.draw(st.permutations(ready))[: data.draw(st.integers(1, len(ready)))]
            sizes = [1 if by_one and fed[i] else data.draw(st.integers(1, len(rows[i]) - fed[i])) for i in chosen]
            bounds = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
            ids = torch.cat([rows[i][fed[i] : fed[i] + n] for i, n in zip(chosen, sizes, strict=True)])
            out = model(ids, cu_seqlens=bounds, cache=cache.select([slot_of[i] for i in chosen]))
            for i, n, part in zip(chosen, sizes, out.split(sizes), strict=True):
                logits[i].append(part)
                fed[i] += n
        assert_close(torch.cat([torch.cat(parts) for parts in logits]), alone(model, rows))
    assert [int(cache.lengths[slot]) for slot in slot_of] == lengths


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [1, 2, 3, 4], [4, 0, 3, 1]])
def test_decoding_side_by_side(name: str, order: list[int]) -> None:
    """One token each for sequences of unlike lengths: in neighbouring slots, which are read in place, and elsewhere."""
    model = make_model(SHAPES[name])
    rows = draw_rows(model.config, [12, 9, 7, 14])
    starts = [6, 3, 1, 8]
    for path in (torch.inference_mode, reference_path):
        cache = SlotCache(model.config, 5, limit=14)
        with torch.inference_mode(), path():
            begun = torch.cat([row[:n] for row, n in zip(rows, starts, strict=True)])
            model(begun, cu_seqlens=[0, 6, 9, 10, 18], cache=cache.select(order))
            found = []
            for i in range(6):
                ids = torch.stack([row[n + i] for row, n in zip(rows, starts, strict=True)])
                found.append(model(ids[:, None], cache=cache.select(order)).squeeze(1))
            expected = [model(row[None])[0, n : n + 6] for row, n in zip(rows, starts, strict=True)]
        assert_close(torch.stack(found, dim=1), torch.stack(expected))


@pytest.mark.parametrize("name", ["two_kv_heads", "alternating", "conv_2_4"])
def test_fork_and_clear(name: str) -> None:
    model = make_model(SHAPES[name])
    config = model.config
    row, other = draw_rows(config, [10, 10])
    cache = SlotCache(config, 4, limit=10)

    def feed(slots: list[int], *parts: torch.Tensor) -> torch.Tensor:
        return model(torch.stack(parts), cache=cache.select(slots))

    with torch.inference_mode():
        expected = alone(model, [row])
        changed = alone(model, [torch.cat([row[:6], other[:4]])])
        feed([1], row[:6])
        cache.fork([1, 1], [3, 0])
        assert cache.lengths.tolist() == [6, 6, 0, 6]
        found = feed([0, 1, 3], row[6:8], other[:2], row[6:8])
        assert_close(found[0], expected[6:8])
        assert_close(found[1], changed[6:8])
        assert_close(found[2], expected[6:8])
        cache.fork([1, 0], [0, 1])  # they trade places
        found = feed([1, 0], row[8:], other[2:4])
        assert_close(found[0], expected[8:])
        assert_close(found[1], changed[8:])
        cache.clear([0, 2])
        found = feed([2, 0], row[:3], row[:3])
        assert_close(found, expected[:3].expand(2, -1, -1))
        cache.fork([], [])


def test_a_failed_pass_leaves_the_cache_as_it_was() -> None:
    model = make_model(BASE)
    (row,) = draw_rows(BASE, [8])
    cache = SlotCache(BASE, 2, limit=8)
    with torch.inference_mode():
        model(row[None, :5], cache=cache.select([1]))
        hook = model.blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(row[None, 5:], cache=cache.select([1]))
        hook.remove()
        assert cache.lengths.tolist() == [0, 5]
        assert_close(model(row[None, 5:], cache=cache.select([1]))[0], alone(model, [row])[5:])


def test_room_grows_in_steps_up_to_the_limit() -> None:
    cache = SlotCache(BASE, 2, limit=210)
    sizes = []
    for tokens in (1, 64, 65, 130, 200, 210):
        cache.reserve(tokens)
        sizes.append(cache.capacity)
    assert sizes == [64, 64, 128, 192, 210, 210]
    with pytest.raises(AssertionError, match="211 tokens"):
        cache.reserve(211)


def test_decoding_does_not_visit_sequences_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(BASE)
    cache = SlotCache(BASE, 8, limit=9)
    calls = []
    monkeypatch.setattr(module, "causal_attention", lambda *_, **__: 1 / 0)
    attention = module.F.scaled_dot_product_attention
    monkeypatch.setattr(
        module.F, "scaled_dot_product_attention", lambda *a, **kw: calls.append(a) or attention(*a, **kw)
    )
    with torch.inference_mode():
        for _ in range(3):
            model(torch.ones(8, 1, dtype=torch.long), cache=cache.select(range(8)))
    assert len(calls) == 3 * BASE.num_layers
    assert cache.lengths.tolist() == [3] * 8
