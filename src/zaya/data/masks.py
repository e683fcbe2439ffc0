"""One byte per token of a conversation: whether it is learned, and which part of a reply it is.

Bit 0 is the loss, bits 1 and 2 are the segment, so that losses can be told apart by segment. Written by `data.prepare`
beside the tokens, read by `data.loader`. Source: spec pretraining 6.1, post-training 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Literal

import numpy as np

from zaya.text import Rendered

LossOn = Literal["all_turns", "last_turn"]
"""Which assistant turns are learned: every one, or only the last, as where the turns before it are quoted."""


class Segment(IntEnum):
    """Which part of a conversation a token is."""

    OTHER = 0
    """Frames, and whatever an assistant did not write; all of a plain document."""
    THINKING = 1
    """An assistant's reasoning, its closing tag included."""
    ANSWER = 2
    """What an assistant shows: answers and tool calls."""


_SEGMENTS = {"thinking": Segment.THINKING, "answer": Segment.ANSWER, "tool_call": Segment.ANSWER}


def encode_mask(rendered: Rendered, roles: Sequence[str], loss_on: LossOn = "all_turns") -> np.ndarray:
    """The mask of a conversation, uint8 [tokens]. `roles` are its messages' roles."""
    mask = np.array(rendered.trainable, dtype=np.uint8)
    last = last_assistant(roles)
    for span in rendered.spans:
        part = mask[span.start : span.stop]
        if loss_on == "last_turn" and span.message != last:
            part[:] = 0
        part |= _SEGMENTS.get(span.kind, Segment.OTHER) << 1
    return mask


def loss_of(mask: np.ndarray) -> np.ndarray:
    """Where a mask has the loss on, bool [tokens]."""
    return (mask & 1).astype(bool)


def segment_of(mask: np.ndarray) -> np.ndarray:
    """The `Segment` of each token, uint8 [tokens]."""
    return (mask >> 1) & 3


def last_assistant(roles: Sequence[str]) -> int | None:
    """The index of the last assistant's message, None where there is none."""
    return max((i for i, role in enumerate(roles) if role == "assistant"), default=None)
