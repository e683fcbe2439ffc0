"""Promises of core/checkpoint:

1. What is saved is loaded, bit for bit: every dtype and shape, and the state.
2. A process killed while it saves leaves the checkpoint before, and the next one cleans up.
3. Damage anywhere is found and named, and the checkpoint before is taken, with a notice; where none is whole the run
   does not quietly start from nothing.
4. The newest `keep` stay and the marked ones; nothing goes before the new one was read back.
5. A run that resumed earlier leaves behind the checkpoints of the future it had.
6. A disk that fails is one clear error.
"""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zaya.core import checkpoint
from zaya.core.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from zaya.errors import CheckpointError

STATE = {"tokens": 10**13, "loss": 0.1 + 0.2, "config": {"names": ["a", "ü"], "none": None}}


def tensors(value: float = 1.0) -> dict[str, Tensor]:
    return {"model/a": torch.full((3, 4), value), "optim/a/first": torch.arange(5.0) * value}


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in folder.iterdir())


def latest(folder: Path) -> tuple[int | None, list[str]]:
    notices: list[str] = []
    found = latest_checkpoint(folder, notices.append)
    return None if found is None else found.step, notices


def test_round_trip(tmp_path: Path) -> None:
    saved = {
        "float32": torch.tensor([[1.5, float("nan")], [-0.0, 1e-45]]),
        "bfloat16": torch.randn(3, 5).bfloat16(),
        "int64": torch.tensor(7),
        "transposed": torch.randn(4, 3).T,
        "empty": torch.empty(0, 2),
        "flags": torch.tensor([True, False]),
    }
    directory = save_checkpoint(tmp_path / "ckpt", 40, saved, STATE, mark=True)
    assert directory == tmp_path / "ckpt" / "step_00000040"
    loaded = load_checkpoint(directory)
    assert (loaded.step, loaded.is_marked, loaded.state) == (40, True, STATE)
    assert loaded.tensors.keys() == saved.keys()
    for name, tensor in saved.items():
        got = loaded.tensors[name]
        assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (got, tensor))), name


def test_nothing_there(tmp_path: Path) -> None:
    assert latest(tmp_path / "nowhere") == (None, [])
    (tmp_path / "step_7").mkdir()  # not a name of ours
    assert latest(tmp_path) == (None, [])


@pytest.mark.parametrize("at", ["tensors.safetensors", "manifest.json"])
def test_killed_while_saving(tmp_path: Path, at: str) -> None:
    save_checkpoint(tmp_path, 1, tensors(), STATE)
    code = (
        "import os, signal, sys, torch; from pathlib import Path; from zaya.core import checkpoint\n"
        "def kill(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        "if sys.argv[2] == 'manifest.json': checkpoint._digest = kill\n"
        "else: checkpoint._checksum = kill\n"
        "checkpoint.save_checkpoint(Path(sys.argv[1]), 2, {'model/a': torch.ones(3)}, {})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), at], check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    assert latest(tmp_path) == (1, [])
    save_checkpoint(tmp_path, 3, tensors(), STATE)
    assert steps(tmp_path) == [1, 3]


def spoil(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def change_state(path: Path) -> None:
    text = path.read_text()
    assert '"tokens": 10000000000000' in text
    path.write_text(text.replace('"tokens": 10000000000000', '"tokens": 10000000000001'))


DAMAGE: dict[str, tuple[Any, str]] = {
    "a bit of a tensor": (lambda d: spoil(d / "tensors.safetensors", -1), "the tensor .* is not what was saved"),
    "end of the tensors": (lambda d: cut(d / "tensors.safetensors"), "is damaged: it should have"),
    "no tensors": (lambda d: (d / "tensors.safetensors").unlink(), "cannot be read"),
    "a number in the state": (lambda d: change_state(d / "manifest.json"), "manifest.json is not what was saved"),
    "half a manifest": (lambda d: (d / "manifest.json").write_text('{"step": 2, '), "manifest.json is not a manifest"),
    "another manifest": (lambda d: (d / "manifest.json").write_text("[]"), "manifest.json is not a manifest"),
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "manifest.json cannot be read"),
    "tensors of another": (
        lambda d: save_checkpoint(d.parent / "x", 1, {"b": torch.ones(1)}, {}).joinpath("tensors.safetensors").rename(
            d / "tensors.safetensors"),
        "disagree about b, model/a, optim/a/first",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_found_and_the_one_before_taken(tmp_path: Path, damage: Any, message: str) -> None:
    save_checkpoint(tmp_path, 1, tensors(1), STATE)
    newest = save_checkpoint(tmp_path, 2, tensors(2), STATE)
    assert latest(tmp_path) == (2, [])
    damage(newest)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(newest)
    step, notices = latest(tmp_path)
    assert step == 1
    assert len(notices) == 1
    assert str(newest) in notices[0]


def test_none_is_whole(tmp_path: Path) -> None:
    for step in (1, 2):
        spoil(save_checkpoint(tmp_path, step, tensors(), STATE) / "tensors.safetensors", -1)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        latest(tmp_path)


def test_retention(tmp_path: Path) -> None:
    for step in range(1, 7):
        save_checkpoint(tmp_path, step, tensors(), STATE, keep=2, mark=step in (2, 5))
    assert steps(tmp_path) == [2, 4, 5, 6]
    save_checkpoint(tmp_path, 7, tensors(), STATE, keep=1)
    assert steps(tmp_path) == [2, 5, 7]


def test_an_abandoned_future_goes(tmp_path: Path) -> None:
    """Three are damaged: the run resumes at the first and must not lose what it then saves to what it left."""
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, step, tensors(step), STATE, keep=9)
    for step in (20, 30):
        spoil(tmp_path / f"step_{step:08d}" / "tensors.safetensors", -1)
    assert latest(tmp_path)[0] == 10
    save_checkpoint(tmp_path, 15, tensors(15), STATE, keep=2)
    assert steps(tmp_path) == [10, 15]
    assert latest(tmp_path) == (15, [])


def test_a_step_is_saved_again_over_a_damaged_one(tmp_path: Path) -> None:
    spoil(save_checkpoint(tmp_path, 1, tensors(1), STATE) / "tensors.safetensors", -1)
    directory = save_checkpoint(tmp_path, 1, tensors(2), STATE)
    assert load_checkpoint(directory).tensors["model/a"].eq(2).all()


def test_nothing_goes_before_the_new_one_was_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, tensors(), STATE, keep=1)
    write = checkpoint.write_file

    def lossy(path: Path, *rest: Any) -> Any:
        yield from write(path, *rest)
        spoil(path, -1)

    monkeypatch.setattr(checkpoint, "write_file", lossy)
    with pytest.raises(CheckpointError, match="is not what was saved"):
        save_checkpoint(tmp_path, 2, tensors(), STATE, keep=1)
    assert latest(tmp_path)[0] == 1


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, tensors(), STATE)

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_file", full)
    with pytest.raises(CheckpointError, match="could not be written: No space left"):
        save_checkpoint(tmp_path, 2, tensors(), STATE)
    assert steps(tmp_path) == [1]
    assert latest(tmp_path) == (1, [])
