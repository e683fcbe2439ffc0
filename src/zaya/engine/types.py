"""The one way to ask for text: requests, completions, and who answers them.

    completer.complete([Request(...), ...])  ->  a list of completions for each request, in its order

Whatever drives generation (test-time compute, evaluation, reinforcement learning) is written against `Completer`, so
it runs over our engine, over a remote server, or over a scripted fake. Imports no torch: routes and log-probabilities
are numpy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from zaya.errors import UsageError

if TYPE_CHECKING:
    import numpy as np


class FinishReason(Enum):
    """Why a completion ended."""

    STOP = "stop"
    """The model drew a token that ends its turn."""
    LENGTH = "length"
    """The budget of tokens was used up; what was being said is cut."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How tokens are drawn, and how many."""

    max_tokens: int = 512
    """Tokens to draw at most, the one that ends the turn included."""
    temperature: float = 1.0
    """0 takes the likeliest token; 1 samples the model's own distribution."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together have this probability."""
    top_k: int | None = None
    """Keep this many of the likeliest tokens; none keeps all."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens must be at least 1: {self.max_tokens}")
        if self.temperature < 0:
            raise UsageError(f"temperature must not be negative: {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1: {self.top_p}")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k must be at least 1: {self.top_k}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One prompt, as ids or as messages, and how often to continue it."""

    prompt_ids: Sequence[int] | None = None
    """The prompt as ids, taken as they are."""
    messages: Sequence[Mapping[str, Any]] | None = None
    """The prompt as a conversation, rendered with thinking on."""
    params: SamplingParams = field(default_factory=SamplingParams)
    n: int = 1
    """Completions wanted, independent of each other."""
    seed: int = 0
    """Completion i of a request draws from a stream named by (seed, i): the same request gives the same text, whatever
    it is batched with and in whatever order requests come, up to rounding."""
    want_routes: bool = False
    """Return the experts that were chosen, for router replay."""

    def __post_init__(self) -> None:
        if (self.prompt_ids is None) == (self.messages is None):
            raise UsageError("a request has prompt_ids or messages, one of the two")
        if self.n < 1:
            raise UsageError(f"n must be at least 1: {self.n}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Completion:
    """One continuation of a prompt."""

    ids: tuple[int, ...]
    """What was drawn, the token that ended it included. Never encoded again from text."""
    text: str
    """The visible answer: what follows the reasoning, without the token that ended it."""
    reasoning: str
    """What was thought before it; empty where the prompt left no thinking open."""
    finish_reason: FinishReason
    prompt_ids: tuple[int, ...]
    """The prompt as it was read."""
    reasoning_ids: tuple[int, ...] = ()
    """The part of `ids` that is reasoning, without the closing tag."""
    is_closed: bool = True
    """Whether the reasoning was closed; where it was not there is no answer."""
    logprobs: np.ndarray | None = None
    """float32 [len(ids)]: log-probability of each id under the model's own distribution (temperature 1, untruncated);
    None from a completer that does not know it."""
    behavior_logprobs: np.ndarray | None = None
    """float32 [len(ids)]: under the distribution that was really sampled from."""
    weight_versions: tuple[int, ...] = ()
    """Which version of the weights drew each id; empty where nobody counts."""
    routes: np.ndarray | None = None
    """uint8 [len(prompt_ids) + len(ids) - 1, layers, k]: classes chosen for every token that was read. The last id is
    never read, so it has none."""
    cached_tokens: int = 0
    """Prompt tokens that were not computed for this completion because an earlier one had."""


OnProgress = Callable[[int, int], None]
"""Told how many completions are done, and how many there will be."""


class Completer(Protocol):
    """Who answers requests."""

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        """For each request its `n` completions, in order; without those that failed on the way, as a remote one may.

        Raises UsageError for a request that cannot be answered.
        """
        ...
