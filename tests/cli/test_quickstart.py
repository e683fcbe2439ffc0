"""zaya quickstart, with a tiny random model in the place of the embedded one.

1. A problem of each task, what was thought about it, and whether it is right; a table; what next.
2. What it asks is what the recipe of the embedded model's evaluation asks.
3. Without rlve-gym there are sums alone, and it is said.
4. Nothing but a command is wider than the terminal.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from tests.cli.fakes import tiny_checkpoint
from zaya import config as configuration
from zaya.cli import main, quickstart
from zaya.cli.quickstart import TASKS, brief
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Problem
from zaya.eval.suite import SuiteConfig
from zaya.ttc.rsa import PRESETS

RECIPE = Path(__file__).parents[2] / "recipes/micro/eval.toml"


def test_it_asks_what_the_recipe_asks() -> None:
    recipe = configuration.load(SuiteConfig, RECIPE)
    assert recipe.tasks == TASKS
    assert recipe.ttc["micro"].config == PRESETS["micro"]
    assert recipe.max_tokens == SuiteConfig(tasks=TASKS, systems=recipe.systems).max_tokens
    assert recipe.held_out == SuiteConfig(tasks=TASKS, systems=recipe.systems).held_out


def test_sums_alone_in_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tiny_checkpoint(tmp_path / "model")
    monkeypatch.setattr("zaya.model.embedded.embedded_directory", lambda: made)
    monkeypatch.setattr(quickstart, "_has_rlve", lambda: False)
    shorter = replace(PRESETS["micro"], think_budget=12, tail_tokens=6, final_budget=12, answer_reserve=4)
    monkeypatch.setitem(cast(dict, PRESETS), "micro", shorter)
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["quickstart", "--problems", "2", "--seed", "0"]) == 0
    out = capsys.readouterr().out
    flat = " ".join(out.split())
    assert "rlve-gym, which is not here" in flat
    assert "2 such problems, in 24 samples each" in flat
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("What is "))
    assert all(line.startswith("  ") for line in lines[at + 1 : lines.index("", at)])
    assert lines[lines.index("", at) - 1].startswith("  no answer: wrong, it is ")
    head = next(i for i, line in enumerate(lines) if line.startswith("way "))
    assert [line.split("  ")[0] for line in lines[head + 1 : head + 6]] == [
        "one sample", "vote of 24 samples", "RSA, 1 round", "RSA, 2 rounds", "its vote at the end",
    ]  # fmt: skip
    next_steps = next(i for i, line in enumerate(lines) if line.endswith("What next:"))
    assert max(map(len, lines[: next_steps + 1])) <= 40
    assert "  zaya chat" in lines[next_steps:]


def test_nothing_to_compare_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zaya.model.embedded.embedded_directory", lambda: Path("EMBEDDED"))
    assert main(["quickstart", "--problems", "0"]) == 2
    assert capsys.readouterr().err == "error: problems must be at least 1: 0\n"


def test_questions_in_brief() -> None:
    problem = ARITHMETIC.sample(1, 0)
    assert f"{brief(problem)}\n" in problem.prompt

    def rlve(**parameter: object) -> Problem:
        return Problem("rlve/X", "A long story\nof many lines", {"config": {"parameter": parameter}}, 0, 0)

    assert brief(rlve(N=3, array=[16, 3, 21])) == "Sort 16 3 21"
    assert brief(rlve(N=3, A=[4, 2, 5], K=2)) == "The least of every 2 neighbours in 4 2 5"
    assert brief(rlve(a=1, b=2)) == "A long story"
