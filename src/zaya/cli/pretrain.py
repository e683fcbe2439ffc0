"""zaya pretrain: carry out a recipe, from the beginning or from where it stands; or show what it would take."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from zaya.cli.printing import notice, program
from zaya.cli.recipes import add_arguments as add_arguments
from zaya.cli.recipes import announce, directory_of, interrupted
from zaya.config import toml_value

if TYPE_CHECKING:
    from zaya.train.loop import Outcome
    from zaya.train.recipe import StageConfig
    from zaya.train.stage import Stage


def run(args: argparse.Namespace) -> int:
    from zaya.config import load
    from zaya.train.recipe import StageConfig

    return carry_out("pretrain", args, load(StageConfig, args.config, args.overrides))


def carry_out(command: str, args: argparse.Namespace, config: StageConfig) -> int:
    """Run a stage and say how it went; the exit code."""
    from zaya.train.loop import train
    from zaya.train.stage import open_stage

    out = directory_of(args)
    stage = open_stage(config, notice)
    if not announce(args, stage.config, _consequences(stage, out)):
        return 0
    outcome = train(stage, out, notice)
    if outcome.how == "interrupted":
        return interrupted(command, args, out, outcome.position.step)
    print("\n".join(_report(outcome, out)))
    return 0


def _consequences(stage: Stage, out: Path) -> list[str]:
    from zaya.model.flops import active_parameters, parameters
    from zaya.train.recipe import memory

    config, needed = stage.config, memory(stage.config, stage.model)
    step, total = config.loader.context * config.loader.bins_per_step, config.schedule.total_tokens
    start = "fresh weights" if config.init is None else config.init
    return [
        f"run: {out}, from {start}",
        f"parameters: {parameters(stage.model).total:,}, active per token {active_parameters(stage.model).total:,}",
        f"tokens: at most {step:,} a step, {total:,} in all, so {-(-total // step):,} steps or a few more",
        f"memory: about {_bytes(sum(needed.values()))} ({', '.join(f'{k} {_bytes(v)}' for k, v in needed.items())})",
    ]


def _report(outcome: Outcome, out: Path) -> list[str]:
    at, result = outcome.position, outcome.result
    ended = "this run was finished before" if outcome.how == "was finished" else "finished"
    skipped = f"; {at.skipped} steps changed nothing" if at.skipped else ""
    lines = [f"{ended}: {at.step:,} steps, {at.tokens:,} tokens{skipped}"]
    if result is not None:
        parts = ", ".join(f"{name} {loss:.4f}" for name, loss in result.losses.items())
        lines.append(f"held out, after step {result.step}: loss {result.loss:.4f} ({parts})")
    lines.append("what next:")
    if (out / "model").is_dir():
        where = shlex.quote(str(out / "model"))
        lines += [f"  {program()} generate {where} 'What is 2 + 2?'", f"  {program()} inspect {where}"]
    return [*lines, f"  a recipe with init = {toml_value(str(out))}, for the next stage"]


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"
