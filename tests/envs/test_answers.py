"""Boxes and integers.

1. The last box counts, whole, with the braces in it; one that is never closed is no answer, whatever came before.
2. An integer is digits with a sign, and nothing else.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya.envs.answers import INSTRUCTION, boxed, parse_integer


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{7}", "7"),
        (r"So it is $\boxed{7}$.", "7"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}} done}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{}", ""),
        ("\\boxed{1 2\n3 4}", "1 2\n3 4"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\}}", r"\}"),
        (r"\boxed{a\\}", r"a\\"),
        (r"\boxed{1} but \boxed{12", None),
        (r"\boxed{1} but \boxed{", None),
        (r"\boxed{{7}", None),
        (r"\boxed{7\}", None),
        ("\\boxed{7\\", None),
        (r"\boxed 7", None),
        (r"boxed{7}", None),
        ("the answer is 7", None),
        ("", None),
    ],
)
def test_boxed(text: str, content: str | None) -> None:
    assert boxed(text) == content


balanced = st.recursive(
    st.text(st.characters(exclude_characters="\\{}"), max_size=5),
    lambda inner: st.tuples(inner, inner, inner).map(lambda t: f"{t[0]}{{{t[1]}}}{t[2]}"),
)


@given(st.text(max_size=20), balanced, st.text(max_size=20))
def test_whatever_is_boxed_is_found(before: str, content: str, after: str) -> None:
    assert boxed(f"{before}\\boxed{{{content}}}{after}") == content


def test_a_long_text_is_scanned_once() -> None:
    assert boxed("\\boxed{" * 200_000 + "{" * 200_000) is None


def test_the_instruction_is_one_line() -> None:
    assert "\n" not in INSTRUCTION


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12), ("-12", -12), ("+7", 7), (" 007 ", 7), ("-0", 0), ("9" * 200, 10**200 - 1),
        ("9" * 201, None), ("", None), ("-", None), ("- 12", None), ("1,234", None), ("1_000", None), ("12.0", None),
        ("2 + 2", None), ("1e3", None), ("x = 12", None), ("12.", None), ("٣", None), ("3\n4", None), ("0x10", None),
    ],
)  # fmt: skip
def test_integers(text: str, value: int | None) -> None:
    assert parse_integer(text) == value
