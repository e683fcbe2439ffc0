"""The body of /v1/responses, and the chat that it asks for.

Instructions, and system and developer items before all others, are one system message. Nothing is kept between
requests: what a client wants to be known it sends again, items as it got them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from zaya.serve.errors import ApiError
from zaya.serve.protocol.base import MOST_INT, Body, Name, NoOps, no_op
from zaya.serve.protocol.chat import Effort
from zaya.serve.protocol.items import STATELESS, messages_of
from zaya.serve.protocol.response_tools import NamedResponseTool, ResponseTool, functions
from zaya.serve.protocol.sampling import Count, boolean

Include = Literal[
    "reasoning.encrypted_content", "web_search_call.results", "web_search_call.action.sources",
    "file_search_call.results", "code_interpreter_call.outputs", "computer_call_output.output.image_url",
    "message.input_image.image_url",
]  # fmt: skip


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


class ResponseStreamOptions(Body):
    """OpenAI pads its events, and sends summaries of reasoning; here are neither."""

    include_obfuscation: Any = no_op()
    reasoning_summary_delivery: Any = no_op()


class ResponsesBody(NoOps):
    """A conversation as items, and how to go on with it."""

    instead: ClassVar[Mapping[str, str]] = {
        "messages": "this is /v1/responses, which takes input",
        "max_tokens": "here it is max_output_tokens",
        "max_completion_tokens": "here it is max_output_tokens",
        "reasoning_effort": "here it is reasoning.effort",
        "response_format": "here it is text.format",
        "logprobs": "/v1/chat/completions tells log-probabilities",
        "top_logprobs": "/v1/chat/completions tells log-probabilities",
        "prompt": "prompts are not kept here; send instructions and input",
    }

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
    tools: list[ResponseTool] | None = Field(default=None, max_length=256)
    tool_choice: Literal["none", "auto", "required"] | NamedResponseTool | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    include: list[Include] | None = None
    """"reasoning.encrypted_content" tells reasoning a second time, for clients that send nothing else of it back. What
    the others name does not come up here."""
    truncation: Literal["disabled"] | None = None
    background: Annotated[Literal[False], BeforeValidator(boolean)] | None = None
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
                raise ApiError(400, f"{name}: {STATELESS}", code="unsupported_value", param=name)

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
            chat["tools"] = functions(self.tools)
        choice = self.tool_choice
        if isinstance(choice, NamedResponseTool):
            chat["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        else:
            chat["tool_choice"] = choice
        if self.text is not None and self.text.format is not None:
            chat["response_format"] = _response_format(self.text.format)
        return {name: value for name, value in chat.items() if value is not None}

    def messages(self) -> list[dict[str, Any]]:
        items = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        messages = messages_of(items)
        heads = [] if self.instructions is None else [self.instructions]
        while messages and messages[0]["role"] in ("system", "developer"):
            heads.append(messages.pop(0)["content"])
        return [{"role": "system", "content": "\n\n".join(heads)}, *messages] if heads else messages


def _response_format(form: TextFormat) -> dict[str, Any]:
    if form.type != "json_schema":
        return {"type": form.type}
    if form.schema_ is None:
        raise ApiError(400, "text.format.schema is missing", code="missing_field", param="text.format.schema")
    return {"type": "json_schema", "json_schema": {"name": form.name, "schema": form.schema_}}
