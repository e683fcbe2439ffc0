"""Watching a population, in a terminal that is played and in a log.

1. In a terminal a frame takes the place of the last one, below the lines that stay, and is gone at the end, also after
   an error; cursor and wrapping are as they were after every write.
2. In a terminal that has become narrower the lines that now take several are taken away too.
3. Elsewhere, and where TERM is dumb, nothing but lines is written; with NO_COLOR a frame has no colors.
4. Lines about the rounds of an interrupted run come before those of its continuation.
5. A warning does not tear a frame.
6. A replay waits as long as it took, times the speed, and only where somebody watches.
7. What goes wrong and is tried again is said while it is, once of each kind.
"""

from __future__ import annotations

import io
import re
import time
import warnings
from collections.abc import Callable

import pytest

from tests.cli.fakes import Terminal
from tests.cli.test_population import CONFIG, FIRST, candidate, end, start
from zaya.cli import watching
from zaya.cli.screen import Screen, cells, clipped, one_line
from zaya.cli.watching import Watch, play
from zaya.errors import CompletionError
from zaya.ttc.types import Event, Round

ROUND = Event(kind="round", at=8.0, round=0, summary=Round(candidates=(candidate("0.5"),) * 4, requests=4, wall_s=8.0))
TOLD = "round 0  4 rollouts  answers 0.5 x4  36 tokens"


def played(written: str, width: int = 200) -> tuple[list[str], bool]:
    """What a terminal shows after this, and whether it is as it was before."""
    lines, y, x, modes = [""], 0, 0, {"25": "h", "7": "h"}
    for part in re.findall(r"\x1b\[\??[0-9;]*[A-Za-z]|[^\x1b]", written):
        if part == "\n":
            y, x = y + 1, 0
            lines += [""] * (y + 1 - len(lines))
        elif part == "\r":
            x = 0
        elif part[0] != "\x1b":
            lines[y] = lines[y][:x].ljust(x) + part + lines[y][x + 1 :]
            x += 1
        elif part[-1] == "A":
            y -= int(part[2:-1])
            assert y >= 0
        elif part[-1] == "K":
            lines[y] = lines[y][:x]
        elif part[-1] == "J":
            lines = [*lines[:y], lines[y][:x]]
        elif part[2] == "?":
            modes[part[3:-1]] = part[-1]
        else:
            assert part[-1] == "m", part
    return [line.rstrip() for line in lines], set(modes.values()) == {"h"}


def wait_for(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.001)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(watching, "_TERMINAL_INTERVAL_S", 3600.0)  # frames are drawn by hand
    return Terminal()


def test_frames_below_lines_that_stay(terminal: Terminal) -> None:
    with Watch(CONFIG, stream=terminal, clock=lambda: 0.0) as watch:
        for event in FIRST:
            watch(event)
        watch._draw()
        first, is_restored = played(terminal.getvalue())
        assert first[0].startswith("round 0 of 1  180 tokens")
        assert (len(first), is_restored) == (6, True)
        watch._draw()
        assert played(terminal.getvalue()) == (first, True)
        watch(start(3, 1, 2, 1, 0))
        watch(ROUND)
        lines, is_restored = played(terminal.getvalue())
        assert lines[:3] == [TOLD, lines[1], "round 1  0 of 4 ended"]
        assert (len(lines), is_restored) == (7, True)
    assert played(terminal.getvalue()) == ([TOLD, ""], True)
    assert "\x1b[36m" in terminal.getvalue()


def test_less_in_the_place_of_more(terminal: Terminal) -> None:
    screen = Screen(terminal)
    for lines in (["one", "two", "three"], ["a longer line", "b"], ["c", "d"], ["e"]):
        screen.draw([[(line, "1")] for line in lines])
        assert played(terminal.getvalue()) == (lines, True)
    screen.say("stays")
    screen.draw([[("漢字漢字", ""), ("x" * 80, "1")]])
    assert played(terminal.getvalue())[0] == ["stays", "漢字漢字" + "x" * 71 + "…"]


def test_a_terminal_that_becomes_narrow(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(terminal)
    screen.draw([[("x" * 75, "")], [("y" * 30, "")], [("", "")]])
    monkeypatch.setenv("COLUMNS", "30")
    terminal.truncate(0)
    screen.draw([[("z", "")]])
    # three lines, one and one: four to go up
    assert terminal.getvalue().lstrip("\0").startswith("\r\x1b[4A")
    assert not screen.size[0] - 30


def test_without_colors_and_without_a_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    with Watch(CONFIG, stream=terminal) as watch:
        for event in FIRST:
            watch(event)
        watch._draw()
        assert "A 0.5 x1" in terminal.getvalue()
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.getvalue())
    monkeypatch.setenv("TERM", "dumb")
    for stream in (Terminal(), io.StringIO()):
        with Watch(CONFIG, stream=stream) as watch:
            for event in [*FIRST, ROUND]:
                watch(event)
        assert stream.getvalue() == f"{TOLD}\n"
        monkeypatch.delenv("TERM", raising=False)
    monkeypatch.setattr(watching, "_LOG_INTERVAL_S", 0.0)
    log = io.StringIO()
    with Watch(CONFIG, stream=log) as watch:
        watch(FIRST[0])
        wait_for(lambda: "\n" in log.getvalue())
    assert log.getvalue().startswith("round 0 of 1  0 tokens  0:0")
    quiet = io.StringIO()
    with Watch(CONFIG, stream=quiet, terminal_only=True) as watch:
        watch(ROUND)
    assert quiet.getvalue() == ""


def test_bars_for_those_who_have_no_blocks(terminal: Terminal) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    for stream, full in ((ascii_only, "#"), (terminal, "█")):
        frame = Watch(CONFIG, stream=stream)._view
        frame.feed(end(1, 0, 0, 100, None))
        assert dict(frame.frame(1.0, 80, 9)[2])[full * 20] == ""


def test_an_error_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    shows = warnings.showwarning
    watch = Watch(CONFIG, stream=terminal)

    def work() -> None:
        with watch:
            watch(FIRST[0])
            watch._draw()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert played(terminal.getvalue()) == ([""], True)
    assert not watch._thread.is_alive()
    assert warnings.showwarning is shows


def test_what_was_before(terminal: Terminal) -> None:
    before = [*FIRST, end(7, 0, 2, 10, "3"), end(7, 0, 3, 10, "3"), ROUND]
    with Watch(CONFIG, before=before, deadline_s=10.0, stream=terminal, clock=lambda: 0.0) as watch:
        assert terminal.getvalue() == ""
        watch(start(9.0, 1, 0, 0, 1))
        watch._draw()
        lines, _ = played(terminal.getvalue())
        assert lines[0] == TOLD
        assert lines[1].startswith("round 1 of 1  170 tokens")
        assert lines[1].endswith("0:09  ~0:10 left")  # from here on, not from the beginning of the first run


def test_a_warning_stays_above(terminal: Terminal) -> None:
    with Watch(CONFIG, stream=terminal) as watch:
        watch(FIRST[0])
        watch._draw()
        warnings.showwarning("it is slow", UserWarning, "file", 1)
        watch._draw()
        assert played(terminal.getvalue())[0][0] == "warning: it is slow"
        assert played(terminal.getvalue())[0][1].startswith("round 0 of 1")


def test_the_thread_draws(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_TERMINAL_INTERVAL_S", 0.001)
    with Watch(CONFIG, stream=terminal) as watch:
        watch(FIRST[0])
        wait_for(lambda: "reading" in terminal.getvalue())
    assert played(terminal.getvalue()) == ([""], True)


def test_a_replay_keeps_the_pace(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    for stream, speed in ((terminal, 2.0), (terminal, 0.0), (io.StringIO(), 2.0)):
        slept.clear()
        with Watch(CONFIG, stream=stream) as watch:
            play([*FIRST, ROUND], watch, speed)
        expected = [0, 0, 0, 0, 0.5, 0, 0.5, 0, 0.5, 2.5] if stream is terminal and speed else []
        assert slept == expected


def test_columns_of_a_text() -> None:
    assert [cells(text) for text in ("abc", "漢字", "e\u0301", "ｱ", "🙂", "")] == [3, 4, 1, 1, 2, 0]
    assert [clipped("漢字漢字", width) for width in range(9)] == [
        "", "…", "…", "漢…", "漢…", "漢字…", "漢字…", "漢字漢…", "漢字漢字",
    ]  # fmt: skip
    assert one_line("a\n\tb\x1b[2J\u202e\u2028c\u200b") == "a b\ufffd[2J\ufffd c\ufffd"


def test_trouble_is_said_once_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_LISTENING_INTERVAL_S", 0.001)
    kinds = iter([None, "server", "server", "rate_limit", *["server"] * 1000])
    log = io.StringIO()

    def trouble() -> CompletionError | None:
        kind = next(kinds, "server")
        return None if kind is None else CompletionError(f"answered\n{kind}", kind=kind)

    with Watch(CONFIG, stream=log, trouble=trouble):
        wait_for(lambda: log.getvalue().count("\n") == 2 and next(kinds, None) is None)
    assert log.getvalue() == "".join(f"warning: answered {kind}; trying again\n" for kind in ("server", "rate_limit"))
