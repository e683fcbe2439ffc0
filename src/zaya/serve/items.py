"""What /v1/responses has in place of a message: items of reasoning, text and calls, in the order in which they came.

A stream and a whole answer are one thing here too: events say how the items become what the answer has. An item is over
when another begins; the last one of an answer that was cut is "incomplete", and so is a call whose arguments are no
JSON. The text of a custom tool's call is told in one piece, when it is over. Fed by `serve.turn`, a piece for each
thing that was said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json

from zaya.serve.protocol.items import sealed
from zaya.serve.protocol.response_tools import INPUT, ToolName
from zaya.serve.telling import new_id
from zaya.serve.turn import Piece

Event = dict[str, Any]


class Items:
    """The output of one response."""

    def __init__(self, tools: Mapping[str, ToolName], *, seals: bool) -> None:
        """`tools` by the names that the model knows. `seals`: reasoning has an `encrypted_content` as well."""
        self._tools = tools
        self._seals = seals
        self.items: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        """The last of them, as long as it grows."""
        self._call: int | None = None
        """Which call it is, where it is one."""
        self._arguments_so_far: list[str] = []
        """Of that call."""

    def feed(self, piece: Piece) -> Iterator[Event]:
        """What a piece adds."""
        if reasoning := piece.get("reasoning"):
            yield from self._text("reasoning", reasoning)
        if content := piece.get("content"):
            yield from self._text("message", content)
        for call in piece.get("tool_calls", ()):
            yield from self._arguments(call)

    def finish(self, *, is_cut: bool) -> Iterator[Event]:
        """The end of the last one."""
        yield from self._close("incomplete" if is_cut else "completed")

    # ----- the items

    def _text(self, kind: str, text: str) -> Iterator[Event]:
        if self._open is None or self._open["type"] != kind:
            yield from self._begin(_new(kind))
            yield self._event("response.content_part.added", content_index=0, part=_part(kind, ""))
            self._last["content"] = [_part(kind, "")]
        self._last["content"][0]["text"] += text
        yield self._event(f"response.{_NAMES[kind]}.delta", content_index=0, delta=text, **_LOGPROBS.get(kind, {}))

    def _arguments(self, call: dict[str, Any]) -> Iterator[Event]:
        function = call["function"]
        if self._call != call["index"]:
            yield from self._begin(_new_call(self._tools.get(function["name"], ToolName(function["name"])), call["id"]))
            self._call = call["index"]
        if function["arguments"]:
            self._arguments_so_far.append(function["arguments"])
            if self._last["type"] == "function_call":
                yield self._event("response.function_call_arguments.delta", delta=function["arguments"])

    def _begin(self, item: dict[str, Any]) -> Iterator[Event]:
        yield from self._close("completed")
        self.items.append(item)
        self._open, self._arguments_so_far = item, []
        yield self._item_event("response.output_item.added")

    def _close(self, status: str) -> Iterator[Event]:
        item = self._open
        if item is None:
            return
        arguments = "".join(self._arguments_so_far)
        if self._call is not None and not _is_json(arguments):
            status = "incomplete"
        if item["type"] == "function_call":
            item["arguments"] = arguments
            yield self._event("response.function_call_arguments.done", arguments=arguments)
        elif item["type"] == "custom_tool_call":
            item["input"] = _input(arguments)
            yield self._event("response.custom_tool_call_input.delta", delta=item["input"])
            yield self._event("response.custom_tool_call_input.done", input=item["input"])
        else:
            kind, part = item["type"], item["content"][0]
            done = f"response.{_NAMES[kind]}.done"
            yield self._event(done, content_index=0, text=part["text"], **_LOGPROBS.get(kind, {}))
            yield self._event("response.content_part.done", content_index=0, part=dict(part))
            if kind == "reasoning" and self._seals:
                item["encrypted_content"] = sealed(part["text"])
        item["status"] = status
        yield self._item_event("response.output_item.done")
        self._open = self._call = None

    # ----- the events

    @property
    def _last(self) -> dict[str, Any]:
        return self.items[-1]

    def _event(self, kind: str, **values: Any) -> Event:
        return {"type": kind, "item_id": self._last["id"], "output_index": len(self.items) - 1, **values}

    def _item_event(self, kind: str) -> Event:
        item = self._last
        copy = {**item, "content": [dict(part) for part in item["content"]]} if "content" in item else dict(item)
        return {"type": kind, "output_index": len(self.items) - 1, "item": copy}


_NAMES = {"reasoning": "reasoning_text", "message": "output_text"}
"""Of the part that an item of this type has, and of its events."""
_LOGPROBS: dict[str, Event] = {"message": {"logprobs": []}}
"""OpenAI's events of text have a place for them."""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _input(arguments: str) -> str:
    """What a custom tool is given, as far as it goes."""
    try:
        value = from_json(arguments, allow_partial="trailing-strings")
    except ValueError:
        return ""
    # a call in the form of JSON may have anything in it
    return value[INPUT] if isinstance(value, dict) and isinstance(value.get(INPUT), str) else arguments


def _new_call(tool: ToolName, call_id: str) -> dict[str, Any]:
    kind, prefix, text = (
        ("custom_tool_call", "ctc_", "input") if tool.is_custom else ("function_call", "fc_", "arguments")
    )
    named = {"name": tool.name} if tool.namespace is None else {"name": tool.name, "namespace": tool.namespace}
    return {"id": new_id(prefix), "type": kind, "status": "in_progress", "call_id": call_id, **named, text: ""}


def _new(kind: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"id": new_id("rs_"), "type": kind, "status": "in_progress", "summary": [], "content": []}
    return {"id": new_id("msg_"), "type": kind, "status": "in_progress", "role": "assistant", "content": []}


def _part(kind: str, text: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
