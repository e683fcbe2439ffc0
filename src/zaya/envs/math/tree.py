"""Formulas as trees: what `envs.math.formula` reads and `envs.math.value` computes.

What a sum, a product or an integral runs over has no name of its own: it is `#1`, or `#2` where another one stands
inside, so that a sum over j is the sum over k.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

BINDERS = ("sum", "prod", "int")


class Unreadable(Exception):
    """The text is no formula of the grammar."""


@dataclass(frozen=True, slots=True)
class Node:
    """A formula: what is done, and with which parts."""

    op: str
    """`+`, `-`, `*`, `/`, `^`, `root`, `!`, `binom`, a function, `apply`, a binder, `infinity`, `number` or `symbol`.

    The parts of a binder: from, to, of what."""
    parts: tuple[Node, ...] = ()
    number: Fraction = Fraction(0)
    """Of a `number`."""
    name: str = ""
    """Of a `symbol`, or of the function in an `apply`."""


def number(value: int | Fraction) -> Node:
    return Node("number", number=Fraction(value))


def product(left: Node, right: Node) -> Node:
    """Flat, so that a long product is no deep tree."""
    return Node("*", (*left.parts, right) if left.op == "*" else (left, right))


def negative(value: Node) -> Node:
    return number(-value.number) if value.op == "number" else Node("-", (value,))


def symbols(tree: Node) -> frozenset[str]:
    """Those that may have any value: without e, i and pi, and without what a sum runs over."""
    if tree.op == "symbol":
        is_fixed = tree.name in ("e", "i", "pi") or tree.name.startswith("#")
        return frozenset() if is_fixed else frozenset((tree.name,))
    return frozenset().union(*map(symbols, tree.parts))


def bound(op: str, name: str, low: Node, high: Node, body: Node) -> Node:
    """A sum, product or integral over the symbol of that name."""
    own = f"#{height(body) + 1}"
    return Node(op, (low, high, replaced(body, name, Node("symbol", name=own))))


def height(tree: Node) -> int:
    """How many binders stand in one another."""
    return (tree.op in BINDERS) + max(map(height, tree.parts), default=0)


def replaced(tree: Node, name: str, value: Node) -> Node:
    """The formula with a value for a symbol. An index of that name becomes an argument: `a_k` is the k-th of the a."""
    if tree.op == "symbol":
        if tree.name == name:
            return value
        base, _, index = tree.name.partition("_")
        if index == name:
            return Node("apply", (value,), name=f"{base}_")
        if name in index:
            raise Unreadable(f"an index that may be {name} and more")
        return tree
    return Node(tree.op, tuple(replaced(part, name, value) for part in tree.parts), tree.number, tree.name)
