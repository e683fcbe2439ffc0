"""The body of /v1/responses, and the chat that it asks for.

    instructions, and system and developer items before all others     one system message
    reasoning, message and function_call items, one after another      one turn of the assistant's
    function_call_output                                               a tool's message

Nothing is kept between requests: what a client wants to be known it sends again, items as it got them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from zaya.serve.errors import ApiError
from zaya.serve.protocol.base import MOST_INT, Body, Name, NoOps, no_op
from zaya.serve.protocol.chat import Effort
from zaya.serve.protocol.sampling import Count

_KEYS = {
    "message": {"role", "content"},
    "reasoning": {"content", "summary"},
    "function_call": {"call_id", "name", "arguments"},
    "function_call_output": {"call_id", "output", "name"},
}
"""What is read of an item, by its type."""
_IGNORED_KEYS = frozenset({
    "type", "id", "status", "phase", "encrypted_content", "namespace", "caller", "async", "metadata",
})  # fmt: skip
"""What clients send back because a server had said it."""
_TEXTS = ("input_text", "output_text", "text", "reasoning_text")
_STATELESS = "nothing is kept here between requests; send the whole conversation as input"


class Reasoning(Body):
    """How long it may be thought."""

    effort: Effort | None = None
    summary: Any = no_op()
    generate_summary: Any = no_op()
    context: Any = no_op()


class TextFormat(Body):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(Body):
    """Of the visible answer."""

    format: TextFormat | None = None
    verbosity: Any = no_op()


class FunctionTool(Body):
    """A tool, without the object around it that chats have."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Any = no_op()
    defer_loading: Any = no_op()


class NamedFunctionTool(Body):
    """The one tool that is to be called."""

    type: Literal["function"]
    name: Name


class ResponseStreamOptions(Body):
    """OpenAI pads its events; here they are as long as they are."""

    include_obfuscation: Any = no_op()


class ResponsesBody(NoOps):
    """A conversation as items, and how to go on with it."""

    model: Name | None = None
    input: str | Annotated[list[dict[str, Any]], Field(min_length=1)]
    instructions: str | None = None
    """Before everything else; the system message."""
    max_output_tokens: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
    """Reasoning and answer. By default what the context has left."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=256)
    tool_choice: Literal["none", "auto", "required"] | NamedFunctionTool | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    include: list[Literal["reasoning.encrypted_content"]] | None = None
    """Accepted, and changes nothing: reasoning is told as text."""
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    previous_response_id: str | None = None
    """Refused: nothing is kept between requests."""
    conversation: Any = None
    """Refused as well."""
    max_tool_calls: Any = no_op()
    prompt_cache_options: Any = no_op()
    seed: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MOST_INT)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    thinking_token_budget: Count | None = None
    priority: Annotated[int, Field(ge=-MOST_INT, le=MOST_INT)] | None = None
    cache_salt: str | None = None
    strict_tools: bool | None = None

    def check(self) -> None:
        """Raises ApiError for what only a server could answer that keeps conversations."""
        for name in ("previous_response_id", "conversation"):
            if getattr(self, name) is not None:
                raise ApiError(400, f"{name}: {_STATELESS}", code="unsupported_value", param=name)

    def as_chat(self) -> dict[str, Any]:
        """The body of the chat that it asks for. Raises ApiError for items that are none."""
        same = (
            "model", "temperature", "top_p", "parallel_tool_calls", "stream", "seed", "top_k", "min_p",
            "thinking_token_budget", "priority", "cache_salt", "strict_tools",
        )  # fmt: skip
        chat: dict[str, Any] = {name: getattr(self, name) for name in same}
        chat |= {"messages": self.messages(), "max_tokens": self.max_output_tokens}
        if self.reasoning is not None:
            chat["reasoning_effort"] = self.reasoning.effort
        if self.tools:
            chat["tools"] = [
                {"type": "function", "function": tool.model_dump(include=_OF_TOOLS, exclude_none=True)}
                for tool in self.tools
            ]
        choice = self.tool_choice
        if isinstance(choice, NamedFunctionTool):
            chat["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        else:
            chat["tool_choice"] = choice
        if self.text is not None and self.text.format is not None:
            chat["response_format"] = _response_format(self.text.format)
        return {name: value for name, value in chat.items() if value is not None}

    def messages(self) -> list[dict[str, Any]]:
        items = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        messages = _messages(items)
        heads = [] if self.instructions is None else [self.instructions]
        while messages and messages[0]["role"] in ("system", "developer"):
            heads.append(messages.pop(0)["content"])
        return [{"role": "system", "content": "\n\n".join(heads)}, *messages] if heads else messages


_OF_TOOLS = {"name", "description", "parameters"}


def _response_format(form: TextFormat) -> dict[str, Any]:
    if form.type != "json_schema":
        return {"type": form.type}
    if form.schema_ is None:
        raise ApiError(400, "text.format.schema is missing", code="missing_field", param="text.format.schema")
    return {"type": "json_schema", "json_schema": {"name": form.name, "schema": form.schema_}}


def _messages(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
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
                assistant("reasoning", "content", "tool_calls")["reasoning"] = _text(
                    f"{where}.content", item.get("content") or []
                )
            case "function_call":
                call = {name: _string(where, item, name) for name in ("name", "arguments")}
                id = _string(where, item, "call_id")
                assistant().setdefault("tool_calls", []).append({"id": id, "type": "function", "function": call})
            case "function_call_output":
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
        raise _wrong(where, f"refers to an item, and {_STATELESS}")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise _wrong(f"{where}.type", f"must be one of {', '.join(_KEYS)}")
    unknown = sorted(item.keys() - _KEYS[kind] - _IGNORED_KEYS)
    if unknown:
        path = f"{where}.{unknown[0]}"
        raise ApiError(400, f"unknown field: {path}", code="unknown_field", param=path)
    return kind


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
