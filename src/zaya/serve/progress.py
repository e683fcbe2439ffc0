"""What is told of a population at work: `rsa_progress` in a stream, and of each rollout in the `rsa` block at its end.

Events come from `ttc.live` in the event loop and leave as plain values. Answers are put into groups of those that say
the same, so that who shows them need not know mathematics; comparing takes a while, and is done in a thread. Told by
`serve.rsa`, shown by the page (`serve/ui/population.js`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from zaya.ttc.config import RsaConfig
from zaya.ttc.report import round_mapping
from zaya.ttc.types import Candidate, Event, Round, Solution
from zaya.ttc.vote import Groups

_OF_A_ROLLOUT = ("is_finished", "is_forced", "prompt_tokens", "generated_tokens")


class News:
    """What happened since somebody asked. How far a rollout is counts once, as it is by then."""

    def __init__(self, config: RsaConfig, run: Mapping[str, Any], groups: Groups, *, with_candidates: bool) -> None:
        """`run`: the settings beside the configuration, told before anything else."""
        self.groups = groups
        self._rounds = config.rounds
        self._with_candidates = with_candidates
        settings = {**asdict(config), **run}
        plan = [{"workers": config.workers(round), **_budget(config, round)} for round in range(config.rounds + 1)]
        self._events: list[dict[str, Any]] = [{"kind": "plan", "at": 0.0, "rounds": plan, "settings": settings}]
        self._grown: dict[tuple[int, int], dict[str, Any]] = {}
        self._answers: list[tuple[dict[str, Any], str | None]] = []
        """Of events that were not taken yet, to be put into groups."""

    def note(self, event: Event) -> None:
        place = (event.round, event.worker)
        told = {"kind": event.kind, "at": round(event.at, 3), "round": event.round, "worker": event.worker}
        match event.kind:
            case "grow":
                self._grown[place] = {**told, "tokens": event.tokens, "is_answering": event.is_answering}
                return
            case "start":
                told["sources"] = list(event.sources)
            case "retry" | "lost":
                told["why"] = event.text
            case "end" if event.candidate is not None:
                told |= self._ended(event.candidate)
                self._answers.append((told, event.candidate.answer))
            case "round" if event.summary is not None:
                told = {**_without_worker(told), **round_mapping(event.summary)}
            case "choice" if event.solution is not None:
                told |= _chosen(event.solution, self._rounds) or {"worker": None}
                told |= {"selection": event.solution.selection, "answer": event.solution.answer}
        self._grown.pop(place, None)
        self._events.append(told)

    async def take(self) -> list[dict[str, Any]]:
        events, self._events, self._grown = [*self._events, *self._grown.values()], [], {}
        answers, self._answers = self._answers, []
        if answers:
            await asyncio.to_thread(self._group, answers)
        return events

    def _ended(self, candidate: Candidate) -> dict[str, Any]:
        if self._with_candidates:
            return {"candidate": asdict(candidate)}
        names = ("answer", *_OF_A_ROLLOUT)
        return {**{name: getattr(candidate, name) for name in names}, "sources": list(candidate.sources)}

    def _group(self, answers: list[tuple[dict[str, Any], str | None]]) -> None:
        for told, answer in answers:
            told["group"] = _group_of(answer, self.groups)


def told_of_rollouts(solution: Solution, config: RsaConfig, groups: Groups, told: Mapping[str, Any]) -> dict[str, Any]:
    """What `ttc.report` tells of a solution, with who was chosen and a line for each rollout. Compares answers: for a
    thread."""
    rounds = [
        {**mapping, **_budget(config, number), "rollouts": _rollouts(round, groups)}
        for number, (mapping, round) in enumerate(zip(told["rounds"], solution.rounds, strict=True))
    ]
    closing = solution.closing and {**told["closing"], "rollouts": _rollouts(solution.closing, groups)}
    return {
        "rounds": rounds,
        "closing": closing,
        "chosen": _chosen(solution, config.rounds),
        "groups": list(groups.first),
    }


def _rollouts(round: Round, groups: Groups) -> list[dict[str, Any]]:
    return [
        {
            "worker": candidate.worker,
            "sources": list(candidate.sources),
            "group": _group_of(candidate.answer, groups),
            **{name: getattr(candidate, name) for name in _OF_A_ROLLOUT},
        }
        for candidate in round.candidates
    ]


def _group_of(answer: str | None, groups: Groups) -> int | None:
    return None if answer is None else groups.of(answer)


def _chosen(solution: Solution, last: int) -> dict[str, int] | None:
    """Where the chosen candidate is; the round behind the last is the call that weighed them."""
    if solution.chosen is None:
        return None
    is_closing = solution.closing is not None and solution.chosen in solution.closing.candidates
    return {"round": last + 1 if is_closing else len(solution.rounds) - 1, "worker": solution.chosen.worker}


def _budget(config: RsaConfig, round: int) -> dict[str, Any]:
    return {"budget": config.params(round).max_tokens}


def _without_worker(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "worker"}
