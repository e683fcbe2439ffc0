"""What the tests of commands share: a model that says what a test wants, a tiny random one, and a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import cycle, zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.train.stages import SHAPE
from zaya.engine.stops import TextStream
from zaya.engine.types import Delta, FinishReason, SamplingParams
from zaya.model.config import preset
from zaya.model.transformer import ZayaModel
from zaya.text import Tokenizer, byte_tokenizer, opens_thinking

TOKENIZER = byte_tokenizer()
STOP_IDS = frozenset({1, 5, 106})
EMBEDDED = Path("EMBEDDED")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class Scripted:
    """Stands in for loading and generating: keeps what it was asked, yields the ids it was given, a text each.

    Texts end as an engine's do: behind a stop id, a stop string, or the last token that was asked for.
    """

    def __init__(self, *texts: str | list[int], max_positions: int = 4096) -> None:
        self.ids = [TOKENIZER.encode(text, bos=False) if isinstance(text, str) else text for text in texts]
        self.loaded: dict[str, Any] = {}
        self.made: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self.closed = 0
        """Streams that are over, to their end or not."""
        self.config = preset("micro", eos_id=1, more_eos_ids=(5,), max_positions=max_positions)
        self.before: Callable[[int], object] = lambda count: None
        """Called before the id of that number in an answer."""
        self._next = cycle(self.ids)

    def load(self, path: str, **options: Any) -> tuple[Any, Tokenizer]:
        self.loaded = {"path": path, **options}
        weights = [np.zeros(1000, dtype=np.float32)]
        return SimpleNamespace(config=self.config, parameters=lambda: weights, buffers=list), TOKENIZER

    def engine(self, model: Any, tokenizer: Tokenizer | None, **options: Any) -> Any:
        """In the place of `zaya.Engine`."""
        self.made = options
        return SimpleNamespace(
            model=model, tokenizer=tokenizer, stop_ids=STOP_IDS, stream=self.stream,
            stats=SimpleNamespace(prefix_tokens=0),
        )  # fmt: skip

    def stream(self, prompt: list[int], params: SamplingParams, *, n: int = 1, seed: int) -> Iterator[Delta]:
        self.asked.append({"prompt": list(prompt), "n": n, "seed": seed, **asdict(params)})
        try:
            answers = [self._answer(index, next(self._next), prompt, params) for index in range(n)]
            for together in zip_longest(*answers):
                yield from (delta for delta in together if delta is not None)
        finally:
            self.closed += 1

    def _answer(self, index: int, ids: list[int], prompt: list[int], params: SamplingParams) -> Iterator[Delta]:
        text = TextStream(TOKENIZER, in_thinking=opens_thinking(TOKENIZER, prompt), stop=params.stop)
        for count, id in enumerate(ids[: params.max_tokens]):
            self.before(count)
            reason = FinishReason.LENGTH if count + 1 == params.max_tokens else None
            if id in STOP_IDS or text.push(id) is not None:
                reason = FinishReason.STOP
            if reason is not None:
                text.finish()
            reasoning, answer = text.take()
            yield Delta(index=index, ids=(id,), text=answer, reasoning=reasoning, finish_reason=reason)
            if reason is FinishReason.STOP:
                return

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
