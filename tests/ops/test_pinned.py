"""What must not be rounded is not, whatever conversion is asked of the whole model."""

from __future__ import annotations

import pytest
import torch

from tests.parity.oracle import make_pair
from tests.parity.shapes import BASE
from zaya.model.transformer import ZayaModel
from zaya.ops.packed import Fp8Weight


@pytest.mark.parametrize("convert", ["bfloat16", "half", "double"])
def test_conversions_leave_balancing_biases_alone(convert: str) -> None:
    model = make_pair(BASE, seed=1)[1]
    before = [b.clone() for b in model.buffers()]
    getattr(model, convert)()
    assert model.embed.dtype != torch.float32
    for old, new in zip(before, model.buffers(), strict=True):
        assert new.dtype == torch.float32
        assert torch.equal(old, new)


def test_conversions_leave_codes_alone() -> None:
    codes, scale = torch.randn(2, 6, 8).to(torch.float8_e4m3fn), torch.rand(2, 6, 1)
    weight = Fp8Weight(codes, scale)
    weight.bfloat16()
    assert weight.codes.dtype == torch.float8_e4m3fn
    assert torch.equal(weight.scale, scale)


def test_a_model_without_values_can_get_room_for_them() -> None:
    model = ZayaModel(BASE, seed=None, device="meta")
    model.half()
    model.to_empty(device="cpu")
    assert {(b.device.type, b.dtype) for b in model.buffers()} == {("cpu", torch.float32)}
