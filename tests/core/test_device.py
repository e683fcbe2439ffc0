"""Which device is picked, on this machine and on pretended ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from zaya.core import device as module
from zaya.core.device import describe, free_bytes, pick
from zaya.errors import UsageError


@pytest.fixture
def accelerators(monkeypatch: pytest.MonkeyPatch):
    """A function that pretends this machine had that many."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def test_auto_takes_the_first_accelerator_and_else_the_cpu(accelerators):
    accelerators(0)
    assert pick() == torch.device("cpu")
    accelerators(2)
    assert pick("auto") == torch.device("cuda", 0)


def test_names_are_taken_at_their_word(accelerators):
    accelerators(2)
    assert pick("cpu") == torch.device("cpu")
    assert pick("cuda") == torch.device("cuda", 0)
    assert pick("cuda:1") == torch.device("cuda", 1)


def test_what_is_not_there_is_refused(accelerators):
    accelerators(0)
    with pytest.raises(UsageError, match=r"cuda is not there: PyTorch .* sees 0 accelerators\nhint: use cpu"):
        pick("cuda")
    accelerators(2)
    with pytest.raises(UsageError, match=r"cuda:2 is not there: .* sees 2"):
        pick("cuda:2")


@pytest.mark.parametrize("name", ["rocm", "mps", "cuda:", "cuda:x", "cuda:-1", "cpu:0", ""])
def test_names_that_are_none_are_refused(name: str):
    with pytest.raises(UsageError, match="AMD are called cuda"):
        pick(name)


def test_the_cpu_describes_itself():
    info = describe(torch.device("cpu"))
    assert info.name
    assert info.memory_bytes > 2**28
    assert info.has_bfloat16
    assert not info.is_rocm


def test_an_accelerator_is_described_by_the_driver(monkeypatch: pytest.MonkeyPatch):
    class Guard:
        def __init__(self, device: torch.device) -> None:
            assert device.index == 1

        def __enter__(self) -> None: ...

        def __exit__(self, *args: object) -> None: ...

    properties = SimpleNamespace(name="MI300X", total_memory=192 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "device", Guard)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.version, "hip", "7.2")
    info = describe(torch.device("cuda", 1))
    assert (info.name, info.memory_bytes, info.is_rocm, info.has_bfloat16) == ("MI300X", 192 * 2**30, True, True)


@pytest.mark.gpu
def test_the_accelerator_of_this_machine_describes_itself():
    info = describe(pick("cuda"))
    assert info.name
    assert info.memory_bytes > 2**30


def test_free_memory_is_what_machine_and_container_leave(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    cpu = torch.device("cpu")
    everything = describe(cpu).memory_bytes
    monkeypatch.setattr(module, "_CONTAINER_FILES", ())
    machine = free_bytes(cpu)
    assert 0 < machine <= everything
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(module, "_CONTAINER_FILES", ((limit, used), (tmp_path / "none", used)))
    used.write_text("1000\n")
    for text, expected in {"max\n": everything, "1500\n": 500, "900\n": 0}.items():
        limit.write_text(text)
        assert free_bytes(cpu) <= expected
        assert expected > 500 or free_bytes(cpu) == expected
