"""Problems with an answer that is a number, a formula or a short text: AIME, HMMT, IMO-AnswerBench, APEX and the like.

    {"problem": "What is the larger root of $x^2 - 2x - 1$?", "answer": "1+\\\\sqrt{2}"}

How answers are compared is in `envs.math.equivalence`. Every answer is tried on itself first.
"""

from __future__ import annotations

from typing import ClassVar

from zaya.envs.answers import INSTRUCTION, boxed
from zaya.envs.base import Problem, Score
from zaya.envs.files.base import Field, FileEnvironment, Item, Row
from zaya.envs.math.equivalence import equivalent
from zaya.envs.math.score import math_score
from zaya.errors import UsageError


class MathFile(FileEnvironment):
    """Its meta: `answer`."""

    kind = "math"
    fields: ClassVar = {"prompt": Field("problem"), "answer": Field("answer")}
    category = "mathematics"

    def item(self, row: Row) -> Item:
        question, answer = row.text("prompt"), row.text("answer").strip()
        if not equivalent(answer, answer) or boxed(f"\\boxed{{{answer}}}") != answer:
            raise UsageError(
                f"{row.where}: no answer can be equal to this one: {answer!r:.60}",
                hint="it is too long, or its braces do not match",
            )
        return Item(f"{question}\n{INSTRUCTION}", {"answer": answer})

    def score(self, problem: Problem, text: str) -> Score:
        return math_score(problem.meta["answer"], text)

    def reference(self, problem: Problem) -> str:
        return problem.meta["answer"]
