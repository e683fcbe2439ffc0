"""The tasks of reasoning-core, one environment for each: `reasoning-core/planning` and so on.

The package makes the problems; what is right is decided by `envs.judges`. It is heavy (z3, duckdb, pandas), so it is an
extra of its own. Level d is level d of the package, for all of a task's settings at once. Source: spec post-training
8.5, 8.6 and Appendix C.

The package's own way to make an example is passed by: it limits it by the wall clock and by a tokenizer that may not be
there, so the same seed could give another problem on another machine. For the same reason tasks are left out that stop
a solver by the clock.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from zaya.envs.judged import Item, JudgedEnvironment, Task
from zaya.envs.pool import is_worker
from zaya.errors import UsageError, did_you_mean

PREFIX = "reasoning-core/"
HIGHEST = 6
_MOST_TRIES = 50


def _offered(category: str, judge: str, *facts: str, **about: Any) -> Task:
    return Task(category=category, judge=judge, facts=facts, license="MIT", **{"highest": HIGHEST, **about})


TASKS: Mapping[str, Task] = MappingProxyType({
    "attribute_grammar": _offered("formal languages", "number"),
    "combinatorics_formula": _offered("counting", "unspaced"),
    "controlled_code_execution": _offered("code", "unspaced"),
    "defeasible_nli": _offered("logic", "word", choices=3, keep={"Maybe": 0.7}),
    "equation_system": _offered("algebra", "quantity", highest=2),
    "function_manipulation": _offered("algebra", "quantity", highest=2),
    "math_word_problem": _offered("arithmetic", "quantity", highest=4),
    "dynamic_programming": _offered("algorithms", "text"),
    "finite_automaton_execution": _offered("formal languages", "number", lowest=1),
    "graph_pathfinding": _offered("graphs", "cheapest_path", "edges", "start_node", "end_node", "optimal_cost",
        "graph_description"),
    "graph_successors": _offered("graphs", "text"),
    "multistep_abduction": _offered("logic", "indexes"),
    "multistep_evidence_retrieval": _offered("logic", "indexes", "valid_supports", highest=4),
    "multistep_nli": _offered("logic", "word", choices=3, keep={"Yes": 0.6}),
    "planning": _offered("puzzles", "plan", "actions", "initial_true", "goal_true", "goal_false", "plan_cue"),
    "process_inversion": _offered("arithmetic", "number"),
    "reference_tracking": _offered("logic", "word", lowest=2, keep={"x2": 0.7}),
    "rule_switching": _offered("algorithms", "word", lowest=2),
    "shift_reduce_parsing": _offered("formal languages", "text"),
    "string_transduction": _offered("algorithms", "text"),
    "systems_trace": _offered("algorithms", "text"),
    "table_statistics": _offered("perception", "word"),
})  # fmt: skip

_SLOW = "a problem takes a second or more to make"
_REMEMBERS = "the same seed gives another problem later in the same process"
_DOWNLOAD = "needs a download"
_EXTRA = "needs a further extra of the package"

LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "analogical_case_matching": "one of three cases to choose from, and slow to make at higher levels",
        "arithmetics": _REMEMBERS,
        "belief_tracking": _SLOW,
        "code_analysis": _SLOW,
        "code_runnability": "programs run in processes that are stopped by the clock, so a seed has no one problem",
        "constrained_continuation": "paid by likeness to one of several continuations",
        "constraint_satisfaction": _SLOW,
        "coreference": "its solver is stopped by the clock, so a seed has no one problem",
        "game_best_move": _EXTRA,
        "game_forced_win": _EXTRA,
        "grid_navigation": _SLOW,
        "inverse_math": "formulas are compared by sympy, stopped by the clock",
        "lambda_reduction": "an answer may name its variables otherwise, and we have no reader of such terms",
        "logic_derivation": "lines of a derivation can be put in another order",
        "logic_qa": "what counts as no answer at all counts as the answer where nobody is meant",
        "metamath_core_select": _DOWNLOAD,
        "metamath_entailment": _DOWNLOAD,
        "most_probable_evidence": _REMEMBERS,
        "most_probable_outcome": _REMEMBERS,
        "parsing_derivation": _REMEMBERS,
        "planar_geometry_relations": _SLOW,
        "qualitative_reasoning": _SLOW,
        "qualitative_causal_reasoning": _REMEMBERS,
        "regex_following": _SLOW,
        "regex_reasoning": "a witness is judged by automata, and half of all answers are yes or no",
        "rewrite_system": _REMEMBERS,
        "sequential_induction": "many seconds before the first problem",
        "set_expression": "many seconds before the first problem",
        "set_missing_element": "many seconds before the first problem",
        "syntax_error_detection": _REMEMBERS,
        "table_equivalence": _REMEMBERS,
        "table_qa": "queries are stopped by the clock",
        "unification_entailment": _REMEMBERS,
    }
)
"""The tasks that are not offered, and why."""


def names() -> tuple[str, ...]:
    return tuple(PREFIX + name for name in sorted(TASKS))


def environment(name: str) -> JudgedEnvironment:
    """The environment of that name. In a worker the package is loaded at once."""
    task = name.removeprefix(PREFIX)
    if task in LEFT_OUT:
        raise UsageError(f"{name} is not offered: {LEFT_OUT[task]}")
    if task not in TASKS:
        raise UsageError(f"reasoning-core has no task {task!r}", hint=did_you_mean(task, TASKS, PREFIX))
    if is_worker():
        _made(task)
    return JudgedEnvironment(name, TASKS[task], partial(draw, task))


def draw(name: str, level: int, seed: int) -> Item | None:
    """The first problem of a seed; None where there is none."""
    import numpy

    task = _made(name)
    # before the level is set: sizes between two whole numbers are rounded by chance
    random.seed(seed)
    numpy.random.seed(seed)
    task.config.set_level(level)
    task.on_config_level_change()
    task.prepare()
    for _ in range(_MOST_TRIES):
        try:
            entry = task.generate_entry()
        except (ValueError, RuntimeError, IndexError):
            return None  # how a task gives up
        if entry is not None:
            return Item(question=task.render_prompt(entry.metadata), answer=str(entry.answer), metadata=entry.metadata)
    return None


def _made(name: str) -> Any:
    """A new one each time: some remember what they made."""
    try:
        from reasoning_core import get_task  # pyright: ignore[reportAttributeAccessIssue]  # the extra may not be here
    except ImportError as error:
        raise UsageError(
            f"{PREFIX}{name} needs the extra 'reasoning-core': {error}", hint="pip install 'openzaya[reasoning-core]'"
        ) from error
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a tokenizer that is not used here
        return get_task(name)
