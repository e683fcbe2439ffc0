"""Keys, values and CCA state in pages, against each sequence run alone.

1. Any schedule of passes over any sequences, in any order, gives the logits of the whole texts: prefill, chunks, single
   tokens, mixed; with sliding windows, any number of taps, on the fast path and on the reference.
2. A fork continues like its source and disturbs nothing, whoever writes first into the page they share.
3. A slot that was used starts from nothing.
4. A pass that fails leaves everything as it was.
5. A snapshot taken inside a pass, at any place, continues as the text does; with the pages before it, it is a prefix.
6. Of a tentative segment any number of tokens can be accepted, and what follows is as if only they had been read.
7. Keys and values in int8 give nearly the same, in every schedule alike.
8. One token for each of many sequences takes one attention per layer, also where lengths differ a little; where they
   differ much, padding at most doubles what is read.
9. A page that held numbers that are none harms nobody who gets it next.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parity.shapes import BASE, SHAPES
from tests.parity.test_paths import alone, draw_rows, make_model
from tests.tolerances import assert_close
from zaya.engine import paged as module
from zaya.engine.paged import PagedCache
from zaya.engine.pages import PageTable
from zaya.model.config import ModelConfig
from zaya.model.transformer import Want, ZayaModel
from zaya.ops.path import reference_path

NAMES = ["two_kv_heads", "one_kv_head", "group_of_eight", "alternating", "window_of_one", "conv_2_4", "conv_1_1"]


def make_cache(config: ModelConfig, *, page_size: int = 4, pages: int = 64, **options: str) -> PagedCache:
    return PagedCache(config, PageTable(pages, page_size=page_size, slots=6, snapshots=8), **options)


def feed(model: ZayaModel, cache: PagedCache, *parts: tuple[int, torch.Tensor], **options) -> list[torch.Tensor]:
    """One pass: tokens for slots. Logits of each part."""
    bounds = [0]
    for _, ids in parts:
        bounds.append(bounds[-1] + len(ids))
    context = cache.begin_pass([(slot, len(ids)) for slot, ids in parts], **options)
    with torch.inference_mode():
        out = model(torch.cat([ids for _, ids in parts]), cu_seqlens=bounds, cache=context)
    cache.pages.check()
    return list(out.split([len(ids) for _, ids in parts]))


@given(
    st.lists(st.integers(1, 13), min_size=1, max_size=4),
    st.sampled_from(NAMES),
    st.sampled_from([1, 3, 4]),
    st.booleans(),
    st.data(),
)
@settings(max_examples=25)
def test_any_schedule(lengths: list[int], name: str, page_size: int, by_one: bool, data: st.DataObject) -> None:
    model = make_model(SHAPES[name])
    rows = draw_rows(model.config, lengths)
    cache = make_cache(model.config, page_size=page_size)
    slots = [cache.pages.open() for _ in rows]
    fed = [0] * len(rows)
    logits: list[list[torch.Tensor]] = [[] for _ in rows]
    while any(f < len(r) for f, r in zip(fed, rows, strict=True)):
        ready = [i for i, r in enumerate(rows) if fed[i] < len(r)]
        chosen = data.draw(st.permutations(ready))[: data.draw(st.integers(1, len(ready)))]
        sizes = [1 if by_one and fed[i] else data.draw(st.integers(1, len(rows[i]) - fed[i])) for i in chosen]
        parts = [(slots[i], rows[i][fed[i] : fed[i] + n]) for i, n in zip(chosen, sizes, strict=True)]
        for i, n, part in zip(chosen, sizes, feed(model, cache, *parts), strict=True):
            logits[i].append(part)
            fed[i] += n
    with torch.inference_mode():
        assert_close(torch.cat([torch.cat(parts) for parts in logits]), alone(model, rows))
    assert cache.pages.lengths[slots].tolist() == lengths
    for slot in slots:
        cache.pages.close(slot)
    assert cache.pages.free == cache.pages.pages


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_path(name: str) -> None:
    model = make_model(SHAPES[name])
    rows = draw_rows(model.config, [12, 9])
    cache = make_cache(model.config)
    first, second = cache.pages.open(), cache.pages.open()
    with reference_path():
        found = feed(model, cache, (first, rows[0][:6]), (second, rows[1][:1]))
        found += feed(model, cache, (second, rows[1][1:]), (first, rows[0][6:7]))
        found += feed(model, cache, (first, rows[0][7:]))
    with torch.inference_mode():
        expected = alone(model, rows)
    assert_close(torch.cat([found[0], found[3], found[4], found[1], found[2]]), expected)


@pytest.mark.parametrize("name", ["two_kv_heads", "alternating", "conv_2_4"])
@pytest.mark.parametrize("length", [3, 4, 6])
def test_fork_and_reuse(name: str, length: int) -> None:
    model = make_model(SHAPES[name])
    row, other = draw_rows(model.config, [10, 10])
    cache = make_cache(model.config)
    with torch.inference_mode():
        expected, changed = alone(model, [row]), alone(model, [torch.cat([row[:length], other[length:]])])
    slot = cache.pages.open()
    feed(model, cache, (slot, row[:length]))
    second, third = cache.pages.fork(slot, 2)
    held = cache.pages.pages - cache.pages.free
    assert held == cache.pages.pages_for(length)
    found = feed(model, cache, (second, other[length : length + 2]), (slot, row[length : length + 1]))
    assert_close(found[0], changed[length : length + 2])
    assert_close(found[1], expected[length : length + 1])
    (found,) = feed(model, cache, (third, row[length:]))
    assert_close(found, expected[length:])
    cache.pages.close(slot)
    (found,) = feed(model, cache, (second, other[length + 2 :]))
    assert_close(found, changed[length + 2 :])
    again = cache.pages.open()
    assert again == slot
    (found,) = feed(model, cache, (again, row))
    assert_close(found, expected)


def test_those_who_share_a_page_need_a_copy_each_but_one() -> None:
    cache = make_cache(BASE, pages=4 + 1)
    model, pages = make_model(BASE), cache.pages
    (row,) = draw_rows(BASE, [6])
    slot = pages.open()
    feed(model, cache, (slot, row))
    forks = pages.fork(slot, 2)
    assert (pages.free, pages.needed([slot, *forks], [1, 1, 1])) == (2, 2)
    assert pages.needed([slot, forks[0]], [1, 1]) == 2  # the third still reads it
    assert pages.needed([slot], [3]) == 2
    feed(model, cache, *((s, row[:1]) for s in (slot, *forks)))
    assert pages.free == 0
    assert len({int(pages.table[s, 1]) for s in (slot, *forks)}) == 3


def test_a_failed_pass_leaves_everything_as_it_was() -> None:
    model = make_model(BASE)
    (row,) = draw_rows(BASE, [8])
    cache = make_cache(BASE)
    slot = cache.pages.open()
    feed(model, cache, (slot, row[:5]))
    (other,) = cache.pages.fork(slot, 1)
    hook = model.blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        feed(model, cache, (slot, row[5:]))
    hook.remove()
    cache.pages.check()
    assert cache.pages.lengths[[slot, other]].tolist() == [5, 5]
    with torch.inference_mode():
        expected = alone(model, [row])[5:]
    for found in feed(model, cache, (slot, row[5:]), (other, row[5:])):
        assert_close(found, expected)


@pytest.mark.parametrize("name", ["two_kv_heads", "alternating", "conv_2_4", "conv_1_1"])
@pytest.mark.parametrize("begun", [0, 1, 5])
def test_snapshots_inside_a_pass(name: str, begun: int) -> None:
    """Every place of a chunk, one after the other, beside a sequence that decodes."""
    model = make_model(SHAPES[name])
    row, other = draw_rows(model.config, [11, 4])
    with torch.inference_mode():
        expected = alone(model, [row])
    for tokens in range(0 if begun else 1, 10 - begun):
        cache = make_cache(model.config)
        pages = cache.pages
        slot, beside = pages.open(), pages.open()
        if begun:
            feed(model, cache, (slot, row[:begun]))
        snapshot = pages.take_snapshot()
        assert snapshot is not None
        parts = [(beside, other[:1]), (slot, row[begun:10])]
        feed(model, cache, *parts, snapshots=[(1, tokens, snapshot)])
        length = begun + tokens
        prefix = pages.pages_of(slot)[: pages.pages_for(length)]
        pages.keep(prefix)
        pages.close(slot)
        continued = pages.adopt(prefix, length, snapshot)
        (found,) = feed(model, cache, (continued, row[length:]))
        assert_close(found, expected[length:], what=f"{tokens} tokens")
        pages.close(continued)
        pages.let_go(prefix)
        pages.drop_snapshot(snapshot)
        pages.close(beside)
        pages.check()
        assert (pages.free, pages.free_snapshots) == (pages.pages, pages.snapshots)


@pytest.mark.parametrize("name", ["two_kv_heads", "alternating", "conv_2_4", "conv_1_1"])
@pytest.mark.parametrize("accepted", range(1, 6))
def test_drafts_are_taken_back(name: str, accepted: int) -> None:
    model = make_model(SHAPES[name])
    row, drafts, beside = draw_rows(model.config, [12, 5, 3])
    cache = make_cache(model.config)
    slot, other = cache.pages.open(), cache.pages.open()
    feed(model, cache, (slot, row[:3]), (other, beside[:2]))
    snapshot = cache.pages.take_snapshot()
    assert snapshot is not None
    right = torch.cat([row[3 : 3 + accepted], drafts[accepted:]])
    context = cache.begin_pass([(other, 1), (slot, 5)], tentative=[1], snapshots=[(1, 2, snapshot)])
    with torch.inference_mode():
        out = model(torch.cat([beside[2:], right]), cu_seqlens=[0, 1, 6], cache=context)
        expected = alone(model, [row])
    assert cache.pages.lengths[[slot, other]].tolist() == [3, 3]
    context.accept([accepted])
    cache.pages.check()
    assert cache.pages.lengths[slot] == 3 + accepted
    assert cache.pages.held[slot] == cache.pages.pages_for(3 + accepted)
    assert_close(out[1 : 1 + accepted], expected[3 : 3 + accepted])
    if accepted >= 2:
        again = cache.pages.adopt(cache.pages.pages_of(slot)[:2], 5, snapshot)
        (found,) = feed(model, cache, (again, row[5:]))
        assert_close(found, expected[5:])
    (found,) = feed(model, cache, (slot, row[3 + accepted :]))
    assert_close(found, expected[3 + accepted :])


@pytest.mark.parametrize("name", NAMES)
def test_int8_is_near_and_does_not_depend_on_the_schedule(name: str) -> None:
    """Through the same experts: a choice that tips over is not what is measured here."""
    model = make_model(SHAPES[name])
    (row,) = draw_rows(model.config, [14])
    with torch.inference_mode():
        plain = model(row[None], want=Want(routes=True))
    assert plain.logits is not None
    assert plain.routes is not None
    expected, found = plain.logits[0].log_softmax(-1), []
    for sizes in ([14], [5, 9], [1] * 14, [6, 1, 1, 6]):
        cache, logits = make_cache(model.config, kv_dtype="int8"), []
        slot = cache.pages.open()
        for part, routes in zip(row.split(sizes), plain.routes[0].split(sizes), strict=True):
            context = cache.begin_pass([(slot, len(part))])
            with torch.inference_mode():
                logits.append(model(part, cu_seqlens=[0, len(part)], cache=context, routes=routes))
        found.append(torch.cat(logits).log_softmax(-1))
        assert_close(found[-1], expected, "int8_kv")
        assert_close(found[-1], found[0])
    assert (found[0] - expected).abs().max() > 1e-4, "int8 that changes nothing was not used"
    assert cache.keys.nbytes * 4 == make_cache(model.config).keys.nbytes


def count_attention(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, keys) of every call of torch's attention from here on."""
    calls: list[tuple[int, int]] = []
    attention = module.F.scaled_dot_product_attention

    def counted(q: torch.Tensor, k: torch.Tensor, *args, **options) -> torch.Tensor:
        calls.append((k.shape[0], k.shape[2]))
        return attention(q, k, *args, **options)

    monkeypatch.setattr(module.F, "scaled_dot_product_attention", counted)
    return calls


def test_decoding_does_not_visit_sequences_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(BASE)
    cache = make_cache(BASE)
    slots = [cache.pages.open() for _ in range(6)]
    feed(model, cache, *((slot, torch.full((3 + i % 3,), 5)) for i, slot in enumerate(slots)))
    calls = count_attention(monkeypatch)
    monkeypatch.setattr(module, "causal_attention", lambda *_, **__: 1 / 0)
    for _ in range(2):
        feed(model, cache, *((slot, torch.ones(1, dtype=torch.long)) for slot in slots))
    assert calls == [(6, 6)] * BASE.num_layers + [(6, 7)] * BASE.num_layers


def test_padding_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(BASE)
    rows = draw_rows(BASE, [2, 60, 3, 30, 4, 2])
    cache = make_cache(BASE)
    slots = [cache.pages.open() for _ in rows]
    for slot, row in zip(slots, rows, strict=True):
        feed(model, cache, (slot, row[:-1]))
    calls = count_attention(monkeypatch)
    found = feed(model, cache, *((slot, row[-1:]) for slot, row in zip(slots, rows, strict=True)))
    assert sorted(calls[: len(calls) // BASE.num_layers], reverse=True) == [(4, 4), (2, 60)]
    monkeypatch.setattr(module, "GATHER", 1)
    with torch.inference_mode():
        expected = torch.stack([alone(model, [row])[-1] for row in rows])
    assert_close(torch.cat(found), expected)


def test_a_page_of_a_broken_text_harms_nobody() -> None:
    model = make_model(BASE)
    (row,) = draw_rows(BASE, [6])
    cache = make_cache(BASE, pages=3)
    slot = cache.pages.open()
    feed(model, cache, (slot, row))
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    cache.keys[:, 0], cache.values[:, 0] = 0, 0
    cache.columns[:, slot] = torch.nan
    cache.delayed[:, slot] = torch.nan
    cache.pages.close(slot)
    slot, short = cache.pages.open(), cache.pages.open()
    feed(model, cache, (slot, row[:2]), (short, row[:1]))
    found = feed(model, cache, (slot, row[2:3]), (short, row[1:2]))
    with torch.inference_mode():
        expected = alone(model, [row])
    assert_close(torch.cat(found), expected[[2, 1]])
