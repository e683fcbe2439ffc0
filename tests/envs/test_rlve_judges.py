"""Judges of our own for tasks of RLVE-Gym, against cases worked out by hand.

1. Countdown: every number once, + - * / and brackets; no powers, no `//`, no digits joined or made into decimals.
2. The closest value wins, known or not.
3. A derivative is right in any form, an antiderivative with any constant; wrong ones are wrong.
4. Who is a knight is said of everybody once and of nobody twice; a fraction need not be reduced.
5. Code, towers, depth and length are no formula, and none of it runs.
"""

from __future__ import annotations

import pytest

from zaya.envs import expression
from zaya.envs.audit import hostile_answers
from zaya.envs.rlve_judges import JUDGES, are_distinct


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("(7+3)*5/2", True), ("(3 + 7) * (5 / 2)", True), ("5/2*(7+3)", True), ("-(0-1)*25", False), ("7*3+5-2", False),
        ("-(2-7-3)*5-15", False), ("25", False), ("(7+3)*5//2", False), ("5**2*(7-3)/4", False), ("(7+3)*2.5", False),
        ("(7+3)*5/2 = 25", False), ("", False), ("72-53+6", False), ("52-27", False), ("(7+3)*5/2+0", False),
        ("(7+3)5/2", False),
        ("(7 + 3)\n* 5 / 2", True), ("7+3*5/2", False), ("(3+7)*5/(2)", True), ("(3+7)*5/(2-2)", False),
        ("٧+3*5/2", False),
        ("(7+3)*5^2/5", False), ("True*25", False), ("-2/-5*0", False), ("(-7-3)*5/-2", True),
    ],
)  # fmt: skip
def test_countdown(answer: str, is_right: bool) -> None:
    assert JUDGES["CountdownEqual"]({"operands": [7, 3, 5, 2], "target": 25}, answer) is is_right


def test_what_python_would_have_let_through() -> None:
    """2**5 is 32 with each of 2 and 5 once, and 1.5 uses 1 and 5: scorers that compute the text pay for both."""
    assert not JUDGES["CountdownEqual"]({"operands": [2, 5], "target": 32}, "2**5")
    assert not JUDGES["CountdownEqual"]({"operands": [1, 5, 2], "target": 3}, "1.5*2")
    assert not JUDGES["CountdownEqual"]({"operands": [7, 2], "target": 3}, "7//2")
    assert not JUDGES["CountdownEqual"]({"operands": [1, 2], "target": 12}, "12")


def test_closest() -> None:
    judge, known = JUDGES["CountdownClose"], {"operands": [3, 4], "target": 11, "reference_result": 12.0}
    assert judge(known, "3*4")
    assert not judge(known, "3+4")
    assert not judge(known, "3**4")
    unknown = {"operands": [3, 4], "target": 12, "reference_result": None}
    assert judge(unknown, "4*3")
    assert not judge(unknown, "3+4")
    third = {"operands": [1, 3], "target": 0.3, "reference_result": 1 / 3}
    assert judge(third, "1/3")


@pytest.mark.parametrize(
    ("reference", "answer", "is_right"),
    [
        ("2*x", "x+x", True), ("2*x", "2x", False), ("2*x", "2*x + 0.001", False),
        ("2*x", "2*x + 1e-3*sin(1000*x)", False),
        ("2*sin(x)*cos(x)", "sin(2*x)", True), ("exp(x)", "E**x", True), ("exp(x)", "E^x", True),
        ("1/x", "x**-1", True),
        ("1/(2*sqrt(x))", "x**(-1/2)/2", True), ("sqrt(x)", "Abs(x)**(1/2)", True), ("cos(x)", "-cos(x)", False),
        ("3*x**2", "3*x^2", True), ("3*x**2", "3*y**2", False), ("x", "f(x)", False), ("x", "x if 1 else 2", False),
        ("x", "(lambda: x)()", False), ("x", "[x][0]", False), ("x", "x.real", False), ("x", "x; x", False),
        ("1", "1", True),
        ("log(x)", "ln(x)", True), ("log(x)", "log(x, 2)", False), ("tan(x)", "sin(x)/cos(x)", True),
        ("x", "nan", False),
        ("x", "1e999*x", False),
    ],
)  # fmt: skip
def test_derivative(reference: str, answer: str, is_right: bool) -> None:
    assert JUDGES["Differentiate"]({"reference_answer": reference}, answer) is is_right


@pytest.mark.parametrize(
    ("slope", "answer", "is_right"),
    [
        ("2*x", "x**2", True), ("2*x", "x**2 + 7", True), ("2*x", "x**2 - pi", True), ("2*x", "2*x", False),
        ("cos(x)", "sin(x)", True), ("cos(x)", "cos(x)", False), ("1/x", "log(x)", True), ("1/x", "log(Abs(x))", True),
        ("1/x", "log(3*x)", True), ("exp(2*x)", "exp(2*x)/2", True), ("exp(2*x)", "exp(2*x)", False),
        ("0*x + 1", "x", True),
        ("x*exp(x)", "(x-1)*exp(x)", True), ("x*exp(x)", "x*exp(x)", False), ("2*x", "x**2 + x/1000", False),
        ("1/(1+x**2)", "atan(x)", True), ("2*x", "", False), ("2*x", "C + x**2", False),
    ],
)  # fmt: skip
def test_antiderivative(slope: str, answer: str, is_right: bool) -> None:
    assert JUDGES["Integral"]({"f_prime": slope}, answer) is is_right


def test_hostile_answers_end_and_are_wrong() -> None:
    parameters = {
        "gold_answer": {"numerator": 1, "denominator": 7}, "operands": [9, 9, 9, 9], "target": 10**9,
        "reference_result": 1.0, "reference_answer": "x", "f_prime": "x**7",
    }  # fmt: skip
    for judge in JUDGES.values():
        for answer in (
            *hostile_answers(),
            "9^9^9^9",
            "(" * 3000 + "x" + ")" * 3000,
            "-" * 3900 + "x",
            "x" + "+x" * 1900,
        ):
            assert not judge(parameters, answer), answer[:40]
    assert expression.read("x" * (expression.LONGEST + 1)) is None


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("Ella is a knight, Jacob is a knave, and Ben is a knight.", True),
        ("Ella is a knight, Jacob is a knave, Ben is a knight", True),
        ("Ben is a knight, Ella is a knight and Jacob is a knave", True), ("Ella is a knight, Jacob is a knave", False),
        ("either Ella is a knight, Jacob is a knave, and Ben is a knight or not", False), ("", False),
        ("knight", False),
        ("Ella is a knight, Jacob is a knight, and Ben is a knight.", False),
        ("Ella is a knight, Ella is a knave, Jacob is a knave, and Ben is a knight.", False),
    ],
)  # fmt: skip
def test_knights_and_knaves(answer: str, is_right: bool) -> None:
    roles = {"Ella": "knight", "Jacob": "knave", "Ben": "knight"}
    assert JUDGES["KnightsAndKnaves"]({"gold_answer": roles}, answer) is is_right


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("3/4", True),
        (" 6/8 ", True),
        ("0.75", False),
        ("3/0", False),
        ("-3/-4", False),
        ("4/3", False),
        ("3 / 4", False),
        ("3", False),
    ],
)
def test_probability_as_a_fraction(answer: str, is_right: bool) -> None:
    assert JUDGES["PolyaModel"]({"gold_answer": {"numerator": 3, "denominator": 4}}, answer) is is_right
    assert JUDGES["PolyaModel"]({"gold_answer": {"numerator": 1, "denominator": 1}}, "1")


def test_numbers_that_differ() -> None:
    assert are_distinct("1 2 10")
    assert are_distinct("")
    for answer in ("1 1", "1 2 01", "3 +3", "0 00"):
        assert not are_distinct(answer)
