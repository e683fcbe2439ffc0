"""Whether an answer is the right one, read as mathematics: `equivalent(gold, answer)`.

An answer is read into a type: a number or formula with its unit, a tuple or interval, a list, a set, alternatives, a
matrix, an equation or inequality, or text. Types that differ are not equal, and what is not read is compared as text.
Both are pure computations with an end and without state, so they may be called from any thread. No text is evaluated
as Python or by sympy, ever. Source: spec post-training 10.

A right answer that is refused costs little; a wrong one that is paid for is learnt. Refused are therefore:

    unfinished     where the gold is a number, what is none: `2+3` or `10/2` for 5, `2/4` for 1/2. Else what has a
                   function, more roots or more terms than the gold: mostly the question, handed back
    rounded        0.33 for 1/3. Six digits, the last within one, pass for a value that has no end: 0.333333
    percent        for a number, and a number for percent
    other units    50 mm for 5 cm, and a unit that is not in the list. One may be left out
    brackets       (1,2), [1,2], {1,2} and `1, 2` are four things; a set may be given as a list
    order          of tuples and of lists. `1 or 2`, `±1`, `x=1, x=2` and sets have none: a gold that means one says so
    y=2x+1         for 2x+1; `x=5` is 5. A solved equation wants one solved for the same symbol
    forms          an inequality for an interval, a formula for its logarithm's base: `log` is neither `ln` nor base 10
    two readings   `1/2x`, `x2`, `2e-3`, `sin x/2`
    beside it      anything that stands beside the answer

What it cannot see: whether a form was asked for. A gold `(x-1)(x+1)` takes `x^2-1`; a gold `2\\sqrt{3}`, `\\sqrt{12}`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from zaya.envs.math.formula import read
from zaya.envs.math.spelling import LONGEST, respelled
from zaya.envs.math.units import split_unit
from zaya.envs.math.tree import BINDERS, Node, Unreadable, negative, symbols
from zaya.envs.math.value import NoValue, exact, is_within, proportional, same_value

LEAST_DIGITS = 6
"""Of a decimal that stands for a value without end."""
_MOST_ITEMS = 50

_PLAIN = re.compile(r"[+-]?(?:[0-9]{1,200}(?:\.[0-9]{1,200})?|\.[0-9]{1,200})")
_DECIMAL = re.compile(r"[+-]?[0-9]*\.[0-9]+")
_THOUSANDS = re.compile(r"([^,]*?(?<![0-9.]))([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9])([^,]*)", re.DOTALL)
_SPACED = re.compile(r"[+-]?[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
_EUROPEAN = re.compile(r"[+-]?(?:[0-9]+,[0-9]{1,2}|[0-9]+,[0-9]{4,}|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+)")
_CHOICE = re.compile(r"(?:\\text\{)?\(?([A-Z])\)?[.:]?\}?")
_NAME = re.compile(r"\\?[A-Za-z]+(?:_(?:\{[A-Za-z0-9]+\}|[A-Za-z0-9]))?|\\?[A-Za-z]\([A-Za-z0-9,]{1,20}\)")
_RELATION = re.compile(r"\\(?:le|ge|ne)(?![A-Za-z])|<=|>=|!=|[=<>]")
_RELATIONS = {"\\le": "<=", "\\ge": ">=", "\\ne": "!="}
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_OR = re.compile(r",? ?(?:\\text\{ ?(?:or|and) ?\}|(?<![A-Za-z])(?:or|and)(?![A-Za-z])) ?")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_MATRIX = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.DOTALL)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' ,-]*")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number or a formula."""

    tree: Node
    unit: str = ""
    decimals: str = ""
    """As it was written, where it is a decimal: it may be a rounded one."""


@dataclass(frozen=True, slots=True)
class Group:
    """Several values: `list`, `any` (alternatives), `set`, `matrix`, `union`, `chain`, or the brackets around them."""

    kind: str
    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A value that is given to a name: `x = 5`, `f(x) = 2x`, `x \\in [0, 1]`."""

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


def equivalent(gold: str, answer: str) -> bool:
    """Whether the answer says what the gold says. See above for what is refused."""
    gold, answer = gold.strip(), answer.strip()
    if not gold or not answer or max(len(gold), len(answer)) > LONGEST:
        return False
    if gold == answer:
        return True
    if _PLAIN.fullmatch(gold) and _PLAIN.fullmatch(answer):
        return Fraction(gold) == Fraction(answer)
    right, given = understood(gold), understood(answer)
    if isinstance(right, Scalar) and isinstance(given, Group | Text):
        given = _as_numeral(right, answer) or given
    return same(right, given)


def _as_numeral(gold: Scalar, answer: str) -> Value | None:
    """An answer to a question for one number, with spaces or commas in it that are no list then: `10 000`, `0,5`.

    For a whole number `5,0` may well be two answers.
    """
    answer = respelled(answer)
    if _SPACED.fullmatch(answer):
        return understood(answer.replace(" ", ""))
    if gold.tree.number.denominator != 1 and _EUROPEAN.fullmatch(answer):
        return understood(answer.replace(".", "").replace(",", "."))
    return None


# ----- reading


@lru_cache(maxsize=4096)
def understood(text: str) -> Value:
    """What a text of at most LONGEST characters says."""
    return _read(respelled(text), 0)


def _read(text: str, depth: int) -> Value:
    text = text.strip()
    plain = Text(_canonical(text))
    if depth > 8 or not text or len(text) > 4 * LONGEST:
        return plain
    if match := _CHOICE.fullmatch(text):
        return Scalar(Node("symbol", name=match[1]))
    if (match := _MATRIX.fullmatch(text)) and "\\begin" not in match[1]:
        rows = [row.split("&") for row in match[1].removesuffix("\\\\").split("\\\\")]
        return _group("matrix", [_group("row", _items(row, depth)) or plain for row in rows]) or plain
    if (match := _THOUSANDS.fullmatch(text)) and _is_balanced(match[1]):
        return _read(f"{match[1]}{match[2].replace(',', '')}{match[3]}", depth + 1)
    if len(parts := _split(text, re.compile(r"\\cup(?![A-Za-z])"))) > 1:
        return _group("union", _items(parts, depth)) or plain
    if len(parts := _split(text, _OR)) > 1:
        parts = [part for piece in parts for part in _split(piece, re.compile(","))]
        return _group("any", _values_of_one_name(_items(parts, depth))) or plain
    if len(parts := _split(text, re.compile("[,;]"))) > 1:
        return _list(_items(parts, depth)) or plain
    if len(parts := _split(text, re.compile(r"\\in(?![A-Za-z])"))) == 2 and _NAME.fullmatch(parts[0].strip()):
        return Named(_canonical(parts[0]), _read(parts[1], depth + 1))
    if len(parts := _split(text, _RELATION)) > 1:
        return _relation(parts, _operators(text), depth) or plain
    if text in ("\\emptyset", "\\{\\}"):
        return Group("set", ())
    if text.startswith("\\{") and text.endswith("\\}") and _encloses(text[1:-2] + "}"):
        return _group("set", _items(_split(text[2:-2], re.compile("[,;]")), depth)) or plain
    if text[0] in "([" and text[-1] in ")]" and _encloses(text):
        parts = _split(text[1:-1], re.compile("[,;]"))
        if len(parts) > 1:
            return _group(text[0] + text[-1], _items(parts, depth)) or plain
    if _PLUS_MINUS.search(text):
        both = [_PLUS_MINUS.sub(lambda match, two=signs: two[match[1] == "mp"], text) for signs in ("+-", "-+")]
        return _group("any", _items(both, depth)) or plain
    return _scalar(text) or plain


def _items(parts: Sequence[str], depth: int) -> list[Value]:
    return [_read(part, depth + 1) for part in parts[: _MOST_ITEMS + 1]]


def _group(kind: str, items: Sequence[Value]) -> Group | None:
    """None where an item is empty or there are too many: that is text."""
    return Group(kind, tuple(items)) if 0 < len(items) <= _MOST_ITEMS and Text("") not in items else None


def _list(items: list[Value]) -> Group | None:
    """`1, 2` has an order. Values given to names have none, and neither has what one name may be."""
    is_one_name = isinstance(items[0], Named) and all(isinstance(item, Scalar) for item in items[1:])
    if is_one_name or all(isinstance(item, Named) for item in items):
        return _group("any", _values_of_one_name(items))
    return _group("list", items)


def _values_of_one_name(items: list[Value]) -> list[Value]:
    """`x=1, x=2` and `x=1, 2` are the values 1 and 2; `x=1, y=2` stays as it is."""
    names = {item.name for item in items if isinstance(item, Named)}
    if len(names) == 1 and isinstance(items[0], Named):
        return [item.value if isinstance(item, Named) else item for item in items]
    return items


def _relation(parts: list[str], operators: list[str], depth: int) -> Value | None:
    if len(parts) != len(operators) + 1 or len(parts) > 5:
        return None
    if set(operators) == {"="} and _is_true_chain(parts):
        for name, value in ((parts[0], parts[-1]), (parts[-1], parts[0]))[: 2 if len(parts) == 2 else 1]:
            given = _read(value, depth + 1)
            if _NAME.fullmatch(name.strip()) and not isinstance(given, Text) and _canonical(name) not in _names(given):
                return Named(_canonical(name), given)
    try:
        trees = [read(part.strip()) for part in parts]
    except Unreadable:
        return None
    relations = [_solved(op, left, right) for op, (left, right) in zip(operators, pairwise(trees), strict=True)]
    return relations[0] if len(relations) == 1 else _group("chain", relations)


def _is_true_chain(parts: Sequence[str]) -> bool:
    """Whether `x = 2+3 = 5` holds: what stands between the name and the value has that value."""
    try:
        return len(parts) == 2 or all(same_value(read(part.strip()), read(parts[-1].strip())) for part in parts[1:-1])
    except Unreadable:
        return False


def _solved(op: str, left: Node, right: Node) -> Relation:
    """With the symbol on the left where it stands alone on one side."""
    if right.op == "symbol" and not _is_solved(Relation(op, left, right)):
        return Relation(_FLIPPED[op], right, left)
    return Relation(op, left, right)


def _is_solved(relation: Relation) -> bool:
    return relation.left.op == "symbol" and relation.left.name in symbols(relation.left) - symbols(relation.right)


def _scalar(text: str) -> Scalar | Text | None:
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


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """At the separators outside of brackets, of whatever kind: `[0, 1)` is one."""
    parts, start, depth, at = [], 0, 0, 0
    while at < len(text):
        if text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            depth -= 1
        if depth == 0 and (match := separator.match(text, at)) and match.end() > at:
            parts.append(text[start:at])
            start = at = match.end()
            continue
        at += 1
    return [*parts, text[start:]]


def _operators(text: str) -> list[str]:
    """The relation signs that `_split` splits at."""
    rest, found = text, []
    for part in _split(text, _RELATION)[:-1]:
        match = _RELATION.match(rest, len(part))
        assert match is not None
        found.append(_RELATIONS.get(match[0], match[0]))
        rest = rest[match.end() :]
    return found


def _is_balanced(text: str) -> bool:
    return sum(text.count(mark) for mark in "([{") == sum(text.count(mark) for mark in ")]}")


def _encloses(text: str) -> bool:
    """Whether the bracket that opens a text is the one that ends it."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return at == len(text) - 1
    return False


def _canonical(text: str) -> str:
    """Text for comparison: words without fonts and case, anything else as it is, but for spaces after commas."""
    words = re.sub(r"\s+", " ", re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)).strip().strip(".").strip()
    if _WORDS.fullmatch(words) and (len(words) > 2 or words.lower() == "no"):
        return words.casefold()
    return re.sub(r"(?<=,) | (?=[^A-Za-z0-9])", "", words)


# ----- comparing


def same(gold: Value, answer: Value) -> bool:
    """Whether two values are the same; what the gold is decides what the answer may be."""
    match gold, answer:
        case Named(), Named():
            return gold.name == answer.name and same(gold.value, answer.value)
        case Relation(), Named(name=name, value=Scalar(tree=tree)):
            return gold.op == "=" and _same_relation(gold, Relation("=", Node("symbol", name=name), tree))
        case Named(), _:
            return not _names(gold.value) and same(gold.value, answer)
        case _, Named():
            return not _names(answer.value) and same(gold, answer.value)
        case Text(), Text():
            return gold.text == answer.text
        case Scalar(), Scalar():
            return _same_scalar(gold, answer)
        case Relation(), Relation():
            return _same_relation(gold, answer)
        case Group(), Group():
            return _same_group(gold, answer)
    return False


def _same_group(gold: Group, answer: Group) -> bool:
    unordered = {"set": ("set", "any", "list"), "any": ("any", "set", "list"), "union": ("union",), "chain": ("chain",)}
    if gold.kind not in unordered:
        is_alike = gold.kind == answer.kind and len(gold.items) == len(answer.items)
        return is_alike and all(same(a, b) for a, b in zip(gold.items, answer.items, strict=True))
    if answer.kind not in unordered[gold.kind]:
        return False
    if gold.kind != "set" and len(gold.items) != len(answer.items):
        return False
    if len(answer.items) > len(gold.items) * (2 if answer.kind == "set" else 1):  # a set may say a thing twice
        return False
    return all(any(same(a, b) for b in answer.items) for a in gold.items) and all(
        any(same(a, b) for a in gold.items) for b in answer.items
    )


def _same_scalar(gold: Scalar, answer: Scalar) -> bool:
    if gold.unit != answer.unit and ("%" in (gold.unit, answer.unit) or (gold.unit and answer.unit)):
        return False
    if answer.decimals and _is_rounded(gold, answer.decimals):
        return True
    if gold.decimals and len(gold.decimals.partition(".")[2]) >= LEAST_DIGITS and _is_rounded(answer, gold.decimals):
        return True
    if gold.tree == answer.tree:  # also where it has no value that can be computed
        return True
    return _is_finished(gold.tree, answer.tree) and same_value(gold.tree, answer.tree)


def _is_rounded(value: Scalar, decimal: str) -> bool:
    """Whether a decimal is a value without end to its last digit, and has enough of them."""
    if value.decimals or symbols(value.tree) or len(decimal.strip("+-").replace(".", "").lstrip("0")) < LEAST_DIGITS:
        return False
    try:
        rational = exact(value.tree)
    except NoValue:
        return False
    last = Fraction(1, 10 ** len(decimal.partition(".")[2]))
    if rational is not None:
        denominator = rational.denominator
        for prime in (2, 5):
            while denominator % prime == 0:
                denominator //= prime
        return denominator > 1 and abs(rational - Fraction(decimal)) < last
    return is_within(value.tree, Fraction(decimal), last)


def _same_relation(gold: Relation, answer: Relation) -> bool:
    if _is_solved(gold):
        if not _is_solved(answer) or gold.op != answer.op or gold.left != answer.left:
            return False
        return _is_finished(gold.right, answer.right) and same_value(gold.right, answer.right)
    first, second = _difference(gold), _difference(answer)
    if gold.op != answer.op:
        if gold.op != _FLIPPED[answer.op]:
            return False
        second = negative(second)
    return proportional(first, second, positive=gold.op not in ("=", "!="))


def _difference(relation: Relation) -> Node:
    return Node("+", (relation.left, negative(relation.right)))


def _names(value: Value) -> frozenset[str]:
    """The symbols in a value. A text has one that no name is equal to."""
    match value:
        case Scalar():
            return symbols(value.tree)
        case Group():
            return frozenset().union(*map(_names, value.items))
        case Named():
            return _names(value.value) | {value.name}
        case Relation():
            return symbols(value.left) | symbols(value.right)
    return frozenset() if value.text.endswith("infinity") else frozenset({"\\text"})


# ----- how far an answer is worked out

_FAMILIES = {
    **dict.fromkeys(("sin", "cos", "tan", "cot", "sec", "csc"), "trigonometric"),
    **dict.fromkeys(("arcsin", "arccos", "arctan", "arccot", "arcsec", "arccsc"), "inverse"),
    **dict.fromkeys(("sinh", "cosh", "tanh", "coth", "sech", "csch"), "hyperbolic"),
    **dict.fromkeys(("arcsinh", "arccosh", "arctanh"), "inverse hyperbolic"),
    **dict.fromkeys(("log", "ln"), "logarithm"), **dict.fromkeys(("!", "binom", "gamma"), "counting"), "abs": "abs",
    **dict.fromkeys(("floor", "ceil"), "rounding"),
    **{op: op for op in (*BINDERS, "zeta", "gcd", "lcm", "max", "min")},
}  # fmt: skip


def _family(node: Node) -> str | None:
    return f"the function {node.name}" if node.op == "apply" else _FAMILIES.get(node.op)


def _is_finished(gold: Node, answer: Node) -> bool:
    """Whether an answer is as far worked out as the gold, and not the question handed back."""
    if _is_number(gold):
        return _is_number(answer)
    if _is_number(answer):
        return True
    of_gold, of_answer = list(_walk(gold)), list(_walk(answer))
    if not set(map(_family, of_answer)) <= {*map(_family, of_gold), None}:
        return False
    if symbols(gold):
        return symbols(answer) <= symbols(gold)
    return not symbols(answer) and all(
        count(of_answer) <= count(of_gold) for count in (_roots, _terms, _powers_of_sums)
    )


def _is_number(tree: Node) -> bool:
    """A numeral: `5`, `-0.5`, `1/2` in lowest terms, `3*10^8`."""
    match tree:
        case Node("number"):
            return True
        case Node("-", (part,)):
            return _is_number(part)
        case Node("/", (Node("number") as top, Node("number") as bottom)):
            a, b = top.number, bottom.number
            return a.denominator == b.denominator == 1 and b > 1 and (a / b).denominator == b
        case Node("*", (Node("number"), power)):
            return _is_power_of_ten(power)
    return _is_power_of_ten(tree)


def _is_power_of_ten(tree: Node) -> bool:
    match tree:
        case Node("^", (Node("number") as base, Node("number") as exponent)):
            return base.number == 10 and exponent.number.denominator == 1
    return False


def _walk(tree: Node) -> list[Node]:
    return [tree, *(node for part in tree.parts for node in _walk(part))]


def _roots(nodes: Sequence[Node]) -> int:
    return sum(node.op == "root" or (node.op == "^" and node.parts[1].op != "number") for node in nodes)


def _powers_of_sums(nodes: Sequence[Node]) -> int:
    return sum(node.op == "^" and any(part.op == "+" for part in _walk(node.parts[0])) for node in nodes)


def _terms(nodes: Sequence[Node]) -> int:
    return sum(len(node.parts) - 1 for node in nodes if node.op == "+")
