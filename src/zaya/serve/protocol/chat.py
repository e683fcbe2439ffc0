"""The body of /v1/chat/completions.

Messages are checked in `zaya.text.messages`, the one place that knows their shape; here only their keys are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field
from pydantic_core import from_json

from zaya.serve.errors import ApiError
from zaya.serve.protocol.base import MOST_INT, Body, Name, OneError, no_op
from zaya.serve.protocol.rsa import ProxyFields, RsaBody
from zaya.serve.protocol.sampling import Count, Sampling

MESSAGE_KEYS = frozenset({"role", "content", "name", "reasoning", "reasoning_content", "tool_calls", "tool_call_id"})
IGNORED_MESSAGE_KEYS = frozenset({
    "refusal", "annotations", "audio", "function_call", "id", "type", "status", "reasoning_details",
    "provider_specific_fields", "thinking_blocks", "cache_control", "reasoning_text", "reasoning_opaque",
    "extra_content",
})  # fmt: skip
"""What clients send back because a server had said it, or for another server; nothing of it is read."""

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
THINK_BUDGETS: Mapping[Effort, int | None] = {
    "none": 0, "minimal": 512, "low": 2048, "medium": 8192, "high": 32768, "xhigh": None, "max": None,
}  # fmt: skip
"""Tokens of reasoning for each effort; none for as many as the model likes. "none" asks for no thinking at all."""


def known_keys(message: dict[str, Any]) -> dict[str, Any]:
    """The message with what is read of it. Raises ValueError for a key that nobody knows."""
    unknown = sorted(message.keys() - MESSAGE_KEYS - IGNORED_MESSAGE_KEYS)
    if unknown:
        raise ValueError(f"a message has no field of this name: {unknown[0]}")
    known = {k: value for k, value in message.items() if k in MESSAGE_KEYS and (value is not None or k == "content")}
    if isinstance(calls := known.get("tool_calls"), list):
        known["tool_calls"] = [_whole(call) for call in calls]
    return known


def _whole(call: Any) -> Any:
    """The call, with arguments that break off read as far as they go, and those that were written as JSON twice once
    more. A call that was cut is told with such arguments, and agents send it back; a conversation must not end there.
    """
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(arguments := function.get("arguments"), str):
        return call
    try:
        found = json.loads(arguments)
        if not isinstance(found, str):
            return call
        arguments = found
    except (ValueError, RecursionError):
        pass
    try:
        found = from_json(arguments, allow_partial="trailing-strings")
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": found}} if isinstance(found, dict) else call


Message = Annotated[dict[str, Any], AfterValidator(known_keys)]


class NamedFunction(Body):
    """A tool by its name."""

    name: Name


class NamedTool(Body):
    """The one tool that is to be called."""

    type: Literal["function"]
    function: NamedFunction


class ChatReasoning(Body):
    """How long it may be thought, in OpenRouter's words."""

    effort: Effort | None = None
    max_tokens: Count | None = None
    enabled: bool | None = None
    exclude: bool | None = None
    """True keeps the reasoning out of the answer."""
    summary: Any = no_op()


class Thinking(Body):
    """How long it may be thought, in Anthropic's and DeepSeek's words."""

    type: Literal["enabled", "disabled"]
    budget_tokens: Count | None = None


class TemplateKwargs(Body):
    """Variables of the chat template."""

    enable_thinking: bool | None = None
    truncate_history_thinking: bool | None = None


class ChatBody(Sampling, ProxyFields):
    """A conversation, and how to go on with it."""

    instead: ClassVar[Mapping[str, str]] = {
        "functions": "send tools",
        "function_call": "send tool_choice",
        "input": "this is /v1/chat/completions, which takes messages",
        "instructions": "send a message of the system",
        "max_output_tokens": "here it is max_tokens",
        "text": "here it is response_format",
    }

    messages: Annotated[list[Message], OneError] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = Field(default=None, max_length=256)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    """ "auto", also by default, lets the model choose; "required" and a named tool leave it no choice."""
    parallel_tool_calls: bool | None = None
    strict_tools: bool | None = None
    """Whether calls are held to the schemas of their tools while they are drawn; by default as far as a schema can
    be held. False leaves all to the model."""
    max_tokens: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
    """By default what the context has left."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    reasoning_effort: Effort | None = None
    reasoning: ChatReasoning | None = None
    thinking: Thinking | None = None
    enable_thinking: bool | None = None
    """Qwen's word for a template's variable."""
    include_reasoning: bool | None = None
    """False keeps the reasoning out of the answer."""
    chat_template_kwargs: TemplateKwargs | None = None
    continue_final_message: bool | None = None
    """The last message is the assistant's, and not complete."""
    add_generation_prompt: bool | None = None
    rsa: bool | Name | RsaBody | None = None
    """Markovian RSA in place of one completion: true, a preset, or settings."""

    @property
    def wants_rsa(self) -> bool:
        """Whether it is Markovian RSA that is asked for. Raises ApiError where it is said in two ways."""
        is_proxied = bool(self.proxy_fields)
        if is_proxied and self.rsa is not None:
            name = next(iter(self.proxy_fields))
            raise ApiError(400, f"rsa and {name} say the same in two ways; give one", code="invalid_value", param=name)
        if is_proxied:
            return self.rsa_t is None or self.rsa_t > 0
        return self.rsa is not None and self.rsa is not False

    @property
    def thinks(self) -> bool:
        """Whether the answer begins with reasoning."""
        given = None if self.chat_template_kwargs is None else self.chat_template_kwargs.enable_thinking
        if given is None:
            return self.effort != "none"
        if given and self.effort == "none":
            raise ApiError(
                400, "reasoning_effort 'none' and enable_thinking contradict each other", param="reasoning_effort"
            )
        return given

    @property
    def effort(self) -> Effort | None:
        """Said in one of the ways there are; raises ApiError where they differ."""
        off: Effort = "none"
        said: dict[str, Effort | None] = {"reasoning_effort": self.reasoning_effort}
        if self.reasoning is not None:
            said["reasoning.effort"] = self.reasoning.effort
            said["reasoning.enabled"] = off if self.reasoning.enabled is False else None
        said["thinking"] = off if self.thinking is not None and self.thinking.type == "disabled" else None
        said["enable_thinking"] = off if self.enable_thinking is False else None
        given: dict[str, Effort] = {name: value for name, value in said.items() if value is not None}
        return _agreed(given)

    @property
    def think_budget(self) -> Count | None:
        said = {"thinking_token_budget": self.thinking_token_budget}
        if self.reasoning is not None:
            said["reasoning.max_tokens"] = self.reasoning.max_tokens
        if self.thinking is not None:
            said["thinking.budget_tokens"] = self.thinking.budget_tokens
        budget = _agreed({name: value for name, value in said.items() if value is not None})
        if budget is not None or self.effort is None:
            return budget
        return None if self.effort == "none" else THINK_BUDGETS[self.effort]

    @property
    def tells_reasoning(self) -> bool:
        return self.include_reasoning is not False and not (self.reasoning is not None and self.reasoning.exclude)

    @property
    def num_top_logprobs(self) -> int:
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs to be true", code="invalid_value", param="top_logprobs")
        return self.top_logprobs or 0

    @property
    def token_limit(self) -> int | None:
        given = {"max_tokens": self.max_tokens, "max_completion_tokens": self.max_completion_tokens}
        return _agreed({name: limit for name, limit in given.items() if limit is not None})


T = TypeVar("T")


def _agreed(said: Mapping[str, T]) -> T | None:
    """What these fields say. Raises ApiError where they say different things."""
    if len(set(said.values())) > 1:
        name = next(iter(said))
        raise ApiError(400, f"{', '.join(said)} say different things", code="invalid_value", param=name)
    return next(iter(said.values()), None)
