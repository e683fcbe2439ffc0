"""What one key may take of a minute: requests, and tokens.

Each is a bucket that a minute's worth fills: all of it may be taken at once, and comes back evenly. A request is let in
while there is something left of both. Its prompt is charged when it begins and what it drew when it ends, so the bucket
of tokens may fall below nothing, and is waited for until that is paid off; how much a request will draw, nobody knows
before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from zaya.serve.errors import ApiError

Clock = Callable[[], float]


class Bucket:
    """So many a minute."""

    def __init__(self, per_minute: float, clock: Clock = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._left = per_minute
        self._at = clock()

    @property
    def left(self) -> float:
        """What may be taken now; below 0 what has to come back first."""
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self.per_minute / 60, self.per_minute)
        self._at = now
        return self._left

    def take(self, count: float) -> None:
        self._left = self.left - count

    def wait_s(self, wanted: float) -> float:
        """Seconds until so many may be taken."""
        return max(wanted - self.left, 0) * 60 / self.per_minute


class Rates:
    """The buckets of one key."""

    def __init__(self, requests: float | None, tokens: float | None, clock: Clock = time.monotonic) -> None:
        self._buckets = {
            name: Bucket(per_minute, clock)
            for name, per_minute in (("requests", requests), ("tokens", tokens))
            if per_minute is not None
        }

    def admit(self) -> None:
        """One more request. Raises ApiError where it has to wait, and takes nothing then."""
        for name, bucket in self._buckets.items():
            wait = math.ceil(bucket.wait_s(1))
            if wait:
                message = f"this key may take {bucket.per_minute:g} {name} a minute; come again in {wait} s"
                raise ApiError(429, message, code="rate_limit_exceeded", retry_after_s=wait)
        if "requests" in self._buckets:
            self._buckets["requests"].take(1)

    def charge(self, tokens: int) -> None:
        """They have been read, or drawn."""
        if "tokens" in self._buckets:
            self._buckets["tokens"].take(tokens)

    def headers(self) -> dict[str, str]:
        """How far it still goes, as OpenAI says it."""
        told = {}
        for name, bucket in self._buckets.items():
            told[f"x-ratelimit-limit-{name}"] = f"{int(bucket.per_minute)}"
            told[f"x-ratelimit-remaining-{name}"] = f"{max(math.floor(bucket.left), 0)}"
            told[f"x-ratelimit-reset-{name}"] = f"{math.ceil(bucket.wait_s(bucket.per_minute))}s"
        return told
