"""One completion under way: what was drawn, what that means for the next draw, and whether it is over.

    state = sampler.start(prompt_ids, params, seed=3, index=0)
    while state.finish_reason is None:
        (drawn,) = sampler.sample(logits of its last token, [state])
        state.push(drawn.id)
        reasoning, answer = state.take()

Made by `engine.sampler.Sampler.start`, read by its `sample`, pushed on by whoever calls that. It knows nothing of
caches, slots or passes: a completion that loses its place and comes back later is the same state. Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from zaya.engine.stops import TextStream
from zaya.engine.thinking import Thinking
from zaya.engine.types import FinishReason, SamplingParams
from zaya.text import Tokenizer, opens_thinking


class Constraint(Protocol):
    """What an answer must look like, token by token."""

    def mask(self) -> np.ndarray | None:
        """bool [vocab]: the ids that may come next, stop ids included where the answer may end; None for all ids."""
        ...

    def push(self, id: int) -> None:
        """An id was drawn; never one that ends the completion."""
        ...

    def is_complete(self) -> bool:
        """Whether nothing but the end may follow."""
        ...


class SequenceState:
    """One completion under way."""

    def __init__(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        point: Callable[[int], float],
        stop_ids: frozenset[int],
        tokenizer: Tokenizer | None,
        thinking: Thinking | None,
        constraint: Constraint | None,
    ) -> None:
        self.prompt_ids = prompt_ids
        self.params = params
        self.ids: list[int] = []
        """What was drawn."""
        self.finish_reason: FinishReason | None = None
        """Why it is over, None while it is not. Whoever cancels it writes CANCELLED here."""
        self.stop_reason: int | str | None = None
        """The stop id or the stop string that ended it."""
        self.point = point
        """Where on the cumulative distribution the token at a position, prompt included, is drawn."""
        self.stop_ids = stop_ids
        """Ids that end it."""
        self.thinking = thinking
        """Followed where there is a budget, or a constraint that waits for the answer."""
        self.constraint = constraint
        self.seen: Counter[int] | None = None
        """How often the text holds an id, those that only the prompt holds at 0; None where nothing is penalized."""
        penalizes_text = params.presence_penalty != 0 or params.frequency_penalty != 0
        if params.repetition_penalty != 1:
            self.seen = Counter(dict.fromkeys(prompt_ids, 0))
        elif penalizes_text:
            self.seen = Counter()
        self.is_plain = (
            params.temperature == 1 and params.top_k is None and params.top_p == 1 and params.min_p == 0
            and self.seen is None and not params.logit_bias and params.min_tokens == 0 and params.top_logprobs == 0
            and thinking is None and constraint is None
        )  # fmt: skip
        """Whether it draws from the model's own distribution, and wants nothing else."""
        self._tokenizer = tokenizer
        self._text: TextStream | None = None
        self._num_read = 0
        if params.stop:
            self._read()

    @property
    def is_constrained(self) -> bool:
        """Whether the constraint speaks of the next token: reasoning, and what closes it by force, is free."""
        return self.constraint is not None and (self.thinking is None or self.thinking.is_over)

    def push(self, id: int) -> None:
        """Take in the token that was drawn."""
        assert self.finish_reason is None
        is_forced = self.thinking is not None and self.thinking.due is not None
        is_constrained = self.is_constrained
        self.ids.append(id)
        if self.thinking is not None:
            self.thinking.push(id)
        if self.seen is not None:
            self.seen[id] += 1
        # What is forced is not the model's word, so it ends nothing.
        if id in self.stop_ids and not is_forced:
            self.finish_reason, self.stop_reason = FinishReason.STOP, id
            return
        if is_constrained:
            assert self.constraint is not None
            self.constraint.push(id)
        if self.params.stop:
            self._read(may_stop=not is_forced and len(self.ids) >= self.params.min_tokens)
        if self.finish_reason is None and len(self.ids) == self.params.max_tokens:
            self.finish_reason = FinishReason.LENGTH

    def take(self) -> tuple[str, str]:
        """Reasoning and answer that were decided since the last call; all that is left once it is over."""
        text = self._read()
        return ("", "") if text is None else text.take()

    def texts(self) -> tuple[str, str]:
        """All reasoning and answer that is decided, up to the stop string or the stop id. Empty without a tokenizer."""
        text = self._read()
        return ("", "") if text is None else (text.reasoning, text.answer)

    def _read(self, *, may_stop: bool = False) -> TextStream | None:
        """The text of all ids. Without stop strings nobody needs it at every token, so it is read when it is wanted."""
        if self._tokenizer is None:
            return None
        if self._text is None:
            in_thinking = opens_thinking(self._tokenizer, self.prompt_ids)
            self._text = TextStream(self._tokenizer, in_thinking=in_thinking, stop=self.params.stop)
        is_ended_by_id = isinstance(self.stop_reason, int)
        ids = self.ids[self._num_read : len(self.ids) - is_ended_by_id]
        if not self.params.stop:
            self._text.push_all(ids)
            ids = []
        for id in ids:
            stop = self._text.push(id, may_stop=may_stop)
            if stop is not None:
                self.finish_reason, self.stop_reason = FinishReason.STOP, stop
        self._num_read = len(self.ids)
        if self.finish_reason is not None:
            self._text.finish()
        return self._text
