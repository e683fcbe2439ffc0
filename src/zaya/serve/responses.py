"""/v1/responses: the same turn as in a chat, asked for and answered in items. Nothing is kept between requests.

ResponsesBody ─► ChatBody ─► a Request, as for a chat ─► Turn ─► Items ─► one response, or its events
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from zaya.engine.types import Completion, FinishReason
from zaya.errors import ZayaError
from zaya.serve.chat import Chat, chat_of
from zaya.serve.errors import ApiError, as_api_error
from zaya.serve.http import EventStream, json_response, read_body, unless_gone
from zaya.serve.items import Items
from zaya.serve.log import note
from zaya.serve.protocol.base import parse_body
from zaya.serve.protocol.chat import ChatBody
from zaya.serve.protocol.reading import read_json
from zaya.serve.protocol.response_tools import FunctionTool, ResponseTool, names
from zaya.serve.protocol.responses import ResponsesBody
from zaya.serve.served import Served, Work
from zaya.serve.telling import new_id, usage_of
from zaya.serve.turn import Turn

_THEIR_PATHS = {
    "messages": "input", "max_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
}  # fmt: skip
"""Fields of a chat, and what they are here."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request made ready."""

    body: ResponsesBody
    chat: Chat
    id: str
    begun: int

    def items(self) -> Items:
        """What its output is gathered in."""
        return Items(names(self.body.tools or ()), seals="reasoning.encrypted_content" in (self.body.include or ()))


def prepare(served: Served, data: bytes) -> Asked:
    """From the bytes of a body. Raises ApiError, UsageError for what cannot be answered."""
    body = parse_body(ResponsesBody, read_json(data))
    body.check()
    try:
        chat = chat_of(served, parse_body(ChatBody, body.as_chat()))
    except (ApiError, ZayaError) as error:
        raise _in_their_words(as_api_error(error)) from None
    return Asked(body, chat, new_id("resp_"), int(time.time()))


def _in_their_words(error: ApiError) -> ApiError:
    """The field at fault is one of theirs. Messages are not items, so of those the field is all that can be said."""
    if error.code == "context_length_exceeded":
        error.param = "input"
    field = (error.param or "").partition("[")[0].partition(".")[0]
    if field in _THEIR_PATHS:
        error.param = _THEIR_PATHS[field]
    return error


async def responses(http: HttpRequest) -> Response:
    served: Served = http.app.state.served
    data = await read_body(http, served.limits)
    asked = await asyncio.to_thread(prepare, served, data)
    async with AsyncExitStack() as stack:
        work = await stack.enter_async_context(served.start([asked.chat.request], completions=1))
        if asked.body.stream:
            stream = _Stream(served, asked, work)
            return EventStream(
                stream.events(), stack=stack.pop_all(), within=work.deadline(), limits=served.limits,
                failed=stream.failed,
            )  # fmt: skip
        async with work.deadline():
            [[completion]] = await unless_gone(http.receive, work.results())
    turn, items = Turn(asked.chat.toolbox.offered), asked.items()
    for piece in [*turn.feed_each(completion.reasoning, completion.text), turn.finish()]:
        for _ in items.feed(piece):
            pass
    for _ in items.finish(is_cut=_is_cut(completion)):
        pass
    return json_response(_ended(served, asked, items, completion))


class _Stream:
    """The events of one response, numbered."""

    def __init__(self, served: Served, asked: Asked, work: Work) -> None:
        self._served = served
        self._asked = asked
        self._work = work
        self._items = asked.items()
        self._number = 0

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        asked, items = self._asked, self._items
        turn = Turn(asked.chat.toolbox.offered)
        begun = _response(self._served, asked, "in_progress", [])
        for kind in ("response.created", "response.in_progress"):
            yield self._numbered({"type": kind, "response": begun})
        async with aclosing(self._work.deltas()) as deltas:
            async for _, delta in deltas:
                for piece in turn.feed_each(delta.reasoning, delta.text):
                    for event in items.feed(piece):
                        yield self._numbered(event)
        [[completion]] = await self._work.results()
        for event in [*items.feed(turn.finish()), *items.finish(is_cut=_is_cut(completion))]:
            yield self._numbered(event)
        response = _ended(self._served, asked, items, completion)
        yield self._numbered({"type": f"response.{response['status']}", "response": response})

    def failed(self, error: ApiError) -> dict[str, Any]:
        """The event that says so."""
        response = _response(self._served, self._asked, "failed", self._items.items)
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        response["error"] = {"code": code, "message": error.message}
        return self._numbered({"type": "response.failed", "response": response})

    def _numbered(self, event: Mapping[str, Any]) -> dict[str, Any]:
        self._number += 1
        return {**event, "sequence_number": self._number - 1}


def _is_cut(completion: Completion) -> bool:
    return completion.finish_reason is FinishReason.LENGTH


def _ended(served: Served, asked: Asked, items: Items, completion: Completion) -> dict[str, Any]:
    response = _response(served, asked, "incomplete" if _is_cut(completion) else "completed", items.items)
    total = usage_of([[completion]])
    note(total)
    if _is_cut(completion):
        response["incomplete_details"] = {"reason": "max_output_tokens"}
    else:
        response["completed_at"] = int(time.time())
    response["usage"] = {
        "input_tokens": total["prompt_tokens"],
        # to be kept costs nothing here, and is not counted
        "input_tokens_details": {**total["prompt_tokens_details"], "cache_write_tokens": 0},
        "output_tokens": total["completion_tokens"],
        "output_tokens_details": total["completion_tokens_details"],
        "total_tokens": total["total_tokens"],
    }
    return response


def _response(served: Served, asked: Asked, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    """What is said of a response at any time: what was asked, with defaults, and what there is."""
    body, params = asked.body, asked.chat.request.params
    form = None if body.text is None else body.text.format
    choice = body.tool_choice
    return {
        "id": asked.id,
        "object": "response",
        "created_at": asked.begun,
        "status": status,
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata if isinstance(body.metadata, dict) else {},
        "model": served.name,
        "output": output,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None if body.reasoning is None else body.reasoning.effort, "summary": None},
        "store": False,
        "temperature": params.temperature,
        "text": {"format": {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)},
        "tool_choice": "auto" if choice is None else choice if isinstance(choice, str) else choice.model_dump(),
        "tools": [_told(tool) for tool in body.tools or ()],
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None,
    }


def _told(tool: ResponseTool) -> dict[str, Any]:
    if isinstance(tool, FunctionTool):
        return {"strict": None, **tool.model_dump(exclude={"defer_loading"})}
    return tool.model_dump(exclude_none=True)
