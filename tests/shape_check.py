"""The checker of shape annotations that tests/conftest.py installs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, get_args, runtime_checkable

from beartype import BeartypeConf, beartype

# An int is a float to the reader of an annotation, and to pyright.
CONF = BeartypeConf(is_pep484_tower=True)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its arguments and its result checked at every call.

    beartype refuses annotations with a Protocol that cannot be asked `isinstance`. Whether one can matters to nobody
    but the checker, so it is arranged here and the source stays as it is.
    """
    for hint in function.__annotations__.values():
        for member in (hint, *get_args(hint)):
            if Protocol in getattr(member, "__bases__", ()):
                runtime_checkable(member)
    return beartype(conf=CONF)(function)
