"""Text of anybody, as it may stand in HTML and SVG. Used by `eval.page` and `eval.figure`."""

from __future__ import annotations

from html import escape

LONGEST_TEXT = 1500
"""Characters of any one text."""


def text_of(text: str) -> str:
    """The text escaped, bounded, without control characters and without what turns the direction of writing around."""
    text = text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
    return escape("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text))
