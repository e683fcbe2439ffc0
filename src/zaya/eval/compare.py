"""Two evaluations on the problems they share: how much better the second is, and whether that is more than chance.

    pairs        by the content of problems, where both have values; tasks of different versions are refused
    difference   second minus first, with both intervals of `eval.metrics`, over problems and not samples
    sign test    wins against losses, exact; it looks at directions alone, and is a hint beside the interval

Command: `zaya eval compare`. Source: spec post-training 12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from zaya.errors import UsageError, did_you_mean
from zaya.eval.evaluation import Evaluation
from zaya.eval.metrics import Estimate, avg_at_k, paired_difference, sign_test
from zaya.eval.records import Scored, by_problem

_NOT_SETTINGS = {
    "records",
    "format",
    "problems",
    "num_problems",
    "versions",
    "seed",
    "system",
    "task",
    "ttc",
    "content",
}
_SAME = 1e-9
"""Means of values with as many parts differ by rounding alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One problem, to both."""

    digest: str
    env: str
    question: str
    """The first line of the problem."""
    a: float
    b: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The second of two evaluations beside the first. Estimates are over the problems they share."""

    name_a: str
    name_b: str
    num_a: int
    """Problems of the first that have a value."""
    num_b: int
    a: Estimate
    b: Estimate
    difference: Estimate
    """b - a, paired."""
    wins: int
    """Problems on which b is better."""
    losses: int
    ties: int
    p_value: float
    """Of the sign test."""
    changes: tuple[Change, ...]
    """The problems that changed, the largest change first."""
    settings: dict[str, tuple[Any, Any]]
    """Settings in which they differ."""

    @property
    def num_shared(self) -> int:
        return self.difference.num_problems


def compare(a: Evaluation, b: Evaluation, *, task: str | None = None) -> Comparison:
    """The second beside the first; `task` takes the problems of one task or environment, or of a family by a name that
    ends in /. Raises UsageError where no problem is shared, or the same task is of two versions."""
    known_a, known_b = _known(a, task), _known(b, task)
    if not known_a and not known_b and task is not None:
        names = {name for e in (a, b) for record in e.records for name in (record.env, e.tasks[record.digest])}
        raise UsageError(f"no problem of the two is of the task {task!r}", hint=did_you_mean(task, names))
    _check_versions(a, b, {r.env for r in known_a.values()} & {r.env for r in known_b.values()})
    shared = [digest for digest in known_a if digest in known_b and known_a[digest].env == known_b[digest].env]
    if not shared:
        raise UsageError(
            f"no problem is shared: {len(known_a)} of {a.name}, {len(known_b)} of {b.name}",
            hint="evaluate both with the same tasks, problems, held_out and seed",
        )
    values_a, values_b = by_problem(a.records), by_problem(b.records)
    pairs_a, pairs_b = ({digest: values[digest] for digest in shared} for values in (values_a, values_b))
    changes = sorted(_changes(known_a, pairs_a, pairs_b), key=lambda change: -abs(change.b - change.a))
    wins = sum(change.b > change.a for change in changes)
    return Comparison(
        name_a=a.name,
        name_b=b.name,
        num_a=len(known_a),
        num_b=len(known_b),
        a=avg_at_k(pairs_a),
        b=avg_at_k(pairs_b),
        difference=paired_difference(pairs_b, pairs_a),
        wins=wins,
        losses=len(changes) - wins,
        ties=len(shared) - len(changes),
        p_value=sign_test(wins, len(changes) - wins),
        changes=tuple(changes),
        settings={
            key: (a.about.get(key), b.about.get(key))
            for key in {**a.about, **b.about}
            if key not in _NOT_SETTINGS
            and a.about["records"] == b.about["records"]
            and a.about.get(key) != b.about.get(key)
        },
    )


def counterparts(a: Sequence[Evaluation], b: Sequence[Evaluation]) -> list[tuple[Evaluation, Evaluation]]:
    """Which of two directories are to be compared: those called the same, or the only one of each."""
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    named = {e.label: e for e in b}
    pairs = [(e, named[e.label]) for e in a if e.label in named]
    if not pairs:
        first, second = (", ".join(e.label for e in some) for some in (a, b))
        raise UsageError(f"nothing is called the same on both sides: {first}; {second}", hint="name two files")
    return pairs


def _known(evaluation: Evaluation, task: str | None) -> dict[str, Scored]:
    """A record of each problem of the task that has a value."""

    def is_meant(record: Scored) -> bool:
        names = record.env, evaluation.tasks[record.digest]
        return task is None or task in names or (task.endswith("/") and any(name.startswith(task) for name in names))

    return {r.digest: r for r in evaluation.records if r.value is not None and is_meant(r)}


def _check_versions(a: Evaluation, b: Evaluation, tasks: set[str]) -> None:
    for env in sorted(tasks):
        versions = a.about["versions"][env], b.about["versions"][env]
        if versions[0] != versions[1]:
            raise UsageError(
                f"the task {env} has version {versions[0]} in {a.name} and {versions[1]} in {b.name}: another version "
                "makes or scores its problems differently",
                hint="evaluate both with the same version, or take another task with --task",
            )


def _changes(
    known: Mapping[str, Scored], a: Mapping[str, Sequence[float]], b: Mapping[str, Sequence[float]]
) -> list[Change]:
    found = []
    for digest, values in a.items():
        before, after = mean(values), mean(b[digest])
        if abs(after - before) > _SAME:
            record = known[digest]
            lines = record.question.strip().splitlines()
            found.append(Change(digest=digest, env=record.env, question=lines[0] if lines else "", a=before, b=after))
    return found
