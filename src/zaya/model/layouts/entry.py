"""One line of a layout: a tensor of ours and the tensor of a published checkpoint that holds it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """What a checkpoint of some layout stores under `published`."""

    name: str
    """Our name of the tensor, as in `zaya.model.init.tensor_table`."""
    part: int | None
    """Index along the first axis of ours (the expert) where the layout stores parts, None where it stores the whole."""
    published: str
    """The layout's name."""
    shape: tuple[int, ...]
    """Shape as stored."""
