"""Markovian RSA with a model that is a script: whole rounds at a time. Rollout by rollout it is in test_live.py.

1. There are population * (rounds + 1) rollouts, or fewer in the last round if so configured; a round is one call.
2. No prompt shows a tail that is older than the round before; what it shows is what the candidate says.
3. With fan_in 1 every worker continues its own chain.
4. A tail as long as the budget is the whole chain, and so is `full`.
5. One seed, one result: whatever order completions come in, and whoever is solved beside.
6. Usage is what the completer gave out.
7. Failed rollouts are left out, and those next in the draw take their place; empty ones hand nothing on; where nothing
   is left, the last round there was decides.
8. An aggregation prompt has its bound, also where tails grow when encoded again; a question that is too long is refused
   before anything is asked.
9. Reasoning that is cut in the last round is closed as the template does it, and an answer follows within the budget;
   in every round where that is asked for. A chain may go on inside its own reasoning.
10. An aggregator that is right iff one of C tails is right has accuracy 1 - (1 - p)^C, and gets better by rounds.
11. Balanced draws show every tail equally often.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from zaya.engine.scripted import Prompt, ScriptedCompleter
from zaya.engine.types import Completer, Completion, FinishReason, OnProgress, Request
from zaya.errors import ConfigError, UsageError
from zaya.text import byte_tokenizer, render
from zaya.ttc.population import Population
from zaya.ttc.rsa import PRESETS, RsaConfig, resolve, solve_many
from zaya.ttc.types import Solution

TOKENIZER = byte_tokenizer()
SMALL = RsaConfig(
    population=6, fan_in=3, rounds=3, think_budget=100, tail_tokens=40, final_budget=150, answer_reserve=30
)


def content(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def tags_in(text: str) -> list[tuple[int, int]]:
    """(round, seed) of every tag in a text."""
    return [(int(round), int(seed)) for round, seed in re.findall(r"<r(\d+)s(\d+)>", text)]


def tagging(prompt: Prompt, seed: int, index: int) -> str:
    """Reasoning that ends with a tag, one round younger than what it was shown."""
    shown = tags_in(content(prompt))
    round = max((round for round, _ in shown), default=-1) + 1
    return f"hmm <r{round}s{seed}>\n</think>\n\n\\boxed{{{seed % 3}}}"


class Spy:
    """Records calls and what came back; may answer in the reverse order, or lose completions."""

    context = None

    def __init__(self, completer: Completer, lose: Callable[[int, int], bool] | None = None, backwards: bool = False):
        self.completer = completer
        self.lose = lose
        self.backwards = backwards
        self.calls: list[Sequence[Request]] = []
        self.given: list[Completion] = []

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        call = len(self.calls)
        self.calls.append(requests)
        if self.backwards:
            answers = [self.completer.complete([request])[0] for request in reversed(requests)][::-1]
        else:
            answers = self.completer.complete(requests, on_progress=on_progress)
        if self.lose is not None:
            answers = [[] if self.lose(call, i) else answer for i, answer in enumerate(answers)]
        self.given.extend(completion for answer in answers for completion in answer)
        return answers


def spy(script: Callable[[Prompt, int, int], str | None] = tagging, **options: Any) -> Spy:
    return Spy(ScriptedCompleter(TOKENIZER, script), **options)


def solve(question: Any, completer: Completer, tokenizer: Any, *, config: RsaConfig, seed: int = 0) -> Solution:
    [solution] = solve_many([question], completer, tokenizer, config=config, seeds=[seed])
    return solution


def candidates_of(solution: Solution) -> list[Any]:
    return [round.candidates for round in solution.rounds]


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, [6, 6, 6, 6]),
        ({"final_workers": 2}, [6, 6, 6, 2]),
        ({"fan_in": 1}, [6, 6, 6, 6]),
        ({"rounds": 0}, [6]),
        ({"rounds": 0, "final_workers": 1}, [1]),
        ({"population": 1, "fan_in": 1, "rounds": 1}, [1, 1]),
    ],
)
def test_counts(changes: Mapping[str, int], counts: list[int]) -> None:
    config = replace(SMALL, **changes)
    completer, progress = spy(), []
    solutions = solve_many(
        ["one?", "two?"], completer, TOKENIZER, config=config, on_progress=lambda *step: progress.append(step)
    )
    assert [len(call) for call in completer.calls] == [2 * count for count in counts]
    assert sum(counts) == config.generations
    for solution in solutions:
        assert [(r.requests, r.finished, r.truncated) for r in solution.rounds] == [(n, n, 0) for n in counts]
        assert not solution.partial
    assert progress[-1] == (2 * sum(counts), 2 * sum(counts))
    assert progress == sorted(progress)
    budgets = [{request.params.max_tokens for request in call} for call in completer.calls]
    thinking = [{request.params.think_budget for request in call} for call in completer.calls]
    assert budgets == [{100}] * config.rounds + [{150}]
    assert thinking == [{None}] * config.rounds + [{120}]


def test_no_aggregation_without_rounds() -> None:
    completer = spy()
    solve("one?", completer, TOKENIZER, config=replace(SMALL, rounds=0))
    assert {content(request.messages) for request in completer.calls[0]} == {"one?"}


@pytest.mark.parametrize("subset", ["uniform", "balanced"])
def test_only_the_round_before_is_seen(subset: Any) -> None:
    completer = spy()
    solution = solve("one?", completer, TOKENIZER, config=replace(SMALL, subset=subset))
    for round in range(1, 4):
        before = {request.seed: worker for worker, request in enumerate(completer.calls[round - 1])}
        for request, candidate in zip(completer.calls[round], solution.rounds[round].candidates, strict=True):
            shown = tags_in(content(request.messages))
            assert {number for number, _ in shown} == {round - 1}
            assert tuple(before[seed] for _, seed in shown) == candidate.sources
            assert len(set(candidate.sources)) == 3


def test_chains_of_their_own() -> None:
    completer = spy()
    solution = solve("one?", completer, TOKENIZER, config=replace(SMALL, fan_in=1))
    for round in range(1, 4):
        assert [c.sources for c in solution.rounds[round].candidates] == [(worker,) for worker in range(6)]
        for worker, request in enumerate(completer.calls[round]):
            [(_, seed)] = tags_in(content(request.messages))
            assert seed == completer.calls[round - 1][worker].seed


def test_tails_as_long_as_the_budget() -> None:
    config = replace(SMALL, rounds=1)
    long = "".join(map(chr, range(97, 123))) * 10
    seen = []
    for changes in ({"tail_tokens": 100}, {"compaction": "full"}, {"tail_tokens": 20}):
        completer = spy(lambda *_: long)
        solution = solve("one?", completer, TOKENIZER, config=replace(config, **changes))
        seen.append([request.messages for request in completer.calls[1]])
        assert solution.rounds[0].truncated == 6
    assert seen[0] == seen[1] != seen[2]
    assert content(seen[0][0]).count(long[:100]) == 3
    assert content(seen[2][0]).count("\n..." + long[83:100]) == 3


def test_order_by_index() -> None:
    by_index = solve("one?", spy(), TOKENIZER, config=replace(SMALL, order="index"))
    at_random = solve("one?", spy(), TOKENIZER, config=SMALL)
    sources = [c.sources for c in by_index.candidates]
    assert sources == [tuple(sorted(s)) for s in sources]
    assert any(c.sources != tuple(sorted(c.sources)) for c in at_random.candidates)


def test_order_by_frequency() -> None:
    solution = solve("one?", spy(), TOKENIZER, config=replace(SMALL, order="frequency"))
    for round in solution.rounds[1:]:
        shown = Counter(worker for candidate in round.candidates for worker in candidate.sources)
        for candidate in round.candidates:
            ranks = [(-shown[worker], worker) for worker in candidate.sources]
            assert ranks == sorted(ranks)


def test_balanced_draws() -> None:
    solution = solve("one?", spy(), TOKENIZER, config=replace(SMALL, subset="balanced"))
    for round in solution.rounds[1:]:
        shown = Counter(worker for candidate in round.candidates for worker in candidate.sources)
        assert shown == dict.fromkeys(range(6), 3)


def test_one_seed_one_result() -> None:
    alone = solve("one?", spy(), TOKENIZER, config=SMALL, seed=5)
    backwards = solve("one?", spy(backwards=True), TOKENIZER, config=SMALL, seed=5)
    two, beside = solve_many(["two?", "one?"], spy(), TOKENIZER, config=SMALL, seeds=[5, 5])
    assert candidates_of(alone) == candidates_of(backwards) == candidates_of(beside)
    assert (alone.text, alone.answer) == (backwards.text, backwards.answer) == (beside.text, beside.answer)
    other = solve("one?", spy(), TOKENIZER, config=SMALL, seed=6)
    streams = [
        {seed for round in each.rounds for candidate in round.candidates for _, seed in tags_in(candidate.reasoning)}
        for each in (alone, other, two)
    ]
    assert [len(seeds) for seeds in streams] == [24] * 3  # no two rollouts share a stream
    assert len(set.union(*streams)) == 72


def test_usage_is_the_sum_of_what_was_given() -> None:
    def rambling(prompt: Prompt, seed: int, index: int) -> str:
        return tagging(prompt, seed, index) if seed % 2 else "x" * 200

    completer = spy(rambling)
    solution = solve("one?", completer, TOKENIZER, config=SMALL, seed=1)
    assert solution.usage.generated_tokens == sum(len(completion.ids) for completion in completer.given)
    assert solution.usage.prompt_tokens == sum(len(completion.prompt_ids) for completion in completer.given)
    assert any(candidate.is_forced for candidate in solution.candidates)
    first = completer.given[:6]
    assert solution.rounds[0].truncated == sum(c.finish_reason is FinishReason.LENGTH for c in first)
    assert 0 < solution.rounds[0].truncated < 6


def test_failed_rollouts_are_left_out() -> None:
    # of six, the first round loses four: fewer than the three that a prompt would show are left
    completer = spy(lose=lambda call, i: call == 0 and i not in (2, 4))
    solution = solve("one?", completer, TOKENIZER, config=SMALL)
    assert [len(call) for call in completer.calls] == [6, 6, 6, 6]
    assert [candidate.worker for candidate in solution.rounds[0].candidates] == [2, 4]
    assert {tuple(sorted(candidate.sources)) for candidate in solution.rounds[1].candidates} == {(2, 4)}
    assert not solution.partial


def test_empty_rollouts_hand_nothing_on() -> None:
    silent: set[int] = set()

    def script(prompt: Prompt, seed: int, index: int) -> str:
        if "Attempt" not in content(prompt) and len(silent) < 2:
            silent.add(seed)
        return "" if seed in silent else tagging(prompt, seed, index)

    solution = solve("one?", spy(script), TOKENIZER, config=SMALL)
    assert [c.tail for c in solution.rounds[0].candidates[:2]] == ["", ""]
    assert all(not {0, 1} & set(c.sources) for c in solution.rounds[1].candidates)
    silent.clear()
    chains = solve("one?", spy(script), TOKENIZER, config=replace(SMALL, fan_in=1))
    assert [c.sources for c in chains.rounds[1].candidates] == [(), (), (2,), (3,), (4,), (5,)]


def test_rounds_that_fail_as_a_whole() -> None:
    solution = solve("one?", spy(lose=lambda call, i: call == 2), TOKENIZER, config=SMALL)
    assert solution.partial
    assert len(solution.rounds) == 2
    assert solution.text == next(c.text for c in solution.candidates if c.answer == solution.answer)
    assert solution.reasoning == next(c.reasoning for c in solution.candidates if c.answer == solution.answer)
    # a neighbour goes on
    fate = spy(lose=lambda call, i: call == 0 and i < 6)
    lost, whole = solve_many(["one?", "two?"], fate, TOKENIZER, config=SMALL)
    assert (lost.rounds, lost.candidates, lost.answer, lost.text, lost.partial) == ((), (), None, "", True)
    assert [len(call) for call in fate.calls] == [12, 6, 6, 6]
    assert not whole.partial
    # and the last round may be the one that fails
    last = solve("one?", spy(lose=lambda call, i: call == 3), TOKENIZER, config=SMALL)
    assert (last.partial, len(last.rounds)) == (True, 3)


def test_prompts_have_a_bound() -> None:
    config = replace(SMALL, rounds=1, population=4, think_budget=4000, tail_tokens=2000)
    assert config.max_prompt == 3 * 2000 + 4096
    frame = len(render(TOKENIZER, [{"role": "user", "content": ""}]).ids)
    question = "q" * (4096 - frame - 400)

    # broken bytes: each is one token when drawn and three when encoded again
    class Broken(ScriptedCompleter):
        def _complete(self, request: Request, index: int) -> Completion | None:
            completion = super()._complete(request, index)
            assert completion is not None
            ids = (TOKENIZER.encode("é", bos=False)[1],) * len(completion.ids)
            return replace(completion, ids=ids, reasoning_ids=ids)

    completer = Spy(Broken(TOKENIZER, lambda *_: "x" * 3000))
    solve(question, completer, TOKENIZER, config=config)
    lengths = [len(render(TOKENIZER, request.messages).ids) for request in completer.calls[1]]
    assert max(lengths) <= config.max_prompt
    assert min(lengths) > config.max_prompt - 100
    for request in completer.calls[1]:
        assert question in content(request.messages)
        sizes = {len(block) for block in content(request.messages).split("\n\n") if block.startswith("Attempt")}
        assert len(sizes) == 1

    completer = spy()
    with pytest.raises(UsageError, match=r"the question is too long: [\d,]+ tokens in a prompt of at most 10,096"):
        solve("q" * 10_000, completer, TOKENIZER, config=config)
    for empty in ("", " \n", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ""}]):
        with pytest.raises(UsageError, match="the question is empty"):
            solve(empty, completer, TOKENIZER, config=config)
    assert completer.calls == []


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_exceeds_its_bound(name: str) -> None:
    """With the longest question that is allowed, and rollouts as long as they may be."""
    config = replace(PRESETS[name], rounds=1, population=PRESETS[name].fan_in, final_workers=1)
    frame = Population("q", 0, config, TOKENIZER).frame - 1
    question = "q" * (config.max_prompt - config.fan_in * config.carried - frame)
    completer = spy(lambda prompt, seed, index: "x" * (config.carried + 5))
    solve(question, completer, TOKENIZER, config=config)
    [request] = completer.calls[1]
    assert len(render(TOKENIZER, request.messages).ids) <= config.max_prompt
    assert question in content(request.messages)
    assert "\n..." + "x" * (config.carried - 3) in content(request.messages)
    with pytest.raises(UsageError, match="the question is too long"):
        solve("q" * (config.max_prompt - frame + 1), completer, TOKENIZER, config=config)


def test_presets() -> None:
    published = {name: config for name, config in PRESETS.items() if name != "micro"}
    sizes = {
        name: (c.rounds, c.population, c.fan_in, c.think_budget // 1024, c.tail_tokens // 1024, c.max_prompt)
        for name, c in published.items()
    }
    assert sizes == {
        "markovian_baseline": (4, 16, 1, 8, 4, 8192),
        "rsa_8k_4k": (2, 16, 4, 8, 4, 20_480),
        "rsa_16k_4k": (2, 16, 4, 16, 4, 20_480),
        "deploy": (2, 16, 4, 16, 4, 20_480),
        "rsa_40k_4k": (2, 16, 4, 40, 4, 20_480),
        "headline": (2, 16, 4, 40, 4, 20_480),
        "rsa_40k_8k": (2, 16, 4, 40, 8, 36_864),
        "lightweight": (2, 8, 4, 8, 4, 20_480),
        "apex_light": (2, 16, 4, 8, 4, 20_480),
        "apex_high": (8, 16, 4, 16, 4, 20_480),
        "apex_xhigh": (8, 32, 4, 32, 4, 20_480),
    }
    assert {c.final_budget for c in published.values()} == {40_960}
    assert {(c.temperature, c.top_p) for c in PRESETS.values()} == {(1.0, 1.0)}
    assert resolve("deploy", population=8, rounds=0) == replace(PRESETS["deploy"], population=8, rounds=0)
    with pytest.raises(UsageError, match="did you mean rsa_16k_4k"):
        resolve("rsa_16k_4")


def closing(prompt: Prompt, seed: int, index: int) -> str:
    if isinstance(prompt, str):
        return "\\boxed{9}" if prompt.endswith("</think>\n\n") else "and more"
    return "a thought that does not end, " * 20


def test_a_reasoning_that_is_cut_comes_to_an_answer() -> None:
    config = replace(SMALL, rounds=0, population=2, fan_in=1, final_budget=61, answer_reserve=20)
    completer = spy(closing)
    solution = solve("one?", completer, TOKENIZER, config=config)
    [(first, second)] = completer.calls
    assert {(request.params.max_tokens, request.params.think_budget) for request in (first, second)} == {(61, 41)}
    assert first.seed != second.seed
    for candidate, given in zip(solution.candidates, completer.given, strict=True):
        assert (candidate.text, candidate.answer) == ("\\boxed{9}", "9")
        assert (candidate.is_finished, candidate.is_forced) == (True, True)
        assert candidate.generated_tokens == len(given.ids) == 41 + len("\n" + "/" + "\n\n") + len("\\boxed{9}") + 1
        # as the template writes a message with that reasoning
        answer = {"role": "assistant", "content": "\\boxed{9}", "reasoning_content": candidate.reasoning}
        whole = render(TOKENIZER, [{"role": "user", "content": "one?"}, answer]).ids
        written = [*given.prompt_ids, *given.ids]
        assert written == whole[: len(written)]


def test_an_answer_has_what_thinking_left() -> None:
    config = replace(SMALL, rounds=0, population=1, fan_in=1, final_budget=60, answer_reserve=20)
    script = "short\n</think>\n\n" + "answer " * 20
    solution = solve("one?", spy(lambda *_: script), TOKENIZER, config=config)
    [candidate] = solution.candidates
    assert candidate.text == ("answer " * 20)[: 60 - len("short\n") - 1 - 2]
    assert (candidate.is_forced, candidate.is_finished, candidate.generated_tokens) == (False, False, 60)


def test_only_the_last_round_is_closed() -> None:
    solution = solve("one?", spy(closing), TOKENIZER, config=replace(SMALL, rounds=1))
    assert [candidate.text for candidate in solution.rounds[0].candidates] == [""] * 6
    assert all(len(candidate.tail) == 40 for candidate in solution.rounds[0].candidates)
    assert [candidate.text for candidate in solution.rounds[1].candidates] == ["\\boxed{9}"] * 6
    closed = solve("one?", spy(closing), TOKENIZER, config=replace(SMALL, rounds=1, cut="force_close"))
    assert [candidate.text for candidate in closed.rounds[0].candidates] == ["\\boxed{9}"] * 6
    assert all(candidate.is_forced for candidate in closed.rounds[0].candidates)
    # the newline before the tag that closed it is one of the forty
    assert all(len(candidate.tail) == 39 for candidate in closed.rounds[0].candidates)


def test_a_chain_goes_on_inside_its_reasoning() -> None:
    """Delethink: prompts are the question, the beginning of the chain and its end, and a chain that ended stays."""
    letters = "abcdefghijklmnopqrstuvwxyz" * 4

    def script(prompt: Prompt, seed: int, index: int) -> str:
        if not isinstance(prompt, str):
            return letters
        return "END\n</think>\n\n\\boxed{1}" if prompt.endswith("?" * 20) else "?" * 200

    config = RsaConfig(
        population=2, fan_in=1, rounds=3, think_budget=50, tail_tokens=20, head_tokens=6, continuation="prefill",
        final_budget=60, answer_reserve=20,
    )  # fmt: skip
    completer = spy(script)
    solution = solve("one?", completer, TOKENIZER, config=config)
    question = tuple(render(TOKENIZER, [{"role": "user", "content": "one?"}]).ids)
    first, second, third, last = completer.calls
    assert [request.params.max_tokens for request in (first[0], second[0])] == [50, 24]
    for call, shown in ((second, letters[:6] + letters[30:50]), (third, letters[:6] + "?" * 20)):
        for request in call:
            ids = tuple(request.prompt_ids or ())
            assert ids[: len(question)] == question
            assert TOKENIZER.decode(ids[len(question) :]) == shown
    assert last == []
    third_round, final = solution.rounds[2], solution.rounds[3]
    assert [(c.answer, c.generated_tokens > 0) for c in third_round.candidates] == [("1", True)] * 2
    assert [(c.answer, c.generated_tokens, c.prompt_tokens) for c in final.candidates] == [("1", 0, 0)] * 2
    assert not solution.partial


def test_a_system_message_stays() -> None:
    completer = spy()
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one?"}]
    solve(messages, completer, TOKENIZER, config=SMALL)
    assert all((request.messages or [None])[0] == messages[0] for call in completer.calls for request in call)


def test_the_accuracy_of_an_aggregator_on_paper() -> None:
    p, fan_in, problems = 0.2, 3, 150

    def script(prompt: Prompt, seed: int, index: int) -> str:
        text = content(prompt)
        is_right = "RIGHT" in text if "Attempt" in text else random.Random(seed).random() < p
        return "RIGHT\n</think>\n\n\\boxed{1}" if is_right else "WRONG\n</think>\n\n\\boxed{0}"

    solutions = solve_many(
        [f"{i}?" for i in range(problems)], ScriptedCompleter(TOKENIZER, script), TOKENIZER,
        config=replace(SMALL, rounds=2, fan_in=fan_in),
    )  # fmt: skip
    means = []
    for round in range(3):
        rates = [sum(c.answer == "1" for c in s.rounds[round].candidates) / 6 for s in solutions]
        mean = sum(rates) / problems
        error = (sum((rate - mean) ** 2 for rate in rates) / (problems - 1) / problems) ** 0.5
        means.append((mean, error))
    for (mean, error), expected in zip(means, (p, 1 - (1 - p) ** fan_in), strict=False):
        assert abs(mean - expected) < 3 * error
        assert error < 0.04
    assert means[0][0] < means[1][0] < means[2][0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 0}, "population must be at least 1: 0"),
        ({"fan_in": 17}, "fan_in must be between 1 and population: 17, 16"),
        ({"fan_in": 0}, "fan_in must be between"),
        ({"rounds": -1}, "rounds must not be negative: -1"),
        ({"tail_tokens": 20_000}, "tail_tokens must be between 1 and think_budget: 20000, 16384"),
        ({"answer_reserve": 40_960}, "answer_reserve must be below final_budget: 40960, 40960"),
        ({"answer_reserve": 0}, "answer_reserve must be at least 1: 0"),
        ({"final_workers": 17}, "final_workers must be between 1 and population: 17, 16"),
        ({"subset": "balance"}, "did you mean balanced"),
        ({"barrier": "quorums"}, "did you mean quorum"),
        ({"quorum": 0.0}, "quorum must be above 0 and at most 1: 0.0"),
        ({"head_tokens": 5}, "head_tokens needs continuation = 'prefill': 5"),
        ({"continuation": "prefill"}, "goes on with one chain's reasoning: fan_in 4"),
        ({"continuation": "prefill", "fan_in": 1, "tail_tokens": 16_384}, "leave nothing of think_budget to write"),
    ],
)
def test_impossible_configurations(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RsaConfig(**settings)
