"""A population at work as lines.

1. A rollout has a line: worker, state, a bar of its tokens against its budget, tokens, whom it reads, its answer.
2. Equivalent answers have one letter and one color, in every round; without color the letter says the same.
3. Of rounds that overlap both are shown; one that is over is not.
4. Where rollouts do not fit, those at work come first, and the rest is counted in one line.
5. Whatever a model says and however small the terminal is, no line is wider and no frame higher than it.
6. Time left is what the slowest needs for its budget and the rounds to come at its pace, and no more than the deadline.
7. A rollout that is asked again begins at nothing; failed and late ones say so.
"""

from __future__ import annotations

import random

import pytest

from zaya.cli.population import View, tally, told
from zaya.cli.screen import cells, plain
from zaya.ttc.rsa import RsaConfig
from zaya.ttc.types import Candidate, Event, Round

CONFIG = RsaConfig(
    population=4, fan_in=2, rounds=1, think_budget=100, tail_tokens=20, final_budget=200, answer_reserve=10
)
NASTY = ["\x1b[2J\x1b[H", "漢字" * 30, "a\nb\tc", "\u202e123", "e\u0301" * 40, "🙂" * 9, "", "\ud800", "x" * 300, "1/2"]


def start(at: float, round: int, worker: int, *sources: int) -> Event:
    return Event(kind="start", at=at, round=round, worker=worker, sources=sources)


def grow(at: float, round: int, worker: int, tokens: int, *, is_answering: bool = False) -> Event:
    return Event(kind="grow", at=at, round=round, worker=worker, tokens=tokens, is_answering=is_answering)


def end(at: float, round: int, worker: int, tokens: int, answer: str | None, *sources: int, cut: bool = False) -> Event:
    candidate = Candidate(
        worker=worker, text="", reasoning="", answer=answer, is_finished=not cut, prompt_tokens=1,
        generated_tokens=tokens, sources=sources,
    )  # fmt: skip
    return Event(kind="end", at=at, round=round, worker=worker, candidate=candidate)


def view(*events: Event, config: RsaConfig = CONFIG, deadline_at: float | None = None) -> View:
    made = View(config, deadline_at=deadline_at, has_blocks=False)
    for event in events:
        made.feed(event)
    return made


def shown(made: View, now: float, width: int = 80, height: int = 24) -> list[str]:
    return [plain(line).rstrip() for line in made.frame(now, width, height)]


FIRST = [
    start(0, 0, 0), start(0, 0, 1), start(0, 0, 2), start(0, 0, 3),
    grow(1, 0, 0, 10), grow(1, 0, 1, 10), grow(2, 0, 2, 30, is_answering=True),
    end(2, 0, 0, 50, "0.5"), end(3, 0, 1, 100, None, cut=True),
]  # fmt: skip


def test_lines() -> None:
    assert shown(view(*FIRST), 4.0) == [
        "round 0 of 1  180 tokens  45/s  0:04  ~0:36 left",
        "round 0  2 of 4 ended  A 0.5 x1",
        " 0 done      ##########..........  50  A 0.5",
        " 1 cut       #################### 100  no answer",
        " 2 answering ######..............  30",
        " 3 reading   ....................",
    ]
    empty = view()
    assert shown(empty, 0.2) == ["round 0 of 1  0 tokens  0:00"]
    assert shown(view(start(0, 0, 0), grow(0.1, 0, 0, 1)), 0.2)[0].startswith("round 0 of 1  1 token  5/s")


def test_rounds_that_overlap() -> None:
    second = [start(3, 1, 2, 1, 0), grow(4, 1, 2, 20), end(5, 1, 2, 40, "\\frac{1}{2}", 1, 0), start(5, 1, 0, 0, 1)]
    early = [*FIRST, *second]
    both = shown(view(*early), 6.0)
    assert both[1] == "round 0  2 of 4 ended  A 0.5 x1"
    assert both[6:] == [
        "round 1  1 of 4 ended  A 0.5 x1",
        " 0 reading   ....................      reads 0 1",
        " 1 waiting   ....................",
        " 2 done      ####................  40  reads 1 0  A 0.5",
        " 3 waiting   ....................",
    ]
    rest = [end(7, 0, 2, 60, "3"), end(7, 0, 3, 60, "1/2"), Event(kind="round", at=7, round=0)]
    later = view(*early, *rest)
    assert shown(later, 7.0)[1:2] == ["round 1  1 of 4 ended  A 0.5 x1"]
    for worker in (0, 1, 3):
        later.feed(end(8, 1, worker, 10, "3"))
    # the letter of round 0, and the color with it
    line = later.frame(8, 80, 24)[1]
    assert plain(line) == "round 1  4 of 4 ended  B 3 x3, A 0.5 x1"
    looks = {text: look for text, look in line if look}
    row = next(line for line in later.frame(8, 80, 24) if plain(line).startswith(" 2 done"))
    assert looks["A 0.5 x1"] == dict(row)["A 0.5"] != looks["B 3 x3"]
    later.feed(Event(kind="round", at=8, round=1))
    assert [line[:20] for line in shown(later, 8.0)] == ["choosing  340 tokens"]
    later.feed(start(8, 2, 0, 3, 1))
    assert shown(later, 9.0)[1:] == ["weighing the last candidates", " 0 reading   ....................      reads 3 1"]


def test_what_does_not_fit() -> None:
    config = RsaConfig(population=16, think_budget=100, tail_tokens=20)
    events = [start(0, 0, worker) for worker in range(12)] + [end(1, 0, worker, 50, "3") for worker in range(5)]
    lines = shown(view(*events, config=config), 1.0, height=10)
    assert [line[:11].split() for line in lines[2:9]] == [[str(worker), "reading"] for worker in range(5, 12)]
    assert lines[9] == "9 more: 5 done, 4 waiting"
    assert len(shown(view(*events, config=config), 1.0, height=18)) == 18
    assert "more" not in shown(view(*events, config=config), 1.0, height=18)[-1]
    backwards = [start(0, 0, 15 - worker) for worker in range(12)] + [end(1, 0, 15 - w, 50, "3") for w in range(5)]
    lines = shown(view(*backwards, config=config), 1.0, height=12)
    assert [line.split()[1] for line in lines[2:11]] == ["reading"] * 7 + ["done"] * 2
    assert lines[11] == "7 more: 3 done, 4 waiting"
    assert shown(view(*events, config=config), 1.0, height=3)[2] == "16 more: 7 reading, 5 done, 4 waiting"


def test_nothing_breaks_the_layout() -> None:
    rng = random.Random(7)
    for _ in range(40):
        made = view(config=RsaConfig(population=6, fan_in=6, rounds=2, think_budget=50_000))
        for round in range(3):
            for worker in range(6):
                made.feed(start(round, round, worker, *rng.sample(range(6), 6)))
                fate = rng.random()
                if fate < 0.2:
                    made.feed(Event(kind="retry", at=round, round=round, worker=worker, text=rng.choice(NASTY)))
                elif fate < 0.3:
                    made.feed(Event(kind="lost", at=round, round=round, worker=worker, text=rng.choice(NASTY)))
                elif fate < 0.9:
                    made.feed(end(round, round, worker, rng.randrange(1, 50_000), rng.choice(NASTY), *range(6)))
            if rng.random() < 0.4:
                made.feed(Event(kind="round", at=round, round=round))
        width, height = rng.choice([1, 7, 20, 40, 61, 200]), rng.randrange(1, 30)
        frame = made.frame(9.0, width, height)
        assert len(frame) <= height
        for line in frame:
            assert cells(plain(line)) <= width
            assert not set(plain(line)) & set("\x1b\r\n\t\u202e\ud800")


def test_time_left() -> None:
    under_way = [start(0, 0, 0), start(0, 0, 1), grow(4, 0, 0, 50), grow(4, 0, 1, 25)]
    # at a fifth of a second a token: 75 for itself, 100 for the two that wait, 200 for the last round
    assert view(*under_way).left_s(5.0) == pytest.approx((75 + 100 + 200) / 5)
    five = RsaConfig(
        population=5, fan_in=2, rounds=1, think_budget=100, tail_tokens=20, final_budget=200, answer_reserve=10
    )
    assert view(*under_way, config=five).left_s(5.0) == pytest.approx((75 + 2 * 100 + 200) / 5)
    assert view(*under_way, deadline_at=25.0).left_s(5.0) == 20.0
    assert view(*under_way, deadline_at=4.0).left_s(5.0) == 0.0
    assert view(start(0, 0, 0)).left_s(5.0) is None
    assert view(start(0, 0, 0), deadline_at=9.0).left_s(5.0) == 4.0
    over = [end(6, 0, worker, tokens, "3") for worker, tokens in enumerate((80, 60, 60, 60))]
    last = [Event(kind="round", at=6, round=0), start(10, 1, 0, 0, 1), grow(14, 1, 0, 20)]
    # 180 of 200 for itself, and three more after each other, which are taken to be as long as the longest so far
    assert view(*under_way, *over, *last).left_s(14.0) == pytest.approx((180 + 3 * 80) / 5)


def test_speed_is_of_the_last_seconds() -> None:
    made = view(start(0, 0, 0), *[grow(at, 0, 0, int(at) * 2) for at in range(1, 11)])
    assert "4/s" not in shown(made, 10.0)[0]
    assert "20 tokens  2/s" in shown(made, 10.0)[0]
    made.feed(grow(12.0, 0, 0, 60))
    assert "60 tokens  9/s" in shown(made, 12.0)[0]  # 46 since the seventh second


def test_what_fails() -> None:
    made = view(start(0, 0, 0), grow(1, 0, 0, 30), Event(kind="retry", at=2, round=0, worker=0, text="timeout"))
    assert shown(made, 2.0)[2] == " 0 again     ######..............  30  timeout"
    made.feed(start(2, 0, 0))
    assert shown(made, 2.0)[2] == " 0 reading   ...................."
    made.feed(Event(kind="lost", at=3, round=0, worker=0, text="refused"))
    made.feed(Event(kind="lost", at=3, round=0, worker=1, text="late"))
    assert shown(made, 3.0)[2:4] == [
        " 0 failed    ....................      refused",
        " 1 late      ....................      nobody could show it any more",
    ]
    assert shown(made, 3.0)[1] == "round 0  2 of 4 ended"


def test_a_narrow_line() -> None:
    made = view(*FIRST, start(3, 1, 2, 1, 0), grow(4, 1, 2, 20), start(5, 1, 0, 0, 1), end(6, 1, 0, 9, "5", 0, 1))
    lines = shown(made, 9.0, 40)
    assert lines[0] == "round 0 of 1  0:09  ~1:21 left"  # 70 and 200 tokens, at 30 in nine seconds
    assert lines[2] == " 0 done      #####.....  50  A 0.5"
    assert lines[-3:] == [
        " 1 waiting   ..........",
        " 2 thinking  #.........  20  reads 1 0",
        " 3 waiting   ..........",
    ]
    assert lines[-4] == " 0 done      #.........   9  B 5"


def candidate(answer: str | None) -> Candidate:
    return Candidate(
        worker=0, text="", reasoning="", answer=answer, is_finished=True, prompt_tokens=1, generated_tokens=9
    )


def test_a_round_in_a_line() -> None:
    answers = ["1 2 3 4 5 6", None, "7 8", "1 2 3 4 5 6", "\x1b[2J\n9", "x" * 99, "a", "b", "c", None, None]
    round = Round(candidates=tuple(map(candidate, answers)), requests=11, wall_s=1.0)
    assert told(1, round, 200) == (
        "round 1  11 rollouts  "
        "answers 1 2 3 4 5 6 x2, 7 8 x1, \ufffd[2J 9 x1, xxxxxxxxxxxxxxxxxxxxxxx… x1, a x1, 3 more  "
        "99 tokens"
    )
    narrow = told(1, round, 40).splitlines()
    assert narrow[0] == "round 1  11 rollouts  99 tokens"
    assert narrow[1].startswith("  answers 1 2 3 4 5 6 x2, ")
    assert max(map(len, narrow)) <= 40
    one = Round(candidates=(candidate(None),), requests=1, wall_s=1.0)
    assert told(0, one, 80) == "round 0  1 rollout  answers (none) x1  9 tokens"
    lost = Round(candidates=(candidate("漢" * 20),), requests=3, wall_s=1.0, lost={"timeout": 2})
    assert told(0, lost, 90) == f"round 0  1 rollout  lost timeout x2  answers {'漢' * 11}… x1  9 tokens"
    nobody = Round(candidates=(), requests=3, wall_s=1.0, lost={"timeout": 3})
    assert told(0, nobody, 90) == "round 0  0 rollouts  lost timeout x3"
    assert max(map(cells, told(0, lost, 38).splitlines())) <= 38


def test_equivalent_answers_are_counted_together() -> None:
    assert tally(["1/2", "0.5", None, "3", "\\frac{1}{2}"]) == ["1/2 x3", "3 x1", "(none) x1"]
