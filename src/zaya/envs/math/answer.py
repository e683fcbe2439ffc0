"""What an answer may be: the records that `envs.math.reading` makes of a text and `envs.math.equivalence` compares."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zaya.envs.math.tree import Node, Unreadable, replaced, symbols

FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_CLOSED_TEXT = re.compile(r"-?infinity|\\mathbb\{[A-Z]\}|\\ldots")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number or a formula."""

    tree: Node
    unit: str = ""
    decimals: str = ""
    """As it was written, where it is a decimal: it may be a rounded one."""


@dataclass(frozen=True, slots=True)
class Group:
    """Several values: the brackets around them, or what they are to each other.

    `list`, `any` (alternatives, or `x=1, y=2`), `all` and `either` of some conditions, `set`, `set with dots`,
    `union`, `minus`, `matrix` of `row`s, `chain`, `ratio`, `mod` (a value or the sides of a congruence, and the
    modulus), `cases` of `case`s (value and condition), `such that` (an element and its condition), `family` (a value
    and where its parameter is from).
    """

    kind: str
    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A value that is given to a name: `x = 5`, `f(x) = 2x`, `x \\in [0, 1]`, `(x,y) = (1,2)`."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class Relation:
    """An equation that is not solved, or an inequality."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Text:
    """What is read as nothing else."""

    text: str


Value = Scalar | Group | Named | Relation | Text

WORDS = "\\text"
"""Among the names in a value, for those that a text may have."""


def names(value: Value) -> frozenset[str]:
    """The symbols in a value. A text has one that no name is equal to."""
    match value:
        case Scalar():
            return symbols(value.tree)
        case Group():
            return frozenset().union(*map(names, value.items))
        case Named():
            return names(value.value) | {value.name}
        case Relation():
            return symbols(value.left) | symbols(value.right)
    return frozenset() if _CLOSED_TEXT.fullmatch(value.text) else frozenset({WORDS})


def renamed(value: Value, name: str, to: str) -> Value | None:
    """The value with another name for a symbol; None where that cannot be done everywhere, as in a text."""
    try:
        return None if WORDS in names(value) else _renamed(value, name, Node("symbol", name=to))
    except Unreadable:
        return None


def _renamed(value: Value, name: str, to: Node) -> Value:
    match value:
        case Scalar():
            return Scalar(replaced(value.tree, name, to), value.unit, value.decimals)
        case Group():
            return Group(value.kind, tuple(_renamed(item, name, to) for item in value.items))
        case Named():
            return Named(to.name if value.name == name else value.name, _renamed(value.value, name, to))
        case Relation():
            return Relation(value.op, replaced(value.left, name, to), replaced(value.right, name, to))
    return value
