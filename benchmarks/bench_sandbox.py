"""What a run in the sandbox costs beyond the program: from the request to the result, and for the first one.

    python -m benchmarks.bench_sandbox [--runs 300] [--packages numpy]

Median and 90 % over the runs of a script that prints a line and of a call that returns its argument, after one that
does not count. Beside them, the same script by an interpreter that is started for it, without a sandbox.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from zaya.envs.sandbox.runner import Sandbox

SCRIPT = "print(input())"


def measure(name: str, run: Callable[[], object], runs: int) -> None:
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    print(f"{name:24} {statistics.median(times):8.1f} ms {statistics.quantiles(times, n=10)[8]:8.1f} ms (90 %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--packages", nargs="*", default=[])
    args = parser.parse_args()
    start = time.perf_counter()
    with Sandbox(packages=args.packages) as sandbox:
        print(
            f"{'start, with its test':24} {1000 * (time.perf_counter() - start):8.1f} ms, {' + '.join(sandbox.layers)}"
        )
        measure("a script", lambda: sandbox.run(SCRIPT, stdin="1"), args.runs)
        measure("a call", lambda: sandbox.run("def f(x): return x", call=("f", [1])), args.runs)
    command = [sys.executable, "-I", "-S", "-c", SCRIPT]
    measure("an interpreter", lambda: subprocess.run(command, input=b"1", capture_output=True), args.runs // 3)


if __name__ == "__main__":
    main()
