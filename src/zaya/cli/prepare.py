"""zaya prepare: make the text that a recipe learns from, and its tokenizer, out of tasks."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, as in vocabulary=2048")
    parser.add_argument("--config", required=True, metavar="FILE", help="the recipe, a TOML file")
    parser.add_argument("--out", metavar="DIR", help="where to write (default: runs/ and the recipe's folder and name)")
    parser.add_argument("--dry-run", action="store_true", help="print the settings, and write nothing")


def run(args: argparse.Namespace) -> int:
    from zaya.cli.recipes import directory_of
    from zaya.config import load, to_toml
    from zaya.ttc.corpus import CorpusConfig, make_corpus

    config = load(CorpusConfig, args.config, args.overrides)
    out = directory_of(args)
    if args.dry_run:
        problems = sum(file.problems for file in config.files.values())
        print(f"# {out}: {len(config.files)} files of {problems:,} problems, a tokenizer of {config.vocabulary:,}\n")
        print(to_toml(config), end="")
        return 0
    make_corpus(config, out, lambda line: print(line, file=sys.stderr))
    print(f"{out} holds {', '.join(f'{name}.jsonl' for name in config.files)} and tokenizer/")
    return 0
