"""Sampling and benchmarks by name: how the report samples what, and what the data of each benchmark look like.

A recipe names a sampling preset, `sampling = "report_math"`, or a task's benchmark, which brings one along with the
number of samples, the kind of its problems and the fields of its usual data. Source: spec post-training 12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zaya.engine.types import SamplingParams
from zaya.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How tokens are drawn."""

    temperature: float = 1.0
    """0 takes the likeliest token; 1 samples the model's own distribution."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together have this probability."""
    top_k: int | None = None
    """Keep this many of the likeliest tokens; none keeps all."""

    def __post_init__(self) -> None:
        self.params(1)

    def params(self, max_tokens: int) -> SamplingParams:
        """The same for responses of at most so many tokens."""
        return SamplingParams(
            max_tokens=max_tokens, temperature=self.temperature, top_p=self.top_p, top_k=self.top_k
        )  # fmt: skip


SAMPLING: Mapping[str, SamplingConfig] = {
    "model": SamplingConfig(),
    "greedy": SamplingConfig(temperature=0.0),
    "report_math": SamplingConfig(temperature=1.0, top_p=0.95),
    "report_knowledge": SamplingConfig(temperature=1.0, top_p=0.95),
    "report_code": SamplingConfig(temperature=0.6, top_p=0.95, top_k=20),
    "report_tools": SamplingConfig(temperature=0.6, top_p=0.95, top_k=20),
}
"""`model` is the model's own distribution, `greedy` its likeliest tokens; the report's are by what is asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A public benchmark."""

    title: str
    kind: str
    """Of its problems, as in `envs.files.kinds`."""
    sampling: str
    """Name of a preset."""
    k: int
    """Samples of each problem: the report's avg@k."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Where its data have what the kind reads, where that is not the usual place."""


BENCHMARKS: Mapping[str, Benchmark] = {
    "aime": Benchmark(title="AIME 2024, 2025, 2026", kind="math", sampling="report_math", k=64),
    "hmmt": Benchmark(title="HMMT February 2025, 2026", kind="math", sampling="report_math", k=64),
    "imo_answer": Benchmark(
        title="IMO-AnswerBench", kind="math", sampling="report_math", k=64,
        fields={"prompt": "Problem", "answer": "Short Answer", "category": "Category"},
    ),
    "apex": Benchmark(title="APEX shortlist", kind="math", sampling="report_math", k=64),
    "livecodebench": Benchmark(
        title="LiveCodeBench v6", kind="code", sampling="report_code", k=16, fields={"category": "difficulty"}
    ),
    "gpqa": Benchmark(
        title="GPQA-Diamond", kind="choice", sampling="report_knowledge", k=16,
        fields={
            "prompt": "Question", "answer": "Correct Answer", "category": "High-level domain",
            "wrong": "Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3",
        },
    ),
    "mmlu_pro": Benchmark(
        title="MMLU-Pro", kind="choice", sampling="report_knowledge", k=1, fields={"category": "category"}
    ),
    "ifeval": Benchmark(title="IFEval", kind="instruct", sampling="report_knowledge", k=1),
    "ifbench": Benchmark(title="IFBench", kind="instruct", sampling="report_knowledge", k=1),
    "bfcl": Benchmark(
        title="BFCL v4, single turn", kind="tools", sampling="report_tools", k=1, fields={"category": "category"}
    ),
}  # fmt: skip
"""By name. The fields are those of the data as they are published; a recipe may name others."""


def sampling(given: str | SamplingConfig, key: str = "sampling") -> SamplingConfig:
    """A preset by name, or what is given itself. Raises ConfigError where there is none."""
    if isinstance(given, SamplingConfig):
        return given
    if given not in SAMPLING:
        raise ConfigError(f"{key} = {given!r} does not exist", hint=did_you_mean(given, SAMPLING))
    return SAMPLING[given]


def listing() -> list[list[str]]:
    """Head and cells of a table of everything that has a name."""
    rows = [["benchmark", "what", "kind", "samples", "sampling"]]
    rows += [[name, b.title, b.kind, str(b.k), b.sampling] for name, b in BENCHMARKS.items()]
    return rows


def sampling_listing() -> list[list[str]]:
    """The same of sampling."""
    rows = [["sampling", "temperature", "top-p", "top-k"]]
    rows += [
        [name, f"{s.temperature:g}", f"{s.top_p:g}", "off" if s.top_k is None else str(s.top_k)]
        for name, s in SAMPLING.items()
    ]
    return rows
