"""zaya rl: reinforcement learning by a recipe, from the beginning or from where it stands; or what it would take."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from zaya.cli.printing import notice, program
from zaya.cli.recipes import add_arguments as add_arguments
from zaya.cli.recipes import announce, directory_of, interrupted

if TYPE_CHECKING:
    from zaya.rl.recipe import RlConfig


def run(args: argparse.Namespace) -> int:
    from zaya.config import load
    from zaya.rl.recipe import RlConfig
    from zaya.rl.trainer import train

    config = load(RlConfig, args.config, args.overrides)
    out = directory_of(args)
    if not announce(args, config, _consequences(config, out)):
        return 0
    at = train(config, out, notice)
    if not at.finished:
        return interrupted("rl", args, out, at.step)
    skipped = f"; {at.skipped} steps had nothing to learn from" if at.skipped else ""
    print(f"finished: {at.step:,} steps, {at.tokens:,} tokens sampled{skipped}\nwhat next:")
    print(f"  {program()} generate {shlex.quote(str(out / 'model'))} 'What is 17 + 25?'")
    return 0


def _consequences(config: RlConfig, out: Path) -> list[str]:
    from zaya.model.flops import active_parameters, parameters
    from zaya.model.init import tensor_table
    from zaya.rl.trainer import open_policy

    initial, _ = open_policy(config, notice)
    sampling = config.sampling
    numbers = parameters(initial.model).total
    muon = sum(spec.numel for spec in tensor_table(initial.model) if spec.group in ("matrix", "expert"))
    states = 2 * (numbers - muon) + (muon if config.optim.momentum else 0)
    rollouts = sampling.prompts * sampling.group_size
    sampled = rollouts * sampling.max_rounds * config.run.steps
    levels = []
    if config.schedule is not None:
        where = "the lowest"
        if config.calibration is not None:
            groups = config.calibration.budget * len(config.tasks)
            sampled += groups * sampling.group_size
            where = f"what up to {groups} groups find before the first step"
        levels = [f"levels: follow the policy, from {where}"]
    return [
        f"run: {out}, from {config.init}",
        f"parameters: {numbers:,}, active per token {active_parameters(initial.model).total:,}",
        f"a step: {sampling.prompts} groups of {sampling.group_size} rollouts of up to {sampling.max_tokens:,} tokens, "
        f"sampled up to {sampling.max_rounds} times over; {config.run.steps:,} steps",
        *levels,
        f"tokens: at most {sampled * sampling.max_tokens:,} sampled in all",
        f"memory: about {4 * (2 * numbers + states) / 1e6:.3g} MB for weights, gradients and optimiser, and the caches",
    ]
