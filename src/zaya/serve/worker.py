"""The engine's end of `serve.apart`: python -m zaya.serve.worker SOCKET

The first frame is what opens the engine, pickled; those that follow are calls of `serve.replica.Replica`. What it says
goes back in frames. Signals that are meant for the whole group are left to the front, which ends this process when
nothing is under way any more; and it ends at once, whatever it does, when the other end is closed. Imports no torch.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import socket
import sys
import threading

from zaya.serve.apart import HEAD, NEWS, frame, next_frame
from zaya.serve.replica import Replica


def main() -> None:
    for group_signal in (signal.SIGINT, signal.SIGTERM):
        signal.signal(group_signal, signal.SIG_IGN)
    front = socket.socket(fileno=int(sys.argv[1]))
    with front.makefile("rb", buffering=0) as file:
        _, length = HEAD.unpack(_exactly(file, HEAD.size))
        open = _exactly(file, length)
    # to load a model takes its time, and the front may go meanwhile
    threading.Thread(target=_watch, args=(front.dup(),), daemon=True).start()
    replica = Replica(lambda: pickle.loads(open)())
    gc.freeze()  # model and libraries stay, and need not be looked through again and again
    asyncio.run(_serve(front, replica))


def _exactly(file: socket.SocketIO, length: int) -> bytes:
    data = b""
    while len(data) < length:
        if not (more := file.read(length - len(data))):
            os._exit(0)
        data += more
    return data


def _watch(front: socket.socket) -> None:
    """Until the first call, which comes when there is an engine."""
    with front:
        if not front.recv(1, socket.MSG_PEEK):
            os._exit(0)


async def _serve(front: socket.socket, replica: Replica) -> None:
    reader, writer = await asyncio.open_connection(sock=front)
    async with asyncio.TaskGroup() as tasks:  # a mistake in one of them ends the process, and the front starts another
        tasks.create_task(_tell(replica, writer))
        while True:
            try:
                number, data = await next_frame(reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                os._exit(0)  # nobody is there any more, and there is nothing to keep
            tasks.create_task(_answer(replica, writer, number, data))


async def _tell(replica: Replica, writer: asyncio.StreamWriter) -> None:
    async for news in replica.listen():
        writer.write(frame(NEWS, news))
        await writer.drain()  # a front that has no time gets longer pieces


async def _answer(replica: Replica, writer: asyncio.StreamWriter, number: int, data: bytes) -> None:
    name, *arguments = pickle.loads(data)
    answer = await getattr(replica, name)(*arguments)
    if answer is not None:
        writer.write(frame(number, answer))


if __name__ == "__main__":
    main()
