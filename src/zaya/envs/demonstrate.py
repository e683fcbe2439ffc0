"""Worked solutions: what a model learns from before it can try by itself.

A teacher works a problem step by step in writing, with steps a small model can take: digits are added with their carry,
lists lose their least number one at a time. It ends with `So ANSWER.`, so that the end of a reasoning, its tail, holds
what it came to. A teacher that slips now and then, and goes on from what it said, gives attempts that disagree: what
examples of aggregation are made of. Teachers exist for the tasks of the micro recipe.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zaya.core.rng import derive_seed
from zaya.envs.base import Demonstration, Problem
from zaya.errors import UsageError, did_you_mean


@dataclass(frozen=True, slots=True)
class Slips:
    """How a teacher errs: each number it works out is, with a probability, off by a little."""

    rng: random.Random
    probability: float

    def said(self, number: int) -> int:
        """The number, or what was said instead. Never negative."""
        if self.rng.random() >= self.probability:
            return number
        off = self.rng.choice((-10, -2, -1, 1, 2, 10))
        return number + off if number + off >= 0 else number + abs(off)


def demonstrate(problem: Problem, *, slip: float = 0.0, seed: int = 0) -> Demonstration:
    """A solution of a problem in writing. With `slip` each step errs with that probability, and the answer is what the
    work came to; the same seed slips in the same places. Raises UsageError where the task has no teacher."""
    if problem.env not in TEACHERS:
        raise UsageError(f"nobody demonstrates {problem.env}", hint=did_you_mean(problem.env, TEACHERS))
    rng = random.Random(derive_seed("demonstration", problem.digest, seed))
    lines, result = TEACHERS[problem.env](problem.meta, Slips(rng, slip))
    return Demonstration(conclude(lines, result), boxed_answer(result), result)


def conclude(lines: Sequence[str], result: str) -> str:
    """A reasoning that ends with what it came to."""
    return "\n".join([*lines, f"So {result}."])


def boxed_answer(result: str) -> str:
    """The visible answer."""
    return f"\\boxed{{{result}}}"


def _arithmetic(meta: Mapping[str, Any], slips: Slips) -> tuple[list[str], str]:
    total, *terms = meta["terms"]
    lines = []
    for term in terms:
        sign, other = ("+", term) if term >= 0 else ("-", -term)
        steps, result = _add(total, other, slips) if term >= 0 else _subtract(total, other, slips)
        lines.append(f"{total} {sign} {other}: {', '.join(steps)}, {result}.")
        total = result
    return lines, str(total)


def _multiplication(meta: Mapping[str, Any], slips: Slips) -> tuple[list[str], str]:
    a, b = _parameter(meta, "a"), _parameter(meta, "b")
    lines, total = [], None
    for place, digit in enumerate(reversed(str(b))):
        steps, row = _times_digit(a, int(digit), slips)
        lines.append(f"{a} x {digit}: {', '.join(steps)}, {row}.")
        row *= 10**place
        if total is None:
            total = row
        else:
            steps, result = _add(total, row, slips)
            lines.append(f"{total} + {row}: {', '.join(steps)}, {result}.")
            total = result
    return lines, str(total)


def _sorting(meta: Mapping[str, Any], slips: Slips) -> tuple[list[str], str]:
    left, found, lines = list(_parameter(meta, "array")), [], []
    while left:
        least = min(left)
        if slips.said(0):  # overlooks the least, takes another
            least = slips.rng.choice(left)
        lines.append(f"{_list(left)}: {least}")
        left.remove(least)
        found.append(least)
    return lines, _list(found)


def _sliding_window(meta: Mapping[str, Any], slips: Slips) -> tuple[list[str], str]:
    numbers, size = _parameter(meta, "A"), _parameter(meta, "K")
    lines, found = [], []
    for start in range(len(numbers) - size + 1):
        window = numbers[start : start + size]
        least = slips.rng.choice(window) if slips.said(0) else min(window)
        lines.append(f"{_list(window)}: {least}")
        found.append(least)
    return lines, _list(found)


TEACHERS: dict[str, Callable[[Mapping[str, Any], Slips], tuple[list[str], str]]] = {
    "arithmetic": _arithmetic,
    "rlve/Multiplication": _multiplication,
    "rlve/Sorting": _sorting,
    "rlve/SlidingWindow": _sliding_window,
}
"""Task -> lines of reasoning and the result, from what a problem's `meta` holds."""


def _add(a: int, b: int, slips: Slips) -> tuple[list[str], int]:
    """Digit by digit from the right, with the carry."""
    steps, total, carry = [], 0, 0
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        digit = slips.said(x + y + carry)
        steps.append(f"{x} + {y}{f' + {carry}' if carry else ''} = {digit}")
        total += digit % 10 * 10**place
        carry = digit // 10
    return steps, total + carry * 10 ** len(steps)


def _subtract(a: int, b: int, slips: Slips) -> tuple[list[str], int]:
    """Digit by digit from the right, borrowing ten where a digit is too small."""
    steps, total, borrowed = [], 0, 0
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        lent = 10 if x < y + borrowed else 0
        digit = slips.said(x + lent - y - borrowed)
        steps.append(f"{x + lent} - {y}{f' - {borrowed}' if borrowed else ''} = {digit}")
        total += digit % 10 * 10**place
        borrowed = 1 if lent else 0
    return steps, total


def _times_digit(a: int, digit: int, slips: Slips) -> tuple[list[str], int]:
    steps, total, carry = [], 0, 0
    for place in range(len(str(a))):
        x = a // 10**place % 10
        product = slips.said(x * digit + carry)
        steps.append(f"{x} x {digit}{f' + {carry}' if carry else ''} = {product}")
        total += product % 10 * 10**place
        carry = product // 10
    return steps, total + carry * 10 ** len(steps)


def _parameter(meta: Mapping[str, Any], name: str) -> Any:
    """What RLVE-Gym made a problem from."""
    return meta["config"]["parameter"][name]


def _list(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
