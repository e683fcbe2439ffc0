"""What a text says: `understood(text)`, a value of one of the types in `envs.math.answer`.

The order of the questions is the precedence of the signs: cases and matrices, parameters, `or`, commas, `\\in`,
relations, unions, brackets, and what is left is a formula with its unit, or text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from zaya.envs.math import structures
from zaya.envs.math.answer import FLIPPED, Group, Named, Relation, Scalar, Text, Value, names
from zaya.envs.math.brackets import COMMA, cut, encloses, is_balanced, split
from zaya.envs.math.formula import DERIVATIVE, read
from zaya.envs.math.spelling import LONGEST, respelled
from zaya.envs.math.structures import MOST_ITEMS, group
from zaya.envs.math.tree import Node, Unreadable, number, symbols
from zaya.envs.math.units import split_unit
from zaya.envs.math.value import same_value
from zaya.envs.math.words import canonical

_DECIMAL = re.compile(r"[+-]?[0-9]*\.[0-9]+")
_THOUSANDS = re.compile(r"([^,]*?(?<![0-9.]))([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9])([^,]*)", re.DOTALL)
_CHOICE = re.compile(r"(?:\\text\{)?\(?([A-Z])\)?[.:]?\}?")
_NAME = re.compile(
    r"\\?[A-Za-z]+'{0,3}(?:_(?:\{[A-Za-z0-9]+\}|[A-Za-z0-9]))?"
    r"|\\?[A-Za-z](?:'{0,3}|\^\{-1\})\([A-Za-z0-9,]{1,20}\)|\\(?:angle|triangle) ?[A-Z]{1,4}"
)
_RELATION = re.compile(r"\\(?:le|ge|ne)(?![A-Za-z])|<=|>=|!=|[=<>]")
_RELATIONS = {"\\le": "<=", "\\ge": ">=", "\\ne": "!="}
_OR = re.compile(r",? ?(?:\\text\{ ?(?:or|and) ?\}|(?<![A-Za-z])(?:or|and)(?![A-Za-z])) ?")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_ALL_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_SEVERAL_WORDS = re.compile(r"[0-9,(]| (?:and|or) ")
_FOR_ALL = re.compile(r"(.*?),? ?\\text\{,? ?for (?:all|every|each|any)\} ?([a-z])", re.DOTALL)
_MINUTES = re.compile(
    r"(-?)(\d{1,4})\^(?:\\circ|\{\\circ\}) ?(\d{1,2}(?:\.\d{1,9})?)'(?: ?(\d{1,2}(?:\.\d{1,9})?)(?:''|\"))?"
)


@lru_cache(maxsize=4096)
def understood(text: str) -> Value:
    """What a text of at most LONGEST characters says."""
    return _read(respelled(text), 0)


def _read(text: str, depth: int) -> Value:
    text = text.strip()
    plain = Text(canonical(text))
    if depth > 8 or not text or len(text) > 4 * LONGEST:
        return plain

    def inner(part: str) -> Value:
        return _read(part, depth + 1)

    if match := _CHOICE.fullmatch(text):
        return Scalar(Node("symbol", name=match[1]))
    if (match := _ALL_TEXT.fullmatch(text)) and _SEVERAL_WORDS.search(match[1]):
        return inner(match[1])
    if "\\begin" in text and (found := structures.matrix(text, inner) or structures.cases(text, inner)):
        return found
    if (match := _THOUSANDS.fullmatch(text)) and is_balanced(match[1]):
        return inner(f"{match[1]}{match[2].replace(',', '')}{match[3]}")
    if found := structures.family(text, inner) or structures.congruence(text, inner):
        return found
    parts, words = cut(text, _OR)
    if words:
        return _alternatives(parts, words, depth) or plain
    if len(parts := split(text, COMMA)) > 1:
        return _list(_items(parts, depth)) or plain
    if len(parts := split(text, re.compile(r"\\in(?![A-Za-z])"))) == 2 and _NAME.fullmatch(parts[0].strip()):
        return Named(canonical(parts[0]), inner(parts[1]))
    parts, signs = cut(text, _RELATION)
    if signs:
        return _relation(parts, [_RELATIONS.get(sign, sign) for sign in signs], depth) or plain
    for kind, sign in (("union", "cup"), ("minus", "setminus")):
        if len(parts := split(text, re.compile(rf"\\{sign}(?![A-Za-z])"))) > 1:
            return group(kind, _items(parts, depth)) or plain
    if text in ("\\emptyset", "\\{\\}"):
        return Group("set", ())
    if found := structures.such_that(text, inner):
        return found
    if text.startswith("\\{") and text.endswith("\\}") and encloses(text[1:-2] + "}"):
        items = _items(split(text[2:-2], COMMA), depth)
        return group("set" if Text("\\ldots") not in items else "set with dots", items) or plain
    if text[0] in "([" and text[-1] in ")]" and encloses(text):
        parts = split(text[1:-1], COMMA)
        if len(parts) > 1:
            return group(text[0] + text[-1], _items(parts, depth)) or plain
    if ":" in text:
        return structures.ratio(text, inner) or plain
    if _PLUS_MINUS.search(text):
        both = [_PLUS_MINUS.sub(lambda match, two=signs: two[match[1] == "mp"], text) for signs in ("+-", "-+")]
        return group("any", _items(both, depth)) or plain
    return _scalar(text) or plain


def _items(parts: Sequence[str], depth: int) -> list[Value]:
    return [_read(part, depth + 1) for part in parts[: MOST_ITEMS + 1]]


def _alternatives(parts: Sequence[str], words: Sequence[str], depth: int) -> Value | None:
    """`1 or 2` and `1 and 2` are the same, `x>1 and x<3` is not `x>1 or x<3`."""
    items = _items([part for piece in parts for part in split(piece, re.compile(","))], depth)
    if any(isinstance(item, Relation) for item in items):
        is_and = {"and" in word for word in words}
        return group("all" if is_and == {True} else "either", items) if len(is_and) == 1 else None
    return _of_one_name(items) or group("any", items)


def _list(items: list[Value]) -> Value | None:
    """`1, 2` has an order. Values given to names have none, and neither has what one name may be."""
    if all(isinstance(item, Named) for item in items) or all(_could_be(items[0], item) for item in items[1:]):
        return _of_one_name(items) or group("any", items)
    return group("list", items)


def _could_be(first: Value, item: Value) -> bool:
    """Whether a value without a name may be another one of the name before it."""
    match first, item:
        case Named(value=Group(kind="()", items=these)), Group(kind="()", items=others):
            return len(these) == len(others)
    return isinstance(first, Named) and isinstance(item, Scalar)


def _of_one_name(items: list[Value]) -> Named | None:
    """`x=1, x=2` and `x=1, 2` are one x with the values 1 and 2; `x=1, y=2` is not."""
    first = items[0]
    if not isinstance(first, Named) or any(isinstance(item, Named) and item.name != first.name for item in items):
        return None
    values = group("any", [item.value if isinstance(item, Named) else item for item in items])
    return values and Named(first.name, values)


def _relation(parts: list[str], operators: list[str], depth: int) -> Value | None:
    if len(parts) > 5:
        return None
    if set(operators) == {"="} and _is_true_chain(parts):
        for name, value in ((parts[0], parts[-1]), (parts[-1], parts[0]))[: 2 if len(parts) == 2 else 1]:
            if (found := _named(name.strip(), value, depth)) is not None:
                return found
    try:
        trees = [read(part.strip()) for part in parts]
    except Unreadable:
        return None
    relations = [_solved(op, left, right) for op, (left, right) in zip(operators, pairwise(trees), strict=True)]
    return relations[0] if len(relations) == 1 else group("chain", relations)


def _named(name: str, value: str, depth: int) -> Named | None:
    if (match := _FOR_ALL.fullmatch(value)) and name.endswith(f"({match[2]})"):
        value = match[1]  # for all x that f(x) has: nothing more is said
    given = _read(value, depth + 1)
    if own := structures.parts_of_pairs(name):
        is_alike = isinstance(given, Group) and (given.kind, len(given.items)) == ("()", len(own))
        return Named(canonical(name), given) if is_alike and not set(own) & names(given) else None
    if (
        not (_NAME.fullmatch(name) or DERIVATIVE.fullmatch(name))
        or isinstance(given, Text)
        or canonical(name) in names(given)
    ):
        return None
    return structures.function(canonical(name), given)


def _is_true_chain(parts: Sequence[str]) -> bool:
    """Whether `x = 2+3 = 5` holds: what stands between the name and the value has that value."""
    try:
        return len(parts) == 2 or all(same_value(read(part.strip()), read(parts[-1].strip())) for part in parts[1:-1])
    except Unreadable:
        return False


def _solved(op: str, left: Node, right: Node) -> Relation:
    """With the symbol on the left where it stands alone on one side."""
    if right.op == "symbol" and not is_solved(Relation(op, left, right)):
        return Relation(FLIPPED[op], right, left)
    return Relation(op, left, right)


def is_solved(relation: Relation) -> bool:
    return relation.left.op == "symbol" and relation.left.name in symbols(relation.left) - symbols(relation.right)


def _scalar(text: str) -> Scalar | Text | None:
    if match := _MINUTES.fullmatch(text):
        degrees, minutes, seconds = (Fraction(part or 0) for part in match.groups()[1:])
        if max(minutes, seconds) >= 60:
            return None
        angle = degrees + minutes / 60 + seconds / 3600
        return Scalar(number(-angle if match[1] else angle), "degree")
    bare, unit = split_unit(text)
    if (sign := re.fullmatch(r"([+-]?)\\infty", bare)) and not unit:
        return Text(f"{'-' if sign[1] == '-' else ''}infinity")
    if re.fullmatch(r"[A-Za-z]{2,}", bare) or "\\text" in bare:
        return None  # a word, which as a product would be equal to its letters in any order
    try:
        tree = read(bare)
    except Unreadable:
        return None
    if re.search(r"[A-Za-z]{4,}", re.sub(r"\\[A-Za-z]+", " ", bare)):
        return None
    return Scalar(tree, unit, bare if _DECIMAL.fullmatch(bare) else "")
