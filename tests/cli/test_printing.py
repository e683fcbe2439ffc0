"""What commands print: nothing wider than it may be, nothing lost that need not be."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.fakes import Terminal
from zaya.cli import main, printing
from zaya.cli.printing import Flow, note, say_commands, table, waiting
from zaya.errors import UsageError

CELLS = [
    ["stage", "loss", "accuracy", "gain", "tokens"],
    ["pretrain", "1.234", "10.0 ±2.0", "", ""],
    ["fine-tuning", "", "20.5 ±3.0", "+10.5 ±2.5", ""],
]
WORDS = st.text("ab ±", max_size=12)


def test_a_table() -> None:
    assert table(CELLS, 60).splitlines() == [
        "stage         loss   accuracy        gain",
        "pretrain     1.234  10.0 ±2.0",
        "fine-tuning         20.5 ±3.0  +10.5 ±2.5",
    ], "tokens has no value anywhere"


def test_columns_go_in_the_given_order_and_then_names_are_shortened() -> None:
    assert table(CELLS, 41, drop=("loss", "gain")).splitlines()[0] == "stage         loss   accuracy        gain"
    assert table(CELLS, 40, drop=("loss", "gain")).splitlines()[2] == "fine-tuning  20.5 ±3.0  +10.5 ±2.5"
    assert table(CELLS, 30, drop=("loss", "gain")).splitlines()[2] == "fine-tuning  20.5 ±3.0"
    assert table(CELLS, 18, drop=("loss", "gain")).splitlines()[2] == "fine-t…  20.5 ±3.0"


@given(st.lists(st.lists(WORDS, min_size=4, max_size=4), min_size=2, max_size=5), st.integers(34, 80))
def test_a_table_is_never_too_wide(rows: list[list[str]], width: int) -> None:
    cells = [["name", "b", "c", "d"], *([f"n{row[0]}", *row[1:]] for row in rows)]
    lines = table(cells, width, drop=("d", "c")).splitlines()
    assert len(lines) == len(cells)
    assert max(map(len, lines)) <= width


def test_commands_are_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    commands = {"zaya chat": "talk", "zaya solve 'a very long question, longer than that'": "think"}
    say_commands(commands, 80)
    assert capsys.readouterr().out.splitlines() == [
        "  zaya chat                                            talk",
        "  zaya solve 'a very long question, longer than that'  think",
    ]
    say_commands(commands, 40)
    assert capsys.readouterr().out.splitlines() == [
        "  zaya chat", "    talk", "  zaya solve 'a very long question, longer than that'", "    think",
    ]  # fmt: skip


@given(st.lists(st.text("aab b\n", max_size=40)), st.integers(10, 16))
def test_flowing_text_is_all_there_and_fits(pieces: list[str], width: int) -> None:
    screen = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setenv("NO_COLOR", "1")
        patch.setattr(sys, "stdout", screen)
        flow = Flow("  ")
        for piece in pieces:
            flow.feed(piece)
        flow.finish()
    text = "".join(pieces)
    shown = screen.getvalue()
    assert shown.split() == text.split()
    longest = max((len(word) for word in text.split()), default=0)
    assert all(len(line.rstrip()) <= max(width, 2 + longest) for line in shown.split("\n"))
    assert all(line.startswith("  ") for line in shown.split("\n") if line.strip())
    if all(2 + len(line) <= width for line in text.split("\n")):
        expected = [f"  {line.strip()}".rstrip() for line in text.split("\n")]
        assert [line.rstrip() for line in shown.rstrip().split("\n")] == "\n".join(expected).rstrip().split("\n")


def test_what_is_aside_is_dimmed_where_a_terminal_can(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    note("aside")
    with waiting("loading"):
        pass
    assert capsys.readouterr() == ("", "aside\n")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    note("aside")
    with waiting("loading"):
        assert screen.getvalue() == "\x1b[2maside\x1b[0m\n\x1b[2mloading ...\x1b[0m"
    assert screen.getvalue().endswith("\r           \r")
    monkeypatch.setenv("NO_COLOR", "")
    note("aside")
    assert screen.getvalue().endswith("\raside\n")


def test_errors_are_wrapped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: object) -> int:
        raise UsageError("this is a long story\n  of two lines, and the second is long too", hint="make it short")

    monkeypatch.setattr("zaya.cli.config.run", fail)
    monkeypatch.setenv("COLUMNS", "26")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert main(["config"]) == 2
    assert screen.getvalue() == (
        "error: this is a long\nstory\n  of two lines, and the\nsecond is long too\nhint: make it short\n"
    )


@pytest.mark.parametrize(
    ("called", "found", "name"),
    [(".venv/bin/zaya", None, ".venv/bin/zaya"), (".venv/bin/zaya", "/usr/bin/zaya", "zaya"), ("pytest", None, "zaya")],
)
def test_how_to_call_it_again(called: str, found: str | None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    monkeypatch.setattr("shutil.which", lambda _: found)
    assert printing.program() == name
