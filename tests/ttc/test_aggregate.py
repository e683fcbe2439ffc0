"""Aggregation prompts from rollouts.

1. A prompt is what Markovian RSA shows of the rollouts that it names: cut where it says, carried as it says.
2. The same rollouts give the same prompts in the same order; another seed gives others.
3. What is drawn comes from the lists; a budget cuts all rollouts of a prompt, `cut` some within their thought.
4. Stratified, every possible number of right rollouts is as frequent, and only labelled ones are shown.
5. A prompt keeps its bound: tails are shortened alike, the question never. What cannot be made is counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from zaya.config import from_mapping
from zaya.engine.types import Completion, FinishReason
from zaya.errors import ConfigError
from zaya.text import byte_tokenizer, render
from zaya.ttc.aggregate import AggregateConfig, Example, Report, make_examples
from zaya.ttc.prompts import aggregation_messages
from zaya.ttc.rollouts import Attempt, Pool
from zaya.ttc.tails import carry

TOKENIZER = byte_tokenizer()


def attempt(name: str, reasoning: str, answer: str | None, correct: bool | None = None) -> Attempt:
    thought = TOKENIZER.encode_plain(reasoning)
    said = TOKENIZER.encode_plain("\n\n" + answer) if answer is not None else []
    finish = FinishReason.LENGTH if answer is None else FinishReason.STOP
    completion = Completion(
        ids=(*thought, *said), text=answer or "", reasoning=reasoning, finish_reason=finish, prompt_ids=(),
        reasoning_ids=tuple(thought), is_closed=answer is not None,
    )  # fmt: skip
    return Attempt(name, completion, correct)


def pool(number: int, size: int = 6, right: int = 3, length: int = 40) -> Pool:
    question = f"What is {number} + {{1}}?\nGive the answer in \\boxed{{}}."
    attempts = [
        attempt(f"r{i}", f"{i} {'abcdefgh'[i % 8] * length} so {i}", f"\\boxed{{{i}}}", i < right) for i in range(size)
    ]
    return Pool(f"digest {number}", question, [{"role": "user", "content": question}], tuple(attempts))


POOLS = [pool(number) for number in range(60)]


def made(pools: list[Pool] = POOLS, **settings: Any) -> tuple[list[Example], Report]:
    report = Report()
    examples = list(make_examples(pools, TOKENIZER, AggregateConfig(**settings), report))
    return examples, report


def test_the_prompt_is_that_of_rsa() -> None:
    examples, _ = made(
        tau=(9, 30, 1000), fan_in=(1, 2, 4), compaction=("tail", "hybrid"), budget=(20, 1000), cut=0.3, per_problem=2
    )
    assert len(examples) > 100
    for example in examples:
        by_id = {attempt.id: attempt.completion for attempt in example.pool.attempts}
        tails = []
        for id, cut in zip(example.about["rollouts"], example.about["cut"], strict=True):
            whole = by_id[id]
            if cut is None:
                left = whole
            else:
                is_closed = cut > len(whole.reasoning_ids)
                left = Completion(
                    ids=whole.ids[:cut], text=whole.text if is_closed else "", reasoning=whole.reasoning,
                    finish_reason=FinishReason.LENGTH, prompt_ids=(), reasoning_ids=whole.reasoning_ids[:cut],
                    is_closed=is_closed,
                )  # fmt: skip
            tails.append(carry(TOKENIZER, left, example.about["compaction"], example.about["tau"]))
        assert example.messages == aggregation_messages(example.pool.messages, tails)
        assert example.tokens == len(render(TOKENIZER, example.messages).ids)


def test_the_same_prompts_again() -> None:
    settings = {"tau": (9, 30), "cut": 0.3, "per_problem": 2}
    one, again, other = made(**settings)[0], made(**settings)[0], made(**settings, seed=1)[0]
    assert one == again
    assert [example.key for example in one] == [f"digest {n}/{k}" for n in range(60) for k in range(2)]
    assert sum(a.messages != b.messages for a, b in zip(one, other, strict=True)) > 110
    # of each problem by itself: neighbours change nothing
    assert made(POOLS[7:9], **settings)[0] == one[14:18]
    assert [example.messages for example in made(**{**settings, "per_problem": 1})[0]] == [e.messages for e in one[::2]]


def test_lists_are_drawn_from() -> None:
    examples, _ = made(tau=(20, 30, 30), fan_in=(1, 3), compaction=("tail", "hybrid"), cut=0.0, per_problem=5)
    assert Counter(len(example.about["rollouts"]) for example in examples).keys() == {1, 3}
    taus = Counter(example.about["tau"] for example in examples)
    assert taus[30] / len(examples) == pytest.approx(2 / 3, abs=0.11)  # four standard deviations
    assert {example.about["compaction"] for example in examples} == {"tail", "hybrid"}
    assert {cut for example in examples for cut in example.about["cut"]} == {None}
    for example in examples:
        for block in example.messages[0]["content"].split("\n\n")[2:-1]:
            assert block.split("\n")[1].startswith("\\boxed" if example.about["compaction"] == "hybrid" else "...")


def test_budgets_and_cuts() -> None:
    examples, _ = made(tau=(1000,), fan_in=(2,), compaction=("hybrid",), budget=(25, 1000), cut=0.2, per_problem=3)
    shown = Counter()
    for example in examples:
        blocks = example.messages[0]["content"].split("\n\n")[2:-1]
        for block, cut in zip(blocks, example.about["cut"], strict=True):
            text = block.split(":\n", 1)[1]
            if example.about["budget"] == 25:
                assert cut is not None
                assert cut <= 25
            if cut is None:
                assert text.startswith("\\boxed{")
            else:
                assert len(text.encode()) <= cut
                assert int(text[0]) < 6  # from the beginning
            shown[example.about["budget"], cut is None or cut == 25] += 1
    early = shown[1000, False] / (shown[1000, False] + shown[1000, True])
    assert early == pytest.approx(0.2, abs=0.13)  # four standard deviations
    assert shown[25, True] > shown[25, False] > 0


def test_stratified() -> None:
    pools = [pool(number, size=6, right=number % 7) for number in range(350)]
    silent = attempt("unlabelled", "nobody knows this", "\\boxed{0}")
    pools = [Pool(p.digest, p.problem, p.messages, (*p.attempts, silent)) for p in pools]
    examples, report = made(pools, fan_in=(3,), cut=0.0, stratify=True)
    assert report.left_out == {"rollout says nothing": 0, "rollout has no label": 350}
    found: dict[int, Counter[int]] = {}
    for number, example in enumerate(examples):
        assert example.num_right == sum(example.about["correct"])
        assert "unlabelled" not in example.about["rollouts"]
        found.setdefault(number % 7, Counter())[example.num_right] += 1
    possible = {r: set(range(max(0, 3 - (6 - r)), min(3, r) + 1)) for r in range(7)}
    assert {right: set(counts) for right, counts in found.items()} == possible
    assert max(found[3].values()) < 3 * min(found[3].values())  # 12.5 of 50 each
    assert made(pools, fan_in=(3,), cut=1.0, stratify=True)[0][3].num_right == 0  # what was cut came to nothing
    mixed, report = made(pools, fan_in=(4,), cut=0.0)
    for example in mixed:
        report.count(example)
    assert (4, None) in report.mix
    assert sum(report.mix.values()) == len(mixed) == 350


def test_prompts_keep_their_bound() -> None:
    pools = [pool(number, length=300) for number in range(10)]
    whole, _ = made(pools, tau=(1000,), fan_in=(4,), compaction=("tail",), cut=0.0)
    assert min(example.tokens for example in whole) > 1400
    examples, report = made(pools, tau=(1000,), fan_in=(4,), compaction=("tail",), cut=0.0, max_prompt=900)
    assert len(examples) == 10
    for example in examples:
        assert 850 < example.tokens <= 900
        assert example.pool.messages[0]["content"] in example.messages[0]["content"]
        blocks = example.messages[0]["content"].split("\n\n")[2:-1]
        assert {len(block.split(":\n")[1]) for block in blocks} == {example.about["tau"]}
    none, report = made(pools, fan_in=(4,), max_prompt=300)
    assert (none, report.left_out["question is too long"]) == ([], 10)


def test_what_cannot_be_made_is_counted() -> None:
    few, silent = pool(1, size=2), attempt("silent", "", None)
    examples, report = made(
        [Pool("d", "?", few.messages, (*few.attempts, silent))], fan_in=(2, 3), cut=0, per_problem=9
    )
    assert {len(example.about["rollouts"]) for example in examples} == {2}
    assert len(examples) < 9
    assert report.left_out == {"rollout says nothing": 1, "prompt is there already": 9 - len(examples)}
    _, report = made([few], fan_in=(3,))
    assert report.left_out["problem has too few rollouts"] == 1
    blank = Pool("d", "?", few.messages, (attempt("blank", "\n\n", None),))
    assert made([blank], fan_in=(1,))[1].left_out["tail is empty"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau": []}, r"tau lists numbers of at least 1: \[\]"),
        ({"fan_in": [2, 0]}, r"fan_in lists numbers of at least 1: \[2, 0\]"),
        ({"budget": [0]}, r"budget lists numbers of at least 1: \[0\]"),
        ({"compaction": ["tial"]}, "'tial' is not allowed"),
        ({"compaction": []}, "compaction must not be empty"),
        ({"cut": 1.5}, "cut is a probability"),
        ({"per_problem": 0}, "per_problem must be at least 1: 0"),
    ],
)
def test_settings_that_mean_nothing(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(AggregateConfig, change)
