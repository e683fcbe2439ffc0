"""What a task is: problems made from a seed, and answers scored by rule.

    environment.sample(seed, difficulty)  ->  Problem       prompt, and all that scoring it needs
    environment.score(problem, text)      ->  Score         text is the visible answer, after the reasoning

Both are pure: the same arguments give the same result in every process, today and in a year (`version` changes when
that would not hold). A problem is plain data, so it can be written down, sent to another process and scored there.
Source: spec post-training 8.1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol, runtime_checkable

from zaya.errors import UsageError


@dataclass(frozen=True, slots=True)
class Problem:
    """One item of a task."""

    env: str
    """Name of the environment that made it and scores it."""
    prompt: str
    """The question, with the instruction how to give the answer."""
    meta: Mapping[str, Any]
    """What the scorer needs, JSON. Beside it `tools`, which are offered with the prompt, and `messages`, a conversation
    that ends with it, where there are such."""
    difficulty: int
    """The level it was made at; 0 is the easiest."""
    seed: int
    """What it was made from."""
    version: int = 1
    """Version of the environment that made it; another one does not score it."""

    @property
    def digest(self) -> str:
        """A hash of the content, the question as it is asked: equal content is one item, whatever seed it came from."""
        asked = self.prompt
        if beside := {name: self.meta[name] for name in ("messages", "tools") if name in self.meta}:
            asked += f"\n{json.dumps(beside, sort_keys=True)}"
        return hashlib.blake2b(asked.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def to_json(self) -> str:
        return json.dumps(
            {
                "env": self.env,
                "prompt": self.prompt,
                "meta": self.meta,
                "difficulty": self.difficulty,
                "seed": self.seed,
                "version": self.version,
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Problem:
        return cls(**json.loads(text))


class Status(Enum):
    """What a score stands on."""

    OK = "ok"
    """There was an answer, and it was judged."""
    BAD_FORMAT = "bad_format"
    """No answer could be found in the text. Scores 0."""
    ANSWER_LIMIT = "answer_limit"
    """Judging the answer took more time or memory than is allowed. Scores 0."""
    INFRA = "infra"
    """The scorer itself failed. Not a score: the rollout is taken out and counted."""


@dataclass(frozen=True, slots=True)
class Score:
    """What an answer is worth."""

    reward: float
    """In [0, 1]."""
    correct: bool
    status: Status = Status.OK
    answer: str | None = None
    """The answer that was found in the text, as it was read."""
    detail: str = ""
    """What went wrong, for people."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One way to solve a problem, in writing: what a model can learn from before it can try by itself."""

    reasoning: str
    answer: str
    """The visible answer, with the box around it."""
    result: str
    """What is in the box."""


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a task before it makes a problem."""

    category: str
    """What kind of task it is, in a word or two, such as `graphs` or `code`."""
    license: str
    """Of what makes its problems: an SPDX identifier."""
    lowest: int = 0
    """The easiest difficulty that is offered."""
    highest: int | None = None
    """The hardest; None where there is no end."""
    choices: int | None = None
    """How many answers there can be at all, where one has to be chosen: 2 for who wins. A guess is right that often."""
    frame: str = "\\boxed{%s}"
    """What an answer stands in, where `%s` is the answer; `%s` alone where the whole text is."""

    def framed(self, answer: str) -> str:
        """A text that gives an answer."""
        return self.frame.replace("%s", answer)


class Environment(Protocol):
    """One task."""

    name: str
    """What `registry.get` finds it by, such as `arithmetic` or `rlve/Sorting`."""
    version: int
    """Changes when a seed means another problem, or an answer another score."""
    about: About
    """What kind of task it is."""

    def sample(self, seed: int, difficulty: int) -> Problem | None:
        """The problem of a seed. None where there is none, which happens and is no error."""
        ...

    def score(self, problem: Problem, text: str) -> Score:
        """The score of a visible answer. Never raises."""
        ...

    def reference(self, problem: Problem) -> str | None:
        """An answer that is right, without what it stands in; None where none is known."""
        ...


@runtime_checkable
class LooselyRead(Protocol):
    """What an environment may know besides: a second reading of answers, for reports. Rewards are by the first."""

    def is_loosely_right(self, problem: Problem, text: str) -> bool:
        """Whether the answer is right when its wrapping is forgiven. What is right is so loosely. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Stream:
    """Which items a consumer takes: a stream of seeds by name, and the split it may see.

    Held out is an item whose content hash says so, never one whose seed does: an item met twice is on one side.
    """

    name: str
    """Such as `rl` or `eval`: two names, two streams."""
    split: Literal["train", "held_out"] = "train"
    """Which side of the split."""
    held_out: float = 0.1
    """Part of all items that is held out. Two streams are disjoint only where they agree on it."""

    def __post_init__(self) -> None:
        if self.split not in ("train", "held_out"):
            raise UsageError(f"a stream has no split {self.split!r}", hint="it is train or held_out")
        if not 0 <= self.held_out < 1:
            raise UsageError(f"held_out must be at least 0 and below 1: {self.held_out}")
        if self.split == "held_out" and self.held_out == 0:
            raise UsageError("nothing is held out: held_out is 0", hint="0.1 holds out a tenth of all items")
