"""Promises of train/loop, train/run and train/stage:

1. Twenty steps are ten and ten, bit for bit: after Ctrl-C, after a full disk, and after a kill in the middle of a save.
2. What is resumed is what was begun: another recipe is refused, with the names of what differs; what does not decide
   the result may change.
3. A finished run is left alone. A directory that is no run's is not touched.
4. A stage begins from the weights and biases of the one before, in float32 and to the bit; its model may change where
   no shape does.
5. Validation sees no document that is trained on, and always the same few.
6. A stage that looks for flat validation stops when it should, and gives the weights of the best.
7. A run that learns nothing any more ends with an error.
"""

from __future__ import annotations

import errno
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

from tests.train.stages import carry_out, recipe, saved_weights
from zaya.config import load, to_toml
from zaya.core.checkpoint import latest_checkpoint
from zaya.core.metrics import read_metrics
from zaya.data.dataset import Dataset
from zaya.errors import CheckpointError, ConfigError, DataError, UsageError
from zaya.model.layouts import load_model
from zaya.train import loop
from zaya.train import run as run_module
from zaya.train.loop import is_flat
from zaya.train.recipe import StageConfig, StopConfig
from zaya.train.run import Validation
from zaya.train.stage import open_stage

STOPPED_AT = 10


def log_of(directory: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(directory / "metrics.jsonl")]


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageConfig, Path]:
    """A recipe, and the directory of its run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    config = recipe(folder)
    assert carry_out(config, folder / "run").how == "finished"
    return config, folder / "run"


# 1


def by_ctrl_c(config: StageConfig, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = count(1), loop.train_step

    def step(*args: Any, **settings: Any) -> Any:
        if next(calls) == STOPPED_AT:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **settings)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        outcome = carry_out(config, directory)
    assert (outcome.how, outcome.position.step) == ("interrupted", STOPPED_AT)
    assert signal.getsignal(signal.SIGINT) is handler


def saving_every_step(config: StageConfig) -> StageConfig:
    return replace(config, run=replace(config.run, save_every_s=0.0))


def by_a_full_disk(config: StageConfig, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    original = run_module.save_checkpoint

    def save(folder: Path, step: int, *args: Any, **settings: Any) -> Path:
        if step == STOPPED_AT + 1:
            patch.setattr("zaya.core.files._sync", refuse)
        return original(folder, step, *args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_checkpoint", save)
        with pytest.raises(CheckpointError, match="No space left on device"):
            carry_out(saving_every_step(config), directory)


def by_a_kill(config: StageConfig, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.parent.mkdir(exist_ok=True)
    file = directory.parent / "recipe.toml"
    file.write_text(to_toml(saving_every_step(config)))
    code = f"""
import os, signal, sys
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
main(["pretrain", "--config", {str(file)!r}, "--out", {str(directory)!r}])
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("interrupt", [by_ctrl_c, by_a_full_disk, by_a_kill])
def test_an_interrupted_run_is_the_run_that_was_not(
    whole: tuple[StageConfig, Path], interrupt: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, directory = whole
    interrupt(config, tmp_path / "run", monkeypatch)
    assert not (tmp_path / "run" / "model").exists()
    notices: list[str] = []
    assert loop.train(open_stage(config, pytest.fail), tmp_path / "run", notices.append).how == "finished"
    assert notices == [f"resuming {tmp_path / 'run'} after step {STOPPED_AT}"]
    assert_same_run(directory, tmp_path / "run")


def test_bfloat16_resumes_from_its_masters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe(tmp_path, run={"precision": "report"}, stop={"patience": 50})
    carry_out(config, tmp_path / "whole")
    by_ctrl_c(config, tmp_path / "parts", monkeypatch)
    loop.train(open_stage(config, pytest.fail), tmp_path / "parts", lambda _: None)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    weights = saved_weights(tmp_path / "parts")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert not torch.equal(weights["embed"], weights["embed"].bfloat16().float())


# 2 and 3


def test_another_recipe_is_refused(whole: tuple[StageConfig, Path]) -> None:
    config, directory = whole
    other = replace(
        config, optim=replace(config.optim, lr=1.0), data=config.data | {"text": replace(config.data["chat"], weight=2)}
    )
    message = "what differs: data.text.kind, data.text.path, data.text.weight, optim.lr\n"
    with pytest.raises(ConfigError, match=message):
        carry_out(other, directory)


def test_a_finished_run_is_left_alone(whole: tuple[StageConfig, Path]) -> None:
    config, directory = whole
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    outcome = carry_out(replace(config, run=replace(config.run, save_every_s=7.0, eval_every=3)), directory)
    assert outcome.how == "was finished"
    assert outcome.result is not None
    assert outcome.result.step == outcome.position.step == len(log_of(directory))
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def test_what_a_run_leaves(whole: tuple[StageConfig, Path]) -> None:
    config, directory = whole
    assert load(StageConfig, directory / "config.toml").optim == config.optim
    lines = log_of(directory)
    assert [line["step"] for line in lines if "val_loss" in line] == [5, 10, 15, 20, len(lines)]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    ema = lines[0]["entropy_min"]
    for line in lines:
        ema += (line["entropy_min"] - ema) / 20
        assert line["entropy_min_ema"] == pytest.approx(ema)
    assert lines[-2]["tokens"] < config.schedule.total_tokens <= lines[-1]["tokens"]
    # the rate is that of the tokens consumed with the step
    assert 150 < lines[0]["tokens"] <= 192
    assert lines[0]["lr"] == pytest.approx(8e-3 * lines[0]["tokens"] / 400)
    assert lines[-1]["lr"] == 0
    model = load_model(directory / "model", dtype="float32")
    for name, tensor in saved_weights(directory).items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_a_directory_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match="is not empty and no run"):
        carry_out(recipe(tmp_path), tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_run_that_saved_nothing_may_begin_with_another_recipe(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.toml.partial-elsewhere-1").touch()  # killed before anything else
    (tmp_path / "empty").mkdir()
    data = {"text": {"kind": "text_folder", "path": str(tmp_path / "empty")}}
    with pytest.raises(DataError, match=r"data\.text, train: the folder .*/empty holds no file"):
        carry_out(recipe(tmp_path, data=data), tmp_path / "run")
    assert carry_out(recipe(tmp_path), tmp_path / "run").how == "finished"


# 4


def test_a_stage_goes_on_from_the_one_before(whole: tuple[StageConfig, Path], tmp_path: Path) -> None:
    _, before = whole
    changes: dict[str, Any] = {
        "tokenizer": None, "loader": {"context": 96}, "optim": {"lr": 0.0}, "balance": {"rule": "off"},
        "schedule": {"total_tokens": 2000},
    }  # fmt: skip
    for place in (before, next((before / "ckpt").iterdir()), before / "model"):
        config = replace(recipe(tmp_path, init=str(place), **changes), model={"rope_theta": 1e6, "max_positions": 99})
        carry_out(config, tmp_path / place.name)
        expected = load_model(before / "model", dtype="float32").state_dict()
        for name, tensor in saved_weights(tmp_path / place.name).items():
            assert torch.equal(tensor, expected[name]), name
        model = load_model(tmp_path / place.name / "model").config
        assert (model.rope_theta, model.max_positions, model.num_layers) == (1e6, 99, 2)


def test_what_a_stage_cannot_start_from(whole: tuple[StageConfig, Path], tmp_path: Path) -> None:
    config = recipe(tmp_path, init=str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="the stage to start from is not there") as error:
        open_stage(config, pytest.fail)
    assert f"zaya pretrain --config RECIPE --out {tmp_path / 'nothing'}" in str(error.value.hint)
    config = replace(config, init=str(whole[1]), model={"num_layers": 3, "rope_theta": 5.0})
    with pytest.raises(ConfigError, match=r"do not fit the changed model: model\.num_layers, model\.rope_theta"):
        open_stage(config, pytest.fail)
    with pytest.raises(ConfigError, match=r"unknown key 'model\.num_layer'") as error:
        open_stage(replace(config, model={"num_layer": 3}), pytest.fail)
    assert error.value.hint == "did you mean model.num_layers?"


def test_bfloat16_starts_from_float32(whole: tuple[StageConfig, Path], tmp_path: Path) -> None:
    config = recipe(tmp_path, init=str(whole[1]), run={"precision": "report"}, optim={"lr": 0.0})
    carry_out(replace(config, model={}, schedule=replace(config.schedule, total_tokens=2000)), tmp_path / "run")
    expected = saved_weights(whole[1])
    for name, tensor in saved_weights(tmp_path / "run").items():
        if "balancing_bias" not in name:
            assert torch.equal(tensor, expected[name]), name


# 5


def test_validation_never_sees_what_is_trained_on(
    whole: tuple[StageConfig, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, directory = whole
    for name in config.data:
        train, held_out = (Dataset(directory / "data" / f"{name}{end}") for end in ("", ".held-out"))
        known = {train.tokens(i).tobytes() for i in range(len(train))}
        hidden = {held_out.tokens(i).tobytes() for i in range(len(held_out))}
        assert len(known) + len(hidden) == 40
        assert not known & hidden
        assert 3 < len(hidden) < 20
    seen: list[set[bytes]] = []

    def evaluate(model: object, batches: dict[str, Any], micro_tokens: int) -> dict[str, float]:
        held_out = {name: Dataset(tmp_path / "run" / "data" / f"{name}.held-out") for name in batches}
        seen.append({batch.ids.tobytes() for batch in batches.values()})
        for name, batch in batches.items():
            for start, stop in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True):
                document = held_out[name].tokens(int(batch.documents[start]))
                assert batch.ids[start:stop].tobytes() in document.tobytes()
        return dict.fromkeys(batches, 1.0)

    monkeypatch.setattr(run_module, "evaluate", evaluate)
    carry_out(recipe(tmp_path), tmp_path / "run")
    assert len(seen) == 5
    assert all(sample == seen[0] for sample in seen)


# 6


@pytest.mark.parametrize(
    ("losses", "stop", "stops"),
    [
        ([5, 4, 3, 2, 1], StopConfig(patience=2), False),
        ([5, 4, 4.5, 4.2], StopConfig(patience=2), True),
        ([5, 4, 4.5], StopConfig(patience=2), False),  # one more may come
        ([5, 4, 4, 4], StopConfig(patience=2), True),  # the same is not better
        ([5, 4, 4.5, 3.9], StopConfig(patience=2), False),
        ([5, 4, 3.95, 3.92], StopConfig(patience=2, min_delta=0.1), True),
        ([5, 4, 3.95, 3.85], StopConfig(patience=2, min_delta=0.1), False),
        ([1, 2], StopConfig(patience=2), False),
        ([1, 2, 3], StopConfig(patience=2), True),
        ([], StopConfig(patience=1), False),
        ([1, 2, 3, 4, 5], None, False),
    ],
)
def test_when_validation_is_flat(losses: list[float], stop: StopConfig | None, stops: bool) -> None:
    assert is_flat([Validation(i, loss, {}) for i, loss in enumerate(losses)], stop) is stops


def test_flat_validation_ends_a_stage_with_its_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.1, 9.0])
    weights = []

    def evaluate(model: Any, batches: dict[str, Any], micro_tokens: int) -> dict[str, float]:
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {name: next(losses) if name == "chat" else 0.0 for name in batches}

    monkeypatch.setattr(run_module, "evaluate", evaluate)
    config = recipe(tmp_path, run={"eval_every": 3}, stop={"patience": 2})
    by_ctrl_c(config, tmp_path / "run", monkeypatch)  # between the third validation and the fourth
    outcome = loop.train(open_stage(config, pytest.fail), tmp_path / "run", lambda _: None)
    assert (outcome.how, outcome.position.step) == ("finished", 12)
    assert outcome.result == Validation(6, 1.0, {"text": 0.0, "chat": 2.0})  # both weigh a half
    model = load_model(tmp_path / "run" / "model", dtype="float32").state_dict()
    last = saved_weights(tmp_path / "run")
    for name, tensor in weights[1].items():
        assert torch.equal(model[name], tensor), name
    assert not torch.equal(model["embed"], last["embed"])
    # and the next stage starts from them
    initial = open_stage(recipe(tmp_path, init=str(tmp_path / "run"), model={}), pytest.fail).initial
    assert initial is not None
    assert torch.equal(initial.weights()["embed"], model["embed"])


# 7


def test_a_run_that_learns_nothing_ends(tmp_path: Path) -> None:
    # a first step this large leaves nothing finite
    config = recipe(tmp_path, optim={"lr": 1e30}, schedule={"warmup_tokens": 0})
    with pytest.raises(ConfigError, match="5 steps in a row up to step 6 changed nothing"):
        carry_out(config, tmp_path / "run")
    assert [line["skipped"] for line in log_of(tmp_path / "run")] == [None, *["not finite"] * 5]
