"""The `report` policy: bfloat16 weights and activations, float32 where the report asks for it (section IV-D)."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.parity.oracle import make_pair
from tests.parity.shapes import BASE, SHAPES
from zaya.model.cache import DenseCache
from zaya.model.config import preset
from zaya.model.transformer import Want, ZayaModel


class Allocations(TorchDispatchMode):
    """Records the largest float32 tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32:
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return out


def report_and_float32(name: str) -> tuple[ZayaModel, ZayaModel]:
    """One set of weights, representable in bfloat16, under both policies."""
    exact = make_pair(SHAPES[name], seed=7)[1]
    exact.set_precision("report")
    exact.set_precision("float32")
    report = ZayaModel(exact.config, precision="report", seed=None)
    report.load_state_dict(exact.state_dict())
    return report, exact


def test_dtypes() -> None:
    model = ZayaModel(BASE)
    assert model.precision == "report"
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in model.buffers()} == {torch.float32}
    seen: dict[str, torch.dtype] = {}
    block = model.blocks[1]
    block.register_forward_hook(lambda _, inputs, out: seen.update(stream=inputs[0].dtype, out=out[0].dtype))
    block.moe.register_forward_hook(lambda _, inputs, out: seen.update(moe=inputs[0].dtype, weight=out[1].weight.dtype))
    cache = DenseCache(BASE)
    with torch.no_grad():
        out = model(torch.ones(1, 4, dtype=torch.long), cache=cache, want=Want(hidden=True))
    assert out.logits is not None
    assert out.hidden is not None
    assert seen == {"stream": torch.float32, "out": torch.float32, "moe": torch.bfloat16, "weight": torch.float32}
    assert (out.logits.dtype, out.hidden.dtype) == (torch.float32, torch.bfloat16)
    assert cache.keys_values(0, 0)[0].dtype == torch.bfloat16
    assert cache.snapshot(0).columns.dtype == torch.float32


def test_report_stays_near_float32() -> None:
    """bfloat16 has 8 bits; the same routes, so that a near tie does not hide behind an average."""
    for name in ("two_kv_heads", "alternating", "one_kv_head"):
        report, exact = report_and_float32(name)
        ids = torch.randint(1, 97, (2, 24), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = exact(ids, want=Want(routes=True))
            logits = report(ids, routes=expected.routes)
        assert expected.logits is not None
        error = (logits - expected.logits).square().mean() / expected.logits.square().mean()
        assert error < 1e-3, f"{name}: {error}"


def test_head_makes_no_float32_copy_of_its_weights() -> None:
    config = preset("micro", vocab_size=65_536, hidden_size=256)
    model = ZayaModel(config)
    ids = torch.ones(1, 4, dtype=torch.long)
    with Allocations() as seen:
        model(ids).sum().backward()
    copy = model.embed.numel() * 4
    assert 0 < seen.largest <= copy / 8
