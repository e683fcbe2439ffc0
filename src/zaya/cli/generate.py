"""zaya generate: continue a prompt with a checkpoint, and print it as it comes."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from zaya.errors import UsageError

if TYPE_CHECKING:
    from zaya.text import Event, Tokenizer

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a checkpoint directory, or a hub id with the extra 'hub'")
    parser.add_argument("prompt", metavar="PROMPT", help="the question; '-' reads it from standard input")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="continue the text itself, without the chat format")
    form.add_argument("--ids", action="store_true", help="PROMPT is token ids, such as '2 17 40', and ids come out")
    parser.add_argument("--system", metavar="TEXT", help="a system message before the question")
    parser.add_argument("--no-thinking", action="store_true", help="ask for the answer at once")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="stop after N tokens (default: 512)")
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="0 takes the likeliest (default: 1)"
    )
    parser.add_argument("--top-p", type=float, default=0.95, metavar="P", help="(default: 0.95)")
    parser.add_argument("--top-k", type=int, metavar="K", help="(default: all)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same text (default: 0)")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of the weights (default: bfloat16)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda (also for ROCm), ... (default: cpu)")


def run(args: argparse.Namespace) -> int:
    from zaya.core.device import pick
    from zaya.model.generate import generate
    from zaya.model.layouts import load

    if args.max_tokens < 1:
        raise UsageError(f"--max-tokens must be at least 1: {args.max_tokens}")
    if (args.raw or args.ids) and (args.system is not None or args.no_thinking):
        raise UsageError("--system and --no-thinking belong to the chat format, which --raw and --ids do without")
    text = _standard_input() if args.prompt == "-" else args.prompt
    started = time.perf_counter()
    model, tokenizer = load(args.model, dtype=args.dtype, device=pick(args.device))
    loaded = time.perf_counter()
    stops = {model.config.eos_id, *model.config.more_eos_ids}
    never: list[int] = []
    if args.ids:
        prompt, show = _ids(text), _show_ids
    elif tokenizer is None:
        raise UsageError(
            f"{args.model} has no tokenizer files", hint="add tokenizer.json to it, or give token ids with --ids"
        )
    else:
        never = tokenizer.never_sampled(model.config.vocab_size)
        # which of them a published config names as its end has changed; a turn's end is always one
        stops |= {id for id in (tokenizer.eos_id, tokenizer.tags.turn_close) if id is not None}
        prompt, show = _prompt(args, tokenizer, text)

    new = generate(
        model, prompt, max_tokens=args.max_tokens, temperature=args.temperature, top_k=args.top_k, top_p=args.top_p,
        seed=args.seed, stop_ids=stops, never=never,
    )  # fmt: skip
    times: list[float] = []
    # ids are shown as they were drawn; a text ends before the token that ends it
    show(_timed(new, times) if args.ids else (id for id in _timed(new, times) if id not in stops))
    print(_report(len(prompt), loaded - started, loaded, times), file=sys.stderr)
    return 0


def _timed(ids: Iterable[int], times: list[float]) -> Iterator[int]:
    for id in ids:
        times.append(time.perf_counter())
        yield id


def _standard_input() -> str:
    if sys.stdin is None:
        raise UsageError("standard input is closed", hint="give the question itself instead of '-'")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8: {error.reason} at byte {error.start}") from error


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
        return tokenizer.encode(text), lambda ids: _show_text(ids, tokenizer)
    messages = [] if args.system is None else [{"role": "system", "content": args.system}]
    messages.append({"role": "user", "content": text})
    prompt = render(tokenizer, messages, enable_thinking=not args.no_thinking).ids
    return prompt, lambda ids: _show_chat(ids, tokenizer, opens_thinking(tokenizer, prompt))


def _show_ids(ids: Iterator[int]) -> None:
    for id in ids:
        print(id, end=" ", flush=True)
    print()


def _show_text(ids: Iterator[int], tokenizer: Tokenizer) -> None:
    from zaya.text import Decoder

    decoder = Decoder(tokenizer)
    for id in ids:
        _print(decoder.feed([id]))
    _print(decoder.finish() + "\n")


def _show_chat(ids: Iterator[int], tokenizer: Tokenizer, in_thinking: bool) -> None:
    """Thinking dimmed where the terminal can, the answer plain."""
    from zaya.text import Decoder, Parser

    decoder, parser = Decoder(tokenizer), Parser(in_thinking=in_thinking)
    before: object = None
    for id in ids:
        before = _print_events(parser.feed(decoder.feed([id])), before)
    _print_events([*parser.feed(decoder.finish()), *parser.finish()], before)
    print()


def _print_events(events: Iterable[Event], before: object) -> object:
    """Print events behind the one shown before, an empty line between thinking and answer; the last one shown."""
    from zaya.text import CallArguments, CallStart, Content, Reasoning

    for event in events:
        match event:
            case Reasoning(text):
                _print(text, dim=True)
            case Content(text):
                _print(f"\n\n{text}" if isinstance(before, Reasoning) else text)
            case CallStart(_, name):
                _print(f"{name} " if before is None else f"\n\n{name} ")
            case CallArguments(_, text):
                _print(text)
        before = event
    return before


def _print(text: str, *, dim: bool = False) -> None:
    """Model text. On a terminal its control characters are shown as such, not obeyed."""
    if sys.stdout.isatty():
        text = _CONTROL.sub("\ufffd", text)
        if dim and text and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
            text = f"{DIM}{text}{PLAIN}"
    print(text, end="", flush=True)


def _report(prompt: int, load_s: float, started: float, times: list[float]) -> str:
    parts = [f"loaded in {load_s:.1f} s", f"{prompt} prompt tokens", f"first token after {times[0] - started:.2f} s"]
    if len(times) > 1:
        parts.append(f"{len(times)} tokens, {(len(times) - 1) / (times[-1] - times[0]):.1f} a second")
    return ", ".join(parts)
