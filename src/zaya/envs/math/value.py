"""Whether two formulas have the same value, found by computing with numbers that have an end.

Rational formulas are computed exactly. Others are computed to as many digits as their largest and smallest part ask
for, at points that nobody can choose: symbols get fixed random values of many sizes, some of them negative. Formulas
that agree there to 40 digits below their smallest part are equal. What would take more than 3,000 digits, such as a
tower of powers, has no value. No text is evaluated and nothing is simplified, so it ends, within about a second.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from zaya.core.rng import derive_seed
from zaya.envs.math.exact import NoValue, folded
from zaya.envs.math.standin import StandIns, places
from zaya.envs.math.tree import BINDERS, Node, height, number, symbols

_DIGITS = 60
_MOST_DIGITS = 3000
_MOST_DIGITS_OF_GAMMA = 200
"""Its first value of a precision takes the cube of it."""
_MOST_WORK = 200_000
"""Operations on 60 digits, or as much of more digits: some tenths of a second."""
_EFFORT = {"!": 100, "binom": 100, "gamma": 100, "zeta": 1000}
"""Of an operation, where it is more than that of a product."""
_SCALES = (1, 10, 300, 100_000, 1, 10)
"""How large the values of symbols are, in turn: `|x-5|` is `5-x` below 5."""

_INFINITY = Fraction(918_273_645, 1 << 10)
"""Where a sum ends that does not: a bound like any other, which nobody writes."""

_lock = threading.Lock()


def _new_lock() -> None:
    """In a fork: another thread may have held it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)


def same_value(gold: Node, answer: Node) -> bool:
    """Whether two formulas are equal wherever the first has a real value, or where it has any if it never is real."""
    try:
        gold, answer = folded(gold), folded(answer)
    except NoValue:
        return False
    if gold.op == answer.op == "number":
        return gold.number == answer.number
    return _compare(gold, answer, lambda a, b, small: abs(a - b) <= small)


def proportional(gold: Node, answer: Node, *, positive: bool) -> bool:
    """Whether one is a constant multiple of the other, and neither is zero: setting them to zero says the same."""
    first: list[tuple[Any, Any]] = []

    def agree(a: Any, b: Any, small: Any) -> bool:
        first[:] = first or [(a, b)]
        a0, b0 = first[0]
        if abs(a0) <= small or abs(b0) <= small:
            return False
        if positive and (abs((b0 / a0).imag) > small or (b0 / a0).real <= 0):
            return False
        return abs(a * b0 - b * a0) <= small * (1 + abs(a0) + abs(b0))

    return _compare(gold, answer, agree)


def is_within(tree: Node, value: Fraction, most: Fraction) -> bool:
    """Whether the value of a formula without symbols is that far at most from a number."""
    return _compare(tree, number(value), lambda a, b, small: abs(a - b) * most.denominator < most.numerator)


def _compare(gold: Node, answer: Node, agree: Callable[[Any, Any, Any], bool]) -> bool:
    """Whether values agree at every point where the gold is real, or at every point if it is real at none."""
    names = symbols(gold) | symbols(answer)
    real, elsewhere, work = 0, [], _Work()
    try:
        gold, answer = folded(gold), folded(answer)
        with _lock:  # mpmath keeps its constants in tables that threads can break
            for point in _points(names):
                try:
                    a, b, small, is_real = _at(gold, answer, point, work)
                except _NoGold:
                    continue
                if not is_real:
                    elsewhere.append((a, b, small))
                elif b is None or not agree(a, b, small):
                    return False
                real += is_real
            enough = 2 if names else 1
            if real:
                return real >= enough
            return len(elsewhere) >= enough and all(b is not None and agree(a, b, small) for a, b, small in elsewhere)
    except NoValue:
        return False


def _points(names: frozenset[str]) -> Iterator[Mapping[str, Fraction]]:
    if not names:
        yield {}
        return
    for index in range(2 * len(_SCALES)):
        point = {}
        for name in sorted(names):
            rng = random.Random(derive_seed("math point", index, name))
            value = Fraction(rng.randrange(3 << 20, 22 << 20), 10 << 20) * _SCALES[index % len(_SCALES)]
            point[name] = -value if index >= len(_SCALES) and rng.random() < 0.5 else value
        yield point


def _at(gold: Node, answer: Node, point: Mapping[str, Fraction], work: _Work) -> tuple[Any, Any, Any, bool]:
    """Both values at a point, what is small beside them, and whether the first is real.

    Raises _NoGold where the first has none. Where only the second has none, or is too large, it is None.
    """
    digits = _DIGITS
    while True:
        computer = _Computer(point, digits, work)
        a = computer.value_or_none(gold)
        if a is None or computer.digits_needed() > _MOST_DIGITS:
            raise _NoGold
        b = computer.value_or_none(answer)
        needed = computer.digits_needed()
        if needed > _MOST_DIGITS:
            b = None
        small = computer.mp.ldexp(1, computer.largest) * computer.mp.mpf(10) ** (20 - digits)
        if needed <= digits + 25 or b is None or abs(a - b) > small * 10**20:
            return a, b, small, abs(computer.mp.im(a)) <= small
        digits = needed


@dataclass(slots=True)
class _Work:
    """What a comparison has taken so far."""

    done: float = 0.0


@cache
def _context() -> Any:
    """Of our own: the one of mpmath belongs to everyone. Used by whoever holds the lock."""
    from mpmath.ctx_mp import MPContext

    return MPContext()


class _NoGold(Exception):
    """The first formula has no value at a point."""


class _TooMuch(NoValue):
    """The whole comparison takes too long, not one point."""


class _Computer:
    """Values to a number of digits, and how large and small what was met on the way is, in bits."""

    def __init__(self, point: Mapping[str, Fraction], digits: int, work: _Work) -> None:
        self.mp = _context()
        self.mp.dps = digits
        self.point = dict(point)
        self.work = work
        self.standins = StandIns(self.mp, self.fraction, self.for_a_sine)
        self.largest = self.smallest = 0

    def digits_needed(self) -> int:
        return _DIGITS + int((self.largest - self.smallest) * 0.302) + 1

    def value_or_none(self, tree: Node) -> Any:
        try:
            return self.value(tree)
        except _TooMuch:
            raise
        except NoValue:
            return None

    def value(self, tree: Node) -> Any:
        self.work.done += (self.mp.dps / _DIGITS) ** 2 * _EFFORT.get(tree.op, 1)
        if self.work.done > _MOST_WORK:
            raise _TooMuch("too much work")
        is_rational = tree.op == "number"
        try:
            value = self.fraction(tree.number) if is_rational else self.compute(tree)
        except (ZeroDivisionError, OverflowError, ValueError) as error:
            raise NoValue(str(error)) from error
        if not self.mp.isfinite(value):
            raise NoValue("not finite")
        if value:
            size = int(self.mp.mag(value))
            # what is zero but for rounding is not small, it is nothing
            if is_rational or tree.op in ("^", "root") or size > self.largest - self.mp.prec // 2:
                self.largest, self.smallest = max(self.largest, size), min(self.smallest, size)
        return value

    def fraction(self, value: Fraction) -> Any:
        return self.mp.mpf(value.numerator) / value.denominator

    def compute(self, tree: Node) -> Any:
        mp = self.mp
        if tree.op == "symbol":
            if tree.name in ("e", "i", "pi"):
                return {"e": +mp.e, "i": mp.mpc(0, 1), "pi": +mp.pi}[tree.name]
            return self.fraction(self.point[tree.name])
        if tree.op == "infinity":
            return self.fraction(_INFINITY)
        if tree.op in BINDERS:
            return self.over(tree)
        values = [self.value(part) for part in tree.parts]
        match tree.op, values:
            case "+", _:
                return mp.fsum(values)
            case "*", _:
                return mp.fprod(values)
            case "-", [a]:
                return -a
            case "/", [a, b]:
                return a / b
            case "^", [a, b]:
                return self.power(a, b)
            case "root", [a, n]:
                return self.root(a, n)
            case "abs", [a]:
                return abs(a)
            case "!", [a]:
                return mp.gamma(self.of_gamma(a) + 1)
            case "binom", [a, b]:
                return mp.binomial(self.of_gamma(a), self.of_gamma(b))
            case "gamma", [a]:
                return mp.gamma(self.of_gamma(a))
            case "zeta", [a]:
                return mp.zeta(self.of_gamma(a))
            case "apply", _:
                return self.standins.applied(tree.name, values)
            case (("gcd" | "lcm" | "max" | "min"), _):
                return self.standins.unordered(tree.op, values)
            case "floor", [a]:
                return self.floor(a, tree.parts[0])
            case "ceil", [a]:
                return -self.floor(-a, tree.parts[0])
            case "log", [a]:
                # of an unsaid base: as good as any, and equal to no other logarithm
                return mp.log(a) / mp.mpf("1.7320317")
            case "ln", [a]:
                return mp.log(a)
            case (("sinh" | "cosh" | "tanh" | "coth" | "sech" | "csch"), [a]):
                return getattr(mp, tree.op)(self.moderate(a, 3000))
            case (("sin" | "cos" | "tan" | "cot" | "sec" | "csc"), [a]):
                return getattr(mp, tree.op)(self.moderate(a, 10**50))
            case _, [a] if tree.op.startswith("arc"):
                return getattr(mp, "a" + tree.op[3:])(a)
        raise NoValue(f"{tree.op} of what is not rational")

    def over(self, tree: Node) -> Any:
        low, high, body = tree.parts
        own, values = f"#{height(body) + 1}", []
        ends = self.value(low), self.value(high)
        for place in places(own):
            self.point[own] = place
            values.append(self.value(body))
        return self.standins.over(tree.op, *ends, values)

    def floor(self, a: Any, of: Node) -> Any:
        """Of a number, what it is; of a formula with symbols, a stand-in."""
        if not is_closed(of):
            return self.standins.floor(a)
        nearest = self.mp.nint(self.mp.re(a))
        if self.mp.im(a) or abs(a - nearest) < self.mp.mpf(10) ** -20 or abs(a) > 10**20:
            raise NoValue("too near to a whole number to be rounded down, or too large")
        return self.mp.floor(a)

    def for_a_sine(self, a: Any) -> Any:
        if abs(self.mp.im(a)) > 100:
            raise NoValue("too large an argument")
        return self.moderate(a, 10**50)

    def power(self, a: Any, b: Any) -> Any:
        if not a:
            if self.mp.re(b) <= 0:
                raise NoValue("a power of zero")
            return a
        if not b:
            return self.mp.mpf(1)
        if abs(b) * (abs(int(self.mp.mag(a))) + 4) > 4 * _MOST_DIGITS:
            raise NoValue("too large a power")
        return self.mp.power(a, b)

    def root(self, a: Any, n: Any) -> Any:
        if n == 2:
            return self.mp.sqrt(a)
        if not self.mp.isint(n) and not self.mp.im(a) and a > 0 and n:
            return self.power(a, 1 / n)
        if not self.mp.isint(n) or not 2 <= n <= 1000:
            raise NoValue("no root of that order")
        if n % 2 and not self.mp.im(a) and a < 0:  # as at school: the cube root of -8 is -2
            return -self.mp.root(-a, int(n))
        return self.mp.root(a, int(n))

    def of_gamma(self, a: Any) -> Any:
        if self.mp.dps > _MOST_DIGITS_OF_GAMMA:
            raise NoValue("too many digits")
        return self.moderate(a, 300)

    def moderate(self, a: Any, most: int) -> Any:
        if abs(a) > most:
            raise NoValue("too large an argument")
        return a


def is_closed(tree: Node) -> bool:
    """Whether its value is one number: there is no symbol in it, no unknown function and nothing of a sum."""
    is_open = tree.op in ("apply", "log", *BINDERS) or (tree.op == "symbol" and tree.name.startswith("#"))
    return not is_open and not symbols(tree) and all(map(is_closed, tree.parts))
