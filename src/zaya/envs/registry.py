"""Environments by name.

arithmetic              one of ours
rlve/Sorting            a task of RLVE-Gym, with the extra `envs`; other families have other prefixes
math:FILE.jsonl         problems of a file, with their answers; choice:, code:, instruct: and tools: are other kinds
package.module:NAME     your own: an object in a module that Python can import

A family is a module with `names()`, all it has, and `environment(name)`, which raises UsageError where there is none.
Neither imports the package that the family leans on; a worker does.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import cast

from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Environment
from zaya.errors import UsageError, did_you_mean

_BUILT_IN: dict[str, Environment] = {environment.name: environment for environment in (ARITHMETIC,)}

FAMILIES: dict[str, str] = {
    "choice:": "zaya.envs.files.kinds",
    "code:": "zaya.envs.files.kinds",
    "code/": "zaya.envs.code.tasks",
    "instruct/": "zaya.envs.instruct.tasks",
    "instruct:": "zaya.envs.files.kinds",
    "math/": "zaya.envs.math.templates",
    "math:": "zaya.envs.files.kinds",
    "reasoning-core/": "zaya.envs.reasoning_core",
    "reasoning-gym/": "zaya.envs.reasoning_gym",
    "rlve/": "zaya.envs.rlve",
    "tools:": "zaya.envs.files.kinds",
}
"""Prefix -> module."""

_PARTS = ("name", "version", "about", "sample", "score", "reference")
"""What an `Environment` has."""


@cache
def names() -> tuple[str, ...]:
    """Every environment that has a name of ours, whether the package it needs is installed or not."""
    return (*sorted(_BUILT_IN), *(name for module in FAMILIES.values() for name in import_module(module).names()))


def get(name: str) -> Environment:
    """The environment of that name. Raises UsageError where there is none."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    for prefix, module in FAMILIES.items():
        if name.startswith(prefix):
            return cast(Environment, import_module(module).environment(name))
    if ":" in name:
        return _from_module(name)
    raise UsageError(f"there is no environment {name!r}", hint=nearest(name))


def nearest(name: str) -> str:
    """Which one may have been meant."""
    short = {full.rpartition("/")[2].lower(): full for full in names()}
    if name.lower() in short:  # without its prefix
        return f"did you mean {short[name.lower()]}?"
    hint = did_you_mean(name, names())
    if hint.startswith("did you mean"):
        return hint
    return f"there are {len(names())}: `zaya env list` has them all, and package.module:NAME is one of your own"


def _from_module(name: str) -> Environment:
    module, _, attribute = name.partition(":")
    try:
        environment = getattr(import_module(module), attribute)
    except AttributeError as error:
        raise UsageError(f"environment {name!r} cannot be imported: {error}") from error
    except ModuleNotFoundError as error:
        raise UsageError(
            f"environment {name!r} cannot be imported: {error}",
            hint="modules are looked for where Python looks: PYTHONPATH=. in front of the command adds this directory",
        ) from error
    except Exception as error:  # whatever the module does
        raise UsageError(
            f"environment {name!r} cannot be imported: {type(error).__name__}: {error}",
            hint=f"python -c 'import {module}' shows where",
        ) from error
    if missing := [part for part in _PARTS if not hasattr(environment, part)]:
        raise UsageError(
            f"{name} is no environment: it has no {', '.join(missing)}", hint="zaya.envs.base.Environment has the list"
        )
    if environment.name != name:
        # its problems carry its name, and are scored by what is found under it
        raise UsageError(f"{name} calls itself {environment.name!r}", hint=f"set its attribute name to {name!r}")
    return environment
