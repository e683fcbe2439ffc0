"""Where an answer stands in a text: in the last box. The same for every environment.

The scan counts braces, so that `\\boxed{\\frac{1}{2}}` is whole; a pattern would stop at the first closing brace.
Source: spec post-training 10.
"""

from __future__ import annotations

import re

from zaya.envs.base import Score, Status

INSTRUCTION = "Give the answer in \\boxed{}."
"""The last line of every prompt."""

NO_ANSWER = Score(0.0, False, Status.BAD_FORMAT, detail="there is no \\boxed{...} in the answer")

_BOX = "\\boxed{"
# Far more digits than any task asks for; int() takes quadratic time.
_INTEGER = re.compile(r"[+-]?[0-9]{1,200}")


def boxed(text: str) -> str | None:
    """What the last `\\boxed{...}` holds; None where there is none, or where the last one is never closed.

    An open last box is a text that was cut: the box before it is an answer that was taken back.
    """
    start = text.rfind(_BOX)
    if start < 0:
        return None
    start += len(_BOX)
    depth = 1
    at = start
    while at < len(text):
        match text[at]:
            case "\\":
                at += 1  # what follows is escaped: \{ is a brace on paper, not one of the markup
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if depth == 0:
                    return text[start:at]
        at += 1
    return None


def parse_integer(text: str) -> int | None:
    """The integer a text is, and nothing but: `12`, `-3`, ` +7 `. None for `1,234`, `12.0` and `2 + 2`."""
    text = text.strip()
    return int(text) if _INTEGER.fullmatch(text) else None
