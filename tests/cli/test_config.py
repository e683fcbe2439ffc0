"""zaya config: the list of presets, and one preset as a document that can be read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from zaya.cli import main
from zaya.config import load
from zaya.model.config import PRESETS, ModelConfig, preset


def test_the_list_has_every_preset_and_the_published_sizes(capsys: pytest.CaptureFixture[str]):
    assert main(["config"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert set(PRESETS) < set(rows)
    assert rows["zaya1-8b"] == ["zaya1-8b", "40", "2048", "8.84", "B", "1.29", "B", "40,960"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_printed_preset_reads_back(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["config", name]) == 0
    file = tmp_path / "model.toml"
    file.write_text(capsys.readouterr().out)
    assert load(ModelConfig, file) == preset(name)


def test_overrides_change_the_preset(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["config", "micro", "num_layers=8", "sliding_layers=[1]", "sliding_window=16"]) == 0
    file = tmp_path / "model.toml"
    file.write_text(capsys.readouterr().out)
    assert load(ModelConfig, file) == preset("micro", num_layers=8, sliding_layers=(1,), sliding_window=16)


def test_every_setting_is_explained(capsys: pytest.CaptureFixture[str]):
    assert main(["config", "zaya1-8b"]) == 0
    out = capsys.readouterr().out
    assert "# Width of the residual stream.\nhidden_size = 2048\n" in out
    assert "# parameters: 8,840,488,784," in out


def test_unknown_presets_and_settings_are_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["config", "zaya2"]) == 2
    assert "no model preset is called 'zaya2'" in capsys.readouterr().err
    assert main(["config", "micro", "hidden=3"]) == 2
    assert capsys.readouterr().err == "error: unknown key 'hidden'\nhint: did you mean hidden_size?\n"
