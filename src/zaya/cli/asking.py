"""What the commands that ask a model have in common: which model, how it is loaded, and the question.

A command is given the name of a checkpoint, or None for the model that comes with the package.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from zaya.errors import UsageError

if TYPE_CHECKING:
    from zaya.engine.engine import Engine
    from zaya.engine.types import SamplingParams
    from zaya.model.transformer import ZayaModel
    from zaya.text import Tokenizer

MODEL_HELP = "a checkpoint directory, or a hub id with the extra 'hub' (default: the micro model in this package)"
QUESTION_HELP = "The micro model was trained on questions that end with 'Give the answer in \\boxed{}.': it is added."


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How answers are drawn."""
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="stop after N tokens (default: 512)")
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="0 takes the likeliest (default: 1)"
    )
    parser.add_argument("--top-p", type=float, default=0.95, metavar="P", help="(default: 0.95)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same text (default: 0)")


def add_loading(parser: argparse.ArgumentParser) -> None:
    """How a model is loaded."""
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="of the weights (default: bfloat16; float32 for the micro model, exact and fast on a CPU)",
    )
    parser.add_argument(
        "--quantize", choices=("int8", "int4", "int4-all"), help="pack the weights while loading (default: as stored)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda (also for ROCm), ... (default: cpu)")


def check_max_tokens(args: argparse.Namespace) -> None:
    """Before anything is loaded. Raises UsageError."""
    if args.max_tokens < 1:
        raise UsageError(f"--max-tokens must be at least 1: {args.max_tokens}")


def open_model(name: str | None, args: argparse.Namespace) -> tuple[ZayaModel, Tokenizer | None]:
    """The model and its tokenizer, if it has one."""
    from zaya.core.device import pick
    from zaya.model.embedded import embedded_directory, is_micro
    from zaya.model.layouts import load

    dtype = args.dtype or ("float32" if is_micro(name) else "bfloat16")
    return load(
        embedded_directory() if name is None else name, dtype=dtype, quantize=args.quantize, device=pick(args.device)
    )


def open_chat_model(name: str | None, args: argparse.Namespace) -> tuple[ZayaModel, Tokenizer]:
    """A model that can be asked in words. Raises UsageError for one that cannot."""
    model, tokenizer = open_model(name, args)
    if tokenizer is None:
        raise UsageError(f"{name} has no tokenizer files", hint="add tokenizer.json to it")
    return model, tokenizer


def as_asked(name: str | None, question: str) -> str:
    """The question as the model is asked it."""
    from zaya.model.embedded import as_trained, is_micro

    return as_trained(question) if is_micro(name) else question


def drawn_ids(engine: Engine, prompt: Sequence[int], params: SamplingParams, seed: int) -> Iterator[int]:
    """What the engine draws behind a prompt, id by id. Whoever stops listening ends it."""
    for delta in engine.stream(prompt, params, seed=seed):
        yield from delta.ids


def standard_input() -> BinaryIO:
    """Raises UsageError where it is closed."""
    if sys.stdin is None:
        raise UsageError("standard input is closed", hint="give the question itself instead of '-'")
    return sys.stdin.buffer


def utf8(data: bytes) -> str:
    """What was read from there. Raises UsageError where it is not text."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8: {error.reason} at byte {error.start}") from error
