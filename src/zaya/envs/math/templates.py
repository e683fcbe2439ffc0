"""Problems by construction: `math/linear`, `math/quadratic` and others, whose exact answers are known as they are made.

A difficulty makes the numbers larger or the problem longer, by a little. Answers vary enough that no constant one pays,
and none stands as a formula in its question: what is equal to it would be right. Needs no data and no package.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import comb, factorial, gcd, isqrt

from zaya.core.rng import derive_seed
from zaya.envs.answers import INSTRUCTION
from zaya.envs.base import About, Problem, Score
from zaya.envs.math.score import math_score
from zaya.errors import UsageError, did_you_mean

PREFIX = "math/"
HARDEST = 20


class MathTemplate:
    """One kind of problem. Its meta: `answer`."""

    version = 1

    def __init__(self, name: str, category: str, make: Callable[[random.Random, int], tuple[str, str]]) -> None:
        self.name = name
        self.about = About(category, "Apache-2.0", highest=HARDEST)
        self._make = make

    def sample(self, seed: int, difficulty: int) -> Problem | None:
        if difficulty > HARDEST:
            return None
        question, answer = self._make(random.Random(derive_seed(self.name, self.version, seed, difficulty)), difficulty)
        return Problem(self.name, f"{question}\n{INSTRUCTION}", {"answer": answer}, difficulty, seed, self.version)

    def score(self, problem: Problem, text: str) -> Score:
        return math_score(problem.meta["answer"], text)

    def reference(self, problem: Problem) -> str:
        return problem.meta["answer"]


# ----- how numbers are written


def fraction(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def radical(square: int) -> str:
    """The root of a whole number with what can be taken out of it."""
    outside = next(n for n in range(isqrt(square), 0, -1) if square % (n * n) == 0)
    inside = square // (outside * outside)
    if inside == 1:
        return str(outside)
    return f"{outside if outside > 1 else ''}\\sqrt{{{inside}}}"


def combination(terms: Sequence[tuple[int, str]]) -> str:
    """`3x - y + 2`, of its coefficients and letters."""
    text = ""
    for coefficient, letter in terms:
        if coefficient:
            size = "" if abs(coefficient) == 1 and letter else str(abs(coefficient))
            text += f"{' - ' if coefficient < 0 else ' + '}{size}{letter}"
    if not text:
        return "0"
    return text[3:] if text.startswith(" + ") else f"-{text[3:]}"


def polynomial(coefficients: Sequence[int]) -> str:
    """In x, from the highest power down; `coefficients[k]` belongs to the power k."""
    letters = ["", "x", *(f"x^{{{power}}}" for power in range(2, len(coefficients)))][: len(coefficients)]
    return combination([*zip(coefficients, letters, strict=True)][::-1])


def nonzero(rng: random.Random, most: int) -> int:
    return rng.choice((-1, 1)) * rng.randint(1, most)


# ----- problems: each makes a question and its answer from a generator and a level


def linear(rng: random.Random, level: int) -> tuple[str, str]:
    """a x + b = c x + d; from level 3 on with a bracket."""
    most = 5 + 3 * level
    root = Fraction(nonzero(rng, 9 + 4 * level), rng.randint(1, 1 + level))
    a, b = nonzero(rng, most), rng.randint(-most, most)
    c = rng.choice([n for n in range(-most, most + 1) if n != a])
    scale = root.denominator
    a, c, b = a * scale, c * scale, b
    d = int((a - c) * root) + b
    left, right = polynomial([b, a]), polynomial([d, c])
    if level >= 3:
        factor, inner = rng.randint(2, 2 + level), rng.randint(-9, 9)
        left = f"{left} + {factor}({polynomial([inner, 1])})"
        right = polynomial([d + factor * inner, c + factor])
    return f"Solve ${left} = {right}$ for $x$.", fraction(root)


def quadratic(rng: random.Random, level: int) -> tuple[str, str]:
    """x^2 + bx + c with real roots, whole ones at level 0; from level 3 on with a leading coefficient."""
    which = rng.choice(("larger", "smaller"))
    sign = 1 if which == "larger" else -1
    if level == 0:
        first, second = sorted(rng.sample(range(-12, 13), 2))
        question = polynomial([first * second, -first - second, 1])
        return f"What is the {which} root of ${question} = 0$?", str(second if sign > 0 else first)
    lead = 1 if level < 3 else rng.randint(2, level)
    middle, outside = rng.randint(-3 - 2 * level, 3 + 2 * level), rng.randint(1, 1 + level // 2)
    inside = rng.choice((2, 3, 5, 6, 7, 10, 11, 13, 14, 15))
    # (lead x - middle)^2 = outside^2 inside
    square = outside * outside * inside
    coefficients = [middle * middle - square, -2 * lead * middle, lead * lead]
    divisor = gcd(*coefficients)
    question = polynomial([coefficient // divisor for coefficient in coefficients])
    root = f"{'' if sign > 0 else '-'}{radical(square)}"
    top = f"{middle}{'+' if sign > 0 else ''}{root}" if middle else root
    common = gcd(middle, outside, lead)
    if lead == 1:
        answer = top
    else:
        m, o, bottom = middle // common, outside // common, lead // common
        root = f"{'+' if sign > 0 and m else '' if sign > 0 else '-'}{radical(o * o * inside)}"
        answer = f"\\frac{{{m if m else ''}{root}}}{{{bottom}}}" if bottom > 1 else f"{m if m else ''}{root}"
    return f"What is the {which} root of ${question} = 0$? Give it exactly.", answer


def system(rng: random.Random, level: int) -> tuple[str, str]:
    """Two linear equations; three from level 4 on."""
    size = 2 if level < 4 else 3
    most = 3 + level
    unknowns = "xyz"[:size]
    values = [rng.randint(-4 - 2 * level, 4 + 2 * level) for _ in unknowns]
    while True:
        rows = [[nonzero(rng, most) for _ in unknowns] for _ in unknowns]
        if determinant(rows):
            break
    equations = []
    for row in rows:
        left = combination([*zip(row, unknowns, strict=True)])
        equations.append(f"{left} = {sum(a * b for a, b in zip(row, values, strict=True))}")
    names = ", ".join(unknowns)
    return f"Find $({names})$ such that ${'$, $'.join(equations)}$.", f"({', '.join(map(str, values))})"


def determinant(rows: Sequence[Sequence[int]]) -> int:
    if len(rows) == 1:
        return rows[0][0]
    return sum(
        (-1) ** i * rows[0][i] * determinant([[*row[:i], *row[i + 1 :]] for row in rows[1:]]) for i in range(len(rows))
    )


def modular(rng: random.Random, level: int) -> tuple[str, str]:
    """A power modulo a number."""
    modulus = rng.randint(23 + 10 * level, 60 + 40 * level)
    while True:
        base, power = rng.randint(2, 12 + 10 * level), rng.randint(3 + 2 * level, 9 + 12 * level)
        # a base that shares a factor often ends at 0, and short cycles at 1
        if gcd(base, modulus) == 1 and (rest := pow(base, power, modulus)) > 1:
            return f"What is the remainder when ${base}^{{{power}}}$ is divided by ${modulus}$?", str(rest)


def sequence(rng: random.Random, level: int) -> tuple[str, str]:
    """A term of a recurrence of first or second order."""
    n = 4 + level
    while True:
        terms = [rng.randint(-9, 9), rng.randint(-9, 9)]
        p, q = rng.choice((-1, 1)) * rng.randint(2, 3 + level // 3), nonzero(rng, 5 + level)
        if level % 2 == 0:
            terms = terms[:1]
            while len(terms) < n:
                terms.append(p * terms[-1] + q)
            rule = f"$a_1 = {terms[0]}$ and $a_{{k+1}} = {combination([(p, 'a_k'), (q, '')])}$"
        else:
            while len(terms) < n:
                terms.append(p * terms[-1] + q * terms[-2])
            rule = (
                f"$a_1 = {terms[0]}$, $a_2 = {terms[1]}$ and $a_{{k+2}} = {combination([(p, 'a_{k+1}'), (q, 'a_k')])}$"
            )
        if terms[-1] not in terms[:-1]:  # one that repeats itself is answered by what is given
            return f"A sequence has {rule} for all $k \\ge 1$. What is $a_{{{n}}}$?", str(terms[-1])


def derivative(rng: random.Random, level: int) -> tuple[str, str]:
    """The slope of a polynomial at a point."""
    degree = 2 + level // 2
    coefficients = [*(rng.randint(-5 - level, 5 + level) for _ in range(degree)), nonzero(rng, 5 + level)]
    at = nonzero(rng, 3 + level // 3)
    slope = sum(power * coefficient * at ** (power - 1) for power, coefficient in enumerate(coefficients) if power)
    return f"Let $f(x) = {polynomial(coefficients)}$. What is $f'({at})$?", str(slope)


def integral(rng: random.Random, level: int) -> tuple[str, str]:
    """The definite integral of a polynomial."""
    degree = 1 + level // 2
    coefficients = [*(rng.randint(-5 - level, 5 + level) for _ in range(degree)), nonzero(rng, 5 + level)]
    low = rng.randint(-2 - level // 3, 2)
    high = low + rng.randint(1, 3 + level // 3)
    value = sum(
        (Fraction(c, k + 1) * (high ** (k + 1) - low ** (k + 1)) for k, c in enumerate(coefficients)), Fraction(0)
    )
    return f"What is $\\int_{{{low}}}^{{{high}}} ({polynomial(coefficients)})\\,dx$?", fraction(value)


def counting(rng: random.Random, level: int) -> tuple[str, str]:
    """Arrangements of letters, committees, and paths on a grid that avoid a point."""
    kind = rng.randrange(3)
    if kind == 0:
        letters = sorted(rng.choices("ABCDE"[: 3 + level // 3], k=5 + level // 2 + rng.randrange(3)))
        ways = factorial(len(letters))
        for letter in set(letters):
            ways //= factorial(letters.count(letter))
        rng.shuffle(letters)
        return f"In how many different ways can the letters of {''.join(letters)} be put in a row?", str(ways)
    if kind == 1:
        women, men = rng.randint(3, 6 + level), rng.randint(3, 6 + level)
        size = rng.randint(3, min(women + men - 1, 4 + level))
        least = rng.randint(1, min(women, size) - 1)
        ways = sum(comb(women, k) * comb(men, size - k) for k in range(least, size + 1))
        group = (
            f"{size} people from {women} women and {men} men with at least {least} {'woman' if least == 1 else 'women'}"
        )
        return f"How many committees of {group} are there?", str(ways)
    wide, high = rng.randint(3, 5 + level), rng.randint(3, 5 + level)
    x, y = rng.randint(1, wide - 1), rng.randint(1, high - 1)
    ways = comb(wide + high, high) - comb(x + y, y) * comb(wide + high - x - y, high - y)
    return (
        f"How many paths lead from $(0, 0)$ to $({wide}, {high})$ in steps of 1 to the right or up and do not pass "
        f"through $({x}, {y})$?"
    ), str(ways)


def probability(rng: random.Random, level: int) -> tuple[str, str]:
    """Balls drawn from an urn without putting them back."""
    red, blue = rng.randint(3, 7 + 2 * level), rng.randint(3, 7 + 2 * level)
    drawn = rng.randint(2, 3 + level // 2)
    wanted = rng.randint(max(0, drawn - blue), min(drawn, red))
    value = Fraction(comb(red, wanted) * comb(blue, drawn - wanted), comb(red + blue, drawn))
    return (
        f"An urn holds {red} red and {blue} blue balls. {drawn} balls are drawn without putting any back. What is the "
        f"probability that exactly {wanted} of them {'is' if wanted == 1 else 'are'} red? Give a fraction in lowest "
        "terms."
    ), fraction(value)


def distance(rng: random.Random, level: int) -> tuple[str, str]:
    """Between two points, in the plane, and in space from level 3 on."""
    size = 2 if level < 3 else 3
    reach = 6 + 2 * level
    while True:
        first = [rng.randint(-reach, reach) for _ in range(size)]
        second = [rng.randint(-reach, reach) for _ in range(size)]
        if first != second:
            break
    square = sum((a - b) ** 2 for a, b in zip(first, second, strict=True))
    shown = [f"$({', '.join(map(str, point))})$" for point in (first, second)]
    return f"What is the distance between {shown[0]} and {shown[1]}? Give it exactly.", radical(square)


def complex_product(rng: random.Random, level: int) -> tuple[str, str]:
    """A product of two complex numbers, and one more every other level."""
    most = 5 + 2 * level
    real, imaginary = 1, 0
    shown = ""
    for _ in range(2 + level // 2):
        a, b = nonzero(rng, most), nonzero(rng, most)
        shown += f"({a}{b:+d}i)"
        real, imaginary = real * a - imaginary * b, real * b + imaginary * a
    if imaginary == 0 or real == 0:
        answer = str(real) if imaginary == 0 else f"{imaginary}i"
    else:
        answer = f"{real}{imaginary:+d}i"
    return f"Multiply out ${shown}$ and give the result as $a+bi$.", answer


_MAKERS = {
    "linear": ("algebra", linear), "quadratic": ("algebra", quadratic), "system": ("algebra", system),
    "modular": ("number theory", modular), "sequence": ("sequences", sequence), "derivative": ("calculus", derivative),
    "integral": ("calculus", integral), "counting": ("combinatorics", counting),
    "probability": ("probability", probability), "distance": ("geometry", distance),
    "complex": ("algebra", complex_product),
}  # fmt: skip


def names() -> tuple[str, ...]:
    return tuple(PREFIX + name for name in sorted(_MAKERS))


def environment(name: str) -> MathTemplate:
    short = name.removeprefix(PREFIX)
    if short not in _MAKERS:
        raise UsageError(f"there is no task {name!r}", hint=did_you_mean(short, _MAKERS, PREFIX))
    return MathTemplate(name, *_MAKERS[short])
