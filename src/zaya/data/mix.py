"""Which component the n-th sample comes from, and which of its bins: both without memory and with random access.

`Blend` hands out samples so that after any number of them each component has its share to within one sample. Taking
the component with the greatest deficit, as spec pretraining 6.5 has it, does not keep that promise for some weights:
with 500, 500, 500, 57, 5, 3 and five times 1 one of them falls 1.49 behind. So the deficit decides who may be next, and
of those the one that must come soonest is taken: Tijdeman's rule for the chairman assignment problem (1980), which
keeps k components within 1 - 1/(2k - 2).

`Permutation` shuffles 0..N-1 by a Feistel network that walks along its cycle until it is back below N. Used by
`data.loader`; knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from zaya.core.rng import derive_seed
from zaya.errors import ConfigError

_LONGEST_PERIOD = 100_000
_ROUNDS = 6


class Blend:
    """A sequence of components in the proportion of their weights. It repeats after `period` samples."""

    def __init__(self, weights: Sequence[float]) -> None:
        """Weights are taken as the decimals they are written as, and need not sum to 1.

        Raises ConfigError where one is not positive, and where their common denominator would make the sequence longer
        than 100,000 samples.
        """
        if not weights or not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ConfigError(f"weights must be positive numbers: {list(weights)}")
        parts = [Fraction(str(weight)) for weight in weights]
        scale = math.lcm(*(part.denominator for part in parts))
        quotas = [int(part * scale) for part in parts]
        quotas = [quota // math.gcd(*quotas) for quota in quotas]
        self.period = sum(quotas)
        """Samples after which every component has exactly its share, and the sequence begins again."""
        if self.period > _LONGEST_PERIOD:
            raise ConfigError(
                f"the weights {list(weights)} come out even only after {self.period} samples",
                hint="give them with fewer digits, for example in tenths of a per cent",
            )
        self._quotas = np.array(quotas, dtype=np.int64)
        self._sequence = _sequence(quotas)
        # row n: samples of each component among the first n
        self._counts = np.zeros((self.period + 1, len(quotas)), dtype=np.int32)
        self._counts[np.arange(1, self.period + 1), self._sequence] = 1
        np.cumsum(self._counts, axis=0, out=self._counts)

    def component(self, sample: int) -> int:
        """The component of the sample of this number, counted from 0."""
        return int(self._sequence[sample % self.period])

    def counts(self, samples: int) -> np.ndarray:
        """How many of the first `samples` samples each component gives, int64 [components]."""
        rounds, rest = divmod(samples, self.period)
        return rounds * self._quotas + self._counts[rest]


def _sequence(quotas: Sequence[int]) -> np.ndarray:
    """One period: quotas[i] times component i."""
    period = sum(quotas)
    scale = max(2 * len(quotas) - 2, 1)
    taken = [0] * len(quotas)
    sequence = np.zeros(period, dtype=np.int32)
    for n in range(period):
        # In units of 1/period: how far each component would be behind if this sample were not its own.
        deficits = [quota * (n + 1) - period * count for quota, count in zip(quotas, taken, strict=True)]
        ready = [i for i, deficit in enumerate(deficits) if scale * deficit >= period]
        chosen = min(ready, key=lambda i: ((scale - 1) * period - scale * deficits[i]) / quotas[i])
        taken[chosen] += 1
        sequence[n] = chosen
    return sequence


class Permutation:
    """A seeded permutation of 0..size-1 that is computed, not stored."""

    def __init__(self, size: int, seed: int) -> None:
        assert size > 0
        self.size = size
        self._half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
        self._low = np.uint64((1 << int(self._half)) - 1)
        self._keys = [np.uint64(derive_seed(seed, "feistel", i)) for i in range(_ROUNDS)]

    def at(self, places: np.ndarray | Sequence[int]) -> np.ndarray:
        """What stands at these places, int64 of the same length."""
        values = self._encrypt(np.atleast_1d(np.asarray(places)).astype(np.uint64))
        # The network permutes up to 4 times as many numbers; walking on from the others leads back below `size`.
        outside = values >= self.size
        while outside.any():
            values[outside] = self._encrypt(values[outside])
            outside = values >= self.size
        return values.astype(np.int64)

    def _encrypt(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> self._half, values & self._low
        for key in self._keys:
            left, right = right, left ^ (_scramble(right ^ key) & self._low)
        return (left << self._half) | right


def _scramble(x: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64: every bit of the argument reaches the low bits of the result."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
