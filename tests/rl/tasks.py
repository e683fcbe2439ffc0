"""Environments for the tests of the loop: what a model of a few thousand parameters can be right about."""

from __future__ import annotations

from zaya.envs.answers import INSTRUCTION, NO_ANSWER, boxed
from zaya.envs.base import About, Problem, Score


class Lengths:
    """Any answer of an odd number of characters is right: a model that knows nothing is right now and then."""

    name = "tests.rl.tasks:LENGTHS"
    version = 1
    about = About("lengths", "Apache-2.0", highest=3)

    def sample(self, seed: int, difficulty: int) -> Problem:
        return Problem(self.name, f"Say something, {seed % 1000}.", {}, difficulty, seed)

    def score(self, problem: Problem, text: str) -> Score:
        is_right = len(text) % 2 == 1
        return Score(float(is_right), is_right, answer=text)

    def reference(self, problem: Problem) -> str:
        return "a"


class Taste:
    """Whoever asks for a digit likes one below 3, and does not say so."""

    name = "tests.rl.tasks:TASTE"
    version = 1
    about = About("taste", "Apache-2.0", highest=3)

    def sample(self, seed: int, difficulty: int) -> Problem:
        return Problem(self.name, f"{seed % 1000:03}: name a digit.\n{INSTRUCTION}", {}, difficulty, seed)

    def score(self, problem: Problem, text: str) -> Score:
        answer = boxed(text)
        if answer is None:
            return NO_ANSWER
        is_right = answer in ("0", "1", "2")
        return Score(float(is_right), is_right, answer=answer)

    def reference(self, problem: Problem) -> str:
        return "1"


LENGTHS = Lengths()
TASTE = Taste()
