"""zaya quickstart: see the whole of it work in under a minute, without a download.

A small model with random weights is written in both published layouts, read back, compared with the plain reference
of every operation, and asked for text. The text is noise: nothing was trained.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

PROMPT = "def fibonacci(n):"


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
    with torch.inference_mode():
        logits = model(ids)
        for layout in ("native", "legacy"):
            directory = folder / layout
            save(model, directory, layout, overwrite=keep)
            tokenizer.save(directory)
            loaded, _ = load(directory, dtype="float32")
            same = torch.equal(loaded(ids), logits)
            print(f"2. written and read in the {layout} layout: logits {'bit-equal' if same else 'DIFFER'}")
            if not same:
                return 1
        with reference_path():
            off = (model(ids) - logits).abs().max().item()
        print(f"3. against the plain reference of every operation: largest difference {off:.1e}")
        cache = DenseCache(config)
        cached = torch.cat([model(part, cache=cache) for part in ids.split(3, dim=1)], dim=1)
        off = (cached - logits).abs().max().item()
        print(f"4. fed in chunks of 3 through the cache instead of at once: {off:.1e}")

    print("5. sixteen tokens that follow (noise, the weights are random):")
    new = list(generate(model, ids[0].tolist(), max_tokens=16, never=tokenizer.never_sampled(config.vocab_size)))
    print(f"   {PROMPT}{tokenizer.decode(new)!r}")
    print(f"\n{time.perf_counter() - started:.1f} s. What next:")
    where = folder / "native" if keep else "DIR"
    if not keep:
        print("   zaya quickstart --out DIR                 keep these checkpoints, as DIR/native and DIR/legacy")
    print(f"   zaya inspect {where}                what a checkpoint holds")
    print(f"   zaya generate {where} 'Hello'       text from any ZAYA1 checkpoint")
    print("   zaya convert SRC DST --layout legacy      from one published layout to the other")
    return 0
