"""Ways to spend tokens on a problem, beside each other.

1. The rows are one sample, the vote of as many samples as there are rollouts, each round, and the vote at the end.
   Gains are over one sample.
2. Several forms of Markovian RSA stand below each other under their names; votes of equally many samples are one row.
3. A problem of which something is not known is left out of what needs it.
4. A form is a preset with changes; what is not there is said.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from tests.eval.making import records, rsa
from zaya.config import from_mapping
from zaya.envs.base import Status
from zaya.errors import ConfigError
from zaya.eval.records import Record
from zaya.eval.thinking import TtcConfig, thinking_rows
from zaya.ttc.rsa import PRESETS, RsaConfig

SMALL = RsaConfig(population=3, fan_in=2, rounds=1, think_budget=60, tail_tokens=30, final_budget=90, answer_reserve=30)


def first(samples: list[Record], k: int) -> list[Record]:
    return [sample for sample in samples if sample.sample < k]


# 1


def test_rows() -> None:
    """Population 3, one round more: 6 rollouts. Of problem a 4 samples in 8 are right, of b 6."""
    samples = records("a 1 0 1 0 1 0 1 0", "b 1 1 1 1 1 1 0 0")
    runs = [rsa("a", [0.0, 1 / 3], False), rsa("b", [1.0, 1.0], True)]
    rows = thinking_rows(first(samples, 2), samples, {"small": runs}, {"small": SMALL})
    assert [row.name for row in rows] == [
        "one sample", "vote of 6 samples", "Markovian RSA, 1 round", "its vote at the end",
    ]  # fmt: skip
    one, vote, reached, told = rows
    each = sum(r.tokens for r in samples) / 16
    assert (one.accuracy.mean, one.tokens, one.gain) == (0.75, each, None)  # of the first two samples: 1/2 and 1

    def majority(values: str) -> float:
        """By every subset of six, a draw being right half of the time."""
        subsets = list(combinations([value == "1" for value in values.split()], 6))
        return sum((2 * sum(s) > 6) + 0.5 * (2 * sum(s) == 6) for s in subsets) / len(subsets)

    expected = [majority("1 0 1 0 1 0 1 0"), majority("1 1 1 1 1 1 0 0")]
    assert vote.accuracy.mean == pytest.approx(sum(expected) / 2)
    assert vote.gain is not None
    assert vote.gain.mean == pytest.approx((expected[0] - 0.5 + expected[1] - 1) / 2)
    assert vote.tokens == 6 * each
    assert reached.accuracy.mean == pytest.approx(2 / 3)
    assert reached.gain is not None
    assert reached.gain.mean == pytest.approx((1 / 3 - 1 / 2 + 0) / 2)
    assert (reached.tokens, told.tokens) == (300, 300)
    assert told.accuracy.mean == 0.5
    assert told.gain is not None
    assert told.gain.mean == pytest.approx(-0.25)


def test_several_rounds_and_runs() -> None:
    runs = [rsa("a", [0.0, 0.5, 1.0], True), replace(rsa("a", [0.0, 0.0, 0.5], False), run=1)]
    samples = records("a 1 0")
    rows = thinking_rows(samples, samples, {"x": runs}, {"x": replace(SMALL, rounds=2)})
    assert [row.name for row in rows[2:4]] == ["Markovian RSA, 1 round", "Markovian RSA, 2 rounds"]
    assert [row.accuracy.mean for row in rows[2:]] == [0.25, 0.75, 0.5]
    assert rows[2].tokens is None  # what a round takes alone is not written down
    assert rows[3].tokens == 300
    alone = thinking_rows(samples, samples, {"x": [rsa("a", [0.5], True)]}, {"x": replace(SMALL, rounds=0)})
    assert [(row.name, row.accuracy.mean, row.tokens) for row in alone[2:]] == [
        ("Markovian RSA, no rounds", 0.5, 300), ("its vote at the end", 1, 300),
    ]  # fmt: skip


# 2


def test_several_forms() -> None:
    samples = records("a 1 0 1 0 1 1 1 1", "b 0 0 0 0 0 0 0 0")
    forms = {"one": SMALL, "chain": replace(SMALL, fan_in=1), "wide": replace(SMALL, population=4)}
    runs = {name: [rsa("a", [0.0, value], True), rsa("b", [0.0, 0.0], False)] for name, value in
            zip(forms, (1 / 3, 2 / 3, 1.0), strict=True)}  # fmt: skip
    rows = thinking_rows(samples, samples, runs, forms)
    assert [row.name for row in rows] == [
        "one sample", "vote of 6 samples", "vote of 8 samples",
        "Markovian RSA one, 1 round", "Markovian RSA one, its vote at the end",
        "Markovian RSA chain, 1 round", "Markovian RSA chain, its vote at the end",
        "Markovian RSA wide, 1 round", "Markovian RSA wide, its vote at the end",
    ]  # fmt: skip
    assert [row.accuracy.mean for row in rows[3::2]] == pytest.approx([1 / 6, 1 / 3, 1 / 2])


# 3


def test_what_is_not_known_is_left_out() -> None:
    samples = records("a 1 0 1", "b 1 1 0") + records("c 0 0 0", status=Status.INFRA)
    runs = [rsa("a", [0.0, 1.0], True), rsa("b", [1.0, None], None), rsa("c", [1.0, 0.5], True)]
    one, vote, reached, told = thinking_rows(samples, samples, {"x": runs}, {"x": SMALL})
    assert [row.accuracy.num_problems for row in (one, vote, reached, told)] == [2, 2, 2, 2]
    assert [row.gain.num_problems for row in (vote, reached, told) if row.gain] == [2, 1, 1]
    assert reached.gain is not None
    assert reached.gain.mean == pytest.approx(1 / 3)


# 4


def test_a_form_is_a_preset_with_changes() -> None:
    form = from_mapping(TtcConfig, {"preset": "micro", "rsa": {"population": 4, "compaction": "full", "top_p": 0.9}})
    assert form.config == replace(PRESETS["micro"], population=4, compaction="full", top_p=0.9)
    assert from_mapping(TtcConfig, {}).config == RsaConfig()


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"preset": "mikro"}, "no RSA preset 'mikro'"),
        ({"rsa": {"populatoin": 3}}, "unknown key 'populatoin'"),
        ({"preset": "micro", "rsa": {"fan_in": 99}}, "fan_in must be between 1 and population: 99, 8"),
        ({"runs": 0}, "runs must be at least 1: 0"),
    ],
)
def test_a_form_that_cannot_be(tree: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        from_mapping(TtcConfig, tree)
