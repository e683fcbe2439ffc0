"""From tasks to scored groups: which problem comes next, what the policy makes of it, what that earns.

    Curriculum.next ─► prompts ─► roll_out: engine, scorers, canary ─► groups ─► Curriculum.show (aggregation)
                                                                             └─► Curriculum.completed (levels)

Problems are made and scored in processes of their own (`envs.pool`). Levels are those of the recipe, and then which
problem comes at which place is a function of the seed and the place; or a schedule moves them by the groups that came
before. Where a curriculum stands is a few counters, and the attempts that wait to be shown. Source: spec post-training
3.1, 3.5 and 8.3, markovian-rsa 7.2. Driven by `rl.trainer`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zaya.core.rng import derive_seed
from zaya.engine.types import Completer, Completion, Request, SamplingParams
from zaya.envs import registry
from zaya.envs.adaptive import AdaptiveMixture
from zaya.envs.base import Problem, Score, Status, Stream
from zaya.envs.difficulty import Schedule
from zaya.envs.mixture import Mixture
from zaya.envs.pool import TaskPool
from zaya.rl.canary import examine
from zaya.rl.recipe import RlConfig
from zaya.rl.types import Rollout, RolloutGroup, Start
from zaya.text import Tokenizer, render
from zaya.ttc.prompts import aggregation_messages
from zaya.ttc.tails import carry

STREAM = "rl"
"""Names the items that are practised."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem, put as a question or with attempts at it."""

    problem: Problem
    messages: tuple[Mapping[str, Any], ...]
    source: str
    """Under which solve rates are kept."""
    round: int = 0
    """How often attempts were handed on to come here."""

    @classmethod
    def plain(cls, problem: Problem) -> Prompt:
        return cls(problem, ({"role": "user", "content": problem.prompt},), problem.env)

    def with_attempts(self, tails: Sequence[str]) -> Prompt:
        """The question anew, with these attempts in place of any before."""
        question = Prompt.plain(self.problem)
        messages = tuple(aggregation_messages(question.messages, tails))
        return Prompt(self.problem, messages, f"aggregate {self.problem.env}", self.round + 1)


class Curriculum:
    """Prompts without end. Its state is JSON."""

    def __init__(self, config: RlConfig, pool: TaskPool, tokenizer: Tokenizer, context: int | None = None) -> None:
        """`context`: tokens that the policy can read and write; a prompt with attempts leaves room for a response."""
        self.config = config
        self.room = None if context is None else context - config.sampling.max_tokens
        self.tokenizer = tokenizer
        stream, seed = Stream(STREAM, "train", config.held_out), config.run.seed
        self.mixture: Mixture | AdaptiveMixture
        if config.schedule is None:
            self.mixture = Mixture(config.tasks, stream, pool, seed)
        else:
            abouts = {task.env: registry.get(task.env).about for task in config.tasks.values()}
            self.mixture = AdaptiveMixture(Schedule(abouts, config.schedule, seed), stream, pool, self.fits)
        self._waiting: list[Prompt] = []
        """Prompts with attempts, oldest first."""

    def next(self, count: int) -> list[Prompt]:
        """The next prompts, those with attempts first."""
        shown = min(len(self._waiting), int(count * self.config.aggregation.share))
        prompts, self._waiting = self._waiting[:shown], self._waiting[shown:]
        return [*prompts, *map(Prompt.plain, self.mixture.next(count - shown))]

    def fits(self, problem: Problem) -> bool:
        """Whether a question leaves room for a response."""
        return self._has_room(Prompt.plain(problem))

    def begin(self, starts: Mapping[str, Start]) -> None:
        """Before the first problem: where levels begin, and which environments wait."""
        assert isinstance(self.mixture, AdaptiveMixture)
        for env, start in starts.items():
            self.mixture.schedule.begin(env, start.level, is_parked=start.is_parked)

    def completed(self, prompt: Prompt, group: RolloutGroup) -> None:
        """Let levels follow what became of a prompt. One that shows attempts says how well these are used, not how hard
        the question is."""
        if isinstance(self.mixture, AdaptiveMixture) and prompt.round == 0:
            self.mixture.completed(prompt.problem, right=group.num_right, rollouts=len(group.rollouts))

    def levels(self) -> dict[str, int]:
        """What the log says of levels that move; nothing where they do not."""
        if not isinstance(self.mixture, AdaptiveMixture):
            return {}
        schedule = self.mixture.schedule
        levels = schedule.levels()
        parked = sum(map(schedule.is_parked, levels))
        return {**{f"level/{env}": level for env, level in sorted(levels.items())}, "parked": parked}

    def show(self, prompt: Prompt, completions: Sequence[Completion], rate: float) -> None:
        """Keep attempts at a problem, to be shown later. Not worth it are attempts that were all right or all wrong,
        those of the last round, those that say nothing, and those that do not fit."""
        config = self.config.aggregation
        if not config.share or rate in (0, 1) or prompt.round >= config.rounds:
            return
        rng = random.Random(derive_seed(self.config.run.seed, "attempts", self.mixture.count, prompt.problem.digest))
        chosen = rng.sample(list(completions), min(config.fan_in, len(completions)))
        compaction = "hybrid" if rng.random() < config.answers else "tail"
        tails = [carry(self.tokenizer, completion, compaction, config.tail_tokens) for completion in chosen]
        if not any(tails):
            return
        shown = prompt.with_attempts([tail for tail in tails if tail])
        if not self._has_room(shown):
            return
        self._waiting.append(shown)
        del self._waiting[: -2 * self.config.sampling.prompts]  # the oldest are of a policy that is gone

    def state(self) -> dict[str, Any]:
        waiting = [[p.problem.to_json(), list(p.messages), p.source, p.round] for p in self._waiting]
        return {"problems": self.mixture.state(), "waiting": waiting}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.mixture.load_state(state["problems"])
        self._waiting = [Prompt(Problem.from_json(p), tuple(m), *rest) for p, m, *rest in state["waiting"]]

    def _has_room(self, prompt: Prompt) -> bool:
        return self.room is None or len(render(self.tokenizer, prompt.messages).ids) <= self.room


def roll_out(
    prompts: Sequence[Prompt], completer: Completer, pool: TaskPool, config: RlConfig, vocab_size: int, *, seed: int
) -> tuple[list[RolloutGroup], list[list[Completion]]]:
    """Sample a group for each prompt at temperature 1, untruncated, and score it; the groups and what they are made of.

    Rollouts whose scorer failed are counted in their group and not in it.
    """
    params = SamplingParams(max_tokens=config.sampling.max_tokens)
    requests = [
        Request(
            messages=prompt.messages,
            params=params,
            n=config.sampling.group_size,
            seed=derive_seed(seed, "prompt", place),
            want_routes=config.router_replay,
        )
        for place, prompt in enumerate(prompts)
    ]
    answers = completer.complete(requests)
    asked = [(prompt.problem, c.text) for prompt, group in zip(prompts, answers, strict=True) for c in group]
    scores = iter(pool.score(asked))
    groups = []
    for prompt, completions in zip(prompts, answers, strict=True):
        judged = [(completion, next(scores)) for completion in completions]
        rollouts = [_rollout(c, score, config, vocab_size) for c, score in judged if score.status != Status.INFRA]
        groups.append(
            RolloutGroup(
                key=prompt.problem.digest,
                source=prompt.source,
                prompt_ids=completions[0].prompt_ids,
                rollouts=tuple(rollouts),
                num_failed=len(judged) - len(rollouts),
            )
        )
    return groups, answers


def _rollout(completion: Completion, score: Score, config: RlConfig, vocab_size: int) -> Rollout:
    assert completion.behavior_logprobs is not None
    return Rollout(
        ids=completion.ids,
        behavior_logprobs=completion.behavior_logprobs,
        routes=completion.routes,
        weight_versions=completion.weight_versions,
        finish_reason=completion.finish_reason,
        score=score,
        is_flagged=examine(completion.ids, vocab_size, config.canary).is_flagged,
    )
