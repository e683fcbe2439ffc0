"""Environments for the tests of the loop: what a model of a few thousand parameters can be right about."""

from __future__ import annotations

from zaya.envs.answers import INSTRUCTION, NO_ANSWER, boxed
from zaya.envs.base import Problem, Score


class Lengths:
    """Any answer of an odd number of characters is right: a model that knows nothing is right now and then."""

    name = "tests.rl.tasks:LENGTHS"
    version = 1

    def sample(self, seed: int, difficulty: int) -> Problem:
        return Problem(self.name, f"Say something, {seed % 1000}.", {}, difficulty, seed)

    def score(self, problem: Problem, text: str) -> Score:
        is_right = len(text) % 2 == 1
        return Score(float(is_right), is_right, answer=text)

    def reference(self, problem: Problem) -> str:
        return "a"


class Echo:
    """The digit in the question is the answer."""

    name = "tests.rl.tasks:ECHO"
    version = 1

    def sample(self, seed: int, difficulty: int) -> Problem:
        digit, order = seed % 10, seed // 10 % 1000
        return Problem(self.name, f"{order:03}: {digit}?\n{INSTRUCTION}", {"digit": digit}, difficulty, seed)

    def score(self, problem: Problem, text: str) -> Score:
        answer = boxed(text)
        if answer is None:
            return NO_ANSWER
        is_right = answer == str(problem.meta["digit"])
        return Score(float(is_right), is_right, answer=answer)

    def reference(self, problem: Problem) -> str:
        return str(problem.meta["digit"])


LENGTHS = Lengths()
ECHO = Echo()
