"""Whatever happens, everybody gets the text that is theirs, and nothing is lost.

Requests come and go at random: prompts that begin alike, several completions of one, priorities, salts, cancellations,
new versions of the same weights, drafts, far too few pages for all of them, passes that break off. After every step
pages, slots and snapshots are accounted for. At the end:

1. every text is the one that its request gets alone, token by token; one that was cancelled is a beginning of it
2. so are its routes, where it wanted them
3. versions are those of the steps in which the ids were drawn, and never go back
4. nothing is running, and no page or snapshot is held but by the prefix cache, which gives up all it has
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace

import pytest

from tests.parity.shapes import BASE
from tests.parity.test_paths import make_model
from zaya.engine.engine import Engine
from zaya.engine.handle import RequestHandle
from zaya.engine.types import Completion, FinishReason, Request, SamplingParams
from zaya.model.native import NativeModel
from zaya.model.transformer import ZayaModel
from zaya.ops.cpu import kernels

pytestmark = pytest.mark.usefixtures("unchecked_shapes")  # which take nine tenths of the time; other tests check them

CONFIG = replace(
    BASE, vocab_size=11, hidden_size=16, num_layers=2, num_heads=2, head_dim=8, eos_id=1, sliding_layers=(1,),
    sliding_window=7,
)  # fmt: skip
TINY = {"page_size": 2, "max_batch": 5, "max_batch_tokens": 12}

OPTIONS = {
    "plain": {"pages": 60},
    "few pages": {"pages": 24},
    "few pages, drafts": {"pages": 24, "speculate": 3},
    "drafts": {"pages": 200, "speculate": 4},
    "no prefix cache": {"pages": 30, "prefix_cache": False},
    "deterministic": {"pages": 30, "deterministic": True},
    "interrupted": {"pages": 60, "speculate": 2},
}


@pytest.fixture(scope="module")
def model() -> ZayaModel:
    return make_model(CONFIG)


class Texts:
    """What every request gets alone: one sequence at a time, token by token, computed once."""

    def __init__(self, model: ZayaModel) -> None:
        self.engine = Engine(model, max_batch=1, prefix_cache=False, pages=100)
        self.known: dict[tuple, list[Completion]] = {}

    def of(self, request: Request, index: int) -> Completion:
        assert request.prompt_ids is not None
        is_greedy = request.params.temperature == 0
        key = (tuple(request.prompt_ids), None if is_greedy else request.seed)
        if key not in self.known:
            params = replace(request.params, max_tokens=LONGEST)
            alone = replace(request, params=params, n=1 if is_greedy else MOST, want_routes=True, priority=0)
            with kernels.without_kernels():
                (self.known[key],) = self.engine.complete([alone])
        return self.known[key][0 if is_greedy else index]


@pytest.fixture(scope="module")
def texts(model: ZayaModel) -> Texts:
    with kernels.without_kernels():
        return Texts(model)


LONGEST, MOST = 14, 5
ROW = [*range(2, 11)] * 4
PROMPTS = [ROW[:n] for n in (1, 3, 16, 17, 18, 33)] + [[*ROW[:16], 4, 4, 7], [*ROW[:33], 9], [5, 5, 5, 5]]
"""Many begin alike; a block of the prefix cache is 16 tokens here."""


def draw_request(rng: random.Random) -> Request:
    return Request(
        prompt_ids=rng.choice(PROMPTS),
        params=SamplingParams(max_tokens=rng.choice([1, 2, 5, LONGEST]), temperature=rng.choice([0.0, 1.0])),
        n=rng.choice([1, 1, 1, 2, 3, MOST]),
        seed=rng.randrange(2),
        priority=rng.choice([0, 0, 0, 1, -1]),
        cache_salt=rng.choice(["", "", "other"]),
        want_routes=rng.random() < 0.3,
    )


def check(texts: Texts, request: Request, handle: RequestHandle, *, was_cancelled: bool) -> None:
    for index, completion in enumerate(handle.completed()):
        alone = texts.of(request, index)
        expected = alone.ids[: request.params.max_tokens]
        if completion.finish_reason is FinishReason.CANCELLED:
            assert was_cancelled
            expected = expected[: len(completion.ids)]
        assert completion.ids == expected
        assert sorted(completion.weight_versions) == list(completion.weight_versions)
        assert len(completion.weight_versions) == len(completion.logprobs) == len(completion.ids)
        if request.want_routes and completion.finish_reason is not FinishReason.CANCELLED:
            assert completion.routes is not None
            assert alone.routes is not None
            assert completion.routes.tolist() == alone.routes[: len(completion.routes)].tolist()
            assert len(completion.routes) == len(request.prompt_ids or ()) + len(expected) - 1


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("path", ["plain", "compiled"])
@pytest.mark.parametrize("name", OPTIONS)
def test_anything(
    name: str, path: str, seed: int, model: ZayaModel, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(f"{name} {path} {seed}")
    # of the compiled kernels those for AVX2, whose vectors fit this model
    monkeypatch.setenv("ZAYA_KERNELS", "avx2" if path == "compiled" else "off")
    if path == "compiled" and NativeModel.of(model) is None:
        pytest.skip("no kernels here")
    engine = Engine(model, **TINY, **OPTIONS[name])
    asked: list[tuple[Request, RequestHandle]] = []
    cancelled: set[RequestHandle] = set()
    steps = 0
    while steps < 150 or not all(handle.is_done for _, handle in asked):
        while steps < 150 and rng.random() < 0.3:
            request = draw_request(rng)
            generations = engine._generations(request, "the request")
            engine._inbox.append(generations)
            asked.append((request, generations[0].handle))
        if asked and rng.random() < 0.06:
            handle = rng.choice(asked[-6:])[1]
            cancelled.add(handle)
            handle.cancel()
        if rng.random() < 0.03:
            engine.weight_version += 1
        if name == "interrupted" and rng.random() < 0.1:
            # in the middle of a pass, where it is the model's own, or before its draws count
            hook = model.blocks[1].register_forward_pre_hook(interrupt) if rng.random() < 0.5 else None
            monkeypatch.setattr(engine._runner.sampler, "sample", interrupt)
            with contextlib.suppress(KeyboardInterrupt):
                engine._step()
            monkeypatch.delattr(engine._runner.sampler, "sample")
            if hook is not None:
                hook.remove()
        else:
            engine._step()
        engine.check()
        steps += 1
        assert steps < 3000
    for request, handle in asked:
        check(texts, request, handle, was_cancelled=handle in cancelled)
    stats, cache = engine.stats, engine._scheduler.cache
    assert (stats.running, stats.waiting) == (0, 0)
    assert len(asked) > 20
    assert stats.snapshots == len(cache)
    cache.clear()
    engine.check()
    assert engine.stats.pages_free == engine._scheduler.pages.pages
    assert stats.preemptions > 0 or name in ("plain", "drafts", "interrupted")
    assert (stats.prefix_hits > 0) == (name != "no prefix cache")
    assert (stats.drafts_accepted > 0) == ("speculate" in OPTIONS[name])
