"""Requests with instructions that a rule can check: `instruct/keywords.existence` and so on, `instruct/mixed`.

    Write a diary entry about a tea house. Use the words "harbour", "lantern" and "maple".

    In your entire response, refrain from the use of any commas.
    The answer needs at least 20 words of its own, ...

The whole visible answer is judged, strictly: it follows every instruction as it stands (`instructions`), and it is an
answer to this request (`demand`). What IFEval calls loose, without first or last line or asterisks, is
`is_loosely_right`, and for reports only (`eval.run`). Difficulty d asks for 20 + 10 d words and more of what an
instruction counts; `mixed` attaches 1 + d instructions. Every problem was solved once (`solve`), and keeps that answer
as its reference.

Source: spec post-training 11; IFEval (arXiv 2311.07911), IFBench (arXiv 2507.02833).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from zaya.core.rng import derive_seed
from zaya.envs.base import About, Problem, Score, Status
from zaya.envs.instruct import checkers
from zaya.envs.instruct.demand import demand, lacks
from zaya.envs.instruct.instructions import ANCHORS, BY_NAME, OFFERED, Arguments, Instruction
from zaya.envs.instruct.solve import EDIT, Writer, solve
from zaya.envs.instruct.words import NAMES, REQUESTS, TOPICS
from zaya.envs.pool import is_worker
from zaya.errors import UsageError, did_you_mean

PREFIX = "instruct/"
MIXED = "mixed"
LONGEST_ANSWER = 10_000
"""Characters. Some checkers take quadratic time, up to two seconds here; what is asked for takes 200 words."""
_HIGHEST = 5
_HIGHEST_MIXED = 4
_MENTIONS = 3
_TRIES = 12
"""Draws before a seed counts as one without a problem."""


def names() -> tuple[str, ...]:
    return (*(PREFIX + name for name in sorted(BY_NAME)), PREFIX + MIXED)


def environment(name: str) -> InstructEnvironment:
    return InstructEnvironment(name)


class InstructEnvironment:
    """One instruction, or several of those that can be combined."""

    version = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self._short = name.removeprefix(PREFIX)
        if self._short not in (*BY_NAME, MIXED):
            raise UsageError(
                f"there is no instruction {self._short!r}", hint=did_you_mean(self._short, (*BY_NAME, MIXED), PREFIX)
            )
        highest = _HIGHEST_MIXED if self._short == MIXED else _HIGHEST
        self.about = About("instructions", "Apache-2.0", highest=highest, frame="%s")
        if is_worker():
            checkers.load()

    def sample(self, seed: int, difficulty: int) -> Problem | None:
        rng = random.Random(derive_seed("instruct", self._short, self.version, seed, difficulty))
        for _ in range(_TRIES):
            if (problem := self._draw(rng, seed, difficulty)) is not None:
                return problem
        return None

    def score(self, problem: Problem, text: str) -> Score:
        if len(text) > LONGEST_ANSWER:
            return Score(0.0, False, Status.ANSWER_LIMIT, detail=f"{len(text)} characters, {LONGEST_ANSWER} are judged")
        if not text.strip():
            return Score(0.0, False, Status.BAD_FORMAT, detail="there is no answer")
        if missing := _lacks(problem.prompt, problem.meta, text):
            return Score(0.0, False, answer=text, detail=missing)
        for name, arguments in problem.meta["instructions"]:
            if not follows(BY_NAME[name], arguments, text):
                return Score(0.0, False, answer=text, detail=f"does not follow {name}")
        return Score(1.0, True, answer=text)

    def is_loosely_right(self, problem: Problem, text: str) -> bool:
        """As IFEval judges loosely: each instruction is followed by the answer, or by what is left of it without its
        first line, its last or both, with its asterisks or without."""
        if len(text) > LONGEST_ANSWER or not text.strip() or _lacks(problem.prompt, problem.meta, text):
            return False
        lines = text.split("\n")
        cuts = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
        variants = [cut for cut in (*cuts, *(cut.replace("*", "") for cut in cuts)) if cut.strip()]
        return all(
            any(follows(BY_NAME[name], arguments, variant) for variant in variants)
            for name, arguments in problem.meta["instructions"]
        )

    def reference(self, problem: Problem) -> str:
        return problem.meta["reference"]

    def _draw(self, rng: random.Random, seed: int, difficulty: int) -> Problem | None:
        is_mixed = self._short == MIXED
        chosen = _compatible(rng, 1 + difficulty) if is_mixed else [BY_NAME[self._short]]
        mentions = rng.sample(
            NAMES if any(i.names for i in chosen) else [w for w in ANCHORS if all(i.usable(w) for i in chosen)],
            _MENTIONS,
        )
        number = min(20 + 10 * difficulty, *(i.most for i in chosen))
        demands = all(i.demands for i in chosen)
        wanted = _wanted(mentions, any(i.names for i in chosen))
        request = f"{rng.choice(REQUESTS).format(topic=rng.choice(TOPICS))} {wanted}"
        pairs = [(i, i.draw(rng, difficulty, request)) for i in chosen]
        for _, arguments in pairs:
            if "_request" in arguments:
                request = f"{arguments['_request']} {wanted}" if demands else arguments["_request"]
        lines = [wording(i, arguments) for i, arguments in pairs]
        if is_mixed and len(lines) > 1:
            lines = [f"{place}. {line}" for place, line in enumerate(lines, 1)]
        prompt = "\n".join([request, "", *lines, *([demand(number)] if demands else [])])
        meta: dict[str, Any] = {
            "instructions": [[i.name, arguments] for i, arguments in pairs],
            "words": number if demands else None,
            "mentions": mentions if demands else [],
        }
        problem = Problem(self.name, prompt, meta, difficulty, seed, self.version)
        writer = Writer(rng, request, mentions, number)
        reference = solve(pairs, writer, lambda text: self.score(problem, text).correct)
        if reference is None:
            return None
        meta["reference"] = reference
        return problem


def wording(instruction: Instruction, arguments: Arguments) -> str:
    """What a prompt says of an instruction, on one line unless the package has more."""
    if instruction.wording is None:
        return checkers.describe(instruction.id, _of_package(arguments))
    return instruction.wording.format(**arguments)


def follows(instruction: Instruction, arguments: Arguments, text: str) -> bool:
    """Whether a text does what the package checks, and what else we ask. Never raises."""
    if not instruction.alone and not checkers.follows(instruction.id, _of_package(arguments), text):
        return False
    if instruction.more is None:
        return True
    try:
        return instruction.more(text, arguments)
    except (ValueError, IndexError, RecursionError):  # JSON and CSV that break off, texts without a word
        return False


def _of_package(arguments: Arguments) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if not name.startswith("_")}


def _lacks(prompt: str, meta: Any, text: str) -> str | None:
    return None if meta["words"] is None else lacks(text, prompt, meta["words"], meta["mentions"])


def _wanted(mentions: Sequence[str], are_names: bool) -> str:
    *first, last = [f'"{word}"' for word in mentions]
    return f"Use the {'names' if are_names else 'words'} {', '.join(first)} and {last}."


def _compatible(rng: random.Random, number: int) -> list[Instruction]:
    """Instructions that can be combined and that no table says exclude each other. That a text can follow them all,
    `solve` finds out."""
    excluded = checkers.conflicts()
    candidates = [instruction for instruction in OFFERED if instruction.id in EDIT]
    rng.shuffle(candidates)
    chosen: list[Instruction] = []
    for candidate in candidates:
        if len(chosen) < number and not any(candidate.id in excluded.get(other.id, ()) for other in chosen):
            chosen.append(candidate)
    return chosen
