"""The catalogue that is shipped.

1. It was made by the audit of this version: what it says of an environment is what that says of itself.
2. At least 400 environments are in the default mix, none of reasoning-core; each begins at its lowest level.
3. The page of the documentation is made of it.
4. Environments of every family still pass what they passed.
5. reasoning-core, an extra of its own, is listed whole: what was found of it, and that nothing counts it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from zaya.envs import reasoning_core, registry
from zaya.envs.audit import AuditConfig, audit
from zaya.envs.catalogue import catalogue, default_mix, left_out, reference_page
from zaya.envs.pool import TaskPool

ROOT = Path(__file__).parents[2]
SAMPLE = ("arithmetic", "rlve/Sorting", "rlve/CountdownEqual", "rlve/KnightsAndKnaves", "reasoning-gym/chain_sum",
          "reasoning-gym/n_queens", "math/quadratic", "instruct/keywords.existence")  # fmt: skip


def test_it_says_what_environments_say() -> None:
    for name, row in catalogue().items():
        environment = registry.get(name)
        about = environment.about
        assert (row["version"], row["category"], row["license"], row["lowest"], row["highest"], row["choices"]) == (
            environment.version, about.category, about.license, about.lowest, about.highest, about.choices
        ), name  # fmt: skip


def test_the_default_mix() -> None:
    mix = default_mix()
    assert len(mix) >= 400
    assert not [name for name in mix if name.startswith("reasoning-core/")]
    for name, task in mix.items():
        assert task.env == name
        assert task.difficulties == (registry.get(name).about.lowest,)
        assert task.weight == (0.5 if registry.get(name).about.choices == 2 else 1)


def test_the_page_is_made_of_it() -> None:
    page = (ROOT / "docs/reference/environments.md").read_text("utf-8")
    assert page == reference_page(list(catalogue().values()))


@pytest.mark.skipif(
    None in map(importlib.util.find_spec, ("Gym", "reasoning_gym", "if_verifiable")), reason="needs the extra envs"
)
def test_a_sample_still_passes() -> None:
    with TaskPool(sample_timeout_s=60, score_timeout_s=60) as pool, TaskPool(sample_timeout_s=60) as other:
        for name in SAMPLE:
            assert audit(name, pool, other, AuditConfig(items=12)).failures == [], name


def test_what_is_apart_is_listed_and_not_counted() -> None:
    rows = [row for name, row in catalogue().items() if name.startswith("reasoning-core/")]
    assert [row["env"] for row in rows] == list(reasoning_core.names())
    assert {left_out(row) for row in rows if row["passed"]} == {"an extra of its own"}
    assert all(row["failures"][0] in left_out(row) for row in rows if not row["passed"])
    page = reference_page([{**catalogue()["arithmetic"], "env": name} for name in ("arithmetic", "reasoning-core/x")])
    assert "1 of 1 environments pass" in page
    assert "Of 1 more, `reasoning-core/`, with an extra of that name, 1 pass." in page
