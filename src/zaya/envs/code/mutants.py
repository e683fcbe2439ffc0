"""Programs with one mistake in them: what a wrong candidate is made of where nobody wrote one.

A mutant differs from its program in one place of its syntax tree. Places are counted in the order in which they stand,
so that (program, number) names a mutant. Source: spec post-training 9.3.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Every mutant of a program. Raises SyntaxError for what is no program."""
    return (mutant(source, number) for number in range(len(_all_places(ast.parse(source)))))


def mutant(source: str, number: int) -> tuple[str, str]:
    """One mutant: what was changed, in a word or two and its line, and its source."""
    tree = ast.parse(source)
    kind, node = _all_places(tree)[number]
    line = getattr(node, "lineno", 0)
    _change(kind, node)
    return f"{kind}, line {line}", ast.unparse(ast.fix_missing_locations(tree))


def _all_places(tree: ast.AST) -> list[tuple[str, ast.AST]]:
    return [place for node in ast.walk(tree) for place in _places(node)]


def _places(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(ops=[op, *_]) if type(op) in _COMPARISONS:
            yield "another comparison", node
        case ast.BinOp(op=op) if type(op) in _OPERATORS:
            yield "another operator", node
        case ast.AugAssign(op=op) if type(op) in _OPERATORS:
            yield "another operator", node
        case ast.BoolOp():
            yield "and for or", node
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            yield "off by one", node
        case ast.Constant(value=bool()):
            yield "the other truth", node
        case ast.If(body=[*_], orelse=[*_]):
            yield "a case is missing", node
        case ast.UnaryOp(op=ast.Not()):
            yield "a not is missing", node
        case ast.Call(func=ast.Name(id="range"), args=[_, _, *_]):
            yield "another start", node
        case ast.Call(func=ast.Name(id="min" | "max")):
            yield "min for max", node
        case ast.Subscript(slice=ast.Slice(lower=lower, upper=upper)) if lower is not None or upper is not None:
            yield "another slice", node
        case _:
            return


def _change(kind: str, node: ast.AST) -> None:
    match node:
        case ast.Compare():
            node.ops[0] = _COMPARISONS[type(node.ops[0])]()
        case ast.BinOp() | ast.AugAssign():
            node.op = _OPERATORS[type(node.op)]()
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.Constant(value=bool(value)):
            node.value = not value
        case ast.Constant(value=int(value)):
            node.value = value + 1
        case ast.If():
            node.body = node.orelse  # both ways the same
        case ast.UnaryOp():
            node.op = ast.UAdd()
            node.operand = ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])
        case ast.Call(func=ast.Name(id="range")):
            node.args[0] = ast.BinOp(node.args[0], ast.Add(), ast.Constant(1))
        case ast.Call(func=ast.Name(id=name)):
            node.func = ast.Name("max" if name == "min" else "min", ast.Load())
        case ast.Subscript(slice=ast.Slice(lower=lower, upper=upper) as part):
            if upper is not None:
                part.upper = ast.BinOp(upper, ast.Sub(), ast.Constant(1))
            else:
                assert lower is not None
                part.lower = ast.BinOp(lower, ast.Add(), ast.Constant(1))
        case _:
            raise AssertionError(kind)
