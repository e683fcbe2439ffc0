"""Stand-ins in a formula for what has no value that could be computed: f(x), a_k, gcd(m, n), a sum to n, an integral.

Each is one fixed thing of its kind that nobody can choose, and has no property beyond those of the kind. Formulas that
agree with the stand-ins in place therefore agree for all of the kind, the true one among them:

    f(x, y)        some function, with no symmetry; of gcd, lcm, max and min one that knows no order
    floor          x less some periodic function: a whole number may go in or out, and nothing else
    sum, integral  something linear in what is summed, and different for different bounds
    product        some function of what is multiplied and of the bounds

A sum is not worked out here, so `n(n+1)/2` for a sum to n is refused.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from zaya.core.rng import derive_seed

_SCALES = (1, 30, -10)
"""Where it is looked at what is summed: `|k-3|` is not `k-3`."""


@lru_cache(maxsize=1024)
def constant(*key: str | int) -> Fraction:
    """Between 1/2 and 2."""
    return Fraction(random.Random(derive_seed("math stand-in", *key)).randrange(1 << 19, 1 << 21), 1 << 20)


def places(own: str) -> list[Fraction]:
    """Where it is looked at what is summed over a symbol."""
    return [constant("place", own, scale) * scale for scale in _SCALES]


class StandIns:
    """Made of sines, in the arithmetic of a context of mpmath."""

    def __init__(self, mp: Any, fraction: Callable[[Fraction], Any], moderate: Callable[[Any], Any]) -> None:
        self.mp = mp
        self.fraction = fraction
        """A fraction as a number of the context."""
        self.moderate = moderate
        """A number, if it is not too large for a sine."""

    def applied(self, name: str, values: Sequence[Any]) -> Any:
        return self._of(name, sum(self._wave(value, name, index) for index, value in enumerate(values)))

    def unordered(self, name: str, values: Sequence[Any]) -> Any:
        return self._of(name, sum(self._wave(value, name, 0) for value in values))

    def floor(self, value: Any) -> Any:
        periodic = (self._wave(value, "floor", index, 2 * index * self.mp.pi) for index in (1, 2, 3))
        return value - self.mp.fsum(periodic)

    def over(self, op: str, low: Any, high: Any, values: Sequence[Any]) -> Any:
        """A sum, product or integral of what has these values at its places."""
        total = self.mp.fsum(self._constant(op, index) * value for index, value in enumerate(values))
        bounds = self.applied(f"{op} bounds", (low, high))
        return self.applied("prod", (total, bounds)) if op == "prod" else total * bounds

    def _of(self, name: str, value: Any) -> Any:
        return 3 + self._wave(value, name, -1)

    def _wave(self, value: Any, name: str, index: int, frequency: Any = None) -> Any:
        frequency = self._constant(name, index, "f") if frequency is None else frequency
        phase, height = self._constant(name, index, "p"), self._constant(name, index, "h")
        return height * self.mp.sin(self.moderate(frequency * value + phase))

    def _constant(self, *key: str | int) -> Any:
        return self.fraction(constant(*key))
