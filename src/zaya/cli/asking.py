"""What the commands that ask a model have in common: which model, how it is loaded, how it draws, and the question.

A command is given the name of a checkpoint, or None for the model that comes with the package.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

from zaya.cli.answers import Answers
from zaya.cli.printing import notice
from zaya.core.progress import Progress
from zaya.engine.types import FinishReason, SamplingParams, Structure
from zaya.errors import UsageError

if TYPE_CHECKING:
    from zaya.engine.engine import Engine
    from zaya.model.transformer import ZayaModel
    from zaya.text import Tokenizer

MODEL_HELP = "a checkpoint directory, or a hub id with the extra 'hub' (default: the micro model in this package)"
MOST_AT_ONCE = 256
"""Answers that are drawn beside each other; more wait."""
QUESTION_HELP = "The micro model was trained on questions that end with 'Give the answer in \\boxed{}.': it is added."


def text(word: str) -> str:
    """The type of an argument that a model reads."""
    if any("\ud800" <= char <= "\udfff" for char in word):  # how Python keeps bytes that are none
        raise argparse.ArgumentTypeError(f"this is not UTF-8: {word!a}")
    return word


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How answers are drawn, and where they end."""
    drawing = parser.add_argument_group("drawing")
    drawing.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="0 takes the likeliest token (default: 1)"
    )
    drawing.add_argument(
        "--top-p", type=float, default=0.95, metavar="P",
        help="of the likeliest tokens, as many as have this probability together (default: 0.95)",
    )  # fmt: skip
    drawing.add_argument("--top-k", type=int, metavar="K", help="of the likeliest tokens, this many (default: all)")
    drawing.add_argument(
        "--min-p", type=float, default=0.0, metavar="P",
        help="tokens of at least this part of the likeliest one's probability (default: 0, all)",
    )  # fmt: skip
    drawing.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="X",
        help="above 1, tokens that question or answer hold become less likely (default: 1)",
    )  # fmt: skip
    drawing.add_argument(
        "--presence-penalty", type=float, default=0.0, metavar="X",
        help="taken from the logits of tokens that the answer holds (default: 0)",
    )  # fmt: skip
    drawing.add_argument(
        "--frequency-penalty", type=float, default=0.0, metavar="X",
        help="the same, once for every time that the answer holds the token (default: 0)",
    )  # fmt: skip
    drawing.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same text (default: 0)")
    ending = parser.add_argument_group("ending")
    ending.add_argument("--max-tokens", type=int, default=512, metavar="N", help="stop after N tokens (default: 512)")
    ending.add_argument(
        "--stop", type=text, action="append", default=[], metavar="TEXT",
        help="stop before this text, in thinking too; may be given several times. In bash a newline is $'\\n'",
    )  # fmt: skip
    ending.add_argument(
        "--think-budget", type=int, metavar="N", help="close the thinking after N tokens, so that the answer begins"
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """How the engine works."""
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--kv", choices=("model", "int8"), default="model",
        help="int8 keeps the keys and values of the context in a byte each (default: model, in its type)",
    )  # fmt: skip
    group.add_argument(
        "--speculate", type=int, default=0, metavar="K",
        help="try at once up to K tokens that followed the same ones before: faster where a text repeats itself, and "
        "the same text up to rounding (default: 0)",
    )  # fmt: skip
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="the same bits whatever is drawn beside it; slower for prompts, and without compiled kernels for all",
    )
    group.add_argument("--threads", type=int, metavar="N", help="of the processor (default: as PyTorch chooses)")


def add_loading(parser: argparse.ArgumentParser) -> None:
    """How a model is loaded."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--dtype", choices=("bfloat16", "float32"),
        help="of the weights (default: bfloat16; float32 for the micro model, exact and fast on a CPU)",
    )  # fmt: skip
    group.add_argument(
        "--quantize", choices=("int8", "int4", "int4-all"), help="pack the weights while loading (default: as stored)"
    )
    group.add_argument("--device", default="cpu", help="cpu, cuda (also for ROCm), ... (default: cpu)")


_SETTINGS = (
    "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "think_budget",
)  # fmt: skip
"""Of `SamplingParams`, those that are options."""


def sampling_params(args: argparse.Namespace, structure: Structure | None = None) -> SamplingParams:
    """What `add_sampling` has read. Raises UsageError, in the names of the options, for values that mean nothing."""
    if "" in args.stop:
        raise UsageError("--stop needs a text, and this one is empty", hint="leave it out to stop at no text")
    if args.think_budget is not None and args.no_thinking:
        raise UsageError(
            "--think-budget is for thinking, and --no-thinking asks for none", hint="leave one of them out"
        )
    try:
        return SamplingParams(
            **{name: getattr(args, name) for name in _SETTINGS}, stop=tuple(args.stop), structure=structure
        )
    except UsageError as error:
        names = re.compile(rf"\b({'|'.join(_SETTINGS)})\b")
        message = names.sub(lambda found: f"--{found[0].replace('_', '-')}", error.message)
        raise UsageError(message, hint=error.hint) from error


def check_engine(args: argparse.Namespace) -> None:
    """Before anything is loaded. Raises UsageError."""
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads must be at least 1: {args.threads}")
    if args.speculate < 0:
        raise UsageError(f"--speculate must not be negative: {args.speculate}")
    if args.deterministic and args.speculate:
        raise UsageError(
            "--deterministic may read every token in a pass of its own, so --speculate saves nothing",
            hint="leave one of them out",
        )


def open_model(name: str | None, args: argparse.Namespace) -> tuple[ZayaModel, Tokenizer | None]:
    """The model and its tokenizer, if it has one."""
    import torch

    from zaya.core.device import pick
    from zaya.model.embedded import embedded_directory, is_micro
    from zaya.model.layouts import load

    device = pick(args.device)
    if device.type == "cpu":
        warn_without_kernels()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    dtype = args.dtype or ("float32" if is_micro(name) else "bfloat16")
    directory = embedded_directory() if name is None else name
    with Progress(label="loading", unit="B") as bar:
        loaded = load(directory, dtype=dtype, quantize=args.quantize, device=device, progress=bar.reach)
        bar.clear()
    return loaded


def open_chat_model(name: str | None, args: argparse.Namespace) -> tuple[ZayaModel, Tokenizer]:
    """A model that can be asked in words. Raises UsageError for one that cannot."""
    model, tokenizer = open_model(name, args)
    if tokenizer is None:
        raise no_tokenizer(name)
    return model, tokenizer


def no_tokenizer(name: str | None) -> UsageError:
    return UsageError(f"{name} has no tokenizer files", hint="add tokenizer.json to it")


def open_engine(
    model: ZayaModel, tokenizer: Tokenizer | None, args: argparse.Namespace, *, max_batch: int = MOST_AT_ONCE
) -> Engine:
    """An engine as `add_engine` has read it."""
    from zaya.engine.engine import Engine

    return Engine(
        model, tokenizer, max_batch=max_batch, kv_dtype=args.kv, speculate=args.speculate,
        deterministic=args.deterministic,
    )  # fmt: skip


def cut_note(
    answers: Answers, params: SamplingParams, prompt: Sequence[int], context: int, more: str = ""
) -> str | None:
    """What is to be said of answers that were cut. `context` is its size in tokens, `more` how to get one."""
    cut = [i for i, reason in enumerate(answers.finish_reasons) if reason is FinishReason.LENGTH]
    if not cut:
        return None
    which = "cut" if len(answers.ids) == 1 else f"{len(cut)} of {len(answers.ids)} cut"
    if len(prompt) + params.max_tokens >= context:
        return f"({which}: the context of {context:,} tokens is full{more})"
    sooner = ", --think-budget brings the answer sooner" if any(answers.in_thinking[i] for i in cut) else ""
    return f"({which} after {params.max_tokens:,} tokens; --max-tokens allows more{sooner})"


@cache
def warn_without_kernels() -> None:
    """Say, once, that the compiled kernels are missing where there could be some. Nobody is told who has chosen it."""
    from zaya.ops.cpu.kernels import library

    is_possible = platform.machine().lower() in ("x86_64", "amd64")
    if is_possible and os.environ.get("ZAYA_KERNELS") != "off" and library() is None:
        notice(
            "warning: the compiled kernels are not there, or not for this processor, and models run many times slower\n"
            "hint: they need AVX2; install a C++ compiler such as g++, then zaya once more, by "
            "pip install --force-reinstall --no-deps; ZAYA_KERNELS=off does without them and without this warning"
        )


def as_asked(name: str | None, question: str) -> str:
    """The question as the model is asked it."""
    from zaya.model.embedded import as_trained, is_micro

    return as_trained(question) if is_micro(name) else question


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
