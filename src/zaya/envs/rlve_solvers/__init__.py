"""Solvers of our own for tasks of RLVE-Gym that ship no reference answer: oracles for the audit, by task.

They need networkx, which the extra `envs` brings, and are imported when an answer is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from zaya.errors import UsageError

MODULES = ("graphs", "sequences")


@cache
def solvers() -> Mapping[str, Callable[[Mapping[str, Any]], str | None]]:
    """By task, without its prefix: from the parameters of a problem to an answer, or None where it is too large."""
    try:
        modules = [import_module(f"zaya.envs.rlve_solvers.{name}") for name in MODULES]
    except ImportError as error:
        raise UsageError(f"a solver needs the extra 'envs': {error}", hint="pip install 'openzaya[envs]'") from error
    return {task: solver for module in modules for task, solver in module.SOLVERS.items()}
