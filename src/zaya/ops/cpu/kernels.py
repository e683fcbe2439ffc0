"""The compiled kernels: which of them this CPU runs, and their C structures mirrored.

`native/*.cpp` is compiled by the package's build: for AVX2, for AVX-512, and for AVX-512 with tile registers. A machine
without a compiler, or with another kind of processor, has none of them; then `library()` is None and callers take
their plain path. The environment variable ZAYA_KERNELS chooses: `off`, `avx2`, `avx512`, `amx`; anything else takes the
best there is.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_void_p, sizeof
from functools import cache
from pathlib import Path

from zaya.ops.path import use_reference

BUILDS = ("amx", "avx512", "avx2")
"""Best first."""

F32, BF16, INT8, INT4, FP8, MXFP4 = range(6)
"""How a matrix is stored (`Kind` in native/matrix.h)."""

GROUP = 32
"""A packed row is read in multiples of this."""


class Matrix(Structure):
    _fields_ = [
        ("data", c_void_p), ("scale", c_void_p), ("kind", c_int32), ("outer", c_int32), ("inner", c_int32),
        ("unused", c_int32),
    ]  # fmt: skip


class Merge(Structure):
    _fields_ = [(name, c_void_p) for name in ("branch_scale", "branch_bias", "residual_scale", "residual_bias")]


class Layer(Structure):
    _fields_ = [
        *((name, Matrix) for name in (
            "q", "k", "v_current", "v_delayed", "grouped", "o", "router_down", "fc1", "fc2", "classes")),
        ("gate_up", POINTER(Matrix)), ("down", POINTER(Matrix)),
        *((name, c_void_p) for name in (
            "attention_norm", "moe_norm", "router_norm", "depthwise", "depthwise_bias", "grouped_bias",
            "key_temperature", "router_down_bias", "state_scale", "fc1_bias", "fc2_bias", "balancing_bias")),
        ("attention_merge", Merge), ("moe_merge", Merge), ("window", c_int32), ("span", c_int32),
    ]  # fmt: skip


class Model(Structure):
    _fields_ = [
        *((name, c_int32) for name in (
            "layers", "dim", "heads", "kv_heads", "head_dim", "time0", "time1", "experts", "classes", "expert_size",
            "router_size", "vocab", "skip_passes_input")),
        ("half_rotary", c_int32 * 2), ("eps", c_float), ("layer", POINTER(Layer)), ("embed", Matrix),
        ("input_scale", c_void_p), ("input_bias", c_void_p), ("final_norm", c_void_p),
    ]  # fmt: skip


class Pass(Structure):
    _fields_ = [
        ("tokens", c_int32), ("segments", c_int32),
        *((name, c_void_p) for name in ("ids", "bounds", "starts", "slots", "table")),
        ("table_width", c_int32), ("page_size", c_int32),
        *((name, POINTER(c_void_p)) for name in ("keys", "values", "key_scales", "value_scales")),
        ("kv_kind", c_int32), ("num_slots", c_int32), ("columns", c_void_p), ("delayed", c_void_p),
        *((name, c_int32) for name in ("commit", "may_round", "num_rows")),
        ("cos", c_void_p * 2), ("sin", c_void_p * 2),
        *((name, c_void_p) for name in ("new_columns", "new_delayed", "routes", "forced", "rows", "logits", "scratch")),
        ("scratch_bytes", c_int64),
    ]  # fmt: skip


class Draws(Structure):
    _fields_ = [
        ("logits", c_void_p), ("rows", c_int32), ("vocab", c_int32),
        *((name, c_void_p) for name in ("points", "temperature", "top_k", "top_p", "min_p", "ids", "logprobs")),
    ]  # fmt: skip


_SIGNATURES = {
    "zaya_runs_here": (c_int, []),
    "zaya_sizes": (None, [POINTER(c_int64)]),
    "zaya_vector_width": (c_int, []),
    "zaya_has_tiles": (c_int, []),
    "zaya_linear_scratch": (c_int64, [c_int, c_int]),
    "zaya_linear": (None, [POINTER(Matrix), c_void_p, c_int, c_void_p, c_void_p, c_int]),
    "zaya_quantize": (None, [POINTER(Matrix), POINTER(Matrix), c_void_p, c_int]),
    "zaya_dequantize": (None, [POINTER(Matrix), c_int, c_int, c_void_p, c_int, c_int]),
    "zaya_draw": (None, [POINTER(Draws), c_int]),
    "zaya_log_sums": (None, [c_void_p, c_int, c_int, c_void_p, c_int]),
    "zaya_forward": (c_int64, [POINTER(Model), POINTER(Pass), c_int]),
}

_is_off = False


def library() -> ctypes.CDLL | None:
    """The kernels that run here; None where there are none, or the reference path is asked for."""
    return None if _is_off or use_reference() else _library(os.environ.get("ZAYA_KERNELS", ""))


@contextmanager
def without_kernels() -> Iterator[None]:
    """Run a block on the plain path. For the whole process, not a thread."""
    global _is_off
    before, _is_off = _is_off, True
    try:
        yield
    finally:
        _is_off = before


@cache
def _library(wanted: str) -> ctypes.CDLL | None:
    for build in BUILDS:
        if wanted in BUILDS and wanted != build:
            continue
        for path in sorted(Path(__file__).parent.glob(f"_{build}.*")):
            if wanted != "off" and (found := _open(path)) is not None:
                return found
    return None


def _open(path: Path) -> ctypes.CDLL | None:
    try:
        found = ctypes.CDLL(str(path))
    except OSError:  # built for another system
        return None
    if not all(hasattr(found, name) for name in _SIGNATURES):
        return None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    # what was built before the sources changed would read our structures wrongly
    mirrored = (Matrix, Layer, Model, Pass, Draws)
    sizes = (c_int64 * len(mirrored))()
    found.zaya_sizes(sizes)
    is_ours = list(sizes) == [sizeof(structure) for structure in mirrored]
    return found if is_ours and found.zaya_runs_here() else None
