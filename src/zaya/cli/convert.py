"""zaya convert: rewrite a checkpoint in another layout, without a model and without room for one."""

from __future__ import annotations

import argparse
import re

from zaya.core.progress import Progress
from zaya.errors import UsageError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", help="a checkpoint directory, native or legacy, plain or FP8/MXFP4")
    parser.add_argument("dst", metavar="DST", help="the directory to write; appears whole or not at all")
    parser.add_argument(
        "--layout",
        required=True,
        choices=("native", "legacy"),
        help="native opens in transformers; legacy is the layout of the first releases. Quantised experts become bf16",
    )
    parser.add_argument(
        "--max-shard-size", default="5GB", metavar="SIZE", help="size of a shard, as in 5GB, 500MB (default: 5GB)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is at DST, all of it")


def run(args: argparse.Namespace) -> int:
    from zaya.model.layouts import convert

    max_shard_bytes = parse_size(args.max_shard_size)
    with Progress(label="converting", unit="B") as progress:
        convert(
            args.src,
            args.dst,
            args.layout,
            max_shard_bytes=max_shard_bytes,
            overwrite=args.overwrite,
            progress=progress.reach,
        )
    print(f"wrote {args.dst} in the {args.layout} layout")
    return 0


def parse_size(text: str) -> int:
    """Bytes from "5GB", "500 MB", "2GiB" or "4096". Raises UsageError for anything else and for 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper())
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise UsageError(f"not a size: {text!r}", hint="write 5GB, 500MB or a number of bytes")
    return size
