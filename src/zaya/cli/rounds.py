"""The settings of Markovian RSA as options: a preset, numbers of it replaced, and what is wrong with them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from zaya.errors import UsageError, ZayaError

if TYPE_CHECKING:
    from zaya.ttc.rsa import RsaConfig

_SETTINGS = {
    "population": (int, "N", "rollouts of a round"),
    "fan_in": (int, "C", "rollouts whose ends a later one reads"),
    "rounds": (int, "T", "rounds after the first"),
    "think_budget": (int, "B", "tokens of a rollout, but in the last round"),
    "tail_tokens": (int, "TAU", "tokens of a rollout that are handed on"),
    "final_budget": (int, "F", "tokens of a rollout in the last round"),
    "final_workers": (int, "M", "rollouts of the last round"),
    "temperature": (float, "X", "0 takes the likeliest token"),
    "top_p": (float, "P", "of the likeliest tokens, as many as have this probability together"),
}
"""Of `RsaConfig`, those that are options."""
OPTIONS = {
    **{name: f"--{name.replace('_', '-')}" for name in _SETTINGS}, "max_concurrency": "--concurrency",
    "deadline_s": "--deadline", "retries": "--retries", "seed": "--seed", "selection": "--selection",
    "api_key": "--api-key-env", "base_url": "--url",
}  # fmt: skip
"""Settings, of the rollouts and of the run, and the options that give them."""


def add_rounds(parser: argparse.ArgumentParser) -> None:
    """How many rollouts, how long, and what they see of each other."""
    from zaya.ttc.rsa import PRESETS, RsaConfig

    rounds = parser.add_argument_group("rounds")
    rounds.add_argument(
        "--preset",
        metavar="NAME",
        help=f"one of {', '.join(PRESETS)} (default: micro for the micro model, rsa_16k_4k for others)",
    )
    for name, (kind, metavar, help) in _SETTINGS.items():
        rounds.add_argument(OPTIONS[name], type=kind, metavar=metavar, help=f"{help} (default: the preset's)")
    others = ", ".join(field.name for field in fields(RsaConfig) if field.name not in _SETTINGS)
    rounds.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help=f"any other setting: {others}"
    )  # fmt: skip


def configured(source: str | None, given: Mapping[str, Any]) -> RsaConfig:
    """The preset with what was given put in its place. `source`: the model, or the server. Raises UsageError,
    ConfigError."""
    from zaya.config import load
    from zaya.model.embedded import is_micro
    from zaya.ttc.rsa import RsaConfig, resolve

    for item in given["set"]:
        if not item.partition("=")[1]:
            raise UsageError(f"--set takes KEY=VALUE: {item!r}", hint="such as --set barrier=full")
    config = resolve(given["preset"] or ("micro" if is_micro(source) else "rsa_16k_4k"))
    changes = {name: given[name] for name in _SETTINGS if given[name] is not None}
    keys = {item.partition("=")[0].strip() for item in given["set"]}
    if "population" in changes and "fan_in" not in keys:  # a small one shows what it has, unless somebody asks for more
        changes.setdefault("fan_in", max(1, min(config.fan_in, changes["population"])))
    with naming_options():
        return load(RsaConfig, None, [*(f"{k}={v}" for k, v in changes.items()), *given["set"]], base=config)


@contextmanager
def naming_options(*, has_prose: bool = False) -> Iterator[None]:
    """Errors in the names of the options, where there is one. `has_prose`: of work under way, whose errors may be
    anybody's words, so that "rounds" need not be the setting."""
    try:
        yield
    except ZayaError as error:
        names = [name for name in OPTIONS if "_" in name or not has_prose]
        error.message = in_options(error.message, names)
        error.hint = None if error.hint is None else in_options(error.hint, names)
        raise


def in_options(words: str, names: Iterable[str] = OPTIONS) -> str:
    """Words about settings as words about options."""
    words = re.sub(rf"(?<![\w-])(?:rsa\.)?({'|'.join(names)})\b", lambda found: OPTIONS[found[1]], words)
    return re.sub(r"\brsa\.(\w+)", r"--set \1", words)
