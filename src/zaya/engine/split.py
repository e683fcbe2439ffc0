"""The one place where sampled ids become reasoning and answer.

It is done once, on ids, at the first closing tag. Doing it again on text is a trap: an answer that speaks of the tag
would be cut a second time, and come out empty. Used by every completer. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from zaya.text import Tokenizer, opens_thinking, tags


def split(
    tokenizer: Tokenizer, prompt_ids: Sequence[int], ids: Sequence[int]
) -> tuple[tuple[int, ...], bool, str, str]:
    """(reasoning_ids, is_closed, reasoning, answer) of what was sampled after a prompt.

    A prompt that leaves no thinking open has no reasoning, and counts as closed. Texts hold no thinking tags and no
    frames; newlines around the reasoning and before the answer belong to the form. Tags of tool calls stay: the
    answer is what a `Parser` reads.
    """
    reasoning, is_closed, answer = split_ids(tokenizer, prompt_ids, ids)
    return (
        reasoning,
        is_closed,
        _text(tokenizer, reasoning).strip("\n"),
        _text(tokenizer, answer).lstrip("\n"),
    )


def split_ids(
    tokenizer: Tokenizer, prompt_ids: Sequence[int], ids: Sequence[int]
) -> tuple[tuple[int, ...], bool, tuple[int, ...]]:
    """(reasoning_ids, is_closed, answer_ids) of what was sampled after a prompt, without what ends the turn."""
    close = tokenizer.tags.think_close
    body, stops = tuple(ids), stop_ids(tokenizer)
    while body and body[-1] in stops:
        body = body[:-1]
    if not opens_thinking(tokenizer, prompt_ids):
        return (), True, body
    at = body.index(close) if close in body else len(body)
    return body[:at], at < len(body), body[at + 1 :]


def stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that end an assistant's turn."""
    ids = (tokenizer.tags.turn_close, tokenizer.eos_id, tokenizer.id_of(tags.EOS))
    return frozenset(id for id in ids if id is not None)


def call_tags(tokenizer: Tokenizer) -> frozenset[int]:
    """The control tokens that are text: the tags of tool calls."""
    named = tokenizer.tags
    ids = (named.call_open, named.call_close, named.response_open, named.response_close)
    return frozenset(id for id in ids if id is not None)


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    calls = call_tags(tokenizer)
    return tokenizer.decode(id for id in ids if id in calls or id not in tokenizer.control_ids)
