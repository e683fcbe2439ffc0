"""Accuracy against generated tokens, as an SVG with no library, no script and no style of its own.

Tokens are on a logarithmic axis; points of a family are joined; a thick bar is the interval of sampling, a thin one
that over new problems. Colours and fonts are classes of `eval.page`; a family also has a shape, for who sees none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from zaya.eval.markup import text_of
from zaya.eval.report import Point

COLOURS, SHAPES = 6, 4
"""No common divisor above 2, so that twelve families look different."""
_LETTER = 6.4
"""Width of a letter at the font size of labels, on average."""


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def draw(points: Sequence[Point], width: int, height: int, *, id: str, numbers: bool = False) -> str:
    """The figure; `numbers` labels points by their number in the list, from 1, where there is no room for words."""
    left, right, top, bottom = 46, 14, 12, 44
    low_x, high_x = _log_range([point.tokens for point in points])
    ends = [end for point in points for end in _interval(point.accuracy.mean, point.accuracy.problems)]
    low_y, high_y, step = _percent_range(ends)

    def x_of(tokens: float) -> float:
        return left + (math.log10(tokens) - low_x) / (high_x - low_x) * (width - left - right)

    def y_of(share: float) -> float:
        return top + (high_y - share) / (high_y - low_y) * (height - top - bottom)

    families = list(dict.fromkeys(point.family for point in points))
    title = "Accuracy against generated tokens per problem"
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{id}-t {id}-d" class="plot">',
        f'<title id="{id}-t">{title}</title>',
        f'<desc id="{id}-d">{text_of(_description(points))}</desc>',
    ]
    for i in range(round((high_y - low_y) / step) + 1):
        y = y_of(low_y + i * step)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{width - right}"/>')
        parts.append(
            f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * (low_y + i * step):.0f}</text>'
        )
    for tokens in _ticks(low_x, high_x, width):
        x = x_of(tokens)
        parts.append(f'<path class="grid" d="M{x:.1f} {top}V{height - bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle">{_short(tokens)}</text>'
        )
    middle = left + (width - left - right) / 2
    parts.append(
        f'<text class="axis" x="{middle:.1f}" y="{height - 6}" text-anchor="middle">generated tokens per problem</text>'
    )
    parts.append(
        f'<text class="axis" transform="translate(11 {top + (height - top - bottom) / 2:.1f}) rotate(-90)" '
        'text-anchor="middle">accuracy, percent</text>'
    )
    marks, taken = [], []
    for number, family in enumerate(families):
        members = sorted((point for point in points if point.family == family), key=lambda point: point.tokens)
        places = [(x_of(point.tokens), y_of(point.accuracy.mean)) for point in members]
        colour = f"f{number % COLOURS}"
        if len(places) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            marks.append(f'<path class="line {colour}" d="M{path}"/>')
            taken += [_Box(x, y - 1, x + 1, y + 1) for x, y in _along(places)]
        for point, (x, y) in zip(members, places, strict=True):
            for half, kind in ((point.accuracy.problems, "thin"), (point.accuracy.sampling, "thick")):
                if half is not None:
                    low, high = _interval(point.accuracy.mean, half)
                    marks.append(f'<path class="{kind} {colour}" d="M{x:.1f} {y_of(low):.1f}V{y_of(high):.1f}"/>')
            marks.append(marker(number, x, y))
            taken.append(_Box(x - 5, y - 5, x + 5, y + 5))
    for number, point in enumerate(points, 1):
        text = str(number) if numbers else _clipped(point.label)
        x, y = x_of(point.tokens), y_of(point.accuracy.mean)
        box, anchor = _place(x, y, len(text) * _LETTER, taken, _Box(left, top, width, height - bottom))
        taken.append(box)
        colour = f"f{families.index(point.family) % COLOURS}"
        at = f'x="{box.left if anchor == "start" else box.right:.1f}" y="{box.bottom - 3:.1f}"'
        marks.append(f'<text class="label {colour}" {at} text-anchor="{anchor}">{text_of(text)}</text>')
    return "".join([*parts, *marks, "</svg>"])


def marker(number: int, x: float, y: float) -> str:
    """The shape of a family, in its colour."""
    shape = number % SHAPES
    colour = f"mark f{number % COLOURS}"
    if shape == 0:
        return f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    outline = {
        1: [(-4, -4), (4, -4), (4, 4), (-4, 4)],
        2: [(0, -5.5), (5, 4), (-5, 4)],
        3: [(0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)],
    }[shape]
    return f'<path class="{colour}" d="M{"L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in outline)}Z"/>'


def _along(places: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Places on the line through these, a few units apart."""
    for (x, y), (to_x, to_y) in pairwise(places):
        steps = math.ceil(math.hypot(to_x - x, to_y - y) / 6)
        yield from ((x + (to_x - x) * i / steps, y + (to_y - y) * i / steps) for i in range(steps))


def _place(x: float, y: float, length: float, taken: Sequence[_Box], within: _Box) -> tuple[_Box, str]:
    """Where a label meets nothing: beside its point, else further above or below; else where it stands in the way."""
    places = []
    for away in (0, -13, 13, -26, 26, -39, 39):
        places.append((_Box(x + 8, y - 9 + away, x + 8 + length, y + 5 + away), "start"))
        places.append((_Box(x - 8 - length, y - 9 + away, x - 8, y + 5 + away), "end"))
    inside = [
        (box, anchor)
        for box, anchor in places
        if box.left >= within.left
        and box.right <= within.right
        and box.top >= within.top
        and box.bottom <= within.bottom
    ]
    free = [(box, anchor) for box, anchor in inside if not any(box.meets(other) for other in taken)]
    return (free or inside or places)[0]


def _interval(middle: float, half: float | None) -> tuple[float, float]:
    return max(0.0, middle - (half or 0)), min(1.0, middle + (half or 0))


def _percent_range(ends: Sequence[float]) -> tuple[float, float, float]:
    """Lowest, highest and step of an axis with four to eight round numbers on it."""
    spread = max(max(ends) - min(ends), 0.02)
    step = next(step for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if spread / step <= 6)
    low = max(0.0, math.floor(min(ends) / step - 1e-9) * step)
    high = min(1.0, math.ceil(max(ends) / step + 1e-9) * step)
    return (low, high, step) if high > low else (low - step, high, step)


def _log_range(tokens: Sequence[float]) -> tuple[float, float]:
    low, high = math.log10(min(tokens)), math.log10(max(tokens))
    room = max(0.12, (high - low) * 0.08)
    return low - room, high + room


def _ticks(low: float, high: float, width: int) -> list[float]:
    """Round numbers, as many as there is room for."""
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [d * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for d in digits]
        found = [tick for tick in found if low <= math.log10(tick) <= high]
        if len(found) * 60 <= width:
            break
    return found or [10 ** ((low + high) / 2)]


def _short(tokens: float) -> str:
    """1,500 is 1.5k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{letter}"
    return f"{tokens:.3g}"


def _clipped(label: str) -> str:
    return label if len(label) <= 24 else f"{label[:23]}…"


def _description(points: Sequence[Point]) -> str:
    lines = [
        f"{point.family}, {point.label}: {100 * point.accuracy.mean:.1f} percent at {point.tokens:,.0f} tokens"
        for point in points
    ]
    return "; ".join(lines)
