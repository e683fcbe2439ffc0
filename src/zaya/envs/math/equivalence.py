"""Whether an answer is the right one, read as mathematics: `equivalent(gold, answer)`.

An answer is read into a type (`envs.math.answer`): a number or formula with its unit, a tuple or interval, a list, a
set, alternatives, a matrix, cases, an equation or inequality, or text. Types that differ are not equal, and what is not
read is compared as text. Both are pure computations with an end and without state, so they may be called from any
thread. No text is evaluated as Python or by sympy, ever. Source: spec post-training 10.

A right answer that is refused costs little; a wrong one that is paid for is learnt. Refused are therefore:

    unfinished     where the gold is a number, what is none: `2+3` or `10/2` for 5, `2/4` for 1/2. Else what has a
                   function, more roots or more terms than the gold: mostly the question, handed back
    not worked out n(n+1)/2 for a sum to n, a value for an integral. A gold that is a sum, product or integral wants it
                   again, whatever its name for what it runs over; short sums of numbers are written out
    rounded        0.33 for 1/3. Six digits, the last within one, pass for a value that has no end: 0.333333
    percent        for a number, and a number for percent
    other units    50 mm for 5 cm, and a unit that is not in the list. One may be left out, and so may what was counted
    brackets       (1,2), [1,2], {1,2} and `1, 2` are four things; a set may be given as a list
    order          of tuples and of lists. `1 or 2`, `±1`, `x=1, x=2` and sets have none: a gold that means one says so
    y=2x+1         for 2x+1; `x=5` is 5. A solved equation wants one solved for the same symbol
    forms          an inequality or a condition for an interval, 6:8 for 3:4, a formula for its logarithm's base: `log`
                   is neither `ln` nor base 10
    whole numbers  what is true for those alone: n less its half rounded down for its half rounded up
    two readings   `1/2x`, `x2`, `2e-3`, `sin x/2`
    beside it      anything that stands beside the answer

What it cannot see: whether a form was asked for. A gold `(x-1)(x+1)` takes `x^2-1`; a gold `2\\sqrt{3}`, `\\sqrt{12}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from zaya.envs.math.answer import FLIPPED, Group, Named, Relation, Scalar, Text, Value, names
from zaya.envs.math.exact import NoValue, exact
from zaya.envs.math.reading import is_solved, understood
from zaya.envs.math.spelling import LONGEST, respelled
from zaya.envs.math.tree import BINDERS, Node, negative, symbols
from zaya.envs.math.value import is_closed, is_within, proportional, same_value

LEAST_DIGITS = 6
"""Of a decimal that stands for a value without end."""

_PLAIN = re.compile(r"[+-]?(?:[0-9]{1,200}(?:\.[0-9]{1,200})?|\.[0-9]{1,200})")
_SPACED = re.compile(r"[+-]?[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
_EUROPEAN = re.compile(r"[+-]?(?:[0-9]+,[0-9]{1,2}|[0-9]+,[0-9]{4,}|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+)")

_LABELLED = re.compile(
    r"\$?\\(?:text|textbf|textrm|mathrm|mathbf)\{ ?\(([A-E])\) ?\}(?:\\[ ,;:]|[ ~]|\\q?quad(?![a-z]))*+"
    r"(?!.*\([A-E]\)|[,;&+*/^_=<>)]|(?:\\text\{ ?)?(?:and|or)(?![a-z]))(.+?)\$?",
    re.DOTALL,
)
"""A choice and what it says. `\\text{(A)} and \\text{(C)}` are two choices."""
_COUNTED = re.compile(
    r"([0-9.,]+) ?(?:\\text\{)? ?(?!hundred|thousand|million|billion|trillion|lakh|crore|dozen|ten|half|halv|third"
    r"|quarter|[a-z]*ths(?![a-z])|percent|score|gross|less|minus|plus|versus|modul|base|always|unless|perhaps)"
    r"([a-z]{3,}[a-rt-z]s|children|men|women) ?\}?"
)
"""A number of things that are no unit of measure. `3 thousands` are not 3."""
_UNORDERED = {
    "set": ("set", "any", "list"), "any": ("any", "set", "list"), "all": ("all", "list"), "either": ("either",),
    "union": ("union",), "chain": ("chain",), "cases": ("cases",),
}  # fmt: skip
"""And what kinds of an answer are taken for them."""


def equivalent(gold: str, answer: str) -> bool:
    """Whether the answer says what the gold says. See above for what is refused."""
    gold, answer = gold.strip(), answer.strip()
    if not gold or not answer or max(len(gold), len(answer)) > LONGEST:
        return False
    if gold == answer:
        return True
    if _PLAIN.fullmatch(gold) and _PLAIN.fullmatch(answer):
        return Fraction(gold) == Fraction(answer)
    if match := _LABELLED.fullmatch(gold):
        return _is_choice(match[1], match[2], answer)
    right, given = understood(gold), understood(answer)
    if isinstance(right, Text) and (match := _COUNTED.fullmatch(respelled(gold))):
        return _is_count(match[1], match[2], answer)
    if isinstance(right, Scalar) and isinstance(given, Group | Text):
        given = _as_numeral(right, answer) or given
    return same(right, given)


def _is_choice(letter: str, gold: str, answer: str) -> bool:
    """`\\textbf{(C)}\\ 12` as a gold says two things. Each alone is an answer, and both are if both are right."""
    if match := _LABELLED.fullmatch(answer):
        return match[1] == letter and equivalent(gold, match[2])
    return equivalent(letter, answer) or equivalent(gold, answer)


def _is_count(number: str, noun: str, answer: str) -> bool:
    """`15\\text{ students}` as a gold: the noun may be left out. It is no unit, so another one is wrong."""
    if match := _COUNTED.fullmatch(respelled(answer)):
        return match[2] == noun and equivalent(number, match[1])
    given = understood(answer)
    return isinstance(given, Scalar) and not given.unit and equivalent(number, answer)


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


# ----- comparing


def same(gold: Value, answer: Value) -> bool:
    """Whether two values are the same; what the gold is decides what the answer may be."""
    match gold, answer:
        case Named(), Named():
            return gold.name == answer.name and same(gold.value, answer.value)
        case Relation(), Named(name=name, value=Scalar(tree=tree)):
            return gold.op == "=" and _same_relation(gold, Relation("=", Node("symbol", name=name), tree))
        case (Named(), Group(kind="any")) | (Group(kind="any"), Named()) if _one_by_one(gold) and _one_by_one(answer):
            first, second = _one_by_one(gold), _one_by_one(answer)
            return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
        case Named(), _:
            return not names(gold.value) and same(gold.value, answer)
        case _, Named():
            return not names(answer.value) and same(gold, answer.value)
        case Text(), Text():
            return gold.text == answer.text
        case Scalar(), Scalar():
            return _same_scalar(gold, answer)
        case Relation(), Relation():
            return _same_relation(gold, answer)
        case Group(), Group():
            return _same_group(gold, answer)
    return False


def _one_by_one(value: Value) -> Mapping[str, Value]:
    """The values of `(x,y)=(1,2)` and of `x=1, y=2` by their names; empty for anything else."""
    match value:
        case Named(name=name, value=Group(kind="()", items=items)) if name.startswith("("):
            return dict(zip(name[1:-1].split(","), items, strict=True))
        case Group(kind="any", items=items):
            found = {item.name: item.value for item in items if isinstance(item, Named)}
            return found if len(found) == len(items) else {}
    return {}


def _same_group(gold: Group, answer: Group) -> bool:
    if gold.kind not in _UNORDERED:
        is_alike = gold.kind == answer.kind and len(gold.items) == len(answer.items)
        return is_alike and all(same(a, b) for a, b in zip(gold.items, answer.items, strict=True))
    if answer.kind not in _UNORDERED[gold.kind] or _has_names(gold) is not _has_names(answer):
        return False
    if gold.kind != "set" and len(gold.items) != len(answer.items):
        return False
    if len(answer.items) > len(gold.items) * (2 if answer.kind == "set" else 1):  # a set may say a thing twice
        return False
    return all(any(same(a, b) for b in answer.items) for a in gold.items) and all(
        any(same(a, b) for a in gold.items) for b in answer.items
    )


def _has_names(value: Group) -> bool:
    return any(isinstance(item, Named) for item in value.items)


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
    if (
        value.decimals
        or not is_closed(value.tree)
        or len(decimal.strip("+-").replace(".", "").lstrip("0")) < LEAST_DIGITS
    ):
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
    if is_solved(gold):
        if not is_solved(answer) or gold.op != answer.op or gold.left != answer.left:
            return False
        return _is_finished(gold.right, answer.right) and same_value(gold.right, answer.right)
    first, second = _difference(gold), _difference(answer)
    if gold.op != answer.op:
        if gold.op != FLIPPED[answer.op]:
            return False
        second = negative(second)
    return proportional(first, second, positive=gold.op not in ("=", "!="))


def _difference(relation: Relation) -> Node:
    return Node("+", (relation.left, negative(relation.right)))


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
