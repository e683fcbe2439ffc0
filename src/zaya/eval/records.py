"""What an evaluation leaves behind: a line for every sample, in a file that a killed run takes up again.

The first line says what was evaluated; a file of something else is refused, never mixed. Records follow as they are
finished. Written by `eval.run`, read again by `eval.evaluation`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from zaya.engine.types import FinishReason
from zaya.envs.base import Status
from zaya.errors import UsageError

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
    lenient_answer: str | None = None
    """What `eval.lenient` read where the scorer found no answer."""
    lenient_correct: bool = False
    """Whether that is right. Never set where the scorer found an answer."""
    difficulty: int = 0
    """The level the problem was made at."""
    question: str = ""
    """The beginning of the problem."""
    reasoning: str = ""
    """The end of what was thought."""
    text: str = ""
    """The end of the visible answer."""

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
    round_tokens: tuple[int, ...] = ()
    """Drawn in each round."""
    lenient_score: float | None = None
    """The score where an answer counts wherever it stands (`eval.lenient`)."""
    truncated: float | None = None
    """Share of the last candidates that the budget ended; None as for the score."""
    difficulty: int = 0
    """The level the problem was made at."""
    question: str = ""
    """The beginning of the problem."""
    reasoning: str = ""
    """The end of what the chosen candidate thought."""
    text: str = ""
    """The end of its visible answer."""

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


class RecordFile:
    """Appends rows to a file, after reading what is there. A context manager; None keeps everything in memory."""

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        """Open the records of an evaluation that is described by `about`. Raises UsageError for those of another."""
        self.rows: list[dict[str, Any]] = []
        """What the file held."""
        self._file = None
        if path is None:
            return
        header = _line(about)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            self._file.seek(0)
            data = self._file.read()
        except OSError as error:
            raise UsageError(f"{path} cannot be opened: {error.strerror}") from error
        whole = data[: data.rfind(b"\n") + 1]  # a line that was cut by a kill goes
        try:
            if whole:
                self.rows = _read(path, whole, json.loads(header))
            elif not header.startswith(data):
                raise _foreign(path)
        except UsageError:
            self._file.close()
            raise
        self._file.truncate(len(whole))
        if not whole:
            self._write(header)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows, and have them on the disk before returning."""
        if self._file is not None:
            self._write(b"".join(map(_line, rows)))

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _read(path: Path, data: bytes, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        header, *rows = map(json.loads, data.splitlines())
    except ValueError as error:
        raise _foreign(path) from error
    if not isinstance(header, dict) or not all(isinstance(row, dict) for row in rows):
        raise _foreign(path)
    if header.get("format") != about.get("format"):
        raise UsageError(
            f"{path} was written by another version of zaya: format {header.get('format', 1)}, expected {FORMAT}",
            hint="name another file, or move this one away",
        )
    for key in (*about, *header):
        if header.get(key) != about.get(key):
            raise UsageError(
                f"{path} holds the records of another evaluation: {key} is {header.get(key)!r} there, "
                f"{about.get(key)!r} here",
                hint="name another file, or move this one away",
            )
    return rows


def _foreign(path: Path) -> UsageError:
    return UsageError(f"{path} is not a file of records", hint="name another file")
