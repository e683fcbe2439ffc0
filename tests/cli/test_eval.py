"""zaya eval, on a few sums and a random model.

1. Both tables fit the terminal, the least important columns go first; result.md holds them whole.
2. What was interrupted goes on by the command that is printed, and ends with the same result.
3. A dry run writes nothing; a system that is not there is one error.
4. A single system is shown by task, level and category. What has a name is listed.
5. Every recipe under recipes/eval is one, and that for a user's file runs with a file of two lines.
6. What was written can be compared and shown.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.fakes import tiny_checkpoint
from zaya.cli import main
from zaya.config import load
from zaya.envs import registry
from zaya.eval import suite
from zaya.eval.presets import BENCHMARKS, SAMPLING
from zaya.eval.suite import SuiteConfig

RECIPES = Path(__file__).parents[2] / "recipes/eval"
TWO = Path(__file__).parents[1] / "eval/data/two.jsonl"

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
    assert main(["eval", "report", "runs/micro/eval", "--out", "report.html"]) == 0
    assert capsys.readouterr().out == "report.html shows 3 evaluations\n"
    assert "last: Markovian RSA, C 2, τ 4" in Path("report.html").read_text("utf-8")
    assert main(["eval", "compare", "runs/micro/eval", "runs/micro/eval"]) == 0
    assert capsys.readouterr().out.count("3 problems are shared") == 3
    assert main(["eval", "compare", "runs/micro/eval:first", "runs/micro/eval:last"]) == 0
    assert capsys.readouterr().out.count("3 problems are shared") == 1
    assert main(["eval", "compare", "runs/micro/eval:lost", "runs/micro/eval"]) == 2
    assert "no evaluation in runs/micro/eval is called 'lost'\nhint: did you mean last?" in capsys.readouterr().err
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


def test_a_single_system_is_shown_whole(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--config", str(file), "tasks.sums.difficulties=[0, 1]", "ttc={}"]
    assert main([*words, "systems.first={model = 'model'}"]) == 0
    out = capsys.readouterr().out
    assert "sums, by level" not in out  # there are two systems
    single = "systems={only = {model = 'model'}}"
    assert main([*words, single, "--out", "other"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["task", "problems", "samples", "only", "cut", "off"]
    assert [line.split()[0] for line in lines[lines.index("") + 1 :] if line[:1].isdigit()] == ["0", "1"]


def test_what_has_a_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for width in ("100", "50"):
        monkeypatch.setenv("COLUMNS", width)
        assert main(["eval", "--list"]) == 0
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= int(width)
        for name in (*BENCHMARKS, *SAMPLING):
            assert re.search(rf"^{name} ", out, re.MULTILINE)
    assert main(["eval"]) == 2
    assert "the recipe to evaluate is missing" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes(recipe: Path) -> None:
    config = load(SuiteConfig, recipe)
    assert list(config.systems) == ["model"]
    for task in config.tasks.values():
        if task.env is not None and "*" not in task.env:
            registry.get(task.env)


def test_a_file_of_two_lines(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "eval", "--config", str(RECIPES / "aime.toml"), f"tasks.aime25.file={TWO}", "systems.model.model=model",
        "tasks.aime25.k=2", "max_tokens=8", "ttc={}", "--out", "out",
    ]  # fmt: skip
    assert main(words) == 0
    assert re.search(r"^aime25 +2 +2 +0\.0 ±0\.0", capsys.readouterr().out, re.MULTILINE)
    header = json.loads(Path("out/model.aime25.jsonl").read_text().split("\n")[0])
    assert (header["task"], header["temperature"], header["top_p"]) == ("aime25", 1.0, 0.95)
    assert len(header["content"]) == 32
    words[3] = "tasks.aime25.fields={prompt = 'question'}"
    assert main([*words, f"tasks.aime25.file={TWO}"]) == 2
    assert "two.jsonl:1 has no field 'question', which is its prompt" in capsys.readouterr().err
