"""From a client's conversation to the ids of a prompt. It is rendered once, here, and read as ids from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zaya.serve.errors import ApiError
from zaya.serve.protocol.chat import TemplateKwargs
from zaya.text import Tokenizer, render


def conversation_ids(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None,
    template: TemplateKwargs | None,
    thinks: bool,
    continues: bool,
    opens: bool | None,
) -> list[int]:
    """`continues`: the last message is an assistant's, and not over. `opens`: whether a turn of the assistant's begins
    behind the last message; by default it does. Raises ApiError, UsageError for a conversation that cannot be
    rendered."""
    if continues and (opens or not messages or messages[-1].get("role") != "assistant"):
        raise ApiError(
            400,
            "continue_final_message goes on with a last message of the assistant's, without a generation prompt",
            code="invalid_value",
            param="continue_final_message",
        )
    others = {} if template is None else template.model_dump(exclude={"enable_thinking"}, exclude_none=True)
    rendered = render(
        tokenizer,
        [in_our_roles(message) for message in messages],
        tools=tools,
        enable_thinking=thinks,
        add_generation_prompt=not continues and opens is not False,
        **others,
    )
    if not continues:
        return rendered.ids
    # up to the token that would end the turn
    assert tokenizer.tags.turn_close is not None, "a conversation was rendered, so its turns end"
    return rendered.ids[: len(rendered.ids) - 1 - rendered.ids[::-1].index(tokenizer.tags.turn_close)]


def in_our_roles(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """OpenAI renamed the system; ZAYA1 has not."""
    return {**message, "role": "system"} if message.get("role") == "developer" else message
