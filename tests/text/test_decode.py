"""Text while ids arrive is the text of all ids."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.gemma import gemma_like
from zaya.text import Decoder, byte_tokenizer, train_tokenizer

TOKENIZERS = {
    "byte": byte_tokenizer(),
    "trained": train_tokenizer(["grüße 日本語 👍🏽 hello world"] * 5, 300),
    "gemma": gemma_like(),
}
names = st.sampled_from(sorted(TOKENIZERS))


def stream(tokenizer, ids, sizes, **options):
    decoder = Decoder(tokenizer, **options)
    parts, at = [], 0
    while at < len(ids):
        size = next(sizes)
        parts.append(decoder.feed(ids[at : at + size]))
        at += size
    return [*parts, decoder.finish()]


@settings(max_examples=150, deadline=None)
@given(names, st.lists(st.integers(0, 500), max_size=40), st.integers(1, 4), st.booleans())
def test_any_ids_cut_anywhere(name, ids, size, skip_special):
    tokenizer = TOKENIZERS[name]
    parts = stream(tokenizer, ids, iter(lambda: size, None), skip_special=skip_special)
    assert "".join(parts) == tokenizer.decode(ids, skip_special=skip_special)


@settings(max_examples=150, deadline=None)
@given(names, st.text(max_size=30))
def test_real_text_is_never_shown_broken(name, text):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text.replace("▁", "_").replace("�", "?"), bos=False)
    parts = stream(tokenizer, ids, iter(lambda: 1, None))
    assert not any("�" in part for part in parts)
    assert parts[-1] == ""
    assert "".join(parts) == tokenizer._backend.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("name", ["byte", "gemma"])
def test_a_character_appears_with_its_last_byte(name):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode("日a", bos=False)
    assert len(ids) == 4
    assert stream(tokenizer, ids, iter(lambda: 1, None)) == ["", "", "日", "a", ""]


def test_a_character_that_never_completes():
    for tokenizer in TOKENIZERS.values():
        ids = tokenizer.encode("a👍", bos=False)[:-1]
        assert "".join(stream(tokenizer, ids, iter(lambda: 1, None))) == "a�"
        turn_end = tokenizer.eos_id
        assert "".join(stream(tokenizer, [*ids, turn_end], iter(lambda: 1, None))) == "a�<|im_end|>"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 267), max_size=30))
def test_invalid_bytes_decode_as_in_the_library(ids):
    tokenizer = TOKENIZERS["byte"]
    assert tokenizer.decode(ids) == tokenizer._backend.decode(ids, skip_special_tokens=False)


def test_each_id_is_looked_at_once(monkeypatch):
    tokenizer = byte_tokenizer()
    seen = []
    look = type(tokenizer).token_bytes
    monkeypatch.setattr(type(tokenizer), "token_bytes", lambda self, id: seen.append(id) or look(self, id))
    ids = tokenizer.encode("日本語 hello " * 20)
    stream(tokenizer, ids, iter(lambda: 1, None))
    assert seen == ids
