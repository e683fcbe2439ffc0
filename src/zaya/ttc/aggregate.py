"""Aggregation prompts from rollouts that somebody has.

    rollouts by problem (`ttc.rollouts`) ─► prompts ─► reinforcement learning: problem, messages, no solution
                                               └─────► a teacher (`ttc.teach`) ─► conversations for `zaya sft`

A prompt is made by the functions that make it when the model is used (`ttc.prompts`, `ttc.tails`). How it is drawn is
a function of seed, problem and number, so that the same rollouts give the same prompts in the same order, however
their lines are ordered. No verifier is needed; where labels are there, they can be balanced. Source: spec markovian-rsa
7. Command: `zaya aggregate`.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from zaya.core.rng import derive_seed
from zaya.engine.types import Completion, FinishReason
from zaya.errors import ConfigError, did_you_mean
from zaya.text import Tokenizer, render
from zaya.ttc.prompts import aggregation_messages, fitted
from zaya.ttc.rollouts import Attempt, Pool
from zaya.ttc.tails import Compaction, carry


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregateConfig:
    """How prompts are drawn. Of a list each prompt takes one, each as often as it is listed."""

    tau: tuple[int, ...] = (4096,)
    """Tokens of a rollout that a prompt shows at most."""
    fan_in: tuple[int, ...] = (1, 2, 3, 4)
    """Rollouts in a prompt."""
    compaction: tuple[Compaction, ...] = ("tail", "tail", "tail", "hybrid")
    """What of a rollout is shown (`ttc.tails`); hybrid shows answers where there are some."""
    budget: tuple[int, ...] = ()
    """Tokens at which all rollouts of a prompt are cut; empty leaves them as they are."""
    cut: float = 0.1
    """Probability that a rollout ends at a point within its reasoning."""
    per_problem: int = 1
    """Prompts of a problem."""
    stratify: bool = False
    """Draw how many rollouts of a prompt are right, all possible numbers alike; else they are as they come."""
    max_prompt: int = 20_480
    """Tokens of a prompt at most: tails are shortened alike until it fits, the question never."""
    seed: int = 0
    """Decides all that is drawn."""

    def __post_init__(self) -> None:
        for name in ("tau", "fan_in", "budget"):
            values = getattr(self, name)
            if min(values, default=int(name == "budget")) < 1:
                raise ConfigError(f"{name} lists numbers of at least 1: {list(values)}")
        for choice in self.compaction:
            if choice not in get_args(Compaction):
                raise ConfigError(
                    f"compaction {choice!r} does not exist", hint=did_you_mean(choice, get_args(Compaction))
                )
        if not self.compaction:
            raise ConfigError("compaction must not be empty")
        if not 0 <= self.cut <= 1:
            raise ConfigError(f"cut is a probability, from 0 to 1: {self.cut}")
        for name in ("per_problem", "max_prompt"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1: {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt."""

    pool: Pool
    messages: list[dict[str, Any]]
    tokens: int
    """Of the prompt, rendered."""
    about: dict[str, Any]
    """Where it comes from: ids of the rollouts, their labels and cuts, what was drawn."""

    @property
    def key(self) -> str:
        return f"{self.pool.digest}/{self.about['number']}"

    @property
    def num_right(self) -> int | None:
        """Rollouts that came to what is right; None where not all are labelled."""
        labels = self.about["correct"]
        if None in labels:
            return None
        return sum(is_right and cut is None for is_right, cut in zip(labels, self.about["cut"], strict=True))


@dataclass(slots=True)
class Report:
    """What was made, and what was left out."""

    prompts: list[int] = field(default_factory=list)
    """Tokens of each prompt."""
    targets: list[int] = field(default_factory=list)
    """Tokens of each solution, as drawn."""
    mix: Counter[tuple[int, int | None]] = field(default_factory=Counter)
    """Prompts by number of rollouts, and of right ones among them; None where that is not known."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Problems, rollouts and prompts by the reason."""

    def count(self, example: Example) -> None:
        self.prompts.append(example.tokens)
        self.mix[len(example.about["rollouts"]), example.num_right] += 1


def make_examples(
    pools: Sequence[Pool], tokenizer: Tokenizer, config: AggregateConfig, report: Report
) -> Iterator[Example]:
    """The prompts of all problems, in order."""
    for pool in pools:
        attempts = [attempt for attempt in pool.attempts if attempt.completion.ids]
        report.left_out["rollout says nothing"] += len(pool.attempts) - len(attempts)
        if config.stratify:
            labelled = [attempt for attempt in attempts if attempt.correct is not None]
            report.left_out["rollout has no label"] += len(attempts) - len(labelled)
            attempts = labelled
        seen: set[str] = set()
        for number in range(config.per_problem):
            made = _example(pool, attempts, number, tokenizer, config)
            if isinstance(made, Example) and (content := json.dumps(made.messages)) not in seen:
                seen.add(content)
                yield made
            else:
                report.left_out[made if isinstance(made, str) else "prompt is there already"] += 1


def _example(
    pool: Pool, attempts: Sequence[Attempt], number: int, tokenizer: Tokenizer, config: AggregateConfig
) -> Example | str:
    """One prompt, or why there is none."""
    rng = random.Random(derive_seed(config.seed, "aggregate", pool.digest, number))
    sizes = [size for size in config.fan_in if size <= len(attempts)]
    if not sizes:
        return "problem has too few rollouts"
    fan_in, tau, compaction = rng.choice(sizes), rng.choice(config.tau), rng.choice(config.compaction)
    budget = rng.choice(config.budget) if config.budget else None
    chosen = _stratified(attempts, fan_in, rng) if config.stratify else rng.sample(attempts, fan_in)
    shown, cuts = [], []
    for attempt in chosen:
        completion, whole = attempt.completion, len(attempt.completion.ids)
        limit = whole if budget is None else min(whole, budget)
        if rng.random() < config.cut and len(completion.reasoning_ids) > 1:
            limit = min(limit, rng.randrange(1, len(completion.reasoning_ids)))
        shown.append(_cut(completion, limit))
        cuts.append(limit if limit < whole else None)
    frame = len(render(tokenizer, aggregation_messages(pool.messages, [""] * fan_in)).ids)
    if frame > config.max_prompt:
        return "question is too long"
    messages, tau, tokens = fitted(
        tokenizer,
        pool.messages,
        lambda tokens: [carry(tokenizer, completion, compaction, tokens) for completion in shown],
        tau,
        longest=max(len(completion.ids) for completion in shown),
        frame=frame,
        limit=config.max_prompt,
    )
    if not all(carry(tokenizer, completion, compaction, tau) for completion in shown):
        return "tail is empty"
    about = {
        "rollouts": [attempt.id for attempt in chosen],
        "correct": [attempt.correct for attempt in chosen],
        "cut": cuts,
        "tau": tau,
        "compaction": compaction,
        "budget": budget,
        "seed": config.seed,
        "number": number,
    }
    return Example(pool, messages, tokens, about)


def _stratified(attempts: Sequence[Attempt], fan_in: int, rng: random.Random) -> list[Attempt]:
    right = [attempt for attempt in attempts if attempt.correct]
    wrong = [attempt for attempt in attempts if not attempt.correct]
    num_right = rng.randint(max(0, fan_in - len(wrong)), min(fan_in, len(right)))
    chosen = [*rng.sample(right, num_right), *rng.sample(wrong, fan_in - num_right)]
    rng.shuffle(chosen)
    return chosen


def _cut(completion: Completion, tokens: int) -> Completion:
    """The rollout as a budget of that many tokens leaves it."""
    if tokens >= len(completion.ids):
        return completion
    thought = completion.reasoning_ids[:tokens]
    is_closed = completion.is_closed and tokens > len(completion.reasoning_ids)
    return replace(
        completion,
        ids=completion.ids[:tokens],
        reasoning_ids=thought,
        is_closed=is_closed,
        text=completion.text if is_closed else "",
        finish_reason=FinishReason.LENGTH,
    )
