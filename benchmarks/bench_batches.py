"""Tokens a second of the engine at several batch sizes, beside the plain generator, in one run.

    python -m benchmarks.bench_batches [--preset micro] [--vocab 1024] [--batch 1 16 64 256] [--threads 1] [--profile]

Prompts of 60 tokens are continued by 64, none of which ends a text, at temperature 1; reading the prompts counts. The
weights are random. "one prompt" asks for all completions of a single one, which is read once. Best of the repeats:
machines are noisy. --profile prints where the time of the largest batch goes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from zaya.engine.engine import Engine
from zaya.engine.types import Request, SamplingParams
from zaya.model.config import PRESETS, preset
from zaya.model.generate import generate
from zaya.model.transformer import ZayaModel

PROMPT, NEW = 60, 64


def best_s(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="micro")
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--dtype", choices=("float32", "report"), default="float32")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = preset(args.preset, vocab_size=args.vocab)
    model = ZayaModel(config, precision=args.dtype)
    stream = torch.Generator().manual_seed(0)
    prompts = torch.randint(3, config.vocab_size, (max(args.batch), PROMPT), generator=stream).tolist()
    engine = Engine(model, max_batch=max(args.batch))
    engine.stop_ids = frozenset()
    params = SamplingParams(max_tokens=NEW)

    print(f"{args.preset}, vocabulary {args.vocab}, {args.dtype}, threads {args.threads}, torch {torch.__version__}")
    plain = NEW / best_s(lambda: list(generate(model, prompts[0], max_tokens=NEW, stop_ids=[])), args.repeats)
    print(f"{'one at a time':16} {plain:8.0f} tokens/s")
    requests = [Request(prompt_ids=prompt, params=params, seed=i) for i, prompt in enumerate(prompts)]
    for batch in args.batch:
        forked = [Request(prompt_ids=prompts[0], params=params, n=batch)]
        for name, asked in ((f"batch {batch}", requests[:batch]), ("  one prompt", forked)):
            speed = batch * NEW / best_s(lambda asked=asked: engine.complete(asked), args.repeats)
            print(f"{name:16} {speed:8.0f} tokens/s {speed / plain:8.1f} times")
    if args.profile:
        with profile(activities=[ProfilerActivity.CPU]) as found:
            engine.complete(requests)
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=32))


if __name__ == "__main__":
    main()
