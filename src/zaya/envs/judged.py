"""Environments whose problems a package makes and whose answers judges of ours decide on.

    draw(level, seed)      ->  an item: question, answer, metadata; None where there is none
    task.judge(meta, text) ->  whether the text in the box is right

Here is what they have in common: an item is taken only if its own answer is right to the judge, answers that come up
too often are thinned, and scoring needs nothing but the problem, so that the package sees no answer. It is the ground
of `envs.reasoning_gym` and `envs.reasoning_core`. Both packages draw from the global generators, so problems are made
in the workers of `envs.pool` only.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zaya.core.rng import derive_seed
from zaya.envs.answers import INSTRUCTION, NO_ANSWER, boxed
from zaya.envs.base import About, Problem, Score
from zaya.envs.judges import JUDGES, LONGEST, bare
from zaya.envs.pool import is_worker
from zaya.errors import UsageError

LONGEST_PROMPT = 6000
"""Characters. A longer prompt counts as no problem."""
_MOST_DRAWS = 24
"""Items looked at for one that is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What a package made."""

    question: str
    answer: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a package does not say about one of its tasks."""

    category: str
    judge: str
    """Who says whether an answer is right, in `envs.judges`."""
    lowest: int = 0
    """The easiest level that is offered: below it, one answer is right too often."""
    highest: int = 0
    """The hardest level."""
    facts: tuple[str, ...] = ()
    """What of an item's metadata its judge needs."""
    tolerance: float = 0
    """For judges that allow for rounding."""
    keep: Mapping[str, float] = field(default_factory=dict)
    """Answers that come up too often, and the share of their problems that is kept."""
    copies: float = 1.0
    """The share that is kept of problems whose answer stands in the question."""
    choices: int | None = None
    license: str = "Apache-2.0"


class JudgedEnvironment:
    """One task. Its meta: `answer`, the reference, and what the judge has to know beside it."""

    version = 1

    def __init__(self, name: str, task: Task, draw: Callable[[int, int], Item | None]) -> None:
        self.name = name
        self.about = About(task.category, task.license, task.lowest, task.highest, task.choices)
        self._task = task
        self._draw = draw
        self._judge = JUDGES[task.judge]

    def sample(self, seed: int, difficulty: int) -> Problem | None:
        if not is_worker():
            raise UsageError(
                f"{self.name} makes problems in worker processes only: it seeds the global generators of its process",
                hint="use zaya.envs.pool.TaskPool",
            )
        if not self._task.lowest <= difficulty <= self._task.highest:
            return None
        rng = random.Random(derive_seed(self.name, self.version, seed, difficulty))
        for _ in range(_MOST_DRAWS):
            # 31 bits: numpy takes 32, and some tasks add to their seed
            item, luck = self._draw(difficulty, rng.getrandbits(31)), rng.random()
            if item is None:
                continue
            prompt, meta = f"{item.question.strip()}\n{INSTRUCTION}", self._meta(item)
            if len(prompt) <= LONGEST_PROMPT and luck < self._share(prompt, meta["answer"]) and self._is_right(meta):
                return Problem(self.name, prompt, meta, difficulty, seed, self.version)
        return None

    def score(self, problem: Problem, text: str) -> Score:
        found = boxed(text)
        if found is None:
            return NO_ANSWER
        answer = bare(found) if len(found) <= LONGEST else ""
        is_correct = answer != "" and self._judge(problem.meta, answer)
        return Score(float(is_correct), is_correct, answer=found)

    def reference(self, problem: Problem) -> str:
        return problem.meta["answer"]

    def _meta(self, item: Item) -> dict[str, Any]:
        meta = {"answer": item.answer.strip(), **{name: item.metadata[name] for name in self._task.facts}}
        if self._task.tolerance:
            meta["tolerance"] = self._task.tolerance
        return json.loads(json.dumps(meta, default=_plain))

    def _share(self, prompt: str, answer: str) -> float:
        """How likely a problem is to be kept."""
        if self._task.copies < 1 and answer in prompt:
            return self._task.copies
        return self._task.keep.get(answer, 1.0)

    def _is_right(self, meta: Mapping[str, Any]) -> bool:
        """Whether the reference is right to the judge, as it would be scored."""
        answer = bare(meta["answer"])
        return answer != "" and boxed(f"\\boxed{{{meta['answer']}}}") == meta["answer"] and self._judge(meta, answer)


def _plain(value: Any) -> Any:
    """Arrays and numbers of numpy, and what can be gone through, as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, Iterable) else str(value)
