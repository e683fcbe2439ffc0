"""What is written of aggregation prompts.

1. Conversations load as what `zaya sft` reads, and the loss is on the teacher's solution alone.
2. Solutions that were cut, are empty or do not fit are left out and counted; those that failed are asked for again.
3. Work that was interrupted goes on: nothing is asked twice, and the bytes are those of work that was not.
4. Prompts for reinforcement learning hold the problem as it came.
5. A file of something else is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ttc.test_aggregate import TOKENIZER, pool
from zaya.data.masks import encode_mask, loss_of
from zaya.data.sources import ConversationLines
from zaya.engine.scripted import Script, ScriptedCompleter
from zaya.errors import UsageError
from zaya.text import render
from zaya.ttc.aggregate import AggregateConfig, Report, make_examples
from zaya.ttc.teach import Teacher, made_from, write_conversations, write_prompts

POOLS = [*map(pool, range(11)), pool(10**120)]
CONFIG = AggregateConfig(tau=(20,), fan_in=(2,), cut=0.0)


def solves(prompt: Any, seed: int, index: int) -> str:
    return f"weighed {seed % 1000}\n</think>\n\n\\boxed{{{seed % 7}}}"


def taught(out: Path, script: Script = solves, **settings: Any) -> tuple[Report, ScriptedCompleter]:
    completer, on_progress = (
        ScriptedCompleter(TOKENIZER, script, settings.pop("context", None)),
        settings.pop("say", None),
    )
    teacher = Teacher(name="scripted", completer=completer, **settings)
    report = Report()
    examples = make_examples(POOLS, TOKENIZER, CONFIG, report)
    key = made_from(POOLS, TOKENIZER, CONFIG, teacher)
    write_conversations(examples, teacher, TOKENIZER, out, key, report, on_progress)
    return report, completer


def test_conversations_to_learn_from(tmp_path: Path) -> None:
    out = tmp_path / "train.jsonl"
    report, completer = taught(out)
    documents = list(ConversationLines(out))
    prompts = list(make_examples(POOLS, TOKENIZER, CONFIG, Report()))
    assert len(documents) == len(report.targets) == 12
    assert len({request.seed for request in completer.requests}) == 12
    for document, prompt, request in zip(documents, prompts, completer.requests, strict=True):
        assert list(document.messages[:-1]) == prompt.messages == request.messages
        target = document.messages[-1]
        assert target["reasoning_content"] == f"weighed {request.seed % 1000}"
        assert target["content"] == f"\\boxed{{{request.seed % 7}}}"
        rendered = render(TOKENIZER, document.messages)
        loss = loss_of(encode_mask(rendered, [message["role"] for message in document.messages]))
        learned = TOKENIZER.decode([id for id, on in zip(rendered.ids, loss, strict=True) if on])
        assert learned.startswith(target["reasoning_content"])
        assert target["content"] in learned
        assert "so " not in learned  # the end of every attempt
    about = json.loads(out.read_text().splitlines()[3])["aggregation"]
    assert about == {**prompts[3].about, "teacher": "scripted"}


def test_what_is_left_out(tmp_path: Path) -> None:
    def script(prompt: Any, seed: int, index: int) -> str | None:
        return [solves(prompt, seed, index), "on and on " * 50, "hm\n</think>\n\n", None][seed % 4]

    out = tmp_path / "train.jsonl"
    report, first = taught(out, script, max_tokens=200)
    kinds = [request.seed % 4 for request in first.requests]
    assert {kinds.count(1), kinds.count(2), kinds.count(3)} & {0} == set()
    assert report.left_out["solution was cut"] == kinds.count(1)
    assert report.left_out["solution has no answer"] == kinds.count(2)
    assert report.left_out["teacher failed"] == kinds.count(3)
    assert len(list(ConversationLines(out))) == len(report.prompts) == kinds.count(0)
    report, second = taught(out, max_tokens=200)  # now nothing fails
    assert [request.seed % 4 for request in second.requests] == [3] * kinds.count(3)
    assert len(list(ConversationLines(out))) == kinds.count(0) + kinds.count(3)


def test_bounds(tmp_path: Path) -> None:
    prompts = [example.tokens for example in make_examples(POOLS, TOKENIZER, CONFIG, Report())]
    longest = max(prompts)
    _, completer = taught(tmp_path / "a", max_tokens=100, context=longest + 60)
    asked = [request.params.max_tokens for request in completer.requests]
    assert asked == [min(100, longest + 60 - tokens) for tokens in prompts]
    report, completer = taught(tmp_path / "b", max_total=longest)
    assert report.left_out["prompt leaves no room for a solution"] == prompts.count(longest) > 0
    for request in completer.requests:
        assert request.params.max_tokens < longest
    for document in ConversationLines(tmp_path / "b"):
        assert len(render(TOKENIZER, document.messages).ids) <= longest


class Killed(BaseException):
    pass


def killed_after(count: int) -> Callable[[Any, int, int], str]:
    left = iter(range(count))

    def script(prompt: Any, seed: int, index: int) -> str:
        if next(left, None) is None:
            raise Killed
        return solves(prompt, seed, index)

    return script


def test_interrupted_work_goes_on(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    taught(whole)
    for done in (0, 4, 3):
        with pytest.raises(Killed):
            taught(parts, killed_after(done), chunk=2)
        assert not parts.exists()
    record = parts.with_name("parts.jsonl.teacher")
    record.write_bytes(record.read_bytes() + b'{"key": "digest')  # a line that was cut
    told: list[tuple[int, int]] = []
    _, completer = taught(parts, chunk=5, say=lambda *progress: told.append(progress))
    assert told == [(11, 12), (12, 12)]
    assert len(completer.requests) == 12 - 4 - 2  # whole chunks were kept
    assert parts.read_bytes() == whole.read_bytes()
    assert len(taught(parts)[1].requests) == 0


def test_prompts_for_reinforcement_learning(tmp_path: Path) -> None:
    out, report = tmp_path / "prompts.jsonl", Report()
    examples = list(make_examples(POOLS, TOKENIZER, CONFIG, report))
    write_prompts(examples, out, "key", report)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[0].pop("made_from") == "key"
    assert rows == [
        {"problem": example.pool.problem, "messages": example.messages, "aggregation": example.about}
        for example in examples
    ]
    assert report.prompts == [example.tokens for example in examples]
    report.left_out["question is too long"] = 3
    with pytest.raises(UsageError, match="nothing is left to write: question is too long x3"):
        write_prompts([], tmp_path / "none.jsonl", "key", report)


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "train.jsonl"
    for text in ("a poem\n", "", "{}\n", '{"made_from": "other", "messages": []}\n', "3\n"):
        out.write_text(text)
        with pytest.raises(UsageError, match=r"train\.jsonl holds something else"):
            taught(out)
        assert out.read_text() == text
    out.unlink()
    taught(out)
    with pytest.raises(UsageError, match="holds something else"):
        taught(out, temperature=0.5)
    with pytest.raises(UsageError, match="at least 1: 0, 131072, 64"):
        taught(out, max_tokens=0)


def test_all_that_decides_has_a_part_in_the_key() -> None:
    teacher = Teacher(name="a", completer=ScriptedCompleter(TOKENIZER, solves))
    keys = {
        made_from(POOLS, TOKENIZER, CONFIG, teacher),
        made_from(POOLS[1:], TOKENIZER, CONFIG, teacher),
        made_from([pool(0, right=2), *POOLS[1:]], TOKENIZER, CONFIG, teacher),
        made_from(POOLS, TOKENIZER, AggregateConfig(), teacher),
        made_from(POOLS, TOKENIZER, CONFIG, None),
        made_from(POOLS, TOKENIZER, CONFIG, Teacher(name="b", completer=teacher.completer)),
    }
    assert len(keys) == 6
