"""What one request may take, and how many there may be at a time.

A request is let in as a whole, with all completions it wants, or told at once to come again: nobody waits without a
bound. Those let in wait in the engine, in its order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from zaya.errors import UsageError
from zaya.serve.errors import ApiError

_LONGEST_WAIT_S = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds of a server."""

    max_body_bytes: int = 4 << 20
    """Of a request, before anything of it is read. Room for 131,072 tokens with every character escaped; a longer text
    is tokenized for tens of seconds, to be found too long."""
    max_bodies_bytes: int = 64 << 20
    """Of all requests that are being received. What JSON holds takes many times its bytes."""
    head_timeout_s: float = 30.0
    """For a connection on which nothing is asked, or only the beginning of something."""
    body_timeout_s: float = 30.0
    """Until the body of a request is there."""
    max_prompt_tokens: int | None = None
    """Of one prompt; none leaves it to the context."""
    max_completions: int = 128
    """Of one request: its prompts, times n."""
    max_pending: int = 1024
    """Completions of all requests together that run or wait."""
    max_rsa_population: int = 32
    """Rollouts of a round of Markovian RSA; who asks for more gets these."""
    max_rsa_tokens: int = 16 << 20
    """Tokens that one request may draw by Markovian RSA, all rounds together. All presets are below it, and so is what
    Zyphra's proxy draws unless told otherwise. Who asks for more gets a smaller population."""
    max_rsa_running: int = 128
    """Rollouts of Markovian RSA, of all requests, that the engine has at a time. Less than it has places for, so that
    others find one."""
    deadline_s: float = 3600.0
    """Until a request is answered."""
    keep_alive_s: float = 15.0
    """A stream that has nothing to say says so."""
    drain_s: float = 30.0
    """For what is under way when the server is told to stop."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise UsageError(f"{name} must be above 0: {value}")


class Gate:
    """Counts the completions that run or wait."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.pending = 0
        self.receiving = 0
        """Bytes of bodies that are not complete."""
        self._seconds = 1.0
        """What a request takes, lately: a running mean."""

    def check(self, completions: int) -> None:
        """Raises ApiError for so many as one request may not want."""
        most = min(self._limits.max_completions, self._limits.max_pending)
        if completions > most:
            raise ApiError(
                400, f"a request may want {most} completions at most, prompts times n: {completions}", param="n"
            )

    @contextmanager
    def enter(self, completions: int) -> Iterator[None]:
        """Raises ApiError where there is no room."""
        self.check(completions)
        if self.pending + completions > self._limits.max_pending:
            wait = min(max(1, math.ceil(self._seconds)), _LONGEST_WAIT_S)
            raise ApiError(
                429, f"too many requests are waiting; come again in {wait} s", code="queue_full", retry_after_s=wait
            )
        self.pending += completions
        try:
            yield
        finally:
            self.pending -= completions

    @contextmanager
    def receive(self) -> Iterator[Callable[[int], None]]:
        """Counts the bytes of a body while it comes. Raises ApiError where there is no room for more of them."""
        received = 0

        def add(count: int) -> None:
            nonlocal received
            received += count
            self.receiving += count
            if self.receiving > self._limits.max_bodies_bytes:
                message = "too many large requests are being received; come again in 1 s"
                raise ApiError(429, message, code="too_many_bytes", retry_after_s=1)

        try:
            yield add
        finally:
            self.receiving -= received

    def took(self, seconds: float) -> None:
        """A request has been answered."""
        self._seconds += (seconds - self._seconds) / 8
