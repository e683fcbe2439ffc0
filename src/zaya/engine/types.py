"""The one way to ask for text: requests, completions, and who answers them.

    completer.complete([Request(...), ...])  ->  a list of completions for each request, in its order
    completer.submit(Request(...))           ->  a handle: deltas as they come, the completions, a way to cancel

Whatever drives generation (test-time compute, evaluation, reinforcement learning, a server) is written against
`Completer`, so it runs over our engine, over a remote server, or over a scripted fake. Imports no torch: routes and
log-probabilities are numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Protocol

from zaya.errors import UsageError

if TYPE_CHECKING:
    import numpy as np


class FinishReason(Enum):
    """Why a completion ended."""

    STOP = "stop"
    """The model drew a token that ends its turn, or wrote one of the request's stop strings."""
    LENGTH = "length"
    """The budget of tokens was used up; what was being said is cut."""
    CANCELLED = "cancelled"
    """Whoever asked did not want more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """What an answer must look like; tokens that lead elsewhere are not drawn.

    Thinking is free: the structure holds for what follows it.
    """

    kind: Literal["json", "regex", "choice", "tools"]
    """"json": a JSON schema; "regex": a regular expression; "choice": one of several strings; "tools": free text, then
    calls of the declared tools in ZAYA's XML form."""
    value: Any
    """The schema as a mapping (an empty one allows any JSON value), the expression, the strings, or the tools as
    OpenAI declares them."""
    require_call: bool = False
    """With "tools": at least one call, and no text before it."""
    parallel_calls: bool = True
    """With "tools": whether more than one call may be written."""
    answer_schema: Mapping[str, Any] | None = None
    """With "tools": the JSON schema of an answer that calls nothing. It takes the place of free text: there is either
    this JSON or calls."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How tokens are drawn, and how many.

    The order in which the settings apply: barred ids, penalties, `logit_bias`, `structure` and `min_tokens`,
    temperature, `top_k`, `top_p`, `min_p`. Raises UsageError for values that mean nothing.
    """

    max_tokens: int = 512
    """Tokens to draw at most, the one that ends the turn included."""
    min_tokens: int = 0
    """No stop id is drawn, and no stop string ends the text, before this many tokens."""
    temperature: float = 1.0
    """0 takes the likeliest token; 1 samples the model's own distribution."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together have this probability."""
    top_k: int | None = None
    """Keep this many of the likeliest tokens; none keeps all."""
    min_p: float = 0.0
    """Keep tokens of at least this part of the likeliest token's probability."""
    repetition_penalty: float = 1.0
    """Logits of tokens that prompt or text hold are divided by it where positive, multiplied where negative."""
    presence_penalty: float = 0.0
    """Taken from the logit of every token that the text holds already."""
    frequency_penalty: float = 0.0
    """Taken from the logit of a token as often as the text holds it."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these ids."""
    stop: tuple[str, ...] = ()
    """Strings that end the text, wherever tokens cut them. They are not part of it; their ids stay in `ids`."""
    stop_ids: tuple[int, ...] = ()
    """Ids that end the text, beside those that end a turn."""
    ignore_eos: bool = False
    """Ids that end a turn do not end the text; they are drawn as others are."""
    top_logprobs: int = 0
    """Return this many of the likeliest ids for every token, with their log-probabilities."""
    think_budget: int | None = None
    """Reasoning of this many tokens is closed by force, and the answer follows; none leaves it to the model."""
    structure: Structure | None = None
    """What the answer must look like."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens must be at least 1: {self.max_tokens}")
        if self.min_tokens < 0 or self.min_tokens > self.max_tokens:
            raise UsageError(f"min_tokens must be from 0 to max_tokens: {self.min_tokens}, {self.max_tokens}")
        numbers = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
        for name in numbers:
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"{name} must be a finite number: {getattr(self, name)}")
        if self.temperature < 0:
            raise UsageError(f"temperature must not be negative: {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1: {self.top_p}")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k must be at least 1: {self.top_k}")
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min_p must be from 0 to 1: {self.min_p}")
        if self.repetition_penalty <= 0:
            raise UsageError(f"repetition_penalty must be above 0: {self.repetition_penalty}")
        if isinstance(self.stop, str) or not all(self.stop):
            raise UsageError(f"stop is a tuple of strings, none empty: {self.stop!r}")
        if any(math.isnan(bias) or bias == math.inf for bias in self.logit_bias.values()):
            raise UsageError(f"logit_bias holds numbers, or -inf to bar an id: {dict(self.logit_bias)}")
        if self.top_logprobs < 0:
            raise UsageError(f"top_logprobs must not be negative: {self.top_logprobs}")
        if self.think_budget is not None and self.think_budget < 0:
            raise UsageError(f"think_budget must not be negative: {self.think_budget}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One prompt, as ids or as messages, and how often to continue it."""

    prompt_ids: Sequence[int] | None = None
    """The prompt as ids, taken as they are."""
    messages: Sequence[Mapping[str, Any]] | None = None
    """The prompt as a conversation, rendered as `tools` and `thinking` say."""
    tools: Sequence[Mapping[str, Any]] | None = None
    """Tools that are offered with `messages`."""
    thinking: bool = True
    """Whether the turn that follows `messages` begins with reasoning."""
    params: SamplingParams = field(default_factory=SamplingParams)
    n: int = 1
    """Completions wanted, independent of each other."""
    seed: int = 0
    """Completion i of a request draws from a stream named by (seed, i): the same request gives the same text, whatever
    it is batched with and in whatever order requests come, up to rounding."""
    priority: int = 0
    """Larger comes first; requests of one priority come in their order."""
    cache_salt: str = ""
    """Prefixes are shared between requests of one salt only: nobody learns from timing what others have asked."""
    want_routes: bool = False
    """Return the experts that were chosen, for router replay."""

    def __post_init__(self) -> None:
        if (self.prompt_ids is None) == (self.messages is None):
            raise UsageError("a request has prompt_ids or messages, one of the two")
        if self.tools is not None and self.messages is None:
            raise UsageError("tools are rendered with messages; prompt_ids are taken as they are")
        if self.n < 1:
            raise UsageError(f"n must be at least 1: {self.n}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Completion:
    """One continuation of a prompt."""

    ids: tuple[int, ...]
    """What was drawn, the token that ended it included. Never encoded again from text."""
    text: str
    """The visible answer: what follows the reasoning, without the token or the stop string that ended it."""
    reasoning: str
    """What was thought before it; empty where the prompt left no thinking open."""
    finish_reason: FinishReason
    prompt_ids: tuple[int, ...]
    """The prompt as it was read."""
    stop_reason: int | str | None = None
    """The stop id or the stop string that ended it; None where it ended otherwise."""
    reasoning_ids: tuple[int, ...] = ()
    """The part of `ids` that is reasoning, without the closing tag."""
    is_closed: bool = True
    """Whether the reasoning was closed; where it was not there is no answer."""
    logprobs: np.ndarray | None = None
    """float32 [len(ids)]: log-probability of each id under the model's own distribution (temperature 1, untruncated);
    None from a completer that does not know it."""
    behavior_logprobs: np.ndarray | None = None
    """float32 [len(ids)]: under the distribution that was really sampled from; 0 for an id that was forced."""
    top_ids: np.ndarray | None = None
    """int32 [len(ids), top_logprobs]: the likeliest ids at each place, best first; None where none were asked for."""
    top_logprobs: np.ndarray | None = None
    """float32, shaped as `top_ids`: their log-probabilities under the model's own distribution."""
    weight_versions: tuple[int, ...] = ()
    """Which version of the weights drew each id; empty where nobody counts."""
    routes: np.ndarray | None = None
    """uint8 [len(prompt_ids) + len(ids) - 1, layers, k]: classes chosen for every token that was read. The last id is
    never read, so it has none."""
    cached_tokens: int = 0
    """Prompt tokens that were not computed for this completion because an earlier one had."""
    is_approximate: bool = False
    """Whether `ids` are not what was drawn: a server did not tell, so they are its text encoded again, or empty."""
    pieces: tuple[bytes, ...] | None = None
    """The bytes of each token drawn, for want of ids that can be read: as the server tells them, else its text cut
    evenly into as many as it counted. None where ids and a tokenizer say it."""
    reasoning_pieces: tuple[bytes, ...] = ()
    """The part of `pieces` that is reasoning."""
    counted_tokens: int | None = None
    """How many tokens were drawn, as a server counts; None where that is the number of `ids`."""
    counted_prompt_tokens: int | None = None
    """How many the prompt has, as a server counts; None where that is the number of `prompt_ids`."""

    @property
    def generated_tokens(self) -> int:
        """Tokens that were drawn, whether or not it is known which."""
        return len(self.ids) if self.counted_tokens is None else self.counted_tokens

    @property
    def prompt_tokens(self) -> int:
        """Tokens that were read, whether or not it is known which."""
        return len(self.prompt_ids) if self.counted_prompt_tokens is None else self.counted_prompt_tokens


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Delta:
    """What one completion of a request has got since the last delta."""

    index: int
    """Which of the request's completions."""
    ids: tuple[int, ...]
    text: str
    """Visible text that can no longer change: a character cut between tokens, or what may become a stop string, is
    held back until it is decided."""
    reasoning: str = ""
    """As `text`, of the reasoning."""
    logprobs: np.ndarray | None = None
    """float32 [len(ids)], as in `Completion`."""
    top_ids: np.ndarray | None = None
    """int32 [len(ids), top_logprobs], as in `Completion`."""
    top_logprobs: np.ndarray | None = None
    finish_reason: FinishReason | None = None
    """Set on the last delta of a completion."""
    stop_reason: int | str | None = None
    """As in `Completion`, on the last delta."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """How likely a model finds a given text: of its ids from the second on; nothing stands before the first."""

    logprobs: np.ndarray
    """float32 [len(ids) - 1]: log-probability of each id, as in `Completion`."""
    top_ids: np.ndarray
    """int32 [len(ids) - 1, top_logprobs]: the likeliest ids at each place, best first."""
    top_logprobs: np.ndarray
    """float32, shaped as `top_ids`."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine has done since it was made, and what it holds now."""

    passes: int
    """Forward passes; in deterministic mode, rounds of them."""
    tokens_read: int
    """Tokens that went through the model, drafts and repetitions included."""
    tokens_drawn: int
    prefix_hits: int
    """How often a sequence began with something that was in the prefix cache."""
    prefix_tokens: int
    """Tokens that were not read for that reason."""
    preemptions: int
    """How often a sequence lost its pages and had to read its text again."""
    drafts_proposed: int
    drafts_accepted: int
    running: int
    waiting: int
    pages_used: int
    """Pages that hold something, the prefix cache's included."""
    pages_free: int
    pages_reclaimable: int
    """Pages that are free, or that only the prefix cache holds."""
    snapshots: int
    """States that the prefix cache keeps."""


class Handle(Protocol):
    """A request under way. Iterate it for its deltas, or await its result; both may be done."""

    @property
    def drawn(self) -> int:
        """Tokens drawn so far, of all its completions."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether nothing more comes."""
        ...

    def completed(self) -> list[Completion]:
        """Its completions in order, once it is done, without those that failed. Raises what went wrong with all."""
        ...

    @property
    def first_at(self) -> float | None:
        """When the first of them was, by `time.monotonic`; None before that."""
        ...

    def __aiter__(self) -> AsyncIterator[Delta]: ...

    async def result(self) -> list[Completion]:
        """Its `n` completions, once all have ended. Raises what went wrong with this request."""
        ...

    def cancel(self) -> None:
        """End what is still running; it comes back as CANCELLED, with what there is."""
        ...


OnProgress = Callable[[int, int], None]
"""Told how many completions are done, and how many there will be."""


class Completer(Protocol):
    """Who answers requests."""

    @property
    def context(self) -> int | None:
        """Tokens of a sequence at most, prompt and answer together; None where that is not known."""
        ...

    def submit(self, request: Request) -> Handle:
        """Start on a request. Raises UsageError for one that cannot be answered."""
        ...

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        """For each request its `n` completions, in order; without those that failed on the way, as a remote one may.

        Raises UsageError for a request that cannot be answered.
        """
        ...
