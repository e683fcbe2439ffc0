"""Promises of data/tokenizer: learned from everything a source says, made once, never written over by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from zaya.data.sources import Conversation, InMemory, Text
from zaya.data.tokenizer import make_tokenizer
from zaya.errors import DataError, UsageError
from zaya.text import load_tokenizer, render

TEXTS = InMemory([Text("a", "pineapple " * 20)])
MESSAGES = [
    {"role": "user", "content": "question " * 20},
    {"role": "assistant", "content": "papaya " * 20, "reasoning": "because " * 20},
]
CHATS = InMemory([Conversation("c", MESSAGES)])


def test_a_tokenizer_of_all_sources(tmp_path: Path) -> None:
    assert make_tokenizer([TEXTS, CHATS], 320, tmp_path / "tok") == tmp_path / "tok"
    tokenizer = load_tokenizer(tmp_path / "tok")
    assert tokenizer is not None
    assert 268 < tokenizer.size <= 320
    for word in (" pineapple", " question", " papaya", " because"):
        assert len(tokenizer.encode(word, bos=False)) == 1
    assert (tmp_path / "tok" / "chat_template.jinja").is_file()
    assert render(tokenizer, MESSAGES).ids


def test_it_is_made_once(tmp_path: Path) -> None:
    make_tokenizer([TEXTS], 290, tmp_path / "tok")
    file = tmp_path / "tok" / "tokenizer.json"
    before, text = file.stat(), file.read_text()
    make_tokenizer([TEXTS], 290, tmp_path / "tok")
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    for sources, size in (([TEXTS], 291), ([CHATS], 290)):
        with pytest.raises(DataError, match="holds a tokenizer of other sources or another size"):
            make_tokenizer(sources, size, tmp_path / "tok")
        assert file.read_text() == text
    make_tokenizer([CHATS], 290, tmp_path / "tok", overwrite=True)
    assert file.read_text() != text
    make_tokenizer([TEXTS], 290, tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_text() == text


def test_what_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to learn a tokenizer from"):
        make_tokenizer([InMemory([])], 300, tmp_path / "tok")
    with pytest.raises(UsageError, match="at least 268 tokens: 100"):
        make_tokenizer([TEXTS], 100, tmp_path / "tok")
    assert not (tmp_path / "tok").exists()
