"""zaya config: the model presets with their sizes, or one preset as a commented TOML document."""

from __future__ import annotations

import argparse
import textwrap

from zaya.config import describe, load, toml_value
from zaya.model.config import PRESETS, ModelConfig, preset
from zaya.model.flops import active_parameters, kv_cache_bytes, parameters, state_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", help=f"one of {', '.join(PRESETS)}; without it, all are listed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, as in num_layers=8")


def run(args: argparse.Namespace) -> int:
    if args.preset is None:
        print(_list_presets())
    else:
        print(_document(load(ModelConfig, overrides=args.overrides, base=preset(args.preset))))
    return 0


def _list_presets() -> str:
    rows = [("preset", "layers", "width", "parameters", "active", "KV bytes/token")]
    for name, config in PRESETS.items():
        rows.append(
            (
                name,
                str(config.num_layers),
                str(config.hidden_size),
                _count(parameters(config).total),
                _count(active_parameters(config).total),
                f"{kv_cache_bytes(config, 1):,}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([*lines, "", "Embedding included; active is per token; keys and values in 2 bytes a number."])


def _document(config: ModelConfig) -> str:
    total, active = parameters(config), active_parameters(config)
    lines = [
        f"# parameters: {total.total:,}, without the embedding {total.without_embedding:,}",
        f"# active per token: {active.total:,}, without the embedding {active.without_embedding:,}",
        f"# cache of one sequence: {kv_cache_bytes(config, 1):,} bytes per token with 2-byte numbers,",
        f"#   and {state_bytes(config):,} bytes of convolution state with 4-byte numbers",
    ]
    for setting in describe(ModelConfig):
        lines.append("")
        lines += textwrap.wrap(setting.help, 100, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"{setting.key} = {toml_value(getattr(config, setting.key))}")
    return "\n".join(lines)


def _count(number: int) -> str:
    """Three digits and a letter: 8.84 B."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
