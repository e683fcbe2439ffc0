"""Where sequences begin and end in one packed row of tokens.

Everything below the model's entrance runs on packed tokens: a batch is a row of equal segments, a padded batch a row
of unequal ones with the padding left out. Built once per forward pass and handed down.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from zaya.errors import UsageError


class Segments:
    """Boundaries of `count` sequences packed into one row of `total` tokens."""

    def __init__(self, bounds: Sequence[int], device: torch.device | str = "cpu") -> None:
        """`bounds` is 0, the end of every segment, and so the total: what kernels call cu_seqlens. Raises UsageError
        where it is not strictly increasing from 0."""
        self.bounds = tuple(bounds)
        if len(self.bounds) < 2 or self.bounds[0] != 0 or any(b <= a for a, b in pairwise(self.bounds)):
            raise UsageError(
                f"cu_seqlens must start at 0 and increase strictly: {list(self.bounds)[:16]}",
                hint="leave out empty sequences",
            )
        self.device = torch.device(device)

    @classmethod
    def from_lengths(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Segments:
        bounds = [0]
        for length in lengths:
            bounds.append(bounds[-1] + length)
        return cls(bounds, device)

    @property
    def count(self) -> int:
        return len(self.bounds) - 1

    @property
    def total(self) -> int:
        return self.bounds[-1]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        return tuple(b - a for a, b in pairwise(self.bounds))

    @property
    def is_uniform(self) -> bool:
        """All segments have one length, so that packed tokens reshape to (batch, seq)."""
        return len(set(self.lengths)) == 1

    @cached_property
    def starts(self) -> Int[Tensor, " segments"]:
        return torch.tensor(self.bounds[:-1], device=self.device)

    @cached_property
    def index(self) -> Int[Tensor, " tokens"]:
        """Segment of every token."""
        lengths = torch.tensor(self.lengths, device=self.device)
        return torch.repeat_interleave(torch.arange(self.count, device=self.device), lengths, output_size=self.total)

    @cached_property
    def offsets(self) -> Int[Tensor, " tokens"]:
        """Place of every token within its segment, from 0."""
        return torch.arange(self.total, device=self.device) - self.starts[self.index]
