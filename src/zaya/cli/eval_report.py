"""zaya eval report: one HTML file of evaluations, which opens anywhere and loads nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from zaya.cli.printing import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="DIR", help="directories of evaluations, or files of records")
    parser.add_argument("--out", required=True, metavar="FILE", help="where the page goes, such as report.html")


def run(args: argparse.Namespace) -> int:
    from zaya.core.files import new_file
    from zaya.eval.evaluation import read_evaluations
    from zaya.eval.page import page

    evaluations = read_evaluations(map(Path, args.paths))
    html = page(evaluations)
    with new_file(Path(args.out)) as stream:
        stream.write(html.encode("utf-8", "replace"))
    say(f"{args.out} shows {len(evaluations)} evaluation{'' if len(evaluations) == 1 else 's'}")
    return 0
