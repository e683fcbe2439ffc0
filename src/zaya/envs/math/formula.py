"""Formulas in LaTeX or as they are typed, read into trees. Nothing is evaluated here, and no text ever is, as Python.

The reader knows one grammar and refuses the rest: what is not read is compared as text. It refuses what people read in
two ways: `1/2x`, `x2`, two numbers side by side, `2e-3`. It always ends, in time linear in the length.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from zaya.envs.math.numerals import numeral
from zaya.envs.math.tree import BINDERS, Node, Unreadable, bound, height, negative, number, product, symbols

_DEEPEST = 25
"""Brackets within brackets, and exponents on exponents."""
_MOST_SLASHES = 6
"""Quotients of quotients in a row, `a/b/c`."""
_MOST_BINDERS = 3
"""Sums in sums."""

GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "omega", "phi", "rho", "sigma", "tau", "psi",
    "Delta", "Omega", "ell", "xi", "zeta", "eta", "kappa", "nu",
)  # fmt: skip
FUNCTIONS = (
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "arccot", "arcsec", "arccsc",
    "sinh", "cosh", "tanh", "coth", "sech", "csch", "arcsinh", "arccosh", "arctanh", "log", "lg", "ln", "exp",
)  # fmt: skip
_INVERTIBLE = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
_OF_SEVERAL = ("gcd", "lcm", "max", "min")
_APPLIED = ("f", "g", "phi", "psi", "sigma", "tau")
"""A bracket behind these is an argument, whatever stands in it. Behind other letters it is one if it is no sum:
`x(x+1)` is a product, and `P(x)` is none."""

_COMMAND = re.compile(r"\\([A-Za-z]+)")
_ONE_ARGUMENT = re.compile(r"\((?:[A-Za-z]|\d+)\)")
_OVER = re.compile(r"_\{([A-Za-z])=")
_DIFFERENTIAL = re.compile(r" ?d ?([A-Za-z]|\\[a-z]+)(?![A-Za-z_])")
DERIVATIVE = re.compile(r"\\frac\{d[A-Za-z]?(?:\^\{?\d\}?[A-Za-z]?)?\}\{d[A-Za-z](?:\^\{?\d\}?)?\}")
"""No quotient: `\\frac{dy}{dx}` is not y/x."""
_STARTING = ("pi", "frac", "binom", "sqrt", "lfloor", "lceil", *GREEK, *FUNCTIONS, *_OF_SEVERAL, *BINDERS, "Gamma")
_SUBSCRIPT = re.compile(r"_(?:\{([A-Za-z0-9,]+)\}|([A-Za-z0-9]))")


def read(text: str) -> Node:
    """The tree of a formula in the spelling of `envs.math.spelling`. Raises Unreadable."""
    if not text.isascii():  # \\d and int() know the digits of all scripts
        raise Unreadable("characters of no formula")
    if DERIVATIVE.search(text):
        raise Unreadable("a derivative")
    reader = _Reader(text)
    tree = reader.sum()
    if reader.at != len(text):
        raise Unreadable(f"left over: {text[reader.at :]}")
    return tree


class _Reader:
    """A text, and how far it is read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.in_bars = False
        self.integrals = 0
        """That wait for their `dx`."""

    def sum(self) -> Node:
        terms = [self.product()]
        while sign := self.sign():
            term = self.product()
            terms.append(term if sign == "+" else negative(term))
        return terms[0] if len(terms) == 1 else Node("+", tuple(terms))

    def product(self) -> Node:
        """Factors side by side, or with a sign between them. A quotient ends them: `1/2x` has two readings."""
        minus = False
        while sign := self.sign():
            minus ^= sign == "-"
        value = self.factor()
        after_slash, slashes = False, 0
        while True:
            if self.take("/"):
                value, after_slash, slashes = Node("/", (value, self.signed_factor())), True, slashes + 1
                if slashes > _MOST_SLASHES:
                    raise Unreadable("too many slashes")
            elif self.take("*") or self.take("\\cdot") or self.take("\\times"):
                value, after_slash = product(value, self.signed_factor()), False
            elif self.starts_a_factor():
                if after_slash:
                    raise Unreadable("a/bc has two readings")
                if (self.peek().isdigit() or self.peek() == ".") and self.text[self.at - 1] != "!":
                    raise Unreadable("a number behind a factor")
                value = product(value, self.factor())
            else:
                return negative(value) if minus else value

    def signed_factor(self) -> Node:
        return negative(self.factor()) if self.take("-") else self.factor()

    def factor(self) -> Node:
        """An atom with what stands behind it: `!`, a power, a degree sign."""
        value = self.atom()
        while True:
            if self.take("!"):
                if value.op == "!":
                    raise Unreadable("a double factorial")
                value = Node("!", (value,))
            elif self.take("^\\circ") or self.take("^{\\circ}"):
                value = Node("*", (value, Node("/", (Node("symbol", name="pi"), number(180)))))
            elif value.op != "^" and self.take("^"):
                value = Node("^", (value, self.exponent()))
            else:
                return value

    def exponent(self) -> Node:
        is_negative = self.take("-")
        value = self.atom()
        if self.take("^"):
            value = Node("^", (value, self.nested(self.exponent)))
        return negative(value) if is_negative else value

    def atom(self) -> Node:
        return self.nested(self.any_atom)

    def nested(self, read: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Unreadable("too deep")
        value = read()
        self.depth -= 1
        return value

    def any_atom(self) -> Node:
        self.skip_space()
        here = self.peek()
        if here.isdigit() or here == ".":
            return self.numeral()
        for opening, closing in (("(", ")"), ("{", "}"), ("[", "]")):
            if self.take(opening):
                outside, self.in_bars = self.in_bars, False
                value = self.sum()
                self.in_bars = outside
                self.expect(closing)
                return value
        if here == "|" and not self.in_bars:
            self.at += 1
            self.in_bars = True
            value = self.sum()
            self.in_bars = False
            self.expect("|")
            return Node("abs", (value,))
        if here == "\\":
            return self.command()
        if here.isascii() and here.isalpha():
            self.at += 1
            return self.symbol(here)
        raise Unreadable(f"no factor: {here!r}")

    def symbol(self, name: str) -> Node:
        """A symbol, or a function of that name, of which nothing else is known, with its arguments."""
        full = name + self.subscript()
        is_applied = name in _APPLIED or (name not in ("e", "i", "pi") and _ONE_ARGUMENT.match(self.text, self.at))
        if is_applied and self.peek() == "(":
            return Node("apply", self.arguments(), name=full)
        return Node("symbol", name=full)

    def arguments(self, opening: str = "(", closing: str = ")") -> tuple[Node, ...]:
        self.expect(opening)
        outside, self.in_bars = self.in_bars, False
        parts = [self.nested(self.sum)]
        while self.take(","):
            parts.append(self.nested(self.sum))
        self.in_bars = outside
        self.expect(closing)
        return tuple(parts)

    def numeral(self) -> Node:
        value, written, self.at = numeral(self.text, self.at)
        if base := self.subscript():
            return Node("symbol", name=written + base)  # a numeral in another base: equal to itself alone
        return number(value)

    def command(self) -> Node:
        match = _COMMAND.match(self.text, self.at)
        name = match[1] if match else ""
        self.at = match.end() if match else self.at
        if name in ("Gamma", "zeta") and self.peek() == "(":
            (value,) = self.one(self.arguments())
            return Node(name.lower(), (value,))
        if name in ("pi", *GREEK):
            return self.symbol(name)
        if name in _OF_SEVERAL and self.peek() in ("(", "\\"):
            return Node(name, self.arguments() if self.peek() == "(" else self.arguments("\\{", "\\}"))
        if name in BINDERS:
            return self.nested(lambda: self.binder(name))
        if name == "frac":
            return Node("/", (self.argument(), self.argument()))
        if name == "binom":
            if self.take("("):
                top = self.sum()
                self.expect(",")
                bottom = self.sum()
                self.expect(")")
                return Node("binom", (top, bottom))
            return Node("binom", (self.argument(), self.argument()))
        if name == "sqrt":
            if self.take("["):
                index = self.sum()
                self.expect("]")
                return Node("root", (self.argument(), index))
            return Node("root", (self.argument(), number(2)))
        if name in ("lfloor", "lceil"):
            value = self.sum()
            self.expect("\\rfloor" if name == "lfloor" else "\\rceil")
            return Node(name[1:], (value,))
        if name in FUNCTIONS:
            return self.function(name)
        raise Unreadable(f"command {name!r}")

    def one(self, parts: tuple[Node, ...]) -> tuple[Node]:
        if len(parts) != 1:
            raise Unreadable("one argument is expected")
        return (parts[0],)

    def binder(self, name: str) -> Node:
        """`\\sum_{k=1}^{n}` with all factors that follow, or an integral between two bounds up to its `dx`."""
        if name == "int":
            self.expect("_")
            low = self.limit()
            self.expect("^")
            high = self.limit()
            self.integrals += 1
            body = number(1) if _DIFFERENTIAL.match(self.text, self.at) else self.sum()
            self.integrals -= 1
            match = _DIFFERENTIAL.match(self.text, self.at)
            if match is None or "d" in symbols(body):
                raise Unreadable("no differential, or a second one")
            self.at = match.end()
            return self.bound(name, match[1].lstrip("\\"), low, high, body)
        self.skip_space()
        match = _OVER.match(self.text, self.at)
        if match is None:
            raise Unreadable("not from one number to another")
        self.at = match.end()
        low = self.sum()
        self.expect("}")
        self.expect("^")
        high = self.limit()
        start = self.at
        body = self.product()
        if name == "prod" and re.search(r"[/*]|\\cdot|\\times", self.text[start : self.at]):
            raise Unreadable("where the product ends is not clear")
        return self.bound(name, match[1], low, high, body)

    def bound(self, name: str, over: str, low: Node, high: Node, body: Node) -> Node:
        if height(body) >= _MOST_BINDERS:
            raise Unreadable("too many sums of sums")
        return bound(name, over, low, high, body)

    def limit(self) -> Node:
        for text, value in (("\\infty", Node("infinity")), ("{\\infty}", Node("infinity")),
                            ("{+\\infty}", Node("infinity")), ("{-\\infty}", negative(Node("infinity")))):  # fmt: skip
            if self.take(text):
                return value
        value = self.argument()
        if self.peek().isdigit() and self.text[self.at - 1] != "}":
            raise Unreadable("where the bound ends is not clear")
        return value

    def function(self, name: str) -> Node:
        base, power = None, None
        while True:
            if self.take("_"):
                base = self.argument()
            elif self.take("^\\circ"):
                raise Unreadable("a degree sign on a function")
            elif self.take("^"):
                power = self.argument(signed=True)
            else:
                break
        if base is not None and name != "log":
            raise Unreadable(f"{name} has no base")
        value = self.function_argument()
        if name == "log" and base is not None:
            node = Node("/", (Node("ln", (value,)), Node("ln", (base,))))
        elif power == negative(number(1)):
            if name not in _INVERTIBLE:
                raise Unreadable("an inverse")
            return Node(f"arc{name}", (value,))
        elif name == "lg":
            node = Node("/", (Node("ln", (value,)), Node("ln", (number(10),))))
        elif name == "exp":
            node = Node("^", (Node("symbol", name="e"), value))
        else:
            node = Node(name, (value,))
        return node if power is None else Node("^", (node, power))

    def function_argument(self) -> Node:
        """What a function is applied to: a bracket alone, or factors up to a sign or another function."""
        self.skip_space()
        if self.peek() in ("(", "{", "[", "|"):
            value = self.atom()
            if self.text.startswith(("^", "!"), self.at):
                raise Unreadable("sin(x)^2 has two readings")
            return value
        value = self.signed_factor()
        while self.starts_a_factor() and not self.at_function():
            if self.peek().isdigit() or self.peek() in ("(", "."):
                raise Unreadable("where the function ends is not clear")
            value = product(value, self.factor())
        if self.peek() == "/":
            raise Unreadable("sin x/2 has two readings")
        return value

    def argument(self, signed: bool = False) -> Node:
        """Of `\\frac`, `\\sqrt` and the like: a group, or the one character that stands there, as LaTeX has it."""
        self.skip_space()
        if signed and self.take("-"):
            return negative(self.argument())
        if self.peek().isdigit():
            self.at += 1
            if self.at < len(self.text) and self.text[self.at] == ".":
                raise Unreadable("half a number")
            return number(int(self.text[self.at - 1]))
        return self.atom()

    def starts_a_factor(self) -> bool:
        self.skip_space()
        here = self.peek()
        if here == "|":
            return not self.in_bars
        if here == "\\":
            match = _COMMAND.match(self.text, self.at)
            return match is not None and match[1] in _STARTING
        if here == "d" and self.integrals and _DIFFERENTIAL.match(self.text, self.at):
            return False
        return here in ("(", "{", ".") or here.isdigit() or (here.isascii() and here.isalpha())

    def at_function(self) -> bool:
        match = _COMMAND.match(self.text, self.at)
        return match is not None and match[1] in (*FUNCTIONS, *BINDERS)

    def subscript(self) -> str:
        match = _SUBSCRIPT.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return f"_{match[1] or match[2]}"

    def sign(self) -> str:
        return "+" if self.take("+") else "-" if self.take("-") else ""

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def skip_space(self) -> None:
        while self.peek() == " ":
            self.at += 1

    def take(self, what: str) -> bool:
        at = self.at
        self.skip_space()
        # \cdot must not take the beginning of \cdots
        if self.text.startswith(what, self.at) and not (
            what[-1].isalpha() and self.text[self.at + len(what) : self.at + len(what) + 1].isalpha()
        ):
            self.at += len(what)
            return True
        self.at = at
        return False

    def expect(self, what: str) -> None:
        if not self.take(what):
            raise Unreadable(f"{what} is missing")
