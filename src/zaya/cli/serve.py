"""zaya serve: one model behind OpenAI's interface (docs/concepts/server.md)."""

from __future__ import annotations

import argparse
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zaya.cli.asking import (
    MODEL_HELP,
    MOST_AT_ONCE,
    add_engine,
    add_loading,
    check_engine,
    no_tokenizer,
    open_engine,
    open_model,
    warn_without_kernels,
)
from zaya.cli.printing import notice
from zaya.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from zaya.engine.engine import Engine
    from zaya.serve.fleet import ReplicaCompleter
    from zaya.text import Tokenizer

DEFAULT_PORT = 8010  # the one in the serve command that Zyphra publishes, and in its clients
MICRO_NAME = "zaya-micro"
_BOUNDS = (
    "max_batch", "max_pending", "max_prompt", "deadline", "drain", "max_rsa_population", "max_rsa_tokens",
)  # fmt: skip
"""Options that have to be above 0."""

_NEEDED = (
    "latex2mathml", "markdown_it", "nh3", "prometheus_client", "pydantic", "pygments", "starlette", "uvicorn",
)  # fmt: skip
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s,@]+")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    listening = parser.add_argument_group("listening")
    listening.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS",
        help="where to listen (default: 127.0.0.1, this machine alone; 0.0.0.0 is for everybody)",
    )  # fmt: skip
    listening.add_argument(
        "--port", type=int, default=DEFAULT_PORT, metavar="N", help=f"0 takes a free one (default: {DEFAULT_PORT})"
    )
    listening.add_argument(
        "--name", metavar="NAME", help="what clients call the model (default: its directory's, or its hub id)"
    )
    access = parser.add_argument_group("access", "One key may also be in the environment, as ZAYA_API_KEY.")
    access.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="hashes of keys, with their limits, in TOML (default: nobody needs a key)",
    )
    access.add_argument(
        "--new-key", metavar="NAME", help="print a new key, and its entry for the file of keys, and serve nothing"
    )
    access.add_argument(
        "--cors-origin", action="append", default=[], metavar="ORIGIN",
        help="pages of this origin may ask from a browser, as in https://page.example; may be given again "
        "(default: pages of none)",
    )  # fmt: skip
    listening.add_argument(
        "--metrics-prefix", default="zaya:", metavar="TEXT",
        help="how names at /metrics begin; vllm: is for dashboards that were made for vLLM (default: zaya:)",
    )  # fmt: skip
    listening.add_argument(
        "--ignore-client-seed", action="store_true",
        help="draw a new text for every request, for harnesses that send one seed with all (default: as they ask)",
    )  # fmt: skip
    bounds = parser.add_argument_group("bounds")
    bounds.add_argument(
        "--max-batch", type=int, default=MOST_AT_ONCE, metavar="N",
        help=f"completions drawn beside each other; more wait (default: {MOST_AT_ONCE})",
    )  # fmt: skip
    bounds.add_argument(
        "--max-pending", type=int, default=1024, metavar="N",
        help="completions that run or wait; what is more is told to come again (default: 1024)",
    )  # fmt: skip
    bounds.add_argument("--max-prompt", type=int, metavar="N", help="tokens of a prompt (default: the context)")
    bounds.add_argument(
        "--deadline", type=float, default=3600, metavar="S", help="seconds until a request is answered (default: 3600)"
    )
    bounds.add_argument(
        "--drain", type=float, default=30, metavar="S",
        help="seconds for what is under way when the server is told to stop (default: 30)",
    )  # fmt: skip
    parser.add_argument_group("replicas").add_argument(
        "--replicas", type=int, default=1, metavar="N",
        help="engines in processes of their own, one for each accelerator or node of memory, kept alive by Ray Serve; "
        "--threads and --max-batch are for each of them (default: 1, and no Ray)",
    )  # fmt: skip
    rsa = parser.add_argument_group("Markovian RSA", "for chats that ask for it")
    rsa.add_argument(
        "--rsa-preset", metavar="NAME",
        help="what a request that names none gets (default: micro for the micro model, rsa_16k_4k for others)",
    )  # fmt: skip
    rsa.add_argument(
        "--max-rsa-population", type=int, default=32, metavar="N",
        help="rollouts of a round; who asks for more gets these (default: 32)",
    )  # fmt: skip
    rsa.add_argument(
        "--max-rsa-tokens", type=int, default=16 << 20, metavar="N",
        help="tokens that a request may draw; who asks for more gets a smaller population (default: 16777216)",
    )  # fmt: skip
    add_loading(parser)
    add_engine(parser)


def run(args: argparse.Namespace) -> int:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"the server needs {missing[0]}", hint="pip install 'openzaya[serve]'")
    from zaya.serve.auth import ENVIRONMENT, Keys, entry_of, new_key

    if args.new_key is not None:
        key = new_key()
        entry = entry_of(args.new_key, key)
        notice(f"the key, shown this once: {key}")
        print(entry, end="")
        return 0
    from zaya.model.embedded import is_micro
    from zaya.serve.limits import Limits
    from zaya.serve.metrics import check_prefix
    from zaya.serve.running import Server, is_loopback, listen, url_of
    from zaya.serve.served import Served
    from zaya.ttc.rsa import resolve

    check_engine(args)
    check_prefix(args.metrics_prefix)
    if args.replicas < 1:
        raise UsageError(f"--replicas must be at least 1: {args.replicas}")
    if args.replicas > 1 and find_spec("ray") is None:
        raise UsageError("--replicas needs ray", hint="pip install 'openzaya[replicas]'")
    keys = Keys.read(args.api_key_file, os.environ.get(ENVIRONMENT))
    for origin in args.cors_origin:
        if not _ORIGIN.fullmatch(origin):
            raise UsageError(f"an origin is a scheme and a host, as in https://page.example, or *: {origin!r}")
    for name in _BOUNDS:
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name.replace('_', '-')} must be above 0: {value}")
    rsa_preset = args.rsa_preset or ("micro" if is_micro(args.model) else "rsa_16k_4k")
    resolve(rsa_preset)
    limits = Limits(
        max_pending=args.max_pending, max_prompt_tokens=args.max_prompt, deadline_s=args.deadline, drain_s=args.drain,
        max_rsa_population=args.max_rsa_population, max_rsa_tokens=args.max_rsa_tokens,
        max_rsa_running=max(1, args.replicas * args.max_batch // 2),
    )  # fmt: skip
    begun = time.perf_counter()
    # before the model is loaded: an address that is taken is known at once
    with listen(args.host, args.port) as listener:
        if keys is None and not is_loopback(listener):
            notice(
                f"warning: whoever reaches {url_of(listener)} may use this server; --api-key-file asks for keys, and "
                "without --host it is for this machine alone"
            )
        with _completer(args) as (completer, tokenizer):
            served = Served(
                completer, tokenizer, args.name or _name(args.model), limits, rsa_preset,
                metrics_prefix=args.metrics_prefix, ignore_client_seed=args.ignore_client_seed,
            )  # fmt: skip
            listener.listen()  # whoever reads that it is ready may come at once
            notice(
                f"{served.name} at {url_of(listener)}/v1, ready after {time.perf_counter() - begun:.1f} s; "
                "Ctrl-C stops it"
            )
            Server(served, keys=keys, origins=args.cors_origin).run(sockets=[listener])
            if completer.refused is not None:
                raise completer.refused
    return 0


@contextmanager
def _completer(args: argparse.Namespace) -> Iterator[tuple[ReplicaCompleter, Tokenizer]]:
    """Who answers: an engine in a process of its own, or several."""
    from zaya.model.embedded import embedded_directory
    from zaya.model.layouts.directory import local_directory
    from zaya.serve.apart import ProcessLink
    from zaya.serve.fleet import ReplicaCompleter
    from zaya.serve.log import write_line
    from zaya.text import load_tokenizer

    directory = embedded_directory() if args.model is None else local_directory(args.model)
    if args.replicas > 1:
        with _replicas(args, directory) as found:
            yield found
        return
    asked = argparse.Namespace(**{**vars(args), "model": str(directory)})
    is_up = False

    def write(record: dict[str, Any]) -> None:
        if is_up:  # before, whatever is to be said is said otherwise
            write_line(record)

    with ReplicaCompleter([ProcessLink(partial(_engine, asked, args.model))], write=write) as completer:
        tokenizer = load_tokenizer(directory) if directory.is_dir() else None  # while the engine is on its way
        completer.wait()
        assert tokenizer is not None, "the engine has refused it"
        is_up = True
        yield completer, tokenizer


def _engine(args: argparse.Namespace, name: str | None) -> Engine:
    """In the process that is the engine's. Errors call the model by its name."""
    model, tokenizer = open_model(args.model, args)
    if tokenizer is None:
        raise no_tokenizer(name)
    return open_engine(model, tokenizer, args, max_batch=args.max_batch)


@contextmanager
def _replicas(args: argparse.Namespace, directory: Path) -> Iterator[tuple[ReplicaCompleter, Tokenizer]]:
    from zaya.model.embedded import is_micro
    from zaya.serve.fleet import ReplicaCompleter
    from zaya.serve.log import write_line
    from zaya.serve.replica import EngineSpec
    from zaya.serve.replicas import started
    from zaya.text import load_tokenizer

    if args.device not in ("cpu", "cuda"):
        raise UsageError(
            f"replicas run on cpu, or on cuda, which is one accelerator each: {args.device}",
            hint="CUDA_VISIBLE_DEVICES says which there are",
        )
    if args.device == "cpu":
        warn_without_kernels()
    if not directory.is_dir():
        raise CheckpointError(f"there is no checkpoint directory at {directory}")
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        raise no_tokenizer(args.model)
    threads = args.threads or max(1, (os.cpu_count() or 1) // args.replicas)
    spec = EngineSpec(
        directory=str(directory.absolute()), dtype=args.dtype or ("float32" if is_micro(args.model) else "bfloat16"),
        quantize=args.quantize, device=args.device, threads=threads, replicas=args.replicas,
        max_batch=args.max_batch, kv_dtype=args.kv, speculate=args.speculate, deterministic=args.deterministic,
    )  # fmt: skip
    notice(f"starting {args.replicas} replicas, {threads} threads each; Ray takes some ten seconds of its own")
    with ExitStack() as stack:
        links = stack.enter_context(started(spec, args.replicas, max_pending=args.max_pending))
        completer = stack.enter_context(ReplicaCompleter(links, write=write_line))
        completer.wait()
        yield completer, tokenizer


def _name(model: str | None) -> str:
    if model is None:
        return MICRO_NAME
    return os.path.basename(os.path.abspath(model)) if os.path.isdir(model) else model
