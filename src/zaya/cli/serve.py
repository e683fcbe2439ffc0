"""zaya serve: one model behind OpenAI's interface (docs/concepts/server.md)."""

from __future__ import annotations

import argparse
import math
import os
import re
import time
from importlib.util import find_spec

from zaya.cli.asking import (
    MODEL_HELP,
    MOST_AT_ONCE,
    add_engine,
    add_loading,
    check_engine,
    open_chat_model,
    open_engine,
)
from zaya.cli.printing import notice
from zaya.errors import UsageError

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
    from zaya.model.embedded import is_micro
    from zaya.serve.auth import ENVIRONMENT, Keys, entry_of, new_key
    from zaya.serve.limits import Limits
    from zaya.serve.metrics import check_prefix
    from zaya.serve.running import Server, is_loopback, listen, url_of
    from zaya.serve.served import Served
    from zaya.ttc.rsa import resolve

    if args.new_key is not None:
        key = new_key()
        entry = entry_of(args.new_key, key)
        notice(f"the key, shown this once: {key}")
        print(entry, end="")
        return 0
    check_engine(args)
    check_prefix(args.metrics_prefix)
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
        max_rsa_running=max(1, args.max_batch // 2),
    )  # fmt: skip
    begun = time.perf_counter()
    # before the model is loaded: an address that is taken is known at once
    with listen(args.host, args.port) as listener:
        if keys is None and not is_loopback(listener):
            notice(
                f"warning: whoever reaches {url_of(listener)} may use this server; --api-key-file asks for keys, and "
                "without --host it is for this machine alone"
            )
        model, tokenizer = open_chat_model(args.model, args)
        with open_engine(model, tokenizer, args, max_batch=args.max_batch) as engine:
            served = Served(
                engine, tokenizer, args.name or _name(args.model), limits, rsa_preset,
                metrics_prefix=args.metrics_prefix, ignore_client_seed=args.ignore_client_seed,
            )  # fmt: skip
            notice(
                f"{served.name} at {url_of(listener)}/v1, ready after {time.perf_counter() - begun:.1f} s; "
                "Ctrl-C stops it"
            )
            Server(served, keys=keys, origins=args.cors_origin).run(sockets=[listener])
    return 0


def _name(model: str | None) -> str:
    if model is None:
        return MICRO_NAME
    return os.path.basename(os.path.abspath(model)) if os.path.isdir(model) else model
