"""zaya solve: one question, answered by Markovian RSA: many rollouts in rounds, each reading the ends of some before.

The answer goes to standard output; the population, to standard error while it works. Its options are here, what it
looks like in `cli.population`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
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
from zaya.cli.printing import note, notice, write
from zaya.cli.rounds import OPTIONS, add_rounds, configured, in_options, naming_options
from zaya.cli.screen import clipped, one_line
from zaya.errors import CompletionError, ConfigError, UsageError, did_you_mean

if TYPE_CHECKING:
    from zaya.engine.types import Completer
    from zaya.text import Tokenizer
    from zaya.ttc.rsa import RsaConfig
    from zaya.ttc.types import Event, Solution

_SHORT = 600
"""Characters of reasoning that are shown without being asked for."""
_MOST_OF_QUESTION = 240
"""Columns that are shown with a replay."""
_SELECTIONS = ("auto", "majority", "aggregate", "single", "random")
"""Those that need no function to ask."""
_LOCAL = {
    "dtype": None, "quantize": None, "device": "cpu", "kv": "model", "speculate": 0, "deterministic": False,
    "threads": None,
}  # fmt: skip
"""Options of a model that is loaded here, and what they are where nobody gives them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "question", nargs="?", type=text, metavar="QUESTION",
        help="what to solve, such as 'What is 58 + 67 - 9 + 24?'; not needed with --replay",
    )  # fmt: skip
    parser.add_argument("--model", metavar="MODEL", help=f"{MODEL_HELP}; with --url, what the server calls it")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same answer (default: 0)")
    add_rounds(parser)
    work = parser.add_argument_group("work")
    work.add_argument(
        "--selection", default="auto", metavar="HOW",
        help=f"how the answer is chosen: {', '.join(_SELECTIONS)} (default: auto, the majority where there is one)",
    )  # fmt: skip
    work.add_argument(
        "--deadline", type=float, metavar="SECONDS", help="then the best there is becomes the answer (default: none)"
    )
    work.add_argument("--concurrency", type=int, metavar="N", help="rollouts at once (default: all of a round)")
    work.add_argument("--retries", type=int, default=1, metavar="N", help="of a rollout that failed (default: 1)")
    work.add_argument(
        "--trace", type=Path, metavar="FILE",
        help="keep every rollout; the same command with a trace that was interrupted goes on from there",
    )  # fmt: skip
    work.add_argument("--replay", type=Path, metavar="FILE", help="show a trace again, without a model")
    work.add_argument("--speed", type=float, metavar="X", help="of a replay; 0 waits for nothing (default: 1)")
    shown = parser.add_argument_group("output")
    shown.add_argument("--show", action="store_true", help="show the reasoning, however long")
    shown.add_argument(
        "--json", action="store_true",
        help='one JSON object: answer, text, rounds, usage, settings; "partial" says whether the rounds were complete',
    )  # fmt: skip
    shown.add_argument("--candidates", action="store_true", help="with --json, texts and tails of all rollouts too")
    server = parser.add_argument_group("server", "in place of a model that is loaded here")
    server.add_argument("--url", metavar="URL", help="of a server with OpenAI's API, such as http://localhost:8000/v1")
    server.add_argument("--api-key-env", metavar="VAR", help="the environment variable that holds the server's key")
    server.add_argument(
        "--tokenizer", type=Path, metavar="DIR",
        help="the directory, or the tokenizer.json, of its model: what is handed on is then cut exactly",
    )  # fmt: skip
    add_loading(parser)
    add_engine(parser)
    parser.epilog = (
        f"{QUESTION_HELP} Exit codes: 0 with an answer, also a partial one; 2 where something is wrong; 130 for Ctrl-C."
    )


def run(args: argparse.Namespace) -> int:
    _check(args)
    if args.replay is not None:
        return _replay(args)
    from zaya.ttc.rsa import solve
    from zaya.ttc.vote import check_selection

    config = configured(args.model if args.url is None else args.url, vars(args))
    with naming_options():
        check_selection(args.selection, config.workers(config.rounds), None, None)
    for warning in config.warnings:
        notice(f"warning: {in_options(warning)}")
    before = [] if args.trace is None else _kept(args, config)
    with ExitStack() as stack:
        asked = _open(args, stack)
        started = time.perf_counter()
        with _naming_trace(args.trace), _watching(args, config, before, asked) as watch, naming_options(has_prose=True):
            solution = solve(
                asked.question, asked.completer, asked.tokenizer, config=config, seed=args.seed,
                selection=args.selection, deadline_s=args.deadline, max_concurrency=args.concurrency,
                retries=args.retries, trace=args.trace, on_event=watch,
            )  # fmt: skip
        seconds = time.perf_counter() - started
    drawn = solution.usage.generated_tokens - sum(e.candidate.generated_tokens for e in before if e.candidate)
    _print(args, solution, config, args.seed, args.selection, seconds, drawn / seconds)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot work, before anything is loaded."""
    from zaya.ttc.live import check_options

    check_engine(args)
    if args.candidates and not args.json:
        raise UsageError("--candidates is for --json", hint="add --json, or read them in what --trace keeps")
    if args.replay is not None:
        given = [f"--{name}" for name in ("trace", "url") if getattr(args, name) is not None]
        if given:
            raise UsageError(f"--replay asks nobody, so {given[0]} has no effect", hint="leave one of them out")
        if args.speed is not None and not 0 <= args.speed < float("inf"):
            raise UsageError(f"--speed must not be negative: {args.speed}")
        return
    if args.speed is not None:
        raise UsageError("--speed is for --replay", hint="leave it out")
    if args.question is None:
        raise UsageError("there is no question", hint="such as 'What is 58 + 67 - 9 + 24?'")
    if not args.question.strip():
        raise UsageError("the question is empty", hint="such as 'What is 58 + 67 - 9 + 24?'")
    if args.selection not in _SELECTIONS:
        raise UsageError(f"there is no --selection {args.selection}", hint=did_you_mean(args.selection, _SELECTIONS))
    with naming_options():
        check_options(args.concurrency, args.retries, args.deadline)
    if args.url is None:
        if given := [name for name in ("api_key_env", "tokenizer") if getattr(args, name) is not None]:
            raise UsageError(f"--{given[0].replace('_', '-')} is for --url", hint="leave it out, or name a server")
        return
    if args.model is None:
        raise UsageError("--url needs --model", hint="the name that the server has for it")
    if given := [name for name, default in _LOCAL.items() if getattr(args, name) != default]:
        raise UsageError(f"--{given[0]} is for a model that is loaded here, and --url asks a server")


# ----- who is asked


@dataclass(frozen=True, slots=True)
class _Asked:
    question: str
    completer: Completer
    tokenizer: Tokenizer | None


def _open(args: argparse.Namespace, stack: ExitStack) -> _Asked:
    """A model that is loaded here, or a server."""
    if args.url is None:
        model, tokenizer = open_chat_model(args.model, args)
        return _Asked(as_asked(args.model, args.question), open_engine(model, tokenizer, args), tokenizer)
    from zaya.engine import remote
    from zaya.text import load_tokenizer

    key, tokenizer = None, None
    if args.api_key_env is not None:
        key = os.environ.get(args.api_key_env)
        if not key:
            raise UsageError(f"--api-key-env names a variable that is not set: {args.api_key_env}")
    if args.tokenizer is not None:
        directory = args.tokenizer.parent if args.tokenizer.name == "tokenizer.json" else args.tokenizer
        tokenizer = load_tokenizer(directory)
        if tokenizer is None:
            raise UsageError(f"{directory} has no tokenizer files", hint="add tokenizer.json to it")
    completer = stack.enter_context(remote.RemoteCompleter(args.url, args.model, api_key=key, tokenizer=tokenizer))
    return _Asked(args.question, completer, tokenizer)


# ----- what is shown


@contextmanager
def _watching(
    args: argparse.Namespace, config: RsaConfig, before: list[Event], asked: _Asked | None = None
) -> Iterator[Any]:
    from zaya.cli.watching import Watch

    def trouble() -> CompletionError | None:
        return None if asked is None else getattr(asked.completer, "last_error", None)  # of a server

    deadline_s = None if args.replay is not None else args.deadline
    speed = 1.0 if args.speed is None else args.speed
    with Watch(
        config, before=before, deadline_s=deadline_s, terminal_only=args.json, speed=speed, trouble=trouble
    ) as watch:
        try:
            yield watch
        except CompletionError as error:
            if error.kind == "deadline" and (last := trouble()) is not None:
                error.hint = f"the server's last trouble: {last.message}"
            raise


def _print(
    args: argparse.Namespace, solution: Solution, config: RsaConfig, seed: int, selection: str, seconds: float,
    speed: float,
) -> None:  # fmt: skip
    from zaya.ttc.report import as_mapping

    if args.json:
        run = {"selection": selection}
        if args.replay is None:
            run |= {"deadline_s": args.deadline, "max_concurrency": args.concurrency, "retries": args.retries}
        found = as_mapping(solution, config, seed=seed, with_candidates=args.candidates, **run)
        print(json.dumps({**found, "wall_s": seconds}))
    else:
        if solution.reasoning and (args.show or len(solution.reasoning) <= _SHORT):
            write(solution.reasoning.strip() + "\n\n", dim=True)
        write(solution.text.strip() + "\n")
    if not args.json or sys.stderr.isatty():
        note(summary(solution, seconds, speed))


def summary(solution: Solution, seconds: float, speed: float) -> str:
    """How the answer was chosen, and what it took."""
    from zaya.cli.population import shortened, tally

    usage = solution.usage
    requests = sum(round.requests for round in (*solution.rounds, *([solution.closing] if solution.closing else [])))
    answer = "nobody has an answer" if solution.answer is None else f"answer {shortened(solution.answer)}"
    votes = ", ".join(tally([candidate.answer for candidate in solution.candidates]))
    parts = [f"{answer}, by {solution.selection} of {votes}"]
    if solution.partial:
        parts.append(f"partial ({solution.stopped})" if solution.stopped else "partial")
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    parts.append(f"{usage.generated_tokens:,} tokens drawn in {requests} rollouts")
    parts.append(f"{usage.prompt_tokens:,} read{cached}")
    parts.append(f"{seconds:.1f} s, {speed:,.0f} tokens/s")
    return "; ".join(parts)


# ----- records


def _kept(args: argparse.Namespace, config: RsaConfig) -> list[Event]:
    """What a trace that is gone on with holds: rollouts that are not done again. Raises UsageError."""
    from zaya.ttc.trace import replay

    path: Path = args.trace
    if not path.exists() or b"\n" not in path.read_bytes():
        return []
    header, events = replay(path)
    question = as_asked(args.model if args.url is None else args.url, args.question)
    if header["question"] != [{"role": "user", "content": question}]:
        there_asked = one_line(str(header["question"][-1:] and header["question"][-1].get("content")))
        raise UsageError(
            f"{path} is of another question: {clipped(there_asked, _MOST_OF_QUESTION)}",
            hint="give the same command to go on, or name another file",
        )
    there = {"seed": header["seed"], "selection": header["selection"], **header["settings"]}
    here = {"seed": args.seed, "selection": args.selection, **asdict(config)}
    for name, value in here.items():
        if there.get(name) != value:
            option = OPTIONS.get(name, f"--set {name}")
            raise UsageError(
                f"{path} is of another run: {option} is {there.get(name)} there, {value} here",
                hint="give the same command to go on, or name another file",
            )
    ended = {(e.round, e.worker) for e in events if e.kind == "end" and e.round <= config.rounds}
    if ended:
        notice(f"{path} holds {len(ended)} of {config.generations} rollouts")
    whole = {e.round for e in events if e.kind == "round" and e.summary is not None and not e.summary.lost}
    return [
        e for e in events
        if (e.kind in ("start", "end") and (e.round, e.worker) in ended) or (e.kind == "round" and e.round in whole)
    ]  # fmt: skip


@contextmanager
def _naming_trace(path: Path | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if path is not None:
            notice(f"{path} holds what has ended; the same command goes on from there")
        raise


def _replay(args: argparse.Namespace) -> int:
    """Show a record again."""
    from zaya.cli.watching import play
    from zaya.ttc.rsa import RsaConfig
    from zaya.ttc.trace import replay

    header, events = replay(args.replay)
    try:
        config = RsaConfig(**header["settings"])
        question, seed, selection = header["question"][-1]["content"], header["seed"], header["selection"]
    except (ConfigError, TypeError, KeyError, IndexError) as error:
        raise UsageError(f"{args.replay} is of settings that do not exist here: {error}") from error
    speed = 0.0 if args.json else 1.0 if args.speed is None else args.speed
    if not args.json:
        note(clipped(one_line(str(question)), _MOST_OF_QUESTION))
    with _watching(args, config, []) as watch:
        play(events, watch, speed)
    solution = next((event.solution for event in reversed(events) if event.solution is not None), None)
    if solution is None:
        raise UsageError(
            f"{args.replay} has no answer yet: it was interrupted after "
            f"{sum(event.kind == 'end' for event in events)} of {config.generations} rollouts",
            hint="the command that wrote it, with --trace, goes on from there",
        )
    seconds = events[-1].at
    _print(args, solution, config, seed, selection, seconds, solution.usage.generated_tokens / max(seconds, 1e-9))
    return 0
