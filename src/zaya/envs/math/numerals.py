"""Numerals as they stand in a formula: `42`, `0.1\\overline{6}`, `1.5e3`, `2\\frac{1}{2}`, `2 1/2`."""

from __future__ import annotations

import re
from fractions import Fraction

from zaya.envs.math.tree import Unreadable

_NUMBER = re.compile(r"(\d+\.\d*|\.\d+|\d+)")
_REPEATING = re.compile(r"(\d*)\.(\d*)(?:\\overline\{(\d+)\}|\\overline(\d)|\\bar\{(\d+)\}|\\dot\{(\d)\}|\\dot(\d))")
_SCIENTIFIC = re.compile(r"(\d+\.\d*[eE][+-]?\d{1,4}|\d+E[+-]?\d{1,4}|\d+e\d{1,4})(?![\d.])")
_MIXED = re.compile(r"(\d+) ?\\frac(?:\{(\d+)\}\{(\d+)\}|(\d)(\d))|(\d+) (\d+)/(\d+)(?![\d.])")


def numeral(text: str, at: int) -> tuple[Fraction, str, int]:
    """The value of the numeral there, as it is written, and where it ends. Raises Unreadable."""
    if match := _MIXED.match(text, at):
        whole, top, bottom = (int(digits) for digits in match.groups() if digits)
        if not 0 < top < bottom:
            raise Unreadable("neither a mixed number nor surely a product")
        return whole + Fraction(top, bottom), match[0], match.end()
    if match := _REPEATING.match(text, at):
        fixed, period = match[2], next(digits for digits in match.groups()[2:] if digits)
        value = Fraction(int((match[1] or "0") + fixed), 10 ** len(fixed))
        value += Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
        return value, match[0], match.end()
    if match := _SCIENTIFIC.match(text, at):
        return Fraction(match[1]), match[0], match.end()
    match = _NUMBER.match(text, at)
    if match is None:
        raise Unreadable("no number")
    if re.match(r"[eE][+-]?\d", text[match.end() :]):
        raise Unreadable("2e-3 has two readings")
    return Fraction(match[1].rstrip(".")), match[1], match.end()
