"""What a scorer may see of a completion from elsewhere: the answer, without the reasoning before it.

Others hand over raw text, or messages of a chat. Reasoning that was cut off before its end holds no answer, even where
it holds a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zaya.text import parse

Completion = str | Sequence[Mapping[str, Any]]
"""Text, or the messages of an assistant and whoever spoke in between."""


def visible(completion: Completion, *, in_thinking: bool) -> str:
    """The answer of a completion; of a chat, of its last assistant message.

    `in_thinking`: the prompt ended inside `<think>`, as templates of reasoning models leave it. Without it, only
    reasoning with both its tags is seen as such. A message that brings its reasoning along has none in its text; an
    empty one is no such thing, as it may stand there for reasoning that was never closed, and so never found.
    """
    if isinstance(completion, str):
        text = completion
    else:
        message = next((m for m in reversed(completion) if m.get("role") == "assistant"), {})
        text = _text(message.get("content"))
        if message.get("reasoning_content") or message.get("reasoning"):
            in_thinking = False
    return parse(text, in_thinking=in_thinking).content


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):  # parts, of which pictures and the like say nothing to us
        return "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return ""
