"""Sums and differences of small numbers: the task that a model of a few thousand steps can learn.

    What is 47 + 38 - 12?
    Give the answer in \\boxed{}.

Difficulty d has 2 + d terms. Every running total, from left to right, lies in [0, 999], so that the steps of a written
solution are as small as the answer.
"""

from __future__ import annotations

import random

from zaya.core.rng import derive_seed
from zaya.envs.answers import INSTRUCTION, NO_ANSWER, boxed, parse_integer
from zaya.envs.base import About, Problem, Score

LARGEST_OPERAND = 99
LARGEST_TOTAL = 999


class Arithmetic:
    """`arithmetic`. Its meta: `terms`, the operands with their signs, and `answer`."""

    name = "arithmetic"
    version = 1
    about = About(category="arithmetic", license="Apache-2.0")

    def sample(self, seed: int, difficulty: int) -> Problem:
        rng = random.Random(derive_seed("arithmetic", self.version, seed, difficulty))
        terms = [rng.randint(1, LARGEST_OPERAND)]
        total = terms[0]
        for _ in range(1 + difficulty):
            operand = rng.randint(1, LARGEST_OPERAND)
            # one of the two always fits: the largest total is far above two operands
            term = rng.choice([t for t in (operand, -operand) if 0 <= total + t <= LARGEST_TOTAL])
            terms.append(term)
            total += term
        question = f"{terms[0]}" + "".join(f" {'+' if term > 0 else '-'} {abs(term)}" for term in terms[1:])
        return Problem(
            env=self.name,
            prompt=f"What is {question}?\n{INSTRUCTION}",
            meta={"terms": terms, "answer": total},
            difficulty=difficulty,
            seed=seed,
            version=self.version,
        )

    def score(self, problem: Problem, text: str) -> Score:
        answer = boxed(text)
        if answer is None:
            return NO_ANSWER
        is_correct = parse_integer(answer) == problem.meta["answer"]
        return Score(float(is_correct), is_correct, answer=answer)

    def reference(self, problem: Problem) -> str:
        return str(problem.meta["answer"])


ARITHMETIC = Arithmetic()
