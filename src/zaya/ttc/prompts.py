"""The prompt that shows attempts at a problem and asks for a better one.

Short on purpose: the problem and the attempts should fill it, and a tiny model reads it too. The wording is ours; the
report says only what it asks for. Source: spec markovian-rsa 3.3. Used by `ttc.rsa` and by whoever makes training
examples of the kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zaya.errors import UsageError
from zaya.text import Tokenizer, render
from zaya.text.messages import normalize_messages

_OPENING = "Here is a problem, then several attempts at it, which may be cut off, wrong or in disagreement."
_OPENING_ONE = "Here is a problem, then an attempt at it, which may be cut off or wrong."
_CLOSING = "Weigh the attempts, keep what is right, start afresh if all are wrong, and give one complete solution."
_CLOSING_ONE = "Check the attempt, keep what is right, start afresh if it is wrong, and give one complete solution."

_HEADER = re.compile(r"^([^\S\n]*)Attempt(?= \d+:)", re.MULTILINE)


def aggregation_messages(messages: Sequence[Mapping[str, Any]], tails: Sequence[str]) -> list[dict[str, Any]]:
    """The conversation with its last question put anew, the attempts behind it; unchanged where there are none.

    System message and earlier turns stay as they are. The question is there word for word; a format it asks for in
    the last of several lines is asked for again at the end. Raises UsageError where the last message is not a user's.
    """
    conversation = normalize_messages(messages)
    if not conversation or conversation[-1]["role"] != "user":
        last = conversation[-1]["role"] if conversation else "nothing"
        raise UsageError(f"the last message must be a user's question: {last}")
    if not tails:
        return conversation
    question = conversation[-1]["content"]
    # put together, never formatted: questions and attempts are full of braces
    blocks = [f"Attempt {i}:\n" + _without_headers(tail) for i, tail in enumerate(tails, 1)]
    one = len(tails) == 1
    closing = _CLOSING_ONE if one else _CLOSING
    lines = question.strip().splitlines()
    if len(lines) > 1:
        closing += "\n" + lines[-1]
    content = "\n\n".join([_OPENING_ONE if one else _OPENING, question, *blocks, closing])
    return [*conversation[:-1], {**conversation[-1], "content": content}]


def fitted(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    shown: Callable[[int], Sequence[str]],
    tokens: int,
    *,
    longest: int,
    frame: int,
    limit: int,
) -> tuple[list[dict[str, Any]], int, int]:
    """(`aggregation_messages` of at most `limit` tokens, the tokens of a tail in it, its own).

    shown: the tails of at most that many tokens, which all are shortened alike, the question never. longest: tokens of
    the longest rollout. frame: tokens of the prompt without tails, `limit` at most.
    """
    while True:
        prompt = aggregation_messages(messages, shown(tokens))
        length = len(render(tokenizer, prompt).ids)
        if length <= limit or tokens == 0:
            return prompt, tokens, length
        # in proportion: tokens drawn and tokens of their text encoded again need not be equally many
        longest = min(tokens, longest)
        tokens = min(longest - 1, longest * (limit - frame) // (length - frame))


def _without_headers(tail: str) -> str:
    """The text with headers like ours in small letters, so that it opens no attempt of its own."""
    return _HEADER.sub(r"\1attempt", tail)
