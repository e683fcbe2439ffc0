"""The same model on an accelerator: what the CPU computes, the accelerator computes. CUDA and ROCm alike."""

from __future__ import annotations

import pytest
import torch

from tests.parity.oracle import make_pair
from tests.parity.shapes import SHAPES
from tests.tolerances import assert_close
from zaya.model.cache import DenseCache
from zaya.model.config import preset
from zaya.model.transformer import ZayaModel
from zaya.ops import experts as experts_module

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")]


@pytest.mark.parametrize("name", SHAPES)
def test_float32(name: str) -> None:
    model = make_pair(SHAPES[name], seed=31)[1]
    ids = torch.randint(1, 97, (2, 15), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(ids)
        model.cuda()
        cache = DenseCache(model.config, 2, device="cuda")
        actual = torch.cat([model(part, cache=cache) for part in ids.cuda().split(4, dim=1)], dim=1)
        assert_close(model(ids.cuda()).cpu(), expected, "accelerator")
        assert_close(actual.cpu(), expected, "accelerator")


def test_grouped_product_is_used_and_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ZayaModel(preset("tiny")).cuda()
    ids = torch.randint(3, 8000, (2, 64)).cuda()
    calls = []
    grouped = experts_module._rows_grouped
    monkeypatch.setattr(experts_module, "_rows_grouped", lambda *x: calls.append(1) or grouped(*x))
    logits = model(ids)
    assert len(calls) == model.config.num_layers
    logits.square().mean().backward()
    weight = model.blocks[0].moe.experts.gate_up
    gradient = torch.clone(weight.grad)
    model.zero_grad()
    monkeypatch.setattr(experts_module, "_can_group", lambda *_: False)
    again = model(ids)
    again.square().mean().backward()
    assert_close(logits, again, "accelerator_bfloat16")
    assert_close(gradient, weight.grad, "accelerator_bfloat16")
