"""Examples to learn from: conversations, pairs of a right and a wrong one, and aggregations.

An aggregation is a prompt as Markovian RSA shows it, and a solution that weighs the attempts.

    problem -> n attempts of a teacher that slips -> what they hand on -> the prompt -> the teacher's solution

The prompt is made by the function that makes it when the model is used (`ttc.prompts`), and tails are cut by the one
that cuts them then (`ttc.tails`). Where an attempt shows that it came to what is right, the solution takes it at once,
be it ahead or not: that is for the model to see. Where none does and nothing is ahead, it works the problem anew, or
goes on from the one attempt there is. What a prompt does not show, because an attempt was cut in its work or its tail
is short, counts as none: nobody can copy it. Source: report as in spec markovian-rsa 7.1; how to weigh is our choice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from zaya.core.rng import derive_seed
from zaya.envs.base import Problem
from zaya.envs.demonstrate import boxed_answer, conclude, demonstrate
from zaya.text import Tokenizer
from zaya.ttc.prompts import aggregation_messages
from zaya.ttc.tails import tail

_TRIES = 64
"""Of a teacher, for a solution that is wrong."""
_BRIEF = 0.8
"""Attempts of a later round that found a result ahead and took it."""


def conversation(problem: Problem, *, slip: float = 0.0) -> list[dict[str, Any]]:
    """A problem and its solution by a teacher who slips with that probability."""
    shown = demonstrate(problem, slip=slip)
    return [_user(problem.prompt), _assistant(shown.reasoning, shown.answer)]


def pair(problem: Problem, *, slip: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
    """A right solution and a wrong one, by a teacher who slips with that probability; None where no try went wrong.

    The two are alike but for what went wrong and what follows from it, so that nothing else tells them apart.
    """
    right = conversation(problem)
    for seed in range(_TRIES):
        shown = demonstrate(problem, slip=slip, seed=seed)
        wrong = [_user(problem.prompt), _assistant(shown.reasoning, shown.answer)]
        if wrong[-1]["content"] != right[-1]["content"]:
            return right, wrong
    return None


def aggregation(
    problem: Problem,
    tokenizer: Tokenizer,
    *,
    fan_in: int,
    tail_tokens: int,
    slip: float,
    cut: float = 0.0,
    later: float = 0.0,
    compaction: Literal["tail", "hybrid"] = "tail",
    seed: int = 0,
) -> list[dict[str, Any]] | None:
    """One example: a prompt with what `fan_in` attempts hand on, and the solution that weighs them.

    slip: probability that a step of an attempt errs. cut: probability that an attempt ends somewhere in its work.
    later: probability that the example is of a later round, whose attempts mostly weighed others and say no more than
    what they came to. compaction: as in `ttc.tails`; "hybrid" shows the answer of an attempt that has one. None where
    something wrong is ahead and nothing right is there: weighing is no way to the answer.
    """
    rng = random.Random(derive_seed("aggregation", problem.digest, seed))
    tails, results = [], []
    brief = _BRIEF if rng.random() < later else 0.0
    for attempt in range(fan_in):
        shown = demonstrate(problem, slip=slip, seed=derive_seed(seed, "attempt", attempt))
        is_cut = rng.random() < cut
        said, written = conclude([], shown.result), shown.reasoning + "\n"
        if not is_cut and rng.random() < brief:  # what says no more is too short to be cut
            written = said + "\n"
        if not is_cut and compaction == "hybrid":
            said, written = f"{{{shown.result}}}", "\n\n" + shown.answer
        ids = tokenizer.encode_plain(written)
        if is_cut:
            ids = ids[: rng.randrange(1, len(ids))]
        tails.append(tail(tokenizer, ids, tail_tokens))
        results.append(shown.result if said in tails[-1] else None)
    right = demonstrate(problem)
    if right.result in results:
        reasoning = conclude([], right.result)
    elif leader(results) is None:
        reasoning = _rest(right.reasoning, tails)
    else:
        return None
    messages = aggregation_messages([_user(problem.prompt)], tails)
    return [*messages, _assistant(reasoning, boxed_answer(right.result))]


def leader(results: Sequence[str | None]) -> str | None:
    """The result that more attempts came to than to any other, two at least; None where there is none."""
    counts = Counter(result for result in results if result is not None).most_common(2)
    if not counts or counts[0][1] < 2 or (len(counts) > 1 and counts[1][1] == counts[0][1]):
        return None
    return counts[0][0]


def _rest(reasoning: str, tails: Sequence[str]) -> str:
    """What is left to do of the right work. One attempt alone is gone on from, where all that it has finished is shown
    and right; behind a beginning that is missing may lie what the end needs."""
    done = tails[0].split("\n")[:-1] if len(tails) == 1 else []  # the line in which it was cut is written again
    lines = reasoning.split("\n")
    return "\n".join(lines[len(done) :]) if lines[: len(done)] == done else reasoning


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(reasoning: str, answer: str) -> dict[str, Any]:
    return {"role": "assistant", "reasoning_content": reasoning, "content": answer}
