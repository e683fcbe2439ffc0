"""Text while ids are drawn.

1. Without stop strings the texts are those of `split`, whatever the ids.
2. A stop string ends the text where a search over the whole bytes finds it: the first to be complete, of those that
   end together the longest; in reasoning and answer alike, never from one into the other.
3. How tokens cut the text changes nothing.
4. What is given out on the way, put together, is the final text; it is never taken back.
5. What can become a stop string, half a character, and the last newlines of reasoning wait; nothing else does.
6. Newlines that belong to the form of a beginning are no stop string by themselves.
7. What may not stop is text like any other, and a match that begins in it counts.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zaya.engine.split import split
from zaya.engine.stops import TextStream
from zaya.errors import UsageError
from zaya.text import Tokenizer, byte_tokenizer, render, tags

# "é" is C3 A9, and Ã is the character of C3: the merges cut it and the stop strings in every way.
TOKENIZER = byte_tokenizer([("a", "b"), ("b", "a"), ("ab", "a"), ("Ċ", "Ċ"), ("b", "Ã"), ("©", "a"), ("a", "Ċ")])
QUESTION = [{"role": "user", "content": "?"}]
OPEN = tuple(render(TOKENIZER, QUESTION).ids)
SHUT = tuple(render(TOKENIZER, QUESTION, enable_thinking=False).ids)
CLOSE = TOKENIZER.tags.think_close
assert CLOSE is not None

PIECES = sorted({id for id in range(TOKENIZER.size) if set(TOKENIZER.token_bytes(id)) <= set("abé\n".encode())})
CONTROL = [TOKENIZER.id_of(tag) for tag in (tags.THINK_OPEN, tags.TURN_CLOSE, tags.CALL_OPEN, tags.BOS)]
ids_of_a_text = st.lists(st.sampled_from([*PIECES, *PIECES, *CONTROL, CLOSE]), max_size=25)
stop_strings = st.lists(st.text("abé\n", min_size=1, max_size=4), max_size=3)


def stream(ids: list[int], stop: list[str], prompt: tuple[int, ...]) -> tuple[str, str, str | None, int]:
    """(reasoning, answer, stop string, ids that were read), put together from what is given out."""
    text = TextStream(TOKENIZER, in_thinking=prompt == OPEN, stop=stop)
    reasoning = answer = ""
    found, num_read = None, 0
    for id in ids:
        found = text.push(id)
        num_read += 1
        new = text.take()
        reasoning, answer = reasoning + new[0], answer + new[1]
        if found is not None:
            break
    text.finish()
    new = text.take()
    assert (reasoning + new[0], answer + new[1]) == (text.reasoning, text.answer)
    return text.reasoning, text.answer, found, num_read


def part(ids: list[int]) -> list[bytes]:
    """The bytes of each id that is text."""
    hidden = TOKENIZER.control_ids - {TOKENIZER.tags.call_open}
    return [b"" if id in hidden else TOKENIZER.token_bytes(id) for id in ids]


def search(pieces: list[bytes], stop: list[str]) -> tuple[bytes, str | None, int]:
    """(bytes before the stop string, the stop string, pieces that were needed), by looking at every end."""
    data = b"".join(pieces)
    for end in range(1, len(data) + 1):
        complete = [text for text in stop if data[:end].endswith(text.encode())]
        if complete and data[:end].strip(b"\n"):
            longest = max(complete, key=lambda text: len(text.encode()))
            needed = next(n for n in range(len(pieces) + 1) if len(b"".join(pieces[:n])) >= end)
            return data[: end - len(longest.encode())], longest, needed
    return data, None, len(pieces)


def expected(ids: list[int], stop: list[str], prompt: tuple[int, ...]) -> tuple[str, str, str | None, int]:
    reasoning, num_read = "", 0
    if prompt == OPEN:
        at = ids.index(CLOSE) if CLOSE in ids else len(ids)
        data, found, num_read = search(part(ids[:at]), stop)
        reasoning = data.decode(errors="replace").strip("\n")
        if found is not None or at == len(ids):
            return reasoning, "", found, num_read
        ids, num_read = ids[at + 1 :], at + 1
    data, found, more = search(part(ids), stop)
    return reasoning, data.decode(errors="replace").lstrip("\n"), found, num_read + more


@given(ids_of_a_text, st.sampled_from([OPEN, SHUT]))
def test_without_stop_strings_it_is_split(ids: list[int], prompt: tuple[int, ...]) -> None:
    reasoning, answer, found, _ = stream(ids, [], prompt)
    assert (reasoning, answer) == split(TOKENIZER, prompt, ids)[2:]
    assert found is None


@settings(max_examples=300)
@given(ids_of_a_text, stop_strings, st.sampled_from([OPEN, SHUT]))
def test_stop_strings_end_the_text_as_a_search_says(ids: list[int], stop: list[str], prompt: tuple[int, ...]) -> None:
    assert stream(ids, stop, prompt) == expected(ids, stop, prompt)


@given(st.lists(st.sampled_from(PIECES), max_size=25), stop_strings, st.sampled_from([OPEN, SHUT]))
def test_how_tokens_cut_the_text_changes_nothing(ids: list[int], stop: list[str], prompt: tuple[int, ...]) -> None:
    single = {TOKENIZER.token_bytes(id): id for id in PIECES if len(TOKENIZER.token_bytes(id)) == 1}
    apart = [single[bytes([byte])] for byte in TOKENIZER.to_bytes(ids)]
    assert stream(ids, stop, prompt)[:3] == stream(apart, stop, prompt)[:3]


@given(st.lists(ids_of_a_text, max_size=4), st.sampled_from([OPEN, SHUT]))
def test_many_at_once_are_one_after_another(parts: list[list[int]], prompt: tuple[int, ...]) -> None:
    singly, together = (TextStream(TOKENIZER, in_thinking=prompt == OPEN) for _ in range(2))
    for ids in parts:
        for id in ids:
            singly.push(id)
        together.push_all(ids)
        assert together.take() == singly.take()
    singly.finish()
    together.finish()
    assert together.take() == singly.take()


def given_out(sampled: str, stop: list[str], prompt: tuple[int, ...] = SHUT) -> list[str]:
    """What each byte or tag of a text decides, of reasoning and answer together; at last, what its end decides."""
    plain: Tokenizer = byte_tokenizer()
    text = TextStream(plain, in_thinking=prompt == OPEN, stop=stop)
    new = []
    for id in plain.encode(sampled, bos=False):
        found = text.push(id)
        new.append("".join(text.take()))
        if found is not None:
            break
    text.finish()
    return [*new, "".join(text.take())]


@pytest.mark.parametrize(
    ("sampled", "stop", "prompt", "expected"),
    [
        ("abc", [], SHUT, ["a", "b", "c", ""]),
        ("aéb", [], SHUT, ["a", "", "é", "b", ""]),
        ("xaab!", ["aab"], SHUT, ["x", "", "", "", ""]),
        ("aaab!", ["aab"], SHUT, ["", "", "a", "", ""]),  # the first is free as soon as a later one can begin it
        ("aac", ["aab"], SHUT, ["", "", "aac", ""]),
        ("aa", ["aab"], SHUT, ["", "", "aa"]),
        ("abcabd!", ["abcabd", "bx"], SHUT, ["", "", "", "", "", "", ""]),
        ("abcabx", ["abcabd", "bx"], SHUT, ["", "", "", "", "", "abca", ""]),
        ("xéy", ["éz"], SHUT, ["x", "", "", "éy", ""]),
        ("\n\na\n", [], SHUT, ["", "", "a", "\n", ""]),
        ("\na\n\nb\n</think>\n\nc", [], OPEN, ["", "a", "", "", "\n\nb", "", "", "", "", "c", ""]),
        ("a\n", [], OPEN, ["a", "", ""]),
        ("ab</think>bc", ["bb"], OPEN, ["a", "", "b", "", "bc", ""]),
    ],
)
def test_what_waits(sampled: str, stop: list[str], prompt: tuple[int, ...], expected: list[str]) -> None:
    assert given_out(sampled, stop, prompt) == expected


@pytest.mark.parametrize(
    ("sampled", "stop", "expected"),
    [
        ("\n\nab\nc", ["\n"], ("", "ab", "\n", 5)),
        ("\n\nab\nc", ["\n\n"], ("", "ab\nc", None, 6)),
        ("\n\nab\nc", ["\n\na", "\n"], ("", "", "\n\na", 3)),
        ("ab", ["b", "ab"], ("", "", "ab", 2)),
        ("ab", ["b", "ab", "a"], ("", "", "a", 1)),
    ],
)
def test_which_stop_string_ends_it(sampled: str, stop: list[str], expected: tuple) -> None:
    single = {TOKENIZER.token_bytes(id): id for id in range(268) if len(TOKENIZER.token_bytes(id)) == 1}
    assert stream([single[bytes([byte])] for byte in sampled.encode()], stop, SHUT) == expected


def test_what_may_not_stop_is_text() -> None:
    """The stop string aa, which the second token may not complete: the third does, with the second's a."""
    a = TOKENIZER.encode("a", bos=False)[0]
    text = TextStream(TOKENIZER, in_thinking=False, stop=("aa",))
    assert [text.push(a, may_stop=False), text.push(a, may_stop=False), text.push(a)] == [None, None, "aa"]
    assert text.answer == "a"


def test_a_stop_string_is_unicode() -> None:
    with pytest.raises(UsageError, match="lone surrogates"):
        TextStream(TOKENIZER, in_thinking=False, stop=("\ud800",))
