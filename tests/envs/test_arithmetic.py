"""Sums, against an evaluation of the question as it is asked.

1. The question has 2 + d terms of 1 to 99, its answer is what Python makes of it, and no running total leaves [0, 999].
2. Both signs occur, and both ends of the operands.
3. The reference earns 1; every other integer, and what is no integer, earns nothing.
4. A seed means one problem, in every process and for good.
"""

from __future__ import annotations

import re
from itertools import accumulate

import pytest

from zaya.envs.answers import INSTRUCTION
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Status


@pytest.mark.parametrize("difficulty", [0, 1, 2, 5, 60])
def test_questions(difficulty: int) -> None:
    operands: set[int] = set()
    for seed in range(300):
        problem = ARITHMETIC.sample(seed, difficulty)
        asked = re.fullmatch(r"What is (\d+(?: [+-] \d+)+)\?\n(.*)", problem.prompt)
        assert asked is not None
        assert asked[2] == INSTRUCTION
        terms = [int(sign + number) for sign, number in re.findall(r"([+-]?) ?(\d+)", asked[1])]
        assert len(terms) == 2 + difficulty
        assert all(0 <= total <= 999 for total in accumulate(terms))
        assert problem.meta == {"terms": terms, "answer": eval(asked[1])}
        operands |= set(terms)
    assert min(map(abs, operands)) >= 1
    assert max(map(abs, operands)) <= 99
    if difficulty > 1:
        assert operands >= {1, 99, -1, -99}


def test_both_signs_are_as_likely_where_both_fit() -> None:
    seconds = [ARITHMETIC.sample(seed, 0).meta["terms"] for seed in range(4000)]
    free = [terms for terms in seconds if terms[0] >= abs(terms[1])]
    # a binomial of about 2000 draws has a standard deviation of about 0.011
    assert sum(terms[1] > 0 for terms in free) / len(free) == pytest.approx(0.5, abs=0.05)


def test_scores() -> None:
    problem = ARITHMETIC.sample(3, 1)
    answer = problem.meta["answer"]
    assert ARITHMETIC.reference(problem) == str(answer)
    right = ARITHMETIC.score(problem, f"\\boxed{{0}} or rather \\boxed{{ {answer} }}.")
    assert (right.reward, right.correct, right.status, right.answer) == (1, True, Status.OK, f" {answer} ")
    for content in [
        *(str(n) for n in range(1000) if n != answer),
        f"-{answer}",
        f"{answer}.0",
        f"{answer} {answer}",
        "",
    ]:
        score = ARITHMETIC.score(problem, f"\\boxed{{{content}}}")
        assert (score.reward, score.correct, score.status) == (0, False, Status.OK)
    for text in [str(answer), "", f"\\boxed{{{answer}}} \\boxed{{", problem.prompt.replace("{}", "{")]:
        score = ARITHMETIC.score(problem, text)
        assert (score.reward, score.correct, score.status) == (0, False, Status.BAD_FORMAT)


def test_a_seed_means_this_problem() -> None:
    """If this fails, `version` has to change."""
    questions = {(0, 0): "54 + 71", (1, 2): "48 - 5 - 5 - 19", (2**62, 1): "51 + 47 + 31"}
    for (seed, difficulty), question in questions.items():
        assert ARITHMETIC.sample(seed, difficulty).prompt == f"What is {question}?\n{INSTRUCTION}"
