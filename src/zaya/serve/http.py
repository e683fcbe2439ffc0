"""HTTP as the endpoints need it: a body within bounds, JSON out, events out, and the moment when a client has gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from zaya.serve.errors import ApiError, as_api_error
from zaya.serve.limits import Limits
from zaya.serve.log import note_error

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": still here\n\n"  # a comment, as the standard of event streams has it


class ClientGone(Exception):
    """Whoever asked has closed the connection."""


_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
"""Made once: `json.dumps` makes one at every call."""


def to_bytes(value: Any) -> bytes:
    """JSON in ASCII: some clients take U+2028 for the end of a line, and a line ends an event."""
    return _JSON.encode(value).encode()


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_bytes(value), status, headers, media_type="application/json")


def error_response(error: ApiError) -> Response:
    return json_response(error.body, error.status, error.headers)


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body. Raises ApiError for one that is too large, too slow, or of another kind than JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # and so a form on a foreign page cannot post here
        raise ApiError(415, f"the body must be application/json: {kind[:100]!r}", code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "a compressed body is not read; send it as it is", code="unsupported_encoding")
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > limits.max_body_bytes:
        raise _too_large(limits)
    data = bytearray()
    try:
        with request.app.state.served.gate.receive() as count:
            async with asyncio.timeout(limits.body_timeout_s):
                async for chunk in request.stream():
                    count(len(chunk))
                    data += chunk
                    if len(data) > limits.max_body_bytes:
                        raise _too_large(limits)
    except TimeoutError:
        message = f"the body did not come within {limits.body_timeout_s:g} s"
        raise ApiError(408, message, code="body_timeout") from None
    return bytes(data)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives. It is cancelled, and ClientGone raised, when the client closes the connection."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, gone):
            if not each.done():  # to await one that has failed would raise it anew, and lose where it arose
                each.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await each


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events of JSON objects, closed by [DONE]. What goes wrong on the way is an event as well.

    `stack` holds what must be left when it is over; `within` is what bounds the time. With `failed`, which makes an
    event of what went wrong, events have names, their types, and none says that they are over: so /v1/responses has it.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[dict[str, Any], None],
        *,
        stack: AsyncExitStack,
        within: AbstractAsyncContextManager[None],
        limits: Limits,
        failed: Callable[[ApiError], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._stack = stack
        self._within = within
        self._failed = failed
        self._limits = limits
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await unless_gone(receive, self._run(send))

    async def _run(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pulse, mistake = asyncio.create_task(self._pulse(send)), None
        last = DONE if self._failed is None else b""
        try:
            async with self._within, aclosing(self._events) as events:
                async for event in events:
                    await self._send(send, self._event(event))
        except Exception as error:
            told = as_api_error(error)
            mistake = error if told.status == 500 else None
            note_error(told)
            last = self._event(told.body if self._failed is None else self._failed(told)) + last
        finally:
            pulse.cancel()
        try:
            # outside of the deadline, and so in a time of its own: whoever does not read would hold a place for ever
            async with asyncio.timeout(self._limits.head_timeout_s):
                await send({"type": "http.response.body", "body": last, "more_body": False})
        except TimeoutError:
            raise ClientGone from None
        if mistake is not None:
            raise mistake

    def _event(self, value: Mapping[str, Any]) -> bytes:
        name = b"" if self._failed is None else b"event: " + value["type"].encode() + b"\n"
        return name + b"data: " + to_bytes(value) + b"\n\n"

    async def _send(self, send: Send, data: bytes) -> None:
        self._sent_at = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _pulse(self, send: Send) -> None:
        """Say something where nothing else is said: clients and proxies give up on silence."""
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        while True:
            due = self._sent_at + self._limits.keep_alive_s
            await asyncio.sleep(due - loop.time())
            if loop.time() >= self._sent_at + self._limits.keep_alive_s:
                await self._send(send, _KEEP_ALIVE)


def _too_large(limits: Limits) -> ApiError:
    return ApiError(413, f"the body is larger than {limits.max_body_bytes:,} bytes", code="body_too_large")
