"""The rooms of the house: imports point one way, and what promises to be free of torch is.

1. A room imports itself and the rooms to its left (docs/concepts/architecture.md). Imports inside functions and
   under TYPE_CHECKING count.
2. The rooms do not go through the public names of `import zaya`, which would hide what they use.
3. Ray is imported by the two files that start its actors, the web framework by the server, the HTTP client by the file
   that speaks to servers.
4. The modules below, imported in a fresh interpreter, bring neither torch nor transformers with them.
5. `zaya --help` brings nothing that takes time to load.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import zaya

SOURCE = Path(zaya.__file__).parent

ORDER: tuple[tuple[str, ...], ...] = (
    ("errors",), ("config",), ("core",), ("text",), ("data", "envs"), ("ops",), ("model",), ("parallel",),
    ("train", "engine"), ("ttc",), ("eval",), ("rl",), ("serve", "plan"), ("cli",),
)  # fmt: skip
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

OWNERS = {
    "ray": ("rl/workers.py", "serve/replicas.py"),
    "fastapi": ("serve/",),
    "starlette": ("serve/",),
    "uvicorn": ("serve/",),
    "aiohttp": ("serve/",),
    "pydantic": ("serve/",),
    "prometheus_client": ("serve/",),
    "httpx2": ("engine/transport.py",),
}
"""Third-party package -> the files, or folders, that may import it."""

TORCH_FREE = (
    "zaya", "zaya.cli", "zaya.config", "zaya.errors", "zaya.text", "zaya.data", "zaya.envs", "zaya.ttc", "zaya.plan",
    "zaya.engine.types", "zaya.engine.split", "zaya.engine.scripted", "zaya.engine.state", "zaya.engine.pages",
    "zaya.engine.prefix", "zaya.engine.scheduler", "zaya.engine.speculate", "zaya.engine.handle", "zaya.engine.wire",
    "zaya.engine.reply", "zaya.engine.job", "zaya.engine.transport", "zaya.engine.remote", "zaya.eval",
    "zaya.serve", "zaya.rl.types", "zaya.rl.advantage", "zaya.rl.canary",
    "zaya.model.config", "zaya.model.flops", "zaya.model.init", "zaya.core.rng",
)  # fmt: skip
"""Modules, and packages with every module in them. What does not exist yet is checked from the day it does."""


def imported_names(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything a module imports; `from a import b` gives a.b, which may be a module."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*parts, *([module] if module else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(func=ast.Name(id="import_module" | "__import__"), args=[ast.Constant(value=str(name)), *_]):
                yield node.lineno, name
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                yield node.lineno, name


def violations(source: Path) -> list[str]:
    """Every import below `source`, the folder of the package `zaya`, that the rules do not allow."""
    found = []
    for file in sorted(source.rglob("*.py")):
        place = file.relative_to(source).as_posix()
        room = place.split("/")[0].removesuffix(".py")
        package = ".".join(["zaya", *place.split("/")[:-1]])
        if room in ("__init__", "__main__"):
            continue  # the public names, and the door to the command line
        if room not in RANK:
            found.append(f"{place}: the room {room} has no place in the order")
            continue
        for line, name in sorted(imported_names(ast.parse(file.read_text(encoding="utf-8")), package)):
            problem = _problem(place, room, name)
            if problem:
                found.append(f"{place}:{line}: {problem}")
    return found


def _problem(place: str, room: str, name: str) -> str | None:
    top, *rest = name.split(".")
    if top != "zaya":
        owners = OWNERS.get(top)
        return None if owners is None or place.startswith(owners) else f"{top} is imported outside {' '.join(owners)}"
    target = rest[0] if rest else ""
    if target == "__version__" or target == room:
        return None
    if target not in RANK:
        return f"{name} goes through the public names; import it from its home"
    return None if RANK[target] < RANK[room] else f"{room} imports {target}, which does not stand to its left"


def test_imports_point_one_way():
    assert violations(SOURCE) == []


def test_the_check_finds_what_it_should(tmp_path: Path):
    files = {
        "errors.py": "import zaya.config\n",
        "config.py": "from zaya import errors, __version__\n",
        "text/chat.py": "def f():\n    from zaya.model.config import ModelConfig\n",
        "data/pack.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..envs import base\n",
        "ops/cca.py": "from zaya import load\nimport zaya\n",
        "model/cca.py": "from .config import ModelConfig\nfrom ..ops import cca\nfrom .. import train\n",
        "train/loop.py": "from importlib import import_module\nimport_module('zaya.rl.loss')\nimport ray\n",
        "rl/workers.py": "import ray\nimport ray.util\nfrom fastapi import FastAPI\n",
        "serve/app.py": "import fastapi, ray\n",
        "attic/old.py": "import os\n",
        "cli/serve.py": "import zaya.serve.app\nfrom zaya.train import loop\n",
        "__init__.py": "from zaya.rl import loss\n",
    }
    for place, text in files.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(text)
    assert violations(tmp_path) == [
        "attic/old.py: the room attic has no place in the order",
        "data/pack.py:3: data imports envs, which does not stand to its left",
        "errors.py:1: errors imports config, which does not stand to its left",
        "model/cca.py:3: model imports train, which does not stand to its left",
        "ops/cca.py:1: zaya.load goes through the public names; import it from its home",
        "ops/cca.py:2: zaya goes through the public names; import it from its home",
        "rl/workers.py:3: fastapi is imported outside serve/",
        "serve/app.py:1: ray is imported outside rl/workers.py serve/replicas.py",
        "text/chat.py:2: text imports model, which does not stand to its left",
        "train/loop.py:2: train imports rl, which does not stand to its left",
        "train/loop.py:3: ray is imported outside rl/workers.py serve/replicas.py",
    ]


def torch_free_modules() -> list[str]:
    """The modules that exist of the promised ones."""
    names = []
    for file in sorted(SOURCE.rglob("*.py")):
        parts = ["zaya", *file.relative_to(SOURCE).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        # "zaya" promises for itself alone, every other package for its modules too
        if name in TORCH_FREE or name.startswith(tuple(f"{package}." for package in TORCH_FREE if package != "zaya")):
            names.append(name)
    return names


def modules_after(code: str, *arguments: str) -> set[str]:
    """Top-level packages a fresh interpreter holds after running that code."""
    report = f"{code}\nimport sys; print('\\n' + ' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", report, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", torch_free_modules())
def test_torch_free_modules_leave_torch_alone(name: str):
    assert not modules_after(f"import {name}") & {"torch", "transformers"}


def test_the_promises_are_looked_for_where_they_are():
    assert {"zaya", "zaya.cli", "zaya.errors", "zaya.model.init"} <= set(torch_free_modules())
    assert "torch" in modules_after("import torch")


def test_help_loads_nothing_heavy():
    code = "import sys, zaya.cli\nassert zaya.cli.main(['--help']) == 0"
    heavy = {"torch", "numpy", "jinja2", "tokenizers", "transformers", "safetensors", "jaxtyping"}
    assert not modules_after(code) & heavy
