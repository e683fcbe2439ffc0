"""The progress line, with a clock that we turn by hand."""

from __future__ import annotations

import io

import pytest

from zaya.core.progress import Progress, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def work(bar: Progress, clock: Clock, steps: int, seconds_each: float) -> None:
    for _ in range(steps):
        clock.now += seconds_each
        bar.update()


def test_a_terminal_sees_at_most_ten_updates_a_second():
    stream, clock = Terminal(), Clock()
    with Progress(10_000, stream=stream, clock=clock) as bar:
        work(bar, clock, 10_000, 0.001)
    shown = stream.getvalue().split("\r")
    assert 90 <= len(shown) <= 102
    assert shown[-1].startswith("100%  10,000/10,000")
    assert stream.getvalue().endswith("\n")


def test_a_log_gets_a_line_every_half_minute_and_none_for_short_work():
    stream, clock = io.StringIO(), Clock()
    with Progress(100, "packing", stream=stream, clock=clock) as bar:
        work(bar, clock, 25, 1.0)
    assert stream.getvalue() == ""
    with Progress(100, "packing", stream=stream, clock=clock) as bar:
        work(bar, clock, 100, 1.0)
    assert stream.getvalue().splitlines() == [
        "packing   30%  30/100  1/s  1:10 left",
        "packing   60%  60/100  1/s  0:40 left",
        "packing   90%  90/100  1/s  0:10 left",
        "packing  100%  100/100  1/s  1:40",
    ]


def test_a_shorter_line_covers_a_longer_one():
    stream, clock = Terminal(), Clock()
    bar = Progress(stream=stream, clock=clock)
    bar.done = 999_999
    work(bar, clock, 1, 1.0)
    bar.done = 0
    work(bar, clock, 1, 1.0)
    long, short = stream.getvalue().split("\r")[1:]
    assert len(short) == len(long)


@pytest.mark.parametrize(
    ("unit", "total", "done", "elapsed_s", "line"),
    [
        ("B", 4_970_000_000, 497_000_000, 2.0, "x   10%  497 MB/4.97 GB  248 MB/s  0:18 left"),
        ("B", None, 512, 1.0, "x  512 B  512 B/s  0:01"),
        ("B", None, 999_600, 10.0, "x  1 MB  100 kB/s  0:10"),
        ("B", None, 0, 0.0, "x  0 B  0:00"),
        ("", 8, 3, 2.0, "x   38%  3/8  1.5/s  0:03 left"),
        ("tok", None, 9000, 3600.0, "x  9,000 tok  2.5 tok/s  1:00:00"),
        ("", 0, 0, 1.0, "x  0  0:01"),
        ("", 5, 0, 1.0, "x    0%  0/5  0:01"),
    ],
)
def test_the_line(unit: str, total: int | None, done: int, elapsed_s: float, line: str):
    bar = Progress(total, "x", unit=unit, stream=io.StringIO())
    bar.done = done
    assert bar.line(elapsed_s) == line


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (48, "answers   10%  100/1,000  50/s  0:18 left"),
        (41, "answers   10%  100/1,000  50/s  0:18 left"),
        (40, "answers   10%  100/1,000  0:18 left"),
        (34, "answers   10%  0:18 left"),
        (20, "answers   10%"),
        (8, "an   10%"),
    ],
)
def test_a_narrow_line_says_less(width: int, line: str):
    bar = Progress(1000, "answers", stream=io.StringIO())
    bar.done = 100
    assert bar.line(2.0, width) == line


def test_the_line_is_no_wider_than_the_terminal_and_can_be_taken_away(monkeypatch: pytest.MonkeyPatch):
    stream, clock = Terminal(), Clock()
    for width in range(50, 29, -1):
        monkeypatch.setenv("COLUMNS", str(width))
        stream, clock = Terminal(), Clock()
        bar = Progress(1000, "answers", stream=stream, clock=clock)
        work(bar, clock, 100, 1.0)
        assert 0 < max(map(len, stream.getvalue().split("\r")[1:])) < width
    with Progress(1000, "answers", stream=stream, clock=clock) as bar:
        work(bar, clock, 100, 1.0)
        bar.clear()
        *_, blanks, end = stream.getvalue().split("\r")
        assert (blanks.strip(), end) == ("", "")
        assert len(blanks) >= len("answers   10%")
    assert not stream.getvalue().endswith("\n")


def test_items_pass_through_and_their_length_is_the_total(monkeypatch: pytest.MonkeyPatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("zaya.core.progress._TERMINAL_INTERVAL_S", 0.0)
    assert list(progress(["a", "b"], label="letters")) == ["a", "b"]
    assert "letters   50%  1/2" in stream.getvalue()
    assert list(progress(iter("abc"))) == ["a", "b", "c"]


def test_work_that_fails_still_leaves_the_line():
    stream, clock = Terminal(), Clock()

    def fail() -> None:
        with Progress(2, stream=stream, clock=clock) as bar:
            work(bar, clock, 1, 1.0)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert stream.getvalue().endswith("\n")
