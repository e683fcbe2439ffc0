"""Where a text may be cut: outside of its brackets, of whatever kind.

`[0, 1)` is a bracket, and so is `\\begin...\\end`.
"""

from __future__ import annotations

import re

COMMA = re.compile("[,;]")


def split(text: str, separator: re.Pattern[str]) -> list[str]:
    """The parts between the separators outside of brackets."""
    return cut(text, separator)[0]


def cut(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The parts, and the separators between them."""
    parts, found, start, depth, at = [], [], 0, 0, 0
    while at < len(text):
        if text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            depth -= 1
        elif text[at] == "\\":
            depth += text.startswith("\\begin{", at) - text.startswith("\\end{", at)
        if depth == 0 and (match := separator.match(text, at)) and match.end() > at:
            parts.append(text[start:at])
            found.append(match[0])
            start = at = match.end()
            continue
        at += 1
    return [*parts, text[start:]], found


def is_balanced(text: str) -> bool:
    return sum(text.count(mark) for mark in "([{") == sum(text.count(mark) for mark in ")]}")


def encloses(text: str) -> bool:
    """Whether the bracket that opens a text is the one that ends it."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return at == len(text) - 1
    return False
