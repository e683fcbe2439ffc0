"""zaya sft: fine-tune on conversations; only what assistants say is learned. Otherwise as zaya pretrain."""

from __future__ import annotations

import argparse

from zaya.cli.pretrain import carry_out
from zaya.cli.recipes import add_arguments
from zaya.errors import ConfigError

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    from zaya.config import load
    from zaya.train.recipe import StageConfig

    config = load(StageConfig, args.config, args.overrides)
    if all(data.kind != "conversation_lines" for data in config.data.values()):
        raise ConfigError(
            "a recipe for fine-tuning has conversations, and none of its data is of kind conversation_lines",
            hint="zaya pretrain learns plain text",
        )
    return carry_out("sft", args, config)
