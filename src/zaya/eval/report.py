"""What the records of an evaluation say, in numbers: a summary of each, and its points for accuracy against tokens.

A family is one system with one method, a point one of its configurations: such are the curves of the report's figure 9.

    one sample                      mean over samples
    vote                            majority of 4, 8 ... 64 of the same samples, each costing its tokens
    parallel, chains, Markovian RSA mean over the last candidates; no rounds, fan-in 1, a larger fan-in

Drawn by `eval.figure`, written by `eval.page`. Source: spec post-training 12, markovian-rsa 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from zaya.errors import UsageError
from zaya.eval.evaluation import Evaluation
from zaya.eval.metrics import Estimate, avg_at_k, majority_at_k, pass_curve, percentile
from zaya.eval.records import Record, RsaRecord, Scored, by_problem

Interval = Literal["problems", "sampling"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Generated for one value: a sample, or a whole run of Markovian RSA."""

    mean: float
    """Over problems, of the mean of each."""
    p50: float
    p90: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One evaluation."""

    name: str
    method: str
    """How tokens were spent, such as `one sample`."""
    setting: str
    """The configuration within the method."""
    accuracy: Estimate
    lenient: Estimate
    """The same where an answer counts wherever it stands. What it is above the accuracy is a matter of form."""
    tokens: Tokens
    truncated: float
    """Share of answers that the budget ended."""
    passes: Mapping[int, Estimate]
    """pass@k by k; of samples alone, since the candidates of a run are relatives."""
    vote: Estimate | None
    """Of runs: what the vote of the last candidates would tell a user."""
    left_out: int
    """Values that could not be had."""
    missing: int
    """Problems without a record."""

    @property
    def form(self) -> float:
        """What lenient extraction adds."""
        return self.lenient.mean - self.accuracy.mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One configuration in the figure."""

    family: str
    label: str
    accuracy: Estimate
    tokens: float


def summarise(evaluation: Evaluation) -> Summary:
    """The numbers of one evaluation. Raises UsageError where none of its records counts."""
    records = evaluation.records
    counted = [record for record in records if record.value is not None]
    if not counted:
        raise UsageError(
            f"{evaluation.where} holds no value: every sample failed", hint="evaluate again, or leave it out"
        )
    values = by_problem(counted)
    method, setting = _method(evaluation)
    tokens = [float(record.tokens) for record in counted]
    votes = _grouped(
        (r.digest, float(r.majority)) for r in counted if isinstance(r, RsaRecord) and r.majority is not None
    )
    return Summary(
        name=evaluation.name,
        method=method,
        setting=setting,
        accuracy=avg_at_k(values),
        lenient=avg_at_k(_grouped((r.digest, r.lenient_value) for r in counted)),
        tokens=Tokens(_mean_of_means(counted, tokens), percentile(tokens, 0.5), percentile(tokens, 0.9)),
        truncated=avg_at_k(_grouped((r.digest, r.truncated) for r in counted)).mean,
        passes={} if evaluation.is_rsa else pass_curve(values),
        vote=avg_at_k(votes) if votes else None,
        left_out=len(records) - len(counted),
        missing=evaluation.missing,
    )


def points(evaluation: Evaluation, summary: Summary) -> list[Point]:
    """The configurations that one file of records measures: itself, and of samples also their votes."""
    folders = evaluation.name.removesuffix(evaluation.label)
    system = f"{folders}{evaluation.system}"
    own = Point(
        family=f"{system}: {summary.method}",
        label=summary.setting,
        accuracy=summary.accuracy,
        tokens=summary.tokens.mean,
    )
    if evaluation.is_rsa:
        return [own]
    by_digest: dict[str, list[Record]] = {}
    for record in evaluation.records:
        if isinstance(record, Record) and record.value is not None:
            by_digest.setdefault(record.digest, []).append(record)
    fewest = min(map(len, by_digest.values()))
    votes = [
        Point(
            family=f"{system}: vote",
            label=f"of {k}",
            accuracy=avg_at_k(
                {
                    d: [majority_at_k([r.answer for r in some], [r.correct for r in some], k)]
                    for d, some in by_digest.items()
                }
            ),
            tokens=k * summary.tokens.mean,
        )
        for k in (4, 8, 16, 32, 64)
        if k <= fewest
    ]
    return [own, *votes]


def by_task(evaluation: Evaluation) -> dict[tuple[str, int | None], Estimate]:
    """Accuracy of each task as a whole (None), then of each level of it."""
    groups: dict[tuple[str, int | None], list[Scored]] = {}
    for record in evaluation.records:
        if record.value is not None:
            task = evaluation.tasks[record.digest]
            groups.setdefault((task, None), []).append(record)
            groups.setdefault((task, record.difficulty), []).append(record)
    order = sorted(groups, key=lambda key: (key[0], -1 if key[1] is None else key[1]))
    return {key: avg_at_k(by_problem(groups[key])) for key in order}


def percent(estimate: Estimate, interval: Interval = "problems") -> str:
    """Such as `61.2 ±3.1`, in percent; without the interval where there is none."""
    half = estimate.problems if interval == "problems" else estimate.sampling
    return f"{100 * estimate.mean:.1f}" + ("" if half is None else f" ±{100 * half:.1f}")


def _method(evaluation: Evaluation) -> tuple[str, str]:
    about = evaluation.about
    if not evaluation.is_rsa:
        return "one sample", f"up to {_count(about['max_tokens'])}"
    budget = f"β {_count(about['think_budget'])}"
    if about["rounds"] == 0:
        return "parallel", f"{_count(about['population'])} x {_count(about['final_budget'])}"
    rounds = f"{budget}, T {about['rounds']}"
    if about["fan_in"] == 1:
        return "chains, C 1", rounds
    return f"Markovian RSA, C {about['fan_in']}, τ {_count(about['tail_tokens'])}", rounds


def _count(setting: int | tuple[int, ...]) -> str:
    """A setting, or all its values where tasks have different ones."""
    return " or ".join(f"{value:,}" for value in (setting if isinstance(setting, tuple) else (setting,)))


def _grouped(values: Iterable[tuple[str, float | None]]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for digest, value in values:
        if value is not None:
            groups.setdefault(digest, []).append(value)
    return groups


def _mean_of_means(records: Sequence[Scored], values: Sequence[float]) -> float:
    groups = _grouped((record.digest, value) for record, value in zip(records, values, strict=True))
    return mean(map(mean, groups.values()))
