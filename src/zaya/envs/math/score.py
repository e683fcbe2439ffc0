"""The score of a text whose answer stands in its last box, against a gold answer."""

from __future__ import annotations

from zaya.envs.answers import NO_ANSWER, boxed
from zaya.envs.base import Score
from zaya.envs.math.equivalence import equivalent


def math_score(gold: str, text: str) -> Score:
    """1 for an answer that is equivalent to the gold. Never raises; pure, and safe in any thread."""
    answer = boxed(text)
    if answer is None:
        return NO_ANSWER
    is_correct = equivalent(gold, answer)
    return Score(float(is_correct), is_correct, answer=answer)
