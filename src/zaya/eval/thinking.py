"""Ways to spend tokens on a problem, beside each other: one sample, a vote, Markovian RSA in any number of forms.

    [ttc.wide]             a table of the recipe for each form
    preset = "rsa_16k_4k"
    [ttc.wide.rsa]         what of the preset is changed
    population = 32

The score of a run is the mean over its last candidates, never the best of them; it is one value, since candidates share
ancestors. Each form is set against a vote of as many samples as it has rollouts. Source: spec markovian-rsa 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from zaya.config import from_mapping
from zaya.errors import ConfigError, did_you_mean
from zaya.eval.metrics import Estimate, avg_at_k, majority_at_k, paired_difference
from zaya.eval.records import Record, RsaRecord, by_problem
from zaya.ttc.rsa import PRESETS, RsaConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TtcConfig:
    """One form of Markovian RSA, and who thinks by it."""

    of: str | None = None
    """The system; none takes the last one of the recipe."""
    preset: str | None = None
    """A configuration by name; none takes the defaults."""
    rsa: dict[str, int | float | str] = field(default_factory=dict)
    """What of it is changed, as in population = 8."""
    runs: int = 1
    """Runs on each problem."""

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in PRESETS:
            raise ConfigError(f"there is no RSA preset {self.preset!r}", hint=did_you_mean(self.preset, PRESETS))
        if self.runs < 1:
            raise ConfigError(f"runs must be at least 1: {self.runs}")
        _ = self.config

    @property
    def config(self) -> RsaConfig:
        """The whole configuration."""
        return from_mapping(RsaConfig, self.rsa, base=None if self.preset is None else PRESETS[self.preset])


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkingRow:
    """One way to spend tokens on a problem."""

    name: str
    accuracy: Estimate
    tokens: float | None
    """Drawn for one problem, on average; None where nobody counted."""
    gain: Estimate | None = None
    """Over one sample, paired."""


Values = Mapping[str, Sequence[float]]


def thinking_rows(
    counted: Sequence[Record],
    samples: Sequence[Record],
    runs: Mapping[str, Sequence[RsaRecord]],
    forms: Mapping[str, RsaConfig],
) -> list[ThinkingRow]:
    """The rows of one system: `counted` are the samples of its accuracy, `samples` all there are to vote, `runs` those
    of each form. All of them are of the same problems."""
    single = by_problem(counted)
    each = fmean(record.tokens for record in samples)
    rows = [ThinkingRow(name="one sample", accuracy=avg_at_k(single), tokens=each)]
    for votes in dict.fromkeys(form.generations for form in forms.values()):
        voted = _votes(samples, single, votes)
        rows.append(_row(f"vote of {votes} samples", voted, votes * each, single))
    for name, form in forms.items():
        title = f"Markovian RSA {name}" if len(forms) > 1 else "Markovian RSA"
        tokens = fmean(record.tokens for record in runs[name])
        for round in range(1, form.rounds + 1):
            reached: dict[str, list[float]] = {digest: [] for digest in single}
            for record in runs[name]:
                if record.score is not None and (value := record.accuracy[round]) is not None:
                    reached[record.digest].append(value)
            rounds = f"{title}, {round} round{'s' if round > 1 else ''}"
            rows.append(_row(rounds, reached, tokens if round == form.rounds else None, single))
        if not form.rounds:
            rows.append(_row(f"{title}, no rounds", by_problem(runs[name]), tokens, single))
        told: dict[str, list[float]] = {digest: [] for digest in single}
        for record in runs[name]:
            if record.majority is not None:
                told[record.digest].append(float(record.majority))
        end = f"{title}, its vote at the end" if len(forms) > 1 else "its vote at the end"
        rows.append(_row(end, told, tokens, single))
    return rows


def _votes(samples: Sequence[Record], single: Values, votes: int) -> dict[str, list[float]]:
    """For each problem how often the majority of so many of its samples is right."""
    grouped: dict[str, list[Record]] = {digest: [] for digest in single}  # also those that nothing is known of
    for record in samples:
        if record.value is not None:
            grouped[record.digest].append(record)
    return {
        digest: [majority_at_k([r.answer for r in found], [r.correct for r in found], min(votes, len(found)))]
        if found
        else []
        for digest, found in grouped.items()
    }


def _row(name: str, values: Values, tokens: float | None, single: Values) -> ThinkingRow:
    gain = paired_difference(values, single)
    return ThinkingRow(name=name, accuracy=avg_at_k(values), tokens=tokens, gain=gain)
