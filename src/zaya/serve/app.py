"""The application: which path is answered by whom, and what is around every answer.

    Envelope (id, log line, errors as OpenAI's) ─► CORS ─► Guard (keys) ─► routes ─► chat, responses, completions,
                                                                                     about, pages

The two in the middle are there where the server was told of origins, and of keys.

To add an endpoint: a function from a request to a response, its row in `ROUTES`, and where it has a body, its record in
`serve/protocol` and in `serve.openapi.BODIES`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zaya.errors import ZayaError
from zaya.serve import about, log, pages
from zaya.serve.auth import OPEN, Guard, Keys
from zaya.serve.chat import chat_completions
from zaya.serve.completions import completions
from zaya.serve.errors import ApiError, as_api_error
from zaya.serve.http import ClientGone, error_response, json_response
from zaya.serve.openapi import openapi
from zaya.serve.responses import responses
from zaya.serve.served import Served

GONE = 499
"""The status in the log, as web servers write it, of a request whose client did not wait for the answer."""


_TOLD_TO_PAGES = (
    "X-Request-Id",
    "Retry-After",
    *(f"x-ratelimit-{fact}-{what}" for fact in ("limit", "remaining", "reset") for what in ("requests", "tokens")),
)


async def _openapi(http: HttpRequest) -> Response:
    return json_response(openapi())


ROUTES = [
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/responses", responses, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/models", about.list_models),
    Route("/v1/models/{name:path}", about.one_model),
    Route("/tokenize", about.tokenize, methods=["POST"]),
    Route("/detokenize", about.detokenize, methods=["POST"]),
    Route("/tokenizer_info", about.tokenizer_info),
    Route("/health", about.health),
    Route("/ready", about.ready),
    Route("/version", about.version),
    Route("/metrics", about.metrics),
    Route("/openapi.json", _openapi),
    Route("/", pages.page),
    Route("/ui/about", pages.about),
    Route(pages.RENDER, pages.render, methods=["POST"]),
    Route("/ui/{name:path}", pages.file),
]


def make_app(
    served: Served,
    *,
    write: log.Write = log.write_nothing,
    keys: Keys | None = None,
    origins: Sequence[str] = (),
) -> ASGIApp:
    """The application over one model. `write` gets a record for each request. Without `keys` nobody needs one; pages
    of `origins` may ask from a browser."""
    routes = Starlette(
        routes=ROUTES,
        exception_handlers={HTTPException: _no_route, ApiError: _error, ZayaError: _error, Exception: _error},
    )
    routes.state.served = served
    routes.router.redirect_slashes = False  # to wherever the client says that the server is
    app: ASGIApp = routes
    if keys is not None:
        app = Guard(routes, keys, open_paths=OPEN | pages.PATHS, uncounted={pages.RENDER})
    if origins:  # outside of the guard: a browser asks whether it may ask, and sends no key with that
        app = CORSMiddleware(
            app, origins, allow_methods=("GET", "POST"), allow_headers=("*",), expose_headers=_TOLD_TO_PAGES
        )
    return Envelope(app, write)


async def _error(http: HttpRequest, error: Exception) -> Response:
    told = as_api_error(error)
    log.note_error(told)
    return error_response(told)


async def _no_route(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: f"there is nothing at {http.url.path}", 405: f"{http.url.path} does not take {http.method}"}
    message = messages.get(error.status_code, error.detail)
    answer = error_response(ApiError(error.status_code, message, code="no_route"))
    answer.headers.update(error.headers or {})
    return answer


class Envelope:
    """Gives every request an id and a line in the log, and every mistake of ours an answer."""

    def __init__(self, app: ASGIApp, write: log.Write) -> None:
        self._app = app
        self._write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        id = log.request_id(None if given is None else given.decode("latin-1"))
        begun, notes, status = time.monotonic(), log.begin(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", id.encode())]}
            await send(message)

        more: Mapping[str, Any] = {}
        try:
            await self._app(scope, receive, send_with_id)
        except (ClientGone, ClientDisconnect):
            status = GONE
        except Exception as error:
            more = {"error": type(error).__name__, "places": log.places(error)}
            status = 500
        finally:
            seconds = round(time.monotonic() - begun, 4)
            line = {"event": "request", "id": id, "method": scope["method"], "path": scope["path"], "status": status}
            if status >= 400 or not scope["path"].startswith("/ui/"):  # an answer is rendered four times a second
                self._write({**line, "seconds": seconds, **notes, **more})
