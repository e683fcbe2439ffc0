"""From problems to scored groups.

1. A group has the rollouts of one prompt in order, as they were drawn, each with its score; they are drawn at
   temperature 1, untruncated, from streams of their own.
2. A rollout whose scorer failed is counted and gone; one that the canary flags stays and earns 0.
3. Attempts are shown once, in later steps, where some were right and some were not, and as many rounds on as the
   recipe says; the prompt is that of aggregation, of tails of that group.
4. Prompts with attempts are at most the part of a step that was asked for, oldest first; too old ones go.
5. A curriculum that goes on from its state, written down as JSON in between, gives what an unbroken one gives.
6. A step samples until enough groups are informative, up to so many times. Every group counts for the solve rates,
   but for one of which no score is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.rl.scripted import TOKENIZER, Policy, Pool, config, first_is_right, question, says
from zaya.config import from_mapping, to_mapping
from zaya.engine.engine import Engine
from zaya.engine.scripted import Prompt as Asked
from zaya.engine.types import Completion, FinishReason, Request, SamplingParams
from zaya.envs.base import Status
from zaya.rl.advantage import SolveRates
from zaya.rl.loss import LossStats
from zaya.rl.recipe import RlConfig
from zaya.rl.rollout import Curriculum, Prompt, roll_out
from zaya.rl.trainer import collect, describe
from zaya.rl.update import UpdateRecord
from zaya.text import render
from zaya.ttc.prompts import aggregation_messages
from zaya.ttc.tails import carry


def plain(count: int, settings: RlConfig) -> tuple[Curriculum, list[Prompt]]:
    curriculum = Curriculum(settings, Pool(), TOKENIZER)
    return curriculum, curriculum.next(count)


def rolled(settings: RlConfig, script: Callable[[Asked, int, int], str], count: int = 3, seed: int = 5) -> Any:
    policy = Policy(script)
    _, prompts = plain(count, settings)
    groups, answers = roll_out(prompts, policy, Pool(), settings, 268, seed=seed)
    return policy, prompts, groups, answers


# 1 and 2


def test_groups_are_scored() -> None:
    policy, prompts, groups, answers = rolled(config(), first_is_right)
    assert answers == policy.answers
    for prompt, group, completions in zip(prompts, groups, answers, strict=True):
        assert (group.key, group.source) == (prompt.problem.digest, "arithmetic")
        assert group.rewards == (1, 0, 0, 0)
        assert (group.num_failed, group.solve_rate) == (0, 0.25)
        assert group.prompt_ids == completions[0].prompt_ids
        assert prompt.problem.prompt in TOKENIZER.decode(group.prompt_ids)
        for rollout, completion in zip(group.rollouts, completions, strict=True):
            assert rollout.ids == completion.ids
            assert rollout.behavior_logprobs is completion.behavior_logprobs
            assert rollout.routes is completion.routes
            assert (rollout.weight_versions, rollout.finish_reason) == (completion.weight_versions, FinishReason.STOP)
            assert not rollout.is_flagged


def test_what_is_asked() -> None:
    policy, prompts, _, _ = rolled(config(), first_is_right)
    assert len({request.seed for request in policy.requests}) == 3
    for request, prompt in zip(policy.requests, prompts, strict=True):
        assert request.messages == prompt.messages == ({"role": "user", "content": prompt.problem.prompt},)
        assert request.params == SamplingParams(max_tokens=80, temperature=1.0, top_p=1.0, top_k=None)
        assert (request.n, request.want_routes) == (4, True)
    again, other = (rolled(config(), first_is_right, seed=seed)[0] for seed in (5, 6))
    assert again.requests == policy.requests
    assert not {request.seed for request in policy.requests} & {request.seed for request in other.requests}
    without = from_mapping(RlConfig, {**to_mapping(config()), "router_replay": False})
    assert not any(request.want_routes for request in rolled(without, first_is_right)[0].requests)


def test_failed_scorers() -> None:
    def script(prompt: Asked, seed: int, index: int) -> str:
        return first_is_right(prompt, seed, index) + (" break" if index in (1, 2) else "")

    for group in rolled(config(), script)[2]:
        assert (group.num_failed, group.rewards, group.solve_rate) == (2, (1, 0), 0.5)
        assert [TOKENIZER.decode(rollout.ids)[:9] for rollout in group.rollouts] == ["thought 0", "thought 3"]
    for group in rolled(config(), lambda *_: "</think>break")[2]:
        assert (group.num_failed, group.rollouts, group.solve_rate) == (4, (), 0)
        assert len(group.prompt_ids) > 0


def test_the_canary_is_a_gate() -> None:
    """A loop that ends in the right answer earns nothing, and stays in the group."""

    def script(prompt: Asked, seed: int, index: int) -> str:
        return says(question(prompt).meta["answer"], "a" * 2000 if index == 2 else "short")

    settings = config(sampling={"max_tokens": 3000})
    for group in rolled(settings, script)[2]:
        assert group.rewards == (1, 1, 0, 1)
        assert [rollout.is_flagged for rollout in group.rollouts] == [False, False, True, False]
        assert group.rollouts[2].score.correct
        assert group.solve_rate == 0.75
    for group in rolled(from_mapping(RlConfig, {**to_mapping(settings), "canary": {"threshold": 0.0}}), script)[2]:
        assert group.rewards == (1, 1, 1, 1)


def test_what_is_cut_is_scored_as_it_is() -> None:
    for group in rolled(config(sampling={"max_tokens": 5}), first_is_right)[2]:
        assert {rollout.finish_reason for rollout in group.rollouts} == {FinishReason.LENGTH}
        assert group.rewards == (0, 0, 0, 0)
        assert {rollout.score.status for rollout in group.rollouts} == {Status.BAD_FORMAT}


# 3 and 4


def shown(curriculum: Curriculum, prompts: list[Prompt], rates: list[float]) -> list[list[Completion]]:
    """Let attempts of each prompt be kept, with these solve rates."""
    policy = Policy(first_is_right)
    answers = policy.complete([Request(messages=prompt.messages, n=4, seed=i) for i, prompt in enumerate(prompts)])
    for prompt, completions, rate in zip(prompts, answers, rates, strict=True):
        curriculum.show(prompt, completions, rate)
    return answers


def test_attempts_are_shown_where_they_differ() -> None:
    curriculum, prompts = plain(5, config())
    answers = shown(curriculum, prompts, [0.5, 1.0, 0.25, 0.75, 0.0])
    following = curriculum.next(4)
    assert [prompt.source for prompt in following] == ["aggregate arithmetic"] * 2 + ["arithmetic"] * 2
    assert [prompt.problem for prompt in following[:2]] == [prompts[0].problem, prompts[2].problem]
    for prompt, before, completions in zip(following, prompts[:4:2], answers[:4:2], strict=False):
        tails = [carry(TOKENIZER, completion, "tail", 12) for completion in completions]
        assert all(tail.startswith("...") for tail in tails)
        pairs = [[a, b] for a in tails for b in tails if a != b]
        assert list(prompt.messages) in [aggregation_messages(before.messages, pair) for pair in pairs]
    # each once; and what was made from attempts is not shown again, where one round is asked for
    third, *rest = curriculum.next(4)
    assert third.problem == prompts[3].problem
    assert {prompt.source for prompt in rest} == {"arithmetic"}
    shown(curriculum, following, [0.5] * 4)
    assert [prompt.problem for prompt in curriculum.next(4)[:2]] == [prompt.problem for prompt in following[2:]]
    assert {prompt.source for prompt in curriculum.next(4)} == {"arithmetic"}


def test_answers_are_shown_in_place_of_tails() -> None:
    """As often as the recipe says; the same attempts are chosen."""
    seen = {}
    for share in (0.0, 0.5, 1.0):
        curriculum, prompts = plain(
            20, config(aggregation={"answers": share, "tail_tokens": 16}, sampling={"prompts": 10})
        )
        shown(curriculum, prompts, [0.5] * 20)
        contents = [prompt.messages[-1]["content"] for prompt in curriculum.next(40)[:20]]
        seen[share] = [content.split("\n\n")[2:-1] for content in contents]
        assert all(len(blocks) == 2 for blocks in seen[share])
    answers = {share: sum("\\boxed{" in blocks[0] for blocks in some) for share, some in seen.items()}
    assert answers[0.0] == 0 < 4 < answers[0.5] < 16 < answers[1.0] == 20
    for blocks in seen[1.0]:
        assert all(block.startswith(f"Attempt {i}:\n\\boxed{{") for i, block in enumerate(blocks, 1))
    for some, tails in zip(seen[0.5], seen[0.0], strict=True):
        assert "\\boxed{" in some[0] or some == tails


def test_as_many_rounds_as_are_asked_for() -> None:
    """Attempts of the second round are shown with the question, in place of those that they were shown themselves."""
    curriculum, (first,) = plain(1, config(aggregation={"rounds": 2}))
    seen = []
    for round in range(3):
        prompt, answers = first, shown(curriculum, [first], [0.5])[0]
        first = curriculum.next(2)[0]
        seen.append(first.round)
        if round == 2:
            assert first.problem != prompt.problem
            break
        assert (first.problem, first.source) == (prompt.problem, "aggregate arithmetic")
        tails = [carry(TOKENIZER, completion, "tail", 12) for completion in answers]
        question = Prompt.plain(prompt.problem).messages
        assert list(first.messages) in [aggregation_messages(question, [a, b]) for a in tails for b in tails if a != b]
    assert seen == [1, 2, 0]


def test_attempts_that_say_nothing_are_not_shown() -> None:
    curriculum, (prompt,) = plain(1, config())
    silent = Policy(lambda *_: "</think>").complete([Request(messages=prompt.messages, n=4)])[0]
    curriculum.show(prompt, silent, 0.5)
    assert {prompt.source for prompt in curriculum.next(4)} == {"arithmetic"}


def test_attempts_that_do_not_fit_are_not_shown() -> None:
    """The prompt leaves room for the longest response."""
    settings = config()
    _, prompts = plain(3, settings)
    lengths = []
    for spare in (0, -1):
        curriculum = Curriculum(settings, Pool(), TOKENIZER)
        shown(curriculum, prompts[:1], [0.5])
        (prompt,) = [prompt for prompt in curriculum.next(2) if prompt.round]
        lengths.append(len(render(TOKENIZER, prompt.messages).ids))
        curriculum = Curriculum(settings, Pool(), TOKENIZER, lengths[0] + settings.sampling.max_tokens + spare)
        shown(curriculum, prompts[:1], [0.5])
        assert [prompt.round for prompt in curriculum.next(2)] == ([1, 0] if spare == 0 else [0, 0])


@pytest.mark.parametrize(
    ("share", "count", "expected"), [(0.5, 8, 4), (0.25, 8, 2), (0.25, 3, 0), (0.9, 2, 1), (0, 8, 0)]
)
def test_the_share_is_respected(share: float, count: int, expected: int) -> None:
    curriculum, prompts = plain(8, config(aggregation={"share": share}))
    shown(curriculum, prompts, [0.5] * 8)
    following = curriculum.next(count)
    assert len(following) == count
    assert [prompt.source != "arithmetic" for prompt in following] == [True] * expected + [False] * (count - expected)
    assert [prompt.problem for prompt in following[:expected]] == [prompt.problem for prompt in prompts[:expected]]
    fresh = {prompt.problem.digest for prompt in following[expected:]}
    assert not fresh & {prompt.problem.digest for prompt in prompts}


def test_too_old_attempts_go() -> None:
    curriculum, prompts = plain(30, config())
    shown(curriculum, prompts, [0.5] * 30)
    following = curriculum.next(60)
    waiting = [prompt.problem for prompt in following if prompt.source != "arithmetic"]
    assert waiting == [prompt.problem for prompt in prompts[-8:]]  # twice the prompts of a step


# 5


def test_a_curriculum_goes_on_where_it_stood() -> None:
    unbroken, broken = (plain(6, config())[0] for _ in range(2))
    for curriculum in (unbroken, broken):
        shown(curriculum, curriculum.next(6), [0.1, 0.5, 1.0, 0.0, 0.2, 0.75])
        curriculum.next(3)
    other = Curriculum(config(), Pool(), TOKENIZER)
    other.load_state(json.loads(json.dumps(broken.state())))
    assert other.state() == unbroken.state()
    for count in (4, 1, 7):
        expected, got = unbroken.next(count), other.next(count)
        assert got == expected
        shown(unbroken, expected, [0.5] * count)
        shown(other, got, [0.5] * count)
    assert other.state() == unbroken.state()


# 6


# a scripted policy is not the engine that the loop has


def collected(script: Callable[[Asked, int, int], str], settings: RlConfig, steps: int = 1) -> Any:
    policy, rates, curriculum = Policy(script), SolveRates(), Curriculum(settings, Pool(), TOKENIZER)
    found = [collect(settings, curriculum, cast(Engine, policy), Pool(), rates, step) for step in range(steps)]
    return policy, rates, found


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_step_fills_up_with_informative_groups() -> None:
    def script(prompt: Asked, seed: int, index: int) -> str:
        answer = question(prompt).meta["answer"]
        return says(answer + (index if answer % 3 == 0 else answer % 3 - 1))  # some right, all right, all wrong

    settings = config(sampling={"max_rounds": 6}, aggregation={"share": 0.0})
    policy, rates, [found] = collected(script, settings)
    kinds = [group.rewards for group in found.groups]
    assert set(kinds) == {(1, 0, 0, 0), (1, 1, 1, 1), (0, 0, 0, 0)}
    assert found.informative == kinds.count((1, 0, 0, 0)) == 4
    assert len(found.samples) == 16
    assert {sample.advantage for sample in found.samples} == {3, -1}
    assert all(sample.group.rewards == (1, 0, 0, 0) for sample in found.samples)
    assert len(policy.requests) == len(found.groups) > 4
    assert len({request.seed for request in policy.requests}) == len(policy.requests)
    average = 0.0
    for group in found.groups:
        average += 0.1 * (group.solve_rate - average)
    assert rates.average("arithmetic") == pytest.approx(average)
    values = describe(found, UpdateRecord(0.0, LossStats(), None))
    assert values["all_right"] + values["all_wrong"] + values["informative"] == values["groups"] == len(kinds)
    assert values["solve_rate"] == pytest.approx(sum(map(sum, kinds)) / 4 / len(kinds))
    assert values["skipped"] == "no signal"


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_step_takes_what_it_finds() -> None:
    policy, _, [found] = collected(lambda *_: says("nothing"), config(sampling={"max_rounds": 3}))
    assert len(policy.requests) == len(found.groups) == 12
    assert (found.samples, found.informative) == ([], 0)


@pytest.mark.usefixtures("unchecked_shapes")
def test_attempts_come_in_the_next_step() -> None:
    policy, rates, (first, second) = collected(first_is_right, config(), steps=2)
    assert [group.source for group in first.groups] == ["arithmetic"] * 4
    assert [group.source for group in second.groups] == ["aggregate arithmetic"] * 2 + ["arithmetic"] * 2
    assert [group.key for group in second.groups[:2]] == [group.key for group in first.groups[:2]]
    assert rates.average("aggregate arithmetic") == pytest.approx(0.25 * (1 - 0.9**2))
    content = policy.requests[4].messages[-1]["content"]
    assert content.count("Attempt ") == 2
    values = describe(second, UpdateRecord(0.0, LossStats(), None))
    assert (values["solve_rate/aggregate arithmetic"], values["solve_rate/arithmetic"]) == (0.25, 0.25)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_group_without_scores_says_nothing() -> None:
    _, rates, [found] = collected(lambda *_: "</think>break", config())
    assert [group.num_failed for group in found.groups] == [4] * 4
    assert rates.state()["average"] == {}
    values = describe(found, UpdateRecord(0.0, LossStats(), None))
    assert (values["failed"], values["all_wrong"], values["groups"]) == (16, 0, 4)
