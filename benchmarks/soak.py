"""A server under many streams for a while, half of whose clients go in the midst of their answers: whether what it says
is right all the same, and what it holds in the end. Used by `benchmarks.bench_serve`.

1. Every whole answer is, id by id, that of an engine which was asked one at a time, and what came of one that was left
   is its beginning. The server is deterministic, so this is to the last bit of every draw.
2. When all have gone, no request, task, handle, page or engine thread is left, and the server has made no mistake.
3. Of what clients did not wait for, little is drawn: a request ends when its client has gone.
4. Its memory does not grow from the second quarter of the time to the last.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.beside import chat, opened, requests_of
from benchmarks.streams import Answer, Question, gaps_of, load, quantile
from benchmarks.watched import Watched

SHARED = 256
"""Chats from which every stream draws: as many as can be asked one at a time in half a minute."""


def shared_chat(number: int) -> dict[str, Any]:
    """Every other one ends where the model ends it."""
    return {**chat(number), "ignore_eos": number % 2 == 0}


def one_at_a_time(options: Sequence[str], count: int) -> list[list[int]]:
    """The ids of the answers to the first chats."""
    engine = opened(options)
    requests = requests_of(engine, [shared_chat(number) for number in range(count)])
    found = [list(engine.complete([request])[0][0].ids) for request in requests]
    engine.close()
    return found


class Seen:
    """What the clients saw."""

    def __init__(self, expected: Sequence[Sequence[int]]) -> None:
        self._expected = expected
        self.counts = dict.fromkeys(("whole", "left", "refused", "broken", "retries", "wrong", "tokens"), 0)
        self.unread = 0
        """Tokens of answers that were left which their clients did not wait for."""
        self.usual_s = 0.0
        """What a whole answer takes, lately: a running mean."""
        self.first: list[float] = []
        self.gaps: list[float] = []

    def take(self, answer: Answer) -> None:
        self.counts[answer.outcome] += 1
        self.counts["retries"] += answer.refused
        ids, expected = answer.ids(), self._expected[answer.question.name]
        is_right = ids == (expected if answer.outcome == "whole" else expected[: len(ids)])
        self.counts["wrong"] += not is_right
        self.counts["tokens"] += len(ids)
        if answer.outcome == "left":
            self.unread += len(expected) - len(ids)
        if answer.outcome == "whole":
            self.usual_s += (answer.times[-1] - answer.begun - self.usual_s) / 8
        if times := answer.arrivals():
            self.first.append(times[0] - answer.begun)
            self.gaps += gaps_of(answer)


def soak(streams: int, seconds: float, options: Sequence[str] = (), *, shared: int = SHARED) -> dict[str, Any]:
    # a tenth more clients than there is room for: somebody is always told to come again
    options = [*options, "--deterministic", "--max-pending", str(streams)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seen = Seen(pool.apply(one_at_a_time, (options, shared)))
    with Watched(options) as server:
        return _under_load(server, seen, streams, seconds, shared)


def _under_load(server: Watched, seen: Seen, streams: int, seconds: float, shared: int) -> dict[str, Any]:
    idle, begun, draw = server.ask(everything=True), time.perf_counter(), random.Random(0)
    memory: list[int] = []

    def next_question() -> Question | None:
        if time.perf_counter() > begun + seconds:
            return None
        name = draw.randrange(shared)
        leaves_after = draw.uniform(0, seen.usual_s) if draw.random() < 0.5 else None
        return Question.of(name, {**shared_chat(name), "return_token_ids": True}, leaves_after)

    async def watch() -> None:
        while True:
            memory.append(server.memory())
            await asyncio.sleep(seconds / 100)

    async def run() -> None:
        watching = asyncio.create_task(watch())
        await load(server.port, streams + max(1, streams // 10), next_question, seen.take)
        watching.cancel()

    asyncio.run(run())
    took, until = time.perf_counter() - begun, time.perf_counter() + 10
    left = server.ask(everything=True)
    while _leaks(idle, left) and time.perf_counter() < until:  # that a client has gone is noticed within a step
        time.sleep(0.1)
        left = server.ask(everything=True)
    metrics, cpu = (
        _metrics(server.get("/metrics")),
        {name: left["cpu"][name] - idle["cpu"][name] for name in left["cpu"]},
    )
    mistakes = [line for line in server.log().splitlines() if '"status": 5' in line or "Traceback" in line]
    exit_code = server.stop()
    quarter = max(1, len(memory) // 4)
    return {
        "streams": streams, "seconds": took, **seen.counts, "rate": seen.counts["tokens"] / took,
        "first_p50": quantile(seen.first, 0.5), "first_p99": quantile(seen.first, 0.99),
        "gap_p50": quantile(seen.gaps, 0.5), "gap_p99": quantile(seen.gaps, 0.99),
        "memory_second_quarter": statistics.median(memory[quarter : 2 * quarter] or memory),
        "memory_last_quarter": statistics.median(memory[-quarter:]),
        "drawn_for_nobody": (left["stats"]["tokens_drawn"] - seen.counts["tokens"]) / max(seen.unread, 1),
        "leaks": _leaks(idle, left) | ({"mistakes": mistakes} if mistakes else {}), "exit_code": exit_code,
        "cpu": cpu, "stats": left["stats"], "metrics": metrics,
    }  # fmt: skip


def _leaks(idle: dict[str, Any], left: dict[str, Any]) -> dict[str, Any]:
    """What is there that should not be."""
    stats = left["stats"]
    # threads that make requests ready stay for the next one, as those of any executor
    threads = [name for name in left["threads"] if not name.startswith("asyncio_")]
    found = {
        "pages": stats["pages_used"] + stats["pages_free"] - stats["pages_reclaimable"],
        "sequences": stats["running"] + stats["waiting"],
        "tasks": [name for name in left["tasks"] if name not in idle["tasks"]],
        "threads": [name for name in threads if name not in idle["threads"]],
        **{name: left[name] for name in ("handles", "works", "pending")},
    }
    return {name: what for name, what in found.items() if what}


def _metrics(text: str) -> dict[str, float]:
    """What /metrics says of requests under way and of pages."""
    wanted = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "request_success_total")
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name.removeprefix("zaya:"): float(value) for name, value in rows if any(w in name for w in wanted)}


def print_soak(found: dict[str, Any]) -> None:
    print(
        f"soak   {found['streams']:4} streams, {found['seconds']:.0f} s: {found['whole']:,} whole answers and the "
        f"beginnings of {found['left']:,} compared, {found['wrong']} wrong; {found['broken']} broken, "
        f"{found['retries']:,} times told to come again\n"
        f"            {found['rate']:,.0f} tokens/s; first piece p50 {found['first_p50'] * 1e3:.0f} ms, p99 "
        f"{found['first_p99'] * 1e3:.0f}; between pieces p50 {found['gap_p50'] * 1e3:.1f}, p99 "
        f"{found['gap_p99'] * 1e3:.1f}\n"
        f"            of what was not waited for {found['drawn_for_nobody']:.0%} was drawn all the same; memory "
        f"{found['memory_second_quarter'] / 1e6:.1f} MB in the second quarter, "
        f"{found['memory_last_quarter'] / 1e6:.1f} in the last; left behind: {found['leaks'] or 'nothing'}; exit "
        f"code {found['exit_code']}",
        flush=True,
    )
