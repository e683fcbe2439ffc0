"""What an evaluation leaves behind: a record for every sample, in a file (`core.records`) that a killed run takes up
again. Used by `eval.run`, read by `eval.report`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from zaya.envs.base import Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One sample of one problem."""

    digest: str
    """Of the problem's content."""
    env: str
    sample: int
    """Its number, below k."""
    seed: int
    """What it was sampled from."""
    correct: bool
    reward: float
    status: Status
    """INFRA where the sample or its score could not be had: it counts nowhere, and is tried again on resuming."""
    finish: str | None
    """Why it ended, a `FinishReason` by value; None where there is no sample."""
    tokens: int
    """Tokens drawn."""
    answer: str | None
    """The answer as the scorer read it."""
    loose: bool | None = None
    """Whether it is right when read loosely; None where the task has one reading only, or its judge failed."""

    @property
    def value(self) -> float | None:
        """What counts for the accuracy; None where nothing does."""
        return None if self.status is Status.INFRA else float(self.correct)

    def to_row(self) -> dict[str, Any]:
        return {**asdict(self), "status": self.status.value}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Record:
        return cls(**{**row, "status": Status(row["status"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class RsaRecord:
    """One run of Markovian RSA on one problem."""

    digest: str
    """Of the problem's content."""
    env: str
    run: int
    """Its number, below the number of runs."""
    seed: int
    score: float | None
    """Mean correctness over the candidates of the last round; None where that could not be had."""
    accuracy: tuple[float | None, ...]
    """The same for each round."""
    majority: bool | None
    """Whether the answer most of the last candidates agree on is right: what a user would be told."""
    answer: str | None
    """That answer, as the scorer read it."""
    left_out: int
    """Rollouts of all rounds that failed, or whose scorer did."""
    tokens: int
    """Drawn in all rounds."""
    prompt_tokens: int
    """Of all prompts."""

    @property
    def value(self) -> float | None:
        """What counts for the accuracy; None where nothing does."""
        return self.score

    def to_row(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RsaRecord:
        return cls(**{**row, "accuracy": tuple(row["accuracy"])})


class Scored(Protocol):
    """What the records have in common."""

    @property
    def digest(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def tokens(self) -> int: ...


def by_problem(records: Iterable[Scored]) -> dict[str, list[float]]:
    """The values of each problem, for `eval.metrics`; what counts nowhere is left out."""
    values: dict[str, list[float]] = {}
    for record in records:
        given = values.setdefault(record.digest, [])
        if record.value is not None:
            given.append(record.value)
    return values



def loosely_by_problem(records: Iterable[Record]) -> dict[str, list[float]]:
    """The same with answers read loosely, where there is such a reading."""
    return by_problem(record if record.loose is None else replace(record, correct=record.loose) for record in records)
