"""The datasets of reasoning-gym (arXiv 2505.24760), one environment for each: `reasoning-gym/ab` and so on.

The package makes the problems; what is right is decided by `envs.reasoning_gym_judges`. Which datasets there are, how
their difficulty grows and which are left out, and why, is in `envs.reasoning_gym_tasks`. Some of them draw from the
global generators, which are seeded for each item, so problems are made in the workers of `envs.pool` only. Source:
spec post-training 8.5 and 8.6.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from zaya.core.rng import derive_seed
from zaya.envs.answers import INSTRUCTION, NO_ANSWER, boxed
from zaya.envs.base import About, Problem, Score
from zaya.envs.reasoning_gym_judges import JUDGES, LONGEST, bare, solve_rush_hour
from zaya.envs.reasoning_gym_tasks import LEFT_OUT, TASKS, Task
from zaya.envs.rlve import is_worker
from zaya.errors import UsageError, did_you_mean

PREFIX = "reasoning-gym/"
LONGEST_PROMPT = 6000
"""Characters. A longer prompt counts as no problem."""
_MOST_DRAWS = 24
"""Items looked at for one that is kept."""


def names() -> tuple[str, ...]:
    return tuple(PREFIX + name for name in sorted(TASKS))


def environment(name: str) -> ReasoningGymEnvironment:
    return ReasoningGymEnvironment(name)


class ReasoningGymEnvironment:
    """One dataset. Its meta: `answer`, the reference, and what the judge has to know beside it."""

    version = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self._dataset = name.removeprefix(PREFIX)
        if self._dataset in LEFT_OUT:
            raise UsageError(f"{name} is not offered: {LEFT_OUT[self._dataset]}")
        if self._dataset not in TASKS:
            raise UsageError(
                f"reasoning-gym has no dataset {self._dataset!r}", hint=did_you_mean(self._dataset, TASKS, PREFIX)
            )
        self._task = TASKS[self._dataset]
        self.about = About(
            self._task.category, self._task.license, highest=self._task.highest, choices=self._task.choices
        )
        self._judge = JUDGES[self._task.judge]
        if is_worker():
            _load(self._dataset)

    def sample(self, seed: int, difficulty: int) -> Problem | None:
        if not is_worker():
            raise UsageError(
                f"{self.name} makes problems in worker processes only: it seeds the global generators of its process",
                hint="use zaya.envs.pool.TaskPool",
            )
        if not 0 <= difficulty <= self._task.highest:
            return None
        rng = random.Random(derive_seed("reasoning-gym", self._dataset, self.version, seed, difficulty))
        for _ in range(_MOST_DRAWS):
            item = draw(self._dataset, difficulty, rng.getrandbits(31))
            luck = rng.random()
            meta = None if item is None else _facts(self._task, item)
            if item is None or meta is None or not self._judge(meta, bare(meta["answer"])):
                continue
            prompt = f"{item['question'].strip()}\n{INSTRUCTION}"
            copied = self._task.copies < 1 and meta["answer"] in prompt
            kept = self._task.copies if copied else self._task.keep.get(meta["answer"], 1.0)
            if luck < kept and len(prompt) <= LONGEST_PROMPT:
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


def draw(dataset: str, level: int, seed: int) -> dict[str, Any] | None:
    """The first item of a dataset of that seed; None where the package does not find one."""
    import numpy

    made = _dataset(dataset, level, seed)
    random.seed(seed)
    numpy.random.seed(seed)
    try:
        return made[0]
    except (ValueError, RuntimeError, IndexError, AssertionError):
        return None  # most retry some number of times, and give up by one of these


_SEEDED_WHEN_MADE = frozenset({"acre", "gsm_symbolic"})
"""They draw from their seed before the first item is asked for."""


def _dataset(dataset: str, level: int, seed: int) -> Any:
    if dataset in _SEEDED_WHEN_MADE:
        return _load(dataset)(TASKS[dataset].settings(level), seed)
    made = _made(dataset, level)
    made.seed = made.config.seed = seed
    return made


@cache
def _made(dataset: str, level: int) -> Any:
    """Made once, as many read a word list first. An item depends on nothing but the settings and the seed."""
    return _load(dataset)(TASKS[dataset].settings(level), 0)


def _load(dataset: str) -> Any:
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise UsageError(f"{PREFIX}{dataset} needs the extra 'envs': {error}", hint="pip install 'openzaya[envs]'") from error
    made_by, configured_by = DATASETS[dataset]
    return lambda settings, seed: made_by(config=configured_by(**settings, seed=seed, size=1))


def _facts(task: Task, item: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the judge needs, as JSON; None where there is no answer."""
    known = item["metadata"]
    match task.judge:
        case "coloring":
            answer = json.dumps({str(vertex): color for vertex, color in known["possible_answer"].items()})
        case "rush_hour":
            answer = solve_rush_hour(known["board_config"])
        case "rubiks_cube":
            answer = _undone(known["scramble_moves"])
        case _:
            answer = item["answer"]
    if answer is None or not str(answer).strip():
        return None
    meta = {"answer": str(answer).strip(), **{name: known[name] for name in task.facts}}
    if task.tolerance:
        meta["tolerance"] = task.tolerance
    return json.loads(json.dumps(meta, default=_plain))


def _undone(scramble: str) -> str | None:
    """The turns back; None where the scrambled cube is whole, and any turn and its inverse would be an answer."""
    if JUDGES["rubiks_cube"]({"scramble_moves": scramble}, "U U'"):
        return None
    return " ".join(turn[:-1] if turn.endswith("'") else f"{turn}'" for turn in reversed(scramble.split()))


def _plain(value: Any) -> Any:
    """Arrays and numbers of numpy, as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, Iterable) else str(value)
