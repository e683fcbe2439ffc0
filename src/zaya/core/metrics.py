"""The log of a run: one JSON object a line, appended while the run goes on.

A line is handed to the system as soon as it is made, so that a killed process loses at most the line it was writing.
When a run resumes at a step, what the log has beyond that step, and a line that was cut, go: the log is that of one
unbroken run. `seconds` counts on from the last line that stays.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from zaya.errors import UsageError


class MetricsLog:
    """Appends to the log of a run. A context manager; one process writes one log."""

    def __init__(self, path: Path, *, resume_at: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """Open the log of a run that goes on after step `resume_at`; at 0 nothing that was there stays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        end, seconds = 0, 0.0
        for line_end, record in _lines(path):
            if record["step"] > resume_at or resume_at == 0:
                break
            end, seconds = line_end, record["seconds"]
        self._file.truncate(end)
        self._clock = clock
        self._start = clock() - seconds

    def log(self, step: int, tokens: int, **values: float | str | None) -> None:
        """One line: the step, the tokens consumed with it, the seconds the run has taken, and what else there is.

        JSON has no infinity and no NaN; they become null.
        """
        record = {"step": step, "tokens": tokens, "seconds": round(self._clock() - self._start, 3)}
        record |= {name: _finite(value) for name, value in values.items()}
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a log, in order; a last line that was cut is left out. Raises UsageError for a file that
    cannot be read or is not such a log."""
    return [record for _, record in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each record with the place in the file where its line ends."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    end = 0
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        end += len(line)
        record = _record(line)
        if record is not None:
            yield end, record
        elif end < len(data):
            raise UsageError(
                f"line {number} of {path} is not a line of metrics: {line[:60]!r}", hint="repair it, or move the file"
            )


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        return record if line.endswith(b"\n") and {"step", "tokens", "seconds"} <= record.keys() else None
    except (ValueError, AttributeError):  # not JSON; not an object
        return None


def _finite(value: float | str | None) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
