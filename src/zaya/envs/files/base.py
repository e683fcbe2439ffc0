"""An environment over a file with a JSON object in each line: `KIND:FILE`, as `math:aime.jsonl`.

    math:aime.jsonl?prompt=question&answer=solution.final      where the fields stand; dots go into nested JSON

A kind says which fields it reads, what it asks, and how it scores (`envs.files.kinds` lists them). Evaluation takes all
problems of a file; practice draws from it, and then a seed is one of the problems of its level, by lot. The whole file
is read, and every field looked at, before the first problem goes out. Source: spec post-training 8.1 and 12.
"""

from __future__ import annotations

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

from zaya.core.jsonl import json_objects
from zaya.core.rng import derive_seed
from zaya.envs.base import About, Problem, Score
from zaya.errors import UsageError, did_you_mean

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Field:
    """Something that a kind reads from every line."""

    path: str = ""
    """Where it stands if nobody says; empty where it has no usual place: then it is read only where one is named."""
    is_required: bool = True
    """Whether a line without it is an error."""


COMMON = {"category": Field(is_required=False), "difficulty": Field(is_required=False)}
"""Fields of every kind: what a table of results is split by, and a level, a whole number from 0 on."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file."""

    where: str
    """Such as `aime.jsonl:3`, for errors."""
    data: Mapping[str, Any]
    paths: Mapping[str, str]
    """Where each field stands."""

    def get(self, field: str) -> Any:
        """The value of a field. Raises UsageError where the line has none."""
        value = self.find(field)
        if value is None:
            raise UsageError(
                f"{self.where} has no field {self.paths.get(field, field)!r}, which is its {field}",
                hint=f'it has {", ".join(self.data)}; say which one it is, as in {field} = "FIELD"',
            )
        return value

    def find(self, field: str) -> Any:
        """The same, or None."""
        path = self.paths.get(field)
        value = _ABSENT if path is None else _at(self.data, path)
        return None if value is _ABSENT else value

    def text(self, field: str) -> str:
        """A field that holds a text, and not an empty one; a number counts as its text."""
        value = self.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, "a text", value)
        return value

    def wrong(self, field: str, expected: str, value: object) -> UsageError:
        """An error about what a field holds."""
        return UsageError(f"{self.where}: {self.paths[field]} ({field}) must be {expected}: {value!r:.80}")


@dataclass(frozen=True, slots=True)
class Item:
    """What a kind makes of a line."""

    prompt: str
    meta: dict[str, Any]


class LeftOut(Exception):
    """A line is sound, and cannot be judged here. Says why."""


class FileEnvironment(ABC):
    """The problems of one file."""

    kind: ClassVar[str]
    fields: ClassVar[Mapping[str, Field]]
    """What it reads beside `COMMON`."""
    scorer: ClassVar[int] = 1
    """Version of how this kind asks and scores."""
    category: ClassVar[str] = "files"
    """What kind of task it is, for lists."""
    frame: ClassVar[str] = "\\boxed{%s}"
    score_timeout_s: ClassVar[float] = 5.0
    """Seconds on the clock that judging one answer may need; a pool that scores it must allow as much."""

    def __init__(self, name: str) -> None:
        """Read the file. Raises DataError where it cannot be read, UsageError for what is wrong in it."""
        self.name = name
        path, _, query = name.removeprefix(f"{self.kind}:").partition("?")
        self.file = Path(path)
        self.paths = self._paths(query)
        self.left_out: list[str] = []
        """Lines that are not among the problems, and why."""
        items = dict(self._items())
        if not items:
            raise UsageError(f"{path} has no problems", hint="; ".join(self.left_out[:1]) or None)
        content = [[item.prompt, item.meta, level] for item, level in items.values()]
        digest = hashlib.blake2b(json.dumps([self.kind, self.scorer, content]).encode(), digest_size=16)
        self.content = digest.hexdigest()
        """Hash of all that is asked and judged. Another one is another task, whatever its name."""
        # another content is another version: its seeds are other problems, its answers get other scores
        self.version = int(self.content[:8], 16) >> 1
        found: dict[str, Problem] = {}
        for line, (item, level) in items.items():
            problem = Problem(name, item.prompt, item.meta, level, line, self.version)
            if found.setdefault(problem.digest, problem) is not problem:
                self.left_out.append(f"{path}:{line} asks what line {found[problem.digest].seed} asks")
        self.problems: tuple[Problem, ...] = tuple(found.values())
        """All of them, in the order of the file; the seed is the number of the line."""
        levels = [problem.difficulty for problem in self.problems]
        self.about = About(self.category, "NOASSERTION", lowest=min(levels), highest=max(levels), frame=self.frame)

    @abstractmethod
    def item(self, row: Row) -> Item:
        """What a line asks, and all that scoring it needs. Raises UsageError, or LeftOut."""

    @abstractmethod
    def score(self, problem: Problem, text: str) -> Score:
        """The score of a visible answer. Never raises."""

    @abstractmethod
    def reference(self, problem: Problem) -> str | None:
        """An answer that is right, without what it stands in; None where none is known."""

    def sample(self, seed: int, difficulty: int) -> Problem | None:
        there = [problem for problem in self.problems if problem.difficulty == difficulty]
        if not there:
            return None
        chosen = random.Random(derive_seed(f"{self.kind} file", seed, difficulty)).choice(there)
        return Problem(self.name, chosen.prompt, chosen.meta, difficulty, seed, self.version)

    def rows(self) -> Iterable[tuple[int, Mapping[str, Any]]]:
        """Number and object of each line."""
        return json_objects(self.file)

    def _items(self) -> Iterator[tuple[int, tuple[Item, int]]]:
        for number, data in self.rows():
            row = Row(f"{self.file}:{number}", data, self.paths)
            try:
                item, level = self.item(row), _level(row)
            except LeftOut as reason:
                self.left_out.append(f"{row.where}: {reason}")
                continue
            if (category := row.find("category")) is not None:
                item.meta["category"] = str(category)
            yield number, (item, level)

    def _paths(self, query: str) -> dict[str, str]:
        known = {**self.fields, **COMMON}
        given = dict(parse_qsl(query, keep_blank_values=True))
        for name, path in given.items():
            if name not in known:
                raise UsageError(f"{self.kind} problems have no field {name!r}", hint=did_you_mean(name, known))
            if not path:
                raise UsageError(f"the field {name} of {self.file} has no name", hint=f"as in ?{name}=FIELD")
        return {name: field.path for name, field in known.items() if field.path} | given


def file_name(kind: str, file: str, fields: Mapping[str, str]) -> str:
    """The name of the environment of a file."""
    return f"{kind}:{file}" + (f"?{urlencode(fields)}" if fields else "")


def opened(value: object) -> Any:
    """A value, or what it holds where it is a JSON text: benchmarks write lists and objects as such."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _at(data: Any, path: str) -> Any:
    """What stands at a path: a key as it is, else key after key, numbers for places of lists, into JSON texts too."""
    if path in data if isinstance(data, Mapping) else False:
        return data[path]
    head, dot, rest = path.partition(".")
    data = opened(data)
    if isinstance(data, Mapping) and head in data:
        found = data[head]
    elif isinstance(data, list) and head.isdecimal() and int(head) < len(data):
        found = data[int(head)]
    else:
        return _ABSENT
    return _at(found, rest) if dot else found


def _level(row: Row) -> int:
    level = row.find("difficulty")
    if "difficulty" in row.paths and level is None:
        row.get("difficulty")
    if level is None:
        return 0
    if not isinstance(level, int) or isinstance(level, bool) or level < 0:
        raise row.wrong("difficulty", "a whole number from 0 on", level)
    return level
