"""The items of a conversation in /v1/responses, and the messages that they are.

    reasoning, message and calls, one after another      one turn of the assistant's
    the output of a call                                 a tool's message

Reasoning comes back as the text it was told as, or sealed: clients that keep nothing but `encrypted_content` get the
text once more in there, to be sent back. It is nobody's secret, only opaque.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from zaya.serve.errors import ApiError
from zaya.serve.protocol.response_tools import INPUT, in_chat

_KEYS = {
    "message": {"role", "content"},
    "reasoning": {"content", "summary", "encrypted_content"},
    "function_call": {"call_id", "name", "namespace", "arguments"},
    "function_call_output": {"call_id", "output", "name"},
    "custom_tool_call": {"call_id", "name", "namespace", "input"},
    "custom_tool_call_output": {"call_id", "output", "name"},
}
"""What is read of an item, by its type."""
_IGNORED_KEYS = frozenset({
    "type", "id", "status", "phase", "end_turn", "encrypted_content", "namespace", "caller", "async", "metadata",
    "internal_chat_message_metadata_passthrough",
})  # fmt: skip
"""What clients send back because a server had said it."""
_TEXTS = ("input_text", "output_text", "text", "reasoning_text")
STATELESS = "nothing is kept here between requests; send the whole conversation as input"


_SEAL = "zaya:"
"""Before a sealed reasoning. Another's, of a conversation that began elsewhere, is not read."""


def sealed(reasoning: str) -> str:
    """As `encrypted_content`."""
    return _SEAL + base64.b64encode(reasoning.encode()).decode()


def messages_of(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Raises ApiError for items that are none."""
    messages: list[dict[str, Any]] = []
    turn: dict[str, Any] | None = None  # the assistant's, as long as it goes on

    def assistant(*taken: str) -> dict[str, Any]:
        """The turn at hand, or a new one where it has one of these already."""
        nonlocal turn
        if turn is None or any(key in turn for key in taken):
            turn = {"role": "assistant"}
            messages.append(turn)
        return turn

    for i, item in enumerate(items):
        where = f"input[{i}]"
        match _kind(where, item):
            case "reasoning":
                assistant("reasoning", "content", "tool_calls")["reasoning"] = _reasoning(where, item)
            case "function_call" | "custom_tool_call" as kind:
                name, id = _string(where, item, "name"), _string(where, item, "call_id")
                if kind == "function_call":
                    arguments = _string(where, item, "arguments")
                else:
                    arguments = json.dumps({INPUT: _string(where, item, "input")}, ensure_ascii=False)
                namespace = None if item.get("namespace") is None else _string(where, item, "namespace")
                call = {"name": in_chat(name, namespace), "arguments": arguments}
                assistant().setdefault("tool_calls", []).append({"id": id, "type": "function", "function": call})
            case "function_call_output" | "custom_tool_call_output":
                turn = None
                output = _text(f"{where}.output", item.get("output"))
                messages.append({"role": "tool", "tool_call_id": _string(where, item, "call_id"), "content": output})
            case _:
                role, content = _string(where, item, "role"), _text(f"{where}.content", item.get("content"))
                if role == "assistant":
                    assistant("content", "tool_calls")["content"] = content
                elif role in ("user", "system", "developer"):
                    turn = None
                    messages.append({"role": role, "content": content})
                else:
                    raise _wrong(f"{where}.role", "must be user, assistant, system or developer")
    return messages


def _kind(where: str, item: Mapping[str, Any]) -> str:
    """The type of an item. Raises ApiError for one that is not read here, or has what nobody reads."""
    kind = item.get("type", "message" if "role" in item else None)
    if kind == "item_reference":
        raise _wrong(where, f"refers to an item, and {STATELESS}")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise _wrong(f"{where}.type", f"must be one of {', '.join(_KEYS)}")
    unknown = sorted(item.keys() - _KEYS[kind] - _IGNORED_KEYS)
    if unknown:
        path = f"{where}.{unknown[0]}"
        raise ApiError(400, f"unknown field: {path}", code="unknown_field", param=path)
    return kind


def _reasoning(where: str, item: Mapping[str, Any]) -> str:
    if content := item.get("content"):
        return _text(f"{where}.content", content)
    seal = item.get("encrypted_content")
    if not isinstance(seal, str) or not seal.startswith(_SEAL):
        return ""
    try:
        return base64.b64decode(seal.removeprefix(_SEAL), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise _wrong(f"{where}.encrypted_content", "is not as it was told") from None


def _string(where: str, item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise _wrong(f"{where}.{name}", "must be a string")
    return value


def _text(where: str, content: Any) -> str:
    match content:
        case str():
            return content
        case list():
            return "".join(_part(f"{where}[{j}]", part) for j, part in enumerate(content))
    raise _wrong(where, "must be a string or a list of text parts")


def _part(where: str, part: Any) -> str:
    match part:
        case {"type": kind, "text": str() as text} if kind in _TEXTS:
            return text
        case {"type": "refusal", "refusal": str() as text}:
            return text
    raise _wrong(where, "must be a text part; this model reads text only")


def _wrong(where: str, what: str) -> ApiError:
    return ApiError(400, f"{where} {what}", code="invalid_value", param=where)
