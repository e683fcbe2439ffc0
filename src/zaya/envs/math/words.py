"""Text for comparison, and words that say the same in answer keys."""

from __future__ import annotations

import re

_WORDS = re.compile(r"[A-Za-z][A-Za-z' ,-]*")
_ARTICLE = re.compile(r"^(?:an?|the) (?=[a-z]{3})")
_SAME = {
    "dne": "does not exist", "no solutions": "no solution", "no real solutions": "no real solution",
    "all real numbers": "\\mathbb{R}", "all reals": "\\mathbb{R}", "all integers": "\\mathbb{Z}",
}  # fmt: skip


def canonical(text: str) -> str:
    """Words without fonts, case and article; anything else as it is, but for spaces after commas."""
    words = re.sub(r"\s+", " ", re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)).strip().strip(".").strip()
    if _WORDS.fullmatch(words) and (len(words) > 2 or words.lower() == "no"):
        words = _ARTICLE.sub("", words.casefold())
        return _SAME.get(words, words)
    return re.sub(r"(?<=,) | (?=[^A-Za-z0-9])", "", words)
