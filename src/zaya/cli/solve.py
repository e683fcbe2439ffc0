"""zaya solve: one question, answered by Markovian RSA: many rollouts in rounds, each reading the ends of some before.

The answer goes to standard output; what the rounds did, to standard error while they do it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zaya.cli.asking import (
    MODEL_HELP,
    QUESTION_HELP,
    add_engine,
    add_loading,
    as_asked,
    check_engine,
    open_chat_model,
    open_engine,
    text,
)
from zaya.cli.printing import note, visible, wrapped, write
from zaya.core.progress import Progress, columns
from zaya.errors import UsageError

if TYPE_CHECKING:
    from zaya.ttc.rsa import RsaConfig
    from zaya.ttc.types import Candidate, Event, Round

_SHORT = 600
"""Characters of reasoning that are shown without being asked for."""
_MOST = 5
"""Answers of a round that are listed."""
_LONGEST = 24
"""Characters of one of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from zaya.ttc.rsa import PRESETS

    parser.add_argument(
        "question", type=text, metavar="QUESTION", help="what to solve, such as 'What is 58 + 67 - 9 + 24?'"
    )
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help=f"one of {', '.join(PRESETS)} (default: micro for the micro model, rsa_16k_4k for others)",
    )
    changes = {
        "--population": ("N", "rollouts of a round"),
        "--fan-in": ("C", "rollouts whose ends a later one reads"),
        "--rounds": ("T", "rounds after the first"),
        "--think-budget": ("B", "tokens of a rollout, but in the last round"),
        "--tail-tokens": ("TAU", "tokens of a rollout that are handed on"),
        "--final-budget": ("F", "tokens of a rollout in the last round"),
    }
    for option, (metavar, help) in changes.items():
        parser.add_argument(option, type=int, metavar=metavar, help=f"{help} (default: the preset's)")
    parser.add_argument("--temperature", type=float, metavar="X", help="(default: the preset's, 1)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same answer (default: 0)")
    parser.add_argument("--show", action="store_true", help="show the reasoning, however long")
    add_loading(parser)
    add_engine(parser)
    parser.epilog = QUESTION_HELP


def run(args: argparse.Namespace) -> int:
    from zaya.ttc.rsa import solve

    check_engine(args)
    if not args.question.strip():
        raise UsageError("the question is empty", hint="such as 'What is 58 + 67 - 9 + 24?'")
    config = configured(args.model, vars(args))
    model, tokenizer = open_chat_model(args.model, args)
    question = as_asked(args.model, args.question)
    started = time.perf_counter()
    with Progress(config.generations, label="round 0") as bar:

        def on_event(event: Event) -> None:
            if event.kind in ("end", "lost") and event.round <= config.rounds:
                bar.update()
            elif event.kind == "round" and event.summary is not None:
                bar.clear()
                bar.label = f"round {event.round + 1}"
                print(told(event.round, event.summary, columns(sys.stderr)), file=sys.stderr, flush=True)

        solution = solve(
            question, open_engine(model, tokenizer, args), tokenizer, config=config, seed=args.seed, on_event=on_event
        )
    if solution.reasoning and (args.show or len(solution.reasoning) <= _SHORT):
        write(solution.reasoning.strip() + "\n\n", dim=True)
    write(solution.text.strip() + "\n")
    answer = "nobody has an answer" if solution.answer is None else f"answer {_shortened(solution.answer)}"
    rollouts, tokens = sum(round.requests for round in solution.rounds), solution.usage.generated_tokens
    note(f"{answer}; {tokens:,} tokens drawn in {rollouts} rollouts, {time.perf_counter() - started:.1f} s")
    return 0


def configured(model: str | None, given: Mapping[str, Any]) -> RsaConfig:
    """The preset with what was given put in its place. Raises UsageError, ConfigError."""
    from zaya.model.embedded import is_micro
    from zaya.ttc.rsa import resolve

    names = (
        "population", "fan_in", "rounds", "think_budget", "tail_tokens", "final_budget", "temperature",
    )  # fmt: skip
    config = resolve(given["preset"] or ("micro" if is_micro(model) else "rsa_16k_4k"))
    changes = {name: given[name] for name in names if given[name] is not None}
    if "population" in changes:  # a small population shows what it has, unless somebody asks for more
        changes.setdefault("fan_in", min(config.fan_in, changes["population"]))
    return replace(config, **changes)


def told(number: int, round: Round, width: int) -> str:
    """What a round did, in a line; the answers in lines of their own where it is too long."""
    count = len(round.candidates)
    parts = [f"round {number}", f"{count} rollout{'' if count == 1 else 's'}"]
    answers = f"answers {_tally(round.candidates)}"
    spent = f"{round.generated_tokens:,} tokens"
    line = "  ".join([*parts, answers, spent])
    if len(line) <= width:
        return line
    return "\n".join(["  ".join([*parts, spent]), wrapped(answers, width, "  ", "    ")])


def _tally(candidates: Sequence[Candidate]) -> str:
    """Such as `73 x5, 75 x2, (none) x1`."""
    counts = Counter("(none)" if c.answer is None else _shortened(c.answer) for c in candidates)
    ranked = sorted(counts.items(), key=lambda item: (item[0] == "(none)", -item[1]))
    shown = [f"{answer} x{count}" for answer, count in ranked[:_MOST]]
    if len(ranked) > _MOST:
        shown.append(f"{len(ranked) - _MOST} more")
    return ", ".join(shown)


def _shortened(answer: str) -> str:
    answer = visible(" ".join(answer.split()))
    return answer if len(answer) <= _LONGEST else f"{answer[: _LONGEST - 1]}…"
