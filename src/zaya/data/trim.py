"""Answer-preserving trimming: a conversation that is too long loses reasoning, never a prompt and never an answer.

    it fits                                      -> kept
    the last reasoning is long enough            -> trimmed: its tail goes, exactly `context` tokens stay
    without the reasoning of earlier turns it is -> thinned: that goes, and of the last one's tail what is still over
    it is not                                    -> dropped

What is cut ends immediately before the closing tag as the template writes it: the newline that belongs to the tag stays
with it wherever it is a token of its own, so a trimmed conversation has the form of one whose reasoning was shorter.

Trimming is done on ids, from the whole conversation, once for each context. With a larger context every part keeps at
least what it kept with a smaller one, as long as both take the same branch. Across the border of trimmed and thinned
the total still grows, but not every part: just above it, earlier reasoning is back and the last one pays for it.

Source: report section on AP-trimming as in spec pretraining 6.2, post-training 2.4. Used by `data.prepare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from zaya.data.masks import last_assistant
from zaya.text import Rendered, Span, Tokenizer, tags
from zaya.text.spans import scan

Outcome = Literal["kept", "trimmed", "thinned", "dropped"]


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What became of one conversation."""

    rendered: Rendered | None
    """The conversation that fits; None where it was dropped."""
    outcome: Outcome
    removed: int
    """Tokens fewer than before."""


@dataclass(slots=True)
class TrimCounts:
    """What trimming did to a dataset."""

    kept: int = 0
    """Conversations that fit as they were."""
    trimmed: int = 0
    """Conversations that lost the tail of their last reasoning."""
    thinned: int = 0
    """Conversations that lost the reasoning of earlier turns, and perhaps the tail of the last."""
    dropped: int = 0
    """Conversations whose prompts and answers alone do not fit."""
    removed_tokens: int = 0
    """Tokens that trimmed and thinned conversations lost."""
    dropped_tokens: int = 0
    """Tokens of dropped conversations."""
    removed_histogram: dict[str, int] = field(default_factory=dict)
    """Trimmed and thinned conversations by tokens lost: up to 1, 2, 4, 8, ... and more than half of that."""

    def add(self, trimmed: Trimmed) -> None:
        """Count one conversation."""
        setattr(self, trimmed.outcome, getattr(self, trimmed.outcome) + 1)
        if trimmed.outcome == "dropped":
            self.dropped_tokens += trimmed.removed
        elif trimmed.removed:
            self.removed_tokens += trimmed.removed
            bucket = str(1 << (trimmed.removed - 1).bit_length())
            self.removed_histogram[bucket] = self.removed_histogram.get(bucket, 0) + 1


def trim(tokenizer: Tokenizer, rendered: Rendered, roles: Sequence[str], context: int, *, keep_min: int = 0) -> Trimmed:
    """Make a conversation fit into `context` tokens. `roles` are the roles of the messages it was rendered from.

    `keep_min` is the least number of tokens that the last reasoning keeps when it is cut; the report has none.
    """
    before = len(rendered.ids)
    if before <= context:
        return Trimmed(rendered, "kept", 0)
    if shorter := _cut_last_thinking(tokenizer, rendered, roles, before - context, keep_min):
        return Trimmed(shorter, "trimmed", before - context)
    thin = without_earlier_thinking(tokenizer, rendered, roles)
    over = len(thin.ids) - context
    fitting = thin if over <= 0 else _cut_last_thinking(tokenizer, thin, roles, over, keep_min)
    if fitting is None:
        return Trimmed(None, "dropped", before)
    return Trimmed(fitting, "thinned", before - len(fitting.ids))


def without_earlier_thinking(tokenizer: Tokenizer, rendered: Rendered, roles: Sequence[str]) -> Rendered:
    """The conversation with an empty pair of tags for the reasoning of every assistant's turn but the last.

    These are the ids that the published template gives for messages without that reasoning; the pair then belongs to
    the prompt and is not learned.
    """
    tag = tokenizer.tags
    empty = tokenizer.encode(f"{tags.THINK_OPEN}\n{tags.THINK_CLOSE}", bos=False)
    last = last_assistant(roles)
    ids = list(rendered.ids)
    spans = rendered.spans
    for i in reversed(range(len(spans))):
        if spans[i].kind != "thinking" or spans[i].message == last:
            continue
        # The opener is in the frame before, unless the assistant's own text left it to the prompt.
        header = spans[i - 1]
        opener = [at for at in range(header.start, header.stop) if ids[at] == tag.think_open]
        start = opener[-1] if opener else spans[i].start
        ids[start : _closing_tag(tokenizer, ids, spans[i]) + 1] = empty
    return _read(tokenizer, ids, roles)


def _cut_last_thinking(
    tokenizer: Tokenizer, rendered: Rendered, roles: Sequence[str], over: int, keep_min: int
) -> Rendered | None:
    """The conversation without the last `over` tokens of its last turn's reasoning; None where that has too few."""
    last = last_assistant(roles)
    ids = rendered.ids
    for span in rendered.spans:
        if span.kind == "thinking" and span.message == last:
            end = _closing_tag(tokenizer, ids, span)
            if end < span.stop and end > span.start and tokenizer.token_bytes(ids[end - 1]) == b"\n":
                end -= 1
            if end - over - span.start >= keep_min:
                return _read(tokenizer, ids[: end - over] + ids[end:], roles)
    return None


def _closing_tag(tokenizer: Tokenizer, ids: Sequence[int], thinking: Span) -> int:
    """Where the closing tag of a reasoning is; the end of the span where it was never closed."""
    places = range(thinking.start, thinking.stop)
    return next((at for at in places if ids[at] == tokenizer.tags.think_close), thinking.stop)


def _read(tokenizer: Tokenizer, ids: list[int], roles: Sequence[str]) -> Rendered:
    trainable, spans = scan(tokenizer, ids, list(roles))
    return Rendered(ids, trainable, spans)
