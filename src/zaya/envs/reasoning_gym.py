"""The datasets of reasoning-gym (arXiv 2505.24760), one environment for each: `reasoning-gym/ab` and so on.

The package makes the problems; what is right is decided by `envs.judges`. Which datasets there are, how their
difficulty grows and which are left out, and why, is in `envs.reasoning_gym_tasks`. Source: spec post-training 8.5, 8.6.
"""

from __future__ import annotations

import json
import random
from functools import cache, partial
from typing import Any

from zaya.envs.judged import Item, JudgedEnvironment
from zaya.envs.judges import JUDGES, solve_rush_hour
from zaya.envs.pool import is_worker
from zaya.envs.reasoning_gym_tasks import LEFT_OUT, TASKS
from zaya.errors import UsageError, did_you_mean

PREFIX = "reasoning-gym/"

_SEEDED_WHEN_MADE = frozenset({"acre", "gsm_symbolic", "list_functions"})
"""Datasets that draw from their seed before an item is asked for; the others need not be made for each."""


def names() -> tuple[str, ...]:
    return tuple(PREFIX + name for name in sorted(TASKS))


def environment(name: str) -> JudgedEnvironment:
    """The environment of that name. In a worker the package is loaded at once."""
    dataset = name.removeprefix(PREFIX)
    if dataset in LEFT_OUT:
        raise UsageError(f"{name} is not offered: {LEFT_OUT[dataset]}")
    if dataset not in TASKS:
        raise UsageError(f"reasoning-gym has no dataset {dataset!r}", hint=did_you_mean(dataset, TASKS, PREFIX))
    if is_worker():
        _classes(dataset)
    return JudgedEnvironment(name, TASKS[dataset].task, partial(draw, dataset))


def draw(dataset: str, level: int, seed: int) -> Item | None:
    """The first item of a dataset of that seed; None where the package does not find one, or one without an answer."""
    import numpy

    if dataset in _SEEDED_WHEN_MADE:
        made = _make(dataset, level, seed)
    else:
        made = _made(dataset, level)
        made.seed = made.config.seed = seed
    random.seed(seed)
    numpy.random.seed(seed)
    try:
        item = made[0]
    except (ValueError, RuntimeError, IndexError, AssertionError):
        return None  # most try some number of times, and give up by one of these
    answer = item["answer"] if item["answer"] is not None else _solved(dataset, item["metadata"])
    return None if answer is None else Item(question=item["question"], answer=str(answer), metadata=item["metadata"])


@cache
def _made(dataset: str, level: int) -> Any:
    """Made once, as many read a word list first. An item depends on nothing but the settings and the seed."""
    return _make(dataset, level, 0)


def _make(dataset: str, level: int, seed: int) -> Any:
    made_by, configured_by = _classes(dataset)
    return made_by(config=configured_by(**TASKS[dataset].settings(level), seed=seed, size=1))


def _classes(dataset: str) -> tuple[Any, Any]:
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise UsageError(
            f"{PREFIX}{dataset} needs the extra 'envs': {error}", hint="pip install 'openzaya[envs]'"
        ) from error
    return DATASETS[dataset]


def _solved(dataset: str, metadata: Any) -> str | None:
    """An answer where the package gives none."""
    match dataset:
        case "graph_color":
            return json.dumps({str(vertex): color for vertex, color in metadata["possible_answer"].items()})
        case "rush_hour":
            return solve_rush_hour(metadata["board_config"])
        case "rubiks_cube":
            scramble = metadata["scramble_moves"]
            if JUDGES["rubiks_cube"]({"scramble_moves": scramble}, "U U'"):
                return None  # it is whole again, and any turn and its inverse would be an answer
            return " ".join(turn[:-1] if turn.endswith("'") else f"{turn}'" for turn in reversed(scramble.split()))
    return None
