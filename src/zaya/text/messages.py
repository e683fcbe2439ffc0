"""The shape of a conversation: OpenAI-style messages and tools, checked and brought into one form.

Whatever a client sends either becomes a list of plain mappings that every chat template understands, or is refused
with the index of the message. Used by `text.chat` and `text.arguments`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from zaya.errors import UsageError

Message = dict[str, Any]


def normalize_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages whose content is a string, whose reasoning is `reasoning_content`, and whose arguments are mappings.

    Keys of no meaning here are kept, a template may know them. Raises UsageError.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise UsageError(f"messages must be a list of messages: {type(messages).__name__}")
    return [_message(i, message) for i, message in enumerate(messages)]


def normalize_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Tools as `{"type": "function", "function": {...}}`; a bare function is wrapped. None where there are none.

    Raises UsageError.
    """
    if not tools:
        return None
    if isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence):
        raise UsageError(f"tools must be a list of tools: {type(tools).__name__}")
    normal = []
    for i, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        kind = tool.get("type", "function") if isinstance(tool, Mapping) else None
        if isinstance(kind, str) and kind != "function":
            raise UsageError(f"tools[{i}] is not a function: {kind!r}", hint="other kinds of tools cannot be offered")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise UsageError(
                f"tools[{i}] has no function name",
                hint='expected {"type": "function", "function": {"name": ...}}',
            )
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, Mapping):
            raise UsageError(f"tools[{i}].parameters must be a JSON schema: {type(parameters).__name__}")
        if not isinstance((parameters or {}).get("properties") or {}, Mapping):
            raise UsageError(f"tools[{i}].parameters.properties must map names to schemas")
        normal.append({"type": "function", "function": dict(function)})
    return normal


def _message(i: int, message: object) -> Message:
    if not isinstance(message, Mapping):
        raise UsageError(f"messages[{i}] must be a mapping with a role: {type(message).__name__}")
    role = message.get("role")
    if not isinstance(role, str) or not role or any(c.isspace() or not c.isprintable() for c in role):
        raise UsageError(f"messages[{i}].role must be one word: {role!r}", hint="system, user, assistant or tool")
    if role != "assistant" and "content" not in message:
        raise UsageError(f"messages[{i}] ({role}) has no content")
    normal: Message = {**message, "content": _content(f"messages[{i}].content", message.get("content"))}
    normal.pop("reasoning", None)
    reasoning = message.get("reasoning_content")
    if reasoning is None:
        reasoning = message.get("reasoning")
    if reasoning is not None:
        normal["reasoning_content"] = _content(f"messages[{i}].reasoning_content", reasoning)
    else:
        normal.pop("reasoning_content", None)
    calls = normal.pop("tool_calls", None)
    if calls:
        if role != "assistant":
            raise UsageError(f"messages[{i}] ({role}) has tool_calls; only an assistant calls tools")
        if not isinstance(calls, Sequence) or isinstance(calls, str):
            raise UsageError(f"messages[{i}].tool_calls must be a list: {type(calls).__name__}")
        normal["tool_calls"] = [_call(f"messages[{i}].tool_calls[{j}]", call) for j, call in enumerate(calls)]
    return normal


def _content(where: str, content: object) -> str:
    match content:
        case None:
            return ""
        case str():
            return content
        case Sequence() if not isinstance(content, (bytes, bytearray)):
            return "".join(_part(f"{where}[{j}]", part) for j, part in enumerate(content))
    raise UsageError(f"{where} must be a string or a list of text parts: {type(content).__name__}")


def _part(where: str, part: object) -> str:
    match part:
        case str():
            return part
        case {"type": "text", "text": str() as text}:
            return text
        case {"type": kind}:
            raise UsageError(f"{where} must be a text part: {kind!r}", hint="this model reads text only")
    raise UsageError(f'{where} must be {{"type": "text", "text": ...}}: {type(part).__name__}')


def _call(where: str, call: object) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise UsageError(f"{where} has no function name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits
            raise UsageError(f"{where}.arguments is not JSON: {error}") from error
    if not isinstance(arguments, Mapping):
        raise UsageError(f"{where}.arguments must be a JSON object: {type(arguments).__name__}")
    rest = {key: value for key, value in call.items() if key in ("id", "type")} if isinstance(call, Mapping) else {}
    return {"type": "function", **rest, "function": {**function, "arguments": dict(arguments)}}
