"""The tools of /v1/responses, and the functions that stand for them in a chat.

    function      a function
    custom        a function of one text, `input`; a regular expression holds that text, a Lark grammar is told
    namespace     its tools, `NAMESPACE.NAME` each

Tools that OpenAI's own servers carry out, such as web_search, are refused: nobody here would carry them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from zaya.serve.protocol.base import Body, Name, no_op

INPUT = "input"
"""The parameter of the function that a custom tool is."""


class FunctionTool(Body):
    """A tool, without the object around it that chats have."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Any = no_op()
    defer_loading: Any = no_op()


class CustomFormat(Body):
    """What the text of a custom tool looks like."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class CustomTool(Body):
    """A tool that takes a text as it is."""

    type: Literal["custom"]
    name: Name
    description: str | None = None
    format: CustomFormat | None = None
    defer_loading: Any = no_op()


def _kind_is_known(tool: Any) -> Any:
    if isinstance(tool, dict) and tool.get("type") not in ("function", "custom", "namespace"):
        raise ValueError(
            "only tools of the types function, custom and namespace are offered to the model; tools like web_search "
            "are OpenAI's to carry out, so turn them off in the client"
        )
    return tool


Called = Annotated[FunctionTool | CustomTool, Field(discriminator="type"), BeforeValidator(_kind_is_known)]


class NamespaceTool(Body):
    """Tools that belong together, as those of one MCP server do."""

    type: Literal["namespace"]
    name: Name
    description: str | None = None
    tools: list[Called] = Field(max_length=256)


ResponseTool = Annotated[
    FunctionTool | CustomTool | NamespaceTool, Field(discriminator="type"), BeforeValidator(_kind_is_known)
]


class NamedResponseTool(Body):
    """The one tool that is to be called."""

    type: Literal["function", "custom"]
    name: Name


@dataclass(frozen=True, slots=True)
class ToolName:
    """What a function of the chat is to the client."""

    name: str
    namespace: str | None = None
    is_custom: bool = False


def in_chat(name: str, namespace: str | None) -> str:
    """The name of the function."""
    return name if namespace is None else f"{namespace}.{name}"


def names(tools: Sequence[ResponseTool]) -> dict[str, ToolName]:
    """What each function of the chat is to the client."""
    return {in_chat(tool.name, of): ToolName(tool.name, of, tool.type == "custom") for of, tool in _flat(tools)}


def functions(tools: Sequence[ResponseTool]) -> list[dict[str, Any]]:
    """The tools of the chat."""
    return [
        {"type": "function", "function": {**_function(tool), "name": in_chat(tool.name, of)}}
        for of, tool in _flat(tools)
    ]


def _flat(tools: Sequence[ResponseTool]) -> Iterator[tuple[str | None, FunctionTool | CustomTool]]:
    for tool in tools:
        if isinstance(tool, NamespaceTool):
            yield from ((tool.name, each) for each in tool.tools)
        else:
            yield None, tool


def _function(tool: FunctionTool | CustomTool) -> dict[str, Any]:
    if isinstance(tool, FunctionTool):
        return tool.model_dump(include={"description", "parameters"}, exclude_none=True)
    text: dict[str, Any] = {"type": "string"}
    description = tool.description or ""
    form = tool.format
    if form is not None and form.definition is not None:
        if form.syntax == "regex":
            text["pattern"] = f"^(?:{form.definition})$"
        else:
            description += f"\n\nThe {INPUT} is a text of this grammar, in Lark:\n\n{form.definition}"
    parameters = {"type": "object", "properties": {INPUT: text}, "required": [INPUT], "additionalProperties": False}
    return {"description": description.strip(), "parameters": parameters}
