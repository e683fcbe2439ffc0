"""The engine: many sequences at once, each as if it were alone.

1. Greedy ids are those of the plain generator, whatever the lengths, the slots and the size of a pass.
2. Sampled ids depend on the request's seed and the completion's index: not on company, order, slots or passes.
3. A completion that is cut and continued with its ids as the prompt goes on as it would have.
4. `logprobs` are those of a plain forward pass without a cache, over the ids that have a token;
   `behavior_logprobs` those of the distribution that was drawn from.
5. `routes` are those of a forward pass over prompt and completion, one row for every token that was read; forced into
   a forward pass they give its logits.
6. A prompt that is wanted several times is read once, also where its completions find no room at once; then its last
   token is read again, which is true of whatever is known from before.
7. Completions end at a stop id, which they include, or at max_tokens; a place that is free is taken by who waits.
8. The n completions come in order, with prompt, versions, progress and text.
9. What cannot be answered is refused before anything is computed, with the numbers; a call that breaks off leaves the
   engine usable; nothing of weights outlives their version, or a change while nobody is under way.
10. Who submits gets the same, in pieces that join to the whole, from any thread or loop, while others are answered;
    who cancels gets what there is; who streams and stops listening ends it. Pieces are as far apart as `pace` says.
11. One request's trouble is its own.
12. New weights work from the next step on, and are written down beside every id they drew.
13. The pool's size is computed, bounded and explained.
14. A program that ends while an engine is at work ends quietly.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import zaya
from tests.parity.shapes import BASE, SHAPES
from tests.parity.test_paths import draw_rows, make_model
from tests.tolerances import assert_close
from zaya.engine import engine as module
from zaya.engine.engine import Engine, PoolSizes
from zaya.engine.handle import RequestHandle
from zaya.engine.runner import Generation
from zaya.engine.types import Completion, Delta, FinishReason, Request, SamplingParams
from zaya.errors import UsageError
from zaya.model.config import ModelConfig
from zaya.model.generate import generate
from zaya.model.transformer import Want, ZayaModel
from zaya.ops.sampling import probabilities
from zaya.text import byte_tokenizer, render

NAMES = ["alternating", "window_of_one", "conv_2_4", "conv_1_1"]
LENGTHS = [5, 1, 9, 3, 9]
SMALL = SamplingParams(max_tokens=4)


def make_engine(config: ModelConfig = BASE, **options: int) -> Engine:
    return Engine(make_model(replace(config, eos_id=1)), **options)


def make_prompts(config: ModelConfig, lengths: list[int] = LENGTHS) -> list[list[int]]:
    return [row.tolist() for row in draw_rows(config, lengths, seed=3)]


def sampled(engine: Engine, prompts: list[list[int]], **params: object) -> list[tuple[int, ...]]:
    options = {"max_tokens": 7, **params}
    requests = [Request(prompt_ids=p, params=SamplingParams(**options), seed=i) for i, p in enumerate(prompts)]
    return [completion.ids for (completion,) in engine.complete(requests)]


def full_logits(model: ZayaModel, completion: Completion) -> torch.Tensor:
    """Logits that a plain pass gives for each id of a completion."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*completion.prompt_ids, *completion.ids]]))[0]
    return logits[len(completion.prompt_ids) - 1 : -1]


@pytest.mark.parametrize("name", NAMES)
def test_greedy_is_what_the_plain_generator_gives(name: str) -> None:
    model = make_model(replace(SHAPES[name], eos_id=1))
    prompts = make_prompts(model.config)
    expected = [tuple(generate(model, p, max_tokens=6, temperature=0)) for p in prompts]
    for options in ({}, {"max_batch": 3}, {"max_batch": 1, "max_batch_tokens": 4}):
        assert sampled(Engine(model, **options), prompts, temperature=0.0, max_tokens=6) == expected


@pytest.mark.parametrize("params", [{}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}])
def test_samples_do_not_depend_on_company(params: dict) -> None:
    engine = make_engine()
    prompts = make_prompts(BASE)
    crowd = sampled(engine, prompts, **params)
    assert crowd == [
        engine.complete([Request(prompt_ids=p, params=SamplingParams(max_tokens=7, **params), seed=i)])[0][0].ids
        for i, p in enumerate(prompts)
    ]
    assert crowd == sampled(make_engine(max_batch=2, max_batch_tokens=4), prompts, **params)
    assert sampled(engine, [prompts[0]] * 5, **params)[0] == crowd[0]
    assert len(set(sampled(engine, [prompts[0]] * 5, **params))) == 5


def test_settings_of_one_request_do_not_reach_another() -> None:
    engine = make_engine()
    prompts = make_prompts(BASE, [4, 4, 4])
    params = [
        SamplingParams(max_tokens=9, temperature=0.0),
        SamplingParams(max_tokens=6, top_k=2),
        SamplingParams(max_tokens=8, temperature=1.5, top_p=0.5),
    ]
    requests = [Request(prompt_ids=p, params=q, n=2) for p, q in zip(prompts, params, strict=True)]
    together = [[c.ids for c in found] for found in engine.complete(requests)]
    assert together == [[c.ids for c in engine.complete([request])[0]] for request in requests]


def test_a_cut_completion_goes_on_as_it_would_have() -> None:
    engine = make_engine()
    (prompt,) = make_prompts(BASE, [5])
    whole = engine.complete([Request(prompt_ids=prompt, params=SamplingParams(max_tokens=9), seed=4)])[0][0].ids
    assert len(whole) == 9
    rest = Request(prompt_ids=[*prompt, *whole[:4]], params=SamplingParams(max_tokens=5), seed=4)
    assert engine.complete([rest])[0][0].ids == whole[4:]


@pytest.mark.parametrize("name", NAMES)
def test_logprobs_are_those_of_a_plain_pass(name: str) -> None:
    engine = make_engine(SHAPES[name], max_batch=4)
    params = SamplingParams(max_tokens=8, temperature=0.7, top_k=12, top_p=0.9)
    requests = [Request(prompt_ids=p, params=params, n=2) for p in make_prompts(engine.model.config)]
    for (completion, _), _ in zip(engine.complete(requests), requests, strict=True):
        logits = full_logits(engine.model, completion)
        ids = torch.tensor(completion.ids)[:, None]
        assert_close(torch.tensor(completion.logprobs)[:, None], logits.log_softmax(-1).gather(1, ids))
        behavior = torch.stack([probabilities(row, temperature=0.7, top_k=12, top_p=0.9) for row in logits])
        assert_close(torch.tensor(completion.behavior_logprobs)[:, None], behavior.gather(1, ids).log())


@pytest.mark.parametrize("name", NAMES)
def test_routes_are_those_of_a_plain_pass_and_can_be_replayed(name: str) -> None:
    config = SHAPES[name]
    engine = Engine(make_model(replace(config, eos_id=1), skip_bias=0.1), max_batch=5, max_batch_tokens=6)
    prompts = make_prompts(config)
    requests = [Request(prompt_ids=p, params=SamplingParams(max_tokens=7), n=2, want_routes=True) for p in prompts]
    requests[2] = replace(requests[2], want_routes=False)
    skipped = 0
    for request, completions in zip(requests, engine.complete(requests), strict=True):
        for completion in completions:
            if not request.want_routes:
                assert completion.routes is None
                continue
            assert completion.routes is not None
            assert completion.routes.dtype == np.uint8
            read = torch.tensor([[*completion.prompt_ids, *completion.ids[:-1]]])
            with torch.inference_mode():
                plain = engine.model(read, want=Want(routes=True))
                replayed = engine.model(read, routes=torch.from_numpy(completion.routes).long()[None])
            assert plain.routes is not None
            assert completion.routes.tolist() == plain.routes[0].tolist()
            assert_close(replayed, plain.logits)
            skipped += (completion.routes == config.num_experts).sum()
    assert skipped > 0


def count_read_tokens(engine: Engine) -> list[int]:
    """Tokens of every pass from here on."""
    seen: list[int] = []
    runner, step = engine._runner, engine._runner.step

    def counted() -> list:
        before = runner.tokens_read
        got = step()
        if runner.tokens_read > before:
            seen.append(runner.tokens_read - before)
        return got

    runner.step = counted
    return seen


@pytest.mark.parametrize(("max_batch", "passes"), [(8, [5, 6, 6, 6]), (4, [5, 4, 4, 4, 1, 2, 2, 2])])
def test_a_prompt_is_read_once(max_batch: int, passes: list[int]) -> None:
    """Six completions of one prompt in 8 slots, and in 4: as if each had been asked for alone. Those that find no slot
    at first read the prompt's last token again, whose logits nobody has kept."""
    engine = make_engine(max_batch=max_batch)
    engine.stop_ids = frozenset()
    (prompt,) = make_prompts(BASE, [5])
    params = SamplingParams(max_tokens=4)
    alone = [engine.complete([Request(prompt_ids=prompt, params=params, n=i + 1, seed=7)])[0][i].ids for i in range(6)]
    engine.weight_version += 1  # so that nothing of this is known
    assert len(set(alone)) == 6
    seen = count_read_tokens(engine)
    requests = [Request(prompt_ids=prompt, params=params, n=4, seed=7)] * 1
    requests += [Request(prompt_ids=tuple(prompt), params=params, n=2, seed=8)]
    first, second = engine.complete(requests)
    assert seen == passes
    assert [c.ids for c in first] == alone[:4]
    late = 5 if max_batch == 8 else 4
    assert [c.cached_tokens for c in (*first, *second)] == [0, 5, 5, 5, late, 5]


def test_free_places_are_taken_by_who_waits() -> None:
    """Budgets of 2, 5, 3 and 4 tokens in two slots: whoever ends is replaced in the next pass, beside who goes on."""
    engine = make_engine(max_batch=2)
    engine.stop_ids = frozenset()
    prompts = make_prompts(BASE, [3, 4, 5, 6])
    seen = count_read_tokens(engine)
    budgets = (2, 5, 3, 4)
    requests = [
        Request(prompt_ids=p, params=SamplingParams(max_tokens=m)) for p, m in zip(prompts, budgets, strict=True)
    ]
    found = engine.complete(requests)
    assert [len(c.ids) for (c,) in found] == list(budgets)
    assert all(c.finish_reason is FinishReason.LENGTH for (c,) in found)
    assert seen == [3 + 4, 2, 1 + 5, 2, 2, 6, 1, 1, 1]
    for (completion,), request in zip(found, requests, strict=True):
        assert completion.ids == engine.complete([request])[0][0].ids


def test_stop_ids_end_a_completion_and_belong_to_it() -> None:
    engine = make_engine()
    engine.stop_ids = frozenset()
    prompts = make_prompts(BASE)
    free = sampled(engine, prompts)
    engine.stop_ids = frozenset(range(0, 97, 9))
    stopped = 0
    for prompt_ids, before in zip(prompts, free, strict=True):
        request = Request(prompt_ids=prompt_ids, params=SamplingParams(max_tokens=7), seed=prompts.index(prompt_ids))
        completion = engine.complete([request])[0][0]
        ends = [i for i, id in enumerate(before) if id % 9 == 0]
        expected = before[: ends[0] + 1] if ends else before
        assert completion.ids == expected
        assert completion.finish_reason is (FinishReason.STOP if ends else FinishReason.LENGTH)
        stopped += bool(ends)
    assert 0 < stopped < len(prompts)


def test_stop_ids_come_from_model_and_tokenizer() -> None:
    config = replace(BASE, vocab_size=300, eos_id=7, more_eos_ids=(8, 9))
    tokenizer = byte_tokenizer()
    engine = Engine(ZayaModel(config, precision="float32"), tokenizer)
    assert engine.stop_ids == {7, 8, 9, tokenizer.tags.turn_close, tokenizer.eos_id}
    assert engine.never == tuple(range(268, 300))


def test_ids_without_a_token_are_never_drawn_and_have_no_share() -> None:
    """Rows 268 and up have none; what the others get is the softmax without them."""
    config = replace(BASE, vocab_size=600)
    model = make_model(config)
    engine = Engine(model, byte_tokenizer())
    engine.stop_ids = frozenset()
    completion = engine.complete([Request(prompt_ids=[2, 40, 9], params=SamplingParams(max_tokens=30))])[0][0]
    assert max(completion.ids) < 268
    logits = full_logits(model, completion)
    expected = logits[:, :268].log_softmax(-1).gather(1, torch.tensor(completion.ids)[:, None]).squeeze(1)
    assert_close(torch.tensor(completion.logprobs), expected)
    assert_close(torch.tensor(completion.behavior_logprobs), expected)
    assert (logits.log_softmax(-1).exp()[:, 268:].sum(-1) > 0.1).all()


def test_texts_and_chats() -> None:
    model = make_model(replace(BASE, vocab_size=268))
    tokenizer = byte_tokenizer()
    engine = Engine(model, tokenizer)
    chat = [{"role": "user", "content": "Why?"}]
    params = SamplingParams(max_tokens=5)
    prompts = ["Once", [2, 50, 60], chat]
    found = engine.generate(prompts, params, n=2, seed=1)
    rendered = tuple(render(tokenizer, chat).ids)
    expected = [tuple(tokenizer.encode("Once"))] * 2 + [(2, 50, 60)] * 2 + [rendered] * 2
    assert [c.prompt_ids for c in found] == expected
    assert found[0].text == tokenizer.decode(found[0].ids).lstrip("\n")
    assert found[0].is_closed
    assert (found[4].is_closed, found[4].text, found[4].reasoning_ids) == (False, "", found[4].ids)
    assert found[:2] != found[2:4]
    assert [c.ids for c in engine.generate(prompts[:1], params, n=2, seed=1)] == [c.ids for c in found[:2]]
    assert [c.ids for c in engine.generate(prompts[:1], params, n=2, seed=2)] != [c.ids for c in found[:2]]
    first, second = engine.generate([[2, 50]] * 2, params)
    assert first.ids != second.ids
    assert zaya.Engine is Engine
    assert zaya.SamplingParams is SamplingParams


def test_progress_and_versions() -> None:
    engine = make_engine(max_batch=2)
    engine.weight_version = 5
    told = []

    def on_progress(done: int, total: int) -> None:
        told.append((done, total))
        if done == 2:  # the weights change while others are under way
            engine.weight_version = 6

    requests = [Request(prompt_ids=[4, 5], params=SamplingParams(max_tokens=m, top_k=3)) for m in (2, 2, 3)]
    engine.stop_ids = frozenset()
    found = engine.complete(requests, on_progress=on_progress)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [c.weight_versions for (c,) in found] == [(5, 5), (5, 5), (6, 6, 6)]
    assert engine.complete([]) == []


def test_weights_may_change_between_calls() -> None:
    engine = make_engine()
    (prompt,) = make_prompts(BASE, [6])
    before = sampled(engine, [prompt], temperature=0.0)
    other = make_model(engine.model.config, seed=5)
    engine.model.load_state_dict(other.state_dict())
    after = sampled(engine, [prompt], temperature=0.0)
    assert after != before
    assert after == [tuple(generate(other, prompt, max_tokens=7, temperature=0))]
    logits = engine.model(torch.tensor([prompt]))  # and train on
    logits.square().mean().backward()


@pytest.mark.parametrize("after", range(1, 4))
def test_a_call_that_breaks_off_leaves_the_engine_usable(after: int) -> None:
    engine = make_engine(max_batch=3)
    prompts = make_prompts(BASE)
    expected = sampled(engine, prompts)
    passes = 0

    def interrupt(*_: object) -> None:
        nonlocal passes
        passes += 1
        if passes == after:
            raise KeyboardInterrupt

    engine._runner.native = None  # the model's own pass, where a hook is called
    hook = engine.model.blocks[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        sampled(engine, prompts)
    hook.remove()
    assert sampled(engine, prompts) == expected


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(prompt_ids=[], params=SMALL), "the request has an empty prompt"),
        (Request(prompt_ids=[3, 97], params=SMALL), "not from 0 to 96: 97"),
        (Request(prompt_ids=[-1], params=SMALL), "not from 0 to 96: -1"),
        (Request(prompt_ids=[3] * 90, params=SamplingParams(max_tokens=11)), "90 prompt tokens .* 11 new .* 100"),
        (Request(messages=[{"role": "user", "content": "Why?"}]), "need a tokenizer"),
    ],
)
def test_what_cannot_be_answered_is_refused_first(request_: Request, message: str) -> None:
    engine = make_engine(replace(BASE, max_positions=100))
    seen = count_read_tokens(engine)
    with pytest.raises(UsageError, match=message):
        engine.complete([request_])
    with pytest.raises(UsageError, match="request 1 has"):
        engine.complete([Request(prompt_ids=[3], params=SMALL), request_])
    assert seen == []


def test_the_context_can_be_filled() -> None:
    engine = make_engine(replace(BASE, max_positions=100))
    engine.stop_ids = frozenset()
    request = Request(prompt_ids=[3] * 90, params=SamplingParams(max_tokens=10), want_routes=True)
    completion = engine.complete([request])[0][0]
    assert len(completion.ids) == 10
    assert completion.routes is not None
    assert completion.routes.shape == (99, 3, 1)
    assert engine.context == 100
    small = make_engine(replace(BASE, max_positions=100), pages=2, page_size=4)
    assert small.context == 9  # the last token takes no place
    small.complete([Request(prompt_ids=[3] * 5, params=SMALL)])
    with pytest.raises(UsageError, match="pool holds 8"):
        small.complete([Request(prompt_ids=[3] * 6, params=SMALL)])


@pytest.mark.usefixtures("unchecked_shapes")
def test_one_prompt_is_not_a_list_of_prompts() -> None:
    for wrong in ("Once", [2, 50], [{"role": "user", "content": "Why?"}]):
        with pytest.raises(UsageError, match="a list of prompts"):
            make_engine().generate(wrong)
    with pytest.raises(UsageError, match="a text needs a tokenizer"):
        make_engine().generate(["Once"])
    with pytest.raises(UsageError, match="max_batch"):
        make_engine(max_batch=0)


def test_logits_that_are_no_numbers_are_named() -> None:
    engine = make_engine()
    with torch.no_grad():
        engine.model.embed[5] = torch.nan
    with pytest.raises(UsageError, match="logits are not numbers"):
        sampled(engine, [[4, 6]])


def test_the_report_precision_runs() -> None:
    model = make_model(replace(BASE, eos_id=1))
    model.set_precision("report")
    engine = Engine(model)
    (completion,) = engine.generate([[4, 5, 6]], SamplingParams(max_tokens=6, temperature=0))
    assert completion.ids == tuple(generate(engine.model, [4, 5, 6], max_tokens=6, temperature=0))


def test_what_is_known_from_before() -> None:
    """A chat goes on from its own completion; the same question again reads one token; another salt knows nothing."""
    engine = make_engine(page_size=1)  # blocks of 8 tokens
    engine.stop_ids = frozenset()
    prompt = make_prompts(BASE, [20])[0]
    ask = Request(prompt_ids=prompt, params=SMALL)
    [[first]] = engine.complete([ask])
    chat = [*prompt, *first.ids, 7, 8]
    seen = count_read_tokens(engine)
    requests = [ask, replace(ask, prompt_ids=chat), replace(ask, cache_salt="x"), replace(ask, prompt_ids=prompt[:12])]
    cached = []
    for request in requests:
        [[completion]] = engine.complete([request])
        cached.append(completion.cached_tokens)
        assert completion.ids == make_engine(prefix_cache=False).complete([request])[0][0].ids
    assert cached == [19, 23, 0, 8]
    assert [tokens for tokens in seen if tokens > 1] == [3, 20, 4]
    assert engine.stats.prefix_hits == 3
    assert engine.stats.prefix_tokens == 19 + 23 + 8
    [[again]] = make_engine(prefix_cache=False).complete([ask])
    assert (again.ids, again.cached_tokens) == (first.ids, 0)


def test_routes_of_what_is_known_from_before() -> None:
    engine = make_engine(page_size=1)
    prompt = make_prompts(BASE, [20])[0]
    plain, wanted = (Request(prompt_ids=prompt, params=SMALL, want_routes=want) for want in (False, True))
    [[without]] = engine.complete([plain])
    [[first]] = engine.complete([wanted])
    [[second]] = engine.complete([wanted])
    assert [c.cached_tokens for c in (without, first, second)] == [0, 0, 19], "routes that nobody noted are not known"
    assert first.routes is not None
    assert second.routes is not None
    assert first.routes.tolist() == second.routes.tolist()


# ----- submit, stream, cancel


def joined(deltas: list[Delta]) -> tuple[tuple[int, ...], str, str, list[float], FinishReason | None]:
    """What the deltas of one completion say together."""
    assert all(delta.finish_reason is None for delta in deltas[:-1])
    ids = tuple(id for delta in deltas for id in delta.ids)
    logprobs = [float(x) for delta in deltas if delta.logprobs is not None for x in delta.logprobs]
    text, reasoning = ("".join(getattr(delta, name) for delta in deltas) for name in ("text", "reasoning"))
    return ids, text, reasoning, logprobs, deltas[-1].finish_reason


def assert_says(deltas: list[Delta], completion: Completion) -> None:
    ids, text, reasoning, logprobs, finish_reason = joined(deltas)
    assert (ids, text, reasoning) == (completion.ids, completion.text, completion.reasoning)
    assert finish_reason is completion.finish_reason
    assert completion.logprobs is not None
    assert_close(torch.tensor(logprobs, dtype=torch.float32), torch.from_numpy(completion.logprobs))
    assert deltas[-1].stop_reason == completion.stop_reason
    for name in ("top_ids", "top_logprobs"):
        pieces = [getattr(delta, name) for delta in deltas if getattr(delta, name) is not None]
        expected = getattr(completion, name)
        assert (not pieces) if expected is None else np.array_equal(np.concatenate(pieces), expected)


def make_talker(**options) -> Engine:
    engine = Engine(make_model(replace(BASE, vocab_size=268)), byte_tokenizer(), **options)
    engine.stop_ids = frozenset()
    return engine


def test_who_waits_for_a_result_lets_others_go_on() -> None:
    handle = RequestHandle(1, lambda _: None, wants_deltas=True)
    engine = make_talker(max_batch=1)
    [[completion]] = engine.complete([Request(prompt_ids=[2], params=SamplingParams(max_tokens=2))])

    async def wait() -> list[Completion]:
        waiting = asyncio.create_task(handle.result())
        for _ in range(5):  # deltas that nobody fetches
            handle.tell(Delta(index=0, ids=(7,), text="x"))
            await asyncio.sleep(0)
        assert not waiting.done()
        handle.complete(0, completion)
        return await waiting

    found: list[list[Completion]] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(wait())), daemon=True)
    thread.start()
    thread.join(20)
    assert found == [[completion]]


def test_submitted_requests_are_answered_side_by_side() -> None:
    engine = make_talker(max_batch=3)
    params = SamplingParams(max_tokens=12)
    requests = [Request(prompt_ids=[2, 40 + i], params=params, n=2, seed=i) for i in range(4)]
    requests.append(Request(messages=[{"role": "user", "content": "Why?"}], params=replace(params, top_logprobs=3)))
    expected = [[c.ids for c in group] for group in engine.complete(requests)]

    async def follow(request: Request) -> list[Completion]:
        handle = engine.submit(request)
        deltas: dict[int, list[Delta]] = {index: [] for index in range(request.n)}
        async for delta in handle:
            deltas[delta.index].append(delta)
        completions = await handle.result()
        for index, completion in enumerate(completions):
            assert_says(deltas[index], completion)
        return completions

    async def follow_all() -> list[list[Completion]]:
        # one waits for its result alone, and plain code asks in the midst of the loop
        late = engine.submit(requests[0])
        found = await asyncio.gather(*map(follow, requests))
        assert [c.ids for c in await late.result()] == expected[0]
        assert [c.ids for c in engine.complete(requests[:1])[0]] == expected[0]
        return found

    assert [[c.ids for c in group] for group in asyncio.run(follow_all())] == expected
    engine.close()
    assert engine._thread is None
    with pytest.raises(UsageError, match="closed"):
        engine.submit(requests[0])
    with pytest.raises(UsageError, match="closed"):
        engine.complete(requests)


def test_many_threads() -> None:
    engine = make_engine(max_batch=3)
    prompts = make_prompts(BASE)
    expected = [sampled(engine, [prompt]) for prompt in prompts]
    found: dict[int, list[tuple[int, ...]]] = {}

    def ask(i: int) -> None:
        found[i] = sampled(engine, [prompts[i]])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [found[i] for i in range(len(prompts))] == expected


def test_a_stream_is_what_generate_gives() -> None:
    engine = make_talker()
    params = SamplingParams(max_tokens=30)
    chat = [{"role": "user", "content": "Why?"}]
    for prompt in ("Once", chat):
        (completion,) = engine.generate([prompt], params, seed=4)
        assert_says(list(engine.stream(prompt, params, seed=4)), completion)
    with pytest.raises(UsageError, match="31 new"):
        Engine(make_model(replace(BASE, max_positions=32))).stream([3, 4], SamplingParams(max_tokens=31))


def test_who_stops_listening_ends_it() -> None:
    engine = make_talker()
    stream = engine.stream("Once", SamplingParams(max_tokens=100))
    assert len(next(stream).ids) == 1
    assert engine.stats.running == 1
    stream.close()
    assert (engine.stats.running, engine.stats.waiting) == (0, 0)
    engine.check()


def test_a_stream_may_be_closed_in_the_midst_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_talker()
    params = SamplingParams(max_tokens=20, temperature=0)
    expected = [id for delta in engine.stream("Once", params) for id in delta.ids]
    left, kept = engine.stream("Twice", SamplingParams(max_tokens=100)), engine.stream("Once", params)
    next(left)
    step = engine._runner.step

    def closing() -> Any:  # as whoever tidies up memory would
        left.close()
        return step()

    monkeypatch.setattr(engine._runner, "step", closing)
    assert [id for delta in kept for id in delta.ids] == expected
    assert (engine.stats.running, engine.stats.waiting) == (0, 0)
    engine.check()


def test_a_cancelled_request_gives_what_there_is() -> None:
    engine = make_engine(max_batch=2)
    engine.stop_ids = frozenset()
    params = SamplingParams(max_tokens=2000)
    request = Request(prompt_ids=[4, 5], params=params, n=3)

    async def ask() -> tuple[list[Completion], list[Delta], list[Completion]]:
        handle, deltas = engine.submit(request), []
        other = engine.submit(replace(request, params=SMALL, n=1))
        async for delta in handle:
            deltas.append(delta)
            if sum(len(d.ids) for d in deltas) >= 10 and delta.finish_reason is None:
                handle.cancel()
                handle.cancel()
        return await handle.result(), deltas, await other.result()

    completions, deltas, (other,) = asyncio.run(ask())
    assert all(c.finish_reason is FinishReason.CANCELLED for c in completions)
    assert 10 <= sum(len(c.ids) for c in completions) < 4000
    assert completions[2].ids == (), "it never found a slot"
    for index, completion in enumerate(completions):
        assert_says([delta for delta in deltas if delta.index == index], completion)
        assert len(completion.ids) == len(completion.weight_versions)
    assert other.finish_reason is FinishReason.LENGTH
    engine.close()
    engine.check()
    assert engine.stats.running == 0


def test_closing_cancels() -> None:
    with make_engine() as engine:
        engine.stop_ids = frozenset()
        handle = engine.submit(Request(prompt_ids=[4, 5], params=SamplingParams(max_tokens=100_000)))
    assert handle.is_done
    assert handle.completed()[0].finish_reason is FinishReason.CANCELLED


def test_how_often_a_completion_is_told_of() -> None:
    with make_engine() as engine:
        engine.stop_ids = frozenset()
        params = SamplingParams(max_tokens=8)
        assert [delta.index for delta in engine.stream([4, 5], params, n=2)] == [0, 1] * 8
        engine.pace = iter([7, 7, 7, 8, 8, 8, 8, 8]).__next__  # once a step
        deltas = [*engine.stream([4, 5], params, n=2)]
        engine.pace = None
        (whole,) = engine.generate([[4, 5]], params)
    assert [(delta.index, len(delta.ids)) for delta in deltas] == [(0, 1), (1, 1), (0, 3), (1, 3), (0, 4), (1, 4)]
    assert sum((delta.ids for delta in deltas if delta.index == 0), ()) == whole.ids


def test_deltas_that_nobody_fetched_are_joined() -> None:
    handle = RequestHandle(2, lambda _: None, wants_deltas=True)
    for index, ids, text in ((0, (1,), "a"), (1, (9,), "x"), (0, (2, 3), "b")):
        logprobs, tops = np.array(ids, dtype=np.float32), np.array([[id, id + 1] for id in ids], dtype=np.int32)
        more = {"logprobs": logprobs, "top_ids": tops, "top_logprobs": tops / 2}
        handle.tell(Delta(index=index, ids=ids, text=text, reasoning=text.upper(), **more))
    first, second = handle.take(), handle.take()
    assert first is not None
    assert second is not None
    assert (first.index, first.ids, first.text, first.reasoning) == (0, (1, 2, 3), "ab", "AB")
    assert first.logprobs is not None
    assert first.logprobs.tolist() == [1, 2, 3]
    assert np.array_equal(first.top_ids, [[1, 2], [2, 3], [3, 4]])
    assert np.array_equal(first.top_logprobs, [[0.5, 1], [1, 1.5], [1.5, 2]])
    assert (second.index, second.ids) == (1, (9,))
    assert handle.take() is None


# ----- trouble


def test_a_request_that_goes_wrong_goes_wrong_alone() -> None:
    engine = make_engine(max_batch=4)
    with torch.no_grad():
        engine.model.embed[5] = torch.nan
    good = Request(prompt_ids=[4, 6, 7], params=SMALL, n=2)
    engine.never = (5,)
    engine._runner.sampler = engine._sampler()
    expected = [c.ids for c in engine.complete([good])[0]]

    async def ask() -> None:
        bad = engine.submit(Request(prompt_ids=[4, 5, 6], params=SMALL, n=3))
        fine = engine.submit(good)
        assert [c.ids for c in await fine.result()] == expected
        with pytest.raises(UsageError, match="logits are not numbers"):
            await bad.result()
        with pytest.raises(UsageError, match="logits are not numbers"):
            async for _ in bad:
                pass

    asyncio.run(ask())
    with pytest.raises(UsageError, match="logits are not numbers"):
        engine.complete([good, Request(prompt_ids=[5], params=SMALL), good])
    assert engine.stats.running == 0
    assert [c.ids for c in engine.complete([good])[0]] == expected


def test_a_text_that_cannot_be_told_is_nobody_elses_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    engine.stop_ids = frozenset()
    completion = engine._completion

    def broken(generation: Generation) -> Completion:
        if generation.prompt.ids == (4, 5) and generation.index == 1:
            raise ValueError("no text")
        return completion(generation)

    monkeypatch.setattr(engine, "_completion", broken)

    async def ask() -> None:
        handles = [engine.submit(Request(prompt_ids=p, params=SMALL, n=3)) for p in ([4, 5], [6, 7])]
        assert len(await handles[1].result()) == 3
        with pytest.raises(ValueError, match="no text"):
            await handles[0].result()

    asyncio.run(ask())
    engine.close()
    assert engine.stats.running == 0


def test_a_pass_that_fails_is_raised_where_it_was_asked_for() -> None:
    engine = make_engine()
    expected = sampled(engine, [[4, 5]])
    engine._runner.native = None  # the model's own pass, where a hook is called
    hook = engine.model.blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sampled(engine, [[4, 5]])

    async def ask() -> None:
        await engine.submit(Request(prompt_ids=[4, 5], params=SMALL)).result()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(ask())
    hook.remove()
    again = engine._prompts.get(("", (4, 5), False))
    assert again is None or again.leader is None, "nobody waits for one who has failed"
    assert sampled(engine, [[4, 5]]) == expected


def test_a_plan_that_fails_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    expected = sampled(engine, [[4, 5]])
    with monkeypatch.context() as patched:
        patched.setattr(engine._scheduler, "plan", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sampled(engine, [[4, 5]])
    assert sampled(engine, [[4, 5]]) == expected


def test_an_interruption_between_a_draw_and_its_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's call is interrupted while the token of another request is written down."""
    engine = make_engine()
    engine.stop_ids = frozenset()
    params = SamplingParams(max_tokens=6)
    [expected] = engine.generate([[4, 5, 6]], params)
    stream = engine.stream([4, 5, 6], params)
    deltas = [next(stream), next(stream)]
    states = type(engine._sampler().start([4], params))
    push = states.push
    with monkeypatch.context() as patched:

        def interrupted(state: Any, id: int) -> None:
            if len(state.ids) == 2:
                raise KeyboardInterrupt
            push(state, id)

        patched.setattr(states, "push", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.generate([[7, 8]], params)
    deltas += stream
    assert_says(deltas, expected)
    assert engine.stats.running == 0


# ----- weights


def test_new_weights_between_two_steps() -> None:
    """The first three ids are the old weights'; the rest are the new ones' over what the old had read."""
    engine = make_engine(page_size=1)
    engine.stop_ids = frozenset()
    old, new = make_model(BASE, seed=0), make_model(BASE, seed=5)
    prompt = make_prompts(BASE, [20])[0]
    request = Request(prompt_ids=prompt, params=SamplingParams(max_tokens=8, temperature=0.0))
    before = engine.complete([request])[0][0].ids
    assert before == tuple(generate(old, prompt, max_tokens=8, temperature=0, stop_ids=()))
    versions: list[int] = []
    for i, delta in enumerate(engine.stream(prompt, request.params)):
        versions += [engine.weight_version] * len(delta.ids)
        assert delta.ids[0] == before[i] or i > 2
        if i == 2:
            engine.update_weights(new.state_dict())
    assert versions == [0, 0, 0, 1, 1, 1, 1, 1]
    [[after]] = engine.complete([request])
    assert after.cached_tokens == 0, "what the old weights read is of no use"
    assert after.ids == tuple(generate(new, prompt, max_tokens=8, temperature=0, stop_ids=()))
    assert set(after.weight_versions) == {1}
    engine.update_weights(lambda model: model.load_state_dict(old.state_dict()), version=7)
    [[again]] = engine.complete([request])
    assert (again.ids, again.cached_tokens, set(again.weight_versions)) == (before, 0, {7})
    short = engine.stream(prompt[:5], SamplingParams(max_tokens=3))
    begun = next(short).ids
    engine.weight_version += 1
    ids = [*prompt[:5], *begun, *(id for delta in short for id in delta.ids)]
    [[follows]] = engine.complete([Request(prompt_ids=[*ids, 7], params=SMALL)])
    assert follows.cached_tokens == 0, "what was read with two versions is kept for nobody"
    with torch.no_grad():
        engine.model.embed.mul_(0.5)  # nobody says so
    [[unsaid]] = engine.complete([request])
    assert unsaid.cached_tokens == 0
    assert unsaid.ids == tuple(generate(engine.model, prompt, max_tokens=8, temperature=0, stop_ids=()))


def test_nobody_follows_into_new_weights() -> None:
    """Two of one prompt, which is read in chunks when the weights change: the second reads it itself."""
    engine = make_engine(max_batch_tokens=4)
    request = Request(prompt_ids=make_prompts(BASE, [10])[0], params=SMALL, n=2)
    generations = engine._generations(request, "the request")
    engine._inbox.append(generations)
    engine._step()
    engine.weight_version += 1
    while not generations[0].handle.is_done:
        engine._step()
    assert [c.cached_tokens for c in generations[0].handle.completed()] == [0, 0]


# ----- memory


def test_the_pool_is_as_large_as_is_needed_or_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(BASE, max_positions=1000)
    sizes = PoolSizes.of(config, 32, 4, slots=3)
    assert sizes.page == 2 * 3 * 2 * 32 * 8 * 4
    assert sizes.state == 4 * 3 * (2 * 48 + 8)
    assert make_engine(config, max_batch=3).stats.pages_free == 3 * 32
    room = 20 * sizes.page + 3 * sizes.state
    engine = make_engine(config, max_batch=3, memory_bytes=room)
    pages = engine.stats.pages_free
    taken = (pages + 1) * sizes.page + (3 + sizes.snapshots(pages)) * sizes.state
    assert taken <= room < taken + sizes.page + sizes.state
    held = (engine._memory.keys, engine._memory.values, engine._memory.columns, engine._memory.delayed)
    assert sum(x.nbytes for x in held) == taken
    monkeypatch.setattr(module, "free_bytes", lambda device: 2 * room)
    assert make_engine(config, max_batch=3).stats.pages_free == pages
    int8 = PoolSizes.of(config, 32, 1, slots=3)
    assert int8.page == 2 * 3 * 2 * 32 * (8 + 4)
    with pytest.raises(UsageError, match="a page of 32 tokens takes 12,288, and there are 1,000 bytes"):
        make_engine(config, memory_bytes=1000)
    for wrong in ({"pages": 0}, {"pages": 3, "memory_bytes": 9}, {"deterministic": True, "speculate": 2}):
        with pytest.raises(UsageError):
            make_engine(config, **wrong)


def test_what_can_never_fit_is_refused() -> None:
    engine = make_engine(pages=5, page_size=2)
    request = Request(prompt_ids=[3] * 6, params=SamplingParams(max_tokens=5))
    assert engine.complete([request])
    message = "keep 11 tokens, 6 of its prompt and 5 new ones; the engine's pool holds 10 in 5 pages"
    with pytest.raises(UsageError, match=message):
        engine.complete([replace(request, params=SamplingParams(max_tokens=6))])


def test_memory_is_not_taken_before_it_is_used() -> None:
    config, process = replace(BASE, max_positions=1 << 20), psutil.Process()
    before = process.memory_info().rss
    engine = make_engine(config, memory_bytes=4 << 30)
    engine.generate([[4, 5]], SMALL)
    assert engine._memory.keys.nbytes > 1 << 30
    assert process.memory_info().rss - before < 100 << 20


def test_a_program_that_ends_in_the_middle_of_work() -> None:
    """A thread in a kernel while Python goes away ends the process by a signal, now and then: so there is none left."""
    code = """
import atexit, threading, time
atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))  # what comes first is called last
from tests.engine.test_engine import Request, SamplingParams, make_engine
engine = make_engine()
engine.submit(Request(prompt_ids=[2, 3], params=SamplingParams(max_tokens=50), n=200))
while not engine.stats.running:
    time.sleep(0.001)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "['MainThread']\n"
