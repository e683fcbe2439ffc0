"""Formulas that a model wrote, read and computed without running them.

Python's parser reads the text, and of the tree only numbers, names that are expected and arithmetic are taken; nothing
is compiled or evaluated. What is too long or too deep is no formula.
"""

from __future__ import annotations

import ast
import cmath
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any

LONGEST = 4000
"""Characters of a formula."""
_DEEPEST = 200

FUNCTIONS: Mapping[str, Callable[[complex], complex]] = MappingProxyType(
    {
        "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "asin": cmath.asin, "acos": cmath.acos,
        "atan": cmath.atan,
        "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh, "exp": cmath.exp, "log": cmath.log, "ln": cmath.log,
        "sqrt": cmath.sqrt, "Abs": lambda x: complex(abs(x)), "abs": lambda x: complex(abs(x)),
    }
)  # fmt: skip
CONSTANTS: Mapping[str, complex] = MappingProxyType({"pi": complex(cmath.pi), "E": complex(cmath.e)})
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = MappingProxyType(
    {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
)
_OPERATIONS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = MappingProxyType(
    {**_ARITHMETIC, ast.Pow: operator.pow}
)


def read(text: str) -> ast.expr | None:
    """The tree of a formula; None for what is none. `^` is a power, as on paper."""
    text = text.strip().replace("^", "**")
    if not text or len(text) > LONGEST or not text.isascii():
        return None
    try:
        tree = ast.parse(text.replace("\n", " "), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if _depth_is_bounded(tree) else None


def exact(text: str) -> tuple[Fraction, list[int]] | None:
    """The value of whole numbers under + - * / and brackets, and the numbers in the order in which they stand.

    None for anything else: a power, `//`, `1.5` or a division by zero.
    """
    tree, numbers = read(text) if "^" not in text else None, []

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int(number)) if not isinstance(number, bool):
                numbers.append(number)
                return Fraction(number)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return _ARITHMETIC[type(op)](value(left), value(right))
        raise ValueError(f"not arithmetic: {type(node).__name__}")

    if tree is None:
        return None
    try:
        return value(tree), numbers
    except (ValueError, ZeroDivisionError):
        return None


def function(tree: ast.expr, variable: str) -> Callable[[complex], complex | None]:
    """A formula as a function of its variable: None where it has no value, and everywhere if part of it is no formula.

    The tree is gone through once, and not at every point: a judge asks for hundreds.
    """
    try:
        value = _function(tree, variable)
    except (ValueError, OverflowError, KeyError):
        return lambda x: None

    def at(x: complex) -> complex | None:
        try:
            return value(x)
        except (ValueError, ZeroDivisionError, OverflowError):
            return None

    return at


def _function(node: ast.expr, variable: str) -> Callable[[complex], complex]:
    match node:
        case ast.Constant(value=int(number) | float(number)) if not isinstance(number, bool):
            constant = complex(number)
            return lambda x: constant
        case ast.Name(id=name) if name == variable:
            return lambda x: x
        case ast.Name(id=name):
            constant = CONSTANTS[name]
            return lambda x: constant
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _function(operand, variable)
            return lambda x: -value(x)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _function(operand, variable)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            outer, inner = FUNCTIONS[name], _function(argument, variable)
            return lambda x: outer(inner(x))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            join, one, other = _OPERATIONS[type(op)], _function(left, variable), _function(right, variable)
            return lambda x: join(one(x), other(x))
    raise ValueError(f"not a formula: {type(node).__name__}")


def _depth_is_bounded(tree: ast.AST) -> bool:
    level, depth = [tree], 0
    while level:
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
        if depth > _DEEPEST:
            return False
    return True
