"""What holds for every test: shapes are checked, randomness is fixed, nobody takes more than one core.

Shape annotations such as `Float[Tensor, "tokens dim"]` are plain annotations in the source. Here, and only here, every
function of the listed packages is called through a checker of its arguments and its result.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest
import torch
from jaxtyping import config, install_import_hook

from tests.shape_check import check

# Before the packages are imported, so at the top of the first file that pytest reads.
PACKAGES = ["zaya.ops", "zaya.model", "zaya.train", "zaya.engine", "zaya.rl"]
install_import_hook(PACKAGES, f"{check.__module__}.{check.__name__}")

torch.set_num_threads(1)

# derandomize: a run fails or passes by what it tests, not by the day.
hypothesis.settings.register_profile("zaya", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("zaya")


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """For tests of what the code itself answers to arguments of a wrong shape or type: here it is asked first."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
