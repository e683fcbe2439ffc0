"""One population at work, rollout by rollout: who may start, who is asked again, when it is over.

    every rollout:  wait for the tails it reads ─► a slot ─► ask, again where that failed ─► hand on, and write down

A task of asyncio for each; nothing is polled. What a rollout reads is drawn by `ttc.population`, so starting it as soon
as its tails are there changes no result. Ends early by a deadline, which leaves what there is, by being cancelled,
which ends every request under way, and where a whole round failed. Source: spec markovian-rsa 6.2 and 8.3. Public face:
`ttc.rsa`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from zaya.core.rng import derive_seed
from zaya.engine.types import Completer, Completion, FinishReason, Request
from zaya.errors import CompletionError, UsageError, ZayaError
from zaya.ttc.population import Population, Rollout
from zaya.ttc.trace import Trace
from zaya.ttc.types import Candidate, Event, Round, Solution
from zaya.ttc.vote import Behaviour, Choice, Equivalent, Extract, Judge, Selection, select

OnEvent = Callable[[Event], None]
"""Told what happens, in the event loop: it must not wait."""

_WEIGHING_TEMPERATURE = 0.2
"""Of the call that weighs the last candidates (spec 8.2: low)."""
LATE = "late"
"""Why a rollout was given up that no prompt could show any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choosing:
    """How the last candidates become an answer."""

    selection: Selection
    extract: Extract
    equivalent: Equivalent | None
    behaviour: Behaviour | None
    judge: Judge | None


class Live:
    """Drives one population over a completer."""

    def __init__(
        self,
        population: Population,
        completer: Completer,
        choosing: Choosing,
        trace: Trace,
        *,
        max_concurrency: int | None,
        retries: int,
        on_event: OnEvent | None,
    ) -> None:
        self.population = population
        self.config = population.config
        self.completer = completer
        self.choosing = choosing
        self.trace = trace
        self.retries = retries
        self.on_event = on_event
        self._slots = asyncio.Semaphore(max_concurrency or self.config.population)
        self._changed = asyncio.Condition()
        self._asked: dict[Rollout, asyncio.Task[None]] = {}
        self._closed: set[int] = set()
        self._last_failure = ""
        """What the last completion that failed said of it."""
        self._start = time.monotonic() - trace.restore(population)

    async def run(self, deadline_s: float | None) -> Solution:
        """Raises CompletionError where a whole round failed, or nothing had ended by the deadline."""
        stopped, closing, choice = None, None, None
        limit = asyncio.timeout(deadline_s)
        try:
            async with limit:
                await self._rounds()
                choice, closing = await self._choose()
        except TimeoutError:
            if not limit.expired():
                raise
            stopped = "deadline"
        solution = self._solution(choice, closing, stopped)
        at = self._now()
        self.trace.chose(solution, at)
        self._tell(kind="choice", at=at, round=self.config.rounds, solution=solution)
        return solution

    # ----- the rounds

    async def _rounds(self) -> None:
        for number in range(len(self.population.rounds)):
            self._close(number, quietly=True)
        try:
            async with asyncio.TaskGroup() as group:
                for rollouts in self.population.rounds:
                    for rollout in rollouts:
                        if not rollout.is_over:
                            self._asked[rollout] = group.create_task(self._rollout(rollout))
        except BaseExceptionGroup as errors:  # the first one ended the others
            raise errors.exceptions[0] from None
        last = self.population.rounds[-1]
        if all(rollout.lost is not None for rollout in last):
            raise self._dead(self.config.rounds)

    async def _rollout(self, rollout: Rollout) -> None:
        population = self.population
        if rollout.round:
            async with self._changed:
                await self._changed.wait_for(lambda: self._may_start(rollout))
        try:
            async with self._slots:
                if self._is_over_before(rollout.round):
                    return
                rollout.sources = population.sources(rollout, now=self.config.barrier == "quorum")
                if self.config.barrier == "quorum":
                    self._give_up_late(rollout.round - 1)
                rollout.begun = self._now()
                request = await asyncio.to_thread(population.request, rollout)
                if request is None:
                    population.carry_on(rollout)
                else:
                    completion = await self._ask(rollout, request)
                    if completion is not None:
                        tail = await asyncio.to_thread(population.carried, completion)
                        # here and not in the thread: from now on others read it, whole
                        population.accept(rollout, completion, tail)
                rollout.ended = self._now()
                self._note(rollout)
        except asyncio.CancelledError:
            if rollout.lost != LATE:
                raise
            rollout.ended = self._now()
            self._note(rollout)
        async with self._changed:
            self._close(rollout.round)
            self._changed.notify_all()

    def _may_start(self, rollout: Rollout) -> bool:
        """Whether it is known what a rollout reads. Raises CompletionError where there will never be anything."""
        before = rollout.round - 1
        if self.population.is_over(before):
            if all(other.completion is None for other in self.population.rounds[before]):
                raise self._dead(before)
            return True
        if self._is_over_before(rollout.round):
            return True
        match self.config.barrier:
            case "full":
                return False
            case "quorum":
                return self.population.has_quorum(before) and self.population.hands_on(before)
            case _:
                return self.population.sources(rollout) is not None

    def _is_over_before(self, round: int) -> bool:
        """Whether some round before handed nothing on: all it wrote is empty, and there is nothing to go on with."""
        return any(
            self.population.is_over(earlier) and not self.population.hands_on(earlier) and self.config.fan_in > 1
            for earlier in range(round)
        )

    def _give_up_late(self, before: int) -> None:
        """End those of a round that nobody can show any more: every prompt of the next round has what it shows."""
        if before < 0 or any(reader.sources is None for reader in self.population.rounds[before + 1]):
            return
        for rollout in self.population.rounds[before]:
            if not rollout.is_over:
                rollout.lost = LATE
                self._asked[rollout].cancel()

    async def _ask(self, rollout: Rollout, request: Request) -> Completion | None:
        """What came back; None where it failed as often as it may. Errors of the caller are raised at once."""
        for attempt in range(self.retries + 1):
            self._tell(
                kind="start", at=self._now(), round=rollout.round, worker=rollout.worker, sources=rollout.sources or ()
            )
            try:
                return await self._completion(rollout, request)
            except ZayaError as error:
                if not isinstance(error, CompletionError):
                    raise
                why, self._last_failure = error.kind, error.message
            except Exception as error:  # whatever a completer fails with is a rollout that failed
                why, self._last_failure = type(error).__name__, f"{type(error).__name__}: {error}"
            if attempt < self.retries:
                self._tell(kind="retry", at=self._now(), round=rollout.round, worker=rollout.worker, text=why)
            else:
                rollout.lost = why
        return None

    async def _completion(self, rollout: Rollout, request: Request) -> Completion:
        handle = self.completer.submit(request)
        tokens, is_answering = 0, False
        try:
            if self.on_event is not None:
                async for delta in handle:
                    tokens += len(delta.ids)
                    is_answering |= bool(delta.text)
                    self._tell(
                        kind="grow",
                        at=self._now(),
                        round=rollout.round,
                        worker=rollout.worker,
                        tokens=tokens,
                        text=delta.reasoning + delta.text,
                        is_answering=is_answering,
                    )
            completions = await handle.result()
        finally:
            handle.cancel()
        if not completions:
            failures = getattr(handle, "failures", None) or {0: CompletionError("nothing came back")}
            raise failures[0]
        if completions[0].finish_reason is FinishReason.CANCELLED:
            raise CompletionError("it was cancelled by another", kind="cancelled")
        return completions[0]

    def _note(self, rollout: Rollout) -> None:
        at, place = rollout.ended, {"round": rollout.round, "worker": rollout.worker}
        if rollout.completion is None:
            self.trace.lost(rollout)
            self._tell(kind="lost", at=at, text=rollout.lost, **place)
            return
        candidate = self.population.candidate(rollout, self.choosing.extract)
        self.trace.ended(rollout, candidate)
        self._tell(kind="end", at=at, candidate=candidate, **place)

    def _close(self, round: int, *, quietly: bool = False) -> None:
        """Say that a round is over, once."""
        if round in self._closed or not self.population.is_over(round):
            return
        self._closed.add(round)
        if not quietly:
            summary = self.population.record(round, self.choosing.extract)
            self._tell(kind="round", at=self._now(), round=round, summary=summary)

    def _dead(self, round: int) -> CompletionError:
        lost = Counter(str(rollout.lost) for rollout in self.population.rounds[round])
        kinds = ", ".join(f"{count} {kind}" for kind, count in lost.most_common())
        return CompletionError(
            f"every rollout of round {round} failed, after {round} of {self.config.rounds + 1} rounds: {kinds}",
            kind="dead round",
            hint=f"the last one: {self._last_failure}" if self._last_failure else "ask again for what was lost",
        )

    # ----- the choice

    async def _choose(self) -> tuple[Choice, Round | None]:
        number = self._last_round()
        candidates = self._candidates(number)
        choice = await self._select(candidates, self.choosing.selection, may_ask=True)
        if choice.how != "aggregate" or choice.candidate is not None:
            return choice, None
        closing = await self._weigh(number)
        if closing.candidates:
            return replace(choice, candidate=closing.candidates[0]), closing
        return await self._select(candidates, "majority", may_ask=False), closing

    async def _select(self, candidates: tuple[Candidate, ...], selection: Selection, *, may_ask: bool) -> Choice:
        how = self.choosing
        return await asyncio.to_thread(
            select, candidates, selection, derive_seed(*self.population.name, "choice"), equivalent=how.equivalent,
            behaviour=how.behaviour, judge=how.judge, may_ask=may_ask,
        )  # fmt: skip

    async def _weigh(self, number: int) -> Round:
        """Ask once more, with the tails of up to `fan_in` of the last candidates."""
        shown = [rollout for rollout in self.population.rounds[number] if rollout.tail]
        seed = derive_seed(*self.population.name, "rollout", self.config.rounds + 1, 0)
        shown = sorted(shown, key=lambda rollout: derive_seed(seed, rollout.worker))[: self.config.fan_in]
        rollout = Rollout(self.config.rounds + 1, 0, seed, tuple(reader.worker for reader in shown))
        params = replace(self.population.params(self.config.rounds), temperature=_WEIGHING_TEMPERATURE)
        rollout.begun = self._now()
        request = await asyncio.to_thread(self.population.weighing, shown, params, seed)
        completion = await self._ask(rollout, request)
        rollout.ended = self._now()
        if completion is not None:
            self.population.accept(rollout, completion, self.population.carried(completion))
        self._note(rollout)
        candidates = () if completion is None else (self.population.candidate(rollout, self.choosing.extract),)
        lost = {} if rollout.lost is None else {rollout.lost: 1}
        return Round(candidates=candidates, requests=1, wall_s=rollout.ended - rollout.begun, lost=lost)

    def _last_round(self) -> int:
        """The last round with an answer; where nobody has one, the last with a candidate."""
        with_candidates = [n for n in range(self.config.rounds + 1) if self._candidates(n)]
        answered = [n for n in with_candidates if any(candidate.answer for candidate in self._candidates(n))]
        if self.population.is_over(self.config.rounds) and self._candidates(self.config.rounds):
            return self.config.rounds
        return max(answered or with_candidates, default=0)

    def _candidates(self, round: int) -> tuple[Candidate, ...]:
        return self.population.record(round, self.choosing.extract).candidates

    def _solution(self, choice: Choice | None, closing: Round | None, stopped: str | None) -> Solution:
        population, last = self.population, self._last_round()
        if choice is None:  # no time for more than a look at what there is
            how = self.choosing
            selection: Selection = "majority" if how.selection == "majority" else "auto"
            seed = derive_seed(*population.name, "choice")
            choice = select(self._candidates(last), selection, seed, equivalent=how.equivalent)
        if not self._candidates(last):
            raise CompletionError(
                "the deadline passed before any rollout had ended", kind="deadline",
                hint="allow more time, or lower think_budget",
            )  # fmt: skip
        chosen = choice.candidate
        is_whole = population.is_over(self.config.rounds) and last == self.config.rounds
        return Solution(
            answer=None if chosen is None else chosen.answer,
            text="" if chosen is None else chosen.text,
            reasoning="" if chosen is None else chosen.reasoning,
            rounds=tuple(population.record(number, self.choosing.extract) for number in range(last + 1)),
            selection=choice.how,
            tally=choice.tally,
            chosen=chosen,
            closing=closing,
            partial=not is_whole,
            stopped=stopped if stopped is not None else None if is_whole else "empty",
        )

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _tell(self, **values: Any) -> None:
        if self.on_event is not None:
            self.on_event(Event(**values))


def check_options(max_concurrency: int | None, retries: int, deadline_s: float | None) -> None:
    """Raises UsageError for numbers that mean nothing."""
    if max_concurrency is not None and max_concurrency < 1:
        raise UsageError(f"max_concurrency must be at least 1: {max_concurrency}")
    if retries < 0:
        raise UsageError(f"retries must not be negative: {retries}")
    if deadline_s is not None and not deadline_s > 0:
        raise UsageError(f"deadline_s must be above 0: {deadline_s}")
