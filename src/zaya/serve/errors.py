"""What a client is told when something went wrong: a status, and OpenAI's error object.

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

Everything that a request can cause is a `ZayaError` of the rooms below, and a 400; what is left is ours, and a 500 that
says nothing of the inside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zaya.errors import CheckpointError, CompletionError, ZayaError

_MOST_WORDS = 1000
_RESTART_S = 5
"""About what it takes to start a replica."""
_THEIR_NAMES = {"stop_ids": "stop_token_ids", "think_budget": "thinking_token_budget"}
"""Settings of the engine that clients call otherwise."""
_ENGINE_NAMES = re.compile(rf"\b({'|'.join(_THEIR_NAMES)})\b")
_PATH = re.compile(r"(messages|tools)\[\d+\][\w.\[\]]*|[a-z]+(_[a-z]+)+(?= (has|must|is|holds)\b)")
"""How a message begins that is about a field."""
_TYPES = {403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """`param` is the field at fault; `code` is for programs, `message` for people."""
        super().__init__(message)
        self.status = status
        self.message = _short(message)
        self.code = code
        self.param = None if param is None else _short(param)
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> Mapping[str, str]:
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


def no_replica() -> ApiError:
    """Nobody is there who could answer (`serve.fleet`)."""
    message = f"no replica of the model is up; come again in {_RESTART_S} s"
    return ApiError(503, message, code="no_replica", retry_after_s=_RESTART_S)


def _short(text: str) -> str:
    """A name in it may be the client's, and of any length."""
    return text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]} ..."


def as_api_error(error: Exception) -> ApiError:
    """What an exception means to the client."""
    match error:
        case ApiError():
            return error
        case CompletionError(kind="no_replica"):
            return no_replica()
        case CompletionError():
            return ApiError(502, str(error), code=error.kind)
        case CheckpointError():  # of a chat template or tokenizer that cannot serve this; no request mends it
            return ApiError(500, str(error), code="checkpoint")
        case ZayaError():
            said = _ENGINE_NAMES.sub(lambda found: _THEIR_NAMES[found[0]], str(error))
            path = _PATH.match(said)
            return ApiError(400, said, code="invalid_value", param=path[0] if path else None)
    return ApiError(500, "the server made a mistake; its log has it under the id of this request", code="internal")
