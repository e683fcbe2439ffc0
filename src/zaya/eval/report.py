"""Results side by side, for a terminal and as Markdown.

system         accuracy     tokens
single        61.2 ±3.1      1,840
rsa_16k_4k    70.9 ±2.8     52,310
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from zaya.eval.metrics import Estimate, avg_at_k
from zaya.eval.records import Scored, by_problem

Interval = Literal["problems", "sampling"]

_HEAD = ("system", "accuracy", "tokens")


@dataclass(frozen=True, slots=True)
class Row:
    """One system on one set of problems."""

    name: str
    accuracy: Estimate
    tokens: float
    """Drawn for one value, on average."""
    left_out: int = 0
    """Values that could not be had."""


def summarise(name: str, records: Sequence[Scored]) -> Row:
    """A row from the records of one evaluation. Raises UsageError where none of them counts."""
    counted = [record.tokens for record in records if record.value is not None]
    accuracy = avg_at_k(by_problem(records))
    return Row(name, accuracy, mean(counted), len(records) - len(counted))


def table(rows: Sequence[Row], *, interval: Interval = "problems", width: int = 80) -> str:
    """Lines of at most so many characters; long names are shortened."""
    cells = [_HEAD, *(_cells(row, interval) for row in rows)]
    accuracy, tokens = (max(len(cell[i]) for cell in cells) for i in (1, 2))
    room = max(8, min(max(len(cell[0]) for cell in cells), width - accuracy - tokens - 6))
    lines = [f"{_short(cell[0], room):{room}}   {cell[1]:>{accuracy}}   {cell[2]:>{tokens}}" for cell in cells]
    return "\n".join([*lines, "", *textwrap.wrap(_note(rows, interval), width)]) + "\n"


def markdown(rows: Sequence[Row], *, interval: Interval = "problems") -> str:
    """The same as a table in Markdown."""
    cells = [_HEAD, ("---", "---:", "---:"), *(_cells(row, interval) for row in rows)]
    lines = ["| " + " | ".join(part.replace("|", "\\|") for part in cell) + " |" for cell in cells]
    return "\n".join([*lines, "", _note(rows, interval)]) + "\n"


def _cells(row: Row, interval: Interval) -> tuple[str, str, str]:
    return row.name, percent(row.accuracy, interval), f"{row.tokens:,.0f}"


def percent(estimate: Estimate, interval: Interval = "problems") -> str:
    """Such as `61.2 ±3.1`, in percent; without the interval where there is none."""
    half = estimate.problems if interval == "problems" else estimate.sampling
    return f"{100 * estimate.mean:.1f}" + ("" if half is None else f" ±{100 * half:.1f}")


def _note(rows: Sequence[Row], interval: Interval) -> str:
    counts = [row.accuracy.num_problems for row in rows]
    number = f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    about = "over new problems" if interval == "problems" else "of sampling at these problems"
    note = f"Percent, ± the 95 % interval {about}; {number} problems."
    if lost := [f"{row.name} {row.left_out}" for row in rows if row.left_out]:
        note += f" Left out because something failed: {', '.join(lost)}."
    return note


def _short(name: str, room: int) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"
