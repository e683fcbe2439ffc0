"""zaya quantize: rewrite a checkpoint in int8 or int4, as the engine's kernels read it in place."""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from zaya.cli.asking import warn_without_kernels
from zaya.cli.convert import parse_size
from zaya.core.progress import Progress, amount

if TYPE_CHECKING:
    from zaya.model.layouts.quantising import Packing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="SRC", help="a checkpoint directory, native or legacy, plain or FP8/MXFP4")
    parser.add_argument("dst", metavar="DST", help="the directory to write; appears whole or not at all")
    parser.add_argument(
        "--format",
        choices=("int8", "int4", "int4-all"),
        default="int4",
        help="int8; int4 with the head in int8; or int4 throughout (default: int4)",
    )
    parser.add_argument(
        "--max-shard-size", default="5GB", metavar="SIZE", help="size of a shard, as in 5GB, 500MB (default: 5GB)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is at DST, all of it")
    parser.add_argument("--errors", action="store_true", help="print the error of every tensor, not of every kind")


def run(args: argparse.Namespace) -> int:
    from zaya.model.layouts import quantize

    max_shard_bytes = parse_size(args.max_shard_size)
    warn_without_kernels()
    with Progress(label="quantizing", unit="B") as progress:
        packings = quantize(
            args.src,
            args.dst,
            args.format,
            max_shard_bytes=max_shard_bytes,
            overwrite=args.overwrite,
            progress=progress.reach,
        )
    for line in error_table(packings, by_tensor=args.errors):
        print(line)
    size = sum(file.stat().st_size for file in Path(args.dst).glob("*.safetensors"))
    print(f"wrote {args.dst} in {args.format}, {amount(size, 'B')}")
    return 0


def error_table(packings: list[Packing], *, by_tensor: bool) -> list[str]:
    """Relative errors, of every tensor or of every kind: the mean over the layers, and the worst."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for packing in packings:
        name = packing.name if by_tensor else packing.name.split(".", 2)[-1]
        found[name, packing.form].append(packing.error)
    width = max((len(name) for name, _ in found), default=0)
    lines = [f"{'':{width}}  form   error   worst"]
    for (name, form), errors in found.items():
        lines.append(f"{name:{width}}  {form:5} {sum(errors) / len(errors):6.2%}  {max(errors):6.2%}")
    return lines
