"""Results side by side.

1. A row says name, accuracy with its interval, and tokens; what could not be had is said below.
2. No line is longer than it may be.
3. The Markdown has the same cells.
"""

from __future__ import annotations

import pytest

from zaya.envs.base import Status
from zaya.errors import UsageError
from zaya.eval.metrics import Estimate
from zaya.eval.records import Record
from zaya.eval.report import Row, markdown, summarise, table


def record(digest: str, correct: bool, tokens: int, status: Status = Status.OK) -> Record:
    return Record(
        digest=digest, env="sum", sample=0, seed=0, correct=correct, reward=float(correct), status=status,
        finish="stop", tokens=tokens, answer=None,
    )  # fmt: skip


ROWS = [
    Row("single", Estimate(0.612, 0.0101, 0.0312, 120, 480), 1840.4),
    Row("rsa_16k_4k", Estimate(0.7089, None, None, 120, 120), 440_123.0, 2),
]

TABLE = """\
system        accuracy    tokens
single       61.2 ±3.1     1,840
rsa_16k_4k        70.9   440,123

Percent, ± the 95 % interval over new problems; 120 problems. Left out because
something failed: rsa_16k_4k 2.
"""


def test_table() -> None:
    assert table(ROWS) == TABLE
    assert "single       61.2 ±1.0     1,840\n" in table(ROWS, interval="sampling")
    assert "of sampling at these problems" in table(ROWS, interval="sampling")


@pytest.mark.parametrize("width", [80, 60, 40])
def test_width(width: int) -> None:
    text = table([*ROWS, Row("a name that is much longer than there is room for" * 2, *_rest(ROWS[0]))], width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "a name…" in text or "a name that" in text
    assert text.count("…") == 1


def _rest(row: Row) -> tuple[Estimate, float]:
    return row.accuracy, row.tokens


def test_markdown() -> None:
    lines = markdown([*ROWS, Row("a|b", *_rest(ROWS[0]))]).splitlines()
    assert lines[:5] == [
        "| system | accuracy | tokens |",
        "| --- | ---: | ---: |",
        "| single | 61.2 ±3.1 | 1,840 |",
        "| rsa_16k_4k | 70.9 | 440,123 |",
        "| a\\|b | 61.2 ±3.1 | 1,840 |",
    ]


def test_summary() -> None:
    records = [record("a", True, 10), record("a", False, 30), record("b", True, 99, Status.INFRA)]
    row = summarise("x", records)
    assert (row.accuracy.mean, row.accuracy.num_problems, row.tokens, row.left_out) == (0.5, 1, 20, 1)
    with pytest.raises(UsageError, match="no problem has a value"):
        summarise("x", records[2:])
