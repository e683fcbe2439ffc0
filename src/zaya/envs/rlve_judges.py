"""Judges of our own for tasks of RLVE-Gym whose scorer can be fooled, or would run the answer.

CountdownEqual, CountdownClose    Python computes the answer there: `2**5` passes for a use of 2 and 5, `1.5` for one of
                                  1 and 5, `7//2` for a division
Differentiate, Integral           sympy's parser evaluates the answer as Python there
KnightsAndKnaves                  what is said of somebody is looked for anywhere in the answer there: `either A is a
                                  knight or not` passes
PolyaModel                        reads its answer past the markers there, and finds every one wrong

A judge gets the parameters of a problem and the answer, and says whether it is right. Five tasks more ask for numbers
that differ and never look whether they do: see `DISTINCT`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from zaya.envs import expression

_ROLE = re.compile(r"(\w+) is a (knight|knave)", re.ASCII)
_FRACTION = re.compile(r"([+-]?[0-9]{1,200})(?:/([0-9]{1,200}))?")
_POINTS = tuple((((k * 0.6180339887498949) % 1.0) * 4 - 2) for k in range(1, 129))
"""Between -2 and 2, as in the task, and nowhere special."""
_STEP = 1e-4
_CLOSE = 1e-5


def _uses(parameters: Mapping[str, Any], answer: str) -> Fraction | None:
    """What an answer comes to that uses each number once; None for any other."""
    found = expression.exact(answer)
    if found is None or sorted(found[1]) != sorted(parameters["operands"]):
        return None
    return found[0]


def _equal(parameters: Mapping[str, Any], answer: str) -> bool:
    return _uses(parameters, answer) == parameters["target"]


def _close(parameters: Mapping[str, Any], answer: str) -> bool:
    """As close as can be, where that is known; it was computed in floating point."""
    value, best = _uses(parameters, answer), parameters.get("reference_result")
    if value is None:
        return False
    distance = abs(value - parameters["target"])
    return distance == 0 if best is None else distance <= abs(best - parameters["target"]) + 1e-6


def _derivative(parameters: Mapping[str, Any], answer: str) -> bool:
    tree, expected = expression.read(answer), expression.read(parameters["reference_answer"])
    if tree is None or expected is None:
        return False
    return _agree(expression.function(tree, "x"), expression.function(expected, "x"), 1.0)


def _antiderivative(parameters: Mapping[str, Any], answer: str) -> bool:
    tree, expected = expression.read(answer), expression.read(parameters["f_prime"])
    if tree is None or expected is None:
        return False
    value = expression.function(tree, "x")

    def slope(x: float) -> complex | None:  # by five points: its error is of the fourth order of the step
        values = [value(x + k * _STEP) for k in (-2, -1, 1, 2)]
        if any(value is None for value in values):
            return None
        a, b, c, d = (value for value in values if value is not None)
        return (a - 8 * b + 8 * c - d) / (12 * _STEP)

    return _agree(slope, expression.function(expected, "x"), 10.0)


def _agree(found: Callable[[float], complex | None], expected: Callable[[float], complex | None], slack: float) -> bool:
    """The same at nearly all points where there is a real value to compare with, and nowhere another."""
    compared = same = 0
    for x in _POINTS:
        right = expected(x)
        if right is None or abs(right.imag) > 1e-12 or not abs(right.real) < 1e4:
            continue
        compared += 1
        value = found(x)
        if value is None or value != value:
            continue
        if not abs(value - right) <= slack * _CLOSE * (1 + abs(right)):
            return False
        same += 1
    return compared >= 8 and same >= 0.9 * compared


def _roles(parameters: Mapping[str, Any], answer: str) -> bool:
    """`A is a knight, B is a knave, and C is a knight.`, everybody once."""
    said: dict[str, str] = {}
    for clause in answer.strip().removesuffix(".").replace(", and ", ", ").replace(" and ", ", ").split(", "):
        found = _ROLE.fullmatch(clause.strip())
        if found is None or found[1] in said:
            return False
        said[found[1]] = found[2]
    return said == {name: str(role).lower() for name, role in parameters["gold_answer"].items()}


def _probability(parameters: Mapping[str, Any], answer: str) -> bool:
    """A fraction, in lowest terms or not."""
    found, gold = _FRACTION.fullmatch(answer.strip()), parameters["gold_answer"]
    if found is None or int(found[2] or 1) == 0:
        return False
    return Fraction(int(found[1]), int(found[2] or 1)) == Fraction(gold["numerator"], gold["denominator"])


JUDGES: Mapping[str, Callable[[Mapping[str, Any], str], bool]] = MappingProxyType(
    {
        "CountdownEqual": _equal, "CountdownClose": _close, "Differentiate": _derivative, "Integral": _antiderivative,
        "KnightsAndKnaves": _roles, "PolyaModel": _probability,
    }
)  # fmt: skip

DISTINCT = frozenset(
    {
        "DynDynamite",
        "MaxXorSet",
        "MinSwapTwoPermutations",
        "MinimumTreeWeightedDominatingAncestor",
        "TreeAddOneEdgeDiameter",
    }
)
"""Tasks whose answer is a row of numbers, no two alike."""


def are_distinct(answer: str) -> bool:
    """Whether no word of an answer stands twice, read as numbers are."""
    words = [word.lstrip("+0") or "0" for word in answer.split()]
    return len(set(words)) == len(words)
