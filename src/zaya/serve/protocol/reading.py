"""From the bytes of a request to plain JSON data that nothing further in can stumble over.

1. UTF-8, without exception: no other encoding is guessed.
2. JSON as its standard has it: no NaN, no infinities, not even as a number that is too large; nothing nested deeper
   than `MOST_DEPTH`, no number of thousands of digits.
3. No object of tens of thousands of fields.
4. No lone surrogates: a string that is no text cannot become tokens, and would break whatever writes it down.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from zaya.serve.errors import ApiError

MOST_DEPTH = 64
"""Levels of lists and objects inside each other. Schemas of tools have a dozen; Python gives up at about a thousand."""


MOST_KEYS = 10_000
"""Of one object. Each that nobody declared is an error of its own to pydantic."""


def read_json(data: bytes) -> Any:
    """Raises ApiError for what is not JSON in this sense."""
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: {error.reason} at byte {error.start}", code="not_json") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # also a number of too many digits
        raise ApiError(400, f"the body is not JSON: {error}", code="not_json") from None
    _check(value, may_hold_surrogates="\\u" in text)
    return value


def _check(value: Any, *, may_hold_surrogates: bool) -> None:
    level, depth = [value], 0
    while level:
        if depth > MOST_DEPTH:
            raise _too_deep()
        depth += 1
        following: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if len(item) > MOST_KEYS:
                    message = f"an object has {len(item):,} fields; {MOST_KEYS:,} are allowed"
                    raise ApiError(400, message, code="too_many_fields")
                following += item.values()
                if may_hold_surrogates:
                    following += item.keys()
            elif isinstance(item, list):
                following += item
            elif may_hold_surrogates and isinstance(item, str):
                _check_text(item)
        level = following


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"\\u{ord(text[error.start]):04x}"
        raise ApiError(400, f"a string holds half a character: {found}", code="not_unicode") from None


def _too_deep() -> ApiError:
    return ApiError(400, f"the body is nested too deeply; {MOST_DEPTH} levels are allowed", code="too_deep")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"there is no {name} in JSON")
