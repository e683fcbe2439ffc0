"""The settings of Markovian RSA: how many rollouts, how long, what they see of each other; and the report's presets.

Three settings are methods of their own: `rounds` 0 is plain parallel sampling, `fan_in` 1 continues every chain by
itself, `compaction` "full" (or `tail_tokens` = `think_budget`) hands on whole chains. Source: report as in spec
markovian-rsa 2 to 4; what the report leaves open is marked in the spec, and is a setting here. Used by everything that
thinks in rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from zaya.engine.types import SamplingParams
from zaya.errors import ConfigError, UsageError, did_you_mean
from zaya.ttc.tails import Compaction

Subset = Literal["uniform", "balanced"]
Order = Literal["random", "index", "frequency"]
Cut = Literal["truncate", "force_close"]
Continuation = Literal["prompt", "prefill"]
Barrier = Literal["early", "full", "quorum"]

_ROOM = 4096
"""Tokens of an aggregation prompt that are not tails: the trained regime is 20,480 with 4 tails of 4,096 (spec 3.3)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RsaConfig:
    """How many rollouts, how long, and what they see of each other."""

    population: int = 16
    """Rollouts of a round."""
    fan_in: int = 4
    """Tails that an aggregation prompt shows; with 1 every rollout continues its own."""
    rounds: int = 2
    """Rounds of aggregation. Rollouts are sampled one round more often: the first sees the question alone."""
    think_budget: int = 16_384
    """Tokens of a rollout in every round but the last. It is cut there, mid-thought or not."""
    tail_tokens: int = 4096
    """Tokens of a rollout that the next round may see."""
    final_budget: int = 40_960
    """Tokens of a rollout in the last round, reasoning and answer."""
    answer_reserve: int = 2048
    """Those of them that are kept for the answer: reasoning that has not ended before them is closed."""
    compaction: Compaction = "tail"
    """What of a rollout is handed on (`ttc.tails`)."""
    subset: Subset = "uniform"
    """How tails are drawn for a prompt: at random, or so that all are shown equally often."""
    order: Order = "random"
    """Their order in the prompt: at random, that of the workers, or those first that most prompts of the round show,
    so that prompts share more of their beginning."""
    cut: Cut = "truncate"
    """What happens to reasoning at `think_budget`: it ends there, or is closed and an answer of `answer_reserve` tokens
    at most follows."""
    continuation: Continuation = "prompt"
    """With `fan_in` 1: a chain goes on in a new prompt that shows its tail, or inside its own reasoning, behind the
    question, the `head_tokens` of its beginning and the tail (Delethink, arXiv 2510.06557)."""
    head_tokens: int = 0
    """Tokens from the beginning of a chain that go on standing before its tail, with `continuation` "prefill"."""
    barrier: Barrier = "early"
    """When a prompt may start: as soon as the tails it shows are there, which changes no result; when the whole round
    before is over; or when `quorum` of it is, showing what is there by then."""
    quorum: float = 0.75
    """Part of a round that must be over, with `barrier` "quorum". What nobody can show any more is then given up."""
    temperature: float = 1.0
    """Of all rounds. The report uses 1."""
    top_p: float = 1.0
    """Of all rounds. The report uses 1; a small model may need less to not run away."""
    top_k: int | None = None
    """Of all rounds; none keeps all tokens."""
    min_p: float = 0.0
    """Of all rounds; 0 keeps all tokens."""
    final_workers: int | None = None
    """Rollouts of the last round; none for as many as in the others."""
    final_temperature: float | None = None
    """Of the last round; none for that of all."""
    final_top_p: float | None = None
    """Of the last round; none for that of all."""
    final_top_k: int | None = None
    """Of the last round; none for that of all."""

    def __post_init__(self) -> None:
        for name in ("population", "think_budget", "answer_reserve"):
            if getattr(self, name) < 1:
                raise ConfigError(f"rsa.{name} must be at least 1: {getattr(self, name)}")
        if self.rounds < 0:
            raise ConfigError(f"rsa.rounds must not be negative: {self.rounds}")
        if not 1 <= self.fan_in <= self.population:
            raise ConfigError(
                f"rsa.fan_in must be between 1 and population: {self.fan_in}, {self.population}",
                hint="a prompt shows as many rollouts of the round before at most as there are",
            )
        if not 1 <= self.tail_tokens <= self.think_budget:
            raise ConfigError(
                f"rsa.tail_tokens must be between 1 and think_budget: {self.tail_tokens}, {self.think_budget}",
                hint="half of think_budget or less is usual",
            )
        if self.answer_reserve >= self.final_budget:
            raise ConfigError(
                f"rsa.answer_reserve must be below final_budget: {self.answer_reserve}, {self.final_budget}"
            )
        if self.final_workers is not None and not 1 <= self.final_workers <= self.population:
            raise ConfigError(
                f"rsa.final_workers must be between 1 and population: {self.final_workers}, {self.population}"
            )
        if not 0 < self.quorum <= 1:
            raise ConfigError(f"rsa.quorum must be above 0 and at most 1: {self.quorum}")
        choices = {
            "compaction": Compaction, "subset": Subset, "order": Order, "cut": Cut, "continuation": Continuation,
            "barrier": Barrier,
        }  # fmt: skip
        for name, known in choices.items():
            if (value := getattr(self, name)) not in get_args(known):
                raise ConfigError(f"rsa.{name} = {value!r} does not exist", hint=did_you_mean(value, get_args(known)))
        self._check_prefill()
        for round in (0, self.rounds):
            self.params(round)

    def _check_prefill(self) -> None:
        if self.head_tokens < 0:
            raise ConfigError(f"rsa.head_tokens must not be negative: {self.head_tokens}")
        if self.continuation == "prompt":
            if self.head_tokens:
                raise ConfigError(
                    f"rsa.head_tokens needs continuation = 'prefill': {self.head_tokens}",
                    hint="a prompt shows tails alone",
                )
            return
        if self.fan_in != 1 or self.compaction not in ("tail", "full"):
            raise ConfigError(
                f"rsa.continuation = 'prefill' goes on with one chain's reasoning: fan_in {self.fan_in}, compaction "
                f"{self.compaction!r}",
                hint="set fan_in = 1 and compaction = 'tail'",
            )
        if self.carried + self.head_tokens >= self.think_budget:
            raise ConfigError(
                "rsa.tail_tokens and head_tokens leave nothing of think_budget to write: "
                f"{self.carried} + {self.head_tokens}, {self.think_budget}"
            )

    def params(self, round: int) -> SamplingParams:
        """How a rollout of a round is drawn."""
        thinking, tokens = None, self.think_budget
        temperature, top_p, top_k = self.temperature, self.top_p, self.top_k
        if round == self.rounds:
            thinking, tokens = self.final_budget - self.answer_reserve, self.final_budget
            temperature = temperature if self.final_temperature is None else self.final_temperature
            top_p = top_p if self.final_top_p is None else self.final_top_p
            top_k = self.final_top_k or top_k
        elif self.cut == "force_close":
            thinking, tokens = self.think_budget, self.think_budget + self.answer_reserve
        elif self.continuation == "prefill" and round:
            tokens -= self.carried + self.head_tokens  # the context of a chunk is that of the first one
        return SamplingParams(
            max_tokens=tokens, think_budget=thinking, temperature=temperature, top_p=top_p, top_k=top_k,
            min_p=self.min_p,
        )  # fmt: skip

    def workers(self, round: int) -> int:
        """Rollouts of a round."""
        return self.population if round < self.rounds or self.final_workers is None else self.final_workers

    @property
    def generations(self) -> int:
        """Rollouts of all rounds."""
        return sum(map(self.workers, range(self.rounds + 1)))

    @property
    def carried(self) -> int:
        """Tokens of a rollout that an aggregation prompt may show."""
        return self.think_budget if self.compaction == "full" else self.tail_tokens

    @property
    def max_prompt(self) -> int:
        """Tokens of an aggregation prompt at most. Tails of one that is longer are shortened, the question never."""
        return self.fan_in * self.carried + _ROOM

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed and hardly meant."""
        is_starved = self.tail_tokens < self.think_budget < 2 * self.tail_tokens  # whole chains are a method
        if not self.rounds or not is_starved or self.compaction in ("full", "hybrid"):
            return ()
        return (
            f"think_budget {self.think_budget:,} is less than two tails of {self.tail_tokens:,} tokens: a rollout "
            "hardly thinks further than what is handed on",
        )


_K = 1024
_MEDIUM = RsaConfig(think_budget=16 * _K)
_LARGE = RsaConfig(think_budget=40 * _K)
PRESETS: Mapping[str, RsaConfig] = {
    "markovian_baseline": RsaConfig(rounds=4, fan_in=1, think_budget=8 * _K),
    "rsa_8k_4k": RsaConfig(think_budget=8 * _K),
    "rsa_16k_4k": _MEDIUM,
    "deploy": _MEDIUM,
    "rsa_40k_4k": _LARGE,
    "headline": _LARGE,
    "rsa_40k_8k": RsaConfig(think_budget=40 * _K, tail_tokens=8 * _K),
    "lightweight": RsaConfig(population=8, think_budget=8 * _K),
    "apex_light": RsaConfig(think_budget=8 * _K),
    "apex_high": RsaConfig(rounds=8, think_budget=16 * _K),
    "apex_xhigh": RsaConfig(rounds=8, population=32, think_budget=32 * _K),
    "micro": RsaConfig(population=8, think_budget=192, tail_tokens=40, final_budget=208, answer_reserve=16),
}
"""The configurations of the report (spec markovian-rsa 4), and `micro`, for the model that comes with the package."""


def resolve(
    preset: str = "rsa_16k_4k",
    config: RsaConfig | None = None,
    *,
    population: int | None = None,
    fan_in: int | None = None,
    rounds: int | None = None,
) -> RsaConfig:
    """A configuration, or a preset by name where there is none, with these of its numbers replaced."""
    if config is None:
        if preset not in PRESETS:
            raise UsageError(f"there is no RSA preset {preset!r}", hint=did_you_mean(preset, PRESETS))
        config = PRESETS[preset]
    given = {"population": population, "fan_in": fan_in, "rounds": rounds}
    return replace(config, **{name: value for name, value in given.items() if value is not None})
