"""Many streams of /v1/chat/completions at a time, by a client that costs little: bytes are kept as they come, with the
time, and read when the answer is over. Used by `benchmarks.bench_serve`.

An event is never cut by the chunks of HTTP here, and no frame of a chunk holds two line feeds in a row, so the events
of an answer can be found in its bytes as they are.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

_EVENT = re.compile(rb"data: (\{.*?\})\n\n", re.DOTALL)
_STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_RETRY = re.compile(rb"\r\nretry-after: (\d+)\r\n", re.IGNORECASE)
_END = b"\r\n0\r\n\r\n"

MOST_TRIES = 100
PATIENCE_S = 300.0
"""For the next bytes. A bound against hangs."""


@dataclass(frozen=True, slots=True)
class Question:
    """What one stream asks."""

    name: int
    data: bytes
    """The request as it goes over the connection."""
    leaves_after: float | None = None
    """Its client goes after so many seconds, if the answer is not over before; after 0, as soon as it has asked."""

    @classmethod
    def of(cls, name: int, body: Mapping[str, Any], leaves_after: float | None = None) -> Question:
        text = json.dumps({**body, "stream": True}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\n\r\n"
        )
        return cls(name, head.encode() + text, leaves_after)


@dataclass(slots=True)
class Answer:
    """What came of it."""

    question: Question
    begun: float
    outcome: Literal["whole", "left", "refused", "broken"] = "broken"
    refused: int = 0
    """How often it was told to come again."""
    data: bytearray = field(default_factory=bytearray)
    times: list[float] = field(default_factory=list)
    """When each piece came."""
    ends: list[int] = field(default_factory=list)
    """Where each piece ends in the data."""

    def events(self) -> list[tuple[float, dict[str, Any]]]:
        """Each event, with the time when it was complete."""
        return [
            (self.times[bisect_left(self.ends, found.end())], json.loads(found[1]))
            for found in _EVENT.finditer(bytes(self.data))
        ]

    def ids(self) -> list[int]:
        """What was drawn, as far as it came."""
        choices = [choice for _, event in self.events() for choice in event.get("choices", ())]
        return [id for choice in choices for id in choice.get("token_ids", ())]

    def arrivals(self) -> list[float]:
        """When something of the text came: the first event only says who speaks."""
        found = [self.times[bisect_left(self.ends, found.end())] for found in _EVENT.finditer(bytes(self.data))]
        return found[1:]


class _Connection(asyncio.Protocol):
    """One connection, on which one question is asked after another."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.is_open = True
        self._over: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._finish()

    async def ask(self, answer: Answer) -> None:
        """Returns when it is over, in one way or another."""
        self.answer, self._over = answer, asyncio.get_running_loop().create_future()
        self.transport.write(answer.question.data)
        leaves_after = answer.question.leaves_after
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over, PATIENCE_S if leaves_after is None else leaves_after)
        if answer.outcome == "broken" and leaves_after is not None and self.is_open:
            answer.outcome = "left"
            # every other one without a word, as of a process that is killed
            (self.transport.abort if answer.question.name % 2 else self.transport.close)()
        self.answer = None

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None:
            return
        answer.data += data
        answer.times.append(time.perf_counter())
        answer.ends.append(len(answer.data))
        if answer.data.endswith(_END) and answer.data.startswith(b"HTTP/1.1 200"):
            answer.outcome = "whole"
            self._finish()
        elif len(answer.times) < 3 and (status := _STATUS.match(answer.data)) and status[1] != b"200":
            head, _, body = answer.data.partition(b"\r\n\r\n")
            length = _LENGTH.search(head + b"\r\n")
            if length is not None and len(body) >= int(length[1]):
                answer.outcome = "refused" if status[1] == b"429" else "broken"
                self._finish()

    def _finish(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


async def load(
    port: int, streams: int, next_question: Callable[[], Question | None], on_answer: Callable[[Answer], None]
) -> None:
    """Keep so many streams busy, until there is no next question. Who is refused comes again when it may."""

    async def stream() -> None:
        connection: _Connection | None = None
        while (question := next_question()) is not None:
            refused = 0
            while True:
                if connection is None or not connection.is_open:
                    loop = asyncio.get_running_loop()
                    _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
                answer = Answer(question, time.perf_counter(), refused=refused)
                await connection.ask(answer)
                if answer.outcome != "refused" or refused == MOST_TRIES:
                    break
                refused += 1
                retry = _RETRY.search(answer.data)
                await asyncio.sleep(1 if retry is None else int(retry[1]))
            on_answer(answer)
            if answer.outcome != "whole":
                connection = None
        if connection is not None:
            connection.transport.close()

    await asyncio.gather(*(stream() for _ in range(streams)))


def gaps_of(answer: Answer) -> list[float]:
    """Seconds between pieces of text, as a client sees them."""
    times = sorted({*answer.arrivals()})
    return [b - a for a, b in pairwise(times)]


def quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[int(part * (len(values) - 1))] if values else math.nan
