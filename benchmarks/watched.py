"""`zaya serve` as it is, in a process that says what it uses and holds when it is asked, in a line on standard output.

    python -m benchmarks.watched [options of zaya serve]

SIGUSR1 asks for the processor seconds of its threads; SIGUSR2 also for what is left of requests: tasks, threads,
handles; and the engine's process for threads, handles, pages. `Watched` starts one, and asks. Used by
`benchmarks.bench_serve`.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import os
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
    """By the front."""
    from zaya.serve.served import Served, Work

    objects = _objects(Served, Work)
    [served] = objects[Served]
    return {
        "tasks": sorted(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()),
        **_threads_and_handles(),
        "works": len(objects[Work]),
        "pending": served.gate.pending,
    }


def engine(args: Any, name: str | None) -> Any:
    """The engine of `zaya serve`. It says what it holds when it is asked."""
    from zaya.cli.serve import _engine

    found = _engine(args, name)

    def tell_held() -> None:
        with found._exclusive():  # between two steps
            found.check()
        tell({"stats": asdict(found.stats), **_threads_and_handles()})

    signal.signal(signal.SIGUSR2, lambda *_: tell_held())
    return found


def _threads_and_handles() -> dict[str, Any]:
    from zaya.engine.handle import RequestHandle

    handles = _objects(RequestHandle)[RequestHandle]
    return {"threads": sorted(thread.name for thread in threading.enumerate()), "handles": len(handles)}


def _objects(*kinds: type) -> dict[type, list[Any]]:
    gc.collect()
    every: dict[type, list[Any]] = {kind: [] for kind in kinds}
    for each in gc.get_objects():
        if type(each) in every:
            every[type(each)].append(each)
    return every


def tell(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)


def main() -> int:
    from benchmarks import watched
    from zaya.cli import main as zaya
    from zaya.cli import serve

    serve._engine = watched.engine  # by a name that its process knows as well
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
        found = self._asked(self.process.pid, signal.SIGUSR2 if everything else signal.SIGUSR1)
        if everything:
            [engine] = psutil.Process(self.process.pid).children()
            of_engine = self._asked(engine.pid, signal.SIGUSR2)
            found = {**found, "stats": of_engine["stats"], "handles": found["handles"] + of_engine["handles"]}
            found["threads"] += of_engine["threads"]
        return found

    def _asked(self, process: int, how: signal.Signals) -> dict[str, Any]:
        os.kill(process, how)
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def memory(self) -> int:
        """Bytes that it holds, and its engine."""
        process = psutil.Process(self.process.pid)
        return sum(each.memory_info().rss for each in [process, *process.children()])

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
