"""Markovian RSA: rounds of rollouts, each of which sees only the ends of a few rollouts of the round before.

    round 0          population rollouts of the question
    rounds 1 .. T    population rollouts, each of the question and fan_in tails of the round before
    the end          the last round may answer at length, and its candidates are all there is to choose from

So contexts stay short however long the thinking is, and a round is one batch. T = 0 is plain parallel sampling, fan_in
1 continues every chain on its own, tail_tokens = think_budget hands on whole chains. Source: report as in spec
markovian-rsa 2 to 4. Works over any `Completer`. Not here: deadlines, retries, starting a round before the last one is
over.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from zaya.core.rng import derive_seed
from zaya.engine.split import split
from zaya.engine.types import Completer, Completion, FinishReason, OnProgress, Request, SamplingParams
from zaya.errors import ConfigError, UsageError, did_you_mean
from zaya.text import Tokenizer, render, tags
from zaya.text.messages import normalize_messages
from zaya.ttc.prompts import aggregation_messages
from zaya.ttc.tails import Compaction, carry
from zaya.ttc.types import Candidate, Round, Solution
from zaya.ttc.vote import Equivalent, Extract, Selection, boxed, select

Question = str | Sequence[Mapping[str, Any]]
"""A question, or a conversation that ends with one."""

OnRound = Callable[[int, int, Round], None]
"""Told which question it is, the number of the round, and what the round did."""

Subset = Literal["uniform", "balanced"]
Order = Literal["random", "index"]

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
    """Their order in the prompt: at random, or that of the workers."""
    temperature: float = 1.0
    """Of all rounds. The report uses 1."""
    top_p: float = 1.0
    """Of all rounds. The report uses 1; a small model may need less to not run away."""
    final_workers: int | None = None
    """Rollouts of the last round; none for as many as in the others."""

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
        for name, choices in (("compaction", Compaction), ("subset", Subset), ("order", Order)):
            if (value := getattr(self, name)) not in get_args(choices):
                raise ConfigError(f"rsa.{name} = {value!r} does not exist", hint=did_you_mean(value, get_args(choices)))
        self.params(1)

    def params(self, max_tokens: int) -> SamplingParams:
        """How a rollout of that many tokens is drawn."""
        return SamplingParams(max_tokens=max_tokens, temperature=self.temperature, top_p=self.top_p)

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


def solve(
    question: Question,
    completer: Completer,
    tokenizer: Tokenizer,
    *,
    preset: str = "rsa_16k_4k",
    config: RsaConfig | None = None,
    population: int | None = None,
    fan_in: int | None = None,
    rounds: int | None = None,
    seed: int = 0,
    selection: Selection = "auto",
    extract: Extract = boxed,
    equivalent: Equivalent | None = None,
    on_progress: OnProgress | None = None,
    on_round: OnRound | None = None,
) -> Solution:
    """Solve one problem. `config` takes the place of `preset`; population, fan_in and rounds override either.

    Raises UsageError for a question that is too long or that nothing answers, ConfigError for numbers that do not go
    together.
    """
    config = resolve(preset, config, population=population, fan_in=fan_in, rounds=rounds)
    [solution] = solve_many(
        [question], completer, tokenizer, config=config, seeds=[seed], selection=selection, extract=extract,
        equivalent=equivalent, on_progress=on_progress, on_round=on_round,
    )  # fmt: skip
    if not solution.rounds:
        raise UsageError("every rollout of the first round failed", hint="see whether the model or server answers")
    return solution


def solve_many(
    questions: Sequence[Question],
    completer: Completer,
    tokenizer: Tokenizer,
    *,
    config: RsaConfig,
    seeds: Sequence[int] | None = None,
    selection: Selection = "auto",
    extract: Extract = boxed,
    equivalent: Equivalent | None = None,
    on_progress: OnProgress | None = None,
    on_round: OnRound | None = None,
) -> list[Solution]:
    """Solve problems together: the completer is asked once for a whole round of all of them.

    What comes out for a question depends on it and its seed (0 where none is given), not on its neighbours. Where a
    question is to be solved several times over, the seeds have to differ. `on_progress` is told about rollouts,
    `on_round` about a round of a question when it is over.
    """
    if selection not in get_args(Selection):
        raise UsageError(f"there is no selection {selection!r}", hint=did_you_mean(selection, get_args(Selection)))
    if selection == "single" and config.workers(config.rounds) > 1:
        raise UsageError(
            f"selection single needs one final rollout: there are {config.workers(config.rounds)}",
            hint="set final_workers=1",
        )
    seeds = [0] * len(questions) if seeds is None else seeds
    runs = [_Run(question, seed, config, tokenizer) for question, seed in zip(questions, seeds, strict=True)]
    done, total = 0, config.generations * len(runs)
    for round in range(config.rounds + 1):
        start = time.perf_counter()
        asked = [(run, rollout) for run in runs for rollout in run.start(round)]
        if not asked:
            break
        base = done
        answers = completer.complete(
            [rollout.request for _, rollout in asked],
            on_progress=None if on_progress is None else lambda now, _, base=base: on_progress(base + now, total),
        )
        done += len(asked)
        for (_, rollout), answer in zip(asked, answers, strict=True):
            rollout.completions.extend(answer)
        if round == config.rounds:
            _finish([rollout for _, rollout in asked], completer, tokenizer, config)
        wall_s = time.perf_counter() - start
        for i, run in enumerate(runs):
            run.end([rollout for owner, rollout in asked if owner is run], wall_s, extract)
            if on_round is not None and len(run.rounds) > round:
                on_round(i, round, run.rounds[-1])
    return [run.solution(selection, equivalent) for run in runs]


@dataclass(slots=True)
class _Rollout:
    """One rollout of a round: what is asked, and what came back."""

    worker: int
    request: Request
    seed: int
    """Names its streams."""
    sources: tuple[int, ...]
    completions: list[Completion] = field(default_factory=list)
    """None where it failed, a second one where it was continued."""
    closing: tuple[int, ...] = ()
    """What was put between the two."""


class _Run:
    """One question on its way through the rounds."""

    def __init__(self, question: Question, seed: int, config: RsaConfig, tokenizer: Tokenizer) -> None:
        messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
        self.messages = normalize_messages(messages)
        self.config = config
        self.tokenizer = tokenizer
        self.name = (seed, "rsa", _digest(self.messages))
        self.rounds: list[Round] = []
        self.handed_on: dict[int, Completion] = {}
        """Rollouts of the last round with a tail, by worker. Nothing older is kept."""
        empty = aggregation_messages(self.messages, [""] * config.fan_in)
        self.frame = len(render(tokenizer, empty).ids)
        """Tokens of an aggregation prompt without the tails."""
        if config.rounds and self.frame > config.max_prompt:
            raise UsageError(
                f"the question is too long: {self.frame} tokens in a prompt of at most {config.max_prompt}",
                hint="a prompt that shows attempts has room for fan_in * tail_tokens and 4,096 more",
            )

    def start(self, round: int) -> Iterator[_Rollout]:
        """The rollouts of a round; none where there is nothing to go on with."""
        config, is_first = self.config, round == 0
        if not is_first and not self.handed_on:
            return
        workers = config.workers(round)
        sources = [()] * workers if is_first else self._draw(round, workers)
        tokens = config.think_budget if round < config.rounds else config.final_budget - config.answer_reserve
        for worker in range(workers):
            seed = derive_seed(*self.name, "rollout", round, worker)
            prompt = self._prompt(sources[worker])
            request = Request(messages=prompt, params=config.params(tokens), seed=seed)
            yield _Rollout(worker, request, seed, sources[worker])

    def end(self, rollouts: Sequence[_Rollout], wall_s: float, extract: Extract) -> None:
        """Take in what came back; what the round before handed on is gone."""
        if not rollouts:
            return
        is_last = len(self.rounds) == self.config.rounds
        self.handed_on = {}
        candidates = []
        for rollout in rollouts:
            if rollout.completions:
                tail = "" if is_last else self._tail(rollout.completions[0], self.config.carried)
                candidates.append(_candidate(rollout, self.tokenizer, extract, tail))
                if tail:
                    self.handed_on[rollout.worker] = rollout.completions[0]
        self.rounds.append(Round(candidates=tuple(candidates), requests=len(rollouts), wall_s=wall_s))

    def solution(self, selection: Selection, equivalent: Equivalent | None) -> Solution:
        partial = len(self.rounds) <= self.config.rounds or not self.rounds[-1].candidates
        while self.rounds and not self.rounds[-1].candidates:
            self.rounds.pop()
        candidates = self.rounds[-1].candidates if self.rounds else ()
        chosen = select(candidates, selection, derive_seed(*self.name, "choice"), equivalent)
        return Solution(
            answer=None if chosen is None else chosen.answer,
            text="" if chosen is None else chosen.text,
            reasoning="" if chosen is None else chosen.reasoning,
            rounds=tuple(self.rounds),
            partial=partial,
        )

    def _draw(self, round: int, workers: int) -> list[tuple[int, ...]]:
        """For each worker whose tails it is shown."""
        config, alive = self.config, list(self.handed_on)
        if config.fan_in == 1:
            # the chain goes on by itself; one that broke starts from the question again
            return [(worker,) if worker in self.handed_on else () for worker in range(workers)]
        count = min(config.fan_in, len(alive))
        rng = random.Random(derive_seed(*self.name, "tails", round))
        shown = dict.fromkeys(alive, 0)
        drawn = []
        for _ in range(workers):
            chosen = rng.sample(alive, len(alive))
            if config.subset == "balanced":
                chosen.sort(key=shown.__getitem__)  # stable, so those shown equally often stay in random order
            chosen = chosen[:count]
            for worker in chosen:
                shown[worker] += 1
            if config.order == "index":
                chosen.sort()
            elif config.subset == "balanced":
                rng.shuffle(chosen)
            drawn.append(tuple(chosen))
        return drawn

    def _prompt(self, sources: tuple[int, ...]) -> list[dict[str, Any]]:
        """The messages that show these tails, shortened alike until they fit."""
        tokens, limit = self.config.carried, self.config.max_prompt
        while True:
            tails = [self._tail(self.handed_on[worker], tokens) for worker in sources]
            messages = aggregation_messages(self.messages, tails)
            if not sources or tokens == 0:
                return messages
            length = len(render(self.tokenizer, messages).ids)
            if length <= limit:
                return messages
            # in proportion: tokens drawn and tokens of their text encoded again need not be equally many
            longest = min(tokens, max(len(self.handed_on[worker].ids) for worker in sources))
            tokens = min(longest - 1, longest * (limit - self.frame) // (length - self.frame))

    def _tail(self, completion: Completion, tokens: int) -> str:
        return carry(self.tokenizer, completion, self.config.compaction, tokens)


def _finish(rollouts: Sequence[_Rollout], completer: Completer, tokenizer: Tokenizer, config: RsaConfig) -> None:
    """Let those that were cut in the last round come to an answer, from the tokens kept for it."""
    cut = [r for r in rollouts if r.completions and r.completions[0].finish_reason is FinishReason.LENGTH]
    requests = []
    for rollout in cut:
        first = rollout.completions[0]
        rollout.closing = () if first.is_closed else _closing(tokenizer, first.ids)
        requests.append(
            Request(
                prompt_ids=(*first.prompt_ids, *first.ids, *rollout.closing),
                params=config.params(config.answer_reserve),
                seed=derive_seed(rollout.seed, "answer"),
            )
        )
    for rollout, answer in zip(cut, completer.complete(requests) if requests else [], strict=True):
        rollout.completions.extend(answer)


def _closing(tokenizer: Tokenizer, reasoning: Sequence[int]) -> tuple[int, ...]:
    """What ends a reasoning as the chat template ends it: a tag on a line of its own, and a blank line."""
    newline = "" if tokenizer.to_bytes(reasoning[-1:]).endswith(b"\n") else "\n"
    return tuple(tokenizer.encode(f"{newline}{tags.THINK_CLOSE}\n\n", bos=False))


def _candidate(rollout: _Rollout, tokenizer: Tokenizer, extract: Extract, tail: str) -> Candidate:
    first, last = rollout.completions[0], rollout.completions[-1]
    reasoning, text = first.reasoning, first.text
    if last is not first:
        ids = (*first.ids, *rollout.closing, *last.ids)
        _, _, reasoning, text = split(tokenizer, first.prompt_ids, ids)
    return Candidate(
        worker=rollout.worker,
        text=text,
        reasoning=reasoning,
        answer=extract(text) if text else None,
        is_finished=last.finish_reason is FinishReason.STOP,
        is_forced=last is not first and len(rollout.closing) > 0,
        prompt_tokens=sum(len(completion.prompt_ids) for completion in rollout.completions),
        cached_tokens=sum(completion.cached_tokens for completion in rollout.completions),
        generated_tokens=sum(len(completion.ids) for completion in rollout.completions),
        tail=tail,
        sources=rollout.sources,
    )


def _digest(messages: Sequence[Mapping[str, Any]]) -> str:
    """Names a question by its content."""
    text = json.dumps(messages, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
