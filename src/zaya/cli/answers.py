"""Answers as the engine draws them: which of a request's they are, how far they have come, and their text.

    answers = Answers(engine.stream(prompt, params, n=3), 3)
    for index in range(3):
        show(texts(answers.of(index), tokenizer, engine.stop_ids, params.stop))

The engine draws all of them together. Whoever reads one gets it as it comes; what comes of the others waits.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zaya.engine.types import Delta, FinishReason

if TYPE_CHECKING:
    from zaya.text import Tokenizer


class Answers:
    """The answers to one request, and what is known of them."""

    def __init__(self, deltas: Iterator[Delta], n: int = 1, *, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """`deltas` are of n answers. Nothing more is asked for once `is_stopped` says so."""
        self.ids: list[list[int]] = [[] for _ in range(n)]
        """What was drawn, stop ids included."""
        self.finish_reasons: list[FinishReason | None] = [None] * n
        self.in_thinking = [False] * n
        """Whether there is reasoning, and nothing behind it yet."""
        self.first_at = 0.0
        """When the first tokens came, by `time.perf_counter`; 0 before that."""
        self.last_at = 0.0
        self.first_tokens = 0
        """Tokens that came with the first delta: nobody knows how long they took."""
        self._deltas = deltas
        self._is_stopped = is_stopped
        self._waiting: list[deque[Delta]] = [deque() for _ in range(n)]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids))

    @property
    def tokens_per_s(self) -> float | None:
        """Behind the first; None where there is nothing to measure."""
        later, elapsed_s = self.tokens - self.first_tokens, self.last_at - self.first_at
        return later / elapsed_s if later and elapsed_s else None

    def of(self, index: int) -> Iterator[Delta]:
        """The deltas of one answer as they come."""
        waiting = self._waiting[index]
        while True:
            if waiting:
                yield waiting.popleft()
            elif self._is_stopped() or self.finish_reasons[index] is not None or not self._draw():
                return

    def _draw(self) -> bool:
        """Take a delta from the engine. False where there are no more."""
        delta = next(self._deltas, None)
        if delta is None:
            return False
        self.last_at = time.perf_counter()
        if not self.first_at:
            self.first_at, self.first_tokens = self.last_at, len(delta.ids)
        self.ids[delta.index] += delta.ids
        self.finish_reasons[delta.index] = delta.finish_reason
        if delta.reasoning or delta.text:
            self.in_thinking[delta.index] = not delta.text
        self._waiting[delta.index].append(delta)
        return True


@contextmanager
def noting_ctrl_c(*, raises: bool) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed in the block. With `raises` it raises KeyboardInterrupt as well, as anywhere: that may
    be lost, since C code that calls Python drops exceptions now and then, so whoever loops looks here too."""
    pressed = threading.Event()

    def press(*_: object) -> None:
        pressed.set()
        if raises:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def texts(
    deltas: Iterable[Delta], tokenizer: Tokenizer, stop_ids: Collection[int], stop: Sequence[str]
) -> Iterator[str]:
    """The text of one answer as it comes, tags and thinking included: all that was drawn but the stop id or the stop
    string that ended it. What may become a stop string waits."""
    from zaya.text import Decoder

    decoder, held = Decoder(tokenizer), ""
    for delta in deltas:
        held += decoder.feed(id for id in delta.ids if id not in stop_ids)
        if delta.finish_reason is FinishReason.STOP and delta.ids[-1] not in stop_ids:
            held = held[: _first(held, stop)]
            break
        certain = len(held) - _begun(held, stop)
        yield held[:certain]
        held = held[certain:]
    else:
        held += decoder.finish()
    yield held


def _first(text: str, stop: Sequence[str]) -> int:
    """Where the stop string begins that is complete first, and of those that end together the longest."""
    found = [(at + len(string), at) for string in stop if (at := text.find(string)) >= 0]
    return min(found)[1] if found else len(text)


def _begun(text: str, stop: Sequence[str]) -> int:
    """How much of the end of a text a stop string begins with."""
    return max((n for string in stop for n in range(1, len(string)) if text.endswith(string[:n])), default=0)
