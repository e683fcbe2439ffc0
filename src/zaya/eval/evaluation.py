"""Evaluations as they are read again: a file of records each, told from other files by its first line.

A directory stands for all files of records in it, whatever they are called. Used by `eval.report` and `eval.compare`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zaya.errors import UsageError
from zaya.eval.records import FORMAT, Record, RsaRecord, Scored

_KINDS = {"samples": Record, "rsa": RsaRecord}


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The records of one system, or of one way to spend tokens."""

    name: str
    """The name of its file; with folders before it where names alone would not tell evaluations apart."""
    path: Path
    about: dict[str, Any]
    """The first line of the file: what was evaluated, and how."""
    records: Sequence[Scored]
    """By problem and number; of what was tried again, the last."""

    @property
    def is_rsa(self) -> bool:
        return self.about["records"] == "rsa"

    @property
    def missing(self) -> int:
        """Problems without any record: an evaluation that was interrupted."""
        return self.about["num_problems"] - len({record.digest for record in self.records})


def read_evaluations(paths: Iterable[Path]) -> list[Evaluation]:
    """The evaluations in files and directories, each once, in order, by names that tell them apart.

    Raises UsageError for a path that is not there, a file that holds no records, a directory without one that does.
    """
    found: dict[Path, Evaluation] = {}
    for path in paths:
        files = _files_of_records(path) if path.is_dir() else [path]
        for file in files:
            found.setdefault(file.resolve(), _read(file))
    return _told_apart(list(found.values()))


def _files_of_records(directory: Path) -> list[Path]:
    files = sorted(directory.glob("*.jsonl"), key=_natural)
    files = [file for file in files if _is_header(_first_line(file))]
    if not files:
        raise UsageError(
            f"there are no records of an evaluation in {directory}",
            hint="name the directory that `zaya eval` wrote, with result.md in it",
        )
    return files


def _natural(file: Path) -> list[tuple[int, str]]:
    """For an order in which 64 comes before 512, and a name before its extensions."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split("([0-9]+)", file.stem)]


def _first_line(file: Path) -> object:
    try:
        with file.open("rb") as stream:
            return json.loads(stream.readline())
    except (OSError, ValueError, RecursionError):
        return None


def _is_header(line: object) -> bool:
    return isinstance(line, dict) and line.get("records") in _KINDS


def _read(path: Path) -> Evaluation:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]  # a line that was cut by a kill goes
    try:
        about, *rows = map(json.loads, lines)
    except (ValueError, RecursionError):
        about, rows = None, []
    if not isinstance(about, dict) or not _is_header(about):
        raise UsageError(
            f"{path} is not a file of records",
            hint="`zaya eval` writes one for each system, NAME.jsonl in its directory",
        )
    if about.get("format") != FORMAT:
        raise UsageError(
            f"{path} was written by another version of zaya: format {about.get('format', 1)}, expected {FORMAT}",
            hint="evaluate again, into another directory",
        )
    try:
        records = [_KINDS[about["records"]].from_row(row) for row in rows]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is damaged: a line of it is no record: {error}") from error
    last = {(record.digest, record.number): record for record in records}
    return Evaluation(name=path.stem, path=path, about=about, records=list(last.values()))


def _told_apart(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """With as many folders before the names as it takes."""
    parts = [(*e.path.resolve().parent.parts, e.name) for e in evaluations]
    names, depth = [e.name for e in evaluations], 1
    while len(set(names)) < len(names):
        depth += 1
        names = ["/".join(part[-depth:]) for part in parts]
    return [
        Evaluation(name=name, path=e.path, about=e.about, records=e.records)
        for name, e in zip(names, evaluations, strict=True)
    ]
