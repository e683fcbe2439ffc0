"""Problems of a user: `math:FILE.jsonl`, a JSON object in each line.

    {"problem": "What is the larger root of $x^2 - 2x - 1$?", "answer": "1+\\\\sqrt{2}"}

    math:train.jsonl?problem=question&answer=final      fields of other names
    math:train.jsonl?difficulty=level                   a whole number from 0 on; without it all are 0

How answers are compared is in `envs.math.equivalence`. A seed is one of the problems of its level, by lot. The whole
file is read, and every answer tried on itself, before the first problem goes out.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from zaya.core.jsonl import json_objects
from zaya.core.rng import derive_seed
from zaya.envs.answers import INSTRUCTION, boxed
from zaya.envs.base import About, Problem, Score
from zaya.envs.math.equivalence import equivalent
from zaya.envs.math.score import math_score
from zaya.errors import UsageError, did_you_mean

PREFIX = "math:"
_FIELDS = ("problem", "answer", "difficulty")


def names() -> tuple[str, ...]:
    """None: files are named by who has them."""
    return ()


def environment(name: str) -> MathFile:
    return MathFile(name)


class MathFile:
    """The problems of one file. Its meta: `answer`."""

    def __init__(self, name: str) -> None:
        self.name = name
        path, _, query = name.removeprefix(PREFIX).partition("?")
        self._levels = _read(Path(path), _fields(query))
        self.about = About("mathematics", "NOASSERTION", lowest=min(self._levels), highest=max(self._levels))
        content = json.dumps(sorted(self._levels.items())).encode()
        # another file is another version: its seeds are other problems
        self.version = int.from_bytes(hashlib.blake2b(content, digest_size=4).digest(), "big") >> 1

    def sample(self, seed: int, difficulty: int) -> Problem | None:
        items = self._levels.get(difficulty)
        if items is None:
            return None
        question, answer = random.Random(derive_seed("math file", seed, difficulty)).choice(items)
        return Problem(self.name, f"{question}\n{INSTRUCTION}", {"answer": answer}, difficulty, seed, self.version)

    def score(self, problem: Problem, text: str) -> Score:
        return math_score(problem.meta["answer"], text)

    def reference(self, problem: Problem) -> str:
        return problem.meta["answer"]


def _fields(query: str) -> dict[str, str]:
    fields = dict(parse_qsl(query, keep_blank_values=True))
    for ours in fields:
        if ours not in _FIELDS:
            raise UsageError(f"a problem has no field {ours!r}", hint=did_you_mean(ours, _FIELDS))
    return {"problem": "problem", "answer": "answer"} | fields


def _read(path: Path, fields: Mapping[str, str]) -> dict[int, list[tuple[str, str]]]:
    levels: dict[int, list[tuple[str, str]]] = {}
    for number, row in json_objects(path):
        where = f"{path}:{number}"
        for ours, theirs in fields.items():
            if theirs not in row:
                raise UsageError(
                    f"{where} has no field {theirs!r}", hint=f"it has {', '.join(row)}; name another with ?{ours}=FIELD"
                )
        level = row[fields["difficulty"]] if "difficulty" in fields else 0
        if not isinstance(level, int) or isinstance(level, bool) or level < 0:
            raise UsageError(f"{where}: a difficulty is a whole number from 0 on: {level!r}")
        question, answer = row[fields["problem"]], row[fields["answer"]]
        answer = str(answer) if isinstance(answer, int | float) and not isinstance(answer, bool) else answer
        if not isinstance(question, str) or not isinstance(answer, str) or not question.strip():
            raise UsageError(f"{where}: a problem and its answer are text: {question!r:.60}, {answer!r:.60}")
        answer = answer.strip()
        if not equivalent(answer, answer) or boxed(f"\\boxed{{{answer}}}") != answer:
            raise UsageError(
                f"{where}: no answer can be equal to this one: {answer!r:.60}",
                hint="it is empty, too long, or its braces do not match",
            )
        levels.setdefault(level, []).append((question, answer))
    if not levels:
        raise UsageError(f"{path} has no problems")
    return levels
