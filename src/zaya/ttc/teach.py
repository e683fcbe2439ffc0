"""What is written of aggregation prompts: as they are, or as conversations with a teacher's solution.

What a teacher wrote is on the disk before it is asked for more, in a file of records beside the result; the result
appears whole, in the order of the prompts. So the same input gives the same bytes, however often the work was
interrupted. The first row says what the file was made from, and a file of something else is left alone. Source: spec
markovian-rsa 7.1 and 7.2. Used by `zaya aggregate`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zaya import config as configuration
from zaya.core.files import new_file
from zaya.core.records import RecordFile
from zaya.core.rng import derive_seed
from zaya.engine.types import Completer, Completion, FinishReason, OnProgress, Request, SamplingParams
from zaya.errors import UsageError
from zaya.text import Tokenizer, render
from zaya.ttc.aggregate import AggregateConfig, Example, Report
from zaya.ttc.rollouts import Pool

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """Who solves the prompts, and how much may be written."""

    name: str
    """Of the model, for the record."""
    completer: Completer
    max_tokens: int = 40_960
    """Tokens of a solution at most, reasoning and answer."""
    max_total: int = 131_072
    """Tokens of prompt and solution together."""
    temperature: float = 1.0
    chunk: int = 64
    """Prompts that are asked together, and then written down. It changes no result."""

    def __post_init__(self) -> None:
        if min(self.max_tokens, self.max_total, self.chunk) < 1:
            raise UsageError(
                f"max_tokens, max_total and chunk must be at least 1: {self.max_tokens}, {self.max_total}, {self.chunk}"
            )

    def request(self, example: Example) -> Request | None:
        """What it is asked; None where the prompt leaves no room."""
        context = self.completer.context
        total = self.max_total if context is None else min(self.max_total, context)
        tokens = min(self.max_tokens, total - example.tokens)
        if tokens < 1:
            return None
        params = SamplingParams(max_tokens=tokens, temperature=self.temperature)
        seed = derive_seed(example.about["seed"], "teacher", example.key)
        return Request(messages=example.messages, params=params, seed=seed)

    @property
    def about(self) -> list[Any]:
        """All that decides what it writes."""
        return [self.name, self.max_tokens, self.max_total, self.temperature]


def made_from(pools: Sequence[Pool], tokenizer: Tokenizer, config: AggregateConfig, teacher: Teacher | None) -> str:
    """Names all that decides what is written."""
    digest = hashlib.blake2b(digest_size=16)
    about = None if teacher is None else teacher.about
    digest.update(json.dumps([_FORMAT, tokenizer.digest, configuration.to_mapping(config), about]).encode())
    for pool in pools:
        rows = [[a.id, a.correct, a.completion.is_closed, a.completion.ids] for a in pool.attempts]
        digest.update(json.dumps([pool.digest, pool.problem, rows], sort_keys=True).encode())
    return digest.hexdigest()


def write_prompts(examples: Iterable[Example], out: Path, key: str, report: Report) -> None:
    """Prompts for reinforcement learning: problem, messages and where they come from. Raises UsageError."""
    check_place(out, key)
    rows = []
    for example in examples:
        report.count(example)
        rows.append({"problem": example.pool.problem, "messages": example.messages, "aggregation": example.about})
    _write(out, rows, key, report)


def write_conversations(
    examples: Iterable[Example],
    teacher: Teacher,
    tokenizer: Tokenizer,
    out: Path,
    key: str,
    report: Report,
    on_progress: OnProgress | None = None,
) -> None:
    """Conversations to learn from: each prompt with the teacher's solution. Raises UsageError.

    Solutions that were cut or have no answer are left out, and so is what is too long. Those that failed are asked for
    when the work is done again; others never are.
    """
    check_place(out, key)
    examples = list(examples)
    requests = {example.key: teacher.request(example) for example in examples}
    with RecordFile(out.with_name(out.name + ".teacher"), {"records": "teacher", "made_from": key}) as file:
        written = {row["key"]: row for row in file.rows}
        missing = [(name, request) for name, request in requests.items() if request and name not in written]
        done = len(examples) - len(missing)
        for start in range(0, len(missing), teacher.chunk):
            part = missing[start : start + teacher.chunk]
            answers = teacher.completer.complete([request for _, request in part])
            found = [_record(name, answer[0]) for (name, _), answer in zip(part, answers, strict=True) if answer]
            file.append(found)
            written |= {row["key"]: row for row in found}
            done += len(part)
            if on_progress is not None:
                on_progress(done, len(examples))
    rows = []
    for example in examples:
        if requests[example.key] is None:
            report.left_out["prompt leaves no room for a solution"] += 1
        elif example.key not in written:
            report.left_out["teacher failed"] += 1
        elif (unfit := _unfit(written[example.key])) is not None:
            report.left_out[unfit] += 1
        else:
            row = written[example.key]
            target = {"role": "assistant", "reasoning_content": row["reasoning"], "content": row["text"]}
            messages = [*example.messages, target]
            if len(render(tokenizer, messages).ids) > teacher.max_total:
                report.left_out["solution is too long"] += 1
                continue
            report.count(example)
            report.targets.append(row["tokens"])
            rows.append({"messages": messages, "aggregation": {**example.about, "teacher": teacher.name}})
    _write(out, rows, key, report)


def check_place(out: Path, key: str) -> None:
    """Raises UsageError where there is something that was not made from the same."""
    try:
        with out.open(encoding="utf-8") as stream:
            found = json.loads(stream.readline())["made_from"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != key:
        raise UsageError(
            f"{out} holds something else, or was made of other rollouts or with other settings",
            hint="name another file, or move this one away",
        )


def _record(name: str, completion: Completion) -> dict[str, Any]:
    return {
        "key": name,
        "reasoning": completion.reasoning,
        "text": completion.text,
        "finish": completion.finish_reason.value,
        "tokens": len(completion.ids),
    }


def _unfit(row: Mapping[str, Any]) -> str | None:
    """Why there is nothing to learn from what a teacher wrote."""
    if row["finish"] != FinishReason.STOP.value:
        return "solution was cut"
    return None if row["text"].strip() else "solution has no answer"


def _write(out: Path, rows: Sequence[dict[str, Any]], key: str, report: Report) -> None:
    if not rows:
        reasons = ", ".join(f"{reason} x{count}" for reason, count in sorted(report.left_out.items()) if count)
        raise UsageError(f"nothing is left to write: {reasons}")
    with new_file(out) as stream:
        for row in [{"made_from": key, **rows[0]}, *rows[1:]]:
            stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
