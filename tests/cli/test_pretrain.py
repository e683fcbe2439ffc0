"""zaya pretrain and zaya sft: what they say, what they refuse, and that a dry run writes nothing."""

from __future__ import annotations

import signal
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.train.stages import recipe
from zaya.cli import main
from zaya.config import load, to_toml
from zaya.model.flops import active_parameters, parameters
from zaya.model.layouts import load_model
from zaya.train import loop
from zaya.train.recipe import StageConfig, memory
from zaya.train.stage import open_stage


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe in micro/, in the directory the command is run in."""
    monkeypatch.chdir(tmp_path)
    config = recipe(Path("."), schedule={"total_tokens": 1000, "warmup_tokens": 0, "decay_tokens": 0})
    Path("micro").mkdir()
    Path("micro/first.toml").write_text(to_toml(config))
    return Path("micro/first.toml")


def test_a_dry_run_says_what_would_be_and_writes_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(".").rglob("*")}
    assert main(["pretrain", "--config", str(file), "optim.lr=0.5", "--dry-run"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path(".").rglob("*")} == before
    out = capsys.readouterr().out
    stage = open_stage(load(StageConfig, file, ["optim.lr=0.5"]), pytest.fail)
    Path("again.toml").write_text(out)
    assert to_toml(load(StageConfig, "again.toml")) == to_toml(stage.config)
    assert "# run: runs/micro/first, from fresh weights\n" in out
    total, active = parameters(stage.model).total, active_parameters(stage.model).total
    assert f"# parameters: {total:,}, active per token {active:,}\n" in out
    assert "# tokens: at most 192 a step, 1,000 in all, so 6 steps or a few more\n" in out
    needed = memory(stage.config, stage.model)
    assert (needed["weights"], needed["gradients"]) == (4 * total, 4 * total)
    # Muon holds one number for a weight and AdamW two
    assert 4 * total < needed["optimiser"] < 8 * total
    narrow = memory(replace(stage.config, run=replace(stage.config.run, precision="report")), stage.model)
    assert narrow["weights"] + narrow["optimiser"] == needed["weights"] // 2 + needed["optimiser"] + 4 * total


def test_a_run_from_begin_to_end(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, original = count(1), loop.train_step

    def step(*args: Any, **settings: Any) -> Any:
        if next(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **settings)

    monkeypatch.setattr(loop, "train_step", step)
    words = ["pretrain", "--config", str(file), "optim.lr=0.01"]
    assert main(words) == 130
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [
        "interrupted after step 2, saved; to go on:",
        "  zaya pretrain --config micro/first.toml optim.lr=0.01 --out runs/micro/first",
    ]
    assert main(said[-1].split()[1:]) == 0
    captured = capsys.readouterr()
    assert "resuming runs/micro/first after step 2\n" in captured.err
    assert "held out, after step 6: loss " in captured.out
    assert "  zaya generate runs/micro/first/model 'What is 2 + 2?'\n" in captured.out
    assert main(words) == 0
    assert "this run was finished before: 6 steps, " in capsys.readouterr().out
    assert main(["generate", "runs/micro/first/model", "1+1", "--raw", "--max-tokens", "3"]) == 0


def test_fine_tuning_follows(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--config", str(file)]) == 0
    chat = ["sft", "--config", str(file), "init=runs/micro/first", "tokenizer=none", "model={}", "stop={patience=1}"]
    assert main([*chat, "data.text.weight=1", "--out", "chat"]) == 0
    assert load_model("chat/model").config.num_layers == 2
    text = "data={text={kind='text_folder',path='text'}}"
    capsys.readouterr()
    assert main([*chat, text, "--out", "other"]) == 2
    assert capsys.readouterr().err.startswith("error: a recipe for fine-tuning has conversations")
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["optim.lrr=1"], "unknown key 'optim.lrr'\nhint: did you mean optim.lr?"),
        (["model.hidden=1"], "unknown key 'model.hidden'\nhint: did you mean model.hidden_size?"),
        (["run.precison=report"], "unknown key 'run.precison'\nhint: did you mean run.precision?"),
        (["data.text.wieght=2"], "unknown key 'data.text.wieght'\nhint: did you mean data.text.weight?"),
        (["data.text.path=none"], "data of kind text_folder needs a path"),
        (["data.text.exclude=['a*']"], "data of kind text_folder takes no exclude"),
        (["data.text.context=64"], "data.text.context exceeds the loader's: 64 > 48"),
        (["data={}"], "there is nothing to learn from"),
        (["run.micro_tokens=40"], "run.micro_tokens must hold a sequence of loader.context: 40, 48"),
        (["tokenizer=none"], "required and not given: tokenizer"),
        (["tokenizer=nowhere"], "the tokenizer is not there: nowhere\nhint: make it with zaya prepare"),
        (["tokenizer=text"], "text has no tokenizer.json"),
        (["model.vocab_size=200"], "the tokenizer has ids up to 267, the model only 200 rows"),
        (["model.preset=mikro"], "no model preset is called 'mikro'\nhint: did you mean micro?"),
        (["stop={patience=0}"], "stop.patience must be at least 1"),
        (["stop={}", "validation.held_out=0"], "stop needs validation"),
        (
            ["init=runs/base"],
            "the stage to start from is not there: runs/base has no checkpoint\nhint: make it with zaya",
        ),
    ],
)
def test_what_is_refused(file: Path, changes: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--config", str(file), *changes]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not Path("runs").exists()
