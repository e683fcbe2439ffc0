"""From logits to tokens."""

from __future__ import annotations

import math

import pytest
import torch

from tests.tolerances import assert_close
from zaya.errors import UsageError
from zaya.ops.sampling import draw, probabilities

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
        ({"never": torch.tensor([2, 3])}, [0.2, 0.8, 0, 0]),
        ({"never": torch.tensor([3]), "top_k": 2}, [0, 2 / 3, 1 / 3, 0]),
    ],
)
def test_probabilities_by_hand(options: dict, expected: list[float]) -> None:
    assert_close(probabilities(LOGITS, **options), torch.tensor(expected, dtype=torch.float32))


def test_impossible_options_are_refused() -> None:
    for options in ({"temperature": -1.0}, {"temperature": math.nan}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": 0}):
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
