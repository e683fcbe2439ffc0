"""zaya pretrain: carry out a recipe, from the beginning or from where it stands; or show what it would take."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from zaya.cli import INTERRUPTED
from zaya.config import toml_value

if TYPE_CHECKING:
    from zaya.train.loop import Outcome
    from zaya.train.recipe import StageConfig
    from zaya.train.stage import Stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, as in optim.lr=1e-3")
    parser.add_argument("--config", required=True, metavar="FILE", help="the recipe, a TOML file")
    parser.add_argument(
        "--out", metavar="DIR", help="directory of the run (default: runs/, the folder and the name of the recipe)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what the run would be, and write nothing")


def run(args: argparse.Namespace) -> int:
    from zaya.config import load
    from zaya.train.recipe import StageConfig

    return carry_out("pretrain", args, load(StageConfig, args.config, args.overrides))


def carry_out(command: str, args: argparse.Namespace, config: StageConfig) -> int:
    """Run a stage and say how it went; the exit code."""
    from zaya.config import to_toml
    from zaya.train.loop import train
    from zaya.train.stage import open_stage

    out = default_out(args.config) if args.out is None else Path(args.out)
    stage = open_stage(config, _notice)
    if args.dry_run:
        print("\n".join(f"# {line}" for line in _consequences(stage, out)))
        print(f"\n{to_toml(stage.config)}", end="")
        return 0
    print("\n".join(_consequences(stage, out)), flush=True)
    outcome = train(stage, out, _notice)
    if outcome.how == "interrupted":
        words = ["zaya", command, "--config", args.config, *args.overrides, "--out", str(out)]
        print(f"interrupted after step {outcome.position.step}, saved; to go on:\n  {shlex.join(words)}")
        return INTERRUPTED
    print("\n".join(_report(outcome, out)))
    return 0


def default_out(recipe: str) -> Path:
    """Where a run goes that was given no place: recipes/micro/sft.toml runs in runs/micro/sft."""
    file = Path(recipe).resolve()
    return Path("runs", file.parent.name, file.stem)


def _notice(line: str) -> None:
    print(line, file=sys.stderr)


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
        lines += [f"  zaya generate {where} 'What is 2 + 2?'", f"  zaya inspect {where}"]
    return [*lines, f"  a recipe with init = {toml_value(str(out))}, for the next stage"]


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"
