"""zaya eval, on a few sums and a random model.

1. Both tables fit the terminal, the least important columns go first; result.md holds them whole.
2. What was interrupted goes on by the command that is printed, and ends with the same result.
3. A dry run writes nothing; a system that is not there is one error.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.fakes import tiny_checkpoint
from zaya.cli import main
from zaya.eval import suite

RECIPE = """
problems = 2
k = 2
max_tokens = 8
[tasks.sums]
env = "arithmetic"
[systems.first]
model = "model"
[systems.last]
model = "model"
[ttc.small.rsa]
population = 2
fan_in = 2
rounds = 2
think_budget = 8
tail_tokens = 4
final_budget = 8
answer_reserve = 2
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(Path("model"))
    Path("micro").mkdir()
    Path("micro/eval.toml").write_text(RECIPE)
    return Path("micro/eval.toml")


def test_from_begin_to_end(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    original = suite.rounds_of

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "rounds_of", interrupt)
    assert main(["eval", "--config", str(file), "problems=3"]) == 130
    *_, said, command = capsys.readouterr().out.splitlines()
    assert said == "interrupted; what was finished is kept; to go on:"
    assert command == "  zaya eval --config micro/eval.toml problems=3 --out runs/micro/eval"
    assert Path("runs/micro/eval/last.sums.jsonl").is_file()
    monkeypatch.setattr(suite, "rounds_of", original)
    assert main(command.split()[1:]) == 0
    wide = capsys.readouterr().out
    lines = wide.splitlines()
    assert lines[0].split() == ["stage", "accuracy", "gain"], "no run, so no log to quote"
    assert [line.split()[0] for line in lines[1:3]] == ["first", "last"]
    assert lines[4].split() == ["way", "accuracy", "gain", "tokens"]
    assert [re.split("  +", line)[0] for line in lines[5:10]] == [
        "one sample", "vote of 6 samples", "Markovian RSA, 1 round", "Markovian RSA, 2 rounds", "its vote at the end",
    ]  # fmt: skip
    assert "Percent of 3 problems" in wide
    assert lines[-1] == "runs/micro/eval/result.md has it in Markdown"
    assert "Markovian RSA, 2 rounds" in Path("runs/micro/eval/result.md").read_text()
    monkeypatch.setenv("COLUMNS", "40")
    assert main(command.split()[1:]) == 0
    narrow = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in narrow[:-1]) <= 40
    assert "RSA, 2 rounds" in "\n".join(narrow)
    assert re.findall("[0-9.]+ ±?", lines[6])[:1] == re.findall("[0-9.]+ ±?", narrow[6])[:1]


def test_a_dry_run_writes_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path(".").rglob("*"))
    words = ["eval", "--config", str(file), "systems.first.model=nowhere", "--dry-run", "--out", "there"]
    assert main(words) == 0
    assert sorted(Path(".").rglob("*")) == before
    out = capsys.readouterr().out
    assert "# results: there\n# systems: first (nowhere), last (model)\n" in out
    assert "# 2 problems that are made, 2 samples of each by every system\n" in out
    assert "# thinking in rounds, small: last, 6 rollouts a problem\n" in out
    Path("again.toml").write_text(out)
    assert main(["eval", "--config", "again.toml", "--dry-run", "--out", "there"]) == 0
    assert capsys.readouterr().out == out


def test_a_system_that_is_not_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--config", str(file), "systems.first.model=nowhere"]) == 2
    assert capsys.readouterr().err == (
        "error: the system first is not there: nowhere\nhint: run the stage that makes it\n"
    )
