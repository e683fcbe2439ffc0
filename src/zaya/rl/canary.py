"""Canaries: signs that a rollout has stopped making sense, whatever its verifier says.

The gate is how well the ids compress. A stream that repeats itself in a tight loop shrinks to almost nothing; a rollout
in which any chunk shrinks to less than `threshold` earns 0. It sees loops of up to 15 ids, some of up to 27 and none
that are longer: deflate at level 1 does not index the inside of long matches. Loops of up to 958 ids, as far as a
window of 4 KiB reaches back, show in `monitor_ratio`, which is only watched, like the fraction of rare ids.
Canaries decide about rewards, never about the learning rate. Source: spec post-training 7.1 and 7.2. Imports no torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zaya.errors import ConfigError

_ID_BYTES = 4
_SYNC_FLUSH_BYTES = 5  # what a sync flush adds when there is nothing to flush


@dataclass(frozen=True, kw_only=True, slots=True)
class CanaryConfig:
    """When a rollout counts as degenerate."""

    threshold: float = 0.05
    """Ratio of compressed to raw bytes below which a chunk is degenerate. 0 flags nothing."""
    chunk: int = 256
    """Ids of a chunk. A shorter rest belongs to the chunk before it."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"canary.threshold must be at least 0 and below 1: {self.threshold}")
        if self.chunk < 1:
            raise ConfigError(f"canary.chunk must be at least 1: {self.chunk}")


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """What the canaries found in one response."""

    min_ratio: float
    """Of the chunk that compresses best; 1 for a response without ids."""
    is_flagged: bool
    """Whether its reward counts as 0."""
    monitor_ratio: float
    """The same for a compressor that looks harder, and 4 KiB back."""
    rare_fraction: float
    """Part of the ids that lie in the last tenth of the vocabulary."""


def examine(ids: Sequence[int], vocab_size: int, config: CanaryConfig) -> CanaryReport:
    """Look at the ids of one response.

    A response shorter than one chunk is measured and never flagged. The threshold is meant for chunks: a grid of zeros
    is a right answer that compresses as well as a loop, and what has ended after a few tokens is no runaway.
    """
    array = np.asarray(ids, dtype="<i4")
    min_ratio = _min_ratio(array, config.chunk, level=1, wbits=-10)  # the report's setting
    return CanaryReport(
        min_ratio=min_ratio,
        is_flagged=len(array) >= config.chunk and min_ratio < config.threshold,
        monitor_ratio=_min_ratio(array, config.chunk, level=6, wbits=-12),
        rare_fraction=float((array >= vocab_size - vocab_size // 10).mean()) if len(array) else 0.0,
    )


def _min_ratio(array: np.ndarray, chunk: int, *, level: int, wbits: int) -> float:
    """Compressed over raw bytes of the chunk where it is smallest. One compressor runs through all chunks, so that each
    is measured by what came before it too."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, wbits)
    full = max(1, len(array) // chunk)
    smallest = 1.0
    for index in range(full):
        part = array[index * chunk : (index + 1) * chunk if index < full - 1 else None]
        if not len(part):
            break
        size = len(compressor.compress(part.tobytes()) + compressor.flush(zlib.Z_SYNC_FLUSH)) - _SYNC_FLUSH_BYTES
        smallest = min(smallest, size / (_ID_BYTES * len(part)))
    return smallest
