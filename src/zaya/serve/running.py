"""The server as a process: it listens, and when it is told to stop, it finishes what is under way.

    1. SIGTERM, or Ctrl-C: no more connections, and no more requests on those there are (503)
    2. requests under way have `drain_s` to end; what is left then is ended with an error that its client can read
    3. the engine is closed

Ctrl-C a second time does not wait. A server whose engine is gone for good stops as well.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import uvicorn

from zaya.errors import UsageError
from zaya.serve import log
from zaya.serve.app import make_app
from zaya.serve.auth import Keys
from zaya.serve.served import Served

_MOST_CONNECTIONS_PER_PENDING = 4
"""Connections may also ask for health, or rest."""


class Server(uvicorn.Server):
    """uvicorn, except for how it stops."""

    def __init__(
        self,
        served: Served,
        *,
        write: log.Write = log.write_line,
        keys: Keys | None = None,
        origins: Sequence[str] = (),
    ) -> None:
        limits = served.limits
        super().__init__(
            uvicorn.Config(
                make_app(served, write=write, keys=keys, origins=origins),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(limits.head_timeout_s),
                limit_concurrency=_MOST_CONNECTIONS_PER_PENDING * limits.max_pending,
                # behind the end of our own patience: the last errors have to be written as well
                timeout_graceful_shutdown=int(limits.drain_s) + 5,
            )
        )
        self._served = served
        self._quiet_since: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        """Connections on which no request is under way."""

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # a second
            self._close_quiet()
            if getattr(self._served.completer, "refused", None) is not None:  # nobody will ever answer again
                self.should_exit = True
        return await super().on_tick(counter)

    def _close_quiet(self) -> None:
        """uvicorn waits without a bound for the first request, and for the rest of one that has begun."""
        now = asyncio.get_running_loop().time()
        for connection in [*self.server_state.connections]:
            cycle: Any = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                self._quiet_since.pop(connection, None)
            elif now - self._quiet_since.setdefault(connection, now) > self._served.limits.head_timeout_s:
                connection.transport.close()  # type: ignore[union-attr]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._served.is_draining = True
        expiry = asyncio.create_task(self._expire())
        try:
            await super().shutdown(sockets)
        finally:
            expiry.cancel()
        # uvicorn would raise them once more, and so end the process in their name: to have stopped is no failure
        self._captured_signals.clear()

    async def _expire(self) -> None:
        await asyncio.sleep(self._served.limits.drain_s)
        for work in [*self._served.under_way]:
            work.expire()


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address; port 0 takes a free one. Raises UsageError where it is not to be had."""
    if not 0 <= port < 1 << 16:  # the resolver takes the rest of a division
        raise UsageError(f"a port is from 0 to 65535: {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"cannot listen at {host}, port {port}: {error}", hint="choose another --port or --host"
        ) from error
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
