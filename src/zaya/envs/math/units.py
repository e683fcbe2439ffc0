"""Units behind a number, from a closed list: what is not in it is no unit, and makes the answer text.

One letter is a unit inside `\\text{...}` only; `5m` is five times m.
"""

from __future__ import annotations

import re

_NAMES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "dm": "decimeter", "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inches", "ft": "foot feet", "yd": "yard", "mi": "mile", "mg": "milligram", "g": "gram",
    "kg": "kilogram",
    "lb": "pound pounds lbs", "oz": "ounce", "t": "ton tonne", "ms": "millisecond", "s": "second sec",
    "min": "minute mins",
    "h": "hour hr hrs", "day": "day", "week": "week", "month": "month", "year": "year yr yrs",
    "ml": "milliliter millilitre",
    "l": "liter litre", "gal": "gallon", "usd": "dollar dollars bucks", "cent": "cent cents", "euro": "euro eur",
    "mi/h": "mph",
    "km/h": "kmh kph", "m/s": "mps", "hz": "hertz", "n": "newton", "j": "joule", "w": "watt", "v": "volt",
    "k": "kelvin", "unit": "unit", "degree": "degree deg", "radian": "radian rad", "%": "percent percentage pct",
    "acre": "acre", "inch^2": "", "person": "person people", "way": "way", "time": "time", "square": "", "mol": "mole",
}  # fmt: skip

_UNITS: dict[str, str] = {}
for _unit, _others in _NAMES.items():
    for _name in (_unit, *_others.split()):
        _UNITS[_name] = _UNITS[f"{_name}s"] = _unit
_UNITS |= {"%": "%", "s": "s", "ms": "ms"}
del _UNITS["%s"], _UNITS["square"], _UNITS["squares"]

_POWER = r"(?:\^(?:\{([23])\}|([23])))?"
_TEXT = re.compile(
    rf"(.*?) ?\\text\{{ ?([A-Za-z%./^ 0-9]+?) ?\}}{_POWER}(?:/ ?\\text\{{ ?([A-Za-z]+) ?\}}{_POWER})?", re.DOTALL
)
_PLAIN = re.compile(r"(.*?[0-9})!]) ?([A-Za-z]{2,}(?: [A-Za-z]{2,})?(?:/[A-Za-z]+)?)" + _POWER, re.DOTALL)
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_MONEY = re.compile(r"([+-]?) ?\\text\{(dollars|euros|pounds)\} ?(.+)", re.DOTALL)


def split_unit(text: str) -> tuple[str, str]:
    """The text before its unit, and the unit by its one name; an empty name where there is none."""
    if text.endswith("%"):
        return text[:-1].rstrip(), "%"
    for sign in ("^\\circ", "^{\\circ}"):
        if text.endswith(sign) and not _FUNCTION.search(text):
            return text[: -len(sign)].rstrip(), "degree"
    if match := _MONEY.fullmatch(text):
        if "\\text" not in match[3]:
            return match[1] + match[3], {"dollars": "usd", "euros": "euro", "pounds": "gbp"}[match[2]]
        return text, ""
    if match := _TEXT.fullmatch(text):
        power, under, under_power = match[3] or match[4], match[5], match[6] or match[7]
        unit = _named(match[2], power)
        if unit and under:
            below = _named(under, under_power)
            unit = below and f"{unit}/{below}"
        return (match[1], unit) if unit and match[1].strip() else (text, "")
    if match := _PLAIN.fullmatch(text):
        unit = _named(match[2], match[3] or match[4])
        if unit and len(match[2].split("/")[0]) > 1:
            return match[1].rstrip(), unit
    return text, ""


def _named(words: str, power: str | None) -> str:
    words = (
        words.strip().strip(".").lower() if words.strip() not in ("K", "N", "J", "W", "V") else words.strip().lower()
    )
    for word, exponent in (("square ", "2"), ("sq ", "2"), ("sq. ", "2"), ("cubic ", "3")):
        if words.startswith(word):
            words, power = words.removeprefix(word), exponent
    if "/" in words and words not in _UNITS:
        above, _, below = words.partition("/")
        first, second = _named(above, None), _named(below, None)
        return f"{first}/{second}" if first and second else ""
    if " per " in words:
        above, _, below = words.partition(" per ")
        first, second = _named(above, None), _named(below, None)
        return f"{first}/{second}" if first and second else ""
    if match := re.fullmatch(r"([a-z]+)\^?([23])", words):
        words, power = match[1], match[2]
    unit = _UNITS.get(words, "")
    return f"{unit}^{power}" if unit and power else unit
