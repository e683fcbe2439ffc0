"""The README's Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zaya.model.config import preset
from zaya.model.transformer import ZayaModel
from zaya.text import byte_tokenizer

README = Path(__file__).parent.parent / "README.md"


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ZayaModel(preset("micro")).save("DIR")
    byte_tokenizer().save("DIR")
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["logits"].shape == (1, names["ids"].shape[1], 2048)
    assert len(names["answers"]) == 8
    assert (tmp_path / "tiny" / "model.safetensors").exists()
