"""zaya inspect: say what a checkpoint holds and whether it is complete."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", metavar="DIR", help="a checkpoint directory, native or legacy, plain or FP8/MXFP4")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(args: argparse.Namespace) -> int:
    from zaya.model.layouts import inspect

    inspection = inspect(args.dir)
    print(json.dumps(inspection.as_json(), indent=2) if args.json else inspection)
    return 0
