"""What packed weights cost on the embedded model, and that the benchmark measures it rightly.

1. Divergence is what it is on paper.
2. FP8 and MXFP4 codes are the nearest that their scales allow, of two the even one.
3. What a format is said to cost is the format's: the compiled pass gives what the unpacked weights give.
4. On its own answers the embedded model moves by no more than what was measured, with room; more bits move it less.
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from benchmarks.bench_quality import (
    FORMATS,
    Divergence,
    Text,
    answers,
    chooser,
    divergence,
    fp8_of,
    logprobs,
    mxfp4_of,
    pack,
)
from tests.tolerances import assert_close
from zaya.engine.engine import Engine
from zaya.envs.base import Problem
from zaya.model.embedded import as_trained, embedded_directory
from zaya.model.layouts import load
from zaya.model.native import NativeModel
from zaya.model.transformer import ZayaModel
from zaya.ops.cpu import kernels
from zaya.ops.packed import Fp8Weight, Mxfp4Weight

PACKED = [format for format in FORMATS if format not in ("bf16", "float32")]


def test_divergence_on_paper() -> None:
    reference = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    found = divergence(reference, torch.tensor([[0.25, 0.75], [0.1, 0.9]]).log())
    each = [0.5 * math.log(2) + 0.5 * math.log(2 / 3), 0.8 * math.log(9)]
    assert_close(torch.tensor(found.mean), torch.tensor(sum(each) / 2))
    assert_close(torch.tensor(found.high), torch.tensor(each[0] + 0.99 * (each[1] - each[0])))
    assert found.changed == 1.0, "of the first both are likeliest, and the first of them counts"
    assert divergence(reference, reference) == Divergence(0.0, 0.0, 0.0)


def nearest(values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Of the values that codes 0, 1, 2, ... have, the nearest to each; of two the one of an even code."""
    distance = (values.unsqueeze(-1) - codes).abs()
    is_odd = torch.arange(len(codes)) % 2
    return codes[torch.where(distance == distance.amin(-1, keepdim=True), is_odd, 2).argmin(-1)]


def test_fp8_codes_are_the_nearest() -> None:
    dense = torch.randn(3, 16, 64)
    dense[0, 1], dense[1, 2] = 0, dense[1, 2] * 1e-4
    packed = fp8_of(dense)
    assert isinstance(packed, Fp8Weight)
    values = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    expected = nearest((dense / packed.scale.where(packed.scale > 0, 1)).abs(), values).copysign(dense)
    assert torch.equal(packed.dequantize(torch.float32), expected * packed.scale)
    assert_close(packed.dequantize(torch.float32).abs().amax(-1), dense.abs().amax(-1))


def test_mxfp4_codes_are_the_nearest() -> None:
    dense = torch.randn(3, 16, 64)
    dense[0, 1] = 0
    dense[1, 2] = torch.linspace(-8, 7.75, 64)  # quarters: every tie there is
    dense[2, 3] *= 1e-6
    packed = mxfp4_of(dense)
    assert isinstance(packed, Mxfp4Weight)
    blocks = dense.unflatten(-1, (-1, 32))
    top = blocks.abs().amax(-1, keepdim=True)
    scale = torch.where(top > 0, 2.0 ** (top.log2().floor() - 2), 1)
    magnitudes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    expected = nearest((blocks / scale).abs(), magnitudes).copysign(blocks) * scale
    assert torch.equal(packed.dequantize(torch.float32), expected.flatten(-2))


# ----- the embedded model


@cache
def given() -> tuple[tuple[Text, ...], tuple[int, ...], torch.Tensor]:
    """Answers of the float32 model, ids that have no token, and its log-probabilities."""
    model, tokenizer = load(embedded_directory(), dtype="float32")
    questions = ["What is 12 + 7?", "What is 45 - 18 + 3?", "Sort these numbers: 8 3 5 1", "What is 23 + 54 - 9?"]
    engine = Engine(model, tokenizer, max_batch=8)
    texts = tuple(answers(engine, [Problem("", as_trained(question), {}, 0, 0) for question in questions], 120))
    return texts, engine.never, logprobs(model, texts, engine.never, native=None)


def packed_model(format: str) -> ZayaModel:
    model, _ = load(embedded_directory(), dtype="bfloat16" if format == "bf16" else "float32")
    return pack(model, chooser(format))


@cache
def cost(format: str) -> Divergence:
    texts, never, reference = given()
    return divergence(reference, logprobs(packed_model(format), texts, never, native=None))


@pytest.mark.parametrize("format", ["float32", *PACKED])
@pytest.mark.parametrize("kv", ["model", "int8"])
def test_the_compiled_pass_costs_nothing_of_its_own(format: str, kv: str) -> None:
    model = packed_model(format)
    native = NativeModel.of(model)
    if native is None:
        pytest.skip("no kernels here")
    texts, never, _ = given()
    actual = logprobs(model, texts, never, kv, native=native)  # type: ignore[arg-type]
    with kernels.without_kernels():
        unpacked = logprobs(model, texts, never, kv, native=None)  # type: ignore[arg-type]
    assert_close(divergence(unpacked, actual).mean, 0.0, "divergence_kernels")


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_costs_more_than_measured(format: str) -> None:
    assert_close(cost(format).mean, 0.0, f"divergence_{format}")


def test_more_bits_cost_less() -> None:
    assert cost("float32").mean < 1e-9
    assert cost("int8").mean < cost("int4").mean / 3 < cost("int4-all").mean / 9
    assert cost("fp8-experts").mean < cost("mxfp4-experts").mean
    assert cost("bf16").mean < cost("int4").mean
