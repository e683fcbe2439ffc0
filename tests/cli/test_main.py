"""What every command has in common: the table, help, errors, exit codes."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import zaya
from zaya.cli import ACTIONS, COMMANDS, command_parser, main
from zaya.errors import UsageError, ZayaError

FAKE = "zaya_test_fake_command"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A command `fake` with one required option; its `run` is replaced by each test."""
    module = types.ModuleType(FAKE)

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--size", type=int, required=True)

    module.add_arguments = add_arguments  # type: ignore[attr-defined]
    module.run = lambda args: args.size  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, FAKE, module)
    monkeypatch.setitem(COMMANDS, "fake", (FAKE, "does nothing"))
    monkeypatch.delenv("ZAYA_TRACEBACK", raising=False)
    return module


def fails(error: BaseException):
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize("name", [*COMMANDS, *ACTIONS])
def test_every_listed_command_exists_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]):
    module, summary = {**COMMANDS, **ACTIONS}[name]
    assert summary.strip()
    assert "\n" not in summary
    assert importlib.util.find_spec(module) is not None, f"{module} is listed and does not exist"
    assert main([*name.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: zaya {name}")


@pytest.mark.parametrize("name", ACTIONS)
def test_the_help_of_a_command_tells_of_its_actions(name: str, capsys: pytest.CaptureFixture[str]):
    assert main([name.split()[0], "--help"]) == 0
    assert f"zaya {name}" in capsys.readouterr().out


def test_help_lists_every_command_and_is_what_no_arguments_give(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in out
        assert summary in out
    assert main([]) == 0
    assert capsys.readouterr().out == out


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"zaya {zaya.__version__}\n"


def test_the_commands_exit_code_is_ours(fake: types.ModuleType):
    assert main(["fake", "--size", "7"]) == 7


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fakd"], "error: no command is called 'fakd'\nhint: did you mean zaya fake?\n"),
        (["--nope"], "error: unrecognized arguments: --nope\nhint: see zaya --help\n"),
        (["--versoin"], "error: unrecognized arguments: --versoin\nhint: did you mean --version? see zaya --help\n"),
        (
            ["fake", "--size", "1", "2 3"],
            "error: unrecognized arguments: 2 3\nhint: put a text of several words in quotes; see zaya fake --help\n",
        ),
        (["fake"], "error: the following arguments are required: --size\nhint: see zaya fake --help\n"),
        (
            ["fake", "--siz", "1"],
            "error: the following arguments are required: --size\nhint: see zaya fake --help\n",
        ),
        (
            ["fake", "--size", "x"],
            "error: argument --size: invalid int value: 'x'\nhint: see zaya fake --help\n",
        ),
    ],
)
def test_a_wrong_command_line_is_two_lines_and_code_2(
    fake: types.ModuleType, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err == expected
    assert captured.out == ""


def test_an_error_of_the_user_has_no_traceback(
    fake: types.ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    fake.run = fails(ZayaError("the moon is missing", hint="wait for it"))  # type: ignore[attr-defined]
    assert main(["fake", "--size", "1"]) == 2
    assert capsys.readouterr().err == "error: the moon is missing\nhint: wait for it\n"
    for words in (["fake", "--size", "1", "--traceback"], ["--traceback", "fake", "--size", "1"]):
        assert main(words) == 2
        assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("ZAYA_TRACEBACK", "1")
    assert main(["fake", "--size", "1"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_our_own_bugs_keep_their_traceback(fake: types.ModuleType):
    fake.run = fails(KeyError("bug"))  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        main(["fake", "--size", "1"])


def test_an_interrupt_is_one_quiet_line(fake: types.ModuleType, capsys: pytest.CaptureFixture[str]):
    fake.run = fails(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert main(["fake", "--size", "1"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_goes_away_is_not_an_error():
    code = (
        "import sys, zaya.cli, zaya.cli.config as c\n"
        "c.run = lambda args: print('x' * 10_000_000) or 0\n"
        "sys.exit(zaya.cli.main(['config']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141


def test_a_name_outside_the_table_has_no_parser():
    with pytest.raises(UsageError, match="no command is called 'os'"):
        command_parser("os")


def in_a_process(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "zaya", *words]
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=False, **options)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_the_output_is_one_error() -> None:
    with open("/dev/full", "wb") as full:
        done = in_a_process("config", "micro", stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: writing the output: No space left on device")


def test_a_closed_output_is_no_error() -> None:
    done = in_a_process("config", "micro", preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_output_that_lacks_a_character_shows_another() -> None:
    done = in_a_process("config", "--help", stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0


def test_what_may_not_be_read_is_one_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "DIR/config.json")

    monkeypatch.setattr("zaya.cli.config.run", refuse)
    assert main(["config"]) == 2
    assert capsys.readouterr().err == "error: DIR/config.json: Permission denied\n"
