"""zaya rl and zaya prepare: what they say, and that a dry run writes nothing."""

from __future__ import annotations

import signal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.rl.runs import policy, recipe
from zaya.cli import main
from zaya.config import load, to_toml
from zaya.model.flops import parameters
from zaya.model.layouts import load_model
from zaya.rl import trainer
from zaya.rl.recipe import RlConfig
from zaya.ttc import corpus
from zaya.ttc.corpus import CorpusConfig, FileConfig, TaskConfig


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe in micro/, in the directory the command is run in."""
    monkeypatch.chdir(tmp_path)
    Path("micro").mkdir()
    config = recipe(policy(Path("start")), run={"steps": 2}, sampling={"max_rounds": 1})
    Path("micro/rl.toml").write_text(to_toml(config))
    return Path("micro/rl.toml")


def files() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(".").rglob("*")}


def test_a_dry_run_says_what_would_be_and_writes_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files()
    assert main(["rl", "--config", str(file), "optim.lr=0.5", "--dry-run"]) == 0
    assert files() == before
    out = capsys.readouterr().out
    Path("again.toml").write_text(out)
    assert load(RlConfig, "again.toml") == load(RlConfig, file, ["optim.lr=0.5"])
    total = parameters(load_model("start").config).total
    assert "# run: runs/micro/rl, from start\n" in out
    assert f"# parameters: {total:,}, active" in out
    assert "# a step: 2 groups of 4 rollouts of up to 16 tokens, sampled up to 1 times over; 2 steps\n" in out
    assert f"# tokens: at most {2 * 4 * 16 * 2} sampled in all\n" in out
    assert "# levels" not in out
    tasks = "tasks={sums = {env = 'arithmetic'}}"
    assert main(["rl", "--config", str(file), "--dry-run", tasks, "schedule={}", "calibration={budget = 5}"]) == 0
    out = capsys.readouterr().out
    assert "# levels: follow the policy, from what up to 5 groups find before the first step\n" in out
    assert f"# tokens: at most {2 * 4 * 16 * 2 + 5 * 4 * 16} sampled in all\n" in out


def test_a_run_from_begin_to_end(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, original = count(1), trainer.update

    def update(*args: Any, **settings: Any) -> Any:
        if next(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **settings)

    monkeypatch.setattr(trainer, "update", update)
    words = ["rl", "--config", str(file), "optim.lr=0.001"]
    assert main(words) == 130
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [
        "interrupted after step 1, saved; to go on:",
        "  zaya rl --config micro/rl.toml optim.lr=0.001 --out runs/micro/rl",
    ]
    assert main(said[-1].split()[1:]) == 0
    captured = capsys.readouterr()
    assert "resuming runs/micro/rl after step 1\n" in captured.err
    assert "finished: 2 steps, " in captured.out
    assert "  zaya generate runs/micro/rl/model 'What is 17 + 25?'\n" in captured.out
    assert main(words) == 0
    assert "runs/micro/rl was finished before\n" in capsys.readouterr().err
    assert main(["rl", "--config", str(file)]) == 2
    assert "holds a run of another recipe; what differs: optim.lr\n" in capsys.readouterr().err
    assert main(["rl", "--config", str(file), "optim.lrr=1"]) == 2
    assert capsys.readouterr().err == "error: unknown key 'optim.lrr'\nhint: did you mean optim.lr?\n"


def test_prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpus, "_SAMPLE_TEXTS", 20)
    config = CorpusConfig(
        tasks={"sums": TaskConfig(env="arithmetic")}, files={"a": FileConfig(kind="text", problems=5)}, vocabulary=300,
        library_exclude=("[!j]*",), library_share=0.05,
    )  # fmt: skip
    Path("tiny").mkdir()
    Path("tiny/corpus.toml").write_text(to_toml(config))
    before = files()
    assert main(["prepare", "--config", "tiny/corpus.toml", "files.a.problems=4", "--dry-run"]) == 0
    assert files() == before
    assert "# runs/tiny/corpus: 1 files of 4 problems, a tokenizer of 300\n" in capsys.readouterr().out
    assert main(["prepare", "--config", "tiny/corpus.toml"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "runs/tiny/corpus holds a.jsonl and tokenizer/\n"
    assert "runs/tiny/corpus/a.jsonl: 5 documents of 5 problems\n" in captured.err
    assert len(Path("runs/tiny/corpus/a.jsonl").read_text().splitlines()) == 5
    assert main(["prepare", "--config", "tiny/corpus.toml", "vocabulry=3"]) == 2
    assert capsys.readouterr().err == "error: unknown key 'vocabulry'\nhint: did you mean vocabulary?\n"
