"""The records of one question on its way through the rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One rollout, as far as it matters to the next round or to the choice at the end."""

    worker: int
    """Its place in the round."""
    text: str
    """The visible answer; empty where the reasoning was cut."""
    reasoning: str
    answer: str | None
    """What was extracted from the text; None where there is nothing to extract."""
    is_finished: bool
    """Whether the model ended it, not the budget."""
    is_forced: bool = False
    """Whether its reasoning was cut and closed for it."""
    prompt_tokens: int
    """Of every prompt it took: a rollout that was continued has two."""
    cached_tokens: int = 0
    """Those of them that did not have to be computed."""
    generated_tokens: int
    """Tokens it drew. What was appended to close its reasoning is not among them."""
    tail: str = ""
    """What it hands on to the next round."""
    sources: tuple[int, ...] = ()
    """Workers of the round before whose tails it was shown, in the order of the prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What one round did for one problem."""

    candidates: tuple[Candidate, ...]
    """By worker, those that failed left out."""
    requests: int
    """Rollouts that were asked for."""
    wall_s: float
    """Seconds the round took; where several problems are solved together, all of them."""

    @property
    def finished(self) -> int:
        """Rollouts that the model ended."""
        return sum(candidate.is_finished for candidate in self.candidates)

    @property
    def truncated(self) -> int:
        """Rollouts that the budget ended."""
        return len(self.candidates) - self.finished

    @property
    def prompt_tokens(self) -> int:
        return sum(candidate.prompt_tokens for candidate in self.candidates)

    @property
    def cached_tokens(self) -> int:
        return sum(candidate.cached_tokens for candidate in self.candidates)

    @property
    def generated_tokens(self) -> int:
        return sum(candidate.generated_tokens for candidate in self.candidates)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a whole solution."""

    prompt_tokens: int
    """Of all prompts, attempts shown in them included."""
    cached_tokens: int
    """Those of them that did not have to be computed."""
    generated_tokens: int
    """Drawn in all rounds: D(q) of the report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """What became of one question."""

    answer: str | None
    """What was extracted from the chosen text."""
    text: str
    """The visible answer of the candidate that was chosen; empty where there is none to choose."""
    reasoning: str = ""
    """What that candidate thought before it."""
    rounds: tuple[Round, ...]
    """Every round with its candidates; `rounds` of the configuration and one more."""
    partial: bool = False
    """Whether a round left nothing to go on with, so that the last of these is not the final one."""

    @property
    def candidates(self) -> Sequence[Candidate]:
        """Those of the last round."""
        return self.rounds[-1].candidates if self.rounds else ()

    @property
    def usage(self) -> Usage:
        return Usage(
            sum(round.prompt_tokens for round in self.rounds),
            sum(round.cached_tokens for round in self.rounds),
            sum(round.generated_tokens for round in self.rounds),
        )
