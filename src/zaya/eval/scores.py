"""What was measured, as records of numbers: of a system, of a system on a task, of a whole suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from zaya.core.metrics import read_metrics
from zaya.engine.types import FinishReason
from zaya.envs.base import Problem
from zaya.eval.metrics import Estimate, avg_at_k, paired_difference
from zaya.eval.records import Record, by_problem, loosely_by_problem
from zaya.eval.systems import SystemConfig
from zaya.eval.tasks import TaskSet
from zaya.eval.thinking import ThinkingRow


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScore:
    """One system on one task."""

    accuracy: Estimate
    k: int
    """Samples of each problem."""
    tokens: float
    """Of a sample, on average."""
    truncated: float
    """Part of the samples that the budget ended."""
    levels: dict[int, Estimate]
    """Accuracy by level, where problems are made at more than one."""
    categories: dict[str, Estimate]
    """Accuracy by category, where a file has more than one."""
    instructions: float | None = None
    """Part of all instructions that were followed, where a file has instructions: accuracy is of whole prompts."""
    loose: Estimate | None = None
    """Accuracy with answers read loosely (`envs.base.LooselyRead`); None where the task has one reading only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRow:
    """One system in the table. Numbers of a run's log are None where there is none."""

    name: str
    accuracy: Estimate
    """Over the problems of all tasks."""
    tasks: dict[str, TaskScore]
    answer_tokens: float
    """Tokens of a sample, on average."""
    loose: Estimate | None = None
    """Accuracy with answers read loosely where tasks have such a reading, and as they stand elsewhere; None where no
    task has."""
    gain: Estimate | None = None
    """Over the system before it, paired."""
    loss: float | None = None
    """On what the stage held out, where it had something."""
    entropy_mean: float | None = None
    """Least moving average of the load's normalised entropy from a fifth of the run on, mean over layers."""
    entropy_min: float | None = None
    """The same of the worst layer."""
    tokens: int | None = None
    """Trained on, or sampled."""
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteResult:
    """Everything that was measured."""

    stages: tuple[StageRow, ...]
    thinking: tuple[ThinkingRow, ...]


def stage_row(
    name: str,
    sets: Sequence[TaskSet],
    counted: Mapping[str, Sequence[Record]],
    before: Mapping[str, Sequence[float]] | None,
    system: SystemConfig,
) -> StageRow:
    """What the samples of each task and the log of its run say of a system. `before` is what the one above it has
    reached, by problem."""
    records = [record for found in counted.values() for record in found]
    values = by_problem(records)
    return StageRow(
        name=name,
        accuracy=avg_at_k(values),
        tasks={task.name: task_score(task, counted[task.name]) for task in sets},
        answer_tokens=fmean(record.tokens for record in records),
        loose=_loosely(records),
        gain=None if before is None else paired_difference(values, before),
        **({} if system.run is None else _quoted(Path(system.run))),
    )


def task_score(task: TaskSet, records: Sequence[Record]) -> TaskScore:
    """What the samples of one task say."""
    values = by_problem(records)
    known = [record for record in records if record.value is not None]
    by_digest = {problem.digest: problem for problem in task.problems}
    categories = {digest: str(p.meta["category"]) for digest, p in by_digest.items() if "category" in p.meta}
    return TaskScore(
        accuracy=avg_at_k(values),
        k=task.k,
        tokens=fmean(record.tokens for record in records),
        loose=_loosely(records),
        truncated=fmean(record.finish == FinishReason.LENGTH.value for record in known),
        levels=_parts(values, task.steps),
        categories=_parts(values, categories),
        instructions=_instructions(known, by_digest),
    )


def _loosely(records: Sequence[Record]) -> Estimate | None:
    is_loose = any(record.loose is not None for record in records)
    return avg_at_k(loosely_by_problem(records)) if is_loose else None


def _parts(values: Mapping[str, Sequence[float]], part_of: Mapping[str, Any]) -> dict[Any, Estimate]:
    """Accuracy by what a problem belongs to, where there is more than one such part."""
    parts = sorted(set(part_of.values()))
    if len(parts) < 2:
        return {}
    found = {part: {d: v for d, v in values.items() if v and part_of.get(d) == part} for part in parts}
    return {part: avg_at_k(some) for part, some in found.items() if some}


def _instructions(records: Sequence[Record], problems: Mapping[str, Problem]) -> float | None:
    """Part of all instructions that were followed: of a prompt that is the reward."""
    lengths = {d: len(p.meta["instructions"]) for d, p in problems.items() if p.env.startswith("instruct:")}
    if not lengths:
        return None
    return sum(r.reward * lengths[r.digest] for r in records) / sum(lengths[r.digest] for r in records)


def _quoted(run: Path) -> dict[str, Any]:
    """What the table says of a run, from its log. The loss is that of the weights that are its result: of the best
    validation where the recipe stops by it, else of the last."""
    log, recipe = run / "metrics.jsonl", run / "config.toml"
    lines = read_metrics(log) if log.is_file() else []
    if not lines:
        return {}
    later = lines[len(lines) // 5 :]
    validated = [line["val_loss"] for line in lines if "val_loss" in line]
    stops = recipe.is_file() and "\n[stop]" in recipe.read_text(encoding="utf-8")
    entropies = {
        name: min((line[f"{name}_ema"] for line in later if f"{name}_ema" in line), default=None)
        for name in ("entropy_mean", "entropy_min")
    }
    return {
        "loss": None if not validated else min(validated) if stops else validated[-1],
        "tokens": lines[-1]["tokens"],
        "seconds": lines[-1]["seconds"],
        **entropies,
    }
