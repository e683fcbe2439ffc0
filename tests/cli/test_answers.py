"""Answers as they come.

1. What is shown of an answer is the engine's text and the tags that are none: it ends before the stop string that ended
   it, however tokens and deltas cut it, and nothing is shown that is taken back.
2. Who reads one answer gets it as soon as it comes, and misses nothing of the others.
3. Once there is to be no more, nothing more is asked of the engine.
4. Ctrl-C is noted even where its exception is lost on the way.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.fakes import STOP_IDS, TOKENIZER
from zaya.cli.answers import Answers, noting_ctrl_c, texts
from zaya.engine.stops import TextStream
from zaya.engine.types import Delta, FinishReason

END = 106


def deltas_of(ids: Sequence[int], stop: Sequence[str], sizes: Iterator[int]) -> tuple[list[Delta], str]:
    """As an engine cuts and ends them, and the engine's text."""
    in_thinking = TOKENIZER.tags.think_close in ids
    text, drawn, reason = TextStream(TOKENIZER, in_thinking=in_thinking, stop=stop), [], None
    for id in ids:
        drawn.append(id)
        if id in STOP_IDS or text.push(id) is not None:
            reason = FinishReason.STOP
            break
    text.finish()
    deltas = []
    while drawn:
        piece, drawn = drawn[: (size := next(sizes))], drawn[size:]
        deltas.append(Delta(index=0, ids=tuple(piece), text="", finish_reason=None if drawn else reason))
    return deltas, text.answer


@given(
    st.text("abé\n", max_size=24),
    st.lists(st.text("abé\n", min_size=1, max_size=4), max_size=3),
    st.booleans(),
    st.lists(st.integers(1, 5), min_size=40, max_size=40),
)
def test_the_text_ends_where_the_engine_ends_it(text: str, stop: list[str], ends: bool, sizes: list[int]) -> None:
    ids = [*TOKENIZER.encode(text, bos=False), *([END] if ends else [])]
    deltas, expected = deltas_of(ids, stop, iter(sizes))
    shown = "".join(texts(deltas, TOKENIZER, STOP_IDS, stop))
    assert shown.lstrip("\n") == expected


@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        ("so</think>\n\nYes", [], "so</think>\n\nYes"),
        ("so</think>\n\nYes", ["\n\n"], "so</think>\n\nYes"),  # the form's own newlines end nothing
        ("so it</think>\n\nYes", ["it", "es"], "so "),
        ("so</think>\n\nYes it", ["it", "es"], "so</think>\n\nY"),
        ("one two three", ["two"], "one "),
        ("one two three", ["o three", "three", "ee"], "one tw"),
        ("abab", ["abc", "bab"], "a"),
    ],
)
def test_by_hand(text: str, stop: list[str], shown: str) -> None:
    deltas, _ = deltas_of(TOKENIZER.encode(text, bos=False), stop, iter([1] * 99))
    assert "".join(texts(deltas, TOKENIZER, STOP_IDS, stop)) == shown


def test_text_waits_only_where_a_stop_string_may_have_begun() -> None:
    deltas, _ = deltas_of(TOKENIZER.encode("xaby", bos=False), ["abc"], iter([1] * 9))
    assert list(texts(deltas, TOKENIZER, STOP_IDS, ["abc"])) == ["x", "", "", "aby", ""]


def test_answers_that_come_together() -> None:
    taken = []

    def deltas() -> Iterator[Delta]:
        for index, ids, reason in [
            (0, (1, 2), None), (1, (7,), None), (0, (3,), FinishReason.STOP), (1, (8, 9), FinishReason.LENGTH),
        ]:  # fmt: skip
            taken.append(index)
            yield Delta(index=index, ids=ids, text="", finish_reason=reason)

    answers = Answers(deltas(), 2)
    first = answers.of(0)
    assert next(first).ids == (1, 2)
    assert taken == [0], "it is not waited for what comes later"
    assert [delta.ids for delta in first] == [(3,)]
    assert taken == [0, 1, 0], "it has ended, whatever others do"
    assert [delta.ids for delta in answers.of(1)] == [(7,), (8, 9)]
    assert answers.ids == [[1, 2, 3], [7, 8, 9]]
    assert answers.finish_reasons == [FinishReason.STOP, FinishReason.LENGTH]
    assert (answers.tokens, answers.first_tokens) == (6, 2)
    assert answers.tokens_per_s == 4 / (answers.last_at - answers.first_at)


def test_what_is_not_wanted_is_not_asked_for() -> None:
    source = (Delta(index=0, ids=(id,), text="") for id in range(9))
    seen: list[int] = []
    answers = Answers(source, is_stopped=lambda: len(seen) == 3)
    for delta in answers.of(0):
        seen += delta.ids
    assert (seen, answers.ids) == ([0, 1, 2], [[0, 1, 2]])
    assert next(source).ids == (3,)


def test_where_thinking_has_not_ended() -> None:
    def of(*parts: tuple[str, str]) -> bool:
        deltas = (Delta(index=0, ids=(1,), reasoning=reasoning, text=text) for reasoning, text in parts)
        answers = Answers(deltas)
        assert list(answers.of(0))
        return answers.in_thinking[0]

    assert of(("hm", ""), ("", ""))
    assert not of(("hm", ""), ("", "Yes"))
    assert not of(("", "Yes"), ("", ""))


@pytest.mark.parametrize("raises", [True, False])
def test_ctrl_c_is_noted_even_where_the_exception_is_lost(raises: bool) -> None:
    before = signal.getsignal(signal.SIGINT)
    with noting_ctrl_c(raises=raises) as was_pressed:
        assert not was_pressed()
        with pytest.raises(KeyboardInterrupt) if raises else nullcontext():
            signal.raise_signal(signal.SIGINT)
        assert was_pressed()
    assert signal.getsignal(signal.SIGINT) is before
