"""Write a random checkpoint of any size, full-size ZAYA1-8B by default, without holding it in memory.

    python -m benchmarks.make_checkpoint DIR [--preset zaya1-8b] [--layout native|legacy] [--single-file] [--seed 0]
    python -m benchmarks.make_checkpoint DIR --experts fp8|mxfp4

The weights mean nothing; shapes, names, dtypes and sizes are those of the published repository, so loading, memory
and speed can be measured where the real weights are not at hand. Every tensor lies away from its initial value
(temperatures, scales and biases included), so that comparisons between runtimes prove something.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from zaya.core.files import new_directory
from zaya.core.progress import Progress
from zaya.core.rng import derive_seed
from zaya.core.tensorfile import Planned
from zaya.errors import UsageError, ZayaError
from zaya.model.config import PRESETS, ModelConfig, preset
from zaya.model.init import TensorSpec, tensor_table
from zaya.model.layouts import native
from zaya.model.layouts.writing import MAX_SHARD_BYTES, write_checkpoint, write_shards


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


def make_packed_checkpoint(
    directory: Path, config: ModelConfig, experts: str, seed: int, max_shard_bytes: int, *, overwrite: bool = False
) -> None:
    """As `make_checkpoint` in the native layout, the experts as codes and scales under their published names."""
    planned: list[Planned] = []
    sources: dict[str, Callable[[], torch.Tensor]] = {}

    def add(name: str, dtype: str, shape: tuple[int, ...], values: Callable[[], torch.Tensor]) -> None:
        planned.append(Planned(name, dtype, shape))
        sources[name] = values

    specs = {spec.name: spec for spec in tensor_table(config)}
    for entry in native.entries(config):
        spec, name, shape = specs[entry.name], entry.published, entry.shape
        *rows, inner = shape
        stream = torch.Generator().manual_seed(derive_seed(seed, spec.name))
        if spec.group != "expert":
            add(name, "BF16", shape, partial(random_tensor, spec, shape, derive_seed(seed, spec.name)))
        elif experts == "fp8":
            add(name, "F8_E4M3", shape, partial(random_fp8, shape, stream))
            scale = torch.full((*rows, 1), spec.std / 1.4, dtype=torch.bfloat16)  # the codes are 1 to 1.9 and negative
            add(f"{name}.weight_scale", "BF16", (*rows, 1), partial(torch.clone, scale))
        else:
            codes = (*rows, inner // 2)
            add(f"{name}.weight_packed", "U8", codes, partial(random_bytes, codes, stream))
            scales = (*rows, inner // 32)
            power = 127 + round(math.log2(spec.std / 3))  # the codes are 0 to 6, about 3 in the mean square
            add(f"{name}.weight_scale", "U8", scales, partial(torch.full, scales, power, dtype=torch.uint8))

    about = native.config_to_json(config, "bfloat16") | {"quantization_config": {"quant_method": "compressed-tensors"}}
    total = sum(tensor.nbytes for tensor in planned)
    label = f"writing {directory.name}"
    with new_directory(directory, overwrite=overwrite) as folder, Progress(total, label, unit="B") as progress:
        (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        for nbytes in write_shards(folder, planned, lambda name: iter([sources[name]()]), max_shard_bytes):
            progress.update(nbytes)


def random_fp8(shape: tuple[int, ...], stream: torch.Generator) -> torch.Tensor:
    """Codes of 1 to 1.875 with either sign."""
    bits = torch.randint(16, shape, generator=stream, dtype=torch.uint8)
    return ((bits & 8) << 4 | 0x38 | bits & 7).view(torch.float8_e4m3fn)


def random_bytes(shape: tuple[int, ...], stream: torch.Generator) -> torch.Tensor:
    return torch.randint(256, shape, generator=stream, dtype=torch.uint8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="zaya1-8b")
    parser.add_argument("--layout", choices=("native", "legacy"), default="native")
    parser.add_argument("--experts", choices=("bf16", "fp8", "mxfp4"), default="bf16", help="how experts are stored")
    parser.add_argument("--single-file", action="store_true", help="one model.safetensors instead of shards")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true")
    args = parser.parse_args()
    start = time.perf_counter()
    shard = 1 << 62 if args.single_file else MAX_SHARD_BYTES
    try:
        config = preset(args.preset)
        if args.experts == "bf16":
            make_checkpoint(args.directory, config, args.layout, args.seed, shard, overwrite=args.overwrite)
        elif args.layout == "native":
            make_packed_checkpoint(args.directory, config, args.experts, args.seed, shard, overwrite=args.overwrite)
        else:
            raise UsageError("packed experts are published in the native layout only")
    except ZayaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    took = time.perf_counter() - start
    print(f"{args.directory}: {args.preset}, {args.layout} layout, {args.experts} experts, {took:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
