"""The checkpoint that comes with the package, and the recipe that made it.

1. Its manifest names the recipe under recipes/micro as it stands, and the weights as they are.
2. It is as small as was promised: at most 3.8 million parameters, and 8 MB of bfloat16.
3. It opens in transformers, with the logits that we compute.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from transformers import ZayaForCausalLM

import zaya
from tests.tolerances import assert_close
from zaya.core.tensorfile import read_header
from zaya.model.embedded import MANIFEST
from zaya.model.flops import parameters
from zaya.rl.cascade import open_cascade

MICRO = Path(zaya.__file__).parent / "micro"
RECIPE = Path(__file__).parents[1] / "recipes" / "micro" / "cascade.toml"

pytestmark = pytest.mark.skipif(not MICRO.is_dir(), reason="the package has no checkpoint yet")


def test_checkpoint_and_recipe_belong_together() -> None:
    about = json.loads((MICRO / MANIFEST).read_text(encoding="utf-8"))
    assert about["recipe"] == open_cascade(RECIPE).recipe_digest
    assert about["weights"] == hashlib.sha256((MICRO / "model.safetensors").read_bytes()).hexdigest()
    assert f"Recipe {about['recipe']}" in (MICRO / "README.md").read_text(encoding="utf-8")


def test_its_size() -> None:
    assert parameters(zaya.load(MICRO)[0].config).total <= 3_800_000
    assert (MICRO / "model.safetensors").stat().st_size <= 8_000_000
    stored = read_header(MICRO / "model.safetensors")
    assert {tensor.dtype for name, tensor in stored.items() if "balancing_bias" not in name} == {"BF16"}


def test_it_is_the_model_of_transformers() -> None:
    theirs = ZayaForCausalLM.from_pretrained(MICRO, dtype=torch.float32)
    # their default for experts has no float64
    wide = ZayaForCausalLM.from_pretrained(MICRO, dtype=torch.float32, experts_implementation="eager").double()
    model, tokenizer = zaya.load(MICRO, dtype="float32")
    assert tokenizer is not None
    for question in ("47 + 38 - 12", "9 + 99 - 12 + 44", "5 - 3", "47 + 38", "88 - 12 + 60"):
        ids = torch.tensor([tokenizer.encode(f"What is {question}?\nGive the answer in \\boxed{{}}.")])
        with torch.no_grad():
            logits = model(ids)
            assert_close(logits, theirs(ids, use_cache=False).logits, "float32_trained", question)
            assert_close(logits, wide(ids, use_cache=False).logits.float(), "float32_trained", question)
