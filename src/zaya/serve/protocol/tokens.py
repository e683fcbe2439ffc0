"""The bodies of /tokenize and /detokenize."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from zaya.serve.errors import ApiError
from zaya.serve.protocol.base import Name, NoOps, OneError
from zaya.serve.protocol.chat import Message, TemplateKwargs
from zaya.serve.protocol.sampling import Id


class TokenizeBody(NoOps):
    """A text, or a conversation."""

    model: Name | None = None
    prompt: str | None = None
    add_special_tokens: bool | None = None
    messages: Annotated[list[Message], OneError] | None = None
    tools: list[dict[str, Any]] | None = Field(default=None, max_length=256)
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: TemplateKwargs | None = None
    return_token_strs: bool | None = None

    def check(self) -> None:
        """Raises ApiError where it is both, or neither."""
        if (self.prompt is None) == (self.messages is None):
            raise ApiError(400, "give prompt or messages, one of the two", code="invalid_value", param="prompt")


class DetokenizeBody(NoOps):
    """Ids."""

    model: Name | None = None
    tokens: Annotated[list[Id], OneError]
