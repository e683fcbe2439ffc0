"""zaya: the complete open implementation of ZAYA1.

The public names are loaded when first used, so that `import zaya` and `zaya --help` stay instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zaya.engine.engine import Engine
    from zaya.engine.remote import RemoteCompleter
    from zaya.engine.types import SamplingParams
    from zaya.model.config import ModelConfig, preset
    from zaya.model.layouts import load
    from zaya.model.transformer import ZayaModel
    from zaya.ttc.rsa import solve

__version__ = "0.1.0"

_HOMES = {
    "Engine": "zaya.engine.engine",
    "RemoteCompleter": "zaya.engine.remote",
    "SamplingParams": "zaya.engine.types",
    "load": "zaya.model.layouts",
    "ModelConfig": "zaya.model.config",
    "preset": "zaya.model.config",
    "solve": "zaya.ttc.rsa",
    "ZayaModel": "zaya.model.transformer",
}

__all__ = ["Engine", "ModelConfig", "RemoteCompleter", "SamplingParams", "ZayaModel", "load", "preset", "solve"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'zaya' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
