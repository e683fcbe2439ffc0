"""The room needs neither torch nor transformers, and importing it loads no tokenizer or template engine."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import zaya.text

MODULES = [f"zaya.text.{module.name}" for module in pkgutil.iter_modules(zaya.text.__path__)]


def loaded_by(code):
    script = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_every_module_imports_without_heavy_libraries():
    loaded = loaded_by("import zaya.text, " + ", ".join(MODULES))
    assert not {"torch", "transformers", "numpy", "tokenizers", "jinja2"}.intersection(loaded)


def test_using_the_room_loads_no_torch():
    code = (
        "import zaya.text as t\n"
        "tokenizer = t.byte_tokenizer()\n"
        "ids = t.render(tokenizer, [{'role': 'user', 'content': 'x'}]).ids\n"
        "t.parse(tokenizer.decode(ids))"
    )
    assert not {"torch", "transformers"}.intersection(loaded_by(code))


@pytest.mark.parametrize("name", zaya.text.__all__)
def test_public_names_are_there(name):
    assert getattr(zaya.text, name) is not None
    assert name in dir(zaya.text)


def test_unknown_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'tokenise'"):
        _ = zaya.text.tokenise
