"""zaya generate: continue a prompt with a checkpoint, once or several times, and print it as it comes.

What was drawn goes to standard output, what it took to standard error. Where an answer must have a structure, programs
read it: then standard output has the answers alone, and thinking goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zaya.cli.answers import Answers, noting_ctrl_c, texts
from zaya.cli.asking import (
    MODEL_HELP,
    MOST_AT_ONCE,
    QUESTION_HELP,
    add_engine,
    add_loading,
    add_sampling,
    as_asked,
    check_engine,
    cut_note,
    open_engine,
    open_model,
    sampling_params,
    standard_input,
    text,
    utf8,
)
from zaya.cli.printing import dimmed, note, notice, show_chat, show_ids, show_structured, show_text
from zaya.core.progress import amount
from zaya.engine.types import SamplingParams, Structure
from zaya.errors import UsageError

if TYPE_CHECKING:
    from zaya.engine.engine import Engine
    from zaya.model.transformer import ZayaModel
    from zaya.text import Tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("prompt", type=text, metavar="PROMPT", help="the question; '-' reads it from standard input")
    parser.add_argument("-n", type=int, default=1, metavar="N", help="draw N answers, all at once (default: 1)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="continue the text itself, without the chat format")
    form.add_argument("--ids", action="store_true", help="PROMPT is token ids, such as '2 17 40', and ids come out")
    parser.add_argument("--system", type=text, metavar="TEXT", help="a system message before the question")
    parser.add_argument("--no-thinking", action="store_true", help="ask for the answer at once")
    structured = parser.add_argument_group(
        "structured answers", "for programs: thinking is free, and goes to standard error"
    ).add_mutually_exclusive_group()
    structured.add_argument(
        "--json", metavar="FILE", help="JSON as the schema in this file says; the schema {} is any JSON"
    )
    structured.add_argument(
        "--regex", type=text, metavar="PATTERN", help="a text that this regular expression matches as a whole"
    )
    structured.add_argument(
        "--choice", type=text, action="append", metavar="TEXT", help="one of several texts, with a --choice for each"
    )
    add_sampling(parser)
    add_loading(parser)
    add_engine(parser)
    parser.epilog = QUESTION_HELP


def run(args: argparse.Namespace) -> int:
    params = sampling_params(args, _structure(args))
    _check(args, params)
    asked = utf8(standard_input().read()) if args.prompt == "-" else args.prompt
    if not args.raw and not asked.strip():
        raise UsageError("the prompt is empty", hint="give a question; --raw alone goes on from nothing")
    given = _ids(asked) if args.ids else None

    started = time.perf_counter()
    model, tokenizer = open_model(args.model, args)
    loaded = time.perf_counter()
    if given is None and tokenizer is None:
        raise UsageError(
            f"{args.model} has no tokenizer files", hint="add tokenizer.json to it, or give token ids with --ids"
        )
    engine = open_engine(model, None if args.ids else tokenizer, args, max_batch=min(args.n, MOST_AT_ONCE))
    prompt = _prompt(args, tokenizer, asked) if given is None else given
    context = model.config.max_positions
    if len(prompt) >= context:
        raise UsageError(
            f"the prompt has {len(prompt):,} tokens, and the model's context holds {context:,}",
            hint="shorten it: an answer needs room as well",
        )
    params = replace(params, max_tokens=min(params.max_tokens, context - len(prompt)))

    stream = engine.stream(prompt, params, n=args.n, seed=args.seed)
    with noting_ctrl_c(raises=True) as was_pressed, closing(stream) as deltas:
        answers = Answers(deltas, args.n, is_stopped=was_pressed)
        show = _shown(args, engine, params, prompt, answers)
        try:
            for index in range(args.n):
                if args.n > 1 and not args.ids:
                    _heading(index, args.n, sys.stderr if params.structure else sys.stdout)
                show(index)
            if was_pressed():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            if answers.tokens:
                print(flush=True)  # what is there stays, and ends its line
            raise
    if (cut := cut_note(answers, params, prompt, context)) is not None:
        note(cut)
    took = [f"loaded in {loaded - started:.1f} s"]
    if args.quantize is not None:
        took.append(f"weights in {amount(_weight_bytes(model), 'B')}")
    cached = engine.stats.prefix_tokens
    took.append(_count(len(prompt), "prompt token") + (f" ({cached:,} cached)" if cached else ""))
    notice(", ".join([*took, *_speed(answers, loaded)]))
    return 0


def _check(args: argparse.Namespace, params: SamplingParams) -> None:
    """Refuse what cannot work, before anything is loaded."""
    check_engine(args)
    if args.n < 1:
        raise UsageError(f"-n must be at least 1: {args.n}")
    if args.n > 1 and args.temperature == 0:
        raise UsageError(
            f"-n {args.n} with --temperature 0 gives the same answer {args.n} times", hint="leave one of them out"
        )
    if (args.raw or args.ids) and (args.system is not None or args.no_thinking):
        raise UsageError(
            "--system and --no-thinking belong to the chat format, which --raw and --ids do without",
            hint="leave them out, or ask without --raw and --ids",
        )
    needs = {"--stop": params.stop, "--think-budget": args.think_budget is not None, "a structure": params.structure}
    if args.ids and (wrong := [name for name, is_given in needs.items() if is_given]):
        raise UsageError(f"{wrong[0]} needs text, and --ids does without", hint="leave one of them out")
    if params.structure is not None and args.speculate:
        raise UsageError(
            "--speculate saves nothing where an answer has a structure, which must see each token before the next",
            hint="leave --speculate out",
        )
    if args.model is None and os.path.isdir(args.prompt):
        raise UsageError(f"there is no prompt: {args.prompt} is a directory", hint="zaya generate MODEL PROMPT")


def _structure(args: argparse.Namespace) -> Structure | None:
    """What the answer must look like. Raises UsageError for what cannot be held."""
    from zaya.engine import lark

    if args.json is not None:
        schema = _schema(args.json)
        with _hinting("correct it, or leave out what a schema can say and nobody can hold"):
            lark.check_schema(f"the schema in {args.json}", schema)
        return Structure(kind="json", value=schema)
    if args.regex is not None:
        if not args.regex:
            raise UsageError("--regex needs an expression, and this one is empty", hint="'.*' matches any line")
        with _hinting("correct it; nothing can look ahead or back, or refer to a group"):
            lark.check_regex(f"--regex '{args.regex}'", args.regex)
        return Structure(kind="regex", value=args.regex)
    if args.choice is not None:
        if "" in args.choice:
            raise UsageError("--choice needs a text, and this one is empty", hint="--choice yes --choice no")
        return Structure(kind="choice", value=args.choice)
    return None


@contextmanager
def _hinting(hint: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(error.message, hint=error.hint or hint) from error


def _schema(path: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        is_json = path.lstrip().startswith("{")
        raise UsageError(
            f"--json names a file that holds a JSON schema, and there is no such file: {path}",
            hint="write the schema to a file, and name that" if is_json else "check the name",
        )
    try:
        schema = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}", hint='such as {"type": "object"}') from error
    if not isinstance(schema, dict):
        raise UsageError(f"a JSON schema is an object, and {path} holds something else: {json.dumps(schema)[:40]}")
    return schema


def _ids(asked: str) -> list[int]:
    try:
        return [int(word) for word in asked.replace(",", " ").split()]
    except ValueError as error:
        raise UsageError(f"--ids takes numbers: {asked[:40]!r}", hint="such as '2 17 40'") from error


def _prompt(args: argparse.Namespace, tokenizer: Tokenizer | None, asked: str) -> list[int]:
    from zaya.text import render

    assert tokenizer is not None
    if args.raw:
        return tokenizer.encode(asked)
    messages = [] if args.system is None else [{"role": "system", "content": args.system}]
    messages.append({"role": "user", "content": as_asked(args.model, asked)})
    return render(tokenizer, messages, enable_thinking=not args.no_thinking).ids


def _shown(
    args: argparse.Namespace, engine: Engine, params: SamplingParams, prompt: list[int], answers: Answers
) -> Callable[[int], None]:
    """How to print an answer as it comes."""
    from zaya.text import opens_thinking

    tokenizer = engine.tokenizer
    if tokenizer is None:  # ids are shown as they were drawn
        return lambda index: show_ids(id for delta in answers.of(index) for id in delta.ids)
    if params.structure is not None:
        return lambda index: show_structured(answers.of(index))
    in_thinking = opens_thinking(tokenizer, prompt)

    def show(index: int) -> None:
        pieces = texts(answers.of(index), tokenizer, engine.stop_ids, params.stop)
        if args.raw:
            show_text(pieces)
        else:
            show_chat(pieces, in_thinking)

    return show


def _heading(index: int, n: int, stream: Any) -> None:
    gap = "\n" if index else ""
    print(f"{gap}{dimmed(f'[{index + 1}/{n}]', stream)}", file=stream, flush=True)


def _weight_bytes(model: ZayaModel) -> int:
    return sum(weight.nbytes for weight in (*model.parameters(), *model.buffers()))


def _speed(answers: Answers, started: float) -> list[str]:
    parts = [f"first token after {answers.first_at - started:.2f} s", _count(answers.tokens, "token")]
    if len(answers.ids) > 1:
        parts[-1] += f" in {len(answers.ids)} answers"
    if (speed := answers.tokens_per_s) is not None:
        parts.append(f"{speed:.1f} a second")
    return parts


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
