"""Tools in a chat: what of the answer is held to their schemas, and which tools are offered at all.

    left out, "auto"      the model chooses; its calls are held to the schemas where those can be held
    "required"            at least one call, of any tool
    a named tool          one call of that tool
    "none"                the tag that opens a call cannot be drawn

With "auto" and a schema for the answer, that JSON takes the place of free text: there is either the answer or calls.
Where a call is demanded there is no answer yet, and its schema waits.

With "auto", a set of tools whose schemas are beyond a grammar leaves the model free, and what it writes is read by the
tolerant parser. Whoever demands a call is told what cannot be held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zaya.engine.tool_grammar import tool_grammar
from zaya.engine.types import Structure
from zaya.errors import UsageError, did_you_mean
from zaya.serve.errors import ApiError
from zaya.serve.protocol.chat import ChatBody, NamedTool
from zaya.text import Tokenizer
from zaya.text.messages import normalize_tools


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of a request."""

    offered: list[dict[str, Any]] | None
    """In the prompt, and by their schemas the types of arguments."""
    structure: Structure | None = None
    """What the answer is held to."""
    bias: Mapping[int, float] = field(default_factory=dict)
    """What keeps the model from calling."""

    @classmethod
    def of(cls, body: ChatBody, tokenizer: Tokenizer, structure: Structure | None) -> Toolbox:
        """`structure` is what the request asks of the answer beside tools. Raises ApiError, UsageError."""
        offered = normalize_tools(body.tools)
        choice = body.tool_choice
        if offered is None:
            if choice not in (None, "none", "auto"):
                raise ApiError(400, "tool_choice asks for a call, and there are no tools", param="tool_choice")
            return cls(None, structure)
        # a demand on the server, and no part of what the model is told
        offered = [{**tool, "function": _without(tool["function"], "strict")} for tool in offered]
        if choice == "none":
            call_open = tokenizer.tags.call_open
            return cls(offered, structure, {} if call_open is None else {call_open: -math.inf})
        if structure is not None and structure.kind != "json":
            message = "only a JSON schema goes with tools, no expression and no choice; set tool_choice to 'none'"
            raise ApiError(400, message, param="tool_choice")
        is_free = choice in (None, "auto")
        if is_free and body.strict_tools is False:
            if structure is not None:
                message = "strict_tools false leaves the whole answer to the model, its structure too; leave one out"
                raise ApiError(400, message, param="strict_tools")
            return cls(offered)
        held = offered
        if isinstance(choice, NamedTool):
            held = [tool for tool in offered if tool["function"]["name"] == choice.function.name]
            if not held:
                near = did_you_mean(choice.function.name, [tool["function"]["name"] for tool in offered])
                message = f"tool_choice names a tool that is not there: {choice.function.name!r}; {near}"
                raise ApiError(400, message, param="tool_choice")
        if is_free and structure is None and not _can_be_held(held):
            return cls(offered)
        demand = Structure(
            kind="tools",
            value=held,
            require_call=not is_free,
            parallel_calls=body.parallel_tool_calls is not False and not isinstance(choice, NamedTool),
            answer_schema=structure.value if structure is not None and is_free else None,
        )
        return cls(offered, demand)


def _can_be_held(tools: list[dict[str, Any]]) -> bool:
    try:
        tool_grammar(tools, require_call=False, parallel_calls=True, call_open=0, call_close=1)
    except UsageError:
        return False
    return True


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
