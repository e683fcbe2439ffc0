"""That the test run checks shapes: the checker of conftest.py must be able to say no."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError, install_import_hook

SOURCE = """
from __future__ import annotations
from typing import Protocol
from jaxtyping import Float, Int
from torch import Tensor

class Shift(Protocol):
    def by(self) -> float: ...

def scale(x: Float[Tensor, "tokens dim"], w: Float[Tensor, " dim"]) -> Float[Tensor, "tokens dim"]:
    return x * w

def wrong(x: Float[Tensor, "tokens dim"]) -> Float[Tensor, " tokens"]:
    return x

def halved(x: Float[Tensor, " dim"], by: float) -> Tensor:
    return x / by

def shifted(x: Float[Tensor, " dim"], shift: Shift | None = None) -> Tensor:
    return x if shift is None else x + shift.by()
"""


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "shape_check_sample.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    with install_import_hook("shape_check_sample", "tests.shape_check.check"):
        import shape_check_sample  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
    yield shape_check_sample
    del sys.modules["shape_check_sample"]


def test_what_fits_passes(sample: Any):
    assert sample.scale(torch.ones(3, 2), torch.ones(2)).shape == (3, 2)


def test_axes_of_one_name_have_one_size(sample: Any):
    with pytest.raises(TypeCheckError, match="scale"):
        sample.scale(torch.ones(3, 2), torch.ones(3))


def test_dtypes_and_ranks_are_checked(sample: Any):
    with pytest.raises(TypeCheckError):
        sample.scale(torch.ones(3, 2, dtype=torch.int64), torch.ones(2))
    with pytest.raises(TypeCheckError):
        sample.scale(torch.ones(3, 2, 1), torch.ones(2))


def test_results_are_checked(sample: Any):
    with pytest.raises(TypeCheckError):
        sample.wrong(torch.ones(3, 2))


def test_an_int_is_a_float(sample: Any):
    assert sample.halved(torch.ones(2), 2).tolist() == [0.5, 0.5]
    with pytest.raises(TypeCheckError):
        sample.halved(torch.ones(2), "2")


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_test_can_do_without(sample: Any):
    assert sample.wrong(torch.ones(3, 2)).shape == (3, 2)


def test_protocols_are_checked_by_their_methods(sample: Any):
    assert sample.shifted(torch.ones(2), None).shape == (2,)
    with pytest.raises(TypeCheckError):
        sample.shifted(torch.ones(2), "no shift")


def test_the_packages_of_the_model_are_checked():
    import zaya.engine.paged
    import zaya.model.config
    import zaya.ops.segments
    import zaya.rl.loss
    import zaya.train.muon

    def is_checked(module: ModuleType) -> bool:
        loader = module.__spec__.loader if module.__spec__ else None
        return type(loader).__module__.startswith("jaxtyping")

    checked = (zaya.ops.segments, zaya.model.config, zaya.train.muon, zaya.engine.paged, zaya.rl.loss)
    assert all(map(is_checked, checked))
    assert not is_checked(sys.modules["zaya.errors"])
