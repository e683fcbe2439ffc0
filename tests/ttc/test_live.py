"""One population at work, rollout by rollout, over completers that are slow, fail, or never answer.

1. What comes out is what `solve_many` comes to, whatever order rollouts end in, however few may be under way, and
   whether a prompt starts early or after the whole round.
2. A prompt starts as soon as the tails it shows are there; with a quorum, when that part of a round is over, showing
   what is there, and what nobody can show any more is given up.
3. A rollout that fails is asked again, then left out and counted by kind; the draw takes the next one instead.
4. A round that fails as a whole is an error that says which, and of what; a caller's mistake is raised as it is.
5. A deadline leaves the best there is, marked partial; being cancelled, or Ctrl-C, ends every request under way.
6. A run that was interrupted goes on from its record without asking again for what had ended, and comes to the same.
7. The record of another run, or anything else, is refused; a replay tells the same events.
8. Events: every rollout starts and ends, growth adds up to its text, rounds close in order, the choice is last.
9. The answer may be weighed by one more call, at a low temperature, with tails of the last candidates alone.
10. It works from inside an event loop, and in a thread of its own.
11. A question too long for the context is refused before anything is asked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.ttc.test_rsa import SMALL, TOKENIZER, content, tagging, tags_in
from zaya.engine.scripted import Prompt, Script, ScriptedCompleter
from zaya.engine.types import Completion, Delta, Request
from zaya.errors import CompletionError, UsageError
from zaya.ttc import population
from zaya.ttc.rsa import RsaConfig, asolve, solve, solve_many
from zaya.ttc.trace import replay
from zaya.ttc.types import Event, Solution


class SlowHandle:
    """Answers when it is told to."""

    def __init__(self, owner: Slow, request: Request, completions: list[Completion]) -> None:
        self.owner, self.request, self.completions = owner, request, completions
        self.is_cancelled = self.is_done = False

    async def __aiter__(self) -> AsyncIterator[Delta]:
        for completion in await self.result():
            half = len(completion.ids) // 2
            yield Delta(index=0, ids=completion.ids[:half], text="", reasoning=completion.reasoning)
            yield Delta(index=0, ids=completion.ids[half:], text=completion.text)

    async def result(self) -> list[Completion]:
        if not self.is_done:
            await self.owner.wait(self.request)
            self.is_done = True
        return self.completions

    def cancel(self) -> None:
        if not self.is_done:
            self.is_cancelled = True


class Slow(ScriptedCompleter):
    """Takes a number of turns of the event loop for a request, or for ever; notes who was under way together."""

    def __init__(self, script: Script = tagging, turns: Callable[[Request], int | None] = lambda _: 1) -> None:
        super().__init__(TOKENIZER, script)
        self.turns = turns
        self.handles: list[SlowHandle] = []
        self.under_way = self.most = 0
        self.ended: list[Request] = []

    def submit(self, request: Request) -> Any:
        [completions] = self.complete([request])
        self.handles.append(SlowHandle(self, request, completions))
        return self.handles[-1]

    async def wait(self, request: Request) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            turns = self.turns(request)
            if turns is None:
                await asyncio.Event().wait()
            for _ in range(turns or 0):
                await asyncio.sleep(0.0005)
        finally:
            self.under_way -= 1
        self.ended.append(request)


def by_seed(request: Request) -> int:
    return request.seed % 7


def candidates_of(solution: Solution) -> list[Any]:
    return [round.candidates for round in solution.rounds]


def live(completer: Any, config: RsaConfig = SMALL, **options: Any) -> Solution:
    return solve("one?", completer, TOKENIZER, config=config, **options)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"barrier": "full"}, {"fan_in": 1}, {"rounds": 0}, {"subset": "balanced"}, {"order": "frequency"},
        {"final_workers": 2}, {"compaction": "hybrid"},
    ],
)  # fmt: skip
def test_it_comes_to_what_whole_rounds_come_to(changes: Mapping[str, Any]) -> None:
    config = replace(SMALL, **changes)
    [expected] = solve_many(["one?"], ScriptedCompleter(TOKENIZER, tagging), TOKENIZER, config=config, seeds=[5])
    for options in ({}, {"max_concurrency": 1}, {"max_concurrency": 20}):
        slow = Slow(turns=by_seed)
        solution = live(slow, config, seed=5, **options)
        assert candidates_of(solution) == candidates_of(expected)
        assert (solution.text, solution.answer, solution.tally) == (expected.text, expected.answer, expected.tally)
        assert slow.most <= options.get("max_concurrency", 6)
        assert not solution.partial
        assert len(slow.requests) == config.generations


@pytest.mark.parametrize("barrier", ["full", "early"])
def test_a_tail_that_takes_a_while_is_waited_for(barrier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, barrier=barrier)
    [expected] = solve_many(["one?"], ScriptedCompleter(TOKENIZER, tagging), TOKENIZER, config=config, seeds=[5])
    carry = population.carry

    def slowly(tokenizer: Any, completion: Completion, *more: Any) -> str:
        time.sleep(len(completion.ids) % 3 * 0.005)
        return carry(tokenizer, completion, *more)

    monkeypatch.setattr(population, "carry", slowly)
    for _ in range(3):
        assert candidates_of(live(Slow(turns=by_seed), config, seed=5)) == candidates_of(expected)


def test_prompts_start_early() -> None:
    """With one rollout that takes long, everything that does not read it, or of it, is over before it."""
    slowest = Slow()
    live(slowest, seed=1)
    stuck = slowest.requests[0].seed

    def turns(request: Request) -> int:
        return 60 if request.seed == stuck else 1

    early, full = Slow(turns=turns), Slow(turns=turns)
    solution = live(early, seed=1)
    assert candidates_of(solution) == candidates_of(live(full, replace(SMALL, barrier="full"), seed=1))
    place = [request.seed for request in early.ended].index(stuck)
    readers = sum(0 not in candidate.sources for candidate in solution.rounds[1].candidates)
    assert readers > 0
    assert place >= 5 + readers
    assert [request.seed for request in full.ended].index(stuck) == 5


def test_a_quorum_goes_on_without_the_last() -> None:
    config = replace(SMALL, barrier="quorum", quorum=0.65, rounds=1)
    first = Slow()
    live(first, config)
    never = {request.seed for request in first.requests[:2]}
    slow = Slow(turns=lambda request: None if request.seed in never else 1)
    solution = live(slow, config, max_concurrency=20)
    assert [candidate.worker for candidate in solution.rounds[0].candidates] == [2, 3, 4, 5]
    assert solution.rounds[0].lost == {"late": 2}
    assert all(set(candidate.sources) <= {2, 3, 4, 5} for candidate in solution.candidates)
    assert not solution.partial
    assert [handle.is_cancelled for handle in slow.handles] == [True, True, *[False] * 10]
    # who waits for a slot shows what has come in by then
    late = {request.seed for request in first.requests[3:5]}
    few = live(Slow(turns=lambda request: 9 if request.seed in late else 1), config, max_concurrency=3)
    shown = {worker for candidate in few.candidates for worker in candidate.sources}
    assert shown & {3, 4}


def failing(lose: Callable[[int, int], bool]) -> tuple[Slow, Counter[int]]:
    """A completer whose rollouts fail as `lose` of (place of the rollout, attempt) says."""
    places: dict[int, int] = {}
    attempts: Counter[int] = Counter()

    def script(prompt: Prompt, seed: int, index: int) -> str | None:
        place = places.setdefault(seed, len(places))
        attempts[place] += 1
        return None if lose(place, attempts[place]) else tagging(prompt, seed, index)

    return Slow(script), attempts


def test_failures_are_tried_again_then_left_out() -> None:
    once, attempts = failing(lambda place, attempt: attempt == 1)
    healthy = live(Slow())
    assert candidates_of(live(once)) == candidates_of(healthy)
    assert set(attempts.values()) == {2}
    # of six the first round loses four: fewer than the three that a prompt would show are left
    events: list[Event] = []
    twice, attempts = failing(lambda place, _: place in (0, 1, 3, 5))
    solution = live(twice, on_event=events.append)
    assert [candidate.worker for candidate in solution.rounds[0].candidates] == [2, 4]
    assert solution.rounds[0].lost == {"failed": 4}
    assert {tuple(sorted(candidate.sources)) for candidate in solution.rounds[1].candidates} == {(2, 4)}
    assert [attempts[place] for place in range(7)] == [2, 2, 1, 2, 1, 2, 1]
    assert Counter(event.kind for event in events)["retry"] == Counter(event.kind for event in events)["lost"] == 4
    # one that is lost is replaced by the next of the draw, and nothing else changes
    one, _ = failing(lambda place, _: place == 0)
    replaced = live(one)
    for before, after in zip(healthy.rounds[1].candidates, replaced.rounds[1].candidates, strict=True):
        assert 0 not in after.sources
        assert [worker for worker in before.sources if worker] == list(after.sources)[: len(set(before.sources) - {0})]


class Broken(Slow):
    """Handles raise."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def wait(self, request: Request) -> None:
        raise self.error


def test_a_round_without_any_is_an_error() -> None:
    with pytest.raises(CompletionError, match="every rollout of round 0 failed, after 0 of 4 rounds: 6 timeout"):
        live(Broken(CompletionError("no byte", kind="timeout")), retries=0)
    with pytest.raises(CompletionError, match="6 timeout\nhint: the last one: no byte"):
        live(Broken(CompletionError("no byte", kind="timeout")))
    with pytest.raises(CompletionError, match="round 0 failed, after 0 of 4 rounds: 6 OSError"):
        live(Broken(OSError("refused")))
    later, _ = failing(lambda place, _: 6 <= place < 12)
    with pytest.raises(CompletionError, match="every rollout of round 1 failed, after 1 of 4 rounds: 6 failed"):
        live(later)
    last, _ = failing(lambda place, _: place >= 18)
    with pytest.raises(CompletionError, match="every rollout of round 3 failed, after 3 of 4 rounds: 6 failed"):
        live(last)
    with pytest.raises(CompletionError, match="every rollout of round 0 failed"):
        live(Broken(OSError("refused")), replace(SMALL, rounds=0))
    with pytest.raises(UsageError, match="too hot"):
        live(Broken(UsageError("too hot")))


def test_what_is_empty_ends_it() -> None:
    def script(prompt: Prompt, seed: int, index: int) -> str:
        return "" if "Attempt" in content(prompt) else tagging(prompt, seed, index)

    solution = live(Slow(script))
    assert (solution.partial, solution.stopped, len(solution.rounds)) == (True, "empty", 1)
    assert solution.answer is not None


def test_a_deadline_leaves_what_there_is() -> None:
    seeds = Slow()
    live(seeds)
    last = {request.seed for request in seeds.requests[6:]}
    slow = Slow(turns=lambda request: None if request.seed in last else 1)
    solution = live(slow, deadline_s=0.2)
    assert (solution.partial, solution.stopped, len(solution.rounds)) == (True, "deadline", 1)
    assert solution.answer == Counter(c.answer for c in solution.candidates).most_common(1)[0][0]
    assert slow.under_way == 0
    assert all(handle.is_done or handle.is_cancelled for handle in slow.handles)
    with pytest.raises(CompletionError, match="deadline passed before any rollout had ended"):
        live(Slow(turns=lambda _: None), deadline_s=0.05)


def test_being_cancelled_ends_everything() -> None:
    slow = Slow(turns=lambda _: None)

    async def work() -> None:
        task = asyncio.create_task(asolve("one?", slow, TOKENIZER, config=SMALL))
        while slow.under_way < 6:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert slow.under_way == 0
    assert [handle.is_cancelled for handle in slow.handles] == [True] * 6


def test_a_run_goes_on_from_its_record(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    whole = live(Slow(turns=by_seed), seed=3)

    class Interrupted(Slow):
        async def wait(self, request: Request) -> None:
            await super().wait(request)
            if len(self.ended) == 10:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live(Interrupted(turns=by_seed), seed=3, trace=path)
    with path.open("ab") as file:
        file.write(b'{"kind": "rollout", "rou')  # killed while it wrote
    kept = [row for row in map(json.loads, path.read_bytes().splitlines()[1:-1]) if row["kind"] == "rollout"]
    assert 6 <= len(kept) <= 10
    # a round is over where all of its rollouts are
    ended = Counter(row["round"] for row in kept)
    assert [event.round for event in replay(path)[1] if event.kind == "round"] == [r for r in ended if ended[r] == 6]
    rest = Slow(turns=by_seed)
    solution = live(rest, seed=3, trace=path)
    assert candidates_of(solution) == candidates_of(whole)
    assert (solution.answer, solution.usage) == (whole.answer, whole.usage)
    assert len(rest.requests) == 24 - len(kept)
    # and once it is whole nothing is asked
    again = Slow()
    assert candidates_of(live(again, seed=3, trace=path)) == candidates_of(whole)
    assert again.requests == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"seed": 4}, "seed is 3 there, 4 here"), ({"config": replace(SMALL, rounds=1)}, "settings is"),
     ({"selection": "random"}, "selection is 'auto' there")],
)  # fmt: skip
def test_the_record_of_another_run(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    live(Slow(), seed=3, trace=path)
    given = {"seed": 3, "config": SMALL, **changes}
    with pytest.raises(UsageError, match=message):
        solve("one?", Slow(), TOKENIZER, trace=path, **given)
    with pytest.raises(UsageError, match="question is"):
        solve("two?", Slow(), TOKENIZER, config=SMALL, seed=3, trace=path)
    path.write_bytes(path.read_bytes().replace(b'"candidate"', b'"candidat"', 1))
    with pytest.raises(UsageError, match=r"run\.jsonl:2 is damaged: KeyError 'candidate'"):
        live(Slow(), seed=3, trace=path)
    for text in ("hello\n", '{"records": "samples"}\n', ""):
        path.write_text(text)
        with pytest.raises(UsageError, match="is not a trace"):
            replay(path)


def test_events_and_their_replay(tmp_path: Path) -> None:
    events: list[Event] = []
    solution = live(Slow(turns=by_seed), seed=2, trace=tmp_path / "run.jsonl", on_event=events.append)
    check_events(events, solution)
    header, told = replay(tmp_path / "run.jsonl")
    check_events(told, solution)
    assert header["question"] == [{"role": "user", "content": "one?"}]
    assert [event.at for event in told] == sorted(event.at for event in told)
    assert told[-1].solution == events[-1].solution == solution


def check_events(events: Sequence[Event], solution: Solution) -> None:
    assert (events[-1].kind, events[-1].solution) == ("choice", solution)
    closed = [event.round for event in events if event.kind == "round"]
    assert closed == [0, 1, 2, 3]
    for number, round in enumerate(solution.rounds):
        for candidate in round.candidates:
            own = [e for e in events if (e.round, e.worker) == (number, candidate.worker) and e.kind != "round"]
            own = [event for event in own if event.kind != "choice"]
            assert (own[0].kind, own[-1].kind) == ("start", "end")
            assert own[0].sources == candidate.sources
            assert own[-1].candidate == candidate
            grown = [event for event in own if event.kind == "grow"]
            assert (candidate.reasoning + candidate.text).startswith("".join(event.text for event in grown)[:20])
            assert [event.tokens for event in grown] == sorted(event.tokens for event in grown)
            assert grown[-1].tokens <= candidate.generated_tokens
            assert [event.is_answering for event in grown] == sorted(event.is_answering for event in grown)
            assert grown[-1].is_answering


def test_one_more_call_weighs_the_last() -> None:
    def script(prompt: Prompt, seed: int, index: int) -> str:
        final = len(tags_in(content(prompt))) > 0 and {r for r, _ in tags_in(content(prompt))} == {3}
        return "weighed\n</think>\n\n\\boxed{77}" if final else tagging(prompt, seed, index)

    slow = Slow(script)
    events: list[Event] = []
    solution = live(slow, selection="aggregate", on_event=events.append)
    assert (solution.answer, solution.selection) == ("77", "aggregate")
    last = slow.requests[-1]
    assert len(slow.requests) == 25
    assert len(tags_in(content(last.messages or ""))) == SMALL.fan_in
    assert last.params.temperature < 0.5
    assert solution.closing is not None
    spent = sum(round.generated_tokens for round in solution.rounds)
    assert solution.usage.generated_tokens == spent + solution.closing.candidates[0].generated_tokens
    assert [event.round for event in events if event.kind == "end"][-1] == 4
    # where it fails, the majority decides
    lost, _ = failing(lambda place, _: place == 24)
    solution = live(lost, selection="aggregate")
    assert (solution.selection, solution.closing is not None) == ("majority", True)
    assert solution.answer == solution.tally[0][0]


def test_equivalent_answers_vote_together() -> None:
    answers = ["1/2", "0.5", "\\frac{1}{2}", "3", "3", "4"]
    drawn = iter(answers)
    slow = Slow(lambda *_: f"so\n</think>\n\n\\boxed{{{next(drawn)}}}")
    solution = live(slow, replace(SMALL, rounds=0))
    assert (solution.tally, solution.answer) == ((("1/2", 3), ("3", 2), ("4", 1)), "1/2")


def test_inside_an_event_loop() -> None:
    async def work() -> tuple[Solution, Solution]:
        return live(Slow(), seed=4), await asolve("one?", Slow(), TOKENIZER, config=SMALL, seed=4)

    beside, within = asyncio.run(work())
    assert candidates_of(beside) == candidates_of(within) == candidates_of(live(Slow(), seed=4))


def test_what_does_not_fit_is_refused_before_anything_is_asked() -> None:
    small = Slow()
    small.context = 300
    with pytest.raises(UsageError, match=r"may take \d+ tokens, and the model's context holds 300"):
        live(small)
    for options, message in (
        ({"retries": -1}, "retries must not be negative: -1"),
        ({"max_concurrency": 0}, "max_concurrency must be at least 1: 0"),
        ({"deadline_s": 0}, "deadline_s must be above 0: 0"),
        ({"selection": "majorty"}, "did you mean majority"),
    ):
        with pytest.raises(UsageError, match=message):
            live(small, **options)
    assert small.requests == []


def test_what_need_not_be_said(tmp_path: Path) -> None:
    """A completer that has a tokenizer brings it along, and a trace may be named by a text."""
    path = tmp_path / "run.jsonl"
    found = solve("one?", Slow(), config=SMALL, trace=str(path))
    given = live(Slow())
    assert [c.text for c in found.candidates] == [c.text for c in given.candidates]
    assert [c.tail for c in found.rounds[0].candidates] == [c.tail for c in given.rounds[0].candidates]
    assert path.exists()
    with pytest.raises(UsageError, match="deadline_s must be above 0: nan"):
        solve("one?", Slow(), config=SMALL, deadline_s=float("nan"))
