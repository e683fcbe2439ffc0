"""The parity square: however a text goes through the engine, its log-probabilities are those of one plain pass.

For every shape, by the model's own operations and by the compiled kernels, and for a prompt that is continued by what
the engine draws:

1. the plain pass over the whole text, and token by token through the dense cache
2. the engine, alone; with the prompt in chunks of every size; beside strangers
3. behind a prefix that was read before: the same prompt again, one that goes on from the completion
4. forked from a prompt that was read once
5. read again after its pages were taken
6. with drafts out of its own text, some right and some wrong
7. in deterministic mode: there to the last bit, whatever happens around it
8. with keys and values in a byte each, nearly
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.parity.shapes import SHAPES
from tests.parity.test_paths import draw_rows, make_model
from tests.tolerances import assert_close
from zaya.engine.engine import Engine
from zaya.engine.paged import PagedCache
from zaya.engine.pages import PageTable
from zaya.engine.scheduler import Track
from zaya.engine.types import Completion, Request, SamplingParams
from zaya.model.cache import DenseCache
from zaya.model.config import ModelConfig
from zaya.model.native import NativeModel
from zaya.model.transformer import Want, ZayaModel

pytestmark = pytest.mark.usefixtures("unchecked_shapes")  # they take most of the time; other tests check them

BLOCK = 8
PROMPT, DRAWN = 19, 7
"""Tokens: two blocks and a bit, and the completion crosses the next."""
MODELS = {name: make_model(replace(config, eos_id=1)) for name, config in SHAPES.items()}


@pytest.fixture(params=["plain", "compiled"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    # of the compiled kernels those for AVX2, whose vectors fit these small models
    monkeypatch.setenv("ZAYA_KERNELS", "avx2" if request.param == "compiled" else "off")
    return request.param


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest, path: str) -> ZayaModel:
    model = MODELS[request.param]
    if path == "compiled" and NativeModel.of(model) is None:
        pytest.skip("no kernels here, or none for this shape")
    return model


def make_engine(model: ZayaModel, **options) -> Engine:
    engine = Engine(model, **{"page_size": BLOCK // 8, "pages": 200, "max_batch": 4, **options})
    engine.stop_ids = frozenset()
    return engine


def draw_prompt(config: ModelConfig, seed: int = 0) -> list[int]:
    """A prompt that says everything twice."""
    (row,) = draw_rows(config, [PROMPT // 2], seed=seed)
    return [*row.tolist(), *row.tolist(), 5]


def ask(prompt: list[int], **changes) -> Request:
    return replace(Request(prompt_ids=prompt, params=SamplingParams(max_tokens=DRAWN), seed=3), **changes)


def plain_logprobs(model: ZayaModel, completion: Completion) -> torch.Tensor:
    """Of each drawn id, by a plain pass over the whole text."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*completion.prompt_ids, *completion.ids]]))[0]
    drawn = torch.tensor(completion.ids)[:, None]
    return logits[len(completion.prompt_ids) - 1 : -1].log_softmax(-1).gather(1, drawn).squeeze(1)


def check(model: ZayaModel, *completions: Completion, what: str) -> None:
    for completion in completions:
        assert_close(torch.from_numpy(completion.logprobs), plain_logprobs(model, completion), what=what)


def test_plain_and_dense(model: ZayaModel) -> None:
    [[completion]] = make_engine(model).complete([ask(draw_prompt(model.config))])
    cache, found = DenseCache(model.config), []
    with torch.inference_mode():
        for id in (*completion.prompt_ids, *completion.ids):
            found.append(model(torch.tensor([[id]]), cache=cache)[0, 0].log_softmax(-1))
    drawn = torch.tensor(completion.ids)[:, None]
    dense = torch.stack(found[PROMPT - 1 : -1]).gather(1, drawn).squeeze(1)
    assert_close(dense, plain_logprobs(model, completion), what="dense")
    check(model, completion, what="alone")


def test_chunks_of_every_size(model: ZayaModel) -> None:
    request = ask(draw_prompt(model.config), params=SamplingParams(max_tokens=2))
    ids = set()
    for size in range(1, PROMPT + 1):
        [[completion]] = make_engine(model, max_batch_tokens=size).complete([request])
        check(model, completion, what=f"chunks of {size}")
        ids.add(completion.ids)
    assert len(ids) == 1


def test_strangers(model: ZayaModel) -> None:
    """Prompts of other lengths come and go beside it."""
    requests = [ask(draw_prompt(model.config))]
    requests += [ask(row.tolist(), seed=i) for i, row in enumerate(draw_rows(model.config, [1, 30, 7, 12, 2], seed=1))]
    engine = make_engine(model, max_batch_tokens=16)
    together = [completion for (completion,) in engine.complete(requests)]
    check(model, *together, what="beside strangers")
    assert together[0].ids == make_engine(model).complete(requests[:1])[0][0].ids


def test_prefix_hits(model: ZayaModel) -> None:
    engine = make_engine(model)
    prompt = draw_prompt(model.config)
    [[first]] = engine.complete([ask(prompt)])
    [[again]] = engine.complete([ask(prompt)])
    [[shorter]] = engine.complete([ask(prompt[: 2 * BLOCK + 1], seed=4)])
    [[further]] = engine.complete([ask([*prompt, *first.ids, 5, 6], seed=4)])
    [[other]] = engine.complete([ask([*prompt[:-3], 8, 9, 9, 8], seed=4)])
    hits = [c.cached_tokens for c in (first, again, shorter, further, other)]
    assert hits == [0, PROMPT - 1, 2 * BLOCK, PROMPT + DRAWN - 1, 2 * BLOCK]
    assert again.ids == first.ids
    check(model, first, again, shorter, further, other, what="prefix hit")


def test_forks(model: ZayaModel) -> None:
    [completions] = make_engine(model).complete([ask(draw_prompt(model.config), n=4)])
    assert [c.cached_tokens for c in completions] == [0, PROMPT, PROMPT, PROMPT]
    assert len({c.ids for c in completions}) > 1
    check(model, *completions, what="forked")


def test_pages_that_were_taken(model: ZayaModel) -> None:
    """Three texts of 25 tokens in 60 places."""
    requests = [ask(draw_prompt(model.config, seed=seed), seed=seed) for seed in range(3)]
    engine = make_engine(model, pages=60)
    taken = [completion for (completion,) in engine.complete(requests)]
    assert engine.stats.preemptions > 0
    check(model, *taken, what="read again")
    assert [c.ids for c in taken] == [c.ids for (c,) in make_engine(model).complete(requests)]


def test_drafts(model: ZayaModel) -> None:
    """Of three drafts none, one, two or all are right, in turn. Blocks end inside of them."""
    prompt, params = draw_prompt(model.config), SamplingParams(max_tokens=20)
    requests = [ask(prompt, params=params), ask(prompt[:4], params=params, seed=1)]
    plain = [completion for (completion,) in make_engine(model).complete(requests)]
    whole = {c.prompt_ids: [*c.prompt_ids, *c.ids] for c in plain}
    engine = make_engine(model, speculate=3)

    def propose(track: Track, count: int) -> list[int]:
        drafts = whole.get(track.prompt.ids, [])[track.length : track.length + count]
        right = track.length % 4
        return [id if i < right else 4 + id % 2 for i, id in enumerate(drafts)][: max(0, 19 - len(track.drawn))]

    engine._scheduler.propose = propose
    drafted = [completion for (completion,) in engine.complete(requests)]
    assert 0 < engine.stats.drafts_accepted < engine.stats.drafts_proposed
    check(model, *drafted, what="drafts")
    assert [c.ids for c in drafted] == [c.ids for c in plain]
    goes_on = ask([*whole[tuple(prompt)], 7], seed=5)
    [[continued]] = engine.complete([goes_on])
    assert continued.cached_tokens == PROMPT + 19
    check(model, continued, what="behind drafts")


@pytest.mark.parametrize("name", ["two_kv_heads", "alternating", "conv_2_4"])
def test_deterministic_to_the_last_bit(name: str) -> None:
    model = MODELS[name]
    prompt = draw_prompt(model.config)
    request = ask(prompt, params=SamplingParams(max_tokens=DRAWN, temperature=0.8, top_k=40))
    alone = make_engine(model, deterministic=True, prefix_cache=False).complete([request])[0][0]
    check(model, alone, what="deterministic")
    strangers = [ask(row.tolist(), seed=9, n=2) for row in draw_rows(model.config, [4, 23, 23], seed=1)]
    strangers.append(ask([*prompt[:BLOCK], 7, 7], seed=5))
    for options in ({}, {"max_batch_tokens": 3}, {"pages": 60}, {"page_size": 2}):
        engine = make_engine(model, deterministic=True, **options)
        for requests in ([*strangers[:3], request, *strangers[3:]], [request], [replace(request, n=2)]):
            found = [group[0] for group, r in zip(engine.complete(requests), requests, strict=True) if r.seed == 3]
            assert found[0].ids == alone.ids
            for field in ("logprobs", "behavior_logprobs"):
                mine, theirs = (torch.from_numpy(getattr(c, field)) for c in (found[0], alone))
                assert torch.equal(mine, theirs)
        assert engine.stats.prefix_hits > 0
        assert (engine.stats.preemptions > 0) == ("pages" in options)


def test_int8(model: ZayaModel) -> None:
    """Through the same experts: a choice that tips over is not what is measured here."""
    (row,) = draw_rows(model.config, [26])
    with torch.inference_mode():
        plain = model(row[None], want=Want(routes=True))
        for sizes in ([26], [8, 1, 9, 8]):
            cache = PagedCache(model.config, PageTable(30, page_size=4, slots=1, snapshots=0), kv_dtype="int8")
            slot, found = cache.pages.open(), []
            for part, routes in zip(row.split(sizes), plain.routes[0].split(sizes), strict=True):
                context = cache.begin_pass([(slot, len(part))])
                found.append(model(part, cu_seqlens=[0, len(part)], cache=context, routes=routes))
            assert_close(torch.cat(found).log_softmax(-1), plain.logits[0].log_softmax(-1), "int8_kv")
