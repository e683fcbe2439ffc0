r"""An answer that stands somewhere else than in the last box of the visible text: to tell bad form from bad answers.

Strict is the scorer of training: the last `\boxed{...}` of the answer, after the reasoning. Where it found nothing,
lenient reads on, at the first of these that is there:

    1. the last closed box of the answer, else its last "answer is X" or "answer: X"
    2. the same of the reasoning
    3. the last number of the answer; of the reasoning where there is no answer at all

What it may not do: change what strict found, right or wrong; be a reward; read a sentence or a number that a budget
cut; speak for tasks that ask for something else than a box. What it reads goes back to the scorer of the task, in a
box, so what is right is the same for both. Source: spec post-training 12. Used by `eval.run`.
"""

from __future__ import annotations

import re

from zaya.envs import answers
from zaya.envs.base import Problem, Score, Status
from zaya.ttc.vote import boxed

LONGEST = 200
"""Characters of a lenient answer; a longer one is a text about it."""

# bounded repetitions: a pattern must not take quadratic time on what a model wrote
_SAID = re.compile(r"\banswer[ \t*_]{0,4}(?:is|=|:)[ \t*_:=]{0,6}(?=([^\n]{1,400}))", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;!?](?=\s|$)")
_CUT_SAFE = re.compile(r"[.;!?](?=\s)|\n")
_NUMBER = re.compile(
    r"(?<![\w.])(?:(?<![\w)\]}])-)?"  # a minus after a value is a subtraction
    r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,60}(?![0-9,])|[0-9]{1,190})"
    r"(?:\.[0-9]{1,100}|/[0-9]{1,100})?(?!\w)"
)


def lenient(text: str, reasoning: str, *, is_cut: bool = False) -> str | None:
    """The answer in a visible text and the reasoning before it, wherever it stands; None where there is none.

    is_cut: whether a budget ended it. Then only what was said to its end counts: whole sentences, closed boxes.
    """
    said = _finished(text) if is_cut else text
    thought = _finished(reasoning) if is_cut and not text else reasoning
    found = (boxed(text), _said(said), boxed(reasoning), _said(thought), _number(said if text.strip() else thought))
    return next((answer for answer in found if answer is not None and _is_usable(answer)), None)


def can_be_lenient(problem: Problem, score: Score) -> bool:
    """Whether strict found no answer to a problem that asks for one in a box."""
    return score.status is Status.BAD_FORMAT and score.answer is None and "\\boxed" in problem.prompt


def reboxed(answer: str) -> str:
    """The text in which the scorer of a task finds an answer."""
    return f"\\boxed{{{answer}}}"


def _finished(text: str) -> str:
    """The sentences and lines of a text that was cut, without the last: half a number looks like a number."""
    end = max((match.end() for match in _CUT_SAFE.finditer(text)), default=0)
    return text[:end]


def _said(text: str) -> str | None:
    found = None
    for match in _SAID.finditer(text):
        found = match
    if found is None:
        return None
    sentence = _SENTENCE_END.split(found[1], maxsplit=1)[0]
    return sentence.strip(" \t*_`\"'$") or None


def _number(text: str) -> str | None:
    found = None
    for match in _NUMBER.finditer(text):
        found = match
    return None if found is None else found[0].replace(",", "")


def _is_usable(answer: str) -> bool:
    """Whether a box around it holds it and nothing else."""
    return len(answer) <= LONGEST and answers.boxed(reboxed(answer)) == answer
