r"""Answers that stand elsewhere.

1. What is plainly said counts before what is merely a number, and the visible text before the thinking.
2. What a budget cut is never read: whole sentences are, and closed boxes.
3. What comes out is held whole by a box, whatever a model wrote, and no text takes long.
4. Only a sample without an answer, to a problem that asks for a box, is asked about again; its reward stays 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zaya.engine.scripted import Prompt, ScriptedCompleter
from zaya.engine.types import SamplingParams
from zaya.envs import answers
from zaya.envs.arithmetic import Arithmetic
from zaya.envs.base import Problem, Score, Status
from zaya.eval.lenient import LONGEST, lenient, reboxed
from zaya.eval.run import evaluate, evaluate_rsa
from zaya.text import byte_tokenizer
from zaya.ttc.rsa import RsaConfig


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        (r"It is \boxed{5}, no: \boxed{6", "", "5"),
        (r"It is \boxed{6", "", "6"),
        (r"\boxed{}", r"\boxed{7}", "7"),
        ("", r"\boxed{\frac{1}{2}} but", r"\frac{1}{2}"),
        ("The answer is 5. I checked it 3 times.", r"\boxed{9}", "5"),
        ("I checked it 3 times.", r"\boxed{9}", "9"),
        ("I checked it 3 times.", "the answer is 9", "9"),
        ("I checked it 3 times.", "so 9", "3"),
        ("I do not know.", "so 9", None),
        ("", r"\boxed{5}: the answer is 4", "5"),
        (r"\boxed{5}: the answer is 4", "", "5"),
        ("", "so 9, not 8", "8"),
        ("The final answer is: **42**.", "", "42"),
        ("**Answer:** $x = 3.5$", "", "x = 3.5"),
        ("The answer is 4. No, the answer is 5", "", "5"),
        ("an answer is found", "", "found"),  # and judged wrong
        ("1,234 and 12", "", "12"),
        ("it is 1,234.", "", "1234"),
        ("10-5", "", "5"),
        ("x = -5", "", "-5"),
        ("a half is 1/2.", "", "1/2"),
        ("a2 b3", "", None),
        ("", "", None),
        ("answer is " + "9" * (LONGEST + 1), "so 4", None),
    ],
)
def test_where_an_answer_stands(text: str, reasoning: str, answer: str | None) -> None:
    assert lenient(text, reasoning) == answer


def test_what_a_budget_cut_is_not_read() -> None:
    assert lenient("", "It is 7. Then 12", is_cut=True) == "7"
    assert lenient("It is 7. Then 12", "", is_cut=True) == "7"
    assert lenient("", "12", is_cut=True) is None
    assert lenient("", "the answer is 1 0", is_cut=True) is None
    assert lenient("", "it is 3.", is_cut=True) is None, "the point may be that of 3.5"
    assert lenient("", "it is 3.\n", is_cut=True) == "3"
    assert lenient("the answer is 12", "so 5", is_cut=True) is None, "it was being said, and 5 was not an answer"
    assert lenient("the answer is 12", "The answer is 5.", is_cut=True) == "5", "the reasoning was not cut"
    assert lenient("", r"then \boxed{12}", is_cut=True) == "12", "a box says itself where it ends"
    assert lenient("", r"then \boxed{12", is_cut=True) is None


@settings(max_examples=200)
@given(st.text(r"\boxed{} answeris:=$*-,./0123456789" + "\n", max_size=60), st.text(max_size=30), st.booleans())
@example(r"answer is } \boxed{2", "", False)
@example(r"answer is \}", "", False)
def test_a_box_holds_it(text: str, reasoning: str, is_cut: bool) -> None:
    answer = lenient(text, reasoning, is_cut=is_cut)
    assert answer is None or answers.boxed(reboxed(answer)) == answer


@pytest.mark.parametrize(
    "part", ["answer ", "answer is ", "1,", "1,111", "-", "9", "1.1.", "\\boxed{", "} ", "**", "0/"]
)
def test_no_text_takes_long(part: str) -> None:
    lenient(part * 50_000, part * 50_000)  # a pattern in quadratic time would take minutes


class Pool:
    """The scorer of arithmetic, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def score(self, pairs: Sequence[tuple[Problem, str]], /) -> list[Score]:
        self.asked.append([text for _, text in pairs])
        return [Arithmetic().score(problem, text) for problem, text in pairs]

    def loosely_right(self, pairs: Sequence[tuple[Problem, str]], /) -> list[bool | None]:
        return [None] * len(pairs)


TOKENIZER = byte_tokenizer()
PROBLEM = Arithmetic().sample(3, 0)
GOLD = Arithmetic().reference(PROBLEM)


def speaks(*texts: str) -> ScriptedCompleter:
    left = iter(texts)
    return ScriptedCompleter(TOKENIZER, lambda prompt, seed, index: next(left))


def test_strict_and_lenient_are_apart() -> None:
    wrong = str(int(GOLD) + 1)
    pool = Pool()
    records = evaluate(
        speaks(
            f"hm\n</think>\n\n\\boxed{{{GOLD}}}",
            f"\\boxed{{{GOLD}}}\n</think>\n\n\\boxed{{{wrong}}}",  # a wrong answer stays wrong, whatever was thought
            f"hm\n</think>\n\nThe answer is {GOLD}.",
            f"hm\n</think>\n\nThe answer is {wrong}.",
            f"\\boxed{{{GOLD}}} " + "hm " * 30,
            "hm\n</think>\n\nI cannot say.",
        ),
        [PROBLEM], k=6, params=SamplingParams(max_tokens=60), pool=pool,
    )  # fmt: skip
    found = [(r.correct, r.lenient_value, r.lenient_answer, r.status.value, r.truncated, r.reward) for r in records]
    assert found == [
        (True, 1, None, "ok", 0, 1),
        (False, 0, None, "ok", 0, 0),
        (False, 1, GOLD, "bad_format", 0, 0),
        (False, 0, wrong, "bad_format", 0, 0),
        (False, 1, GOLD, "bad_format", 1, 0),
        (False, 0, None, "bad_format", 0, 0),
    ]
    assert pool.asked[1:] == [[reboxed(GOLD), reboxed(wrong), reboxed(GOLD)]], "one batch more, of those alone"
    assert (records[0].difficulty, records[0].question) == (0, PROBLEM.prompt)
    assert (records[2].reasoning, records[2].text) == ("hm", f"The answer is {GOLD}.")


class Words(Pool):
    """Asks for a text, and for no box; any text will do."""

    def score(self, pairs: Sequence[tuple[Problem, str]], /) -> list[Score]:
        self.asked.append([text for _, text in pairs])
        return [Score(float(bool(text)), bool(text), Status.OK if text else Status.BAD_FORMAT) for _, text in pairs]


def test_a_task_without_a_box_is_asked_once() -> None:
    pool = Words()
    problem = Problem("words", "Write a word.", {}, 0, 0)
    records = evaluate(speaks("\\boxed{5} " * 9), [problem], k=1, params=SamplingParams(max_tokens=40), pool=pool)
    assert (records[0].correct, records[0].lenient_value, pool.asked) == (False, 0, [[""]])


def test_rounds_have_a_lenient_score() -> None:
    config = RsaConfig(
        population=4, fan_in=1, rounds=0, think_budget=80, tail_tokens=30, final_budget=80, answer_reserve=10
    )
    replies = iter([f"\\boxed{{{GOLD}}}", f"So {GOLD}.", "So what.", "hm " * 40])

    def script(prompt: Prompt, seed: int, index: int) -> str:
        if isinstance(prompt, str) and "hm hm" in prompt:
            return "hm " * 20  # its reasoning was closed for it, and it goes on
        return f"hm\n</think>\n\n{reply}" if not (reply := next(replies)).startswith("hm") else reply

    (record,) = evaluate_rsa(
        ScriptedCompleter(TOKENIZER, script), TOKENIZER, [PROBLEM], config=config, runs=1, pool=Pool()
    )
    assert (record.score, record.lenient_score, record.truncated) == (0.25, 0.5, 0.25)
    assert record.round_tokens == (record.tokens,)
