"""Rollouts from a file, by problem: what `ttc.aggregate` makes prompts of.

    {"problem": "What is 2 + 2?", "reasoning": "Two and two is four.", "answer": "\\\\boxed{4}"}

One JSON object is one rollout; a problem has several, anywhere in the files. Its fields, of which others may have other
names:

    problem     the question; or a problem as `envs.base.Problem.to_json` writes it, which reinforcement learning needs
    messages    the conversation that was asked, where it is more than the question
    reasoning   what was thought
    answer      what was said after it; missing or null where the rollout was cut before
    ids         all ids that were drawn, by the tokenizer that is used here; without them the text is encoded
    id          what the rollout is called; without it a hash of its text
    correct     whether the answer is right, where that is known

A trace, as `zaya solve` leaves it, holds the rollouts of its first round. What is read does not depend on the order of
lines or files. Source: spec markovian-rsa 7.1.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zaya.core.jsonl import json_objects
from zaya.engine.types import Completion, FinishReason
from zaya.envs.base import Problem
from zaya.errors import DataError, UsageError, did_you_mean
from zaya.text import Tokenizer
from zaya.text.messages import normalize_messages
from zaya.ttc.trace import FORMAT as TRACE

FIELDS = ("problem", "messages", "reasoning", "answer", "ids", "id", "correct")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One rollout."""

    id: str
    completion: Completion
    correct: bool | None
    """None where nobody knows."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A problem and its rollouts, in the order of their names."""

    digest: str
    """Names the conversation by its content."""
    problem: Any
    """As the file gives it: a text, or a problem of an environment; None where there is a conversation only."""
    messages: list[dict[str, Any]]
    attempts: tuple[Attempt, ...]


def read_pools(paths: Sequence[Path], tokenizer: Tokenizer, fields: Mapping[str, str] | None = None) -> list[Pool]:
    """The problems of files, in the order of their digests. `fields` maps our names to those in the files.

    Raises DataError, which names file and line, for a line of another shape.
    """
    names = {field: field for field in FIELDS} | dict(fields or {})
    for ours in names:
        if ours not in FIELDS:
            raise UsageError(f"a rollout has no field {ours!r}", hint=did_you_mean(ours, FIELDS))
    problems: dict[str, tuple[Any, list[dict[str, Any]]]] = {}
    attempts: dict[str, dict[str, Attempt]] = defaultdict(dict)
    unnamed: dict[str, list[Attempt]] = defaultdict(list)
    for path in paths:
        for where, row in _rows(path, tokenizer, names):
            problem, messages = _asked(where, row)
            digest = digest_of(messages)
            problems.setdefault(digest, (problem, messages))
            if problem != problems[digest][0]:
                raise DataError(f"{where}: the same question is another problem elsewhere", hint="remove one of them")
            attempt = _attempt(where, row, tokenizer)
            if not attempt.id:
                unnamed[digest].append(attempt)
            elif attempt.id in attempts[digest]:
                raise DataError(f"{where}: the problem has a rollout of this id already: {attempt.id}")
            else:
                attempts[digest][attempt.id] = attempt
    for digest, some in unnamed.items():
        attempts[digest] |= {attempt.id: attempt for attempt in _named(some)}
    return [
        Pool(digest, *problems[digest], tuple(attempts[digest][id] for id in sorted(attempts[digest])))
        for digest in sorted(problems)
    ]


def digest_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """Names a conversation by its content."""
    return _hash(json.dumps(messages, sort_keys=True, ensure_ascii=False))


class Excluded:
    """Problems that must not be learned from, such as those of an evaluation.

    Read from files of problems or rollouts, and from the records of an evaluation, which hold digests. Two questions
    are one where they differ in white space alone.
    """

    def __init__(self, paths: Sequence[Path], fields: Mapping[str, str] | None = None) -> None:
        """Raises DataError for a line that holds none of these."""
        self._keys: set[str] = set()
        problem_field = (fields or {}).get("problem", "problem")
        for path in paths:
            for number, row in json_objects(path):
                where = f"{path}:{number}"
                if "records" in row:  # the first line of a file of records
                    self._keys |= _keys(row["question"]) if isinstance(row.get("question"), list) else set()
                elif isinstance(row.get("digest"), str):
                    self._keys.add(row["digest"])
                elif "kind" not in row or problem_field in row:
                    prompt = row if "env" in row and "prompt" in row else row.get(problem_field)
                    self._keys |= _keys(_asked(where, {"problem": prompt, "messages": row.get("messages")})[1])

    def __contains__(self, pool: Pool) -> bool:
        return not self._keys.isdisjoint(_keys(pool.messages))


def _keys(messages: Sequence[Mapping[str, Any]]) -> set[str]:
    """What a question is known by: the digest of a `Problem`, and the same of its words."""
    questions = [message["content"] for message in messages if message.get("role") == "user"]
    question = questions[-1] if questions else ""
    return {Problem("", text, {}, 0, 0).digest for text in (question, " ".join(question.split()))}


def _rows(path: Path, tokenizer: Tokenizer, names: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each rollout by our names, and where it stands."""
    trace: dict[str, Any] | None = None
    for number, row in json_objects(path):
        where = f"{path}:{number}"
        if number == 1 and row.get("records") == TRACE:
            trace = row
        elif trace is None:
            yield where, {ours: row.get(theirs) for ours, theirs in names.items()}
        elif row.get("kind") == "rollout" and row.get("round") == 0:
            yield where, _of_trace(where, trace, row, tokenizer)


def _of_trace(where: str, trace: Mapping[str, Any], row: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    try:
        candidate = row["candidate"]
        # of reasoning that was closed by force the tag is not among the ids
        is_told = trace["tokenizer"] == tokenizer.digest and row["closed"] == (tokenizer.tags.think_close in row["ids"])
        return {
            "messages": trace["question"],
            "reasoning": candidate["reasoning"],
            "answer": candidate["text"] if row["closed"] else None,
            "ids": row["ids"] if is_told else None,
            "id": f"{trace['seed']}/{candidate['worker']}",
        }
    except (KeyError, TypeError) as error:
        raise DataError(f"{where} is damaged: {type(error).__name__} {error}") from error


def _asked(where: str, row: Mapping[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """The problem as it is given, and the conversation that ends with its question."""
    problem, messages = row.get("problem"), row.get("messages")
    if isinstance(problem, Mapping):
        try:
            question = Problem(**problem).prompt
        except TypeError as error:
            raise DataError(f"{where}: the problem is none of an environment: {error}") from error
    else:
        question = problem
    if messages is None:
        if not isinstance(question, str) or not question.strip():
            raise DataError(
                f"{where} has no problem: {question!r:.60}",
                hint="a rollout has a text problem, or messages; a field of another name needs --field problem=NAME",
            )
        messages = [{"role": "user", "content": question}]
    try:
        conversation = normalize_messages(messages)
    except UsageError as error:
        raise DataError(f"{where}: {error}") from error
    if not conversation or conversation[-1]["role"] != "user":
        raise DataError(f"{where}: the last message must be a user's question")
    return problem, conversation


def _attempt(where: str, row: Mapping[str, Any], tokenizer: Tokenizer) -> Attempt:
    reasoning, answer, ids, id, correct = (row.get(name) for name in ("reasoning", "answer", "ids", "id", "correct"))
    for name, value in (("reasoning", reasoning), ("answer", answer)):
        if value is not None and not isinstance(value, str):
            raise DataError(f"{where}: {name} must be text: {type(value).__name__}")
    if correct not in (None, False, True):  # 0 and 1 are equal to these
        raise DataError(f"{where}: correct must be true or false, where it is known: {correct!r:.60}")
    if id is not None and (isinstance(id, bool) or not isinstance(id, str | int) or id == ""):
        raise DataError(f"{where}: an id is a text or a number: {id!r:.60}")
    completion = _drawn(where, ids, tokenizer) if ids is not None else _encoded(reasoning or "", answer, tokenizer)
    if reasoning is not None and completion.reasoning != reasoning.strip("\n"):
        raise DataError(
            f"{where}: ids and reasoning say different things",
            hint="ids are of the tokenizer that is used here; leave them out where it is another",
        )
    return Attempt("" if id is None else str(id), completion, None if correct is None else bool(correct))


def _encoded(reasoning: str, answer: str | None, tokenizer: Tokenizer) -> Completion:
    """A rollout of which only the text is known. Lines end as the chat format ends them."""
    is_closed = answer is not None
    reasoning = reasoning.strip("\n")
    thought = tokenizer.encode_plain(reasoning + "\n" * is_closed) if reasoning else []
    said = tokenizer.encode_plain("\n\n" + answer.strip("\n")) if answer else []
    return _completion((*thought, *said), len(thought), reasoning, answer or "", is_closed)


def _drawn(where: str, ids: Any, tokenizer: Tokenizer) -> Completion:
    """A rollout as it was drawn behind a prompt that opens the reasoning."""
    if not isinstance(ids, list) or not all(isinstance(id, int) and 0 <= id < tokenizer.size for id in ids):
        raise DataError(
            f"{where}: ids must be a list of numbers from 0 to {tokenizer.size - 1}",
            hint="they are of the tokenizer that is used here; leave them out where it is another",
        )
    close = tokenizer.tags.think_close
    at = ids.index(close) if close in ids else len(ids)
    reasoning, answer = (
        tokenizer.decode(id for id in part if id not in tokenizer.control_ids) for part in (ids[:at], ids[at:])
    )
    return _completion(tuple(ids), at, reasoning.strip("\n"), answer.strip("\n"), at < len(ids))


def _completion(ids: Sequence[int], thought: int, reasoning: str, answer: str, is_closed: bool) -> Completion:
    return Completion(
        ids=tuple(ids),
        text=answer,
        reasoning=reasoning,
        finish_reason=FinishReason.STOP if is_closed else FinishReason.LENGTH,
        prompt_ids=(),
        reasoning_ids=tuple(ids[:thought]),
        is_closed=is_closed,
    )


def _named(attempts: Sequence[Attempt]) -> Iterator[Attempt]:
    """With names from what they say; those that say the same are told apart by a number."""
    count: Counter[str] = Counter()
    for attempt in sorted(attempts, key=lambda attempt: str(attempt.correct)):
        completion = attempt.completion
        name = _hash(json.dumps([completion.ids, completion.is_closed]))[:12]
        count[name] += 1
        yield Attempt(name if count[name] == 1 else f"{name}-{count[name]}", completion, attempt.correct)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
