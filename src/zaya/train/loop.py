"""The training loop of every stage with a fixed set of texts: it reads from top to bottom.

A run can be killed at any moment and goes on from its newest whole checkpoint; on a CPU with the same number of threads
it is then, bit for bit, the run that was never killed. The batch of a step is a function of its number, the rate one of
the tokens consumed, and the log is cut back to where the run goes on.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zaya.core.files import held
from zaya.core.metrics import MetricsLog
from zaya.core.progress import Progress
from zaya.errors import ConfigError
from zaya.train.recipe import StopConfig, differences
from zaya.train.run import Position, Validation, is_done, open_run, position_of, resumable
from zaya.train.schedule import decay_fraction, lr_fraction
from zaya.train.stage import Notice, Stage
from zaya.train.step import train_step

_MAX_SKIPPED = 5  # steps in a row


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    how: Literal["finished", "interrupted", "was finished"]
    position: Position
    result: Validation | None
    """The validation of the weights that are the result, where there was one."""


def train(stage: Stage, directory: Path, notice: Notice) -> Outcome:
    """Carry out a stage in a directory, from wherever a run of it stands there. Ctrl-C ends it after a step, saved."""
    with held(directory):
        return _train(stage, directory, notice)


def _train(stage: Stage, directory: Path, notice: Notice) -> Outcome:
    checkpoint = resumable(stage.config, directory, notice, differences)
    if checkpoint is not None and is_done(checkpoint, directory):
        at = position_of(checkpoint)
        return Outcome("was finished", at, result(at.validations, stage.config.stop))
    run = open_run(stage, directory, checkpoint, notice)
    config, at = stage.config, run.position
    if at.step:
        notice(f"resuming {directory} after step {at.step}")
    total = config.schedule.total_tokens
    saved = time.monotonic()
    with (
        run.loader as batches,
        MetricsLog(directory / "metrics.jsonl", resume_at=at.step) as log,
        Progress(max(0, total - at.tokens), unit="tokens") as bar,
        interrupts() as asked,
    ):
        while at.tokens < total and not is_flat(at.validations, config.stop) and not asked.is_set():
            batch = next(batches)
            tokens = batch.tokens_before + batch.tokens_global
            record = train_step(
                run.model,
                run.optimizer,
                run.balancer,
                batch,
                lr=config.optim.lr * lr_fraction(config.schedule, tokens),
                balance_fraction=decay_fraction(config.schedule, tokens),
                micro_tokens=config.run.micro_tokens,
                components=list(config.data),
            )
            values = at.take(record, tokens)
            if at.step % config.run.eval_every == 0 or tokens >= total:
                values |= run.validate()
            log.log(at.step, tokens, **values)
            bar.label = _label(at, record.loss)
            bar.update(min(record.tokens, total - batch.tokens_before))
            _check(at)
            if time.monotonic() - saved >= config.run.save_every_s:
                run.save()
                saved = time.monotonic()
    if at.tokens < total and not is_flat(at.validations, config.stop):
        run.save()
        return Outcome("interrupted", at, None)
    at.finished = True
    run.save()
    run.write_model(notice)
    return Outcome("finished", at, result(at.validations, config.stop))


def is_flat(validations: Sequence[Validation], stop: StopConfig | None) -> bool:
    """Whether the last `patience` validations brought nothing over the best before them."""
    if stop is None or len(validations) <= stop.patience:
        return False
    losses = [validation.loss for validation in validations]
    return min(losses[-stop.patience :]) >= min(losses[: -stop.patience]) - stop.min_delta


def result(validations: Sequence[Validation], stop: StopConfig | None) -> Validation | None:
    """The validation of the weights that a stage gives: the best where it looks for one, else the last."""
    if not validations:
        return None
    return validations[-1] if stop is None else min(validations, key=lambda validation: validation.loss)


def _check(at: Position) -> None:
    if at.skipped_in_a_row >= _MAX_SKIPPED:
        raise ConfigError(
            f"{at.skipped_in_a_row} steps in a row up to step {at.step} changed nothing; metrics.jsonl says why",
            hint="not finite: lower optim.lr or lengthen the warm-up; no signal: the data has nothing to learn",
        )


def _label(at: Position, loss: float) -> str:
    validated = f"  held out {at.validations[-1].loss:.3f}" if at.validations else ""
    return f"step {at.step:,}  loss {loss:.3f}{validated}"


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; a second one is an ordinary one."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # no other may handle signals
        yield asked
        return
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def note(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        asked.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
