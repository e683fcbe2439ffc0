"""Evaluation: problems to a completer, answers to a scorer, records to a file.

    evaluate       k samples of each problem
    evaluate_rsa   runs of Markovian RSA on each, scored by the mean over the last candidates

Every sample has a stream of its own, named by seed, problem and number: what was finished before a kill is not asked
again, and a larger k goes on where a smaller one ended. The scorers are those of training (`zaya.envs`); a sample of a
task with a second, loose reading, as instructions have, is also judged by that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Protocol

from zaya.core.records import RecordFile
from zaya.core.rng import derive_seed
from zaya.engine.types import Completer, Completion, FinishReason, OnProgress, Request, SamplingParams
from zaya.envs.base import Problem, Score, Status
from zaya.errors import UsageError
from zaya.eval.lenient import can_be_lenient, lenient, reboxed
from zaya.eval.records import FORMAT, Record, RsaRecord, beginning, ending
from zaya.text import Tokenizer
from zaya.ttc.rsa import RsaConfig, solve_many
from zaya.ttc.types import Solution
from zaya.ttc.vote import clusters


class Scorer(Protocol):
    """Who scores answers, such as `envs.pool.TaskPool`."""

    def score(self, pairs: Sequence[tuple[Problem, str]], /) -> list[Score]:
        """The score of each visible answer to a problem, in order."""
        ...

    def loosely_right(self, pairs: Sequence[tuple[Problem, str]], /) -> list[bool | None]:
        """Whether each is right when read loosely; None where there is no such reading."""
        ...


def evaluate(
    completer: Completer,
    problems: Sequence[Problem],
    *,
    k: int,
    params: SamplingParams,
    pool: Scorer,
    seed: int = 0,
    plain: Tokenizer | None = None,
    out: Path | None = None,
    labels: Mapping[str, Any] | None = None,
    chunk: int = 256,
    on_progress: OnProgress | None = None,
) -> list[Record]:
    """k samples of each problem, by problem and number. `chunk` of them are asked for at a time, then written.

    plain: the tokenizer of a base model, which knows no conversations: a problem is the beginning of a text to it.
    labels: what else the first line of the records says, such as the name of the task.
    Raises UsageError where `out` holds the records of something else.
    """
    named = _named(problems)
    about = _about("samples", named, seed) | {"plain": plain is not None} | asdict(params) | dict(labels or {})
    total = len(named) * k
    with RecordFile(out, about) as file:
        found = {(r.digest, r.sample): r for r in map(Record.from_row, file.rows) if r.status is not Status.INFRA}
        wanted = [(digest, sample) for digest in named for sample in range(k)]
        missing = [key for key in wanted if key not in found]
        done = total - len(missing)
        for part in _chunks(missing, chunk):
            seeds = [derive_seed(seed, "eval", *key) for key in part]
            requests = [
                _request(named[digest], params, own, plain) for (digest, _), own in zip(part, seeds, strict=True)
            ]
            answers = completer.complete(requests, on_progress=_shifted(on_progress, done, total))
            heard = [answer[0] if answer else None for answer in answers]
            asked = [named[digest] for (digest, _), c in zip(part, heard, strict=True) if c is not None]
            spoken = [
                _Spoken(c.text, c.reasoning, c.finish_reason is FinishReason.LENGTH) for c in heard if c is not None
            ]
            verdicts = iter(_judged(pool, asked, spoken))
            records = [
                _record(named[digest], sample, own, completion, None if completion is None else next(verdicts))
                for (digest, sample), own, completion in zip(part, seeds, heard, strict=True)
            ]
            file.append(record.to_row() for record in records)
            found |= {(record.digest, record.sample): record for record in records}
            done += len(part)
        return [found[key] for key in wanted]


def opening(tokenizer: Tokenizer, problem: Problem) -> list[int]:
    """A problem as a document begins that is a worked problem: what a base model goes on from."""
    ids = tokenizer.encode_plain(f"{problem.prompt}\n")
    return ids if tokenizer.bos_id is None else [tokenizer.bos_id, *ids]


def messages_of(problem: Problem) -> Sequence[Mapping[str, Any]]:
    """A problem as a conversation: the one it brings along, or its prompt alone."""
    return problem.meta.get("messages") or [{"role": "user", "content": problem.prompt}]


def evaluate_rsa(
    completer: Completer,
    tokenizer: Tokenizer | None,
    problems: Sequence[Problem],
    *,
    config: RsaConfig,
    runs: int,
    pool: Scorer,
    seed: int = 0,
    out: Path | None = None,
    labels: Mapping[str, Any] | None = None,
    chunk: int = 16,
    on_progress: OnProgress | None = None,
) -> list[RsaRecord]:
    """Runs of Markovian RSA on each problem, by problem and number. `chunk` of them go through the rounds together.

    `on_progress` is told about rollouts. Raises UsageError where `out` holds the records of something else.
    """
    named = _named(problems)
    about = _about("rsa", named, seed) | asdict(config) | dict(labels or {})
    total = len(named) * runs * config.generations
    with RecordFile(out, about) as file:
        found = {(r.digest, r.run): r for r in map(RsaRecord.from_row, file.rows) if r.score is not None}
        wanted = [(digest, run) for digest in named for run in range(runs)]
        missing = [key for key in wanted if key not in found]
        done = total - len(missing) * config.generations
        for part in _chunks(missing, chunk):
            seeds = [derive_seed(seed, "eval rsa", *key) for key in part]
            solutions = solve_many(
                [named[digest].prompt for digest, _ in part], completer, tokenizer, config=config, seeds=seeds,
                on_progress=_shifted(on_progress, done, total),
            )  # fmt: skip
            rounds = [
                (named[digest], round)
                for (digest, _), solution in zip(part, solutions, strict=True)
                for round in solution.rounds
            ]
            verdicts = iter(
                _judged(
                    pool,
                    [problem for problem, round in rounds for _ in round.candidates],
                    [_Spoken(c.text, c.reasoning, not c.is_finished) for _, round in rounds for c in round.candidates],
                )
            )
            records = []
            for (digest, run), own, solution in zip(part, seeds, solutions, strict=True):
                by_round = [[next(verdicts) for _ in round.candidates] for round in solution.rounds]
                records.append(_rsa_record(named[digest], run, own, solution, by_round))
            file.append(record.to_row() for record in records)
            found |= {(record.digest, record.run): record for record in records}
            done += len(part) * config.generations
        return [found[key] for key in wanted]


def _request(problem: Problem, params: SamplingParams, seed: int, plain: Tokenizer | None) -> Request:
    if plain is not None:
        return Request(prompt_ids=opening(plain, problem), params=params, seed=seed)
    return Request(messages=messages_of(problem), tools=problem.meta.get("tools") or None, params=params, seed=seed)


@dataclass(frozen=True, slots=True)
class _Spoken:
    """What was written for a problem."""

    text: str
    reasoning: str
    is_cut: bool


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What it is worth, to the scorer and with an answer that stands elsewhere."""

    score: Score
    loose: bool | None = None
    """Whether it is right when read loosely; None where the task has one reading only."""
    lenient_answer: str | None = None
    lenient_correct: bool = False


def _judged(pool: Scorer, problems: Sequence[Problem], spoken: Sequence[_Spoken]) -> list[_Verdict]:
    """All of them scored, and those without an answer asked about a second time with one that stands elsewhere."""
    pairs = [(problem, said.text) for problem, said in zip(problems, spoken, strict=True)]
    verdicts = [_Verdict(*each) for each in zip(pool.score(pairs), pool.loosely_right(pairs), strict=True)]
    elsewhere = {
        i: answer
        for i, (problem, said) in enumerate(zip(problems, spoken, strict=True))
        if can_be_lenient(problem, verdicts[i].score)
        and (answer := lenient(said.text, said.reasoning, is_cut=said.is_cut)) is not None
    }
    again = pool.score([(problems[i], reboxed(answer)) for i, answer in elsewhere.items()]) if elsewhere else []
    for (i, answer), score in zip(elsewhere.items(), again, strict=True):
        verdicts[i] = replace(verdicts[i], lenient_answer=answer, lenient_correct=score.correct)
    return verdicts


def _record(
    problem: Problem, sample: int, seed: int, completion: Completion | None, verdict: _Verdict | None
) -> Record:
    score = None if verdict is None else verdict.score
    return Record(
        digest=problem.digest,
        env=problem.env,
        sample=sample,
        seed=seed,
        correct=score is not None and score.correct,
        reward=0.0 if score is None else score.reward,
        status=Status.INFRA if score is None else score.status,
        finish=None if completion is None else completion.finish_reason.value,
        tokens=0 if completion is None else completion.generated_tokens,
        answer=None if score is None else score.answer,
        loose=None if verdict is None else verdict.loose,
        lenient_answer=None if verdict is None else verdict.lenient_answer,
        lenient_correct=verdict is not None and verdict.lenient_correct,
        difficulty=problem.difficulty,
        question=beginning(problem.prompt),
        reasoning="" if completion is None else ending(completion.reasoning),
        text="" if completion is None else ending(completion.text),
    )


def _rsa_record(problem: Problem, run: int, seed: int, solution: Solution, verdicts: list[list[_Verdict]]) -> RsaRecord:
    judged = [[verdict for verdict in some if verdict.score.status is not Status.INFRA] for some in verdicts]
    accuracy = tuple(mean(float(v.score.correct) for v in some) if some else None for some in judged)
    last = [] if solution.partial else judged[-1]
    votes = clusters([verdict.score.answer for verdict in last])
    chosen = last[votes[0][0]].score if votes else None
    return RsaRecord(
        digest=problem.digest,
        env=problem.env,
        run=run,
        seed=seed,
        score=accuracy[-1] if last else None,
        accuracy=accuracy,
        majority=(chosen is not None and chosen.correct) if last else None,
        answer=None if chosen is None else chosen.answer,
        left_out=sum(round.requests for round in solution.rounds) - sum(map(len, judged)),
        tokens=solution.usage.generated_tokens,
        prompt_tokens=solution.usage.prompt_tokens,
        round_tokens=tuple(round.generated_tokens for round in solution.rounds),
        lenient_score=mean(float(v.score.correct or v.lenient_correct) for v in last) if last else None,
        truncated=solution.rounds[-1].truncated / len(solution.candidates) if last else None,
        difficulty=problem.difficulty,
        question=beginning(problem.prompt),
        reasoning=ending(solution.reasoning),
        text=ending(solution.text),
    )


def _about(records: str, named: dict[str, Problem], seed: int) -> dict[str, Any]:
    """The first line of a file of records. Versions come first, so that they are named where problems differ too."""
    return {
        "records": records,
        "format": FORMAT,
        "versions": {problem.env: problem.version for problem in named.values()},
        "problems": _digest(named),
        "num_problems": len(named),
        "seed": seed,
    }


def _named(problems: Sequence[Problem]) -> dict[str, Problem]:
    """The problems by digest. Raises UsageError where there are none, or two are one."""
    named: dict[str, Problem] = {}
    for i, problem in enumerate(problems):
        if problem.digest in named:
            raise UsageError(f"problems[{i}] is there twice: {problem.prompt[:60]!r}", hint="give every item once")
        named[problem.digest] = problem
    if not named:
        raise UsageError("there are no problems to evaluate")
    return named


def _digest(named: dict[str, Problem]) -> str:
    """Names a list of problems by content, by what scores them and its version: that of a file is its answers too."""
    lines = "\n".join(f"{digest} {problem.env} {problem.version}" for digest, problem in named.items())
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def _chunks(keys: list[tuple[str, int]], size: int) -> list[list[tuple[str, int]]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


def _shifted(on_progress: OnProgress | None, done: int, total: int) -> OnProgress | None:
    return None if on_progress is None else lambda now, _: on_progress(done + now, total)
