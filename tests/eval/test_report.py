"""What records say, in numbers.

1. A summary has the values of paper: strict, lenient and what lies between, tokens, what was cut, what failed.
2. Points are one for every configuration, and for votes of samples; families have a system and a method in their name.
3. Accuracy by task and level is over the problems of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from zaya.envs.base import Status
from zaya.errors import UsageError
from zaya.eval.evaluation import Evaluation
from zaya.eval.metrics import Estimate
from zaya.eval.records import FORMAT, Record, RsaRecord
from zaya.eval.report import Tokens, by_task, percent, points, summarise

ROUNDS = {"population": 4, "fan_in": 4, "rounds": 2, "think_budget": 8192, "tail_tokens": 4096, "final_budget": 16384}


def evaluation(name: str, found: Sequence[Record | RsaRecord], **about: Any) -> Evaluation:
    known = {"records": "samples", "format": FORMAT, "num_problems": 3, "versions": {}, "max_tokens": 192}
    label = name.rpartition("/")[2]
    return Evaluation(
        label=label, name=name, system=label.partition("--")[0], paths=(Path(f"{name}.jsonl"),), about=known | about,
        records=found, tasks={record.digest: record.env for record in found},
    )  # fmt: skip


def sample(
    digest: str, number: int, correct: bool, tokens: int = 10, *, lenient: bool = False, finish: str = "stop",
    status: Status = Status.OK, env: str = "sums", difficulty: int = 0, answer: str | None = None,
) -> Record:  # fmt: skip
    return Record(
        digest=digest, env=env, sample=number, seed=0, correct=correct, reward=float(correct), status=status,
        finish=finish, tokens=tokens, answer=answer, lenient_correct=lenient, difficulty=difficulty,
    )  # fmt: skip


def run(digest: str, score: float | None, **changes: Any) -> RsaRecord:
    known = {
        "env": "sums", "run": 0, "seed": 0, "accuracy": (score,), "majority": None if score is None else score > 0.5,
        "answer": None, "left_out": 0, "tokens": 1000, "prompt_tokens": 0, "lenient_score": score, "truncated": 0.25,
    }  # fmt: skip
    return RsaRecord(digest=digest, score=score, **known | changes)


def test_a_summary_of_samples() -> None:
    records = [
        sample("a", 0, True, 10), sample("a", 1, False, 20, lenient=True), sample("a", 2, False, 30, finish="length"),
        sample("a", 3, True, 40), sample("b", 0, False, 60), sample("b", 1, True, 80),
        sample("b", 2, False, 999, status=Status.INFRA),
    ]  # fmt: skip
    found = summarise(evaluation("x", records))
    assert (found.accuracy.mean, found.lenient.mean, found.form) == (0.5, pytest.approx(5 / 8), pytest.approx(1 / 8))
    assert found.tokens == Tokens(mean=(25 + 70) / 2, p50=30, p90=80)
    assert found.truncated == pytest.approx(1 / 8)  # a quarter of one problem, nothing of the other
    assert {k: estimate.mean for k, estimate in found.passes.items()} == {1: 0.5, 2: pytest.approx((5 / 6 + 1) / 2)}
    assert (found.vote, found.left_out, found.missing) == (None, 1, 1)
    assert (found.method, found.setting) == ("one sample", "up to 192")
    with pytest.raises(UsageError, match=r"x.jsonl holds no value: every sample failed"):
        summarise(evaluation("x", records[-1:]))


def test_a_summary_of_runs() -> None:
    records = [run("a", 0.25, lenient_score=0.5), run("b", 0.75, tokens=2000), run("c", None)]
    found = summarise(evaluation("x", records, records="rsa", **ROUNDS))
    assert (found.accuracy.mean, found.lenient.mean, found.tokens.mean) == (0.5, 0.625, 1500)
    assert (found.truncated, found.passes, found.left_out) == (0.25, {}, 1)
    assert found.vote is not None
    assert (found.vote.mean, found.vote.num_problems) == (0.5, 2)


@pytest.mark.parametrize(
    ("changes", "method", "setting"),
    [
        ({}, "Markovian RSA, C 4, τ 4,096", "β 8,192, T 2"),
        ({"fan_in": 1}, "chains, C 1", "β 8,192, T 2"),
        ({"rounds": 0}, "parallel", "4 x 16,384"),
    ],
)
def test_methods(changes: dict[str, int], method: str, setting: str) -> None:
    one = evaluation("rl--deep", [run("a", 0.5)], records="rsa", **ROUNDS | changes)
    (point,) = points(one, summarise(one))
    assert (point.family, point.label, point.tokens) == (f"rl: {method}", setting, 1000)


def test_points_of_samples() -> None:
    """Of four samples two agree on the right answer: the vote of four has it."""
    answers = ["5", "5", "4", "3"]
    records = [sample("a", i, answer == "5", answer=answer) for i, answer in enumerate(answers)]
    one = evaluation("dir/rl", records)
    single, vote = points(one, summarise(one))
    assert (single.family, single.accuracy.mean, single.tokens) == ("dir/rl: one sample", 0.5, 10)
    assert (vote.family, vote.label, vote.accuracy.mean, vote.tokens) == ("dir/rl: vote", "of 4", 1, 40)
    fewer = evaluation("rl", [*records, sample("b", 0, True)])
    assert len(points(fewer, summarise(fewer))) == 1, "a problem with one sample has no vote of four"


def test_tasks_and_levels() -> None:
    records = [
        sample("a", 0, True, env="sums", difficulty=10), sample("b", 0, False, env="sums", difficulty=2),
        sample("b", 1, True, env="sums", difficulty=2), sample("c", 0, True, env="lists", difficulty=1),
        sample("d", 0, False, env="lists", difficulty=1, status=Status.INFRA),
    ]  # fmt: skip
    found = by_task(evaluation("x", records))
    assert [(*key, value.mean, value.num_problems) for key, value in found.items()] == [
        ("lists", None, 1, 1), ("lists", 1, 1, 1), ("sums", None, 0.75, 2), ("sums", 2, 0.5, 1), ("sums", 10, 1, 1),
    ]  # fmt: skip


def test_percent() -> None:
    estimate = Estimate(0.612, 0.0101, 0.0312, 120, 480)
    assert (percent(estimate), percent(estimate, "sampling")) == ("61.2 ±3.1", "61.2 ±1.0")
    assert percent(Estimate(0.7089, None, None, 1, 1)) == "70.9"
