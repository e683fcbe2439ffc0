"""A checkpoint's life at the command line: made by transformers, read, converted there and back, asked for text.

Commands run as a user runs them, in processes of their own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import ZayaForCausalLM

from tests.parity.oracle import make_pair
from tests.parity.shapes import BASE, SHAPES
from tests.tolerances import assert_close
from zaya import __file__ as package
from zaya import load
from zaya.model.config import ModelConfig
from zaya.model.layouts import load_model, save
from zaya.ops.packed import StackedParts
from zaya.text import byte_tokenizer

MICRO = Path(package).parent / "micro"
IDS = torch.randint(1, 97, (2, 13), generator=torch.Generator().manual_seed(0))


def zaya(*args: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zaya", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def from_transformers(directory: Path, config: ModelConfig, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Save a randomised transformers model; the logits that transformers gives for it."""
    theirs, _ = make_pair(config, seed=21)
    for layer in theirs.model.layers:
        layer.mlp.gate.balancing_biases[0] = 0.03  # so that the skip class cannot win, as in every published model
    theirs.to(dtype).save_pretrained(directory)
    # read again, because `to` has rounded their rotary frequencies as well
    theirs = ZayaForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        return theirs(IDS, use_cache=False).logits


@pytest.mark.parametrize("name", ["two_kv_heads", "one_kv_head", "three_kv_heads", "alternating", "conv_2_4"])
def test_there_and_back(name: str, tmp_path: Path) -> None:
    native, legacy, back = tmp_path / "native", tmp_path / "legacy", tmp_path / "back"
    expected = from_transformers(native, SHAPES[name])
    with torch.no_grad():
        assert_close(load(native, dtype="float32")[0](IDS), expected, what="native")
        if name != "conv_2_4":
            zaya("convert", native, legacy, "--layout", "legacy")
            assert_close(load(legacy, dtype="float32")[0](IDS), expected, what="legacy")
            zaya("convert", legacy, back, "--layout", "native", "--max-shard-size", "20KB")
            assert len(list(back.glob("*.safetensors"))) > 2
            assert_close(load(back, dtype="float32")[0](IDS), expected, what="back")
            reopened = ZayaForCausalLM.from_pretrained(back, dtype=torch.float32)
            assert_close(reopened(IDS, use_cache=False).logits, expected, what="transformers, reading what we wrote")


def test_bfloat16_is_used_where_it_lies(tmp_path: Path) -> None:
    """Values are exactly those of the file, and what they compute is near what transformers computes in float32."""
    native, legacy = tmp_path / "native", tmp_path / "legacy"
    expected = from_transformers(native, BASE, torch.bfloat16)
    zaya("convert", native, legacy, "--layout", "legacy")
    with torch.no_grad():
        for directory in (native, legacy):
            exact = load_model(directory, dtype="float32")
            assert_close(exact(IDS), expected, what=directory.name)
            report = load_model(directory)
            assert report.precision == "report"
            assert report.embed.dtype == torch.bfloat16
    assert isinstance(load_model(legacy).blocks[0].moe.experts.gate_up, StackedParts)


def test_a_legacy_model_converts_as_any_other(tmp_path: Path) -> None:
    """Its experts lie apart in the file; asked for another type they follow."""
    from_transformers(tmp_path / "native", BASE, torch.bfloat16)
    zaya("convert", tmp_path / "native", tmp_path / "legacy", "--layout", "legacy")
    with torch.no_grad():
        expected = load_model(tmp_path / "native", dtype="float32")(IDS)
        model = load_model(tmp_path / "legacy")
        model.set_precision("float32")
        assert_close(model(IDS), expected)
        assert_close(load_model(tmp_path / "legacy").float()(IDS), expected)
        half = load_model(tmp_path / "legacy", dtype="float32").bfloat16()
        assert torch.equal(half(IDS), load_model(tmp_path / "legacy")(IDS))


def test_training_a_loaded_model_leaves_its_files_alone(tmp_path: Path) -> None:
    from_transformers(tmp_path / "native", BASE)
    files = {file: file.read_bytes() for file in (tmp_path / "native").iterdir()}
    model = load_model(tmp_path / "native", dtype="float32", quantize="none")
    before = model(IDS).detach()
    model(IDS).square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert (model(IDS) - before).abs().max() > 1e-3
    assert all(file.read_bytes() == data for file, data in files.items())


def test_save_is_a_method(tmp_path: Path) -> None:
    model = make_pair(BASE, seed=4)[1]
    model.save(tmp_path / "native")
    with torch.no_grad():
        assert_close(load_model(tmp_path / "native", dtype="float32")(IDS), model(IDS))


def test_generate_in_both_layouts(tmp_path: Path) -> None:
    config = ModelConfig(
        vocab_size=300, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, num_experts=4,
        expert_size=16, router_size=16,
    )  # fmt: skip
    save(make_pair(config, seed=3)[1], tmp_path / "native")
    byte_tokenizer().save(tmp_path / "native")
    (tmp_path / "native" / "additional_chat_templates").mkdir()
    (tmp_path / "native" / "additional_chat_templates" / "tool_use.jinja").write_text("{{ bos_token }}")
    zaya("convert", tmp_path / "native", tmp_path / "legacy", "--layout", "legacy")
    assert (tmp_path / "legacy" / "additional_chat_templates" / "tool_use.jinja").read_text() == "{{ bos_token }}"
    assert (tmp_path / "legacy" / "tokenizer.json").exists()
    options = ("--max-tokens", "12", "--dtype", "float32", "--seed", "5")
    for form in ((), ("--raw",), ("--no-thinking", "--system", "Be brief.")):
        texts = [
            zaya("generate", tmp_path / layout, "Hi", *options, *form).stdout.strip() for layout in ("native", "legacy")
        ]
        assert texts[0] == texts[1]
        assert texts[0]
    done = zaya("generate", tmp_path / "native", "2 40 41", "--ids", *options)
    assert all(0 <= int(word) < 300 for word in done.stdout.split())
    assert "3 prompt tokens" in done.stderr


def test_generate_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    from_transformers(tmp_path / "native", BASE)
    done = zaya("generate", tmp_path / "native", "Hi", code=2)
    assert "has no tokenizer files" in done.stderr
    assert "--ids" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "MODEL", "x y", "--ids"], "--ids takes numbers"),
        (["generate", "MODEL", "", "--ids"], "the prompt is empty"),
        (["generate", "MODEL", "400", "--ids"], "not from 0 to 96: 400"),
        (["generate", "MODEL", "1", "--ids", "--max-tokens", "0"], "at least 1: 0"),
        (["generate", "MODEL", "1", "--ids", "--temperature", "-1"], "temperature must not be negative"),
        (["generate", "MODEL", "1", "--ids", "--device", "warp"], "no device is called 'warp'"),
        (["generate", "nowhere", "Hi"], "there is no nowhere"),
        (["inspect", "nowhere"], "there is no nowhere"),
        (["convert", "MODEL", "MODEL", "--layout", "legacy"], "MODEL"),
    ],
)
def test_what_is_wrong_is_said_in_one_error(words: list[str], message: str, tmp_path: Path) -> None:
    from_transformers(tmp_path / "MODEL", BASE)
    done = zaya(*[str(tmp_path / w) if w == "MODEL" else w for w in words], code=2)
    assert message in done.stderr
    assert done.stderr.startswith("error: ")


def test_inspect_as_json(tmp_path: Path) -> None:
    from_transformers(tmp_path / "native", BASE)
    about = json.loads(zaya("inspect", tmp_path / "native", "--json").stdout)
    assert about["layout"] == "native"


@pytest.mark.skipif(not (MICRO / "model.safetensors").is_file(), reason="the embedded model is not there")
def test_quickstart() -> None:
    done = zaya("quickstart", "--problems", "2")
    assert len(re.findall("^  .*: (right|wrong)", done.stdout, re.MULTILINE)) == 3
    assert "Markovian RSA, 2 rounds" in done.stdout
    assert "What next:" in done.stdout
