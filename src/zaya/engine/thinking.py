"""Where a completion stands in its reasoning, and the tokens that close it when its budget is used up.

The closing is what the chat template writes itself, newlines included, so the answer begins as after any reasoning.
Advanced token by token by engine.state; asked by engine.sampler, which draws what is due instead of what is likely.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from zaya.text import Tokenizer, opens_thinking, tags


@dataclass(slots=True)
class Thinking:
    """The reasoning of one completion under way."""

    open_id: int
    close_id: int
    closing: tuple[int, ...]
    """What closes reasoning by force, one token a step."""
    budget: int | None
    """Reasoning tokens that may be drawn, over all of the completion's reasoning; None for any number."""
    is_open: bool
    """Whether the next token is reasoning."""
    used: int = 0
    """Reasoning tokens that were drawn; those of the prompt, and the tags, do not count."""
    forced: int = 0
    """How much of `closing` has been drawn; 0 when nothing is being forced."""

    @classmethod
    def after(cls, tokenizer: Tokenizer, prompt_ids: Sequence[int], budget: int | None) -> Thinking | None:
        """As it stands behind a prompt. None for a tokenizer without thinking tags."""
        open_id, close_id = tokenizer.tags.think_open, tokenizer.tags.think_close
        if open_id is None or close_id is None:
            return None
        closing = tuple(tokenizer.encode(f"\n{tags.THINK_CLOSE}\n\n", bos=False))
        return cls(open_id, close_id, closing, budget, opens_thinking(tokenizer, prompt_ids))

    @property
    def due(self) -> int | None:
        """The token that must come next, where one must."""
        is_used_up = self.is_open and self.budget is not None and self.used >= self.budget
        return self.closing[self.forced] if self.forced or is_used_up else None

    @property
    def is_over(self) -> bool:
        """Whether what comes next is the answer's, and the model's own."""
        return not self.is_open and not self.forced

    def push(self, id: int) -> None:
        if self.due is not None:
            self.forced = (self.forced + 1) % len(self.closing)
        if id == self.close_id:
            self.is_open = False
        elif not self.is_open:
            self.is_open = id == self.open_id
        else:
            self.used += 1

    def ahead(self, draft: Sequence[int]) -> Thinking:
        """As it would stand with these tokens drawn as well."""
        if not draft:
            return self
        thinking = replace(self)
        for id in draft:
            thinking.push(id)
        return thinking
