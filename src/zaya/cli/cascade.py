"""zaya cascade: all stages of a model, one after another, from where they stand."""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from zaya.cli import INTERRUPTED
from zaya.cli.asking import warn_without_kernels
from zaya.cli.eval import say_result
from zaya.cli.printing import notice, program, say, say_commands
from zaya.core.progress import duration

if TYPE_CHECKING:
    from zaya.rl.cascade import Stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the recipe of recipes, such as recipes/micro/cascade.toml")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="STAGE.key=value",
        help="settings of a stage to change, as in rl.run.steps=90; seed=N is for all stages",
    )
    parser.add_argument("--out", metavar="DIR", help="directory of all stages (default: what the recipe says)")
    parser.add_argument("--dry-run", action="store_true", help="print what every stage would be, and write nothing")


def run(args: argparse.Namespace) -> int:
    from zaya.rl.cascade import MODEL, dry_run, open_cascade, run_cascade

    cascade = open_cascade(Path(args.file), args.overrides, None if args.out is None else Path(args.out))
    if args.dry_run:
        print("\n".join(dry_run(cascade)).rstrip("\n"))
        return 0
    warn_without_kernels()
    started = time.perf_counter()
    at = ""

    def heading(stage: Stage) -> None:
        nonlocal at
        number = [each.name for each in cascade.stages].index(stage.name) + 1
        so_far = f", {duration(time.perf_counter() - started)} so far" if at else ""
        if at:
            print()
        at = stage.name
        say(f"[{number}/{len(cascade.stages)}] {stage.name}: zaya {stage.kind}, in {stage.directory}{so_far}")

    try:
        result = run_cascade(cascade, notice, heading)
    except KeyboardInterrupt:
        result = None
    if result is None:
        words = ["cascade", args.file, *args.overrides, *([] if args.out is None else ["--out", args.out])]
        print(f"interrupted in {at or 'the beginning'}; to go on:\n  {program()} {shlex.join(words)}")
        return INTERRUPTED
    print()
    say(f"finished in {duration(time.perf_counter() - started)}")
    print()
    say_result(result)
    model = cascade.root / MODEL
    print("\nWhat next:")
    steps = {
        f"{program()} inspect {shlex.quote(str(model))}": "what the model holds",
        f"less {shlex.quote(str(model / 'README.md'))}": "its card, with these tables",
    }
    if cascade.root == Path("runs/micro"):
        steps["make embed"] = "put it into the package, for zaya chat and zaya solve"
    say_commands(steps)
    return 0
