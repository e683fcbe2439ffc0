"""What the canaries see, as vectors: spec post-training 7.1, made again from fixed seeds.

1. Text, digits and tables are far from the threshold; loops of up to 15 ids are flagged, of 30 and more not.
2. The monitor sees loops of up to 958 ids, of which the gate sees nothing.
3. A short rest belongs to the chunk before it. A response shorter than a chunk is measured and never flagged.
4. One bad chunk is enough. What came before counts: the compressor runs through.
5. Rare ids are those in the last tenth of the vocabulary.

Another zlib may compress a little differently: ratios are compared with a tolerance, verdicts exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zaya.errors import ConfigError
from zaya.rl.canary import CanaryConfig, CanaryReport, examine

VOCAB = 262_272
LENGTH = 4096


def look(ids: Any, **settings: Any) -> CanaryReport:
    return examine([int(i) for i in ids], VOCAB, CanaryConfig(**settings))


def zipf(length: int = LENGTH) -> np.ndarray:
    weights = 1 / np.arange(1, VOCAB + 1)
    return np.random.default_rng(0).choice(VOCAB, length, p=weights / weights.sum())


def digits() -> np.ndarray:
    return np.random.default_rng(0).integers(1000, 1010, LENGTH)


def table() -> np.ndarray:
    rng = np.random.default_rng(0)
    digits = iter(rng.integers(1000, 1010, (LENGTH, 3)).tolist())
    rows = [[500, 501, 502, *next(digits), 600, *next(digits), 700, 701, 107] for _ in range(LENGTH // 13 + 1)]
    return np.concatenate(rows)[:LENGTH]


def loop(period: int, length: int = LENGTH) -> np.ndarray:
    return np.resize(np.random.default_rng(period).integers(0, VOCAB, period), length)


@pytest.mark.parametrize(
    ("ids", "ratio", "monitor"),
    [
        (zipf(), (0.5, 0.75), (0.5, 0.75)),
        (digits(), (0.17, 0.27), (0.13, 0.25)),
        (table(), (0.12, 0.22), (0.1, 0.2)),
        (loop(1), (0.005, 0.03), (0.003, 0.03)),
        (loop(5), (0.005, 0.04), (0.003, 0.03)),
        (loop(10), (0.005, 0.04), (0.003, 0.03)),
        (loop(15), (0.005, 0.05), (0.003, 0.03)),
        (loop(30), (0.06, 0.2), (0.003, 0.03)),
        (loop(50), (0.06, 0.3), (0.003, 0.03)),
        (loop(190), (0.06, 0.5), (0.003, 0.03)),
        (loop(250), (0.5, 0.9), (0.003, 0.03)),
        (loop(900), (0.5, 0.9), (0.003, 0.03)),
        (loop(1100), (0.5, 0.9), (0.5, 0.9)),
    ],
    ids=["zipf", "digits", "table", *(f"loop{n}" for n in (1, 5, 10, 15, 30, 50, 190, 250, 900, 1100))],
)
def test_vectors(ids: np.ndarray, ratio: tuple[float, float], monitor: tuple[float, float]) -> None:
    report = look(ids)
    assert ratio[0] < report.min_ratio < ratio[1]
    assert monitor[0] < report.monitor_ratio < monitor[1]
    assert report.is_flagged == (ratio[1] <= 0.05)


@pytest.mark.parametrize("length", [1, 2, 100, 255])
def test_less_than_a_chunk_is_not_judged(length: int) -> None:
    """A hundred zeros may be the right answer."""
    report = look(loop(1, length))
    assert not report.is_flagged
    assert report.min_ratio <= 1
    assert (report.min_ratio < 0.05) == (length >= 100)
    assert look(loop(1, 256)).is_flagged


def test_no_ids() -> None:
    assert look([]) == CanaryReport(min_ratio=1, is_flagged=False, monitor_ratio=1, rare_fraction=0)


def test_a_short_rest_belongs_to_the_chunk_before() -> None:
    """A rest of 255 in a loop, after 256 without, or the other way: measured together they are far from the
    threshold."""
    noise = np.random.default_rng(1).integers(0, VOCAB, 256)
    rest = np.concatenate([noise, loop(1, 255)])
    assert look(rest).min_ratio > 0.25
    assert look(np.append(rest, rest[-1])).is_flagged
    assert look(np.concatenate([loop(1, 256), noise[1:]])).min_ratio > 0.25
    assert look(np.concatenate([loop(1, 256), noise])).is_flagged


def test_the_flush_is_not_counted() -> None:
    """Ten equal ids are 40 bytes: 8 of deflate, and 5 that every chunk would bring along."""
    assert 0.1 < look([7] * 10).min_ratio < 0.3


def test_one_bad_chunk_is_enough() -> None:
    ids = zipf(2560)
    ids[1024:1280] = 77
    assert look(ids).is_flagged
    assert not look(ids, threshold=0.0).is_flagged
    # in chunks of 1,024 the loop is never alone
    assert not look(ids, chunk=1024).is_flagged


def test_the_compressor_remembers() -> None:
    """A chunk of new ids, then itself backwards in blocks of 8, which only matches of the earlier chunk make small."""
    noise = np.random.default_rng(2).integers(0, VOCAB, 128)
    again = noise.reshape(16, 8)[::-1].reshape(-1)
    assert look(np.concatenate([noise, again]), chunk=128).min_ratio < 0.5 < look(again, chunk=128).min_ratio


def test_rare_ids() -> None:
    config = CanaryConfig()
    assert examine([0, 89, 90, 99], 100, config).rare_fraction == 0.5
    assert examine([VOCAB - VOCAB // 10 - 1, VOCAB - VOCAB // 10], VOCAB, config).rare_fraction == 0.5


@pytest.mark.parametrize("settings", [{"threshold": -0.1}, {"threshold": 1.0}, {"chunk": 0}])
def test_impossible_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        CanaryConfig(**settings)
