"""What an evaluation leaves behind: a record for every sample, in a file (`core.records`) that a killed run takes up
again. Written by `eval.run`, read again by `eval.evaluation`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from zaya.engine.types import FinishReason
from zaya.envs.base import Status

FORMAT = 2
"""Version of the records, in the first line of a file. 2: difficulty, lenient reading, excerpts, versions of tasks."""
EXCERPT = 1000
"""Characters of a question or an answer that a record keeps, for people to read."""


def beginning(text: str) -> str:
    """As much of a text as a record keeps of a question."""
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - 1]}…"


def ending(text: str) -> str:
    """As much of a text as a record keeps of an answer: its end."""
    return text if len(text) <= EXCERPT else f"…{text[1 - EXCERPT :]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _OfProblem:
    """What every record has."""

    digest: str
    """Of the problem's content."""
    env: str
    seed: int
    """What it was sampled from."""
    answer: str | None
    """As the scorer read it; of Markovian RSA that on which most of the last candidates agree."""
    tokens: int
    """Drawn in all."""
    difficulty: int = 0
    """The level the problem was made at."""
    question: str = ""
    """The beginning of the problem."""
    reasoning: str = ""
    """The end of what was thought, by the candidate that was chosen."""
    text: str = ""
    """The end of the visible answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record(_OfProblem):
    """One sample of one problem."""

    sample: int
    """Its number, below k."""
    correct: bool
    reward: float
    status: Status
    """INFRA where the sample or its score could not be had: it counts nowhere, and is tried again on resuming."""
    finish: str | None
    """Why it ended, a `FinishReason` by value; None where there is no sample."""
    loose: bool | None = None
    """Whether it is right when read loosely; None where the task has one reading only, or its judge failed."""
    lenient_answer: str | None = None
    """What `eval.lenient` read where the scorer found no answer."""
    lenient_correct: bool = False
    """Whether that is right. Never set where the scorer found an answer."""

    @property
    def number(self) -> int:
        """Which of the values of its problem."""
        return self.sample

    @property
    def value(self) -> float | None:
        """What counts for the accuracy; None where nothing does."""
        return None if self.status is Status.INFRA else float(self.correct)

    @property
    def lenient_value(self) -> float | None:
        """The same where an answer counts wherever it stands."""
        return None if self.status is Status.INFRA else float(self.correct or self.lenient_correct)

    @property
    def truncated(self) -> float | None:
        """1 where the budget ended it, 0 where it did not."""
        return None if self.status is Status.INFRA else float(self.finish == FinishReason.LENGTH.value)

    def to_row(self) -> dict[str, Any]:
        return {**asdict(self), "status": self.status.value}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Record:
        return cls(**{**row, "status": Status(row["status"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class RsaRecord(_OfProblem):
    """One run of Markovian RSA on one problem."""

    run: int
    """Its number, below the number of runs."""
    score: float | None
    """Mean correctness over the candidates of the last round; None where that could not be had."""
    accuracy: tuple[float | None, ...]
    """The same for each round."""
    majority: bool | None
    """Whether the answer most of the last candidates agree on is right: what a user would be told."""
    left_out: int
    """Rollouts of all rounds that failed, or whose scorer did."""
    prompt_tokens: int
    """Of all prompts."""
    round_tokens: tuple[int, ...] = ()
    """Drawn in each round."""
    lenient_score: float | None = None
    """The score where an answer counts wherever it stands (`eval.lenient`)."""
    truncated: float | None = None
    """Share of the last candidates that the budget ended; None as for the score."""

    @property
    def number(self) -> int:
        """Which of the values of its problem."""
        return self.run

    @property
    def value(self) -> float | None:
        """What counts for the accuracy; None where nothing does."""
        return self.score

    @property
    def lenient_value(self) -> float | None:
        """The same where an answer counts wherever it stands."""
        return self.lenient_score

    def to_row(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RsaRecord:
        return cls(**{**row, "accuracy": tuple(row["accuracy"]), "round_tokens": tuple(row["round_tokens"])})


class Scored(Protocol):
    """What the records have in common."""

    @property
    def digest(self) -> str: ...
    @property
    def env(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def difficulty(self) -> int: ...
    @property
    def value(self) -> float | None: ...
    @property
    def lenient_value(self) -> float | None: ...
    @property
    def truncated(self) -> float | None: ...
    @property
    def tokens(self) -> int: ...
    @property
    def answer(self) -> str | None: ...
    @property
    def question(self) -> str: ...
    @property
    def reasoning(self) -> str: ...
    @property
    def text(self) -> str: ...


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
