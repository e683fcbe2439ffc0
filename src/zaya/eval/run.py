"""Evaluation: problems to a completer, answers to a scorer, records to a file.

    evaluate       k samples of each problem
    evaluate_rsa   runs of Markovian RSA on each, scored by the mean over the last candidates

Every sample has a stream of its own, named by seed, problem and number: what was finished before a kill is not asked
again, and a larger k goes on where a smaller one ended. The scorers are those of training (`zaya.envs`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any, Protocol

from zaya.core.rng import derive_seed
from zaya.engine.types import Completer, Completion, OnProgress, Request, SamplingParams
from zaya.envs.base import Problem, Score, Status
from zaya.errors import UsageError
from zaya.eval.records import Record, RecordFile, RsaRecord
from zaya.text import Tokenizer
from zaya.ttc.rsa import RsaConfig, solve_many
from zaya.ttc.types import Solution
from zaya.ttc.vote import clusters


class Scorer(Protocol):
    """Who scores answers, such as `envs.pool.TaskPool`."""

    def score(self, pairs: Sequence[tuple[Problem, str]], /) -> list[Score]:
        """The score of each visible answer to a problem, in order."""
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
    about = {"records": "samples", "problems": _digest(named), "seed": seed, "plain": plain is not None}
    about |= asdict(params) | dict(labels or {})
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
            texts = [(named[digest], c.text) for (digest, _), c in zip(part, heard, strict=True) if c is not None]
            scores = iter(pool.score(texts))
            records = [
                _record(named[digest], sample, own, completion, None if completion is None else next(scores))
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
    tokenizer: Tokenizer,
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
    about = {"records": "rsa", "problems": _digest(named), "seed": seed, **asdict(config)}
    about |= labels or {}
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
            scores = iter(
                pool.score(
                    [
                        (named[digest], candidate.text)
                        for (digest, _), solution in zip(part, solutions, strict=True)
                        for round in solution.rounds
                        for candidate in round.candidates
                    ]
                )
            )
            records = []
            for (digest, run), own, solution in zip(part, seeds, solutions, strict=True):
                by_round = [[next(scores) for _ in round.candidates] for round in solution.rounds]
                records.append(_rsa_record(named[digest], run, own, solution, by_round))
            file.append(record.to_row() for record in records)
            found |= {(record.digest, record.run): record for record in records}
            done += len(part) * config.generations
        return [found[key] for key in wanted]


def _request(problem: Problem, params: SamplingParams, seed: int, plain: Tokenizer | None) -> Request:
    if plain is not None:
        return Request(prompt_ids=opening(plain, problem), params=params, seed=seed)
    return Request(messages=messages_of(problem), tools=problem.meta.get("tools") or None, params=params, seed=seed)


def _record(problem: Problem, sample: int, seed: int, completion: Completion | None, score: Score | None) -> Record:
    return Record(
        digest=problem.digest,
        env=problem.env,
        sample=sample,
        seed=seed,
        correct=score is not None and score.correct,
        reward=0.0 if score is None else score.reward,
        status=Status.INFRA if score is None else score.status,
        finish=None if completion is None else completion.finish_reason.value,
        tokens=0 if completion is None else len(completion.ids),
        answer=None if score is None else score.answer,
    )


def _rsa_record(problem: Problem, run: int, seed: int, solution: Solution, scores: list[list[Score]]) -> RsaRecord:
    judged = [[score for score in some if score.status is not Status.INFRA] for some in scores]
    accuracy = tuple(mean(float(score.correct) for score in some) if some else None for some in judged)
    last = [] if solution.partial else judged[-1]
    votes = clusters([score.answer for score in last])
    chosen = last[votes[0][0]] if votes else None
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
    )


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
