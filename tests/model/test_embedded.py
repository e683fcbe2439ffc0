"""The model that comes with the package.

1. Where its files are missing, the error says so and what to do.
2. The instruction of its training stands once, in the last line.
3. A model that a cascade made is known by its manifest.
4. As it is shipped it is small, whole, and has a tokenizer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from zaya.envs.answers import INSTRUCTION
from zaya.errors import CheckpointError
from zaya.model import embedded
from zaya.model.layouts import load

IS_THERE = (embedded._DIRECTORY / "model.safetensors").is_file()


def test_missing_files_are_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_DIRECTORY", tmp_path)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        with pytest.raises(CheckpointError, match=f"the embedded model is not there: .* has no {name}") as raised:
            embedded.embedded_directory()
        assert "make embed" in str(raised.value.hint)
        (tmp_path / name).touch()
    assert embedded.embedded_directory() == tmp_path


def test_the_instruction_stands_once() -> None:
    asked = f"What is 1 + 2?\n{INSTRUCTION}"
    assert embedded.as_trained("What is 1 + 2?") == embedded.as_trained("What is 1 + 2?\n") == asked
    assert embedded.as_trained(asked) == asked
    assert embedded.as_trained(f"{INSTRUCTION} What is 1 + 2?") == f"{INSTRUCTION} What is 1 + 2?"


def test_what_a_cascade_made_is_asked_like_the_embedded_one(tmp_path: Path) -> None:
    assert embedded.is_micro(None)
    assert not embedded.is_micro(str(tmp_path))
    assert not embedded.is_micro("Zyphra/ZAYA1-8B")
    (tmp_path / embedded.MANIFEST).touch()
    assert embedded.is_micro(str(tmp_path))


@pytest.mark.skipif(not IS_THERE, reason="the embedded model is not there")
def test_as_shipped() -> None:
    directory = embedded.embedded_directory()
    assert sum(file.stat().st_size for file in directory.iterdir()) < 8e6
    model, tokenizer = load(directory, dtype="float32")
    assert tokenizer is not None
    assert tokenizer.size <= model.config.vocab_size
