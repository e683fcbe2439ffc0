"""The loop of reinforcement learning.

1. Four steps are two and two, bit for bit: after Ctrl-C, and after a kill in the middle of a save.
2. What is resumed is what was begun: another recipe is refused, with the names of what differs; what does not decide
   the result may change.
3. A finished run says so and is left alone; its result opens, with its tokenizer.
4. What is missing, and what is misspelt, is said; so is a directory in which another process is at work, and a run
   whose gradients are no numbers any more.
5. It learns: practice makes a policy that is often wrong right, by a margin that no accident gives (slow).
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import zaya
from tests.rl.runs import policy, recipe
from tests.train.stages import SHAPE, carry_out
from tests.train.stages import recipe as stage_recipe
from zaya.config import from_mapping, load, to_toml
from zaya.core.checkpoint import latest_checkpoint
from zaya.core.files import held
from zaya.core.metrics import read_metrics
from zaya.engine.engine import Engine
from zaya.engine.types import Request, SamplingParams
from zaya.envs.answers import INSTRUCTION
from zaya.envs.base import Stream
from zaya.envs.pool import TaskPool
from zaya.envs.stream import take
from zaya.errors import CheckpointError, ConfigError, UsageError
from zaya.model.layouts import load_model
from zaya.rl import trainer
from zaya.rl.loss import LossStats
from zaya.rl.recipe import RlConfig, RlRunConfig
from zaya.rl.trainer import train
from zaya.rl.update import UpdateRecord
from zaya.text import load_tokenizer
from zaya.train.optim import StepStats

STOPPED_AT = 2


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy(tmp_path_factory.mktemp("init") / "policy")


def log_of(directory: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(directory / "metrics.jsonl")]


def tensors_of(directory: Path) -> dict[str, Tensor]:
    checkpoint = latest_checkpoint(directory / "ckpt", pytest.fail)
    assert checkpoint is not None
    return checkpoint.tensors


def assert_same_run(one: Path, other: Path) -> None:
    assert log_of(one) == log_of(other)
    a, b = (latest_checkpoint(directory / "ckpt", pytest.fail) for directory in (one, other))
    assert a is not None
    assert b is not None
    assert a.state == b.state
    assert a.tensors.keys() == b.tensors.keys()
    for name, tensor in a.tensors.items():
        assert torch.equal(tensor, b.tensors[name]), name
    for file in (one / "model").iterdir():
        assert file.read_bytes() == (other / "model" / file.name).read_bytes(), file.name


def files_of(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


@pytest.fixture(scope="module")
def whole(init: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RlConfig, Path]:
    """A recipe, and the directory of its run without interruption."""
    config, directory = recipe(init), tmp_path_factory.mktemp("whole") / "run"
    assert train(config, directory, pytest.fail).finished
    return config, directory


# 1


def by_ctrl_c(config: RlConfig, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = count(1), trainer.update

    def update(*args: Any, **settings: Any) -> Any:
        if next(calls) == STOPPED_AT:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "update", update)
        at = train(config, directory, pytest.fail)
    assert (at.finished, at.step) == (False, STOPPED_AT)


def by_a_kill(config: RlConfig, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.parent.mkdir(exist_ok=True)
    file = directory.parent / "recipe.toml"
    file.write_text(to_toml(replace(config, run=replace(config.run, save_every_s=0.0))))
    code = f"""
import os, signal
import zaya.core.checkpoint as c
from zaya.cli import main
write, saves = c.write_file, 0
def killed(*args):
    global saves
    saves += 1
    for nbytes in write(*args):
        if saves == {STOPPED_AT + 1}:
            os.kill(os.getpid(), signal.SIGKILL)
        yield nbytes
c.write_file = killed
main(["rl", "--config", {str(file)!r}, "--out", {str(directory)!r}])
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(log_of(directory)) == STOPPED_AT + 1


@pytest.mark.parametrize("interrupt", [by_ctrl_c, by_a_kill])
def test_an_interrupted_run_is_the_run_that_was_not(
    whole: tuple[RlConfig, Path], interrupt: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, directory = whole
    interrupt(config, tmp_path / "run", monkeypatch)
    assert not (tmp_path / "run" / "model").exists()
    notices: list[str] = []
    assert train(config, tmp_path / "run", notices.append).finished
    assert notices == [f"resuming {tmp_path / 'run'} after step {STOPPED_AT}"]
    assert_same_run(directory, tmp_path / "run")


def test_what_a_run_leaves(whole: tuple[RlConfig, Path], init: Path) -> None:
    """Not only zeros are equal in bits: there were groups to learn from, attempts were shown, and weights moved."""
    config, directory = whole
    lines = log_of(directory)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["informative"] > 0 for line in lines)
    assert any("solve_rate/aggregate tests.rl.tasks:LENGTHS" in line for line in lines)
    assert all(abs(line["mismatch_kl"]) < 1e-8 for line in lines)
    assert all(line["length_max"] <= 16 for line in lines)
    before, after = (load_model(path, dtype="float32").state_dict() for path in (init, directory / "model"))
    saved = tensors_of(directory)
    for name, tensor in after.items():
        assert torch.equal(tensor, saved[f"model/{name}"]), name
        # biases steer the choice of experts, which is not this stage's to make
        assert torch.equal(tensor, before[name]) == ("balancing_bias" in name), name
    rates = {name: value["update_rms/embedding"] for name, value in zip("abcd", lines, strict=True)}
    assert all(math.isfinite(rate) and rate > 0 for rate in rates.values())
    assert load_tokenizer(directory / "model") is not None
    assert load(RlConfig, directory / "config.toml") == config


# 2 and 3


def test_another_recipe_is_refused(whole: tuple[RlConfig, Path]) -> None:
    config, directory = whole
    other = replace(
        config,
        sampling=replace(config.sampling, group_size=8),
        tasks=config.tasks | {"sums": replace(config.tasks["sums"], weight=2.0)},
    )
    message = "another recipe; what differs: sampling.group_size, tasks.sums.weight\n"
    with pytest.raises(ConfigError, match=message):
        train(other, directory, pytest.fail)


def test_a_finished_run_says_so_and_does_nothing(whole: tuple[RlConfig, Path]) -> None:
    config, directory = whole
    before, notices = files_of(directory), []
    settings = replace(config.run, save_every_s=7.0, workers=2, threads=None)
    at = train(replace(config, run=settings), directory, notices.append)
    assert (at.finished, at.step) == (True, 4)
    assert notices == [f"{directory} was finished before"]
    assert files_of(directory) == before


def test_a_result_that_is_not_written_yet_is(whole: tuple[RlConfig, Path], tmp_path: Path) -> None:
    """A kill between the last checkpoint and the model."""
    config, directory = whole
    for path in directory.rglob("*"):
        target = tmp_path / "run" / path.relative_to(directory)
        if path.is_file() and "model" not in path.relative_to(directory).parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    assert train(config, tmp_path / "run", lambda _: None).finished
    assert_same_run(directory, tmp_path / "run")


# 4


def test_what_is_missing_is_said(init: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the stage to start from is not there") as caught:
        train(recipe(tmp_path / "nothing"), tmp_path / "run", pytest.fail)
    assert f"zaya pretrain --config RECIPE --out {tmp_path / 'nothing'}, or zaya sft" in str(caught.value.hint)
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in init.iterdir():
        if "token" not in path.name:
            (bare / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match="bare has no tokenizer"):
        train(recipe(bare), tmp_path / "run", pytest.fail)
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match="is not empty and no run"):
        train(recipe(init), tmp_path / "mine", pytest.fail)


def test_a_run_whose_gradients_are_no_numbers_ends(init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(["not finite"] * 4 + [None] + ["not finite"] * 4 + ["no signal"] * 6 + ["not finite"] * 9)

    def update(*args: Any, **settings: Any) -> UpdateRecord:
        return UpdateRecord(0.0, LossStats(), StepStats(1.0, False, next(steps), {}))

    monkeypatch.setattr(trainer, "update", update)
    config = recipe(init)
    config = replace(config, run=replace(config.run, steps=30))
    with pytest.raises(ConfigError, match="the gradients of 5 steps in a row up to step 20 were not finite"):
        train(config, tmp_path / "run", lambda _: None)


def test_a_directory_in_use_is_refused(init: Path, tmp_path: Path) -> None:
    with held(tmp_path / "run"), pytest.raises(UsageError, match="another process is at work"):
        train(recipe(init), tmp_path / "run", pytest.fail)


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (["sampling.prompt=3"], "unknown key 'sampling.prompt'", "did you mean sampling.prompts?"),
        (["aggregation.shares=0.1"], "unknown key 'aggregation.shares'", "did you mean aggregation.share?"),
        (["tasks.sums.weigth=2"], "unknown key 'tasks.sums.weigth'", "did you mean tasks.sums.weight?"),
        (["router_replays=false"], "unknown key 'router_replays'", "did you mean router_replay?"),
        (["tasks={}"], "there is nothing to practise", None),
        (["sampling.group_size=1"], "sampling.group_size must be at least 2: 1", None),
        (["aggregation.fan_in=5"], "aggregation.fan_in exceeds the rollouts of a group: 5 > 4", None),
        (["run.decay_steps=3"], "run.warmup_steps and decay_steps do not fit into steps: 2 \\+ 3 > 4", None),
        (["held_out=1.0"], "held_out must be at least 0 and below 1", None),
        (["aggregation.share=1"], "aggregation.share must be at least 0 and below 1", None),
        (["run.micro_tokens=0"], "run.micro_tokens must be at least 1: 0", None),
    ],
)
def test_what_is_wrong_is_said(init: Path, tmp_path: Path, changes: list[str], message: str, hint: str | None) -> None:
    (tmp_path / "recipe.toml").write_text(to_toml(recipe(init)))
    with pytest.raises(ConfigError, match=message) as caught:
        load(RlConfig, tmp_path / "recipe.toml", changes)
    assert hint is None or caught.value.hint == hint


def test_the_rate_on_paper() -> None:
    run = RlRunConfig(steps=6, warmup_steps=2, decay_steps=3)
    assert [run.lr_fraction(step) for step in range(1, 7)] == [0.5, 1, 1, 0.75, 0.5, 0.25]
    assert [RlRunConfig(steps=3, warmup_steps=0).lr_fraction(step) for step in (1, 2, 3)] == [1, 1, 1]


# 5


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    """Supervision names every digit equally often, three in ten of them right. Which those are only reward can teach:
    no more is to be learned here than a preference, so that the margin can be wide."""
    lines = []
    for i in range(1500):
        reply = {"role": "assistant", "reasoning_content": "So.", "content": f"\\boxed{{{i * 7919 % 1013 % 10}}}"}
        question = {"role": "user", "content": f"{i % 1000:03}: name a digit.\n{INSTRUCTION}"}
        lines.append(json.dumps({"messages": [question, reply]}))
    (tmp_path / "taste.jsonl").write_text("\n".join(lines))
    taught = stage_recipe(
        tmp_path,
        model=SHAPE | {"hidden_size": 32, "num_heads": 4, "expert_size": 32, "max_positions": 256},
        data={"taste": {"kind": "conversation_lines", "path": str(tmp_path / "taste.jsonl")}},
        validation={"held_out": 0.0},
        loader={"context": 128, "bins_per_step": 8},
        run={"micro_tokens": 1024},
        schedule={"total_tokens": 100 * 8 * 128, "warmup_tokens": 8000, "decay_tokens": 50_000},
        optim={"lr": 1e-2},
    )
    assert carry_out(taught, tmp_path / "taught").how == "finished"
    practice = from_mapping(
        RlConfig,
        {
            "init": str(tmp_path / "taught"),
            "run": {"steps": 15, "threads": 1, "warmup_steps": 2, "save_every_s": 1e9},
            "tasks": {"taste": {"env": "tests.rl.tasks:TASTE"}},
            "sampling": {"prompts": 8, "group_size": 8, "max_tokens": 24, "max_rounds": 2},
            "loss": {"length_norm": 24.0},
            "optim": {"lr": 3e-3, "momentum": 0.0},
        },
    )
    assert train(practice, tmp_path / "practised", lambda _: None).finished
    before, after = (solve_rate(tmp_path / name / "model") for name in ("taught", "practised"))
    assert 0.15 < before < 0.45
    assert after > before + 0.3


def solve_rate(directory: Path) -> float:
    """On problems that are held out, from streams that practice never uses."""
    model, tokenizer = zaya.load(directory, dtype="float32")
    with TaskPool() as pool:
        problems, _ = take(pool, "tests.rl.tasks:TASTE", 0, Stream("eval", "held_out", 0.1), 0, 64)
        requests = [
            Request(messages=[{"role": "user", "content": p.prompt}], params=SamplingParams(max_tokens=24), n=8, seed=i)
            for i, p in enumerate(problems)
        ]
        answers = Engine(model, tokenizer).complete(requests)
        pairs = [(problem, c.text) for problem, group in zip(problems, answers, strict=True) for c in group]
        return sum(score.reward for score in pool.score(pairs)) / len(pairs)
