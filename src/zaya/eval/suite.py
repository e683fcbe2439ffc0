"""A suite: problems of several tasks, systems beside each other, and some of them thinking in rounds.

    recipe ─► the problems of every task ─► k samples of each, by every system ─► the table of systems
                                            Markovian RSA, and votes of as many samples ─► the table of thinking

All systems and all ways of thinking meet the same problems, so that differences are paired. Every system and task has
records of its own, `SYSTEM.TASK.jsonl`, and every form of Markovian RSA too, `SYSTEM.TASK.FORM.jsonl`: what is added to
a recipe leaves the others as they are. A row also says what its run's log holds: loss, load entropy, tokens, seconds.
Command: `zaya eval`. Source: spec post-training 12, markovian-rsa 5.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from zaya import config as configuration
from zaya.core.files import held, new_file
from zaya.core.progress import Progress
from zaya.envs.pool import TaskPool
from zaya.errors import ConfigError, did_you_mean
from zaya.eval.presets import SamplingConfig, sampling
from zaya.eval.records import Record, RsaRecord, by_problem
from zaya.eval.run import evaluate, evaluate_rsa
from zaya.eval.scores import StageRow, SuiteResult, stage_row
from zaya.eval.systems import System, SystemConfig, check_system, open_system
from zaya.eval.tables import markdown
from zaya.eval.tasks import EvalTask, TaskSet, task_sets
from zaya.eval.thinking import ThinkingRow, TtcConfig, thinking_rows

Notice = Callable[[str], None]

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteConfig:
    """A recipe of evaluation."""

    tasks: dict[str, EvalTask]
    """What the problems are, by name."""
    systems: dict[str, SystemConfig]
    """Who is evaluated, by name, in the order of the table."""
    problems: int = 160
    """How many, over all tasks that make theirs."""
    k: int = 16
    """Samples of each problem, where neither task nor benchmark says."""
    max_tokens: int = 192
    """Longest response."""
    sampling: str | SamplingConfig = "model"
    """A preset by name, or temperature, top_p and top_k; `zaya eval --list` has the presets."""
    held_out: float = 0.1
    """Part of all problems, by their content, that is held out. Must be that of the training recipes."""
    seed: int = 0
    """Decides which problems, and every draw."""
    ttc: dict[str, TtcConfig] = field(default_factory=dict)
    """Forms of Markovian RSA, by name, each of a system beside its single samples."""
    max_batch: int = 256
    """Sequences that are sampled at once. Records are written of twice as many."""
    workers: int = 1
    """Processes that make and score problems."""

    def __post_init__(self) -> None:
        for name in ("problems", "k", "max_tokens", "max_batch", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1: {getattr(self, name)}")
        if not self.tasks:
            raise ConfigError("there are no problems: tasks is empty", hint="add a table [tasks.NAME]")
        if not self.systems:
            raise ConfigError("there is nobody to evaluate", hint="add a table [systems.NAME]")
        for kind, names in (("task", self.tasks), ("system", self.systems), ("form of ttc", self.ttc)):
            for name in names:
                if not _NAME.fullmatch(name):  # files are called after them
                    raise ConfigError(f"the name of a {kind} has letters, digits, _ and - only: {name!r}")
        for name, form in self.ttc.items():
            if form.of is not None and form.of not in self.systems:
                raise ConfigError(
                    f"ttc.{name}.of names no system: {form.of!r}", hint=did_you_mean(form.of, self.systems)
                )
        sampling(self.sampling)

    def forms_of(self, system: str) -> dict[str, TtcConfig]:
        """How a system thinks, beside its single samples."""
        last = next(reversed(self.systems))
        return {name: form for name, form in self.ttc.items() if (form.of or last) == system}


def problem_sets(config: SuiteConfig, pool: TaskPool, notice: Notice) -> list[TaskSet]:
    """The problems of a suite, by task, no two alike."""
    return task_sets(
        config.tasks, pool, notice, problems=config.problems, k=config.k, usual=sampling(config.sampling),
        max_tokens=config.max_tokens, held_out=config.held_out, seed=config.seed,
    )  # fmt: skip


def run_suite(config: SuiteConfig, directory: Path, notice: Notice) -> SuiteResult:
    """Evaluate, or go on where an evaluation in that directory was interrupted; write `result.json`, `result.md` and
    the records behind them. Raises CheckpointError where a system is not there."""
    for name, system in config.systems.items():
        check_system(name, system)
    with held(directory):
        return _run_suite(config, directory, notice)


def _run_suite(config: SuiteConfig, directory: Path, notice: Notice) -> SuiteResult:
    stages: list[StageRow] = []
    thinking: list[ThinkingRow] = []
    with TaskPool(config.workers) as pool:
        sets = problem_sets(config, pool, notice)
        before: Mapping[str, Sequence[float]] | None = None
        for name, settings in config.systems.items():
            system = open_system(settings, config.max_batch)
            forms = config.forms_of(name)
            votes = max((form.config.generations for form in forms.values()), default=0)
            samples = {one.name: samples_of(name, system, one, config, pool, directory, votes=votes) for one in sets}
            counted = {one.name: _counted(one, samples[one.name]) for one in sets}
            stages.append(stage_row(name, sets, counted, before, settings))
            before = by_problem(record for found in counted.values() for record in found)
            if forms:
                rows = _thinking(name, system, forms, sets, samples, config, pool, directory)
                is_alone = len(forms) == len(config.ttc)
                thinking += rows if is_alone else [replace(row, name=f"{name}: {row.name}") for row in rows]
    result = SuiteResult(stages=tuple(stages), thinking=tuple(thinking))
    for name, text in {
        "config.toml": configuration.to_toml(config),
        "result.json": json.dumps(asdict(result), indent=1) + "\n",
        "result.md": markdown(result, config.ttc),
    }.items():
        with new_file(directory / name) as stream:
            stream.write(text.encode())
    return result


def samples_of(
    name: str,
    system: System,
    task: TaskSet,
    config: SuiteConfig,
    pool: TaskPool,
    directory: Path | None,
    *,
    votes: int = 0,
) -> list[Record]:
    """k samples of each problem of a task, as many as are to vote where those are more, with a line of progress. A
    model of a short context answers as far as that goes."""
    k = max(task.k, votes if _can_think(task) else 0)
    params = task.sampling.params(task.max_tokens)
    pool.score_timeout_s = task.score_timeout_s
    with Progress(len(task.problems) * k, f"{name}: {task.name}") as bar:
        return evaluate(
            system.completer, task.problems, k=k, params=params, pool=pool, seed=config.seed,
            plain=system.tokenizer if system.is_base else None, out=_out(directory, name, task.name),
            labels=_labels(name, task), chunk=2 * config.max_batch, on_progress=bar.reach,
        )  # fmt: skip


def rounds_of(
    name: str,
    system: System,
    task: TaskSet,
    form: str,
    config: SuiteConfig,
    pool: TaskPool,
    directory: Path | None,
) -> list[RsaRecord]:
    """Runs of Markovian RSA on each problem of a task, with a line of progress."""
    ttc = config.ttc[form]
    pool.score_timeout_s = task.score_timeout_s
    total = len(task.problems) * ttc.runs * ttc.config.generations
    with Progress(total, f"{name}, {form}: {task.name}") as bar:
        return evaluate_rsa(
            system.completer, system.tokenizer, task.problems, config=ttc.config, runs=ttc.runs, pool=pool,
            seed=config.seed, out=_out(directory, name, task.name, form), labels={**_labels(name, task), "ttc": form},
            chunk=max(1, 2 * config.max_batch // ttc.config.population), on_progress=bar.reach,
        )  # fmt: skip


def _thinking(
    name: str,
    system: System,
    forms: Mapping[str, TtcConfig],
    sets: Sequence[TaskSet],
    samples: Mapping[str, Sequence[Record]],
    config: SuiteConfig,
    pool: TaskPool,
    directory: Path,
) -> list[ThinkingRow]:
    able = [task for task in sets if _can_think(task)]
    if not able:
        return []
    runs = {
        form: [record for task in able for record in rounds_of(name, system, task, form, config, pool, directory)]
        for form in forms
    }
    return thinking_rows(
        [record for task in able for record in _counted(task, samples[task.name])],
        [record for task in able for record in samples[task.name]],
        runs,
        {form: ttc.config for form, ttc in forms.items()},
    )


def _can_think(task: TaskSet) -> bool:
    """Whether its problems are questions with answers: attempts at calls of tools are not there to be combined."""
    return not any("tools" in problem.meta for problem in task.problems)


def _counted(task: TaskSet, samples: Iterable[Record]) -> list[Record]:
    """The samples of its accuracy: there may be more, for votes."""
    return [record for record in samples if record.sample < task.k]


def _out(directory: Path | None, *names: str) -> Path | None:
    return None if directory is None else directory / f"{'.'.join(names)}.jsonl"


def _labels(system: str, task: TaskSet) -> dict[str, Any]:
    return {"system": system, "task": task.name, "content": task.content}
