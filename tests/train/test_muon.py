"""Muon's direction, within the bands that spec pretraining 3.2 and 13.4 give for it.

1. Singular values of Gaussian matrices end near 1, in float32 and in bfloat16; the vectors are those of the input.
2. A step scaled by `rms_scale` has a root mean square of 0.15 to 0.21, whatever the shape.
3. A stack is its matrices one by one, tall ones are wide ones transposed (and iterated so), and the size of the input
   does not matter.
4. The iteration is the quintic of the paper.
"""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from tests.tolerances import assert_close
from zaya.train.muon import newton_schulz, orthogonalize, rms_scale


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def singular_values(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svdvals(x.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(3))
def test_singular_values(dtype: torch.dtype, seed: int) -> None:
    def iterate(x: torch.Tensor) -> torch.Tensor:
        return singular_values(newton_schulz((x / x.norm()).to(dtype)[None])[0])

    wide = iterate(gaussian(64, 128, seed=seed))
    assert wide.min() > 0.6
    assert wide.max() < 1.25
    square = iterate(gaussian(128, 128, seed=seed))
    assert square.max() < 1.25
    assert square.quantile(0.05) > 0.6


@pytest.mark.parametrize("shape", [(64, 128), (128, 64), (256, 32), (16, 512), (128, 128)])
def test_root_mean_square_of_a_step(shape: tuple[int, int]) -> None:
    step = orthogonalize(gaussian(1, *shape)) * rms_scale(*shape)
    assert 0.15 < step.square().mean().sqrt() < 0.21


def test_direction_of_known_singular_vectors() -> None:
    """Of U diag(s) V' only s changes, each by the same scalar iteration, here computed on its own."""
    u, _ = torch.linalg.qr(gaussian(20, 4).double())
    v, _ = torch.linalg.qr(gaussian(30, 4, seed=1).double())
    s = torch.tensor([1.0, 0.5, 0.1, 0.01]).double()
    expected = s / s.norm()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    assert_close(orthogonalize(((u * s) @ v.T).float()[None])[0].double(), (u * expected) @ v.T)


def test_a_stack_is_its_matrices() -> None:
    stack = gaussian(5, 24, 40)
    together = orthogonalize(stack)
    for i in range(5):
        assert_close(together[i], orthogonalize(stack[i : i + 1])[0])
    assert_close(orthogonalize(stack.mT), together.mT)


@pytest.mark.parametrize("shape", [(1, 96, 32), (1, 32, 96)])
def test_the_smaller_gram_matrix_is_used(shape: tuple[int, ...]) -> None:
    with mock.patch.object(torch, "baddbmm", wraps=torch.baddbmm) as product:
        newton_schulz(gaussian(*shape))
    assert {tuple(call.args[0].shape) for call in product.call_args_list} == {(1, 32, 32), (1, 32, 96)}


def test_the_size_of_a_gradient_does_not_matter() -> None:
    x = gaussian(1, 16, 32)
    for factor in (1e-12, 1e12):
        assert_close(orthogonalize(x * factor), orthogonalize(x))
    assert_close(orthogonalize(torch.cat([x, torch.zeros_like(x)]))[1], torch.zeros(16, 32))
