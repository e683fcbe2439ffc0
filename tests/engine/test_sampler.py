"""From logits to tokens, for every setting.

1. Each setting gives the distribution that is computed by hand, and the settings apply in the order of
   `SamplingParams`.
2. A batch of rows with settings of all kinds is what a plain reference gives for each row alone, and what the sampler
   gives for each row alone.
3. Draws are a function of logits, seed, completion and position: as they were before there were settings. They follow
   the distribution.
4. `logprob` is the model's own: of all ids that have a token, whatever the settings. `behavior_logprob` is of what was
   drawn from.
5. An id that has no token is never drawn, whatever asks for it.
6. Rows for several positions of a sequence, each with the drafts before it, are what one draw after the other gives.
7. A row that has gone wrong carries the error, and harms no other.
8. Text ends at a stop id, a stop string, or max_tokens, and says which; nothing ends it before min_tokens.
9. Reasoning is closed by force when its budget is used up, and not otherwise.
10. A constraint holds for the answer, and only the end of the turn follows when it is complete.
11. Rows without settings pay for nothing, and no row is visited alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.parity.shapes import BASE
from tests.parity.test_paths import make_model
from tests.tolerances import assert_close
from zaya.engine.engine import Engine
from zaya.engine.sampler import Drawn, Sampler
from zaya.engine.state import SequenceState
from zaya.engine.types import FinishReason, Request, SamplingParams
from zaya.errors import UsageError
from zaya.ops.cpu import kernels
from zaya.ops.sampling import batch_draw, batch_probabilities, point
from zaya.text import byte_tokenizer, render

NEVER = [7, 3]
STOPS = frozenset({5})
VOCAB = 8
# of the six ids that have a token, in nats: probabilities 8 4 2 2 1 1 of 18, at ids 0 1 2 4 5 6
OWN = {0: 8 / 18, 1: 4 / 18, 2: 2 / 18, 4: 2 / 18, 5: 1 / 18, 6: 1 / 18}
LOGITS = torch.tensor([OWN.get(id, 9.0) for id in range(VOCAB)]).log()

TOKENIZER = byte_tokenizer()
QUESTION = [{"role": "user", "content": "?"}]
OPEN = tuple(render(TOKENIZER, QUESTION).ids)
SHUT = tuple(render(TOKENIZER, QUESTION, enable_thinking=False).ids)
CLOSING = TOKENIZER.encode("\n</think>\n\n", bos=False)
THINK_OPEN, THINK_CLOSE, TURN_CLOSE = TOKENIZER.tags.think_open, TOKENIZER.tags.think_close, TOKENIZER.tags.turn_close


class Exactly:
    """A constraint that allows one text."""

    def __init__(self, ids: Sequence[int], vocab_size: int, also: Sequence[int] = ()) -> None:
        self.ids, self.vocab_size, self.also = list(ids), vocab_size, list(also)

    def mask(self) -> np.ndarray:
        mask = np.zeros(self.vocab_size, dtype=bool)
        mask[[*self.ids[:1], *self.also]] = True
        return mask

    def push(self, id: int) -> None:
        assert id == self.ids.pop(0)

    def is_complete(self) -> bool:
        return not self.ids


class Anything(Exactly):
    def mask(self) -> None:  # type: ignore[override]
        return None

    def push(self, id: int) -> None:
        pass


def make_sampler() -> Sampler:
    return Sampler(VOCAB, NEVER, STOPS, None, "cpu")


def text_sampler() -> Sampler:
    size = TOKENIZER.size + 4
    assert TURN_CLOSE is not None
    return Sampler(size, TOKENIZER.never_sampled(size), frozenset({TURN_CLOSE}), TOKENIZER, "cpu")


def behavior(params: SamplingParams, ids: Sequence[int] = (), prompt: Sequence[int] = (6,)) -> dict[int, float]:
    """What the sampler draws from behind these ids, and has drawn within 600 completions."""
    sampler = make_sampler()
    states = [sampler.start(tuple(prompt), params, index=i) for i in range(600)]
    for state in states:
        for id in ids:
            state.push(id)
    drawn = sampler.sample(LOGITS.expand(600, -1), states)
    assert all(token.error is None for token in drawn)
    for token in drawn:
        assert token.logprob == pytest.approx(math.log(OWN[token.id]), abs=1e-5)
    return {token.id: math.exp(token.behavior_logprob) for token in drawn}


def shares(**parts: float) -> dict[int, float]:
    """Probabilities from parts of a whole, by id."""
    return {int(id[1:]): part / sum(parts.values()) for id, part in parts.items()}


@pytest.mark.parametrize(
    ("settings", "ids", "expected"),
    [
        ({}, (), OWN),
        ({"temperature": 0.5}, (), shares(_0=64, _1=16, _2=4, _4=4, _5=1, _6=1)),
        ({"temperature": 0.0}, (), {0: 1.0}),
        ({"top_k": 2}, (), shares(_0=8, _1=4)),
        ({"top_k": 3}, (), shares(_0=8, _1=4, _2=2)),  # of equals, the first
        ({"top_k": 100}, (), OWN),
        ({"top_p": 0.7}, (), shares(_0=8, _1=4, _2=2)),  # 12/18 is below
        ({"top_p": 0.66}, (), shares(_0=8, _1=4)),
        ({"min_p": 0.2}, (), shares(_0=8, _1=4, _2=2, _4=2)),
        # halved are logits above 0; ours are below, so a log-probability of -log(18/8) becomes -2 log(18/8)
        ({"repetition_penalty": 2.0}, (0, 0, 1), shares(_0=64 / 18, _1=16 / 18, _2=2, _4=2, _5=1, _6=1 / 18)),
        ({"presence_penalty": math.log(2)}, (0, 0, 1), shares(_0=4, _1=2, _2=2, _4=2, _5=1, _6=1)),
        ({"frequency_penalty": math.log(2)}, (0, 0, 1), shares(_0=2, _1=2, _2=2, _4=2, _5=1, _6=1)),
        ({"frequency_penalty": -math.log(2)}, (6, 6, 6), shares(_0=8, _1=4, _2=2, _4=2, _5=1, _6=8)),
        (
            {"presence_penalty": math.log(2), "frequency_penalty": math.log(2)},
            (0, 1), shares(_0=2, _1=1, _2=2, _4=2, _5=1, _6=1),
        ),
        ({"logit_bias": {0: -math.inf, 6: math.log(5)}}, (), shares(_1=4, _2=2, _4=2, _5=1, _6=5)),
        ({"logit_bias": {3: 50.0}}, (), OWN),  # it has no token
        ({"min_tokens": 2, "stop_ids": (1,)}, (2,), shares(_0=8, _2=2, _4=2, _6=1)),
        ({"min_tokens": 2, "stop_ids": (1,)}, (2, 2), OWN),
        ({"min_tokens": 2, "stop_ids": (1,), "ignore_eos": True}, (2,), shares(_0=8, _2=2, _4=2, _5=1, _6=1)),
    ],
)  # fmt: skip
def test_each_setting_by_hand(settings: dict, ids: tuple[int, ...], expected: dict[int, float]) -> None:
    assert behavior(SamplingParams(**settings), ids) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "ids", "expected"),
    [
        # penalties, then bias: log(8/18) doubled, then back up to 8 parts; the other way round it would end at 64/18
        (
            {"repetition_penalty": 2.0, "logit_bias": {0: math.log(18 / 8)}},
            (0,), shares(_0=8, _1=4, _2=2, _4=2, _5=1, _6=1 / 18),
        ),
        # repetition, then presence
        (
            {"repetition_penalty": 2.0, "presence_penalty": -math.log(18 / 8)},
            (0,), shares(_0=8, _1=4, _2=2, _4=2, _5=1, _6=1 / 18),
        ),
        # bias, then min_tokens: what is barred stays barred
        ({"min_tokens": 1, "logit_bias": {5: 99.0}}, (), shares(_0=8, _1=4, _2=2, _4=2, _6=1)),
        # penalties and bias, then temperature
        ({"temperature": 0.5, "presence_penalty": math.log(2)}, (0,), shares(_0=16, _1=16, _2=4, _4=4, _5=1, _6=1)),
        # bias, then top_k: 6 becomes the second largest
        ({"top_k": 2, "logit_bias": {6: math.log(5)}}, (), shares(_0=8, _6=5)),
        # temperature, then top_p: 64 and 16 of 90 are enough
        ({"temperature": 0.5, "top_p": 0.75}, (), shares(_0=64, _1=16)),
        # temperature, then min_p
        ({"temperature": 0.5, "min_p": 0.2}, (), shares(_0=64, _1=16)),
        # top_k, then top_p: 8 of 14 are not enough, and 12 of 14 are
        ({"top_k": 3, "top_p": 0.58}, (), shares(_0=8, _1=4)),
        # top_p, then min_p
        ({"top_p": 0.7, "min_p": 0.3}, (), shares(_0=8, _1=4)),
    ],
)  # fmt: skip
def test_settings_apply_in_their_order(settings: dict, ids: tuple[int, ...], expected: dict[int, float]) -> None:
    assert behavior(SamplingParams(**settings), ids) == pytest.approx(expected, rel=1e-5)


def test_repetition_counts_the_prompt_and_the_others_do_not() -> None:
    params = SamplingParams(repetition_penalty=2.0)
    expected = shares(_0=8, _1=16 / 18, _2=2, _4=2, _5=1, _6=1)
    assert behavior(params, prompt=(1, 1)) == pytest.approx(expected, rel=1e-5)
    assert behavior(SamplingParams(presence_penalty=1.0, frequency_penalty=1.0), prompt=(1, 1)) == pytest.approx(OWN)
    state = make_sampler().start((1,), params)
    positive = LOGITS[None] + 5
    (drawn,) = make_sampler().sample(positive, [state])
    own = {id: (positive[0, id] / 2 if id == 1 else positive[0, id]).exp().item() for id in OWN}
    assert math.exp(drawn.behavior_logprob) == pytest.approx(own[drawn.id] / sum(own.values()), rel=1e-5)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.6, "top_k": 20},
    {"top_p": 0.8, "min_p": 0.02},
    {"min_p": 0.1, "temperature": 1.4},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7, "presence_penalty": -0.3, "frequency_penalty": 0.4, "temperature": 0.9},
    {"presence_penalty": 1.5, "top_k": 10},
    {"logit_bias": {4: 6.0, 9: -math.inf, 50: 30.0}},
    {"min_tokens": 12, "stop_ids": (11, 30), "logit_bias": {11: 20.0}},
    {"min_tokens": 2, "top_logprobs": 5, "ignore_eos": True},
    {"top_logprobs": 2, "temperature": 0.3},
    {"frequency_penalty": 0.2, "repetition_penalty": 1.1, "top_p": 0.9, "top_k": 30, "min_p": 0.01, "min_tokens": 9},
]
BIG, BIG_NEVER, BIG_STOPS = 61, (8, 50, 60), frozenset({2, 40, 99})  # one end has no row in this model


def reference(logits: list[float], params: SamplingParams, prompt: list[int], ids: list[int], at: float) -> Drawn:
    """One row in plain Python, straight from the words of `SamplingParams`."""
    drawable = [id for id in range(len(logits)) if id not in BIG_NEVER]
    total = math.fsum(math.exp(logits[id]) for id in drawable)
    own = {id: logits[id] - math.log(total) for id in drawable}
    values = {id: logits[id] for id in drawable}
    count = Counter(ids)
    for id in values:
        if id in count or id in prompt:
            values[id] *= params.repetition_penalty ** (-1 if values[id] > 0 else 1)
        values[id] -= params.presence_penalty * (id in count) + params.frequency_penalty * count[id]
        values[id] += params.logit_bias.get(id, 0.0)
    if len(ids) < params.min_tokens:
        for id in {*params.stop_ids, *(() if params.ignore_eos else BIG_STOPS)} & values.keys():
            values[id] = -math.inf
    if params.temperature == 0:
        probs = {max(values, key=lambda id: (values[id], -id)): 1.0}
    else:
        probs = {id: math.exp(value / params.temperature) for id, value in values.items()}
    order = sorted(probs, key=lambda id: (-probs[id], id))[: params.top_k]
    sum_k, before, kept = sum(probs[id] for id in order), 0.0, {}
    for id in order:
        if before < params.top_p * sum_k and probs[id] >= params.min_p * probs[order[0]]:
            kept[id] = probs[id]
        before += probs[id]
    target, below = at * sum(kept.values()), 0.0
    drawn = -1
    for id in sorted(kept):
        below += kept[id]
        if kept[id] and below > target:
            drawn = id
            break
    best = sorted(own, key=lambda id: -own[id])[: params.top_logprobs]
    behavior = math.log(kept[drawn] / sum(kept.values()))
    return Drawn(drawn, own[drawn], behavior, tuple(best), tuple(own[id] for id in best))


def crowd(seed: int) -> tuple[torch.Tensor, list[SequenceState], Sampler]:
    """Ten rows for each of the settings, behind texts of 0 to 14 tokens."""
    sampler = Sampler(BIG, BIG_NEVER, BIG_STOPS, None, "cpu")
    random = np.random.default_rng(seed)
    states = []
    for i, settings in enumerate(SETTINGS * 10):
        prompt = random.integers(0, BIG, size=random.integers(1, 30)).tolist()
        state = sampler.start(prompt, SamplingParams(**settings), seed=int(random.integers(2**40)), index=i % 3)
        for id in random.choice([id for id in range(BIG) if id not in BIG_STOPS | {11, 30}], random.integers(0, 15)):
            state.push(int(id))
        states.append(state)
    logits = torch.randn(len(states), BIG, generator=torch.Generator().manual_seed(seed)) * 3
    logits[:, list(BIG_NEVER)] += 10
    return logits, states, sampler


def assert_same(found: Sequence[Drawn], expected: Sequence[Drawn]) -> None:
    assert [token.id for token in found] == [token.id for token in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.top_ids == b.top_ids
        assert_close([a.logprob, a.behavior_logprob, *a.top_logprobs], [b.logprob, b.behavior_logprob, *b.top_logprobs])
        assert a.error is b.error is None


def test_a_mixed_batch_is_the_reference_row_by_row() -> None:
    logits, states, sampler = crowd(0)
    kept = logits.clone()
    found = sampler.sample(logits, states)
    expected = []
    for row, state in zip(logits.tolist(), states, strict=True):
        at = state.point(len(state.prompt_ids) + len(state.ids))
        expected.append(reference(row, state.params, list(state.prompt_ids), state.ids, at))
    assert_same(found, expected)
    assert torch.equal(logits, kept)  # they are the caller's
    alone = [sampler.sample(row[None], [state])[0] for row, state in zip(logits, states, strict=True)]
    assert_same(found, alone)
    assert any(state.params.min_tokens > len(state.ids) for state in states)


def test_draws_are_those_of_the_plain_ops() -> None:
    """The way it was before there was a sampler, ids and log-probabilities."""
    sampler = make_sampler()
    logits = torch.randn(64, VOCAB, generator=torch.Generator().manual_seed(2))
    states = [sampler.start((6,) * (1 + i % 3), SamplingParams(), seed=i % 5, index=i % 7) for i in range(64)]
    for i, state in enumerate(states):
        for _ in range(i % 4):
            state.push(0)
    barred = logits.index_fill(1, torch.tensor(NEVER), -torch.inf)
    probs = batch_probabilities(barred, torch.ones(64))
    at = [point(i % 5, i % 7, 1 + i % 3 + i % 4) for i in range(64)]
    ids = batch_draw(probs, torch.tensor(at, dtype=torch.float64))
    found = sampler.sample(logits, states)
    assert [token.id for token in found] == ids.tolist()
    own = barred.log_softmax(-1).gather(1, ids[:, None]).squeeze(1)
    assert_close(torch.tensor([token.logprob for token in found]), own)
    assert [token.behavior_logprob for token in found] == [token.logprob for token in found]


def test_draws_follow_the_distribution() -> None:
    """Pearson's statistic of 20,000 draws, four degrees of freedom: one in a million lies above 33."""
    params = SamplingParams(temperature=0.5, top_k=5, presence_penalty=math.log(2), logit_bias={5: math.log(4)})
    expected = shares(_0=16, _1=16, _2=4, _4=4, _5=16)
    sampler = make_sampler()
    states = [sampler.start((6,), params, seed=i // 100, index=i % 100) for i in range(20_000)]
    for state in states:
        state.push(0)
    counts = Counter(token.id for token in sampler.sample(LOGITS.expand(20_000, -1), states))
    assert counts.keys() == expected.keys()
    wanted = {id: part * 20_000 for id, part in expected.items()}
    assert sum((counts[id] - wanted[id]) ** 2 / wanted[id] for id in wanted) < 33


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.0}, {"logit_bias": {3: 99.0}}, {"presence_penalty": -9.0}, {"top_k": 1, "top_logprobs": 6}],
)
def test_ids_without_a_token_are_never_drawn(settings: dict) -> None:
    sampler = make_sampler()
    states = [sampler.start((3, 7), SamplingParams(**settings), index=i) for i in range(200)]
    for state in states[100:]:
        state.push(3)
    drawn = sampler.sample(LOGITS.expand(200, -1), states)
    assert {token.id for token in drawn} <= OWN.keys()
    assert all(set(token.top_ids) in (set(), OWN.keys()) for token in drawn)
    constrained = sampler.start((3,), SamplingParams(), constraint=Exactly([1], VOCAB, also=[3, 7]))
    assert sampler.sample(LOGITS[None], [constrained])[0].id == 1


def test_likeliest_ids_are_the_models_own() -> None:
    sampler = make_sampler()
    params = SamplingParams(temperature=0.1, top_logprobs=3, logit_bias={0: -math.inf})
    states = [sampler.start((1,), params), sampler.start((1,), replace(params, top_logprobs=1))]
    three, one = sampler.sample(LOGITS.expand(2, -1), states)
    assert set(three.top_ids[:2]) == {0, 1}
    assert three.top_logprobs == pytest.approx([math.log(8 / 18), math.log(4 / 18), math.log(2 / 18)], rel=1e-5)
    assert (one.top_ids, len(one.top_logprobs)) == ((0,), 1)


AHEAD: list[dict[str, Any]] = [
    {"think_budget": 2},
    {"think_budget": 5, "presence_penalty": 2.0},
    {"min_tokens": 5, "stop_ids": (11,), "logit_bias": {11: 40.0}},  # drawn as soon as it may be
]


@pytest.mark.parametrize("settings", [*SETTINGS, *AHEAD])
def test_drafts_are_as_if_pushed(settings: dict) -> None:
    """Nine positions in one call, and one after the other; a stranger among them."""
    sampler = text_sampler()
    settings = {**settings, "ignore_eos": True}
    logits = torch.randn(9, sampler.vocab_size, generator=torch.Generator().manual_seed(3)) * 3
    state = sampler.start(OPEN, SamplingParams(**settings), seed=4)
    one_by_one = []
    for row in logits:
        one_by_one += sampler.sample(row[None], [state])
        state.push(one_by_one[-1].id)
        if state.finish_reason is not None:
            break
    ids = [token.id for token in one_by_one]
    state = sampler.start(OPEN, SamplingParams(**settings), seed=4)
    for id in ids[:2]:
        state.push(id)
    stranger = sampler.start(SHUT, SamplingParams(repetition_penalty=1.5), seed=9)
    rows = len(ids) - 2
    drafts = [ids[2 : 2 + i] for i in range(rows)]
    found = sampler.sample(torch.cat([logits[2 : 2 + rows], logits[:1]]), [state] * rows + [stranger], [*drafts, []])
    assert_same(found[:-1], one_by_one[2:])
    assert state.ids == ids[:2]


def test_a_row_that_has_gone_wrong_is_alone() -> None:
    logits, states, sampler = crowd(1)
    expected = sampler.sample(logits, states)
    bad = {4: math.nan, 17: math.inf, 30: math.nan, 31: -math.inf, 44: math.nan, 45: math.nan, 60: math.inf}
    for row, value in bad.items():
        logits[row] = value
    logits[90, 5] = math.nan  # and a single one
    found = sampler.sample(logits, states)
    wrong = [row for row, token in enumerate(found) if token.error is not None]
    assert wrong == [*bad, 90]
    for row in wrong:
        assert "logits are not numbers" in str(found[row].error)
    right = [row for row in range(len(found)) if row not in wrong]
    assert_same([found[row] for row in right], [expected[row] for row in right])


def test_when_every_id_is_barred() -> None:
    sampler = make_sampler()
    states = [
        sampler.start((1,), SamplingParams(logit_bias=dict.fromkeys(range(VOCAB), -math.inf))),
        sampler.start((1,), SamplingParams()),
        sampler.start((1,), SamplingParams(), constraint=Exactly([3], VOCAB)),  # which has no token
        sampler.start((1,), SamplingParams(temperature=0, logit_bias=dict.fromkeys(OWN, -math.inf))),
        sampler.start((1,), SamplingParams(logit_bias={0: 1e300})),
    ]
    found = sampler.sample(LOGITS.expand(5, -1), states)
    assert [token.error is None for token in found] == [False, True, False, False, False]
    assert all("every id is barred" in str(token.error) for token in found if token.error is not None)


@pytest.mark.parametrize(
    ("settings", "ids", "reason", "stop_reason"),
    [
        ({"max_tokens": 3}, [0, 0, 0], FinishReason.LENGTH, None),
        ({}, [0, 5], FinishReason.STOP, 5),
        ({"max_tokens": 2}, [0, 5], FinishReason.STOP, 5),
        ({"stop_ids": (1,)}, [0, 1], FinishReason.STOP, 1),
        ({"ignore_eos": True, "max_tokens": 3}, [5, 5, 0], FinishReason.LENGTH, None),
        ({"ignore_eos": True, "stop_ids": (1,)}, [5, 1], FinishReason.STOP, 1),
    ],
)
def test_what_ends_a_text(settings: dict, ids: list[int], reason: FinishReason, stop_reason: int | None) -> None:
    state = make_sampler().start((1,), SamplingParams(**settings))
    for id in ids:
        assert state.finish_reason is None
        state.push(id)
    assert (state.finish_reason, state.stop_reason, state.ids) == (reason, stop_reason, ids)
    assert state.texts() == ("", "")


def written(
    text: str, params: SamplingParams, prompt: Sequence[int] = SHUT
) -> tuple[FinishReason | None, object, tuple[str, str], int]:
    """Why a text ends, at what, what is left of it, and how many tokens it took; what is given out must agree."""
    state = text_sampler().start(prompt, params)
    reasoning = answer = ""
    for id in TOKENIZER.encode(text, bos=False):
        state.push(id)
        if len(state.ids) % 2:
            new = state.take()
            reasoning, answer = reasoning + new[0], answer + new[1]
        if state.finish_reason is not None:
            break
    else:
        state.finish_reason = FinishReason.CANCELLED
    new = state.take()
    assert (reasoning + new[0], answer + new[1]) == state.texts()
    return state.finish_reason, state.stop_reason, state.texts(), len(state.ids)


def test_stop_strings_and_ids_are_no_text() -> None:
    stop = SamplingParams(stop=("END", "é"))
    assert written("one END two", stop) == (FinishReason.STOP, "END", ("", "one "), 7)
    assert written("one é two", stop) == (FinishReason.STOP, "é", ("", "one "), 6)
    assert written("one<|im_end|>", stop) == (FinishReason.STOP, TURN_CLOSE, ("", "one"), 4)
    assert written("one EN<|im_end|>", stop) == (FinishReason.STOP, TURN_CLOSE, ("", "one EN"), 7)
    assert written("one EN", stop) == (FinishReason.CANCELLED, None, ("", "one EN"), 6)
    assert written("x END y</think>z", stop, OPEN) == (FinishReason.STOP, "END", ("x ", ""), 5)
    assert written("\nx\n</think>\n\nz ENDY", stop, OPEN) == (FinishReason.STOP, "END", ("x", "z "), 11)
    (dot,) = TOKENIZER.encode(".", bos=False)
    assert written("a.b", SamplingParams(stop_ids=(dot,))) == (FinishReason.STOP, dot, ("", "a"), 2)
    assert written("abcd", SamplingParams(max_tokens=3)) == (FinishReason.LENGTH, None, ("", "abc"), 3)
    assert written("a END", SamplingParams(stop=("END",), max_tokens=5)) == (FinishReason.STOP, "END", ("", "a "), 5)
    ignored = written("a<|im_end|>b", SamplingParams(ignore_eos=True, max_tokens=3))
    assert ignored == (FinishReason.LENGTH, None, ("", "ab"), 3)


def test_no_stop_string_ends_a_text_early() -> None:
    """The third token may be the first that ends it."""
    assert written("aaaaa", SamplingParams(stop=("a",), min_tokens=3)) == (FinishReason.STOP, "a", ("", "aa"), 3)
    assert written("ababab", SamplingParams(stop=("ab",), min_tokens=3)) == (FinishReason.STOP, "ab", ("", "ab"), 4)


def drive(
    state: SequenceState, sampler: Sampler, wants: Sequence[int | None], default: int
) -> list[tuple[int, float, float]]:
    """Draw to the end with logits that all but force `wants`: (id, probability of the model, of what was drawn)."""
    found = []
    while state.finish_reason is None:
        want = wants[len(state.ids)] if len(state.ids) < len(wants) else None
        logits = torch.zeros(1, sampler.vocab_size)
        logits[0, default if want is None else want] = 50.0
        (drawn,) = sampler.sample(logits, [state])
        assert drawn.error is None
        state.push(drawn.id)
        found.append((drawn.id, math.exp(drawn.logprob), math.exp(drawn.behavior_logprob)))
    return found


A, B, NEWLINE = (TOKENIZER.encode(text, bos=False)[0] for text in ("a", "b", "\n"))
SURE = pytest.approx(1.0)
UNLIKELY = pytest.approx(math.exp(-50), abs=1e-20)


@pytest.mark.parametrize(
    ("prompt", "budget", "wants", "expected"),
    [
        (OPEN, 3, [], [A, A, A, *CLOSING, A, A]),
        (OPEN, 0, [], [*CLOSING, A, A, A, A, A]),
        (OPEN, 3, [A, THINK_CLOSE], [A, THINK_CLOSE, A, A, A, A, A, A, A]),
        (OPEN, 3, [A, A, THINK_CLOSE], [A, A, THINK_CLOSE, A, A, A, A, A, A]),
        (OPEN, None, [], [A] * 9),
        (SHUT, 1, [], [A] * 9),
        (SHUT, 1, [A, THINK_OPEN, A], [A, THINK_OPEN, A, *CLOSING, A, A]),  # opened by the model itself
        # a second time there is nothing left to think with
        (OPEN, 1, [A, None, None, None, None, THINK_OPEN], [A, *CLOSING, THINK_OPEN, *CLOSING[:3]]),
        (OPEN, 7, [], [A] * 7 + CLOSING[:2]),  # max_tokens comes first
        (OPEN, 3, [A, TURN_CLOSE], [A, TURN_CLOSE]),
    ],
)
def test_reasoning_has_a_budget(prompt: tuple[int, ...], budget: int | None, wants: list, expected: list[int]) -> None:
    sampler = text_sampler()
    state = sampler.start(prompt, SamplingParams(max_tokens=9, think_budget=budget))
    found = drive(state, sampler, wants, default=A)
    assert [id for id, _, _ in found] == expected
    wanted = [*wants, *[None] * 9]
    for (id, own, behavior), want in zip(found, wanted, strict=False):
        assert behavior == SURE
        assert own == (SURE if id == (A if want is None else want) else UNLIKELY)


def test_what_is_forced_ends_nothing() -> None:
    """A newline is both a stop id and a stop string here; the one that closes the reasoning is neither."""
    sampler = text_sampler()
    for settings in ({"stop_ids": (NEWLINE,)}, {"stop": ("\n", "\n\n")}):
        state = sampler.start(OPEN, SamplingParams(max_tokens=20, think_budget=2, **settings))
        found = drive(state, sampler, [A, A, *CLOSING, B, NEWLINE], default=A)
        assert [id for id, _, _ in found] == [A, A, *CLOSING, B, NEWLINE]
        assert (state.finish_reason, state.texts()) == (FinishReason.STOP, ("aa", "b"))


def test_what_is_forced_cannot_be_barred() -> None:
    sampler = text_sampler()
    nothing = dict.fromkeys(range(sampler.vocab_size), -math.inf)
    state = sampler.start(OPEN, SamplingParams(max_tokens=4, think_budget=0, logit_bias=nothing))
    assert [id for id, _, _ in drive(state, sampler, [], default=A)] == CLOSING


@pytest.mark.parametrize(
    ("prompt", "settings", "wants", "expected"),
    [
        (SHUT, {}, [], [B, A, TURN_CLOSE]),
        # reasoning is free, the answer is not
        (OPEN, {}, [A, B, B, THINK_CLOSE, A], [A, B, B, THINK_CLOSE, B, A, TURN_CLOSE]),
        (OPEN, {"think_budget": 1}, [A], [A, *CLOSING, B, A, TURN_CLOSE]),
        (OPEN, {}, [A, TURN_CLOSE], [A, TURN_CLOSE]),
        # min_tokens yields where there is nothing but the end
        (SHUT, {"min_tokens": 8}, [], [B, A, TURN_CLOSE]),
    ],
)
def test_a_constraint_holds_for_the_answer(prompt: tuple, settings: dict, wants: list, expected: list[int]) -> None:
    sampler = text_sampler()
    params = SamplingParams(max_tokens=12, **settings)
    state = sampler.start(prompt, params, constraint=Exactly([B, A], sampler.vocab_size))
    assert [id for id, _, _ in drive(state, sampler, wants, default=A)] == expected
    assert state.stop_reason == TURN_CLOSE


def test_a_constraint_that_may_end_or_go_on() -> None:
    sampler = text_sampler()
    assert TURN_CLOSE is not None
    for min_tokens, expected in ((0, [TURN_CLOSE]), (2, [B, B, TURN_CLOSE])):
        params = SamplingParams(min_tokens=min_tokens)
        state = sampler.start(SHUT, params, constraint=Exactly([B] * 3, sampler.vocab_size, also=[TURN_CLOSE]))
        assert [id for id, _, _ in drive(state, sampler, [], default=TURN_CLOSE)] == expected
    # where the mask leaves nothing but the end, min_tokens yields as well; a neighbour's end is barred all the same
    params = SamplingParams(min_tokens=5)
    state = sampler.start(SHUT, params, constraint=Exactly([B, TURN_CLOSE], sampler.vocab_size))
    assert [id for id, _, _ in drive(state, sampler, [], default=A)] == [B, TURN_CLOSE]
    pair = [sampler.start(SHUT, params, constraint=Exactly([B], sampler.vocab_size)), sampler.start(SHUT, params)]
    logits = torch.zeros(2, sampler.vocab_size)
    logits[:, TURN_CLOSE] = 50.0
    first, second = sampler.sample(logits, pair)
    assert first.id == B
    assert second.id != TURN_CLOSE
    anything = sampler.start(SHUT, SamplingParams(min_tokens=2), constraint=Anything([B], sampler.vocab_size))
    ids = [id for id, _, _ in drive(anything, sampler, [A, TURN_CLOSE], default=TURN_CLOSE)]
    assert (ids[0], ids[1] == TURN_CLOSE, ids[2:]) == (A, False, [TURN_CLOSE])


def test_behind_a_draft_no_constraint_is_known() -> None:
    sampler = text_sampler()
    state = sampler.start(SHUT, SamplingParams(), constraint=Exactly([B, A], sampler.vocab_size))
    with pytest.raises(AssertionError, match="behind a draft"):
        sampler.sample(torch.zeros(1, sampler.vocab_size), [state], [[B]])


@pytest.mark.parametrize(
    ("sampler", "settings", "message"),
    [
        (make_sampler(), {"logit_bias": {8: 1.0}}, "logit_bias has ids that are not from 0 to 7: 8"),
        (make_sampler(), {"stop_ids": (-1,)}, "stop_ids has ids that are not from 0 to 7: -1"),
        (make_sampler(), {"top_logprobs": 7}, "at most the number of tokens, 6: 7"),
        (make_sampler(), {"stop": ("x",)}, "stop strings need a tokenizer"),
        (make_sampler(), {"think_budget": 4}, "think_budget needs a tokenizer with the tags of thinking: 4"),
        (text_sampler(), {"stop": ("\ud800",)}, "lone surrogates"),
    ],
)
def test_what_cannot_be_served_is_refused(sampler: Sampler, settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sampler.start((1,), SamplingParams(**settings))


def test_a_structure_needs_the_end_of_the_turn() -> None:
    with pytest.raises(UsageError, match="ignore_eos"):
        make_sampler().start((1,), SamplingParams(ignore_eos=True), constraint=Exactly([1], VOCAB))


class Calls(TorchDispatchMode):
    """The names of the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def calls_of(settings: Sequence[dict], rows: int) -> list[str]:
    sampler = make_sampler()
    states = [sampler.start((1, 2, 1), SamplingParams(**settings[i % len(settings)]), seed=i) for i in range(rows)]
    for state in states:
        state.push(0)
    with kernels.without_kernels(), Calls() as calls:
        sampler.sample(LOGITS.expand(rows, -1), states)
    return calls.names


def test_rows_without_settings_pay_for_nothing() -> None:
    plain = calls_of([{}], 256)
    assert plain.count("softmax") == 1
    assert not {"sort", "topk", "log_softmax", "where", "index_put_", "index_copy_", "div", "index"} & set(plain)
    every = [{"logit_bias": {1: 1.0}}, {"min_tokens": 9}, {"top_p": 0.9}, {"presence_penalty": 1.0, "top_logprobs": 2}]
    # a few more or less, by how a list becomes a tensor
    assert len(calls_of(every, 256)) < len(calls_of(every, 4)) + 8


def test_settings_reach_completions() -> None:
    """Through the engine, with a model that has the tokenizer's vocabulary."""
    model = make_model(replace(BASE, vocab_size=268))
    engine = Engine(model, TOKENIZER)
    params = SamplingParams(max_tokens=30, think_budget=4, top_logprobs=3, presence_penalty=0.5)
    requests = [Request(messages=QUESTION, params=params, n=2), Request(prompt_ids=[2, 40, 9], seed=3)]
    first, second = engine.complete(requests)[0]
    assert first.ids[4:8] == second.ids[4:8] == tuple(CLOSING)
    assert (first.is_closed, first.reasoning_ids) == (True, first.ids[:5])
    assert first.behavior_logprobs is not None
    assert first.top_ids is not None
    assert first.top_logprobs is not None
    assert first.behavior_logprobs[4:8].tolist() == [0.0] * 4
    assert (first.top_ids.shape, first.top_ids.dtype) == ((len(first.ids), 3), np.int32)
    assert (first.top_logprobs.shape, first.top_logprobs.dtype) == ((len(first.ids), 3), np.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([[*first.prompt_ids, *first.ids]]))[0, len(first.prompt_ids) - 1 : -1]
    assert_close(torch.from_numpy(first.top_logprobs), logits.log_softmax(-1).topk(3).values)

    ascii_only = {id: -math.inf for id in range(268) if max(TOKENIZER.token_bytes(id)) > 127}
    params = SamplingParams(max_tokens=40, logit_bias=ascii_only, ignore_eos=True)
    free = engine.complete([Request(prompt_ids=[2, 40, 9], params=params)])[0][0].text
    stop = free[12:15]
    (stopped,) = engine.complete([Request(prompt_ids=[2, 40, 9], params=replace(params, stop=(stop,)))])[0]
    assert (stopped.finish_reason, stopped.stop_reason) == (FinishReason.STOP, stop)
    assert stopped.text == free[: free.index(stop)]
    assert len(stopped.text) > 0
