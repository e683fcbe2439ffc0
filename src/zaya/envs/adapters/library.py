"""The other library, when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from zaya.errors import UsageError


def library(module: str, package: str) -> Any:
    """The module, of a package that is not among our dependencies. Raises UsageError where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} cannot be imported: {error}", hint=f"pip install {package}") from error
