"""Write a random checkpoint of any size, full-size ZAYA1-8B by default, without holding it in memory.

    python -m benchmarks.make_checkpoint DIR [--preset zaya1-8b] [--layout native|legacy] [--single-file] [--seed 0]

The weights mean nothing; shapes, names, dtypes and sizes are those of the published repository, so loading, memory
and speed can be measured where the real weights are not at hand. Every tensor lies away from its initial value
(temperatures, scales and biases included), so that comparisons between runtimes prove something.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from zaya.core.progress import Progress
from zaya.core.rng import derive_seed
from zaya.errors import ZayaError
from zaya.model.config import PRESETS, ModelConfig, preset
from zaya.model.init import TensorSpec, tensor_table
from zaya.model.layouts.writing import MAX_SHARD_BYTES, write_checkpoint


def random_tensor(spec: TensorSpec, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Random bfloat16 values of a believable size for a tensor, or for one matrix of a stack."""
    stream = torch.Generator().manual_seed(seed)
    leaf = spec.name.rsplit(".", 1)[-1]
    if leaf == "key_temperature":
        values = torch.rand(shape, generator=stream) * 2.5 + 0.5
    elif leaf == "balancing_bias":
        values = torch.randn(shape, generator=stream) * 0.02
        values[-1] = -1.0
    elif leaf.endswith("bias"):
        values = torch.randn(shape, generator=stream) * 0.05
    elif len(shape) == 1:
        values = torch.rand(shape, generator=stream) * 0.4 + 0.8
    else:
        std = spec.std or 0.3
        return torch.empty(shape, dtype=torch.bfloat16).normal_(0, std, generator=stream)
    return values.to(torch.bfloat16)


def make_checkpoint(
    directory: Path, config: ModelConfig, layout: str, seed: int, max_shard_bytes: int, *, overwrite: bool = False
) -> None:
    specs = {spec.name: spec for spec in tensor_table(config)}

    def pieces(name: str, part: int | None) -> Iterator[torch.Tensor]:
        spec = specs[name]
        if spec.group != "expert":
            yield random_tensor(spec, spec.shape, derive_seed(seed, name))
            return
        # expert by expert, so that both layouts of one seed hold the same values
        for expert in range(spec.shape[0]) if part is None else [part]:
            yield random_tensor(spec, spec.shape[1:], derive_seed(seed, name, expert))

    with Progress(label=f"writing {directory.name}", unit="B") as progress:
        write_checkpoint(
            directory,
            config,
            layout,  # type: ignore[arg-type]
            dtype=lambda name: "BF16",
            pieces=pieces,
            max_shard_bytes=max_shard_bytes,
            overwrite=overwrite,
            progress=progress.reach,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="zaya1-8b")
    parser.add_argument("--layout", choices=("native", "legacy"), default="native")
    parser.add_argument("--single-file", action="store_true", help="one model.safetensors instead of shards")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true")
    args = parser.parse_args()
    start = time.perf_counter()
    shard = 1 << 62 if args.single_file else MAX_SHARD_BYTES
    try:
        make_checkpoint(args.directory, preset(args.preset), args.layout, args.seed, shard, overwrite=args.overwrite)
    except ZayaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.directory}: {args.preset}, {args.layout} layout, {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
