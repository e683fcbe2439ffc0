"""What a rollout hands to the next round: the end of its reasoning, a bounded number of tokens.

    tail        the reasoning, its last tokens; of a rollout that was cut inside it, or has none, of all it drew
    tail_full   the same of reasoning and answer together
    hybrid      the answer where there is one, else the reasoning
    full        as tail; whoever asks for it has the number of tokens be that of a whole rollout

Lengths are counted on the ids that were drawn, never on characters and never on text encoded again. Source: spec
markovian-rsa 3.1 and 3.2. Used by `ttc.rsa`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Literal

from zaya.engine.types import Completion
from zaya.text import Decoder, Tokenizer

Compaction = Literal["tail", "tail_full", "hybrid", "full"]

MARKER = "..."
"""Stands before a text whose beginning is missing."""


def carry(tokenizer: Tokenizer, completion: Completion, compaction: Compaction, tokens: int) -> str:
    """What a rollout hands on, at most that many tokens of it; empty where it drew no text."""
    ids, reasoning = completion.ids, completion.reasoning_ids
    if compaction == "hybrid" and completion.is_closed and completion.text:
        ids = ids[len(reasoning) :]  # with the closing tag, which goes like every other
    elif compaction != "tail_full" and reasoning:
        ids = reasoning
    return tail(tokenizer, ids, tokens)


def tail(tokenizer: Tokenizer, ids: Sequence[int], tokens: int) -> str:
    """The text of the last ids, the marker of a cut included in their number.

    Control tokens go, and so does text that spells one: in the next prompt it would be either noise or a frame. A
    character that the cut, or the budget of the rollout, went through goes as a whole.
    """
    kept = [id for id in ids if id not in tokenizer.control_ids]
    if len(kept) > tokens:
        marker = tokenizer.encode_plain(MARKER)
        if len(marker) >= tokens:
            marker = []
        kept = [*marker, *last_ids(tokenizer, kept, tokens - len(marker))]
    text = Decoder(tokenizer).feed(kept)
    while spelled := next(tokenizer.control.find(text), None):  # taking one out may put another together
        text = text[: spelled[0]] + text[spelled[1] :]
    return text.strip("\n")


def last_ids(tokenizer: Tokenizer, ids: Sequence[int], tokens: int) -> list[int]:
    """The last ids, that many at most, from where a character begins."""
    kept = list(ids[max(0, len(ids) - tokens) :])
    if len(kept) == len(ids):
        return kept
    torn = sum(1 for _ in takewhile(lambda id: _continues(tokenizer.token_bytes(id)), kept))
    # more than three and it was no cut: the model itself draws such bytes
    return kept[torn if torn <= 3 else 0 :]


def _continues(token: bytes) -> bool:
    """Whether a token begins inside a character of UTF-8."""
    return token[:1] >= b"\x80" and token[:1] < b"\xc0"
