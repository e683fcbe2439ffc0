"""Environments by name.

arithmetic              one of ours
rlve/Sorting            a task of RLVE-Gym, with the extra `envs`
package.module:NAME     your own: an object in a module that Python can import
"""

from __future__ import annotations

from importlib import import_module

from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Environment
from zaya.envs.rlve import PREFIX, RlveEnvironment
from zaya.errors import UsageError, did_you_mean

_BUILT_IN: dict[str, Environment] = {environment.name: environment for environment in (ARITHMETIC,)}


def names() -> tuple[str, ...]:
    """The environments that are built in. Those of RLVE-Gym, `rlve/...`, are listed by that package."""
    return tuple(sorted(_BUILT_IN))


def get(name: str) -> Environment:
    """The environment of that name. Raises UsageError where there is none.

    A name of RLVE-Gym is checked in a worker only, as the package is not to be imported anywhere else.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    if name.startswith(PREFIX):
        return RlveEnvironment(name)
    if ":" in name:
        return _from_module(name)
    raise UsageError(
        f"there is no environment {name!r}",
        hint=f"{did_you_mean(name, names())} (also: {PREFIX}NAME of RLVE-Gym, package.module:NAME of your own)",
    )


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
