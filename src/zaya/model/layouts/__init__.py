"""Published checkpoint layouts: their names and configuration, to ours and back.

    model, tokenizer = load("path/or/hub-id")
    save(model, "dir", layout="native")
    convert("src", "dst", layout="legacy")
    quantize("src", "dst", "int4")
    print(inspect("dir"))

A layout is a config.json and one table of `Entry`; reading, writing, converting and checking are generic over it.
Loaded when first used: reading a config needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zaya.model.layouts.checkpoint import open_checkpoint
    from zaya.model.layouts.conversion import convert
    from zaya.model.layouts.inspection import inspect
    from zaya.model.layouts.models import load, load_model, save
    from zaya.model.layouts.quantising import quantize

_HOMES = {
    "convert": "conversion",
    "inspect": "inspection",
    "load": "models",
    "load_model": "models",
    "open_checkpoint": "checkpoint",
    "quantize": "quantising",
    "save": "models",
}

__all__ = ["convert", "inspect", "load", "load_model", "open_checkpoint", "quantize", "save"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
