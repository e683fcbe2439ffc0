"""A line of JSON for each request, on standard error: what was asked of which endpoint, how it ended, how long it took.

    {"time": ..., "event": "request", "id": "req-...", "method": "POST", "path": "/v1/chat/completions", "status": 200,
     "seconds": 1.24, "prompt_tokens": 31, "completion_tokens": 210}

Nothing that was said is in it: no text of prompts or answers, no value of a field. Of a mistake of ours it has the kind
and the places in the code, and not its message, which may quote a prompt.
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from zaya.serve.errors import ApiError
from zaya.serve.telling import new_id

Write = Callable[[dict[str, Any]], None]

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_notes: ContextVar[dict[str, Any] | None] = ContextVar("notes", default=None)
"""What is to be said of the request at hand."""


def begin() -> dict[str, Any]:
    """The notes of a new request."""
    notes: dict[str, Any] = {}
    _notes.set(notes)
    return notes


def note(usage: Mapping[str, Any]) -> None:
    """Write down what a request has read and written."""
    _add({name: usage[name] for name in ("prompt_tokens", "completion_tokens")})


def note_caller(name: str) -> None:
    """Write down whose key it came with, by its name."""
    _add({"key": name})


def note_error(error: ApiError) -> None:
    """Write down what a client is told, by its code and field; the message may quote what was said."""
    _add({"answered": error.status, "code": error.code, "param": error.param})


def _add(facts: Mapping[str, Any]) -> None:
    notes = _notes.get()
    if notes is not None:
        notes |= facts


def request_id(given: str | None) -> str:
    """The client's own, if it is one; else a new one."""
    return given if given is not None and _SANE_ID.fullmatch(given) else new_id("req-")


def places(error: BaseException) -> list[str]:
    """Where it arose. One that comes from another process brings the places there (`serve.replica`)."""
    frames = traceback.extract_tb(error.__traceback__)
    here = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return [*here, *getattr(error, "places", ())]


def write_line(record: Mapping[str, Any]) -> None:
    print(json.dumps({"time": round(time.time(), 3), **record}), file=sys.stderr, flush=True)


def write_nothing(record: Mapping[str, Any]) -> None:
    """For servers that are part of something else."""
