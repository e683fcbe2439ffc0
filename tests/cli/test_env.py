"""zaya env: what it prints, and what it refuses.

1. Every environment is listed once, by category; words choose among them.
2. Samples are those of the environment itself, and JSON lines can be scored again.
3. A check ends with 0 where all pass and with 1 where one does not, and says why; or finds the lowest level to trust.
4. A game goes up a level with every right answer, and says what was right after a wrong one.
5. Names and levels that do not exist, and objects that are no environment, are refused with what may have been meant; a
   level that takes too long to make is given up.
6. Ctrl-C ends a check at once, in the middle of whatever its threads do; a closed input ends a game.
"""

from __future__ import annotations

import builtins
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zaya.cli import env, main
from zaya.envs import registry
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Problem
from zaya.envs.pool import TaskPool


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "list", "--plain"]) == 0
    names = capsys.readouterr().out.split()
    assert sorted(names) == sorted(registry.names())
    assert len(set(names)) == len(names) >= 400
    assert main(["env", "list", "number theory"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("number theory (")
    assert "rlve/LCM" in out
    assert "rlve/Sorting" not in out
    assert main(["env", "list", "no such thing"]) == 2
    assert "no environment has 'no such thing'" in capsys.readouterr().err


def test_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "sample", "arithmetic", "-d", "2", "-n", "3", "--seed", "5", "--json"]) == 0
    problems = [Problem.from_json(line) for line in capsys.readouterr().out.splitlines()]
    assert problems == [ARITHMETIC.sample(seed, 2) for seed in (5, 6, 7)]
    assert main(["env", "sample", "arithmetic"]) == 0
    out = capsys.readouterr().out
    first = ARITHMETIC.sample(0, 0)
    assert first.prompt in out
    assert f"answer: {first.meta['answer']}" in out


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "show", "arithmetic"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("arithmetic, version 1: arithmetic, Apache-2.0, levels 0 and up\n")
    assert ARITHMETIC.sample(0, 0).prompt in out


def test_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "check", "arithmetic", "--items", "12"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ok   arithmetic: guess ")
    assert out.endswith("1 of 1 environments pass every check\n")
    faulty = "tests.envs.test_audit:SUBSTRING"
    assert main(["env", "check", "arithmetic", faulty, "--items", "12", "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert f"FAIL {faulty}: " in out
    assert "     contains: " in out
    assert out.endswith("1 of 2 environments pass every check\n")


def test_the_lowest_level(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["arithmetic", "tests.envs.test_audit:CONSTANT"]
    assert main(["env", "check", *words, "--lowest", "--items", "24"]) == 0
    assert capsys.readouterr().out == f"arithmetic: 0\n{words[1]}: 2\n"


def test_play(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def answers() -> Iterator[str]:
        yield str(ARITHMETIC.sample(0, 0).meta["answer"])
        yield ""
        yield "no idea"
        yield ""

    lines = answers()

    def typed(prompt: str = "") -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", typed)
    assert main(["env", "play", "arithmetic"]) == 0
    out = capsys.readouterr().out
    assert "--- difficulty 0\n" in out
    assert "right (1 of 1)\n" in out
    assert out.count("--- difficulty 1\n") == 2
    assert f"wrong (1 of 2); it was: {ARITHMETIC.sample(1000, 1).meta['answer']}\n" in out
    assert out.endswith("\n1 right of 2\n")


def test_what_is_found_is_kept_in_a_clone_only(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["env", "check", "arithmetic", "--write"]) == 2
    assert "run it at the top of a clone" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "rlve/Sortin"], "did you mean rlve/Sorting?"),
        (["show", "sorting"], "did you mean rlve/Sorting?"),
        (["list", "grahps"], "did you mean graphs?"),
        (["show", "nowhere:TASK"], "PYTHONPATH=."),
        (["show", "os:path"], "os:path is no environment: it has no name, version, about, sample, score, reference"),
        (["sample", "arithmetic", "--dificulty", "1"], "did you mean --difficulty?"),
        (["sample", "arithmetic", "-d", "-1"], "arithmetic has levels from 0 on: -1"),
        (["sample", "code/output", "-d", "10"], "code/output has levels from 0 to 9: 10"),
        (["sample", "arithmetic", "-n", "0"], "ask for at least 1 problem: 0"),
        (["check"], "say which environments to check"),
        (["check", "arithmetic", "--all"], "say which environments to check"),
        (["check", "arithmetic", "--items", "3"], "an audit takes at least 8 items"),
        (["paly", "arithmetic"], "invalid choice: 'paly'"),
        ([], "ACTION"),
    ],
)
def test_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_level_that_takes_too_long(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    clock = iter(range(0, 1000, 9))  # seconds; each problem takes nine
    monkeypatch.setattr(env.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(TaskPool, "sample", lambda _, items: [asked.append(item) for item in items])
    assert main(["env", "sample", "arithmetic", "-d", "7"]) == 2
    assert "arithmetic makes no problem at difficulty 7\nhint: try a lower one" in capsys.readouterr().err
    assert len(asked) == 2


def test_ctrl_c_ends_a_check() -> None:
    # SIGINT is ignored where the tests run in the background of a shell, and children inherit that
    run = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from zaya.cli import main; raise SystemExit(main())"
    )
    command = [sys.executable, "-u", "-c", run, "env", "check", "arithmetic", *["rlve/Sorting"] * 18]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first has been checked, and the others are under way
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err.splitlines()[-1]) == (130, "interrupted")


def test_a_game_without_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["env", "play", "arithmetic"]) == 0
    assert capsys.readouterr().out.endswith("\n0 right of 0\n")
