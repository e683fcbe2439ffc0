"""What the commands that ask a model have in common.

1. Where the compiled kernels could be and are not, it is said once, with what to do; not to those who chose it, and
   not where there could be none.
2. Loading that takes a moment shows how far it is, and leaves nothing of that on the terminal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.cli.fakes import Scripted, Terminal, tiny_checkpoint
from zaya.cli import main
from zaya.cli.asking import warn_without_kernels
from zaya.ops.cpu.kernels import without_kernels


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delenv("ZAYA_KERNELS", raising=False)
    warn_without_kernels.cache_clear()
    yield
    warn_without_kernels.cache_clear()


def test_missing_kernels_are_said_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Scripted("ok").install(monkeypatch)
    with without_kernels():
        assert main(["generate", "DIR", "Why?"]) == 0
        assert main(["generate", "DIR", "Why?"]) == 0
    out, err = capsys.readouterr()
    assert out == "ok\nok\n"
    warning, hint, *_ = err.splitlines()
    assert warning.startswith("warning: the compiled kernels are not there")
    assert hint.startswith("hint: they need AVX2; install a C++ compiler")
    assert err.count("warning") == 2, "the second is the hint's"


@pytest.mark.parametrize("why", ["there are some", "they are switched off", "another machine", "an accelerator"])
def test_nobody_is_told_who_need_not_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    Scripted("ok").install(monkeypatch)
    monkeypatch.setattr("zaya.ops.cpu.kernels.library", lambda: None)
    match why:
        case "there are some":
            monkeypatch.setattr("zaya.ops.cpu.kernels.library", lambda: SimpleNamespace())
        case "they are switched off":
            monkeypatch.setenv("ZAYA_KERNELS", "off")
        case "another machine":
            monkeypatch.setattr("platform.machine", lambda: "arm64")
        case "an accelerator":
            monkeypatch.setattr("zaya.core.device.pick", lambda _: torch.device("meta"))
    assert main(["generate", "DIR", "Why?"]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["quantize", "eval", "solve", "chat"])
def test_other_commands_say_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    recipe = tmp_path / "eval.toml"
    recipe.write_text('[tasks]\nsums = {env="arithmetic"}\n[systems]\nmicro = {model="no-such"}\n')
    words = {"quantize": ["no-such", "out"], "eval": ["--config", str(recipe), "--out", str(tmp_path / "out")]}
    words |= {"solve": ["Why?", "--model", "no-such"], "chat": ["no-such"]}
    with without_kernels():
        assert main([command, *words[command]]) == 2
    err = capsys.readouterr().err
    assert err.startswith("warning: ")
    assert re.search("\nerror: .*no-such", err)


def test_loading_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("zaya.core.progress._TERMINAL_INTERVAL_S", 0.0)
    monkeypatch.setenv("COLUMNS", "60")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    words = ["generate", str(tiny_checkpoint(tmp_path)), "Why?", "--quantize", "int8", "--max-tokens", "3"]
    assert main(words) == 0
    seen = screen.getvalue().split("\r")
    assert len([line for line in seen if re.match(r"loading  .*\d%  .* kB/.* kB", line)]) > 10
    assert seen[-2].isspace(), "the line is blank again"
    assert "loading" not in seen[-1]
    assert "weights in " in seen[-1].replace("\n", " ")


def test_loading_can_be_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Scripted("ok").install(monkeypatch)

    def load(path: str, *, progress: Any, **_: Any) -> None:
        progress(1, 2)
        raise KeyboardInterrupt

    monkeypatch.setattr("zaya.model.layouts.load", load)
    assert main(["generate", "DIR", "Why?"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
    assert fake.asked == []
