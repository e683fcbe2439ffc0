"""The loop of reinforcement learning, one process, sampling and learning in turn: it reads from top to bottom.

    init ─► calibrate levels ─► sample groups until enough are informative ─► credit ─► one update ─► sample again, ...

A run can be killed at any moment and goes on from its newest whole checkpoint; on a CPU with the same number of threads
it is then, bit for bit, the run that was never killed: problems and draws are functions of the seed and of counters
that the checkpoint holds. The directory is that of every run (`train.run`), with the recipe of this stage. Balancing
biases stay as they are: with router replay the choice of experts is not this stage's to make. Source: spec
post-training 3.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from zaya import config as configuration
from zaya.core.checkpoint import Checkpoint, save_checkpoint
from zaya.core.files import held
from zaya.core.metrics import MetricsLog
from zaya.core.progress import Progress
from zaya.core.rng import derive_seed
from zaya.engine.engine import Engine
from zaya.engine.types import FinishReason
from zaya.envs.pool import TaskPool
from zaya.errors import CheckpointError, ConfigError
from zaya.model.layouts import save
from zaya.model.transformer import ZayaModel
from zaya.rl.advantage import SolveRates, is_informative, samples
from zaya.rl.calibrate import Calibrator, summary
from zaya.rl.recipe import RlConfig
from zaya.rl.rollout import Curriculum, roll_out
from zaya.rl.types import RolloutGroup, Sample, Start
from zaya.rl.update import UpdateRecord, update
from zaya.text import Tokenizer, load_tokenizer
from zaya.train.loop import interrupts
from zaya.train.optim import Optimizer
from zaya.train.run import begin, compare_environment, resumable
from zaya.train.stage import Initial, Notice, open_initial, part

_MAX_NOT_FINITE = 5


@dataclass(slots=True)
class Position:
    """Where a run stands, besides its tensors. JSON in every checkpoint."""

    step: int = 0
    tokens: int = 0
    """Sampled so far."""
    skipped: int = 0
    """Steps without anything to learn."""
    not_finite: int = 0
    """Steps in a row, up to here, whose gradients were not finite."""
    finished: bool = False


@dataclass(slots=True)
class Sampled:
    """What the sampling of one step came to."""

    samples: list[Sample] = field(default_factory=list)
    groups: list[RolloutGroup] = field(default_factory=list)
    """All of them, those that were not informative too."""
    informative: int = 0


def differences(one: RlConfig, other: RlConfig) -> list[str]:
    """Dotted keys whose values differ and decide the result."""
    free = {"run.threads", "run.save_every_s", "run.workers"}
    return [key for key in configuration.differences(one, other) if key not in free]


def open_policy(config: RlConfig, notice: Notice) -> tuple[Initial, Tokenizer]:
    """What a recipe starts from. Raises CheckpointError where it is not there, or has no tokenizer."""
    initial = open_initial(Path(config.init), notice)
    tokenizer = load_tokenizer(initial.text)
    if tokenizer is None:
        raise CheckpointError(f"{initial.text} has no tokenizer.json", hint="start from a run, or a whole checkpoint")
    return initial, tokenizer


def train(config: RlConfig, directory: Path, notice: Notice) -> Position:
    """Carry out a recipe in a directory, from wherever a run of it stands there. Ctrl-C ends it after a step, saved:
    the position returned is then not `finished`. Raises ConfigError where the directory holds a run of another recipe,
    and where gradients stay without numbers; CheckpointError where what it starts from is not there; UsageError where
    another process is at work in the directory."""
    with held(directory):
        return _train(config, directory, notice)


def _train(config: RlConfig, directory: Path, notice: Notice) -> Position:
    checkpoint = resumable(config, directory, notice, differences)
    if checkpoint is not None and checkpoint.state["position"]["finished"] and (directory / "model").is_dir():
        notice(f"{directory} was finished before")
        return _position(checkpoint)
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    initial, tokenizer = open_policy(config, notice)
    if checkpoint is None:
        begin(directory, configuration.to_toml(config), tokenizer)
    else:
        compare_environment(directory, notice)
    model = ZayaModel(initial.model, precision="float32", seed=None)
    model.load_state_dict(initial.weights() if checkpoint is None else part(checkpoint.tensors, "model"))
    optimizer, rates = Optimizer(model, config.optim), SolveRates()
    at = Position() if checkpoint is None else _position(checkpoint)
    with (
        TaskPool(config.run.workers) as pool,
        Progress(config.run.steps - at.step, unit="steps") as bar,
        interrupts() as asked,
    ):
        curriculum = Curriculum(config, pool, tokenizer, initial.model.max_positions)
        search = None
        if config.calibration is not None:
            search = Calibrator(config, pool, curriculum.fits, initial.model.vocab_size)
        if checkpoint is not None:
            optimizer.load_state_dict(part(checkpoint.tensors, "optim"))
            rates.load_state(checkpoint.state["rates"])
            curriculum.load_state(checkpoint.state["curriculum"])
            if search is not None:
                search.load_state(checkpoint.state["calibration"])
            notice(f"resuming {directory} after step {at.step}")
        engine = Engine(model, tokenizer, max_batch=config.run.max_batch)
        saved = time.monotonic()

        def keep() -> None:
            state = {"position": asdict(at), "rates": rates.state(), "curriculum": curriculum.state()}
            if search is not None:
                state["calibration"] = search.state()
            tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
            tensors |= {f"optim/{name}": tensor for name, tensor in optimizer.state_dict().items()}
            shape = {"model": configuration.to_mapping(initial.model)}
            save_checkpoint(directory / "ckpt", at.step, tensors, state | shape, mark=at.finished)

        def keep_if_due() -> None:
            nonlocal saved
            if time.monotonic() - saved >= config.run.save_every_s:
                keep()
                saved = time.monotonic()

        with MetricsLog(directory / "metrics.jsonl", resume_at=at.step) as log:
            if search is not None and not search.is_done:
                calibrate(search, engine, at, asked, keep_if_due)
                if search.is_done:
                    curriculum.begin(search.starts)
                    notice(summary(search.starts))
                    keep()
            if search is not None and search.is_done and at.step == 0:
                log.log(0, at.tokens, **describe_starts(search.starts), **curriculum.levels())
            while at.step < config.run.steps and not asked.is_set():
                engine.weight_version = at.step
                found = collect(config, curriculum, engine, pool, rates, at.step)
                record = update(
                    model,
                    optimizer,
                    found.samples,
                    config.loss,
                    lr=config.optim.lr * config.run.lr_fraction(at.step + 1),
                    micro_tokens=config.run.micro_tokens,
                    never=engine.never,
                )
                at.step += 1
                at.tokens += sum(len(rollout.ids) for group in found.groups for rollout in group.rollouts)
                at.skipped += record.step is None
                is_broken = record.step is not None and record.step.skipped == "not finite"
                at.not_finite = at.not_finite + 1 if is_broken else 0
                values = describe(found, record) | curriculum.levels()
                log.log(at.step, at.tokens, **values)
                bar.label = f"solved {values['solve_rate']:.3f}  length {values['length']:.0f}"
                bar.update()
                if at.not_finite >= _MAX_NOT_FINITE:
                    raise ConfigError(
                        f"the gradients of {at.not_finite} steps in a row up to step {at.step} were not finite",
                        hint="lower optim.lr, or begin with another policy",
                    )
                keep_if_due()
        at.finished = at.step >= config.run.steps
        keep()
    if at.finished:
        save(model, directory / "model", text_from=directory / "tokenizer", overwrite=True)
    return at


def calibrate(
    search: Calibrator, engine: Engine, at: Position, asked: threading.Event, keep_if_due: Callable[[], None]
) -> None:
    """Find where levels begin, with a line of progress, or as far as it comes before Ctrl-C."""
    with Progress(unit="groups") as bar:
        while not search.is_done and not asked.is_set():
            groups, tokens = search.advance(engine)
            # What was read for one round is not there for the next, as it is not where a run resumes.
            engine.update_weights(lambda _: None, version=at.step)
            at.tokens += tokens
            bar.label = f"calibrating, {search.num_searched} environments left"
            bar.update(groups)
            keep_if_due()


def collect(
    config: RlConfig, curriculum: Curriculum, engine: Engine, pool: TaskPool, rates: SolveRates, step: int
) -> Sampled:
    """Sample as many groups as are wanted, then in place of those that are not informative others, up to `max_rounds`
    times. Groups in which everybody, or nobody, was right teach nothing and are only counted.
    """
    found = Sampled()
    for round in range(config.sampling.max_rounds):
        missing = config.sampling.prompts - found.informative
        if not missing:
            break
        prompts = curriculum.next(missing)
        seed = derive_seed(config.run.seed, "rollouts", step, round)
        vocab_size = engine.model.config.vocab_size
        groups, completions = roll_out(prompts, engine, pool, config, vocab_size, seed=seed)
        for prompt, group, answers in zip(prompts, groups, completions, strict=True):
            found.groups.append(group)
            curriculum.completed(prompt, group)
            if not group.rollouts:  # every scorer failed, which says nothing about the policy
                continue
            if is_informative(group.rewards):
                found.samples += samples(group, config.advantage, rates)
                found.informative += 1
            rates.update(group.source, group.solve_rate)
            curriculum.show(prompt, answers, group.solve_rate)
    return found


def describe(found: Sampled, record: UpdateRecord) -> dict[str, Any]:
    """What the log says of a step."""
    rollouts = [rollout for group in found.groups for rollout in group.rollouts]
    lengths = [len(rollout.ids) for rollout in rollouts]
    solved = [group.solve_rate for group in found.groups if group.rollouts]
    stats, step = record.stats, record.step
    return {
        "loss": record.loss,
        "solve_rate": _mean(solved),
        **{f"solve_rate/{name}": _mean(values) for name, values in _by_source(found.groups).items()},
        "groups": len(found.groups),
        "informative": found.informative,
        "all_right": sum(rate == 1 for rate in solved),
        "all_wrong": sum(rate == 0 for rate in solved),
        "length": _mean(lengths),
        "length_max": max(lengths, default=0),
        "cut": _mean([rollout.finish_reason is FinishReason.LENGTH for rollout in rollouts]),
        "flagged": sum(rollout.is_flagged for rollout in rollouts),
        "failed": sum(group.num_failed for group in found.groups),
        "entropy": stats.entropy,
        "mismatch_kl": stats.mismatch_kl,
        "masked_positive": stats.masked_positive_fraction,
        "masked_negative": stats.masked_negative_fraction,
        "effective_samples": stats.effective_samples,
        "grad_norm": None if step is None else step.grad_norm,
        "skipped": "no signal" if step is None else step.skipped,
        **({} if step is None else {f"update_rms/{name}": group.update_rms for name, group in step.groups.items()}),
    }


def describe_starts(starts: Mapping[str, Start]) -> dict[str, float]:
    """What the log says, as step 0, of how the levels to begin at were found."""
    groups = {f"calibration_groups/{env}": start.groups for env, start in starts.items()}
    return groups | {f"calibration_rate/{env}": start.solve_rate for env, start in starts.items()}


def _by_source(groups: Sequence[RolloutGroup]) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {}
    for group in groups:
        if not group.rollouts:
            continue
        rates.setdefault(group.source, []).append(group.solve_rate)
    return dict(sorted(rates.items()))


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _position(checkpoint: Checkpoint) -> Position:
    return configuration.from_mapping(Position, checkpoint.state["position"])
