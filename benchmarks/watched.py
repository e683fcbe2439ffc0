"""`zaya serve` as it is, in a process that says what it uses and holds when it is asked, in a line on standard output.

    python -m benchmarks.watched [options of zaya serve]

SIGUSR1 asks for the processor seconds of its threads; SIGUSR2 also for what is left of requests: tasks, threads,
handles, pages. `Watched` starts one, and asks. Used by `benchmarks.bench_serve`.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import psutil


def cpu_seconds() -> dict[str, float]:
    """Of the event loop, of the threads that make requests ready, of the one that hears the engine, and of the
    engine's process."""
    loop = ready = hears = 0.0
    for thread in threading.enumerate():
        assert thread.ident is not None
        seconds = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        if thread is threading.main_thread():
            loop = seconds
        elif thread.name.startswith(("asyncio_", "ThreadPoolExecutor")):  # uvloop's have the latter name
            ready += seconds
        elif thread.name == "zaya-replicas":
            hears = seconds
    times = [child.cpu_times() for child in psutil.Process().children()]
    return {"loop": loop, "ready": ready, "hears": hears, "engine": sum(each.user + each.system for each in times)}


def held() -> dict[str, Any]:
    from zaya.engine.engine import Engine
    from zaya.engine.handle import RequestHandle
    from zaya.serve.served import Served, Work

    gc.collect()
    every: dict[type, list[Any]] = {kind: [] for kind in (Engine, RequestHandle, Served, Work)}
    for each in gc.get_objects():
        if type(each) in every:
            every[type(each)].append(each)
    [engine], [served] = every[Engine], every[Served]
    with engine._exclusive():  # between two steps
        engine.check()
    return {
        "tasks": sorted(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "handles": len(every[RequestHandle]),
        "works": len(every[Work]),
        "pending": served.gate.pending,
        "stats": asdict(engine.stats),
    }


def main() -> int:
    from zaya.cli import main as zaya

    def tell(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), flush=True)

    signal.signal(signal.SIGUSR1, lambda *_: tell({"cpu": cpu_seconds()}))
    signal.signal(signal.SIGUSR2, lambda *_: tell({"cpu": cpu_seconds(), **held()}))
    return zaya(["serve", *sys.argv[1:]])


class Watched:
    """A server under way, from outside; ended with its block."""

    def __init__(self, options: Sequence[str], *, watch: bool = True) -> None:
        """With `watch` False it is `zaya serve` and nothing else."""
        self._log = tempfile.TemporaryFile("a+")  # noqa: SIM115 - closed with the server
        command = ["-m", "benchmarks.watched"] if watch else ["-m", "zaya", "serve"]
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, *command, *options, "--port", "0"], stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        while (ready := re.search(r"http://[\d.]+:(\d+)/v1, ready", self.log())) is None:
            if self.process.poll() is not None:
                raise SystemExit(f"the server did not start:\n{self.log()}")
            time.sleep(0.005)
        self.port = int(ready[1])
        self.get("/ready")
        self.ready_s = time.perf_counter() - begun
        """From the command to its first answer."""

    def log(self) -> str:
        self._log.seek(0)  # the server appends, so it is not disturbed
        return self._log.read()

    def get(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        text = answer.read().decode()
        connection.close()
        return text

    def ask(self, everything: bool = False) -> dict[str, Any]:
        self.process.send_signal(signal.SIGUSR2 if everything else signal.SIGUSR1)
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def stop(self) -> int:
        """Its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # does nothing to one that has stopped
        self.process.wait()
        self._log.close()


if __name__ == "__main__":
    raise SystemExit(main())
