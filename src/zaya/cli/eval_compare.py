"""zaya eval compare: how much better the second of two evaluations is, on the problems they share."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from zaya.cli.printing import note, say, table, visible
from zaya.core.progress import columns
from zaya.errors import UsageError

if TYPE_CHECKING:
    from zaya.eval.compare import Comparison
    from zaya.eval.metrics import Estimate

_MOST_CHANGES = 5
"""Problems that are shown; --json has all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a file of records, the directory of an evaluation, or DIR:NAME")
    parser.epilog = (
        "NAME is what the report calls an evaluation of a directory: a system, or a system and a form of thinking, as "
        "in runs/micro/eval:rl--chain."
    )
    parser.add_argument("b", metavar="B", help="what is compared with it; of two directories, what is called the same")
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="only the problems of this task or environment; a name that ends in / is all of a family",
    )
    parser.add_argument(
        "--json", action="store_true", help="a JSON object in each line, with all problems that changed"
    )


def run(args: argparse.Namespace) -> int:
    from zaya.eval.compare import compare, counterparts
    from zaya.eval.evaluation import named_evaluations

    pairs = counterparts(named_evaluations(args.a), named_evaluations(args.b))
    failed: UsageError | None = None
    num_shown = 0
    for a, b in pairs:
        try:
            found = compare(a, b, task=args.task)
        except UsageError as error:
            if len(pairs) == 1:
                raise
            note(f"{visible(a.where)} and {visible(b.where)} are left out: {error.message}")
            failed = error
            continue
        num_shown += 1
        if args.json:
            print(json.dumps({"path_a": a.where, "path_b": b.where, **asdict(found)}))
            continue
        if num_shown > 1:
            print()
        say(f"A: {visible(a.where)}")
        say(f"B: {visible(b.where)}")
        for name, evaluation in (("A", a), ("B", b)):
            if evaluation.missing:
                say(f"{name} was interrupted: {evaluation.missing} of its problems have no record.")
        print()
        _say(found)
    if not num_shown and failed is not None:
        raise failed
    return 0


def _say(found: Comparison) -> None:
    width = columns(sys.stdout)
    cells = [
        ["percent", "accuracy", "± new problems", "± sampling", "values"],
        ["A", *_cells(found.a)],
        ["B", *_cells(found.b)],
        ["B - A", *_cells(found.difference, sign="+")],
    ]
    print(table(cells, width, drop=("values", "± sampling")))
    print()
    say(
        f"{found.num_shared} problems are shared, of {found.num_a} of A and {found.num_b} of B. B is better on "
        f"{found.wins}, worse on {found.losses}, equal on {found.ties}; the sign test gives p = {found.p_value:.2g}. "
        "Intervals are of 95 %; the difference is paired by problem."
    )
    if found.settings:
        differ = "; ".join(f"{key} {a} and {b}" for key, (a, b) in sorted(found.settings.items()))
        say(f"They differ in settings: {differ}.")
    shown = found.changes[:_MOST_CHANGES]
    if shown:
        print()
        say(f"The largest changes, {len(shown)} of {len(found.changes)}:")
    for change in shown:
        numbers = f"{100 * change.a:5.1f} -> {100 * change.b:5.1f}"
        line = f"  {numbers}  {change.digest[:8]}  {visible(change.env)}: {visible(change.question)}"
        print(line if len(line) <= width else f"{line[: width - 1]}…")


def _cells(estimate: Estimate, sign: str = "") -> list[str]:
    halves = ["" if half is None else f"{100 * half:.1f}" for half in (estimate.problems, estimate.sampling)]
    return [format(100 * estimate.mean, f"{sign}.1f"), *halves, f"{estimate.num_values:,}"]
