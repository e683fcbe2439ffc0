"""Drafts out of the text itself: what followed the last tokens before may follow them again. Imports no torch.

Reasoning repeats itself: numbers, names, lines of code, the question. Where the last tokens stand somewhere earlier,
the tokens behind that place are a guess that costs nothing to make, and one pass checks all of it (engine.runner).
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 4
"""Tokens that are compared at most; a longer match is a better guess."""
SHORTEST = 2
"""Tokens that must agree: one alone says too little."""


class PromptLookup:
    """The places of all short runs of tokens in one growing text. A token costs the same wherever it comes."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}
        """Run of tokens -> where it ended last. The runs that the text ends with are not in it yet."""

    def __len__(self) -> int:
        return len(self._ids)

    def extend(self, ids: Sequence[int]) -> None:
        """The text goes on."""
        for id in ids:
            end = len(self._ids)
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                self._ends[tuple(self._ids[end - size :])] = end
            self._ids.append(id)

    def propose(self, count: int) -> list[int]:
        """Up to `count` tokens that may come next."""
        for size in range(min(LONGEST, len(self._ids)), SHORTEST - 1, -1):
            end = self._ends.get(tuple(self._ids[-size:]))
            if end is not None:
                return self._ids[end : end + count]
        return []
