"""What commands that carry out a recipe have in common: their options, what is said before, and how to go on."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zaya.cli import INTERRUPTED
from zaya.cli.asking import warn_without_kernels
from zaya.cli.printing import program


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, as in optim.lr=1e-3")
    parser.add_argument("--config", required=True, metavar="FILE", help="the recipe, a TOML file")
    parser.add_argument(
        "--out", metavar="DIR", help="directory of the run (default: runs/, the folder and the name of the recipe)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what the run would be, and write nothing")


def directory_of(args: argparse.Namespace) -> Path:
    """Where the run goes. recipes/micro/sft.toml runs in runs/micro/sft, if no other place was given."""
    if args.out is not None:
        return Path(args.out)
    file = Path(args.config).resolve()
    return Path("runs", file.parent.name, file.stem)


def announce(args: argparse.Namespace, config: Any, consequences: Sequence[str]) -> bool:
    """Say what the run will be; whether it is to be carried out."""
    from zaya.config import to_toml

    if args.dry_run:
        print("\n".join(f"# {line}" for line in consequences))
        print(f"\n{to_toml(config)}", end="")
        return False
    print("\n".join(consequences), flush=True)
    warn_without_kernels()
    return True


def interrupted(command: str, args: argparse.Namespace, out: Path, step: int) -> int:
    """Say how to go on; the exit code."""
    words = [*command.split(), "--config", args.config, *args.overrides, "--out", str(out)]
    print(f"interrupted after step {step}, saved; to go on:\n  {program()} {shlex.join(words)}")
    return INTERRUPTED
