"""Evaluations as they are read again: files of records, told from other files by their first line, whatever their name.

    one file                        an evaluation, called as its first line says (`system`, `ttc`), else as the file
    files of a directory that say   one evaluation: a system, or one form of thinking of it, on several tasks
    the same system and form

Used by `eval.report` and `eval.compare`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zaya.errors import UsageError, did_you_mean
from zaya.eval.records import FORMAT, Record, RsaRecord, Scored

_KINDS = {"samples": Record, "rsa": RsaRecord}


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The records of one system, or of one way to spend tokens."""

    label: str
    """What it is called where it was written."""
    name: str
    """The same, with folders before it where that alone would not tell evaluations apart."""
    system: str
    """Who was asked."""
    paths: tuple[Path, ...]
    about: dict[str, Any]
    """How it was asked, by setting; where that differs between tasks, a tuple of all values."""
    records: Sequence[Scored]
    """By problem and number; of what was tried again, the last."""
    tasks: dict[str, str]
    """The task of each problem, as the recipe calls it, else its environment."""

    @property
    def is_rsa(self) -> bool:
        return self.about["records"] == "rsa"

    @property
    def where(self) -> str:
        """Its file, or the first of them."""
        return str(self.paths[0]) + (f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else "")

    @property
    def missing(self) -> int:
        """Problems without any record: an evaluation that was interrupted."""
        return self.about["num_problems"] - len({record.digest for record in self.records})


def read_evaluations(paths: Iterable[Path]) -> list[Evaluation]:
    """The evaluations in files and directories, each once, in order, by names that tell them apart.

    Raises UsageError for a path that is not there, a file that holds no records, a directory without one that does.
    """
    groups: dict[tuple[object, ...], dict[Path, _File]] = {}
    for path in paths:
        for place in _files_of_records(path) if path.is_dir() else [path]:
            file = _read(place)
            about = file.about
            key = (
                (place.resolve().parent, about["system"], about.get("ttc")) if "system" in about else (place.resolve(),)
            )
            groups.setdefault((*key, about["records"]), {}).setdefault(place.resolve(), file)
    return _told_apart([_evaluation(list(files.values())) for files in groups.values()])


def named_evaluations(given: str) -> list[Evaluation]:
    """What a word of the command line names: a file, a directory, or `DIR:NAME`, one evaluation of a directory.

    Raises UsageError as `read_evaluations` does, and for a name that nothing in the directory has.
    """
    place, colon, name = given.rpartition(":")
    if not colon or Path(given).exists() or not Path(place).is_dir():
        return read_evaluations([Path(given)])
    found = read_evaluations([Path(place)])
    chosen = [evaluation for evaluation in found if evaluation.label == name]
    if not chosen:
        labels = [evaluation.label for evaluation in found]
        raise UsageError(f"no evaluation in {place} is called {name!r}", hint=did_you_mean(name, labels))
    return chosen


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    about: dict[str, Any]
    records: Sequence[Scored]


def _evaluation(files: Sequence[_File]) -> Evaluation:
    """What files of one system and one form of thinking say together."""
    first = files[0]
    about = {key: _common([file.about[key] for file in files if key in file.about]) for key in first.about}
    about["num_problems"] = sum(file.about["num_problems"] for file in files)
    about["versions"] = {env: version for file in files for env, version in file.about["versions"].items()}
    named = first.about.get("system")
    form = first.about.get("ttc")
    label = first.path.stem if named is None else named if form is None else f"{named}--{form}"
    return Evaluation(
        label=label,
        name=label,
        system=label.partition("--")[0].removesuffix("-rsa") if named is None else named,
        paths=tuple(file.path for file in files),
        about=about,
        records=[record for file in files for record in file.records],
        tasks={record.digest: file.about.get("task", record.env) for file in files for record in file.records},
    )


def _common(values: Sequence[Any]) -> Any:
    """The value, or all that there are."""
    distinct = [value for i, value in enumerate(values) if value not in values[:i]]
    return distinct[0] if len(distinct) == 1 else tuple(distinct)


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


def _read(path: Path) -> _File:
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
    return _File(path, about, list(last.values()))


def _told_apart(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """With as many folders before the names as it takes."""
    parts = [(*e.paths[0].resolve().parent.parts, e.label) for e in evaluations]
    names, depth = [e.label for e in evaluations], 1
    while len(set(names)) < len(names) and depth < max(map(len, parts)):
        depth += 1
        names = ["/".join(part[-depth:]) for part in parts]
    return [replace(e, name=name) for name, e in zip(names, evaluations, strict=True)]
