"""Values of programs as JSON, and when two of them are the same.

Equal are numbers that are 1e-6 apart, absolutely or relatively, whole or not; lists in order; objects by key; strings
to the letter. A number is no truth value, -0 is 0, and NaN equals nothing. Source: spec post-training 9.3.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

TOLERANCE = 1e-6
LARGEST = 4096
"""Characters of a value as JSON: more is nothing to reason about."""
_DEEPEST = 64

_FENCE = re.compile(r"^```[ \t]*([A-Za-z0-9_+-]*)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def fenced(text: str, *languages: str) -> str | None:
    """What the last fenced block of a text holds; one that names a language has to name one of these.

    None where there is none, or where the last one is never closed: that text was cut.
    """
    if len(re.findall(r"^```", text, re.MULTILINE)) % 2:
        return None
    blocks = [(language.lower(), body) for language, body in _FENCE.findall(text)]
    if not blocks or blocks[-1][0] not in ("", *languages):
        return None
    return blocks[-1][1]


class NotAValue(ValueError):
    """A text is no JSON value, or too large a one."""


def parse(text: str) -> Any:
    """The value of a JSON text; `NaN` and `Infinity` are values of programs too. Raises NotAValue."""
    text = text.strip()
    if len(text) > 4 * LARGEST:
        raise NotAValue(f"a value of {len(text):,} characters")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotAValue(f"not JSON: {error}") from None
    if _depth(value) > _DEEPEST:
        raise NotAValue("a value that is too deep")
    return value


def dump(value: Any) -> str:
    """A value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False)


def same(a: Any, b: Any) -> bool:
    """Whether two values are one and the same result."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return _close(a, b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return isinstance(a, str) and isinstance(b, str) and a == b


def _close(a: float, b: float) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a == b  # whole numbers are exact, however large
    try:
        x, y = float(a), float(b)
    except OverflowError:  # a whole number beyond all floats, and a float
        return False
    if math.isinf(x) or math.isinf(y):
        return x == y
    return math.isclose(x, y, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        level = [
            child
            for node in level
            if isinstance(node, list | dict)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        depth += 1
    return depth
