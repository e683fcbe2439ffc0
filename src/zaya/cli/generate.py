"""zaya generate: continue a prompt with a checkpoint, and print it as it comes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from zaya.cli.asking import (
    MODEL_HELP,
    QUESTION_HELP,
    add_loading,
    add_sampling,
    as_asked,
    check_max_tokens,
    drawn_ids,
    open_model,
    standard_input,
    utf8,
)
from zaya.cli.printing import show_chat, show_ids, show_text
from zaya.errors import UsageError

if TYPE_CHECKING:
    from zaya.text import Tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("prompt", metavar="PROMPT", help="the question; '-' reads it from standard input")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="continue the text itself, without the chat format")
    form.add_argument("--ids", action="store_true", help="PROMPT is token ids, such as '2 17 40', and ids come out")
    parser.add_argument("--system", metavar="TEXT", help="a system message before the question")
    parser.add_argument("--no-thinking", action="store_true", help="ask for the answer at once")
    add_sampling(parser)
    parser.add_argument("--top-k", type=int, metavar="K", help="(default: all)")
    add_loading(parser)
    parser.epilog = QUESTION_HELP


def run(args: argparse.Namespace) -> int:
    from zaya.engine.engine import Engine
    from zaya.engine.types import SamplingParams

    check_max_tokens(args)
    if (args.raw or args.ids) and (args.system is not None or args.no_thinking):
        raise UsageError("--system and --no-thinking belong to the chat format, which --raw and --ids do without")
    if args.model is None and os.path.isdir(args.prompt):
        raise UsageError(f"there is no prompt: {args.prompt} is a directory", hint="zaya generate MODEL PROMPT")
    text = utf8(standard_input().read()) if args.prompt == "-" else args.prompt
    started = time.perf_counter()
    model, tokenizer = open_model(args.model, args)
    loaded = time.perf_counter()
    engine = Engine(model, None if args.ids else tokenizer, max_batch=1)
    if args.ids:
        prompt, show = _ids(text), show_ids
    elif tokenizer is None:
        raise UsageError(
            f"{args.model} has no tokenizer files", hint="add tokenizer.json to it, or give token ids with --ids"
        )
    else:
        prompt, show = _prompt(args, tokenizer, text)

    params = SamplingParams(
        max_tokens=args.max_tokens, temperature=args.temperature, top_k=args.top_k, top_p=args.top_p
    )
    new, stops = drawn_ids(engine, prompt, params, args.seed), engine.stop_ids
    times: list[float] = []
    # ids are shown as they were drawn; a text ends before the token that ends it
    show(_timed(new, times) if args.ids else (id for id in _timed(new, times) if id not in stops))
    print(_report(len(prompt), loaded - started, loaded, times), file=sys.stderr)
    return 0


def _timed(ids: Iterable[int], times: list[float]) -> Iterator[int]:
    for id in ids:
        times.append(time.perf_counter())
        yield id


def _ids(text: str) -> list[int]:
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise UsageError(f"--ids takes numbers: {text[:40]!r}", hint="such as '2 17 40'") from error


def _prompt(
    args: argparse.Namespace, tokenizer: Tokenizer, text: str
) -> tuple[list[int], Callable[[Iterator[int]], None]]:
    """The ids of the prompt, and how to print what follows."""
    from zaya.text import opens_thinking, render

    if args.raw:
        return tokenizer.encode(text), lambda ids: show_text(ids, tokenizer)
    messages = [] if args.system is None else [{"role": "system", "content": args.system}]
    messages.append({"role": "user", "content": as_asked(args.model, text)})
    prompt = render(tokenizer, messages, enable_thinking=not args.no_thinking).ids
    return prompt, lambda ids: show_chat(ids, tokenizer, opens_thinking(tokenizer, prompt))


def _report(prompt: int, load_s: float, started: float, times: list[float]) -> str:
    parts = [f"loaded in {load_s:.1f} s", f"{prompt} prompt tokens", f"first token after {times[0] - started:.2f} s"]
    if len(times) > 1:
        parts.append(f"{len(times)} tokens, {(len(times) - 1) / (times[-1] - times[0]):.1f} a second")
    return ", ".join(parts)
