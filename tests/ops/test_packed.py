"""int8 and int4 weights in tiles.

1. Packing loses what it must and not more: half a step of the scale; int4 less than with the largest value as scale.
2. The compiled packing gives the plain one's codes, but for ties; unpacking is the same to the bit.
3. A product by the kernels is the product with the unpacked weight and the vector rounded to 8 bits, for every form,
   every number of rows, and AVX-512 as AVX2.
4. Zeros, huge and tiny values, and rows of one value survive.
5. Rows of an embedding are rows of the unpacked weight; one matrix of a stack is that matrix.
6. Shapes without whole tiles are refused, with the numbers.
"""

from __future__ import annotations

import pytest
import torch

from tests.tolerances import assert_close
from zaya.errors import UsageError
from zaya.ops.cpu import kernels
from zaya.ops.cpu.matrix import pack, product, unpacked
from zaya.ops.linear import embedding, linear
from zaya.ops.packed import Fp8Weight, Int4Weight, Int8Weight, Mxfp4Weight, PackedWeight, TiledWeight

FORMS = [Int8Weight, Int4Weight]


@pytest.fixture(params=kernels.BUILDS)
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ZAYA_KERNELS", request.param)
    if kernels.library() is None:
        pytest.skip(f"no kernels for {request.param} here")
    return request.param


def draw(outer: int = 48, inner: int = 96) -> torch.Tensor:
    dense = torch.randn(outer, inner)
    dense[3] *= 1e-6
    dense[5] = 0
    dense[7, 40] = 30.0
    dense[9] = -0.25
    return dense


def packed_weights() -> dict[str, PackedWeight]:
    dense = draw()
    return {
        "int8": Int8Weight.of(dense),
        "int4": Int4Weight.of(dense),
        "fp8": Fp8Weight(dense.to(torch.float8_e4m3fn), torch.rand(48, 1) + 0.5),
        "mxfp4": Mxfp4Weight(
            torch.randint(256, (48, 48), dtype=torch.uint8), torch.randint(120, 130, (48, 3), dtype=torch.uint8)
        ),
    }


def rounded(x: torch.Tensor) -> torch.Tensor:
    """A vector as the codes of int8 and int4 meet it: 8 bits and a scale for every 32 values."""
    groups = x.unflatten(-1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 127
    codes = (groups / scale.where(scale > 0, 1)).round()
    return (codes * scale).flatten(-2)


def test_int8_loses_at_most_half_a_step() -> None:
    dense = draw()
    error = (Int8Weight.of(dense).dequantize(torch.float32) - dense).abs()
    assert (error <= dense.abs().amax(-1, keepdim=True) / 127 * 0.5001).all()
    assert error[5].max() == 0


def test_int4_is_better_than_the_plain_scale() -> None:
    dense = torch.randn(64, 256)
    groups = dense.unflatten(-1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 7
    plain = ((groups / scale).round() * scale).flatten(-2)
    error = (Int4Weight.of(dense).dequantize(torch.float32) - dense).norm()
    assert error < 0.9 * (plain - dense).norm()
    assert error < 0.085 * dense.norm()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_packing_is_the_plain_one(build: str, form: type[TiledWeight], dtype: torch.dtype) -> None:
    dense = draw().to(dtype)
    plain = form.of(dense)
    packed, error = pack(dense, form)
    assert packed.shape == dense.shape
    values, expected = packed.dequantize(torch.float32), plain.dequantize(torch.float32)
    assert ((values - expected).abs() > 1e-6 * expected.abs()).float().mean() < 0.002
    lost = (values - dense.float()).norm() / dense.float().norm()
    assert error == pytest.approx(float(lost), rel=1e-4)
    for wanted in (torch.float32, torch.bfloat16):
        found = unpacked(packed, wanted)
        assert found is not None
        assert torch.equal(found, packed.dequantize(wanted))


@pytest.mark.parametrize("name", ["int8", "int4", "fp8", "mxfp4"])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
def test_products(build: str, name: str, rows: int) -> None:
    weight = packed_weights()[name]
    x = torch.randn(rows, 96)
    x[0, 10] = 50.0
    x[-1, 32:64] = 0
    found = product(x, weight)
    assert found is not None
    met = rounded(x) if name.startswith("int") else x
    expected = met.double() @ weight.dequantize(torch.float32).double().T
    assert_close(found.double(), expected, "products")
    assert torch.equal(found, torch.cat([product(row[None], weight) for row in x]))
    assert torch.equal(linear(x, weight), found)
    rounded_x, bias = x.bfloat16(), torch.randn(48)
    with_bias = linear(rounded_x, weight, bias, out_dtype=torch.float32)
    assert torch.equal(with_bias, linear(rounded_x, weight, out_dtype=torch.float32) + bias)


@pytest.mark.parametrize("name", ["int8", "int4", "fp8", "mxfp4"])
def test_unpacking_by_the_kernels(build: str, name: str) -> None:
    weight = packed_weights()[name]
    for dtype in (torch.float32, torch.bfloat16):
        found = unpacked(weight, dtype)
        assert found is not None
        assert torch.equal(found, weight.dequantize(dtype))


@pytest.mark.parametrize("form", FORMS)
def test_the_plain_path_is_complete(form: type[TiledWeight]) -> None:
    dense, x = draw(), torch.randn(3, 96, requires_grad=True)
    with kernels.without_kernels():
        packed, _ = pack(dense, form)
        assert_close(linear(x, packed), x @ packed.dequantize(torch.float32).T)
    linear(x, packed).sum().backward()  # with a gradient the weight is unpacked, kernels or not
    assert x.grad is not None
    assert_close(x.grad, packed.dequantize(torch.float32).sum(0).expand(3, -1))


@pytest.mark.parametrize("form", FORMS)
def test_rows_and_parts(form: type[TiledWeight]) -> None:
    dense = draw()
    packed = form.of(dense)
    ids = torch.tensor([0, 47, 16, 15, 7, 7])
    assert torch.equal(embedding(ids, packed, torch.float32), packed.dequantize(torch.float32)[ids])
    stack = form(torch.stack([packed.data, form.of(-dense).data]))
    assert stack.shape == (2, 48, 96)
    assert torch.equal(stack[1].dequantize(torch.float32), stack.dequantize(torch.float32)[1])
    assert stack.nbytes == 2 * packed.nbytes == stack.data.numel()


def test_sizes() -> None:
    assert Int8Weight.of(draw()).nbytes == 48 * 96 + 48 * 4
    assert Int4Weight.of(draw()).nbytes * 8 == 4.5 * 48 * 96


@pytest.mark.parametrize("form", FORMS)
def test_shapes_without_whole_tiles(form: type[TiledWeight]) -> None:
    for shape in ((40, 96), (48, 80)):
        with pytest.raises(UsageError, match=f"{shape[0]} x {shape[1]}"):
            pack(torch.randn(shape), form)
