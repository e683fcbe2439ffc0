"""Schedules by hand, and what makes them pure.

1. Warm-up, plateau, cosine and both decays have the values of paper.
2. A phase change warms up again to where the schedule is by then.
3. The batch grows in whole multiples and never beyond its end.
4. What cannot be meant is refused.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya.errors import ConfigError
from zaya.train.schedule import BatchConfig, ScheduleConfig, batch_sequences, decay_fraction, lr_fraction


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"shape": "constant", "warmup_tokens": 200}, {0: 0, 50: 0.25, 200: 1, 1000: 1, 5000: 1}),
        ({"shape": "constant"}, {0: 1, 1000: 1}),
        (
            {"shape": "cosine", "warmup_tokens": 200, "floor": 0.1},
            # cos(pi/4) = sqrt(1/2) a quarter of the way between 200 and 1000
            {100: 0.5, 200: 1, 400: 0.1 + 0.45 * (1 + math.sqrt(0.5)), 600: 0.55, 1000: 0.1, 2000: 0.1},
        ),
        ({"shape": "wsd", "warmup_tokens": 100, "decay_tokens": 400}, {50: 0.5, 600: 1, 700: 0.75, 900: 0.25, 1000: 0}),
        (
            {"shape": "wsd", "decay_tokens": 400, "decay": "1-sqrt", "floor": 0.2},
            {600: 1, 700: 0.2 + 0.8 * 0.5, 825: 0.2 + 0.8 * 0.25, 1000: 0.2, 1001: 0.2},
        ),
        ({"shape": "wsd", "warmup_tokens": 1000}, {500: 0.5, 1000: 1, 1001: 1}),
        ({"shape": "cosine", "warmup_tokens": 1000}, {500: 0.5, 1000: 1}),
    ],
)  # fmt: skip
def test_values(settings: dict[str, Any], values: dict[int, float]) -> None:
    config = ScheduleConfig(total_tokens=1000, **settings)
    assert {tokens: lr_fraction(config, tokens) for tokens in values} == pytest.approx(values, abs=1e-12)


def test_warming_up_again() -> None:
    config = ScheduleConfig(
        total_tokens=1000, warmup_tokens=100, decay_tokens=400, rewarm_at=(300, 700), rewarm_tokens=50
    )
    expected = {50: 0.5, 300: 1, 310: 0.2, 350: 1, 700: 0.75, 725: 0.5 * 0.6875, 750: 0.625, 1000: 0}
    assert {tokens: lr_fraction(config, tokens) for tokens in expected} == pytest.approx(expected, abs=1e-12)
    # the balancer's own rate knows the decay and no warm-up
    assert [decay_fraction(config, tokens) for tokens in (0, 310, 725)] == [1, 1, 0.6875]


@given(st.integers(0, 4000), st.sampled_from(["constant", "cosine", "wsd"]), st.sampled_from(["linear", "1-sqrt"]))
def test_fractions_stay_within_bounds(tokens: int, shape: Any, decay: Any) -> None:
    config = ScheduleConfig(
        total_tokens=3000, shape=shape, warmup_tokens=500, decay_tokens=1000, decay=decay, floor=0.25,
        rewarm_at=(1500,), rewarm_tokens=100,
    )  # fmt: skip
    assert 0 <= lr_fraction(config, tokens) <= decay_fraction(config, tokens) <= 1
    assert decay_fraction(config, tokens) >= 0.25
    assert lr_fraction(config, tokens) == lr_fraction(config, tokens)


def test_tokens_of_a_whole_pretraining_stay_exact() -> None:
    config = BatchConfig(sequences=4096, ramp_from=1024, ramp_tokens=3 * 10**12)
    assert batch_sequences(config, 10**12 - 1) == 2047
    assert batch_sequences(config, 10**12) == 2048


def test_batch_ramp() -> None:
    config = BatchConfig(sequences=16, ramp_from=4, ramp_tokens=1200, multiple=4)
    grown = {0: 4, 100: 4, 399: 4, 400: 8, 799: 8, 800: 12, 1199: 12, 1200: 16, 9999: 16}
    assert {tokens: batch_sequences(config, tokens) for tokens in grown} == grown
    assert batch_sequences(BatchConfig(sequences=7), 0) == 7


def test_steps_of_any_size_meet_the_same_rates() -> None:
    """Two runs that consume the same tokens in other steps agree wherever they meet."""
    config = ScheduleConfig(total_tokens=960, shape="cosine", warmup_tokens=100)
    small = {t: lr_fraction(config, t) for t in range(16, 961, 16)}
    large = {t: lr_fraction(config, t) for t in range(96, 961, 96)}
    assert {t: small[t] for t in large} == large


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total_tokens": 0}, "total_tokens must be at least 1"),
        ({"warmup_tokens": -1}, "warmup_tokens must be between"),
        ({"decay_tokens": 101}, "decay_tokens must be between"),
        ({"warmup_tokens": 60, "decay_tokens": 60}, "do not fit into total_tokens: 60 \\+ 60 > 100"),
        ({"floor": 1.5}, "floor must be a fraction"),
        ({"rewarm_at": (50, 20), "rewarm_tokens": 5}, "must rise within the phase"),
        ({"rewarm_at": (100,), "rewarm_tokens": 5}, "must rise within the phase"),
        ({"rewarm_at": (50,)}, "need each other"),
    ],
)
def test_impossible_schedules(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(**{"total_tokens": 100, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sequences": 0}, "must be at least 1"),
        ({"ramp_from": 4}, "need each other"),
        ({"ramp_from": 4, "ramp_tokens": -5}, "must not be negative"),
        ({"ramp_from": 20, "ramp_tokens": 5}, "between multiple and sequences"),
        ({"ramp_from": 2, "ramp_tokens": 5, "multiple": 4}, "between multiple and sequences"),
    ],
)
def test_impossible_batches(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BatchConfig(**{"sequences": 16, **settings})
