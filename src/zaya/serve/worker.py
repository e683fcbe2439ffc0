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
from zaya.serve.replica import PULSE_S, Replica


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
        try:
            is_there = bool(front.recv(1, socket.MSG_PEEK))
        except ConnectionError:
            is_there = False
        if not is_there:
            os._exit(0)


async def _serve(front: socket.socket, replica: Replica) -> None:
    reader, _ = await asyncio.open_connection(sock=front)
    way_back = _WayBack(front, asyncio.get_running_loop(), replica)
    async with asyncio.TaskGroup() as tasks:  # a mistake in one of them ends the process, and the front starts another
        tasks.create_task(way_back.keep_telling())
        while True:
            try:
                number, data = await next_frame(reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                os._exit(0)  # nobody is there any more, and there is nothing to keep
            tasks.create_task(_answer(replica, way_back, number, data))


async def _answer(replica: Replica, way_back: _WayBack, number: int, data: bytes) -> None:
    name, *arguments = pickle.loads(data)
    answer = await getattr(replica, name)(*arguments)
    if answer is not None:
        way_back.add(frame(number, answer))
        if name != "begin" or not replica.will_say(arguments[1]):
            way_back.tell()


class _WayBack:
    """What goes to the front, from whichever thread: the one that draws sends what its step has brought by itself. To
    wake the event loop for it would hand the interpreter over, which costs a fast model a tenth of its tokens."""

    def __init__(self, front: socket.socket, loop: asyncio.AbstractEventLoop, replica: Replica) -> None:
        self._socket = front.dup()  # the event loop does not share one with others
        self._loop = loop
        self._replica = replica
        self._lock = threading.RLock()
        self._unsent = bytearray()
        """Frames that go next."""
        self._is_full = False
        """The front has had no time for what there was."""
        self.add(frame(NEWS, replica.begin_life(self.tell)[1]))

    async def keep_telling(self) -> None:
        """Signs of life, and what came without a step."""
        while True:
            self.tell()
            await asyncio.sleep(PULSE_S)

    def add(self, data: bytes) -> None:
        """A frame that goes with the next news."""
        with self._lock:
            self._unsent += data

    def tell(self) -> None:
        """What has happened. Where the front has no time it is told later, in longer pieces; nobody waits for it."""
        with self._lock:
            if self._is_full:
                return
            if (data := self._replica.fetch()) is not None:
                self._unsent += frame(NEWS, data)
            if self._unsent:
                self._send()
                if self._unsent:
                    self._is_full = True
                    self._loop.call_soon_threadsafe(self._loop.add_writer, self._socket, self._go_on)

    def _go_on(self) -> None:
        with self._lock:
            self._send()
            if not self._unsent:
                self._is_full = False
                self._loop.remove_writer(self._socket)
                self.tell()

    def _send(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        except ConnectionError:
            os._exit(0)  # nobody is there any more


if __name__ == "__main__":
    main()
