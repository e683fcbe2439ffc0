"""Forward, decode and training step: ours, transformers' and the floor, side by side in one run.

    python -m benchmarks.bench_forward [--preset small] [--dtype bfloat16 float32] [--tokens 512] [--repeats 7]

The weights are random and the same for both. The floor of a decode step is the time to read the weights that work on
a token once from memory, at the bandwidth measured here; that of a prompt and of a training step is the model's
multiply-adds at the speed of one large matrix product measured here. Medians; read the ratios, machines are noisy.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.make_checkpoint import make_checkpoint
from zaya.model.cache import DenseCache
from zaya.model.config import PRESETS, ModelConfig, preset
from zaya.model.flops import decode_weight_bytes, sequence_flops
from zaya.model.layouts import load_model
from zaya.model.transformer import Want

Runs = dict[str, Callable[[], object]]


def median_s(run: Callable[[], object], repeats: int) -> float:
    return medians({"": run}, repeats)[""]


def medians(runs: Runs, repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns, so that a busy moment of the machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn > 0:  # the first warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def bandwidth() -> float:
    """Bytes a second when a large array is only read."""
    data = torch.ones(1 << 28, dtype=torch.float32)
    return data.nbytes / median_s(data.sum, 5)


def matmul_speed(dtype: torch.dtype) -> float:
    """Operations a second of one large matrix product."""
    a = torch.randn(2048, 2048).to(dtype)
    return 2 * 2048**3 / median_s(lambda: a @ a, 5)


def ours(directory: Path, dtype: str, ids: torch.Tensor) -> Runs:
    model = load_model(directory, dtype=dtype)
    cache = DenseCache(model.config)

    @torch.inference_mode()
    def prompt() -> None:
        model(ids, cache=DenseCache(model.config), want=Want(logits="last"))

    @torch.inference_mode()
    def decode() -> None:
        model(ids[:, :1], cache=cache)

    def train() -> None:
        model.zero_grad()
        F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()

    with torch.inference_mode():
        model(ids, cache=cache)
    return {"prompt": prompt, "decode": decode, "train": train}


def theirs(directory: Path, dtype: str, ids: torch.Tensor) -> Runs:
    from transformers import DynamicCache, ZayaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = ZayaForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype))
    cache = DynamicCache(config=model.config)

    @torch.inference_mode()
    def prompt() -> None:
        model(ids, past_key_values=DynamicCache(config=model.config), use_cache=True, logits_to_keep=1)

    @torch.inference_mode()
    def decode() -> None:
        model(ids[:, :1], past_key_values=cache, use_cache=True)

    def train() -> None:
        model.zero_grad()
        logits = model(ids, use_cache=False).logits
        F.cross_entropy(logits.flatten(0, 1).float(), ids.flatten()).backward()

    with torch.inference_mode():
        model(ids, past_key_values=cache, use_cache=True)
    return {"prompt": prompt, "decode": decode, "train": train}


def floor(config: ModelConfig, dtype: torch.dtype, tokens: int) -> dict[str, float]:
    flops, speed = sequence_flops(config, tokens), matmul_speed(dtype)
    # a prompt needs the head for its last token only
    prompt = flops.total - flops.head * (tokens - 1) // tokens
    return {
        "prompt": prompt / speed,
        "decode": decode_weight_bytes(config, dtype.itemsize) / bandwidth(),
        "train": 3 * flops.total / speed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--dtype", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16", "float32"])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    config = preset(args.preset)
    ids = torch.randint(3, config.vocab_size, (1, args.tokens), generator=torch.Generator().manual_seed(0))
    print(f"{args.preset}, {args.tokens} tokens, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':20} {'ours':>10} {'theirs':>10} {'floor':>10} {'theirs/ours':>12} {'ours/floor':>11}")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / args.preset
        make_checkpoint(directory, config, "native", 0, 1 << 62)
        for dtype in args.dtype:
            mine, others = ours(directory, dtype, ids), theirs(directory, dtype, ids)
            floors = floor(config, getattr(torch, dtype), args.tokens)
            for what in mine:
                repeats = args.repeats * 5 if what == "decode" else args.repeats
                took = medians({"ours": mine[what], "theirs": others[what]}, repeats)
                print(
                    f"{dtype + ' ' + what:20} {took['ours'] * 1e3:8.1f}ms {took['theirs'] * 1e3:8.1f}ms "
                    f"{floors[what] * 1e3:8.1f}ms {took['theirs'] / took['ours']:12.2f} "
                    f"{took['ours'] / floors[what]:11.2f}"
                )


if __name__ == "__main__":
    main()
