"""The engine in a process of its own on this machine: the front's end of it.

    with ReplicaCompleter([ProcessLink(open_engine)]) as completer:
        completer.wait()

Event loop and engine share no interpreter, so neither waits for the other's lock. The process is started when it is
listened to, and again when it has died; the other end is `serve.worker`. Frames go over a pair of sockets that nobody
else has: a number and a length, then bytes. From the front the number names a call, and the answer bears it again; what
bears none is news. The bytes are pickled, so this is for two processes of ours and no network.

The process ends with the block, and by itself when the sockets are closed, as they are when the front is killed.
Imports no torch.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from zaya.engine.types import Request
from zaya.errors import ZayaError
from zaya.serve.replica import Hello, pack

NEWS = 0
"""The number of what is no answer."""
HEAD = struct.Struct("<QQ")
"""Of a frame: its number, and how many bytes follow."""
MOST_STARTS = 3
"""One after another in which the process died before it had an engine. What kills three kills the fourth."""


def frame(number: int, data: bytes) -> bytes:
    return HEAD.pack(number, len(data)) + data


async def next_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Raises IncompleteReadError at the end."""
    number, length = HEAD.unpack(await reader.readexactly(HEAD.size))
    return number, await reader.readexactly(length)


class ProcessLink:
    """The way to an engine of this machine (`serve.lives.Link`)."""

    def __init__(self, open: Callable[[], Any]) -> None:
        """`open` makes the engine, there; it is pickled, and so are the errors that it raises."""
        self._open = pickle.dumps(open)
        self._writer: asyncio.StreamWriter | None = None
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._number = NEWS
        self._failed_starts = 0

    async def listen(self) -> AsyncGenerator[bytes, None]:
        here, there = socket.socketpair()
        with there:
            process = _started(there)
        reader, writer = await asyncio.open_connection(sock=here)
        try:
            writer.write(frame(NEWS, self._open))
            has_begun = False
            while True:
                try:
                    number, data = await next_frame(reader)
                except (asyncio.IncompleteReadError, ConnectionError):
                    break
                if number == NEWS:
                    has_begun, self._failed_starts, self._writer = True, 0, writer
                    yield data
                elif (call := self._calls.pop(number, None)) is not None and not call.done():
                    call.set_result(data)
            if not has_begun:
                self._failed_starts += 1
                if self._failed_starts == MOST_STARTS:
                    yield pack([Hello("", process.pid, None, _given_up(await _ended(process)))])
        finally:
            self._writer = None
            writer.close()
            for call in self._calls.values():
                call.cancel()
            self._calls.clear()
            process.kill()  # what it had is lost anyway
            process.wait()

    async def begin(self, life: str, id: int, request: Request) -> bytes:
        return await self._answer("begin", life, id, request)

    async def end(self, life: str, id: int) -> None:
        self._send("end", life, id)

    async def score(self, life: str, ids: Sequence[int], top_logprobs: int) -> bytes:
        return await self._answer("score", life, ids, top_logprobs)

    async def _answer(self, *call: Any) -> bytes:
        number = self._send(*call)
        self._calls[number] = answer = asyncio.get_running_loop().create_future()
        try:
            return await answer
        finally:
            self._calls.pop(number, None)

    def _send(self, *call: Any) -> int:
        """Returns the number of the call."""
        if self._writer is None:
            raise ConnectionError("the engine's process is not there")
        self._number += 1
        self._writer.write(frame(self._number, pickle.dumps(call)))
        return self._number


def _started(there: socket.socket) -> subprocess.Popen[bytes]:
    """A process that has that end of the pair."""
    return subprocess.Popen(
        # -P with this process's path: it imports what this one would, and no namesake from the working directory
        [sys.executable, "-P", "-m", "zaya.serve.worker", str(there.fileno())],
        pass_fds=[there.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the front, which ends this one behind what is under way
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
    )


async def _ended(process: subprocess.Popen[bytes]) -> int:
    """Its exit code, once it has closed its end."""
    return await asyncio.to_thread(process.wait)


def _given_up(code: int) -> ZayaError:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return ZayaError(
        f"the engine's process was started {MOST_STARTS} times, and ended before it was ready: the last one {how}",
        hint="SIGKILL mostly means that there was no memory left" if code == -signal.SIGKILL else None,
    )
