"""One completion as its client has heard it, also where it is drawn a second time because its replica died.

Draws are a function of (seed, index, position), so a second replica draws the same ids, up to rounding. What its client
knows already is skipped, and the stream goes on where it was. Where the ids differ, the stream cannot go on: what was
said cannot be taken back. Used by `serve.fleet`. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from zaya.engine.types import Delta


class Differs(Exception):
    """A second run drew other ids than those that a client has."""


@dataclass(slots=True, eq=False)
class Track:
    """What was told of one completion, and how far the present run is."""

    ids: list[int] = field(default_factory=list)
    """Told, and not taken back."""
    text: int = 0
    """Characters told. Which they are follows from the ids, so it is enough to count them."""
    reasoning: int = 0
    is_over: bool = False
    """Its last delta was told."""
    counted: int = 0
    """Ids that were told ever, those taken back included."""
    _at: int = 0
    _text_at: int = 0
    _reasoning_at: int = 0

    def begin_again(self, *, taken_back: bool) -> None:
        """Another run begins. `taken_back`: nobody has seen anything of what was told, and it is told anew."""
        if taken_back:
            self.ids.clear()
            self.text, self.reasoning, self.is_over = 0, 0, False
        self._at, self._text_at, self._reasoning_at = 0, 0, 0

    def new(self, delta: Delta) -> tuple[Delta | None, int]:
        """What of a delta is to be told, and how many of its ids were counted before. Raises Differs."""
        begun, self._at = self._at, self._at + len(delta.ids)
        told = self.ids[begun : self._at]
        if tuple(told) != delta.ids[: len(told)] or (delta.finish_reason is not None and self._at < len(self.ids)):
            raise Differs
        text = delta.text[max(self.text - self._text_at, 0) :]
        reasoning = delta.reasoning[max(self.reasoning - self._reasoning_at, 0) :]
        self._text_at += len(delta.text)
        self._reasoning_at += len(delta.reasoning)
        if self._at < len(self.ids) or self.is_over:
            return None, 0
        self.ids.extend(delta.ids[len(told) :])
        self.text, self.reasoning = max(self.text, self._text_at), max(self.reasoning, self._reasoning_at)
        self.is_over = delta.finish_reason is not None
        again = max(min(self.counted, self._at) - (begun + len(told)), 0)
        self.counted = max(self.counted, self._at)
        if not (len(told) < len(delta.ids) or text or reasoning or self.is_over):
            return None, 0
        return _cut(delta, len(told), text, reasoning), again


def _cut(delta: Delta, skip: int, text: str, reasoning: str) -> Delta:
    if skip == 0:
        if len(text) == len(delta.text) and len(reasoning) == len(delta.reasoning):
            return delta  # as nearly all are
        return replace(delta, text=text, reasoning=reasoning)
    return replace(
        delta,
        ids=delta.ids[skip:],
        text=text,
        reasoning=reasoning,
        logprobs=None if delta.logprobs is None else delta.logprobs[skip:],
        top_ids=None if delta.top_ids is None else delta.top_ids[skip:],
        top_logprobs=None if delta.top_logprobs is None else delta.top_logprobs[skip:],
    )
