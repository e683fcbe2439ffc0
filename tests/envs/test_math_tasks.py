"""Mathematics as tasks: made by templates, and from a user's file.

1. The answer of each template is what sympy, or a count of all cases, finds for the question as it is asked.
2. References earn 1, at every level; no constant answer, and no formula in the question, pays.
3. A seed means one problem, for good.
4. A file gives its problems, under the names of its fields; what is wrong with it is said with the line.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import pytest
import sympy

from zaya.core.rng import derive_seed
from zaya.envs import registry
from zaya.envs.answers import INSTRUCTION
from zaya.envs.base import Problem, Status
from zaya.envs.files import kinds
from zaya.envs.math import templates
from zaya.envs.math.equivalence import equivalent
from zaya.envs.pool import TaskPool
from zaya.errors import DataError, UsageError, ZayaError

x = sympy.Symbol("x")


def problems(name: str, level: int, count: int = 5) -> list[Problem]:
    environment = templates.environment(f"math/{name}")
    found = [environment.sample(seed, level) for seed in range(count)]
    assert None not in found
    return [problem for problem in found if problem is not None]


def formula(latex: str) -> Any:
    """A formula of a question as sympy has it."""
    text = re.sub(r"\^\{(\d+)\}", r"**\1", latex).replace("\\sqrt{", "sqrt({").replace("^", "**")
    text = (
        re.sub(r"\\frac\{([^{}]*(?:\{[^{}]*\}[^{}]*)?)\}\{(\d+)\}", r"((\1)/\2)", text)
        .replace("{", "")
        .replace("}", ")")
    )
    text = re.sub(r"sqrt\((\d+)(?!\d|\))", r"sqrt(\1)", text)
    text = re.sub(r"(\d|\))(?=[a-zA-Z(])", r"\1*", text)
    return sympy.sympify(text.replace("i", "I"))


def answer_value(latex: str) -> Any:
    """The same of an answer: m, m/n, or with one root."""
    match = re.fullmatch(r"(-?)\\frac\{(.+)\}\{(\d+)\}", latex)
    if match:
        return (-1 if match[1] else 1) * answer_value(match[2]) / int(match[3])
    match = re.fullmatch(r"(-?\d+(?=[+-]))?([+-]?)(\d*)\\sqrt\{(\d+)\}", latex)
    if match:
        root = (-1 if match[2] == "-" else 1) * int(match[3] or 1) * sympy.sqrt(int(match[4]))
        return int(match[1] or 0) + root
    return sympy.Integer(latex)


LEVELS = (0, 1, 3, 4, 9, 20)


@pytest.mark.parametrize("level", LEVELS)
def test_linear(level: int) -> None:
    for problem in problems("linear", level):
        left, right = re.findall(r"\$(.*) = (.*)\$ for", problem.prompt)[0]
        assert sympy.solve(formula(left) - formula(right), x) == [answer_value(problem.meta["answer"])]


@pytest.mark.parametrize("level", LEVELS)
def test_quadratic(level: int) -> None:
    for problem in problems("quadratic", level):
        which, left = re.findall(r"the (larger|smaller) root of \$(.*) = 0\$", problem.prompt)[0]
        roots = sorted(sympy.solve(formula(left), x), key=lambda root: float(root))
        assert len(roots) == 2
        expected = roots[-1 if which == "larger" else 0]
        assert sympy.expand(expected - answer_value(problem.meta["answer"])) == 0


@pytest.mark.parametrize("level", LEVELS)
def test_system(level: int) -> None:
    for problem in problems("system", level):
        equations = [equation.split(" = ") for equation in re.findall(r"\$([^$]* = [^$]*)\$", problem.prompt)]
        unknowns = sympy.symbols("x y z")[: len(equations)]
        found = sympy.solve([formula(left) - formula(right) for left, right in equations], unknowns)
        assert problem.meta["answer"] == f"({', '.join(str(found[unknown]) for unknown in unknowns)})"


@pytest.mark.parametrize("level", LEVELS)
def test_modular(level: int) -> None:
    for problem in problems("modular", level):
        base, power, modulus = map(int, re.findall(r"\d+", problem.prompt))
        assert int(problem.meta["answer"]) == base**power % modulus


@pytest.mark.parametrize("level", LEVELS)
def test_sequence(level: int) -> None:
    for problem in problems("sequence", level):
        terms = [int(value) for value in re.findall(r"a_[12] = (-?\d+)\$?,? ?", problem.prompt)]
        rule = re.findall(r"a_\{k\+[12]\} = ([^$]*)\$", problem.prompt)[0].replace("a_{k+1}", "p").replace("a_k", "q")
        wanted = int(re.findall(r"a_\{(\d+)\}", problem.prompt)[0])
        first_order = "p" not in rule
        while len(terms) < wanted:
            q = terms[-1] if first_order else terms[-2]
            terms.append(int(formula(rule).subs({"p": terms[-1], "q": q})))
        assert problem.meta["answer"] == str(terms[-1])


@pytest.mark.parametrize("level", LEVELS)
def test_derivative_and_integral(level: int) -> None:
    for problem in problems("derivative", level):
        body, at = re.findall(r"f\(x\) = (.*)\$\. What is \$f'\((-?\d+)\)", problem.prompt)[0]
        assert sympy.diff(formula(body), x).subs(x, int(at)) == answer_value(problem.meta["answer"])
    for problem in problems("integral", level):
        low, high, body = re.findall(r"_\{(-?\d+)\}\^\{(-?\d+)\} \((.*)\)\\,dx", problem.prompt)[0]
        assert sympy.integrate(formula(body), (x, int(low), int(high))) == answer_value(problem.meta["answer"])


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_counting(level: int) -> None:
    kinds: Counter[str] = Counter()
    for problem in problems("counting", level, 30):
        if match := re.search(r"letters of ([A-E]+) be", problem.prompt):
            kind, letters = "letters", match[1]
            if len(letters) > 7:
                continue
            expected = len(set(itertools.permutations(letters)))
        elif match := re.search(r"of (\d+) people from (\d+) women and (\d+) men with at least (\d+)", problem.prompt):
            size, women, men, least = map(int, match.groups())
            kind, people = "committees", [True] * women + [False] * men
            expected = sum(sum(chosen) >= least for chosen in itertools.combinations(people, size))
        else:
            wide, high, a, b = map(
                int, re.findall(r"\d+", problem.prompt)[2:4] + re.findall(r"\d+", problem.prompt)[-2:]
            )
            kind, ways = "paths", {(0, 0): 1}
            for i, j in itertools.product(range(wide + 1), range(high + 1)):
                if (i, j) != (0, 0):
                    ways[i, j] = 0 if (i, j) == (a, b) else ways.get((i - 1, j), 0) + ways.get((i, j - 1), 0)
            expected = ways[wide, high]
        kinds[kind] += 1
        assert problem.meta["answer"] == str(expected), problem.prompt
    assert len(kinds) == 3


@pytest.mark.parametrize("level", [0, 1, 2])
def test_probability(level: int) -> None:
    for problem in problems("probability", level):
        red, blue, drawn, wanted = map(int, re.findall(r"\d+", problem.prompt))
        if comb(red + blue, drawn) > 20000:
            continue
        draws = list(itertools.combinations([True] * red + [False] * blue, drawn))
        expected = Fraction(sum(sum(draw) == wanted for draw in draws), len(draws))
        assert answer_value(problem.meta["answer"]) == sympy.Rational(expected.numerator, expected.denominator)


@pytest.mark.parametrize("level", LEVELS)
def test_distance_and_complex(level: int) -> None:
    for problem in problems("distance", level):
        first, second = [
            sympy.Point(*map(int, point.split(","))) for point in re.findall(r"\(([^)]*)\)", problem.prompt)
        ]
        assert str(first.distance(second)) == str(answer_value(problem.meta["answer"]))
    for problem in problems("complex", level):
        product = re.findall(r"\$(\(.*\))\$ and", problem.prompt)[0]
        assert sympy.expand(formula(product)) == sympy.expand(formula(problem.meta["answer"]))


@pytest.mark.parametrize("name", templates.names())
def test_what_pays(name: str) -> None:
    environment = templates.environment(name)
    for level in range(6):
        made = [environment.sample(derive_seed("audit", name, level, i), level) for i in range(48)]
        asked = [problem for problem in made if problem is not None]
        assert len(asked) == 48
        assert max(Counter(problem.meta["answer"] for problem in asked).values()) <= 0.2 * 48
        for guess in ("0", "1", "-1", "x"):
            assert sum(equivalent(problem.meta["answer"], guess) for problem in asked) <= 0.2 * 48
        for problem in asked:
            reference = environment.reference(problem)
            assert environment.score(problem, f"\\boxed{{{reference}}}").reward == 1
            assert environment.score(problem, reference).status is Status.BAD_FORMAT
            for part in re.findall(r"\$([^$]*)\$", problem.prompt):
                # a sequence may well end where it began
                assert part.lstrip("-").isdigit() or not environment.score(problem, f"\\boxed{{{part}}}").correct
        assert environment.sample(0, templates.HARDEST + 1) is None


def test_a_seed_means_this_problem() -> None:
    """If this fails, `version` has to change."""
    linear, distance = templates.environment("math/linear"), templates.environment("math/distance")
    assert linear.sample(1, 0) == Problem(
        "math/linear", f"Solve $3x + 1 = x + 3$ for $x$.\n{INSTRUCTION}", {"answer": "1"}, 0, 1
    )
    problem = distance.sample(1, 0)
    assert problem is not None
    assert problem.prompt.startswith("What is the distance between $(-6, 4)$ and $(3, 6)$?")


def test_names() -> None:
    for name in templates.names():
        assert registry.get(name).name == name
    with pytest.raises(UsageError, match="there is no task"):
        templates.environment("math/quadratics")


# ----- files

ROWS = [
    {"problem": "What is 1 + 1?", "answer": 2, "final": "1", "level": 0},
    {"problem": "What is half of 1?", "answer": "\\frac{1}{2}", "final": "2", "level": 0},
    {"problem": "Solve $x^2=2$.", "answer": "\\pm\\sqrt{2}", "final": "3", "level": 3},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", "utf-8")
    return path


def test_a_file(file: Path) -> None:
    environment = kinds.environment(f"math:{file}")
    asked = [environment.sample(seed, 0) for seed in range(40)]
    assert {problem.prompt for problem in asked if problem} == {f"{row['problem']}\n{INSTRUCTION}" for row in ROWS}
    assert {problem.meta["answer"] for problem in asked if problem} == {"2", "\\frac{1}{2}", "\\pm\\sqrt{2}"}
    assert environment.sample(0, 1) is None
    half = next(problem for problem in asked if problem and "half" in problem.prompt)
    assert environment.score(half, "\\boxed{0.5}").correct
    assert environment.reference(half) == "\\frac{1}{2}"
    assert environment.sample(7, 0) == environment.sample(7, 0)


def test_fields_and_levels(file: Path) -> None:
    environment = kinds.environment(f"math:{file}?answer=final&difficulty=level")
    assert (environment.about.lowest, environment.about.highest) == (0, 3)
    problem = environment.sample(0, 3)
    assert problem is not None
    assert (problem.meta["answer"], problem.difficulty) == ("3", 3)
    assert environment.sample(0, 1) is None
    assert environment.version != kinds.environment(f"math:{file}").version


def test_a_file_through_the_pool(file: Path) -> None:
    name = f"math:{file}"
    with TaskPool() as pool:
        made = [problem for problem in pool.sample([(name, seed, 0) for seed in range(4)]) if problem]
        assert len(made) == 4
        scores = pool.score([(problem, f"\\boxed{{{problem.meta['answer']}}}") for problem in made])
        assert all(score.correct for score in scores)


@pytest.mark.parametrize(
    ("content", "query", "says"),
    [
        ("", "", "has no problems"), ("{", "", ":1 is not JSON"), ("[1]", "", ":1 must be an object: list"),
        ('{"problem": "a"}', "", ":1 has no field 'answer'"), ('{"problem": "a", "answer": ""}', "",
        "(answer) must be a text"),
        ('{"problem": "a", "answer": "{"}', "", "no answer can be equal"), ('{"problem": "a", "answer": null}', "",
        "has no field 'answer'"),
        ('{"problem": " ", "answer": "1"}', "", "must be a text"), ('{"problem": "a", "answer": "1"}', "?answr=b",
        "no field 'answr'"),
        ('{"problem": "a", "answer": "1", "d": -1}', "?difficulty=d", "a whole number from 0 on"),
        ('{"problem": "a", "answer": "1", "d": "2"}', "?difficulty=d", "a whole number from 0 on"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file(tmp_path: Path, content: str, query: str, says: str) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(content, "utf-8")
    with pytest.raises(ZayaError, match=re.escape(says)):
        kinds.environment(f"math:{path}{query}")


def test_a_line_ends_with_a_newline_and_nothing_else(tmp_path: Path) -> None:
    """JSON may hold U+2028 and U+0085 as they are; others split lines there."""
    path = tmp_path / "some.jsonl"
    path.write_text('{"problem": "one\u2028two\u0085three", "answer": "1"}\n', "utf-8")
    problem = kinds.environment(f"math:{path}").sample(0, 0)
    assert problem is not None
    assert problem.prompt.startswith("one\u2028two\u0085three\n")


def test_no_file() -> None:
    with pytest.raises(DataError, match="cannot be read"):
        kinds.environment("math:nowhere.jsonl")
