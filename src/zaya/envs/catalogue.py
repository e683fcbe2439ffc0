"""What the last audit found: which environments are in the default mix, at which levels, and why others are not.

`zaya env check --all --write` makes `catalogue.json` and the page docs/reference/environments.md from it. A row stays
where the package of its environment is not installed, so an audit in two places, each with some of them, is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from zaya.envs import reasoning_core
from zaya.envs.mixture import TaskConfig

FILE = Path(__file__).with_name("catalogue.json")
BINARY_WEIGHT = 0.5
"""Of a task with two answers, beside 1: half of what it pays is luck."""

APART = reasoning_core.PREFIX
"""A family with an extra of its own, too heavy to ask of everyone: looked at like the others, but in no count and no
default mix, which is the same wherever it is drawn."""


@cache
def catalogue() -> Mapping[str, Mapping[str, Any]]:
    """What was found of each environment, by name, as `Audit.row` wrote it down."""
    if not FILE.is_file():
        return {}
    return {row["env"]: row for row in json.loads(FILE.read_text("utf-8"))}


def left_out(row: Mapping[str, Any]) -> str:
    """Why an environment is not in the default mix; empty where it is."""
    apart = ["an extra of its own"] if row["env"].startswith(APART) else []
    return "; ".join([*row["failures"], *apart])


def in_default_mix(row: Mapping[str, Any]) -> bool:
    return not left_out(row)


def default_mix() -> dict[str, TaskConfig]:
    """The environments that passed every check, each at its lowest level to begin with."""
    return {
        name: TaskConfig(env=name, difficulties=(row["lowest"],), weight=BINARY_WEIGHT if row["choices"] == 2 else 1.0)
        for name, row in catalogue().items()
        if in_default_mix(row)
    }


def write_catalogue(rows: Iterable[Mapping[str, Any]], file: Path = FILE) -> None:
    """A line for each, by name, so that a new audit is read as a difference."""
    lines = [json.dumps(row, ensure_ascii=True) for row in sorted(rows, key=lambda row: row["env"])]
    file.write_text("[\n" + ",\n".join(lines) + "\n]\n", "utf-8")


def reference_page(rows: Sequence[Mapping[str, Any]]) -> str:
    """docs/reference/environments.md."""
    rows = sorted(rows, key=lambda row: (row["category"], row["env"]))
    mixed = [row for row in rows if in_default_mix(row)]
    apart = [row for row in rows if row["env"].startswith(APART)]
    lines = [
        "# All environments",
        "",
        "Made by `make audit`, that is `zaya env check --all --write`. What each column means is in the docstring of",
        "[envs/audit.py](../../src/zaya/envs/audit.py); what an environment is, on",
        "[its page](../concepts/environments.md).",
        "",
        f"{len(mixed)} of {len(rows) - len(apart)} environments pass every check and are in the default mix.",
        "",
        "Guess: the share of problems that the best constant answer is right for, at the level where it is largest.",
        "Times are means in milliseconds through the pool, on a machine that had other work.",
    ]
    if apart:
        passed = sum(row["passed"] for row in apart)
        lines += ["", f"Of {len(apart)} more, `{APART}`, with an extra of that name, {passed} pass. No count has them."]
    for category in dict.fromkeys(row["category"] for row in rows):
        inside = [row for row in rows if row["category"] == category]
        lines += ["", f"## {category[:1].upper()}{category[1:]}", ""]
        lines += ["| environment | levels | guess | longest prompt | make | score | in the default mix |"]
        lines += ["|---|---|---:|---:|---:|---:|---|"]
        for row in inside:
            levels = f"{row['lowest']} and up" if row["highest"] is None else f"{row['lowest']} to {row['highest']}"
            why = "no: " + left_out(row).replace("|", "\\|") if left_out(row) else "yes"
            if row["choices"] == 2 and in_default_mix(row):
                why = "yes, at half weight: two answers"
            lines.append(
                f"| `{row['env']}` | {levels} | {row['constant']:.0%} | {row['longest_prompt']:,} "
                f"| {row['sample_ms']:.1f} | {row['score_ms']:.2f} | {why} |"
            )
    return "\n".join(lines) + "\n"
