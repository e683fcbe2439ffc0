"""The record of one run: every rollout as it ends, so that an interrupted run goes on and a finished one can be shown.

The first line names question, settings, seed and tokenizer; a file of another run is refused. Rollouts that are in it
are not asked for again; those that failed are. `replay` gives the events of a record without any model. Written by
`ttc.live`, shown by `zaya solve --replay`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zaya.core.records import RecordFile
from zaya.engine.types import Completion, FinishReason
from zaya.errors import UsageError
from zaya.ttc.population import Population, Rollout
from zaya.ttc.types import Candidate, Event, Round, Solution

FORMAT = "rsa trace 1"
_STEPS = 20
"""Of a rollout's growth, in a replay."""


class Trace:
    """A record under way. A context manager; without a path nothing is kept."""

    def __init__(self, path: Path | None, population: Population, seed: int, selection: str) -> None:
        """Raises UsageError for a file that holds another run, or anything else."""
        about = {
            "records": FORMAT,
            "question": population.messages,
            "seed": seed,
            "selection": selection,
            "tokenizer": None if population.tokenizer is None else population.tokenizer.digest,
            "settings": asdict(population.config),
        }
        if population.structure is not None:
            about["structure"] = asdict(population.structure)
        self._path = path
        self._file = RecordFile(path, json.loads(json.dumps(about)))

    def restore(self, population: Population) -> float:
        """Take in what the file holds; the seconds that went into it."""
        latest = 0.0
        for place, row in enumerate(self._file.rows, 2):
            try:
                latest = max(latest, row["ended"] if "ended" in row else row["at"])
                if row["kind"] != "rollout" or row["round"] >= len(population.rounds):
                    continue
                rollout = population.rounds[row["round"]][row["candidate"]["worker"]]
                _restore(population, rollout, row)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise _damaged(self._path, place, error) from error
        return latest

    def ended(self, rollout: Rollout, candidate: Candidate) -> None:
        completion = rollout.completion
        assert completion is not None
        self._append(
            kind="rollout",
            round=rollout.round,
            begun=rollout.begun,
            ended=rollout.ended,
            candidate=asdict(candidate),
            ids=list(completion.ids),
            reasoning_ids=len(completion.reasoning_ids),
            pieces=None if completion.pieces is None else [piece.decode("latin-1") for piece in completion.pieces],
            reasoning_pieces=len(completion.reasoning_pieces),
            closed=completion.is_closed,
            finish=completion.finish_reason.value,
        )

    def lost(self, rollout: Rollout) -> None:
        self._append(
            kind="lost",
            round=rollout.round,
            worker=rollout.worker,
            begun=rollout.begun,
            ended=rollout.ended,
            why=rollout.lost,
        )

    def chose(self, solution: Solution, at: float) -> None:
        kept = ("answer", "text", "reasoning", "selection", "tally", "partial", "stopped")
        chosen = None if solution.chosen is None else asdict(solution.chosen)
        self._append(kind="choice", at=at, chosen=chosen, **{name: getattr(solution, name) for name in kept})

    def _append(self, **row: Any) -> None:
        self._file.append([row])

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)


def _restore(population: Population, rollout: Rollout, row: Mapping[str, Any]) -> None:
    ids, candidate = tuple(row["ids"]), row["candidate"]
    pieces = None if row["pieces"] is None else tuple(piece.encode("latin-1") for piece in row["pieces"])
    rollout.sources = tuple(candidate["sources"])
    rollout.begun, rollout.ended = row["begun"], row["ended"]
    rollout.prompt_tokens = candidate["prompt_tokens"]
    rollout.cached_tokens = candidate["cached_tokens"]
    rollout.generated_tokens = candidate["generated_tokens"]
    completion = Completion(
        ids=ids,
        text=candidate["text"],
        reasoning=candidate["reasoning"],
        finish_reason=FinishReason(row["finish"]),
        prompt_ids=(),
        reasoning_ids=ids[: row["reasoning_ids"]],
        is_closed=row["closed"],
        is_approximate=candidate["is_approximate"],
        pieces=pieces,
        reasoning_pieces=() if pieces is None else pieces[: row["reasoning_pieces"]],
    )
    population.restore(rollout, completion, population.carried(completion))


def replay(path: Path) -> tuple[dict[str, Any], list[Event]]:
    """What a trace says of its run, and what happened in it, in the order of time. Raises UsageError."""
    header, rows = _read(path)
    events: list[Event] = []
    rounds: dict[int, list[Mapping[str, Any]]] = {}
    last = header["settings"]["rounds"]
    try:
        for place, row in enumerate(rows, 2):
            try:
                if row["kind"] != "choice":
                    rounds.setdefault(row["round"], []).append(row)
                    events += _of_rollout(row)
            except (KeyError, TypeError, ValueError) as error:
                raise _damaged(path, place, error) from error
        records = {number: _round(of) for number, of in sorted(rounds.items())}
        for number, of in rounds.items():
            if number <= last and len({_worker(row) for row in of}) == _workers(header["settings"], number):
                ended = max(row["ended"] for row in of)
                events.append(Event(kind="round", at=ended, round=number, summary=records[number]))
        for row in rows:
            if row["kind"] == "choice":
                solution = _solution(row, records, last)
                events.append(Event(kind="choice", at=row["at"], round=last, solution=solution))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is damaged: {type(error).__name__} {error}") from error
    order = ("start", "grow", "retry", "end", "lost", "round", "choice")
    return header, sorted(events, key=lambda event: (event.at, order.index(event.kind)))


def _worker(row: Mapping[str, Any]) -> int:
    return row["worker"] if row["kind"] == "lost" else row["candidate"]["worker"]


def _workers(settings: Mapping[str, Any], round: int) -> int:
    """Rollouts of a round."""
    final = settings["final_workers"] if round == settings["rounds"] else None
    return settings["population"] if final is None else final


def _of_rollout(row: Mapping[str, Any]) -> Iterator[Event]:
    begun, ended, round = row["begun"], row["ended"], row["round"]
    if row["kind"] == "lost":
        yield Event(kind="start", at=begun, round=round, worker=row["worker"])
        yield Event(kind="lost", at=ended, round=round, worker=row["worker"], text=row["why"])
        return
    candidate = _candidate(row["candidate"], ended - begun)
    worker, tokens = candidate.worker, candidate.generated_tokens
    yield Event(kind="start", at=begun, round=round, worker=worker, sources=candidate.sources)
    whole = candidate.reasoning + candidate.text
    for step in range(1, _STEPS):
        part = slice(len(whole) * (step - 1) // _STEPS, len(whole) * step // _STEPS)
        at = begun + (ended - begun) * step / _STEPS
        yield Event(
            kind="grow", at=at, round=round, worker=worker, tokens=tokens * step // _STEPS, text=whole[part],
            is_answering=part.stop > len(candidate.reasoning),
        )  # fmt: skip
    yield Event(kind="end", at=ended, round=round, worker=worker, candidate=candidate)


def _candidate(values: Mapping[str, Any], seconds: float) -> Candidate:
    return Candidate(**{**values, "sources": tuple(values["sources"]), "seconds": seconds})


def _round(rows: Sequence[Mapping[str, Any]]) -> Round:
    ended = [row for row in rows if row["kind"] == "rollout"]
    again = {_worker(row) for row in ended}
    lost = [row for row in rows if row["kind"] == "lost" and row["worker"] not in again]
    kinds: dict[str, int] = {}
    for row in lost:
        kinds[row["why"]] = kinds.get(row["why"], 0) + 1
    candidates = [_candidate(row["candidate"], row["ended"] - row["begun"]) for row in ended]
    return Round(
        candidates=tuple(sorted(candidates, key=lambda candidate: candidate.worker)),
        requests=len(ended) + len(lost),
        wall_s=max(row["ended"] for row in rows) - min(row["begun"] for row in rows),
        lost=kinds,
    )


def _solution(row: Mapping[str, Any], rounds: Mapping[int, Round], last: int) -> Solution:
    return Solution(
        answer=row["answer"],
        text=row["text"],
        reasoning=row["reasoning"],
        rounds=tuple(rounds[number] for number in sorted(rounds) if number <= last),
        closing=rounds.get(last + 1),
        selection=row["selection"],
        tally=tuple((answer, count) for answer, count in row["tally"]),
        chosen=None if row["chosen"] is None else _candidate(row["chosen"], row["chosen"]["seconds"]),
        partial=row["partial"],
        stopped=row["stopped"],
    )


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    whole = [line for line in lines if line.endswith(b"\n")]  # a line that was cut by a kill is none
    try:
        header = json.loads(whole[0])
        is_trace = header["records"] == FORMAT
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _foreign(path) from error
    if not is_trace:
        raise _foreign(path)
    rows = []
    for place, line in enumerate(whole[1:], 2):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise _damaged(path, place, error) from error
    return header, rows


def _foreign(path: Path) -> UsageError:
    return UsageError(f"{path} is not a trace", hint="zaya solve --trace FILE writes one")


def _damaged(path: Path | None, place: int, error: Exception) -> UsageError:
    return UsageError(
        f"{path}:{place} is damaged: {type(error).__name__} {error}",
        hint="remove the line, and what it recorded is done again",
    )
