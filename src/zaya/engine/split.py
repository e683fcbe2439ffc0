"""Where sampled ids become reasoning and answer. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from zaya.text import Tokenizer, opens_thinking


def split(
    tokenizer: Tokenizer, prompt_ids: Sequence[int], ids: Sequence[int]
) -> tuple[tuple[int, ...], bool, str, str]:
    """(reasoning_ids, is_closed, reasoning, answer) of what was sampled after a prompt.

    A prompt that leaves no thinking open has no reasoning, and counts as closed.
    """
    body, close = tuple(ids), tokenizer.tags.think_close
    while body and body[-1] in (tokenizer.eos_id, tokenizer.tags.turn_close):
        body = body[:-1]
    at = -1
    if opens_thinking(tokenizer, prompt_ids):
        at = body.index(close) if close in body else len(body)
    reasoning, answer = body[: max(at, 0)], body[at + 1 :]
    return reasoning, at < len(body), tokenizer.decode(reasoning), tokenizer.decode(answer).lstrip("\n")
