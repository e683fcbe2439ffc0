"""Results as tables, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zaya.eval.metrics import Estimate
from zaya.eval.report import percent
from zaya.eval.scores import StageRow, SuiteResult
from zaya.eval.thinking import ThinkingRow, TtcConfig


def stage_table(rows: Sequence[StageRow]) -> list[list[str]]:
    """Head and cells."""
    is_loose = any(row.loose is not None for row in rows)
    head = ["stage", "loss", "accuracy", *["loose"] * is_loose, "gain", "load entropy", "tokens", "seconds"]
    cells = [
        [
            row.name,
            _number(row.loss, ".3f"),
            percent(row.accuracy),
            *["" if row.loose is None else percent(row.loose)] * is_loose,
            _gain(row.gain),
            "" if row.entropy_mean is None else f"{row.entropy_mean:.3f} / {row.entropy_min:.3f}",
            _number(row.tokens, ",d"),
            _number(row.seconds, ",.0f"),
        ]
        for row in rows
    ]
    return [head, *cells]


def task_table(rows: Sequence[StageRow]) -> list[list[str]]:
    """Head and cells: tasks below each other, systems beside each other."""
    head = ["task", "problems", "samples", *(row.name for row in rows), "cut off"]
    cells = []
    for name, first in rows[0].tasks.items():
        scores = [row.tasks[name] for row in rows]
        lines = [(name, [percent(score.accuracy) for score in scores])]
        if first.loose is not None:
            lines.append((f"{name}, loose", ["" if s.loose is None else percent(s.loose) for s in scores]))
        if first.instructions is not None:
            lines.append((f"{name}, instructions", [f"{100 * (score.instructions or 0):.1f}" for score in scores]))
        cut = " / ".join(f"{100 * score.truncated:.0f} %" for score in scores)
        cells += [[line, str(first.accuracy.num_problems), str(first.k), *found, cut] for line, found in lines]
    return [head, *cells]


def part_tables(rows: Sequence[StageRow]) -> list[list[list[str]]]:
    """A table by level or category of every task that has several; levels and categories below each other."""
    tables = []
    for name in rows[0].tasks:
        for word in ("level", "category"):
            parts: list[Mapping[Any, Estimate]] = [
                row.tasks[name].levels if word == "level" else row.tasks[name].categories for row in rows
            ]
            if not parts[0]:
                continue
            head = [f"{name}, by {word}", "problems", *(row.name for row in rows)]
            cells = [
                [
                    str(part),
                    str(estimate.num_problems),
                    *(percent(some[part]) if part in some else "" for some in parts),
                ]
                for part, estimate in parts[0].items()
            ]
            tables.append([head, *cells])
    return tables


def thinking_table(rows: Sequence[ThinkingRow]) -> list[list[str]]:
    """Head and cells."""
    head = ["way", "accuracy", "gain", "tokens"]
    cells = [[row.name, percent(row.accuracy), _gain(row.gain), _number(row.tokens, ",.0f")] for row in rows]
    return [head, *cells]


def markdown(result: SuiteResult, forms: Mapping[str, TtcConfig]) -> str:
    """All tables, and what they stand on."""
    parts = [
        f"{result.stages[0].accuracy.num_problems} problems. Percent, ± the 95 % interval over new problems; gains are "
        "paired, over the row above or over one sample. Load entropy: the least moving average from a fifth of the run "
        "on, mean over layers / worst layer. Cut off: samples that the budget ended.",
        *_about_loose(result.stages),
        _markdown(stage_table(result.stages)),
        _markdown(task_table(result.stages)),
        *map(_markdown, part_tables(result.stages)),
    ]
    if result.thinking:
        parts.append(f"Ways of thinking, on {result.thinking[0].accuracy.num_problems} problems: those without tools.")
        parts += [*map(_described, forms.items()), _markdown(thinking_table(result.thinking))]
    return "\n\n".join(parts) + "\n"


def _about_loose(rows: Sequence[StageRow]) -> list[str]:
    if all(row.loose is None for row in rows):
        return []
    return [
        "Accuracy takes answers as they stand. Loose, as in IFEval, an instruction may also be followed by what is "
        "left of an answer without its first line, its last or both, with asterisks or without."
    ]


def _described(item: tuple[str, TtcConfig]) -> str:
    name, rsa = item[0], item[1].config
    return (
        f"Markovian RSA {name}: population {rsa.population}, fan-in {rsa.fan_in}, rounds {rsa.rounds}, think budget "
        f"{rsa.think_budget}, tails of {rsa.tail_tokens} tokens. Its score is the mean over all candidates of a round."
    )


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(cells[0]) - 1)]
    lines = [cells[0], rule, *cells[1:]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def _gain(gain: Estimate | None) -> str:
    if gain is None:
        return ""
    text = percent(gain)
    return text if text.startswith("-") else f"+{text}"


def _number(value: float | int | None, form: str) -> str:
    return "" if value is None else format(value, form)
