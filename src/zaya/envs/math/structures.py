"""Answers with a structure of their own: cases, congruences, ratios, families and sets by a condition, scaled matrices.

Each function reads one kind, given the text and how to read a part of it, and returns None for any other text. A name
that has no meaning outside, such as k in `k\\pi, k \\in \\mathbb{Z}`, is replaced by one that nobody can write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from zaya.envs.math.answer import Group, Named, Relation, Scalar, Text, Value, names, renamed
from zaya.envs.math.brackets import COMMA, encloses, split
from zaya.envs.math.exact import NoValue, folded
from zaya.envs.math.tree import product

Read = Callable[[str], Value]

MOST_ITEMS = 50

_CASES = re.compile(r"\\begin\{cases\}(.*)\\end\{cases\}", re.DOTALL)
_CONDITION_WORDS = re.compile(r"(?<![A-Za-z\\])(?:if|for|when|is)(?![A-Za-z])")
_CONGRUENCE = re.compile(r"(.*)\\pmod\{([^{}]*)\}", re.DOTALL)
_EQUIV = re.compile(r"\\equiv(?![A-Za-z])")
_MATRIX = re.compile(r"(.*?)(?:\\cdot|\*)?\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.DOTALL)
_PARAMETER = re.compile(
    r"(.+?)(?:[,;] ?|[,;]? ?\\text\{(?:where|for|with)\} ?| ?(?=\())(\()?([a-z])\\in ?(\\mathbb\{[A-Z]\})(?(2)\))"
    r"|(.+?)[,;]? ?\\text\{,? ?(?:where|for)\}([a-z])\\text\{is an(?:y)? integer\}",
    re.DOTALL,
)
_SUCH_THAT = (re.compile(":"), re.compile(r"\|"))
_FUNCTION = re.compile(r"([A-Za-z]'{0,3}(?:_[A-Za-z0-9])?)\(([a-z])\)")


def group(kind: str, items: Sequence[Value]) -> Group | None:
    """None where an item is empty or there are too many: that is text."""
    return Group(kind, tuple(items)) if 0 < len(items) <= MOST_ITEMS and Text("") not in items else None


def matrix(text: str, read: Read) -> Group | None:
    """With a factor in front, if there is one, in its entries."""
    match = _MATRIX.fullmatch(text)
    if match is None or "\\begin" in match[1] + match[2] or "\\end" in match[2]:
        return None
    factor = read(match[1]) if match[1] else None
    if isinstance(factor, Text | Group | Named | Relation) or (factor and factor.unit):
        return None
    rows = []
    for line in match[2].removesuffix("\\\\").split("\\\\"):
        row = group("row", [_scaled(factor, read(entry)) for entry in line.split("&")[: MOST_ITEMS + 1]])
        if row is None:
            return None
        rows.append(row)
    return group("matrix", rows)


def _scaled(factor: Scalar | None, entry: Value) -> Value:
    if factor is None:
        return entry
    if not isinstance(entry, Scalar) or entry.unit:
        return Text("")
    try:
        return Scalar(folded(product(factor.tree, entry.tree)))
    except NoValue:
        return Text("")


def cases(text: str, read: Read) -> Group | None:
    """Values with their conditions, or a system of what names are."""
    match = _CASES.fullmatch(text)
    if match is None or "\\begin" in match[1] or "\\end" in match[1]:
        return None
    rows = [row.split("&") for row in match[1].strip().removesuffix("\\\\").split("\\\\")[: MOST_ITEMS + 1]]
    if all(len(row) == 1 for row in rows):
        items = [read(row[0].strip(" ,;.")) for row in rows]
        return group("any", items) if all(isinstance(item, Named) for item in items) else None
    if any(len(row) != 2 for row in rows):
        return None
    found = [group("case", (read(value.strip(" ,;")), read(_condition(when)))) for value, when in rows]
    return group("cases", [case for case in found if case is not None]) if None not in found else None


def _condition(text: str) -> str:
    text = re.sub(r"\\text\{\s*\}", "", _CONDITION_WORDS.sub("", text))
    return re.sub(r"\s+", " ", text).strip(" ,;.").replace("\\text{else}", "\\text{otherwise}")


def congruence(text: str, read: Read) -> Group | None:
    """`a \\equiv b \\pmod{m}`, where b may be several, or a remainder alone."""
    match = _CONGRUENCE.fullmatch(text)
    if match is None or "\\pmod" in match[1]:
        return None
    sides = [read(side.strip(" ,(")) for side in split(match[1], _EQUIV)]
    if len(sides) == 2 and isinstance(sides[1], Group) and sides[1].kind == "list":
        sides[1] = Group("any", sides[1].items)
    if any(isinstance(side, Text | Named | Relation) for side in sides) or len(sides) > 2:
        return None
    return group("mod", [*sides, read(match[2])])


def ratio(text: str, read: Read) -> Group | None:
    """`3:4`. Not in lowest terms it is another one: it may be a time."""
    parts = split(text, re.compile(":"))
    items = [read(part) for part in parts] if 1 < len(parts) <= 6 else []
    return group("ratio", items) if all(isinstance(item, Scalar) and not item.unit for item in items) else None


def family(text: str, read: Read) -> Group | None:
    """`\\frac{\\pi}{4}+k\\pi, k \\in \\mathbb{Z}`."""
    match = _PARAMETER.fullmatch(text)
    if match is None:
        return None
    body, parameter = read(match[1] or match[5]), match[3] or match[6]
    if parameter not in names(body):
        return None
    body = renamed(body, parameter, "@parameter")
    return body and group("family", (body, Text(match[4] or "\\mathbb{Z}")))


def such_that(text: str, read: Read) -> Group | None:
    """`\\{x : x > 3\\}`, and `\\{2k+1 : k \\in \\mathbb{Z}\\}`."""
    if not (text.startswith("\\{") and text.endswith("\\}") and encloses(text[1:-2] + "}")):
        return None
    for sign in _SUCH_THAT:
        parts = split(text[2:-2], sign)
        if len(parts) == 2:
            break
    else:
        return None
    element, condition = read(parts[0].strip()), read(parts[1].strip())
    named = [value.name for value in (element, condition) if isinstance(value, Named)]
    own = named or list(names(element))
    if not isinstance(element, Scalar | Named) or len(own) != 1 or own[0] not in names(element):
        return None
    both = group("such that", (element, condition))
    found = both and renamed(both, own[0], "@element")
    return found if isinstance(found, Group) else None


def function(name: str, value: Value) -> Named:
    """A value given to a name. Of `f(x) = 2x`, x is no name outside."""
    if (match := _FUNCTION.fullmatch(name)) and match[2] in names(value):
        inner = renamed(value, match[2], "@argument")
        if inner is not None:
            return Named(f"{match[1]}(@argument)", inner)
    return Named(name, value)


def parts_of_pairs(text: str) -> list[str] | None:
    """The names in `(x,y)`."""
    if not (text.startswith("(") and text.endswith(")") and encloses(text)):
        return None
    parts = split(text[1:-1], COMMA)
    is_names = all(re.fullmatch(r"\\?[A-Za-z]+(?:_(?:\{[A-Za-z0-9]+\}|[A-Za-z0-9]))?", part) for part in parts)
    return parts if 1 < len(parts) <= 10 and is_names and len(set(parts)) == len(parts) else None
