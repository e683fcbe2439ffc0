"""How far two computations of the same thing may lie apart, and why: the only place where such numbers stand.

A failing comparison is explained before a number here changes.
"""

from __future__ import annotations

from typing import Any

import torch

TOLERANCES: dict[str, tuple[float, float]] = {
    # name: (rtol, atol)
    # float32 against another float32 implementation, or against ourselves by another route: the same operations in
    # another order, a few layers deep.
    "float32": (1e-5, 1e-5),
    # Logits of a trained model, which reach 20: one near 0 is the difference of such sums. On five prompts ours, theirs
    # in float32 and theirs in float64 are up to 2.7e-5 apart, and ours is as near to float64 as theirs.
    "float32_trained": (1e-5, 5e-5),
    # Gradients of shapes drawn at random: a residual stream of 8 channels makes norms that amplify rounding. Worst
    # seen in 800 draws: 1.5e-5, on a gradient whose largest element is 1.9.
    "float32_random_gradient": (1e-5, 5e-5),
    # float64 in another order of additions.
    "float64": (1e-12, 1e-14),
    # A float32 loss of a few nats against float64, and its gradients, whose elements are at most about 1e-2: the bounds
    # of spec pretraining 13.9.
    "loss": (0.0, 1e-6),
    "loss_gradient": (0.0, 1e-7),
    # float64 against the same rounded to bfloat16 at the end: half of its last of 8 bits, and what float32 adds.
    "rounded_to_bfloat16": (2**-8, 1e-6),
    # A product of 96 numbers in float32, some of them fifty times the others, against float64.
    "products": (1e-5, 1e-4),
    # Log-probabilities with keys and values in a byte each: they are off by up to half of 1/127 of the largest number
    # of a head, and random models of 8 channels a head amplify it. Worst seen over the shapes of the tests: 0.12.
    "int8_kv": (0.0, 0.2),
    # Kullback-Leibler divergence in nats, the mean over 265 tokens of the embedded model: three to four times what each
    # format was seen to cost. The kernels' own is of vectors in 8 bits: at most 6e-4; a vector in a wrong form costs 5.
    "divergence_kernels": (0.0, 2e-3),
    "divergence_float32": (0.0, 1e-7),
    "divergence_bf16": (0.0, 4e-4),
    "divergence_int8": (0.0, 8e-4),
    "divergence_int4": (0.0, 4e-3),
    "divergence_int4-all": (0.0, 3e-2),
    "divergence_fp8-experts": (0.0, 3e-4),
    "divergence_mxfp4-experts": (0.0, 3e-2),
    # float32 on an accelerator against the CPU: other kernels, other orders of addition.
    "accelerator": (1e-4, 1e-4),
    # bfloat16 by two kernels: each result is rounded to 8 bits.
    "accelerator_bfloat16": (2e-2, 2e-2),
}


def assert_close(actual: Any, expected: Any, tolerance: str = "float32", what: str = "") -> None:
    rtol, atol = TOLERANCES[tolerance]
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, msg=lambda m: f"{what}: {m}")
