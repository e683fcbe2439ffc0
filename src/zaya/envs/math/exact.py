"""The rational parts of a formula, computed exactly, and sums that are short enough to be written out."""

from __future__ import annotations

import math
from fractions import Fraction

from zaya.envs.math.tree import Node, height, number, replaced

_MOST_BITS = 40_000
"""Of a whole number on the way."""
_LARGEST_FACTORIAL = 3000
_MOST_TERMS = 100
"""Of a sum that is worked out."""
_MOST_WRITTEN = 20_000
"""Parts of all its terms together."""


class NoValue(Exception):
    """There is none, such as of 1/0, or it would take too long."""


def exact(tree: Node) -> Fraction | None:
    """The value of a formula that is rational by its looks; None for one that is not. Raises NoValue."""
    tree = folded(tree)
    return tree.number if tree.op == "number" else None


def folded(tree: Node) -> Node:
    """The formula with every rational part of it computed. Raises NoValue."""
    parts = tuple(folded(part) for part in tree.parts)
    if tree.op in ("sum", "prod") and parts[0].op == parts[1].op == "number" and not height(parts[2]):
        return folded(_written_out(tree.op, parts[0].number, parts[1].number, parts[2]))
    if parts and all(part.op == "number" for part in parts):
        value = _exact(tree.op, [part.number for part in parts])
        if value is not None:
            return number(value)
    return Node(tree.op, parts, tree.number, tree.name)


def _written_out(op: str, low: Fraction, high: Fraction, body: Node) -> Node:
    count = high - low + 1
    if low.denominator != 1 or high.denominator != 1 or not 0 <= count <= _MOST_TERMS:
        raise NoValue("not from one whole number to another, or too many terms")
    if count * _size(body) > _MOST_WRITTEN:
        raise NoValue("too long a sum")
    terms = tuple(replaced(body, "#1", number(low + index)) for index in range(int(count)))
    return Node("+" if op == "sum" else "*", (number(0 if op == "sum" else 1), *terms))


def _size(tree: Node) -> int:
    return 1 + sum(map(_size, tree.parts))


def _exact(op: str, parts: list[Fraction]) -> Fraction | None:
    a, b = parts[0], parts[-1]
    value: Fraction | None
    match op:
        case "+":
            value = Fraction(0)
            for part in parts:
                value = _bounded(value + part)
        case "*":
            value = Fraction(1)
            for part in parts:
                value = _bounded(value * part)
        case "-":
            value = -a
        case "/":
            if b == 0:
                raise NoValue("a quotient by zero")
            value = a / b
        case "abs":
            value = abs(a)
        case "floor":
            value = Fraction(a.numerator // a.denominator)
        case "ceil":
            value = Fraction(-(-a.numerator // a.denominator))
        case "^":
            value = _exact_power(a, b)
        case "max" | "min":
            value = max(parts) if op == "max" else min(parts)
        case "gcd" | "lcm" if all(part.denominator == 1 for part in parts):
            value = Fraction((math.gcd if op == "gcd" else math.lcm)(*map(int, parts)))
        case "!":
            value = Fraction(math.factorial(_natural(a)))
        case "binom":
            value = Fraction(math.comb(_natural(a), _natural(b)))
        case _:
            return None
    return None if value is None else _bounded(value)


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return None
    if base == 0 and exponent <= 0:
        raise NoValue("a power of zero")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) not in (0, 1) and abs(exponent) * bits > _MOST_BITS:
        raise NoValue("too large a power")
    if abs(exponent) > 10**9:  # of 0, 1 or -1
        return base if exponent % 2 else base * base
    return base ** int(exponent)


def _natural(value: Fraction) -> int:
    if value.denominator != 1 or not 0 <= value <= _LARGEST_FACTORIAL:
        raise NoValue("no factorial of that")
    return int(value)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 2 * _MOST_BITS:
        raise NoValue("too large a number")
    return value
