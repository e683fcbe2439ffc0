"""The checker of shape annotations that tests/conftest.py installs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, get_args, runtime_checkable

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as every type checker has it


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its arguments and its result checked at every call.

    beartype refuses annotations with a Protocol that cannot be asked `isinstance`. Whether one can matters to nobody
    but the checker, so it is arranged here and the source stays as it is.
    """
    for hint in function.__annotations__.values():
        for member in (hint, *get_args(hint)):
            if Protocol in getattr(member, "__bases__", ()):
                runtime_checkable(member)
    return _checked(function)
