"""Examples of aggregation.

1. A result is ahead where more attempts came to it than to any other, and at least two.
2. The prompt is what Markovian RSA shows for the same attempts: the same function cuts their ends, the same one puts
   them together, in the same order.
3. The solution is right. It takes at once what an attempt came to, where one was right, and else works the problem
   anew.
4. Where none was right and something wrong is ahead there is no example; a result that the prompt does not show, since
   the attempt was cut or its tail is too short, counts as none.
5. An attempt alone that was cut, shown whole and right so far is gone on from, at the line in which it was cut; any
   other that shows no right result is worked anew.
6. Attempts of a later round mostly say no more than what they came to; `hybrid` shows answers, and work that was cut.
7. The same seed gives the same example, another one another.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from zaya.engine.scripted import ScriptedCompleter
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Demonstration, Problem
from zaya.envs.demonstrate import boxed_answer, conclude, demonstrate
from zaya.text import byte_tokenizer, render
from zaya.ttc import examples
from zaya.ttc.examples import aggregation, conversation, leader
from zaya.ttc.rsa import RsaConfig, solve_many

TOKENIZER = byte_tokenizer([("a", "b")])
PROBLEMS = [ARITHMETIC.sample(seed, seed % 4) for seed in range(60)]


@pytest.mark.parametrize(
    ("results", "ahead"),
    [
        ([], None),
        (["1"], None),
        (["1", "2"], None),
        (["1", "1"], "1"),
        (["1", None], None),
        ([None, None, None], None),
        (["2", "1", None, "1"], "1"),
        (["1", "2", "1", "2"], None),
        (["1", "2", "1", "2", "2"], "2"),
        (["3", "2", "1", "1"], "1"),
    ],
)
def test_who_is_ahead(results: list[str | None], ahead: str | None) -> None:
    assert leader(results) == ahead


def test_a_conversation() -> None:
    problem = PROBLEMS[3]
    shown = demonstrate(problem, slip=0.5)
    assert conversation(problem, slip=0.5) == [
        {"role": "user", "content": problem.prompt},
        {"role": "assistant", "reasoning_content": shown.reasoning, "content": shown.answer},
    ]
    assert conversation(problem) != conversation(problem, slip=0.5)


def shown_by_rsa(problem: Problem, drawn: list[tuple[int, ...]], fan_in: int, tail_tokens: int, compaction: Any) -> Any:
    """The prompt that Markovian RSA makes after a first round that drew these reasonings, or these answers."""
    turns = count()

    def script(prompt: Any, seed: int, index: int) -> str:
        turn = next(turns)
        if turn >= len(drawn):
            return "\n</think>\n\n7"
        text = TOKENIZER.decode(drawn[turn])
        assert TOKENIZER.encode(text, bos=False) == list(drawn[turn])
        if text.startswith("\n\n\\boxed"):
            return f"some work\n</think>{text}"
        return text if not text.endswith(".\n") else f"{text}</think>\n\n\\boxed{{7}}"

    completer = ScriptedCompleter(TOKENIZER, script)
    config = RsaConfig(
        population=fan_in, fan_in=fan_in, rounds=1, think_budget=4000, tail_tokens=tail_tokens, final_budget=100,
        answer_reserve=10, order="index", compaction=compaction,
    )  # fmt: skip
    solve_many([problem.prompt], completer, TOKENIZER, config=config)
    return completer.requests[fan_in].messages


@pytest.mark.parametrize("fan_in", [1, 2, 4])
@pytest.mark.parametrize("tail_tokens", [12, 40, 3000])
@pytest.mark.parametrize("compaction", ["tail", "hybrid"])
def test_the_prompt_is_that_of_rsa(
    fan_in: int, tail_tokens: int, compaction: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, ...]] = []

    def tail(tokenizer: Any, ids: Any, tokens: int) -> str:
        drawn.append(tuple(ids))
        return original(tokenizer, ids, tokens)

    original = examples.tail
    monkeypatch.setattr(examples, "tail", tail)
    seen = 0
    for problem in PROBLEMS[:12]:
        drawn.clear()
        settings = {"fan_in": fan_in, "tail_tokens": tail_tokens, "slip": 0.2, "cut": 0.3, "later": 0.5}
        messages = aggregation(problem, TOKENIZER, **settings, compaction=compaction, seed=5)
        if messages is None:
            continue
        seen += 1
        assert len(drawn) == fan_in
        assert messages[:-1] == shown_by_rsa(problem, drawn, fan_in, tail_tokens, compaction)
    assert seen > 5


def test_attempts_are_cut_from_what_a_model_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the tags of a rendered solution stand the ids that an attempt is made of, its last newline included."""
    drawn: list[list[int]] = []
    monkeypatch.setattr(examples, "tail", lambda tokenizer, ids, tokens: drawn.append(list(ids)) or "tail")
    for problem in PROBLEMS[:5]:
        aggregation(problem, TOKENIZER, fan_in=1, tail_tokens=30, slip=0.0)
        ids = list(render(TOKENIZER, conversation(problem)).ids)
        first = ids.index(TOKENIZER.tags.think_open) + len(TOKENIZER.encode_plain("\n")) + 1
        assert drawn.pop() == ids[first : ids.index(TOKENIZER.tags.think_close)]


def results_in(monkeypatch: pytest.MonkeyPatch, results: list[str], right: str = "5") -> None:
    """Have the attempts come to these results, one after another, and the teacher to the right one."""
    attempts: Iterator[str] = iter(results)

    def fake(problem: Problem, *, slip: float = 0.0, seed: int = 0) -> Demonstration:
        result = next(attempts) if slip else right
        return Demonstration(conclude([f"work {result}"], result), boxed_answer(result), result)

    monkeypatch.setattr(examples, "demonstrate", fake)


@pytest.mark.parametrize(
    ("results", "reasoning"),
    [
        (["5", "4", "5"], "So 5."),
        (["4", "4", "5"], "So 5."),
        (["4", "3", "5"], "So 5."),
        (["5", "5", "4", "4"], "So 5."),
        (["5"], "So 5."),
        (["4"], "work 5\nSo 5."),
        (["4", "3", "2"], "work 5\nSo 5."),
        (["4", "4", "3", "3"], "work 5\nSo 5."),
        (["4", "4", "3"], None),
        (["4", "4"], None),
    ],
)
def test_how_attempts_are_weighed(results: list[str], reasoning: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    results_in(monkeypatch, results)
    messages = aggregation(PROBLEMS[0], TOKENIZER, fan_in=len(results), tail_tokens=100, slip=0.5)
    if reasoning is None:
        assert messages is None
        return
    assert messages is not None
    assert messages[-1] == {"role": "assistant", "reasoning_content": reasoning, "content": "\\boxed{5}"}
    shown = messages[0]["content"].split("\n\n")
    assert shown[2:-1] == [f"Attempt {i}:\nwork {result}\nSo {result}." for i, result in enumerate(results, 1)]


def test_attempts_that_were_cut_count_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    results_in(monkeypatch, ["4", "4", "4"])
    messages = aggregation(PROBLEMS[0], TOKENIZER, fan_in=3, tail_tokens=100, slip=0.5, cut=1.0)
    assert messages is not None
    assert messages[-1]["reasoning_content"] == "work 5\nSo 5."
    for block in messages[0]["content"].split("\n\n")[2:-1]:
        assert "work 4\nSo 4.".startswith(block.split("\n", 1)[1])


@pytest.mark.parametrize(
    ("compaction", "tail_tokens", "reasoning"),
    [
        ("tail", 9, "So 5."),  # three dots, and the last line with its end
        ("tail", 8, "work 5\nSo 5."),
        ("hybrid", 6, "So 5."),  # three dots, and what is in the box with its braces
        ("hybrid", 5, "work 5\nSo 5."),
    ],
)
def test_what_is_not_shown_cannot_be_taken(
    compaction: Any, tail_tokens: int, reasoning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte is a token here."""
    results_in(monkeypatch, ["5", "5"])
    messages = aggregation(PROBLEMS[0], TOKENIZER, fan_in=2, tail_tokens=tail_tokens, slip=0.5, compaction=compaction)
    assert messages is not None
    assert messages[-1]["reasoning_content"] == reasoning


def test_one_attempt_that_was_cut_is_gone_on_from() -> None:
    """By hand: the lines that the attempt has finished are the beginning of the work, and the solution is the rest."""
    went_on, afresh = 0, 0
    for problem in PROBLEMS:
        messages = aggregation(problem, TOKENIZER, fan_in=1, tail_tokens=3000, slip=0.1, cut=1.0)
        assert messages is not None
        whole = demonstrate(problem).reasoning
        shown = messages[0]["content"].split("Attempt 1:\n", 1)[1].rsplit("\n\n", 1)[0]
        finished = shown[: shown.rfind("\n") + 1]
        written = messages[-1]["reasoning_content"]
        if whole.startswith(finished) and f"So {problem.meta['answer']}." not in shown:
            assert finished + written == whole
            went_on += finished != ""
        elif f"So {problem.meta['answer']}." not in shown:
            assert written == whole
            afresh += 1
    assert went_on > 10
    assert afresh > 5


def test_behind_a_beginning_that_is_missing_nobody_goes_on() -> None:
    for problem in PROBLEMS:
        messages = aggregation(problem, TOKENIZER, fan_in=1, tail_tokens=30, slip=0.0, cut=1.0)
        assert messages is not None
        if (
            "Attempt 1:\n..." in messages[0]["content"]
            and f"So {problem.meta['answer']}." not in messages[0]["content"]
        ):
            assert messages[-1]["reasoning_content"] == demonstrate(problem).reasoning


def test_of_several_that_were_cut_none_is_gone_on_from() -> None:
    for problem in PROBLEMS[:20]:
        messages = aggregation(problem, TOKENIZER, fan_in=2, tail_tokens=3000, slip=0.0, cut=1.0)
        assert messages is not None
        if messages[-1]["reasoning_content"].count("\n"):
            assert messages[-1]["reasoning_content"] == demonstrate(problem).reasoning


def test_answers_in_place_of_tails() -> None:
    answers, cut = 0, 0
    for problem in PROBLEMS:
        settings = {"fan_in": 4, "tail_tokens": 3000, "slip": 0.05, "cut": 0.2, "later": 0.5}
        messages = aggregation(problem, TOKENIZER, **settings, compaction="hybrid")
        if messages is None:
            continue
        for block in messages[0]["content"].split("\n\n")[2:-1]:
            said = block.split("\n", 1)[1]
            if "boxed" in said:
                assert said == boxed_answer(said.removeprefix("\\boxed{").removesuffix("}"))
                answers += 1
            else:
                assert not said.startswith("So")
                cut += 1
    assert cut / (answers + cut) == pytest.approx(0.2, abs=0.1)  # four standard deviations
    assert answers + cut > 200


def test_attempts_of_a_later_round_are_brief() -> None:
    brief, whole = 0, 0
    for problem in PROBLEMS:
        messages = aggregation(problem, TOKENIZER, fan_in=4, tail_tokens=3000, slip=0.05, later=1.0)
        if messages is None:
            continue
        blocks = [block.split("\n", 1)[1] for block in messages[0]["content"].split("\n\n")[2:-1]]
        brief += sum(block.startswith("So ") for block in blocks)
        whole += len(blocks)
        first = aggregation(problem, TOKENIZER, fan_in=4, tail_tokens=3000, slip=0.05)
        assert first is None or ("\nSo" in first[0]["content"] and ":\nSo" not in first[0]["content"])
    assert whole > 200
    assert brief / whole == pytest.approx(0.8, abs=0.1)  # four standard deviations


def test_examples_are_right_and_those_of_their_seed() -> None:
    settings = {"fan_in": 3, "tail_tokens": 30, "slip": 0.1, "cut": 0.1, "later": 0.5}
    kept, others = 0, 0
    for problem in PROBLEMS:
        one, again, other = (aggregation(problem, TOKENIZER, **settings, seed=seed) for seed in (1, 1, 2))
        assert one == again
        others += one != other  # brief attempts may say the same
        if one is not None:
            kept += 1
            assert ARITHMETIC.score(problem, one[-1]["content"]).correct
            assert one[-1]["reasoning_content"].endswith(f"So {problem.meta['answer']}.")
    assert kept > 50
    assert others > 50
