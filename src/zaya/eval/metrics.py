"""Accuracy with its uncertainty, from values in [0, 1] by problem.

A value is one sample that is right or wrong, or one whole run of Markovian RSA with the mean over its candidates: those
share ancestors, so the run is the unit. Two questions, two intervals, both of 95 %:

- sampling: would the same problems, sampled again, give the same?
- problems: would other problems of the kind? It is the wider one, and the one that a claim about a system needs.

The second sees the noise of the first in what varies between problems, so they are not to be added. Source: spec
post-training 12.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import mean, variance

from zaya.errors import UsageError
from zaya.ttc.vote import Equivalent, clusters

Values = Mapping[str, Sequence[float]]
"""The values of each problem, by its digest. A problem without any is left out of every mean."""

_Z = 1.96
"""Standard errors on either side of a mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems, and how far off it may be."""

    mean: float
    sampling: float | None
    """Half the 95 % interval at these problems; None where no problem has two values."""
    problems: float | None
    """Half the 95 % interval over new problems; None where there is one problem."""
    num_problems: int
    num_values: int


def avg_at_k(values: Values) -> Estimate:
    """Mean over problems of the mean of their values: avg@k, the accuracy of a single sample.

    sampling: SE² = 1/M² Σ s²ᵢ/kᵢ, which for right and wrong is 1/M² Σ pᵢ(1 - pᵢ)/(k - 1).
    problems: SE² = Var(pᵢ)/M. Raises UsageError where there are no values.
    """
    means = {digest: mean(given) for digest, given in values.items() if given}
    if not means:
        raise UsageError("there is nothing to average: no problem has a value")
    sampling = _sampling_variance(values)
    return Estimate(
        mean=mean(means.values()),
        sampling=None if sampling is None else _Z * math.sqrt(sampling),
        problems=_half_width(means.values()),
        num_problems=len(means),
        num_values=sum(len(given) for given in values.values()),
    )


def paired_difference(a: Values, b: Values) -> Estimate:
    """By how much the first of two systems is better on the same problems.

    Pairing takes out what the problems have in common, mostly their difficulty, and so tells systems apart that their
    own intervals do not. Raises UsageError where the problems are not the same.
    """
    if a.keys() != b.keys():
        raise UsageError(
            f"the two systems were not asked the same problems: {len(a.keys() - b.keys())} of the first and "
            f"{len(b.keys() - a.keys())} of the second are not among the other's"
        )
    both = [digest for digest in a if a[digest] and b[digest]]
    if not both:
        raise UsageError("there is nothing to compare: no problem has a value from both")
    differences = [mean(a[digest]) - mean(b[digest]) for digest in both]
    parts = [_sampling_variance({digest: side[digest] for digest in both}) for side in (a, b)]
    known = [part for part in parts if part is not None]
    return Estimate(
        mean=mean(differences),
        sampling=_Z * math.sqrt(sum(known)) if len(known) == 2 else None,
        problems=_half_width(differences),
        num_problems=len(both),
        num_values=sum(len(side[digest]) for side in (a, b) for digest in both),
    )


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Probability that at least one of k samples is right, without bias, from more samples of one problem.

    It says what a perfect judge could reach, not what a system answers. Raises UsageError for more than there are.
    """
    _check_k(k, num_samples)
    return 1 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def pass_curve(values: Values) -> dict[int, Estimate]:
    """pass@k of samples that are right (1) or wrong (0), for k = 1, 2, 4 ..., with the interval over new problems.

    k goes as far as every problem has samples, so that all of them are means over the same problems.
    """
    given = [some for some in values.values() if some]
    fewest = min(map(len, given), default=0)
    powers = [1 << i for i in range(fewest.bit_length())]
    return {
        k: avg_at_k({str(i): [pass_at_k(len(some), round(sum(some)), k)] for i, some in enumerate(given)})
        for k in powers
    }


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value, exact: how often a fair coin would be at least as far from even. Ties say nothing."""
    number, fewer = wins + losses, min(wins, losses)
    if wins == losses:
        return 1.0
    return float(Fraction(2 * sum(math.comb(number, i) for i in range(fewer + 1)), 2**number))


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that at least this share of them do not exceed. Raises UsageError where there is none."""
    if not values:
        raise UsageError("there is no percentile of nothing")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def majority_at_k(
    answers: Sequence[str | None], correct: Sequence[bool], k: int, equivalent: Equivalent | None = None
) -> float:
    """Probability that the majority of k of these samples of one problem is right.

    Exact: every subset of k counts once, by its numbers of picks from each cluster of answers. Of clusters that tie
    each wins equally often, as the earliest of samples in random order does. A cluster is right as far as its members
    are. Samples without an answer are picked and do not vote; where none votes, nothing is right.
    """
    _check_k(k, len(answers))
    members = clusters(answers, equivalent)
    sizes = [len(cluster) for cluster in members]
    silent = len(answers) - sum(sizes)
    won = Fraction(0)
    for own, cluster in enumerate(members):
        right = Fraction(sum(correct[i] for i in cluster), len(cluster))
        others = sizes[:own] + sizes[own + 1 :]
        for votes in range(1, min(k, sizes[own]) + 1) if right else ():
            ways = math.comb(sizes[own], votes)
            for ties, number in enumerate(_losing_picks(others, silent, k - votes, votes)):
                won += right * ways * number / (1 + ties)
    return float(won / math.comb(len(answers), k))


def _losing_picks(sizes: Sequence[int], silent: int, picks: int, votes: int) -> list[int]:
    """Ways to pick so many samples with at most `votes` from each cluster, by how many clusters reach that."""
    ways = {(0, 0): 1}  # (picked, ties)
    for size in sizes:
        grown: dict[tuple[int, int], int] = {}
        for (picked, ties), number in ways.items():
            for more in range(min(size, votes, picks - picked) + 1):
                key = (picked + more, ties + (more == votes))
                grown[key] = grown.get(key, 0) + number * math.comb(size, more)
        ways = grown
    by_ties = [0] * (len(sizes) + 1)
    for (picked, ties), number in ways.items():
        by_ties[ties] += number * math.comb(silent, picks - picked)
    return by_ties


def _sampling_variance(values: Values) -> float | None:
    """Square of the standard error of the mean over these problems. One with a single value counts as spread out as
    the others are on average; None where all have."""
    given = [some for some in values.values() if some]
    spreads = [variance(some) if len(some) > 1 else None for some in given]
    known = [spread for spread in spreads if spread is not None]
    if not known:
        return None
    typical = mean(known)
    parts = ((typical if s is None else s) / len(some) for s, some in zip(spreads, given, strict=True))
    return sum(parts) / len(given) ** 2


def _half_width(means: Iterable[float]) -> float | None:
    means = list(means)
    return _Z * math.sqrt(variance(means) / len(means)) if len(means) > 1 else None


def _check_k(k: int, num_samples: int) -> None:
    if not 1 <= k <= num_samples:
        raise UsageError(f"k must be between 1 and the number of samples: {k}, {num_samples}")
