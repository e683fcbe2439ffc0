"""The records of one question on its way through the rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal


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
    is_approximate: bool = False
    """Whether a server did not tell its tokens, so that they, and the cut of its tail, are as good as its counts."""
    prompt_tokens: int
    cached_tokens: int = 0
    """Those of them that did not have to be computed."""
    generated_tokens: int
    """Tokens it wrote, with those that closed its reasoning by force."""
    tail: str = ""
    """What it hands on to the next round."""
    sources: tuple[int, ...] = ()
    """Workers of the round before whose tails it was shown, in the order of the prompt."""
    seconds: float = field(default=0.0, compare=False)
    """From being asked to its end; where many are asked in one call, those of the call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What one round did for one problem."""

    candidates: tuple[Candidate, ...]
    """By worker, those that failed left out."""
    requests: int
    """Rollouts that were asked for."""
    wall_s: float = field(compare=False)
    """Seconds from its first rollout to the end of its last one; rounds may overlap."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """Rollouts that failed for good, by the kind of failure."""

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

    @property
    def median_s(self) -> float:
        """Seconds of the rollout in the middle; against `longest_s` it says what waiting for the last one costs."""
        return median(candidate.seconds for candidate in self.candidates) if self.candidates else 0.0

    @property
    def longest_s(self) -> float:
        return max((candidate.seconds for candidate in self.candidates), default=0.0)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a whole solution."""

    prompt_tokens: int
    """Of all prompts, attempts shown in them included."""
    cached_tokens: int
    """Those of them that did not have to be computed."""
    generated_tokens: int
    """Written in all rounds: D(q) of the report."""


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
    selection: str = ""
    """How it was chosen."""
    tally: tuple[tuple[str, int], ...] = ()
    """Answers of the candidates that could be chosen and how many have each, the most frequent first; equivalent ones
    are one, in the words of the first."""
    chosen: Candidate | None = None
    """Who was chosen."""
    closing: Round | None = None
    """The call that weighed the last candidates, where the choice was made by one."""
    partial: bool = False
    """Whether it is of an earlier round than the last, or of a last one that is not complete."""
    stopped: str | None = None
    """Why it is partial, such as "deadline"."""

    @property
    def candidates(self) -> Sequence[Candidate]:
        """Those of the last round."""
        return self.rounds[-1].candidates if self.rounds else ()

    @property
    def usage(self) -> Usage:
        rounds = [*self.rounds, *([] if self.closing is None else [self.closing])]
        return Usage(
            sum(round.prompt_tokens for round in rounds),
            sum(round.cached_tokens for round in rounds),
            sum(round.generated_tokens for round in rounds),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something happened to a population at work. Whoever listens sees them in the order of time."""

    kind: Literal["start", "grow", "end", "retry", "lost", "round", "choice"]
    """A rollout was asked for, wrote something, ended, failed and is asked for again, or failed for good; a round is
    over; the answer was chosen."""
    at: float
    """Seconds since the beginning."""
    round: int
    """Of the rollout; the one behind the last round is the call that weighs its candidates."""
    worker: int = 0
    sources: tuple[int, ...] = ()
    """On "start": workers of the round before whose tails it reads."""
    tokens: int = 0
    """On "grow": written so far."""
    text: str = ""
    """On "grow": what was written since the last one, reasoning and answer. On "retry" and "lost": why."""
    is_answering: bool = False
    """On "grow": whether the reasoning is over."""
    candidate: Candidate | None = None
    """On "end"."""
    summary: Round | None = None
    """On "round"."""
    solution: Solution | None = None
    """On "choice"."""
