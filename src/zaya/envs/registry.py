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
    raise UsageError(
        f"there is no environment {name!r}",
        hint=f"{nearest(name)}; `zaya env list` has them all, and package.module:NAME is one of your own",
    )


def nearest(name: str) -> str:
    """Which one may have been meant."""
    short = {full.rpartition("/")[2].lower(): full for full in names()}
    if name.lower() in short:  # without its prefix
        return f"did you mean {short[name.lower()]}?"
    hint = did_you_mean(name, names())
    return hint if hint.startswith("did you mean") else f"there are {len(names())}"


def _from_module(name: str) -> Environment:
    module, _, attribute = name.partition(":")
    try:
        environment = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"environment {name!r} cannot be imported: {error}") from error
    if getattr(environment, "name", None) != name:
        # its problems carry its name, and are scored by what is found under it
        raise UsageError(f"{name} is not an environment of that name", hint=f"set its attribute name to {name!r}")
    return environment
