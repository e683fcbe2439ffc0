"""Streams: what they hold, and what they never share.

1. Training and held-out streams have no content in common, whatever their names, tasks and difficulties, although the
   task has few enough contents that streams of the same side do share.
2. A stream goes on where it stopped, and yields the same problems in every process and with every number of workers.
3. About the part that is to be held out is.
4. A task with too few contents, or with no problems at all, ends in an error that says so.
"""

from __future__ import annotations

import pytest

from tests.envs.tasks import SCRIPTED
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Problem, Stream
from zaya.envs.pool import TaskPool
from zaya.envs.stream import is_held_out, item_seed, take
from zaya.errors import DataError, UsageError


@pytest.fixture(scope="module")
def pool():
    with TaskPool() as pool:
        yield pool


def contents(problems: list[Problem]) -> set[str]:
    return {problem.prompt for problem in problems}


@pytest.mark.parametrize("difficulty", [0, 1, 4])
@pytest.mark.parametrize("held_out", [0.1, 0.5])
def test_the_sides_share_nothing(pool: TaskPool, difficulty: int, held_out: float) -> None:
    train, kept = [], []
    for name in ("rl", "eval", "rl2"):
        train.append(contents(take(pool, "arithmetic", difficulty, Stream(name, "train", held_out), 0, 600)[0]))
        kept.append(contents(take(pool, "arithmetic", difficulty, Stream(name, "held_out", held_out), 0, 120)[0]))
    assert not set.union(*train) & set.union(*kept)
    if difficulty == 0:
        # 2 * 99 * 99 contents at most: streams of one side do meet, so the split is what keeps the two apart
        assert train[0] & train[1]
        assert kept[0] & kept[1]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert train[i] != train[j]


def test_a_stream_goes_on_where_it_stopped(pool: TaskPool) -> None:
    stream = Stream("rl", "held_out", 0.3)
    whole, end = take(pool, "arithmetic", 3, stream, 5, 60)
    first, middle = take(pool, "arithmetic", 3, stream, 5, 23)
    rest, same_end = take(pool, "arithmetic", 3, stream, middle, 37)
    assert first + rest == whole
    assert end == same_end
    with TaskPool(2) as other:
        assert take(other, "arithmetic", 3, stream, 5, 60) == (whole, end)
    assert take(pool, "arithmetic", 3, stream, 5, 0) == ([], 5)


def test_a_stream_is_its_items_less_the_other_side_and_what_came_before(pool: TaskPool) -> None:
    stream = Stream("few", "train", 0.2)
    expected: dict[str, Problem] = {}
    index = 0
    while len(expected) < 900:
        problem = ARITHMETIC.sample(item_seed("arithmetic", 1, "few", 0, index), 0)
        index += 1
        if not is_held_out(problem, 0.2) and problem.prompt not in expected:
            expected[problem.prompt] = problem
    assert index > 900 / 0.8  # something was met twice
    assert take(pool, "arithmetic", 0, stream, 0, 900) == (list(expected.values()), index)


def test_seeds_of_streams_do_not_meet() -> None:
    streams = [("arithmetic", 1, "rl", 0), ("arithmetic", 1, "rl", 1), ("arithmetic", 2, "rl", 0),
               ("arithmetic", 1, "eval", 0), ("rlve/Sorting", 1, "rl", 0)]  # fmt: skip
    seeds = {item_seed(*stream, index) for stream in streams for index in range(1000)}
    assert len(seeds) == 5000


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_the_part_that_is_held_out(fraction: float) -> None:
    problems = [ARITHMETIC.sample(seed, 5) for seed in range(4000)]
    held = [is_held_out(problem, fraction) for problem in problems]
    # four standard deviations of the largest are 0.032
    assert sum(held) / 4000 == pytest.approx(fraction, abs=0.032 if fraction else 0)


def test_a_larger_part_holds_the_smaller() -> None:
    problems = [ARITHMETIC.sample(seed, 5) for seed in range(500)]
    assert all(is_held_out(p, 0.4) for p in problems if is_held_out(p, 0.1))


def test_few_contents(pool: TaskPool) -> None:
    """Forty there are, and a stream ends with those of its side."""
    train, _ = take(pool, SCRIPTED.name, 0, Stream("rl", "train", 0.5), 0, 10)
    assert len(contents(train)) == 10
    with pytest.raises(DataError) as caught:
        take(pool, SCRIPTED.name, 0, Stream("rl", "train", 0.5), 0, 40)
    message = str(caught.value)
    assert "difficulty 0 has too few train problems" in message
    assert "40 wanted, 1400 items tried, 1400 of them made\n" in message
    with pytest.raises(DataError, match="too few held_out problems"):
        take(pool, SCRIPTED.name, 0, Stream("rl", "held_out", 0.5), 0, 40)


def test_no_problems_at_all(pool: TaskPool) -> None:
    with pytest.raises(DataError, match="0 found, 7 wanted, 50 items tried, 0 of them made\n"):
        take(pool, SCRIPTED.name, 3, Stream("rl"), 0, 7)
    with pytest.raises(DataError, match="the last failure: RuntimeError: no such problem"):
        take(pool, SCRIPTED.name, 2, Stream("rl"), 0, 7)


def test_impossible_streams(pool: TaskPool) -> None:
    with pytest.raises(UsageError, match="no split 'test'"):
        Stream("rl", "test")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="below 1: 1"):
        Stream("rl", held_out=1)
    with pytest.raises(UsageError, match="nothing is held out"):
        Stream("eval", "held_out", 0)
    with pytest.raises(UsageError, match="there is no environment 'sums'"):
        take(pool, "sums", 0, Stream("rl"), 0, 1)
