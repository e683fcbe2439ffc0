"""Time and memory to convert, load and start a full-size checkpoint, each step in a process of its own.

    python -m benchmarks.make_checkpoint DIR --single-file      # once: 17.7 GB
    python -m benchmarks.bench_checkpoint DIR [--work WORK] [--theirs] [--packed DIR ...]

Anonymous memory is what a process holds beyond mapped files; mapped pages are the kernel's to drop. `--theirs` also
loads the directory with transformers, which on a machine with less memory than the checkpoint may not end well.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

PROMPT = list(range(1000, 1032))
NEW_TOKENS = 17


class Memory:
    """Samples this process's memory; the peak of what is anonymous and of all that is resident."""

    def __init__(self) -> None:
        self.anonymous = self.resident = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
            self.anonymous = max(self.anonymous, int(fields["RssAnon"].split()[0]) * 1024)
            self.resident = max(self.resident, int(fields["VmRSS"].split()[0]) * 1024)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def convert(src: str, dst: str, layout: str) -> dict[str, float]:
    from zaya.model.layouts import convert

    start = time.perf_counter()
    convert(src, dst, layout, max_shard_bytes=1 << 62 if layout == "legacy" else 5_000_000_000)
    return {"seconds": time.perf_counter() - start}


def ours(directory: str) -> dict[str, float]:
    from zaya.model.generate import generate
    from zaya.model.layouts import load_model

    start = time.perf_counter()
    model = load_model(directory, dtype="bfloat16")
    loaded = time.perf_counter()
    times = []
    for _ in generate(model, PROMPT, max_tokens=NEW_TOKENS, temperature=0, stop_ids=[]):
        times.append(time.perf_counter())
    return _speeds(start, loaded, times)


def theirs(directory: str) -> dict[str, float]:
    from transformers import DynamicCache, ZayaForCausalLM

    start = time.perf_counter()
    model = ZayaForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    loaded = time.perf_counter()
    cache, ids, times = DynamicCache(config=model.config), torch.tensor([PROMPT]), []
    with torch.inference_mode():
        for _ in range(NEW_TOKENS):
            logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            ids = logits[:, -1:].argmax(-1)
            times.append(time.perf_counter())
    return _speeds(start, loaded, times)


def _speeds(start: float, loaded: float, times: list[float]) -> dict[str, float]:
    return {
        "load s": loaded - start,
        "first token s": times[0] - loaded,
        "tokens/s": (len(times) - 1) / (times[-1] - times[0]),
    }


def _child(step: Callable[..., dict[str, float]], args: tuple[str, ...], pipe) -> None:
    with Memory() as memory:
        result = step(*args)
    pipe.send(result | {"peak anonymous GB": memory.anonymous / 1e9, "peak resident GB": memory.resident / 1e9})


def measure(label: str, step: Callable[..., dict[str, float]], *args: str) -> None:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(step, args, sender))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
        print(f"{label:34}", "  ".join(f"{name} {value:.2f}" for name, value in result.items()), flush=True)
    except EOFError:
        process.join()
        print(f"{label:34} ended with exit code {process.exitcode} (-9: killed, out of memory)", flush=True)
    process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", help="a native checkpoint")
    parser.add_argument("--work", type=Path, help="where converted checkpoints are written (default: beside it)")
    parser.add_argument("--theirs", action="store_true", help="measure transformers as well")
    parser.add_argument("--packed", nargs="*", default=[], metavar="DIR", help="checkpoints with FP8 or MXFP4 experts")
    args = parser.parse_args()
    native = args.directory
    work = args.work or Path(native).absolute().parent
    legacy, back = str(work / "bench-legacy"), str(work / "bench-native")
    measure("inspect", _inspect, native)
    measure("generate from native, cold", ours, native)
    measure("generate from native, warm", ours, native)
    measure("convert native to legacy", convert, native, legacy, "legacy")
    measure("generate from legacy, one file", ours, legacy)
    measure("convert legacy to native", convert, legacy, back, "native")
    for directory in args.packed:
        measure(f"generate from {Path(directory).name}", ours, directory)
    if args.theirs:
        measure("transformers from native", theirs, native)
    shutil.rmtree(legacy, ignore_errors=True)
    shutil.rmtree(back, ignore_errors=True)


def _inspect(directory: str) -> dict[str, float]:
    from zaya.model.layouts import inspect

    start = time.perf_counter()
    inspect(directory)
    return {"seconds": time.perf_counter() - start}


if __name__ == "__main__":
    main()
