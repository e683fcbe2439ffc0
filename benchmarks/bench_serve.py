"""What the server costs beside the engine alone, and what it leaves behind when half of its clients go.

    python -m benchmarks.bench_serve [--parts start overhead soak] [--seconds 300] [--streams 200] [--json FILE]
    python -m benchmarks.bench_serve --fast                           # all of it in small

start     `zaya serve` without a model: seconds from the command to the first answer of /ready, and those of imports
overhead  the same chats, so many at a time, by turns: through the engine alone; streamed, in the engine's process;
          streamed over HTTP. Tokens a second, and processor time a token by what it is spent on. On the micro model,
          and on a random one of the shape `small` (--large DIR: another one, with a tokenizer; --large none: none)
soak      --streams streams for --seconds, half of whose clients go somewhere in their answer (benchmarks.soak)

The client is this process, on the same processors as the server, so HTTP's tokens a second pay for the client too; its
processor time stands beside the server's. Ratios are within a round, all figures medians over rounds. The last line, or
--json FILE, is the same as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.beside import beside, chat
from benchmarks.soak import print_soak, soak
from benchmarks.streams import Answer, Question, gaps_of, load, quantile
from benchmarks.watched import Watched

PARTS = ("start", "overhead", "soak")
WAYS = ("engine", "streamed")


# ----- start


def start(repeats: int) -> dict[str, Any]:
    seconds = []
    for _ in range(repeats):
        with Watched([], watch=False) as server:
            seconds.append(server.ready_s)
    modules = "torch, zaya.engine.engine, zaya.serve.running, zaya.serve.served, zaya.model.layouts, zaya.ttc.rsa"
    imports = []
    for _ in range(repeats):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
        imports.append(time.perf_counter() - begun)
    found = {"ready_s": statistics.median(seconds), "worst_s": max(seconds), "imports_s": statistics.median(imports)}
    print(
        f"start  ready after {found['ready_s']:.2f} s (at most {found['worst_s']:.2f} of {repeats}); imports, in one "
        f"process, {found['imports_s']:.2f}",
        flush=True,
    )
    return found


# ----- overhead


def over_http(server: Watched, numbers: Sequence[int], streams: int) -> dict[str, float]:
    """The chats over HTTP, so many at a time."""
    # ids as well, because tokens without a text would make no piece
    asked = iter([Question.of(n, {**chat(n), "return_token_ids": True}) for n in numbers])
    answers: list[Answer] = []
    before, cpu, begun = server.ask()["cpu"], time.process_time(), time.perf_counter()
    asyncio.run(load(server.port, streams, lambda: next(asked, None), answers.append))
    seconds, client, after = time.perf_counter() - begun, time.process_time() - cpu, server.ask()["cpu"]
    assert all(answer.outcome == "whole" for answer in answers), "an answer did not come"
    drawn = sum(len(answer.ids()) for answer in answers)
    gaps = [gap for answer in answers for gap in gaps_of(answer)]
    first = [answer.arrivals()[0] - answer.begun for answer in answers]
    return {
        "seconds": seconds, "tokens": drawn, "rate": drawn / seconds,
        **{f"{name}_us": (after[name] - before[name]) / drawn * 1e6 for name in before},
        "client_us": client / drawn * 1e6, "tokens_a_piece": drawn / (len(gaps) + len(answers)),
        "first_p50": quantile(first, 0.5), "first_p99": quantile(first, 0.99),
        "gap_p50": quantile(gaps, 0.5), "gap_p99": quantile(gaps, 0.99),
    }  # fmt: skip


def overhead(
    name: str, options: Sequence[str], streams: Sequence[int], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """A row for each number of streams. Every measurement takes about so many seconds, and at least one chat a
    stream."""
    rows = []
    with Watched(options) as server, beside(options) as ask:
        for count in streams:
            first = range(count)
            took = ask("engine", first, count)["seconds"]
            over_http(server, first, count)
            numbers = range(count, count + count * max(1, round(seconds / took)))
            found: dict[str, list[dict[str, float]]] = {way: [] for way in (*WAYS, "http")}
            for _ in range(rounds):
                for way in WAYS:
                    found[way].append(ask(way, numbers, count))
                found["http"].append(over_http(server, numbers, count))
            rows.append(_row(name, count, found))
            print_row(rows[-1])
    return rows


def _row(name: str, streams: int, found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "streams": streams}
    for way, each in found.items():
        row[way] = {key: statistics.median(one[key] for one in each) for key in each[0]}
        for other in WAYS:
            ratios = [a["rate"] / b["rate"] for a, b in zip(each, found[other], strict=True)]
            row[way][f"of_{other}"] = statistics.median(ratios)
    return row


def print_row(row: dict[str, Any]) -> None:
    engine, inside, http = row["engine"], row["streamed"], row["http"]
    print(
        f"{row['model']:6} {row['streams']:4} streams  engine {engine['rate']:8,.0f} tokens/s, streamed inside "
        f"{inside['rate']:8,.0f}, HTTP {http['rate']:8,.0f}: {http['of_engine']:4.0%} of the engine, "
        f"{http['of_streamed']:4.0%} of inside\n"
        f"            us of processor a token: engine {engine['us']:.0f}, streamed inside {inside['us']:.0f}; HTTP "
        f"{http['engine_us']:.0f} engine, {http['loop_us']:.0f} event loop, {http['hears_us']:.0f} hearing the engine, "
        f"{http['ready_us']:.0f} making ready; "
        f"client {http['client_us']:.0f}\n"
        f"            first piece p50 {http['first_p50'] * 1e3:.0f} ms, p99 {http['first_p99'] * 1e3:.0f}; between "
        f"pieces p50 {http['gap_p50'] * 1e3:.1f}, p99 {http['gap_p99'] * 1e3:.1f}; {http['tokens_a_piece']:.1f} tokens "
        "each",
        flush=True,
    )


def make_large(directory: Path) -> None:
    """A random checkpoint of the shape `small`, 180 M parameters, with the tokenizer of the micro model."""
    from benchmarks.make_checkpoint import make_checkpoint
    from zaya.model.config import preset
    from zaya.model.embedded import embedded_directory
    from zaya.model.layouts.writing import MAX_SHARD_BYTES
    from zaya.text import load_tokenizer

    make_checkpoint(directory, preset("small"), "native", 0, MAX_SHARD_BYTES)
    tokenizer = load_tokenizer(embedded_directory())
    assert tokenizer is not None
    tokenizer.save(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, help="of the soak (default: 300; with --fast 20)")
    parser.add_argument("--streams", type=int, help="of the soak (default: 200; with --fast 32)")
    parser.add_argument("--batch", type=int, nargs="+", help="streams of the overhead (default: 1 16 64 200)")
    parser.add_argument("--rounds", type=int, help="of the overhead (default: 5, of the larger model 3; --fast 1)")
    parser.add_argument("--each", type=float, help="seconds of a measurement, about (default: 3; with --fast 1)")
    parser.add_argument("--large", metavar="DIR", help="a checkpoint beside the micro model (default: a random one)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of every engine (default: 1, the rest is for the others)"
    )
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    fast = args.fast
    options = ["--threads", str(args.threads)]
    batch = args.batch or ([1, 64] if fast else [1, 16, 64, 200])
    each = args.each or (1 if fast else 3)
    rounds, large_rounds = (args.rounds or (1 if fast else count) for count in (5, 3))
    found: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(), "processors": os.cpu_count(),
        "memory": psutil.virtual_memory().total, "python": platform.python_version(), "torch": version("torch"),
        "threads": args.threads, "load": os.getloadavg(),
    }  # fmt: skip
    print(f"{found['machine']}, {found['processors']} processors, load {found['load'][0]:.1f}", flush=True)
    if "start" in args.parts:
        found["start"] = start(2 if fast else 5)
    if "overhead" in args.parts:
        found["overhead"] = overhead("micro", options, batch, rounds, each)
        with ExitStack() as stack:
            if args.large is None:
                large = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "small"
                make_large(large)
                found["overhead"] += overhead("small", [str(large), *options], batch, large_rounds, each)
            elif args.large != "none":
                found["overhead"] += overhead("large", [args.large, *options], batch, large_rounds, each)
    if "soak" in args.parts:
        found["soak"] = soak(args.streams or (32 if fast else 200), args.seconds or (20 if fast else 300), options)
        print_soak(found["soak"])
    text = json.dumps(found)
    if args.json is None:
        print(text)
    else:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
