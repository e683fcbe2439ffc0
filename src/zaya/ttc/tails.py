"""What a rollout hands to the next round: the end of its reasoning, a bounded number of tokens.

    tail        the reasoning, its last tokens; of a rollout that was cut inside it, or has none, of all it drew
    tail_full   the same of reasoning and answer together
    hybrid      the answer where there is one, else the reasoning
    full        as tail; whoever asks for it has the number of tokens be that of a whole rollout

Lengths are counted on the ids that were drawn, never on characters and never on text encoded again; where a remote
server does not tell the ids, on the pieces that stand for them. Source: spec markovian-rsa 3.1 and 3.2. Used by
`ttc.rsa`.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from itertools import takewhile
from typing import Literal, TypeVar

from zaya.engine.types import Completion
from zaya.errors import UsageError
from zaya.text import Tokenizer, tags
from zaya.text.control import ControlTokens

Compaction = Literal["tail", "tail_full", "hybrid", "full"]

MARKER = "..."
"""Stands before a text whose beginning is missing."""

_CONTROL = ControlTokens({*tags.TAGS, tags.BOS, tags.EOS})
"""What a tail must not spell, where no tokenizer says it."""

T = TypeVar("T")


def carry(tokenizer: Tokenizer | None, completion: Completion, compaction: Compaction, tokens: int) -> str:
    """What a rollout hands on, at most that many tokens of it; empty where it drew no text.

    Without a tokenizer, and where ids are not what was drawn, pieces are counted. Raises UsageError where there are
    none.
    """
    pieces = completion.pieces
    if tokenizer is not None and (pieces is None or not completion.is_approximate):
        return tail(tokenizer, _part(completion, compaction, completion.ids, completion.reasoning_ids), tokens)
    if pieces is None:
        raise UsageError("a tail of ids needs a tokenizer", hint="give the one of the model")
    control = _CONTROL if tokenizer is None else tokenizer.control
    return tail_of_pieces(_part(completion, compaction, pieces, completion.reasoning_pieces), tokens, control)


def tail(tokenizer: Tokenizer, ids: Sequence[int], tokens: int) -> str:
    """The text of the last ids, the marker of a cut included in their number.

    Control tokens go, and so does text that spells one: in the next prompt it would be either noise or a frame. A
    character that the cut, or the budget of the rollout, went through goes as a whole.
    """
    kept = [tokenizer.token_bytes(id) for id in ids if id not in tokenizer.control_ids]
    return _text(kept, tokens, [tokenizer.token_bytes(id) for id in tokenizer.encode_plain(MARKER)], tokenizer.control)


def tail_of_pieces(pieces: Sequence[bytes], tokens: int, control: ControlTokens) -> str:
    """The same of tokens of which only the bytes are known. The marker counts as a token for each dot: no vocabulary
    needs more."""
    spellings = {spelling.encode() for spelling in control.spellings}
    kept = [piece for piece in pieces if piece not in spellings]
    return _text(kept, tokens, [b"."] * len(MARKER), control)


def _part(completion: Completion, compaction: Compaction, drawn: Sequence[T], reasoning: Sequence[T]) -> Sequence[T]:
    """What of the tokens drawn is handed on."""
    if compaction == "hybrid" and completion.is_closed and completion.text:
        return drawn[len(reasoning) :]  # with the closing tag, which goes like every other
    return reasoning if compaction != "tail_full" and reasoning else drawn


def _text(kept: Sequence[bytes], tokens: int, marker: Sequence[bytes], control: ControlTokens) -> str:
    """The text of the last tokens, behind a marker where there are more."""
    if len(kept) > tokens:
        if len(marker) >= tokens:
            marker = []
        kept = kept[len(kept) - tokens + len(marker) :]
        kept = [*marker, *kept[_torn(kept) :]]
    # what is not complete at the end is held back for ever
    text = getincrementaldecoder("utf-8")("replace").decode(b"".join(kept))
    while spelled := next(control.find(text), None):  # taking one out may put another together
        text = text[: spelled[0]] + text[spelled[1] :]
    return text.strip("\n")


def last_ids(tokenizer: Tokenizer, ids: Sequence[int], tokens: int) -> list[int]:
    """The last ids, that many at most, from where a character begins."""
    kept = list(ids[max(0, len(ids) - tokens) :])
    if len(kept) == len(ids):
        return kept
    return kept[_torn([tokenizer.token_bytes(id) for id in kept]) :]


def _torn(tokens: Sequence[bytes]) -> int:
    """How many at the beginning belong to a character that began before."""
    torn = sum(1 for _ in takewhile(_continues, tokens))
    return torn if torn <= 3 else 0  # more than three and it was no cut: the model itself draws such bytes


def _continues(token: bytes) -> bool:
    """Whether a token begins inside a character of UTF-8."""
    return token[:1] >= b"\x80" and token[:1] < b"\xc0"
