"""zaya quickstart: see the whole of it work in under a minute, without a download.

A small model with random weights is written in both published layouts, read back, compared with the plain reference
of every operation, and asked for text. The text is noise: nothing was trained.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
import time
from pathlib import Path

PROMPT = "def fibonacci(n):"
TOLERANCE = 1e-5
"""Of float32 logits of this small model; see tests/tolerances.py."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="keep the checkpoints here (default: a temporary directory)")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")


def run(args: argparse.Namespace) -> int:
    if args.out is not None:
        return _run(Path(args.out), args.seed, keep=True)
    with tempfile.TemporaryDirectory(prefix="zaya-") as folder:
        return _run(Path(folder), args.seed, keep=False)


def _run(folder: Path, seed: int, *, keep: bool) -> int:
    started = time.perf_counter()
    import torch

    from zaya.model.cache import DenseCache
    from zaya.model.config import preset
    from zaya.model.flops import active_parameters, parameters
    from zaya.model.generate import generate
    from zaya.model.layouts import load, save
    from zaya.model.transformer import ZayaModel
    from zaya.ops.path import reference_path
    from zaya.text import byte_tokenizer

    tokenizer = byte_tokenizer()
    config = preset("micro")
    model = ZayaModel(config, precision="float32", seed=seed)
    print(
        f"1. a micro ZAYA1 with random weights: {parameters(config).total / 1e6:.2f} M parameters, "
        f"{active_parameters(config).total / 1e6:.2f} M of them work on a token"
    )

    ids = torch.tensor([tokenizer.encode(PROMPT)])
    differences: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        logits = model(ids)
        for layout in ("native", "legacy"):
            directory = folder / layout
            save(model, directory, layout)
            tokenizer.save(directory)
            loaded, _ = load(directory, dtype="float32")
            differences[f"written in the {layout} layout and read back"] = loaded(ids)
        with reference_path():
            differences["the plain reference of every operation"] = model(ids)
        cache = DenseCache(config)
        parts = [model(part, cache=cache) for part in ids.split(3, dim=1)]
        differences["in chunks of three, through the cache"] = torch.cat(parts, dim=1)

    print(f"2. the logits of {PROMPT!r}, computed another way; largest difference:")
    worst = 0.0
    for way, others in differences.items():
        off = (others - logits).abs().max().item()
        worst = max(worst, off)
        print(f"   {way:45} {off:.1e}")
    if not worst < TOLERANCE:
        print(f"   these should agree to {TOLERANCE:.0e}: something is wrong with this installation")
        return 1

    print("3. text that follows (noise: nothing was trained):")
    new = list(generate(model, ids[0].tolist(), max_tokens=24, never=tokenizer.never_sampled(config.vocab_size)))
    print(f"   {PROMPT + tokenizer.decode(new)!r}")
    print(f"\n{time.perf_counter() - started:.1f} seconds. What next:")
    where = shlex.quote(str(folder / "native")) if keep else "DIR"
    steps = {
        f"zaya inspect {where}": "what a checkpoint holds",
        f"zaya generate {where} 'Why is the sky blue?'": "text from any ZAYA1 checkpoint",
        "zaya convert SRC DST --layout legacy": "from one published layout to the other",
    }
    if not keep:
        steps = {"zaya quickstart --out DIR": "keep these two checkpoints, as DIR/native and DIR/legacy"} | steps
    width = max(map(len, steps))
    for command, purpose in steps.items():
        print(f"   {command:{width}}   {purpose}")
    return 0
