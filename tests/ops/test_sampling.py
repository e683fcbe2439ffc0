"""From logits to tokens."""

from __future__ import annotations

import math

import pytest
import torch

from tests.tolerances import assert_close
from zaya.errors import UsageError
from zaya.ops import sampling
from zaya.ops.sampling import batch_draw, batch_probabilities, draw, penalize, point, points, probabilities

LOGITS = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.3]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"temperature": 1e-38}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.7}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.71}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_k": 3, "top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 1e-9}, [0, 1, 0, 0]),
        ({"min_p": 0.51}, [0, 4 / 7, 0, 3 / 7]),
        ({"min_p": 0.49}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"min_p": 1.0}, [0, 1, 0, 0]),
        ({"min_p": 0.3, "temperature": 0.5}, [0, 16 / 25, 0, 9 / 25]),
        ({"min_p": 0.51, "top_p": 0.71, "top_k": 3}, [0, 4 / 7, 0, 3 / 7]),
        ({"never": torch.tensor([2, 3])}, [0.2, 0.8, 0, 0]),
        ({"never": torch.tensor([3]), "top_k": 2}, [0, 2 / 3, 1 / 3, 0]),
    ],
)
def test_probabilities_by_hand(options: dict, expected: list[float]) -> None:
    assert_close(probabilities(LOGITS, **options), torch.tensor(expected, dtype=torch.float32))


def test_impossible_options_are_refused() -> None:
    for options in (
        {"temperature": -1.0}, {"temperature": math.nan}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": 0}, {"min_p": -0.1},
    ):  # fmt: skip
        with pytest.raises(UsageError, match="possible"):
            probabilities(LOGITS, **options)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_something_must_be_left_to_draw(temperature: float) -> None:
    with pytest.raises(UsageError, match="every id is barred"):
        probabilities(LOGITS, never=torch.arange(4), temperature=temperature)


def test_draws_follow_the_distribution_and_the_seed() -> None:
    probs = probabilities(LOGITS)
    drawn = [draw(probs, seed=5, position=i) for i in range(4000)]
    assert drawn == [draw(probs, seed=5, position=i) for i in range(4000)]
    assert drawn != [draw(probs, seed=6, position=i) for i in range(4000)]
    for token, p in enumerate(probs.tolist()):
        assert abs(drawn.count(token) / 4000 - p) < 4 * math.sqrt(p * (1 - p) / 4000)


def test_what_has_no_probability_is_never_drawn() -> None:
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    assert {draw(probs, 0, i) for i in range(200)} == {1, 3}


def settings_of_rows() -> list[dict]:
    """Settings that visit every branch, one row each."""
    return [
        {}, {"temperature": 0.0}, {"temperature": 0.3}, {"top_k": 1}, {"top_k": 5, "temperature": 2.0}, {"top_p": 0.4},
        {"top_p": 0.999, "top_k": 17}, {"top_k": 1000}, {"temperature": 0.0, "top_k": 3}, {"top_p": 1e-9},
        {"min_p": 0.1}, {"min_p": 0.05, "top_p": 0.8, "top_k": 9, "temperature": 1.7},
        {"temperature": 0.0, "min_p": 0.2},
    ]  # fmt: skip


def batched(logits: torch.Tensor, rows: list[dict]) -> torch.Tensor:
    return batch_probabilities(
        logits,
        torch.tensor([row.get("temperature", 1.0) for row in rows]),
        torch.tensor([row.get("top_k", logits.shape[1]) for row in rows]),
        torch.tensor([row.get("top_p", 1.0) for row in rows]),
        torch.tensor([row.get("min_p", 0.0) for row in rows]),
    )


def test_many_rows_are_as_each_alone() -> None:
    """Also where rows have ids that are barred, and ties."""
    rows = settings_of_rows()
    logits = torch.randn(len(rows), 61, generator=torch.Generator().manual_seed(0)) * 3
    logits[:, 20:30] = logits[:, 30:40]
    never = torch.tensor([3, 60])
    probs = batched(logits.index_fill(1, never, -torch.inf), rows)
    for row, options, found in zip(logits, rows, probs, strict=True):
        if options == {"top_k": 1000}:
            options = {}  # keeps everything
        expected = probabilities(row, never=never, **options)
        assert torch.equal(found > 0, expected > 0), options
        assert_close(found, expected, what=str(options))
    assert_close(batch_probabilities(logits[:1], torch.ones(1))[0], probabilities(logits[0]))


def test_top_k_alone_cuts_by_count_alone() -> None:
    """The first of three has a probability that rounds to 1; the second is one of the two largest all the same."""
    probs = batched(torch.tensor([[0.0, -19.0, -20.0]]), [{"top_k": 2}])
    assert (probs > 0).tolist() == [[True, True, False]]


def test_rows_are_drawn_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(400, 61, generator=torch.Generator().manual_seed(0)) * 3
    probs = batched(logits, (settings_of_rows() * 31)[:400])
    points = [i / 400 for i in range(400)]
    drawn = batch_draw(probs, torch.tensor(points, dtype=torch.float64)).tolist()
    for row, at, found in zip(probs, points, drawn, strict=True):
        monkeypatch.setattr(sampling, "derive_seed", lambda *_, at=at: round(at * 2**63))
        assert draw(row, 0, 0) == found


def test_rows_never_draw_what_has_no_probability() -> None:
    """At both ends of the interval, where the sum is not 1, and where it is swallowed by rounding."""
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 0.3, 0.3, 0.0], [0.0, 1.0, 1e-30, 0.0, 0.0]])
    for at, expected in ((0.0, [1, 2, 1]), (1 - 2**-53, [3, 3, 1]), (1.0, [3, 3, 1])):
        assert batch_draw(probs, torch.full((3,), at, dtype=torch.float64)).tolist() == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 7, 60])
def test_a_row_that_has_gone_wrong_is_alone(bad: float, column: int) -> None:
    """NaN, infinity, or nothing but -inf in one row of each kind: NaN there, and nothing new anywhere else."""
    rows = settings_of_rows()
    logits = torch.randn(2 * len(rows), 61, generator=torch.Generator().manual_seed(1))
    expected = batched(logits, rows * 2)
    if bad == -math.inf:
        logits[: len(rows)] = bad
    logits[: len(rows), column] = bad
    probs = batched(logits, rows * 2)
    assert probs[: len(rows)].isnan().all()
    assert torch.equal(probs[len(rows) :], expected[len(rows) :])
    ids = batch_draw(probs, torch.full((2 * len(rows),), 0.5, dtype=torch.float64))
    assert ids.max() < 61
    assert batch_probabilities(logits)[0].isnan().all()


def test_penalties_by_hand() -> None:
    """Row 0: repetition 2; row 1: presence 0.5, frequency 0.25; row 2 holds nothing."""
    logits = torch.tensor([[4.0, -1.0, 3.0, -math.inf], [4.0, -1.0, 3.0, -math.inf], [1.0, 2.0, 3.0, 4.0]])
    pairs = [(0, 0, 0), (0, 1, 2), (0, 3, 1), (1, 0, 0), (1, 1, 1), (1, 2, 3), (1, 3, 1)]
    index = torch.tensor(pairs).T
    settings = torch.tensor([[2.0, 1.0, 1.0], [0.0, 0.5, 0.0], [0.0, 0.25, 0.0]])
    penalize(logits, *index.unbind(), *settings.unbind())
    expected = [[2.0, -2.0, 3.0, -math.inf], [4.0, -1.75, 1.75, -math.inf], [1.0, 2.0, 3.0, 4.0]]
    assert logits.tolist() == expected


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.8}, {"min_p": 0.2}])
def test_rows_follow_the_distribution(options: dict) -> None:
    """Pearson's statistic of 20,000 draws stays below what one in a million would exceed; the support is exact."""
    logits = torch.log(torch.tensor([0.1, 0.3, 0.02, 0.25, 0.05, 0.28]))
    expected = probabilities(logits, **options)
    points = torch.tensor([point(3, i % 50, i // 50) for i in range(20_000)], dtype=torch.float64)
    drawn = batch_draw(batched(logits[None], [options]).expand(20_000, -1), points)
    counts = torch.bincount(drawn, minlength=6).float()
    kept = expected > 0
    assert torch.equal(counts > 0, kept)
    wanted = expected[kept] * 20_000
    assert ((counts[kept] - wanted) ** 2 / wanted).sum() < 36


def test_points_are_named_by_seed_completion_and_position() -> None:
    names = [(seed, index, position) for seed in range(8) for index in range(8) for position in range(8)]
    points = [point(*name) for name in names]
    assert points == [point(*name) for name in names]
    assert len(set(points)) == 512
    assert 0 <= min(points) < 0.02
    assert 0.98 < max(points) < 1


def test_points_are_the_same_for_ever() -> None:
    """A seed that was written down gives the same text later on. All positions of a completion share a hash."""
    expected = {
        (0, 0, 0): 5_716_118_459_683_227_415,
        (3, 1, 17): 5_618_836_930_583_812_170,
        (2**62, 9, 4096): 7_584_931_924_580_231_229,
    }
    for (seed, index, position), number in expected.items():
        assert point(seed, index, position) == number / 2**63
    for seed, index in ((0, 0), (3, 1), (2**62, 9)):
        at = points(seed, index)
        assert [at(position) for position in (5, 0, 12345)] == [point(seed, index, p) for p in (5, 0, 12345)]
