"""A suite: held-out problems, systems beside each other, and one of them thinking in rounds.

    recipe ─► problems from the held-out side ─► k samples of each, by every system ─► the table of stages
                                                 Markovian RSA, and the vote of as many samples ─► the table of thinking

All systems meet the same problems, so that differences are paired. A row of a stage also says what its run's log holds:
loss, load entropy, tokens, seconds. Command: `zaya eval`. Source: spec post-training 12, markovian-rsa 5.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from zaya import config as configuration
from zaya.core.files import held, new_file
from zaya.core.metrics import read_metrics
from zaya.core.progress import Progress
from zaya.engine.engine import Engine
from zaya.engine.types import SamplingParams
from zaya.envs.base import Problem, Stream
from zaya.envs.mixture import Mixture, TaskConfig
from zaya.envs.pool import TaskPool
from zaya.errors import CheckpointError, ConfigError, did_you_mean
from zaya.eval.metrics import Estimate, avg_at_k, majority_at_k, paired_difference
from zaya.eval.records import Record, RsaRecord, by_problem, loosely_by_problem
from zaya.eval.report import percent
from zaya.eval.run import evaluate, evaluate_rsa, opening
from zaya.model.layouts import load
from zaya.text import Tokenizer, render
from zaya.ttc.rsa import RsaConfig

Notice = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemConfig:
    """One system: a model, and the run that made it where there is one."""

    run: str | None = None
    """Directory of the run: its log is quoted, and its result is the model."""
    model: str | None = None
    """A checkpoint directory; none takes the result of `run`."""
    is_base: bool = False
    """Whether it knows no conversations, only texts: it is asked to go on from a problem, not to answer a user."""

    def __post_init__(self) -> None:
        if self.run is None and self.model is None:
            raise ConfigError("a system needs a run or a model")

    @property
    def directory(self) -> Path:
        return Path(self.model) if self.model is not None else Path(str(self.run)) / "model"


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteConfig:
    """A recipe of evaluation."""

    tasks: dict[str, TaskConfig]
    """What the problems are, by name."""
    systems: dict[str, SystemConfig]
    """Who is evaluated, by name, in the order of the table."""
    problems: int = 160
    """How many, over all tasks."""
    k: int = 16
    """Samples of each problem."""
    max_tokens: int = 192
    """Longest response."""
    temperature: float = 1.0
    """Of the samples."""
    held_out: float = 0.1
    """Part of all problems, by their content, that is held out. Must be that of the training recipes."""
    seed: int = 0
    """Decides which problems, and every draw."""
    rsa_of: str | None = None
    """The system that also thinks in rounds; none for no such table."""
    rsa: RsaConfig = field(default_factory=RsaConfig)
    """How it does."""
    rsa_runs: int = 1
    """Runs on each problem."""
    max_batch: int = 256
    """Sequences that are sampled at once."""
    workers: int = 1
    """Processes that make and score problems."""

    def __post_init__(self) -> None:
        for name in ("problems", "k", "max_tokens", "rsa_runs", "max_batch", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1: {getattr(self, name)}")
        if not self.systems:
            raise ConfigError("there is nobody to evaluate", hint="add a table [systems.NAME]")
        if self.rsa_of is not None and self.rsa_of not in self.systems:
            raise ConfigError(f"rsa_of names no system: {self.rsa_of!r}", hint=did_you_mean(self.rsa_of, self.systems))


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRow:
    """One system in the table of stages. Numbers of a run's log are None where there is none."""

    name: str
    accuracy: Estimate
    by_task: dict[str, float]
    """Accuracy on each task, and by the loose reading beside it where there is one."""
    answer_tokens: float
    """Tokens of a sample, on average."""
    loose: Estimate | None = None
    """Accuracy with answers read loosely where tasks have such a reading (`envs.base.LooselyRead`), and as they stand
    elsewhere; None where no task has."""
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
class ThinkingRow:
    """One way to spend tokens on a problem."""

    name: str
    accuracy: Estimate
    tokens: float | None
    """Drawn for one problem, on average; None where nobody counted."""
    gain: Estimate | None = None
    """Over one sample, paired."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteResult:
    """Everything that was measured."""

    stages: tuple[StageRow, ...]
    thinking: tuple[ThinkingRow, ...]


def held_out_problems(config: SuiteConfig, pool: TaskPool) -> list[Problem]:
    """The problems of a suite, no two alike."""
    mixture = Mixture(config.tasks, Stream("eval", "held_out", config.held_out), pool, config.seed)
    found: dict[str, Problem] = {}
    while len(found) < config.problems:
        for problem in mixture.next(config.problems - len(found)):
            found.setdefault(problem.digest, problem)
    return list(found.values())


def run_suite(config: SuiteConfig, directory: Path, notice: Notice) -> SuiteResult:
    """Evaluate, or go on where an evaluation in that directory was interrupted; write `result.json`, `result.md` and
    the records behind them. Raises CheckpointError where a system is not there."""
    for name, system in config.systems.items():
        if not system.directory.is_dir():
            raise CheckpointError(
                f"the system {name} is not there: {system.directory}", hint="run the stage that makes it"
            )
    with held(directory):
        return _run_suite(config, directory)


def _run_suite(config: SuiteConfig, directory: Path) -> SuiteResult:
    stages: list[StageRow] = []
    thinking: list[ThinkingRow] = []
    with TaskPool(config.workers) as pool:
        problems = held_out_problems(config, pool)
        before: Mapping[str, Sequence[float]] | None = None
        for name, system in config.systems.items():
            engine, tokenizer = open_engine(system.directory, config.max_batch)
            k = config.k if name != config.rsa_of else max(config.k, config.rsa.generations)
            records = samples_of(name, engine, problems, config, k, pool, directory, is_base=system.is_base)
            counted = [record for record in records if record.sample < config.k]
            stages.append(_stage_row(name, counted, before, system))
            before = by_problem(counted)
            if name == config.rsa_of:
                rounds = rounds_of(name, engine, tokenizer, problems, config, pool, directory)
                thinking += thinking_rows(records, rounds, config)
    result = SuiteResult(stages=tuple(stages), thinking=tuple(thinking))
    for name, text in {
        "config.toml": configuration.to_toml(config),
        "result.json": json.dumps(asdict(result), indent=1) + "\n",
        "result.md": markdown(result, config),
    }.items():
        with new_file(directory / name) as stream:
            stream.write(text.encode())
    return result


def open_engine(directory: Path, max_batch: int) -> tuple[Engine, Tokenizer]:
    """An engine over a checkpoint directory, float32. Raises CheckpointError where it has no tokenizer."""
    model, tokenizer = load(directory, dtype="float32")
    if tokenizer is None:
        raise CheckpointError(f"{directory} has no tokenizer.json", hint="evaluation asks questions in words")
    return Engine(model, tokenizer, max_batch=max_batch), tokenizer


def samples_of(
    name: str,
    engine: Engine,
    problems: Sequence[Problem],
    config: SuiteConfig,
    k: int,
    pool: TaskPool,
    directory: Path | None,
    *,
    is_base: bool = False,
) -> list[Record]:
    """k samples of each problem, with a line of progress. A model of a short context answers as far as that goes."""
    room = _room(engine, problems, config.max_tokens, is_base)
    params = SamplingParams(max_tokens=room, temperature=config.temperature)
    out = None if directory is None else directory / f"{name}.jsonl"
    with Progress(len(problems) * k, f"{name}: answers") as bar:
        return evaluate(
            engine, problems, k=k, params=params, pool=pool, seed=config.seed,
            plain=engine.tokenizer if is_base else None, out=out, chunk=2 * config.max_batch, on_progress=bar.reach,
        )  # fmt: skip


def _room(engine: Engine, problems: Sequence[Problem], wanted: int, is_base: bool) -> int:
    """Tokens of a response that fit behind the longest of the prompts, as far as they are wanted."""
    tokenizer = engine.tokenizer
    assert tokenizer is not None

    def prompt(problem: Problem) -> Sequence[int]:
        if is_base:
            return opening(tokenizer, problem)
        return render(tokenizer, [{"role": "user", "content": problem.prompt}]).ids

    longest = max(len(prompt(problem)) for problem in problems)
    return max(1, min(wanted, engine.model.config.max_positions - longest))


def rounds_of(
    name: str,
    engine: Engine,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    config: SuiteConfig,
    pool: TaskPool,
    directory: Path | None,
) -> list[RsaRecord]:
    """Runs of Markovian RSA on each problem, with a line of progress."""
    out = None if directory is None else directory / f"{name}-rsa.jsonl"
    total = len(problems) * config.rsa_runs * config.rsa.generations
    with Progress(total, f"{name}: rounds") as bar:
        return evaluate_rsa(
            engine, tokenizer, problems, config=config.rsa, runs=config.rsa_runs, pool=pool, seed=config.seed, out=out,
            chunk=64, on_progress=bar.reach,
        )  # fmt: skip


def thinking_rows(samples: Sequence[Record], rounds: Sequence[RsaRecord], config: SuiteConfig) -> list[ThinkingRow]:
    """One sample; the vote of as many samples as Markovian RSA has rollouts; Markovian RSA, round by round."""
    rsa, votes = config.rsa, config.rsa.generations
    single = by_problem([record for record in samples if record.sample < config.k])
    each = fmean(record.tokens for record in samples)
    rows = [ThinkingRow(name="one sample", accuracy=avg_at_k(single), tokens=each)]
    grouped: dict[str, list[Record]] = {digest: [] for digest in single}  # also those that nothing is known of
    for record in samples:
        if record.value is not None:
            grouped[record.digest].append(record)
    voted = {
        digest: [majority_at_k([r.answer for r in found], [r.correct for r in found], min(votes, len(found)))]
        if found
        else []
        for digest, found in grouped.items()
    }
    rows.append(
        ThinkingRow(
            name=f"vote of {votes} samples",
            accuracy=avg_at_k(voted),
            tokens=votes * each,
            gain=paired_difference(voted, single),
        )
    )
    for round in range(1, rsa.rounds + 1):
        reached: dict[str, list[float]] = {digest: [] for digest in single}
        for record in rounds:
            if record.score is not None and (value := record.accuracy[round]) is not None:
                reached[record.digest].append(value)
        is_last = round == rsa.rounds
        rows.append(
            ThinkingRow(
                name=f"Markovian RSA, {round} round{'s' if round > 1 else ''}",
                accuracy=avg_at_k(reached),
                tokens=fmean(record.tokens for record in rounds) if is_last else None,
                gain=paired_difference(reached, single),
            )
        )
    told: dict[str, list[float]] = {digest: [] for digest in single}
    for record in rounds:
        if record.majority is not None:
            told[record.digest].append(float(record.majority))
    rows.append(
        ThinkingRow(
            name="its vote at the end",
            accuracy=avg_at_k(told),
            tokens=fmean(record.tokens for record in rounds),
            gain=paired_difference(told, single),
        )
    )
    return rows


def stage_table(rows: Sequence[StageRow]) -> list[list[str]]:
    """Head and cells."""
    is_loose = any(row.loose is not None for row in rows)
    head = ["stage", "loss", "accuracy", *["loose"] * is_loose, "gain", "load entropy", "tokens", "seconds"]
    cells = [
        [
            row.name,
            _number(row.loss, ".3f"),
            percent(row.accuracy),
            *["" if row.loose is None else percent(row.loose)] * is_loose,
            _gain(row.gain),
            "" if row.entropy_mean is None else f"{row.entropy_mean:.3f} / {row.entropy_min:.3f}",
            _number(row.tokens, ",d"),
            _number(row.seconds, ",.0f"),
        ]
        for row in rows
    ]
    return [head, *cells]


def thinking_table(rows: Sequence[ThinkingRow]) -> list[list[str]]:
    """Head and cells."""
    head = ["way", "accuracy", "gain", "tokens"]
    cells = [[row.name, percent(row.accuracy), _gain(row.gain), _number(row.tokens, ",.0f")] for row in rows]
    return [head, *cells]


def markdown(result: SuiteResult, config: SuiteConfig) -> str:
    """Both tables, and what they stand on."""
    parts = [
        f"{config.problems} held-out problems, {config.k} samples of each at temperature {config.temperature:g}. "
        "Percent, ± the 95 % interval over new problems; gains are paired, over the row above or over one sample. Load "
        "entropy: the least moving average from a fifth of the run on, mean over layers / worst layer.",
        *_about_loose(result.stages),
        _markdown(stage_table(result.stages)),
        _markdown([["stage", *result.stages[0].by_task], *(_task_cells(row) for row in result.stages)]),
    ]
    if result.thinking:
        rsa = config.rsa
        parts += [
            f"Markovian RSA of {config.rsa_of}: population {rsa.population}, fan-in {rsa.fan_in}, rounds {rsa.rounds}, "
            f"think budget {rsa.think_budget}, tails of {rsa.tail_tokens} tokens. Its score is the mean over all "
            "candidates of a round.",
            _markdown(thinking_table(result.thinking)),
        ]
    return "\n\n".join(parts) + "\n"


def _about_loose(rows: Sequence[StageRow]) -> list[str]:
    if all(row.loose is None for row in rows):
        return []
    return [
        "Accuracy takes answers as they stand. Loose, as in IFEval, an instruction may also be followed by what is "
        "left of an answer without its first line, its last or both, with asterisks or without."
    ]


def _task_cells(row: StageRow) -> list[str]:
    return [row.name, *(f"{100 * value:.1f}" for value in row.by_task.values())]


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(cells[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [cells[0], rule, *cells[1:]])


def _stage_row(
    name: str, records: Sequence[Record], before: Mapping[str, Sequence[float]] | None, system: SystemConfig
) -> StageRow:
    values = by_problem(records)
    tasks: dict[str, list[float]] = {}
    for record in records:
        if record.value is not None:
            tasks.setdefault(record.env, []).append(record.value)
            if record.loose is not None:
                tasks.setdefault(f"{record.env}, loose", []).append(float(record.loose))
    is_loose = any(record.loose is not None for record in records)
    log = {} if system.run is None else _quoted(Path(system.run))
    return StageRow(
        name=name,
        accuracy=avg_at_k(values),
        by_task={env: fmean(found) for env, found in sorted(tasks.items())},
        answer_tokens=fmean(record.tokens for record in records),
        loose=avg_at_k(loosely_by_problem(records)) if is_loose else None,
        gain=None if before is None else paired_difference(values, before),
        **log,
    )


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


def _gain(gain: Estimate | None) -> str:
    if gain is None:
        return ""
    text = percent(gain)
    return text if text.startswith("-") else f"+{text}"


def _number(value: float | int | None, form: str) -> str:
    return "" if value is None else format(value, form)
