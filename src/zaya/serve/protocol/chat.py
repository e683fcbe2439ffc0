"""The body of /v1/chat/completions.

Messages are checked in `zaya.text.messages`, the one place that knows their shape; here only their keys are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from zaya.serve.errors import ApiError
from zaya.serve.protocol.base import MOST_INT, Body, Name, OneError
from zaya.serve.protocol.rsa import ProxyFields, RsaBody
from zaya.serve.protocol.sampling import Count, Sampling

MESSAGE_KEYS = frozenset({"role", "content", "name", "reasoning", "reasoning_content", "tool_calls", "tool_call_id"})
IGNORED_MESSAGE_KEYS = frozenset({
    "refusal", "annotations", "audio", "function_call", "id", "type", "status", "reasoning_details",
    "provider_specific_fields", "thinking_blocks", "cache_control",
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
    return {key: value for key, value in message.items() if key in MESSAGE_KEYS and value is not None}


Message = Annotated[dict[str, Any], AfterValidator(known_keys)]


class NamedFunction(Body):
    """A tool by its name."""

    name: Name


class NamedTool(Body):
    """The one tool that is to be called."""

    type: Literal["function"]
    function: NamedFunction


class TemplateKwargs(Body):
    """Variables of the chat template."""

    enable_thinking: bool | None = None
    truncate_history_thinking: bool | None = None


class ChatBody(Sampling, ProxyFields):
    """A conversation, and how to go on with it."""

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
            return self.reasoning_effort != "none"
        if given and self.reasoning_effort == "none":
            raise ApiError(
                400, "reasoning_effort 'none' and enable_thinking contradict each other", param="reasoning_effort"
            )
        return given

    @property
    def think_budget(self) -> Count | None:
        if self.thinking_token_budget is not None:
            return self.thinking_token_budget
        return None if self.reasoning_effort in (None, "none") else THINK_BUDGETS[self.reasoning_effort]

    @property
    def num_top_logprobs(self) -> int:
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs to be true", code="invalid_value", param="top_logprobs")
        return self.top_logprobs or 0

    @property
    def token_limit(self) -> int | None:
        given = {limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None}
        if len(given) > 1:
            raise ApiError(400, "max_tokens and max_completion_tokens say different things", param="max_tokens")
        return given.pop() if given else None
