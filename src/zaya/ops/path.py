"""Which of its paths an operation takes: the fast one, or the plain reference beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_plain = False


def use_reference() -> bool:
    """Whether operations are to take their reference path now."""
    return _plain


@contextmanager
def reference_path() -> Iterator[None]:
    """Run a block on the plain references: slow, and easy to believe.

    For the whole process, not a thread.
    """
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before
