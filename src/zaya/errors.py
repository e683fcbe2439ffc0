"""What can go wrong because of something a user did.

Every error says what is wrong, what was expected and what to do. The command line prints them without a traceback;
anything else that escapes is our own bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ZayaError(Exception):
    """Base of all errors a user can cause. `hint` is one line that says what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class ConfigError(ZayaError):
    """A configuration value is unknown, of the wrong type, or impossible together with another."""


class CheckpointError(ZayaError):
    """A checkpoint directory is missing, damaged, incomplete, or holds what cannot be loaded faithfully."""


class DataError(ZayaError):
    """Text to learn from is missing, empty, damaged, or not what was asked for."""


class UsageError(ZayaError):
    """A call or a command line that asks for something that does not exist or cannot be done."""


class CompletionError(ZayaError):
    """Whoever completes text failed: a server that does not answer, a rollout that broke off, a round without any."""

    def __init__(self, message: str, *, kind: str = "failed", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        """What failures are counted by, such as "timeout"."""


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A hint for a name that does not exist: the nearest one that does, else all of them."""
    names = sorted(map(str, known))
    nearest = get_close_matches(name, names, n=1)
    if nearest:
        return f"did you mean {prefix}{nearest[0]}?"
    return f"there are {', '.join(prefix + name for name in names)}" if names else "there are none"
