"""What the tests of commands share: a model that says what a test wants, a tiny random one, and a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.train.stages import SHAPE
from zaya.engine.types import Delta, SamplingParams
from zaya.model.config import preset
from zaya.model.transformer import ZayaModel
from zaya.text import Tokenizer, byte_tokenizer

TOKENIZER = byte_tokenizer()
EMBEDDED = Path("EMBEDDED")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class Scripted:
    """Stands in for loading and generating: keeps what it was asked, yields the ids it was given, one text a call."""

    def __init__(self, *texts: str | list[int], max_positions: int = 4096) -> None:
        self.ids = [TOKENIZER.encode(text, bos=False) if isinstance(text, str) else text for text in texts]
        self.loaded: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self.config = preset("micro", eos_id=1, more_eos_ids=(5,), max_positions=max_positions)
        self.before: Callable[[int], object] = lambda count: None
        """Called before the id of that number in an answer."""

    def load(self, path: str, **options: Any) -> tuple[Any, Tokenizer]:
        self.loaded = {"path": path, **options}
        return SimpleNamespace(config=self.config), TOKENIZER

    def engine(self, model: Any, tokenizer: Tokenizer | None, **_: Any) -> Any:
        """In the place of `zaya.Engine`."""
        return SimpleNamespace(model=model, tokenizer=tokenizer, stop_ids=frozenset({1, 5, 106}), stream=self.stream)

    def stream(self, prompt: list[int], params: SamplingParams, *, seed: int) -> Iterator[Delta]:
        self.asked.append({"prompt": list(prompt), "seed": seed, **asdict(params)})
        for count, id in enumerate(self.ids[(len(self.asked) - 1) % len(self.ids)][: params.max_tokens]):
            self.before(count)
            yield Delta(index=0, ids=(id,), text="")

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Scripted:
        monkeypatch.setattr("zaya.model.layouts.load", self.load, raising=False)
        monkeypatch.setattr("zaya.engine.engine.Engine", self.engine)
        monkeypatch.setattr("zaya.model.embedded.embedded_directory", lambda: EMBEDDED)
        return self


def tiny_checkpoint(directory: Path) -> Path:
    """A random model of a few thousand parameters that reads bytes."""
    ZayaModel(preset("micro", **SHAPE, max_positions=4096)).save(directory)
    TOKENIZER.save(directory)
    return directory
