"""Promises of data/loader (spec pretraining 13, test 7):

1. A batch holds whole documents, or consecutive chunks of long plain ones, packed without padding; every target is the
   next id of the same document.
2. The batch of step k depends on data, settings, seed and k alone: not on the steps before it, on a resume, on threads.
3. The parts of all ranks, one after another, are the same batch for every world size.
4. An epoch takes every bin of a component once; components come in the proportion of their weights.
5. What schedules count, the tokens before a step, is exact.
6. A resume with other data, settings or seed is refused.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from zaya.data.dataset import Dataset
from zaya.data.loader import Batch, Component, Loader, LoaderConfig
from zaya.data.masks import Segment
from zaya.data.prepare import PrepareConfig, prepare
from zaya.data.sources import Conversation, InMemory, Text
from zaya.errors import ConfigError, DataError
from zaya.text import byte_tokenizer

BYTES = byte_tokenizer()
CONTEXT = 96
CONFIG = LoaderConfig(context=CONTEXT, bins_per_step=4)
ARRAYS = [field.name for field in fields(Batch) if field.name not in ("step", "tokens_before", "tokens_global")]


def chat(i: int) -> Conversation:
    reply = {"role": "assistant", "content": f"A{i}", "reasoning": "r" * (i % 7 * 3)}
    return Conversation(f"{i}", [{"role": "user", "content": f"Q{i}"}, reply])


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Dataset:
    lengths = [(37 * i) % 61 + 1 for i in range(30)] + [94, 95, 96, 190, 191, 192, 193, 500]
    source = InMemory([Text(f"{i}", "".join(f"{i}.{j} " for j in range(n))[:n]) for i, n in enumerate(lengths)])
    return prepare(source, BYTES, tmp_path_factory.mktemp("data") / "text", PrepareConfig(shard_bytes=4000))


@pytest.fixture(scope="module")
def chats(tmp_path_factory) -> Dataset:
    source = InMemory([chat(i) for i in range(25)])
    return prepare(source, BYTES, tmp_path_factory.mktemp("data") / "chats", PrepareConfig(context=CONTEXT))


@pytest.fixture(scope="module")
def components(text: Dataset, chats: Dataset) -> list[Component]:
    return [Component("text", text, 0.7), Component("chats", chats, 0.3)]


def same(a: Batch, b: Batch) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ARRAYS)
    return arrays and (a.step, a.tokens_before, a.tokens_global) == (b.step, b.tokens_before, b.tokens_global)


def joined(parts: list[Batch]) -> Batch:
    """The global batch of the parts of all ranks."""
    merged = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    ends = np.cumsum([0, *(len(part.ids) for part in parts)])
    starts = [part.cu_seqlens[:-1] + end for part, end in zip(parts, ends, strict=False)]
    merged["cu_seqlens"] = np.concatenate([*starts, ends[-1:]]).astype(np.int32)
    return replace(parts[0], **merged)


def sequences(batch: Batch) -> list[slice]:
    return [slice(a, b) for a, b in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)]


# 1. What a batch is


def test_the_parts_of_a_batch(components: list[Component]):
    loader = Loader(components, CONFIG, seed=5)
    for _, batch in zip(range(12), loader, strict=False):
        assert {len(getattr(batch, name)) for name in ARRAYS if name != "cu_seqlens"} == {len(batch.ids)}
        assert batch.tokens_global == len(batch.ids) <= CONTEXT * 4
        assert batch.cu_seqlens[0] == 0
        assert batch.cu_seqlens[-1] == len(batch.ids)
        dtypes = [getattr(batch, name).dtype.name for name in ARRAYS]
        assert dtypes == ["int32", "int32", "bool", "uint8", "int32", "int32", "int32", "int64"]
        for at in sequences(batch):
            assert np.array_equal(batch.positions[at], np.arange(at.stop - at.start))
            assert len(set(batch.documents[at])) == len(set(batch.components[at])) == 1


def test_every_sequence_is_a_piece_of_its_document_and_targets_are_what_follows(components: list[Component]):
    loader = Loader(components, CONFIG, seed=5)
    for _, batch in zip(range(40), loader, strict=False):
        for at in sequences(batch):
            component, document = int(batch.components[at][0]), int(batch.documents[at][0])
            whole = components[component].dataset.tokens(document).tolist()
            mask = components[component].dataset.mask(document)
            ids, length = batch.ids[at].tolist(), at.stop - at.start
            starts = [0] if component == 1 else range(0, len(whole), CONTEXT)
            (start,) = [start for start in starts if whole[start : start + CONTEXT] == ids]
            following = whole[start + 1 : start + length + 1]
            known = len(following)
            assert known == length - (start + length == len(whole))
            assert batch.targets[at].tolist() == following + [0] * (length - known)
            if mask is None:
                assert batch.loss_mask[at].tolist() == [True] * known + [False] * (length - known)
                assert not batch.segments[at].any()
            else:
                learned = [bool(byte & 1) for byte in mask[1:]]
                assert batch.loss_mask[at].tolist() == [*learned, False]
                assert batch.segments[at].tolist() == [*((byte >> 1) for byte in mask[1:]), 0]


def test_a_conversation_by_hand(tmp_path: Path):
    dataset = prepare(InMemory([chat(1)]), BYTES, tmp_path / "d")
    batch = Loader([Component("c", dataset)], LoaderConfig(context=200, bins_per_step=1), 0).batch(0)
    assert BYTES.decode(batch.targets[batch.loss_mask]) == "rrr\n</think>\n\nA1<|im_end|>"
    assert BYTES.decode(batch.targets[batch.segments == Segment.THINKING]) == "rrr\n</think>\n\n"
    assert BYTES.decode(batch.targets[batch.segments == Segment.ANSWER]) == "A1"


def test_documents_may_see_those_before_them(components: list[Component]):
    alone = Loader(components, CONFIG, seed=5).batch(3)
    batch = Loader(components, replace(CONFIG, cross_document=True), seed=5).batch(3)
    assert len(batch.cu_seqlens) == 1 + CONFIG.bins_per_step < len(alone.cu_seqlens)
    assert set(batch.cu_seqlens) <= set(alone.cu_seqlens)
    for at in sequences(batch):
        assert np.array_equal(batch.positions[at], np.arange(at.stop - at.start))
    # and still no target reaches into another document
    for name in ("ids", "targets", "loss_mask", "segments", "documents"):
        assert np.array_equal(getattr(batch, name), getattr(alone, name))


# 2. and 3. The same batch


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_resume_at_every_step(components: list[Component], prefetch: int):
    expected = [Loader(components, CONFIG, seed=5).batch(step) for step in range(9)]
    with Loader(components, CONFIG, seed=5, prefetch=prefetch) as whole:
        states = []
        for batch in expected:
            states.append(json.loads(json.dumps(whole.state())))
            assert same(next(whole), batch)
    with Loader(components, CONFIG, seed=5, prefetch=prefetch) as loader:
        for step in (*range(9), 4, 0):
            loader.load_state(states[step])
            assert all(same(next(loader), batch) for batch in expected[step : step + 2])


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_global_batch_is_the_same_for_every_world_size(components: list[Component], world_size: int):
    whole = Loader(components, CONFIG, seed=5)
    ranks = [Loader(components, CONFIG, seed=5, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {loader.key for loader in ranks} == {whole.key}
    for step in range(6):
        parts = [loader.batch(step) for loader in ranks]
        assert same(joined(parts), whole.batch(step))


def test_a_run_that_changes_its_world_size(components: list[Component]):
    batches = []
    state = None
    for world_size, steps in ((1, 2), (2, 3), (4, 2), (2, 2)):
        ranks = [Loader(components, CONFIG, seed=5, rank=r, world_size=world_size) for r in range(world_size)]
        for loader in ranks:
            if state is not None:
                loader.load_state(state)
        batches += [joined([next(loader) for loader in ranks]) for _ in range(steps)]
        state = ranks[0].state()
    whole = Loader(components, CONFIG, seed=5)
    assert all(same(batch, next(whole)) for batch in batches)
    assert len(batches) == 9


def test_seed_and_step_decide(components: list[Component]):
    loader = Loader(components, CONFIG, seed=5)
    hashes = [loader.batch(step).hash64 for step in range(20)]
    assert len(set(hashes)) == 20
    assert [Loader(components, CONFIG, seed=5).batch(step).hash64 for step in reversed(range(20))] == hashes[::-1]
    assert Loader(components, CONFIG, seed=6).batch(0).hash64 not in hashes
    assert all(0 <= value < 2**64 for value in hashes)


@pytest.mark.parametrize("name", ARRAYS)
def test_the_hash_knows_every_array(components: list[Component], name: str):
    batch = Loader(components, CONFIG, seed=5).batch(0)
    changed = getattr(batch, name).copy()
    changed[-1] ^= 1
    assert replace(batch, **{name: changed}).hash64 != batch.hash64


def test_a_fault_in_the_thread_comes_out_and_the_thread_ends(components: list[Component], monkeypatch):
    before = threading.active_count()
    with Loader(components, CONFIG, seed=5, prefetch=2) as loader:
        first = next(loader)
        loader.load_state(loader.state())
        monkeypatch.setattr(loader, "batch", lambda step: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                next(loader)
        assert loader.step == 1
    assert threading.active_count() == before
    assert first.step == 0


# 4. and 5. Epochs, shares, counts


def test_an_epoch_takes_every_token_once(text: Dataset):
    config = LoaderConfig(context=CONTEXT, bins_per_step=1)
    loader = Loader([Component("text", text)], config, seed=5)
    bins = loader.bins["text"]
    epochs = [[loader.batch(step) for step in range(e * bins, (e + 1) * bins)] for e in range(3)]
    for epoch in epochs:
        taken = Counter((int(d), int(t)) for b in epoch for d, t in zip(b.documents, b.ids, strict=True))
        stored = Counter((d, int(t)) for d in range(len(text)) for t in text.tokens(d))
        assert taken == stored
    orders = [tuple(batch.ids.tobytes() for batch in epoch) for epoch in epochs]
    assert len(set(orders)) == 3
    assert loader.fill["text"] == pytest.approx(text.manifest.tokens / (bins * CONTEXT))
    assert loader.fill["text"] > 0.9


def test_components_come_in_proportion(components: list[Component]):
    loader = Loader(components, LoaderConfig(context=CONTEXT, bins_per_step=1), seed=5)
    counts = [0, 0]
    for step in range(50):
        (component,) = set(loader.batch(step).components)
        counts[component] += 1
        assert abs(counts[0] - 0.7 * (step + 1)) < 0.51


def test_tokens_before_a_step(components: list[Component]):
    ranks = [Loader(components, CONFIG, seed=5, rank=rank, world_size=2) for rank in range(2)]
    tokens = 0
    for step in range(40):  # several epochs of both
        parts = [loader.batch(step) for loader in ranks]
        assert {part.tokens_before for part in parts} == {tokens}
        assert {part.tokens_global for part in parts} == {sum(len(part.ids) for part in parts)}
        tokens += parts[0].tokens_global
    assert Loader(components, CONFIG, seed=5).tokens_before(40) == tokens
    assert 2 * sum(ranks[0].bins.values()) < 40 * 4


# 6. What is refused


def test_a_state_of_something_else(components: list[Component]):
    state = Loader(components, CONFIG, seed=5).state()
    others = [
        Loader(components, CONFIG, seed=6),
        Loader(components, replace(CONFIG, bins_per_step=8), seed=5),
        Loader(components[:1], CONFIG, seed=5),
        Loader([components[0], replace(components[1], weight=0.2)], CONFIG, seed=5),
        Loader([components[0], replace(components[1], dataset=components[0].dataset)], CONFIG, seed=5),
    ]
    for loader in others:
        with pytest.raises(ConfigError, match="belongs to other data, weights or settings"):
            loader.load_state(state)
        assert loader.step == 0


def test_what_cannot_be_loaded_together(components: list[Component], tmp_path: Path):
    with pytest.raises(ConfigError, match="at least one component"):
        Loader([], CONFIG, 0)
    with pytest.raises(ConfigError, match="different names: text, text"):
        Loader([components[0]] * 2, CONFIG, 0)
    with pytest.raises(ConfigError, match="multiple of the number of ranks: 4, 3"):
        Loader(components, CONFIG, 0, world_size=3)
    other = prepare(InMemory([Text("a", "A")]), byte_tokenizer([("a", "b")]), tmp_path / "d")
    with pytest.raises(DataError, match="different tokenizers: text, chats, other"):
        Loader([*components, Component("other", other)], CONFIG, 0)
    with pytest.raises(DataError, match=r"chats: \d+ items are longer than a bin of 60 tokens"):
        Loader(components, replace(CONFIG, context=60), 0)
    with pytest.raises(ConfigError, match="context must be at least 1: 0"):
        LoaderConfig(context=0, bins_per_step=1)
