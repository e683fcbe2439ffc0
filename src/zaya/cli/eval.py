"""zaya eval: measure models on held-out problems, as a recipe says; or go on where that was interrupted."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zaya.cli import ACTIONS, INTERRUPTED
from zaya.cli.asking import warn_without_kernels
from zaya.cli.printing import notice, program, say, table, wrapped
from zaya.cli.recipes import directory_of
from zaya.core.progress import columns
from zaya.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from zaya.eval.scores import SuiteResult
    from zaya.eval.suite import SuiteConfig
    from zaya.eval.thinking import ThinkingRow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "what was measured:\n" + "\n".join(
        f"  zaya {name:14}{wrapped(summary, 58, hanging=' ' * 21)}" for name, (_, summary) in ACTIONS.items()
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, as in problems=40")
    parser.add_argument("--config", metavar="FILE", help="the recipe, a TOML file")
    parser.add_argument(
        "--out", metavar="DIR", help="where results go (default: runs/, the folder and the name of the recipe)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be measured, and write nothing")
    parser.add_argument("--list", action="store_true", help="print the benchmarks and samplings that have a name")


def run(args: argparse.Namespace) -> int:
    if args.list:
        from zaya.eval.presets import listing, sampling_listing

        width = columns(sys.stdout)
        print(table(listing(), width, drop=("what",), words=("what", "kind", "sampling")))
        print(f"\n{table(sampling_listing(), width)}")
        return 0
    if args.config is None:
        words = [word for word in args.overrides if "=" not in word]
        near = did_you_mean(f"eval {words[0]}", ACTIONS, "zaya ") if words else "zaya eval --config FILE"
        raise UsageError("the recipe to evaluate is missing", hint=near)

    from zaya.config import load, to_toml
    from zaya.eval.suite import SuiteConfig, run_suite

    config = load(SuiteConfig, args.config, args.overrides)
    out = directory_of(args)
    if args.dry_run:
        print("\n".join(f"# {line}" for line in _consequences(config, out)))
        print(f"\n{to_toml(config)}", end="")
        return 0
    warn_without_kernels()
    try:
        result = run_suite(config, out, notice)
    except KeyboardInterrupt:
        words = ["eval", "--config", args.config, *args.overrides, "--out", str(out)]
        print(f"interrupted; what was finished is kept; to go on:\n  {program()} {shlex.join(words)}")
        return INTERRUPTED
    say_result(result)
    print(f"\n{out / 'result.md'} has it in Markdown")
    return 0


def say_result(result: SuiteResult) -> None:
    """All tables, and how to read them."""
    from zaya.eval.tables import part_tables, stage_table, task_table

    width = columns(sys.stdout)
    print(table(stage_table(result.stages), width, drop=("seconds", "load entropy", "tokens", "loss", "loose", "gain")))
    if len(result.stages) == 1:  # columns of several systems are for a wide page, which result.md is
        for cells in (task_table(result.stages), *part_tables(result.stages)):
            print(f"\n{table(cells, width, drop=('samples', 'cut off', 'problems'))}")
    if result.thinking:
        print(f"\n{thinking_lines(result.thinking, width)}")
    print()
    problems = result.stages[0].accuracy.num_problems
    say(
        f"Percent of {problems} problems, ± the 95 % interval over new ones. Gains are paired: over the row "
        "above, and in the last table over one sample."
        if len(result.stages) > 1 or result.thinking
        else f"Percent of {problems} problems, ± the 95 % interval over new ones."
    )


def thinking_lines(rows: Sequence[ThinkingRow], width: int) -> str:
    """The table of ways to spend tokens. A narrow one says RSA."""
    from zaya.eval.tables import thinking_table

    cells = thinking_table(rows)
    if width < 60:
        cells = [[cell.replace("Markovian RSA", "RSA") for cell in row] for row in cells]
    return table(cells, width, drop=("gain",))


def _consequences(config: SuiteConfig, out: Path) -> list[str]:
    lines = [
        f"results: {out}",
        f"systems: {', '.join(f'{name} ({system.place})' for name, system in config.systems.items())}",
    ]
    if any(task.env for task in config.tasks.values()):
        lines.append(f"{config.problems} problems that are made, {config.k} samples of each by every system")
    lines += [f"all problems of {task.file}" for task in config.tasks.values() if task.file is not None]
    for name, form in config.ttc.items():
        of = form.of or next(reversed(config.systems))
        lines.append(f"thinking in rounds, {name}: {of}, {form.runs * form.config.generations:,} rollouts a problem")
    return lines
