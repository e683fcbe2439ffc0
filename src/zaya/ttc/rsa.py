"""Markovian RSA: rounds of rollouts, each of which sees only the ends of a few rollouts of the round before.

    round 0          population rollouts of the question
    rounds 1 .. T    population rollouts, each of the question and fan_in tails of the round before
    the end          the last round may answer at length, and its candidates are all there is to choose from

So contexts stay short however long the thinking is. One core (`ttc.population`: who reads whom, what each is asked),
driven in two ways, over any `Completer`: `solve` works on one question, rollout by rollout (`ttc.live`); `solve_many`
takes many questions through their rounds together, the same work in the same batches every time, as evaluations want
it. Source: report as in spec markovian-rsa 2 to 4.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from zaya.core.rng import derive_seed
from zaya.engine.types import Completer, OnProgress, Structure
from zaya.text import Tokenizer
from zaya.ttc.config import PRESETS, RsaConfig, resolve
from zaya.ttc.live import Choosing, Live, OnEvent, check_options
from zaya.ttc.population import Population, Question, Rollout
from zaya.ttc.trace import Trace
from zaya.ttc.types import Solution
from zaya.ttc.vote import Behaviour, Equivalent, Extract, Judge, Selection, boxed, check_selection, select

P = ParamSpec("P")

__all__ = ["PRESETS", "Question", "RsaConfig", "asolve", "resolve", "solve", "solve_many"]


async def asolve(
    question: Question,
    completer: Completer,
    tokenizer: Tokenizer | None = None,
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
    behaviour: Behaviour | None = None,
    judge: Judge | None = None,
    structure: Structure | None = None,
    deadline_s: float | None = None,
    max_concurrency: int | None = None,
    retries: int = 1,
    trace: Path | str | None = None,
    on_event: OnEvent | None = None,
) -> Solution:
    """Solve one problem. `config` takes the place of `preset`; population, fan_in and rounds override either.

    tokenizer: that of the model; none takes the one that the completer has. A server that counts its tokens can do
        without.
    selection: how the answer is chosen (`ttc.vote.Selection`). equivalent: whether two answers say the same; none
        compares them as mathematics. behaviour, judge: what "behaviour" and "external" ask.
    structure: what answers of the last round must look like; rollouts before it are free text.
    deadline_s: seconds after which the best there is is returned, `partial`.
    max_concurrency: rollouts under way at once; none for as many as the population.
    retries: how often a rollout that failed is asked for again, before it is left out.
    trace: a file that every rollout is written to; what it holds of the same run is not done again.
    on_event: told what happens, as it happens.

    Raises, before anything is asked, UsageError for a question that is empty or too long and for a setting that does
    not exist, ConfigError for numbers that do not go together; CompletionError where a whole round failed, or nothing
    had ended by the deadline. Being cancelled ends what is under way.
    """
    config = resolve(preset, config, population=population, fan_in=fan_in, rounds=rounds)
    check_selection(selection, config.workers(config.rounds), behaviour, judge)
    check_options(max_concurrency, retries, deadline_s)
    tokenizer = tokenizer or getattr(completer, "tokenizer", None)
    people = await asyncio.to_thread(Population, question, seed, config, tokenizer, completer.context, structure)
    choosing = Choosing(
        selection=selection, extract=extract, equivalent=equivalent or _as_mathematics(), behaviour=behaviour,
        judge=judge,
    )  # fmt: skip
    with Trace(None if trace is None else Path(trace), people, seed, selection) as record:
        live = Live(
            people, completer, choosing, record, max_concurrency=max_concurrency, retries=retries, on_event=on_event
        )
        return await live.run(deadline_s)


def _waited_for(ask: Callable[P, Coroutine[Any, Any, Solution]]) -> Callable[P, Solution]:
    """The same, for those who have no event loop, or cannot await in theirs, as in a notebook."""

    @wraps(ask)
    def solve(*args: P.args, **kwargs: P.kwargs) -> Solution:
        def work() -> Solution:
            return asyncio.run(ask(*args, **kwargs))

        return work() if not _in_event_loop() else _in_thread(work)

    solve.__name__ = solve.__qualname__ = "solve"
    return solve


solve = _waited_for(asolve)
"""`asolve`, waited for. Ctrl-C ends what is under way."""


def solve_many(
    questions: Sequence[Question],
    completer: Completer,
    tokenizer: Tokenizer | None,
    *,
    config: RsaConfig,
    seeds: Sequence[int] | None = None,
    extract: Extract = boxed,
    equivalent: Equivalent | None = None,
    on_progress: OnProgress | None = None,
) -> list[Solution]:
    """Solve problems together: the completer is asked once for a whole round of all of them.

    What comes out for a question depends on it and its seed (0 where none is given), not on its neighbours, and is
    what `solve` comes to. Where a question is to be solved several times over, the seeds have to differ. Nothing is
    asked again, and where a whole round failed, the round before decides: the solution is `partial`, or has no rounds.
    `on_progress` is told about rollouts.
    """
    seeds = [0] * len(questions) if seeds is None else seeds
    populations = [
        Population(question, own, config, tokenizer, completer.context)
        for question, own in zip(questions, seeds, strict=True)
    ]
    done, total = 0, config.generations * len(populations)
    for round in range(config.rounds + 1):
        begun = time.perf_counter()
        asked: list[tuple[Population, Rollout]] = []
        requests = []
        for people in populations:
            for rollout in _started(people, round):
                request = people.request(rollout)
                if request is None:
                    people.carry_on(rollout)
                else:
                    asked.append((people, rollout))
                    requests.append(request)
        base = done
        answers = completer.complete(
            requests,
            on_progress=None if on_progress is None else lambda now, _, base=base: on_progress(base + now, total),
        )
        wall_s = time.perf_counter() - begun
        for (people, rollout), answer in zip(asked, answers, strict=True):
            rollout.ended = wall_s
            if answer:
                people.accept(rollout, answer[0], people.carried(answer[0]))
            else:
                rollout.lost = "failed"
        done += len(asked)
    same = equivalent or _as_mathematics()
    return [_solution(people, extract, same) for people in populations]


def _started(people: Population, round: int) -> list[Rollout]:
    """The rollouts of a round, with what they read; none where there is nothing to go on with."""
    if round and not people.hands_on(round - 1):
        return []
    rollouts = people.rounds[round]
    for rollout in rollouts:
        rollout.sources = people.sources(rollout)
    return rollouts


def _solution(people: Population, extract: Extract, equivalent: Equivalent) -> Solution:
    records = [people.record(number, extract) for number in range(len(people.rounds))]
    while records and not records[-1].candidates:
        records.pop()
    seed = derive_seed(*people.name, "choice")
    choice = select(records[-1].candidates if records else (), "auto", seed, equivalent=equivalent)
    chosen = choice.candidate
    return Solution(
        answer=None if chosen is None else chosen.answer,
        text="" if chosen is None else chosen.text,
        reasoning="" if chosen is None else chosen.reasoning,
        rounds=tuple(records),
        selection=choice.how,
        tally=choice.tally,
        chosen=chosen,
        partial=len(records) < len(people.rounds),
    )


def _as_mathematics() -> Equivalent:
    from zaya.envs.math.equivalence import equivalent

    return equivalent


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_thread(work: Callable[[], Solution]) -> Solution:
    """In a loop of its own beside the one that runs, as in a notebook."""
    found: list[Solution] = []
    failed: list[BaseException] = []

    def target() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=target, name="zaya-solve", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
