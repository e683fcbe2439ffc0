"""What is handed on.

1. Its length is counted in the tokens that were drawn, the marker of a cut among them.
2. No character is torn, no control token and no spelling of one is left.
3. Each way of compacting takes the part it names; where that part does not exist, the next best.
4. Where ids are not known, the bytes of tokens give the same as ids, but that the marker may count for more; with an
   even cut of the text instead, no tail is of more pieces than it may have.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya.engine.scripted import ScriptedCompleter
from zaya.engine.types import Completion, Request, SamplingParams
from zaya.errors import UsageError
from zaya.text import Tokenizer, byte_tokenizer
from zaya.text.control import ControlTokens
from zaya.text.tags import TAGS
from zaya.ttc.tails import MARKER, Compaction, carry, tail, tail_of_pieces

TOKENIZER = byte_tokenizer([("a", "b"), ("ab", "ab")])


def rollout(text: str, max_tokens: int = 1000, prompt: str | None = None) -> Completion:
    ids = None if prompt is None else TOKENIZER.encode(prompt)
    messages = [{"role": "user", "content": "?"}] if prompt is None else None
    request = Request(prompt_ids=ids, messages=messages, params=SamplingParams(max_tokens=max_tokens))
    return ScriptedCompleter(TOKENIZER, lambda *_: text).complete([request])[0][0]


CLOSED = "0123456789\n</think>\n\nthe answer"
UNCLOSED = "0123456789"


@pytest.mark.parametrize(
    ("compaction", "text", "expected"),
    [
        ("tail", CLOSED, "...6789"),  # the newline before the tag is a token of the reasoning
        ("tail", UNCLOSED, "...56789"),
        ("tail", "</think>the answer", "...nswer"),
        ("tail", "<|im_end|>", ""),
        ("tail", "123\n</think>\n\nthe answer", "123"),
        ("tail_full", CLOSED, "...nswer"),
        ("tail_full", "1\n</think>\n\n2", "1\n\n\n2"),
        ("tail_full", UNCLOSED, "...56789"),
        ("hybrid", CLOSED, "...nswer"),
        ("hybrid", "0123456789\n</think>\n\n42", "42"),
        ("hybrid", "0123456789\n</think>\n\n", "...6789"),
        ("hybrid", UNCLOSED, "...56789"),
        ("full", CLOSED, "...6789"),
    ],
)
def test_what_is_taken(compaction: Compaction, text: str, expected: str) -> None:
    assert carry(TOKENIZER, rollout(text), compaction, 8) == expected


def test_of_a_prompt_without_thinking_everything_is_taken() -> None:
    assert carry(TOKENIZER, rollout("0123456789", prompt="question"), "tail", 8) == "...56789"


def test_lengths_are_those_of_tokens_drawn() -> None:
    drawn = TOKENIZER.encode("abababab", bos=False)
    assert len(drawn) == 2  # abab is one token
    assert tail(TOKENIZER, drawn * 3, 5) == "...abababab"  # 3 for the marker, 2 tokens of 4 letters
    assert tail(TOKENIZER, drawn * 3, 6) == "abab" * 6
    # the same text, drawn otherwise, has other lengths; encoding it again would not tell
    letters = [TOKENIZER.id_of(c) for c in "abababab"]
    assert tail(TOKENIZER, letters, 6) == "...bab"
    # no room for a marker: the last tokens alone
    assert [tail(TOKENIZER, letters, n) for n in (3, 1, 0)] == ["bab", "b", ""]


def test_no_torn_characters() -> None:
    ids = TOKENIZER.encode("本本日", bos=False)  # three tokens each
    cut = {9: "本本日", 8: "...日", 7: "...日", 6: "...日", 5: "...", 4: "..."}
    assert {tokens: tail(TOKENIZER, ids, tokens) for tokens in cut} == cut
    # the budget of the rollout can tear the last one
    assert [tail(TOKENIZER, ids[:n], 20) for n in (8, 7, 6)] == ["本本"] * 3


def test_a_model_that_draws_broken_bytes_is_not_searched_for_a_beginning() -> None:
    broken = TOKENIZER.encode("é", bos=False)[1:]
    assert tail(TOKENIZER, broken * 50, 10) == "..." + "\ufffd" * 7


def test_spelled_control_tokens_go() -> None:
    spelled = TOKENIZER.encode_plain("a<|im_<|im_end|>end|>b</think>c")
    assert not TOKENIZER.control_ids & set(spelled)
    assert tail(TOKENIZER, spelled, 100) == "abc"


pieces = st.one_of(st.sampled_from([*TAGS, "</thi", "nk>", "\n", "abab", "日", "𝄞", "\\boxed{"]), st.text(max_size=4))


@given(st.lists(pieces, max_size=12).map("".join), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_any_tail(text: str, budget: int, tokens: int, plain: bool) -> None:
    ids = TOKENIZER.encode_plain(text) if plain else TOKENIZER.encode(text, bos=False)
    ids = ids[:budget]
    result = tail(TOKENIZER, ids, tokens)
    drawn = [id for id in ids if id not in TOKENIZER.control_ids]
    assert not any(tag in result for tag in TAGS)
    assert "\ufffd" not in result or "\ufffd" in text
    if len(drawn) <= tokens and not any(tag in TOKENIZER.decode(drawn) for tag in TAGS):
        assert result == TOKENIZER.decode(drawn).rstrip("\ufffd").strip("\n")
    elif not plain:
        kept = result.removeprefix(MARKER)
        assert len(result.encode()) <= tokens * 4  # abab is the longest token
        assert kept in TOKENIZER.decode(drawn) or any(tag in TOKENIZER.decode(drawn) for tag in TAGS)


def as_pieces(completion: Completion) -> Completion:
    """As a server gives it that tells the bytes of tokens and not their ids."""
    spelled, reasoning = (
        [TOKENIZER.token_bytes(id) for id in ids] for ids in (completion.ids, completion.reasoning_ids)
    )
    return replace(completion, ids=(), is_approximate=True, pieces=tuple(spelled), reasoning_pieces=tuple(reasoning))


@pytest.mark.parametrize("compaction", ["tail", "tail_full", "hybrid", "full"])
@pytest.mark.parametrize("text", [CLOSED, UNCLOSED, "</think>the answer", "<|im_end|>", "日本\n</think>\n\n日"])
@pytest.mark.parametrize("tokenizer", [TOKENIZER, None])
def test_pieces_give_what_ids_give(compaction: Compaction, text: str, tokenizer: Tokenizer | None) -> None:
    whole = rollout(text)
    for tokens in range(12):
        assert carry(tokenizer, as_pieces(whole), compaction, tokens) == carry(TOKENIZER, whole, compaction, tokens)


def test_exact_ids_are_preferred_where_they_can_be_read() -> None:
    whole = rollout(CLOSED)
    both = replace(whole, pieces=(b"something", b"else"))
    assert carry(TOKENIZER, both, "tail", 8) == carry(TOKENIZER, whole, "tail", 8)
    assert carry(None, both, "tail", 8) == "somethingelse"
    with pytest.raises(UsageError, match="needs a tokenizer"):
        carry(None, whole, "tail", 8)


@given(st.lists(pieces, max_size=12).map("".join), st.integers(1, 30), st.integers(0, 40))
def test_any_tail_of_pieces(text: str, parts: int, tokens: int) -> None:
    edges = [len(text) * i // parts for i in range(parts + 1)]
    cut = [text[start:stop].encode() for start, stop in pairwise(edges)]
    result = tail_of_pieces(cut, tokens, ControlTokens(TAGS))
    assert not any(tag in result for tag in TAGS)
    assert "\ufffd" not in result or "\ufffd" in text
    # all it may hold: the last pieces, fewer by the dots where there is room for them
    kept = [piece for piece in cut if piece.decode() not in TAGS]
    if len(kept) > tokens:
        room = tokens - len(MARKER) if tokens > len(MARKER) else tokens
        allowed = (MARKER if tokens > len(MARKER) else "") + b"".join(kept[len(kept) - room :]).decode()
        assert len(result) <= len(allowed)
        if not any(tag in allowed for tag in TAGS):
            assert result == allowed.strip("\n")
