"""zaya reward: train a model that says which of two answers is preferred, or score answers with one."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zaya.cli.printing import notice, program
from zaya.cli.recipes import add_arguments as add_recipe_arguments
from zaya.cli.recipes import announce, directory_of, interrupted
from zaya.core.progress import progress
from zaya.errors import DataError

if TYPE_CHECKING:
    from zaya.train.reward import RewardConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(has_actions=True)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    trained = actions.add_parser("train", help="learn from pairs of answers, as a recipe says", allow_abbrev=False)
    add_recipe_arguments(trained)
    scored = actions.add_parser("score", help="score the answers of a file", allow_abbrev=False)
    scored.add_argument("model", metavar="DIR", help="a reward model: model/ of a run of zaya reward train")
    scored.add_argument(
        "file",
        metavar="FILE",
        help="JSON lines: prompt and answer, or messages that end with an assistant's; comes back on standard output, "
        "with score (unbounded, comparable within a prompt) and reward (above 0, at most 1)",
    )


def run(args: argparse.Namespace) -> int:
    return {"train": _train, "score": _score}[args.action](args)


def _train(args: argparse.Namespace) -> int:
    from zaya.config import load
    from zaya.core.metrics import read_metrics
    from zaya.train.reward import RewardConfig, train

    config = load(RewardConfig, args.config, args.overrides)
    out = directory_of(args)
    if not announce(args, config, _consequences(config, out)):
        return 0
    at = train(config, out, notice)
    if not at.finished:
        return interrupted("reward train", args, out, at.step)
    last = read_metrics(out / "metrics.jsonl")[-1]
    print(f"finished: {at.step:,} steps, {at.tokens:,} tokens")
    print(
        f"held out: {last['val_accuracy']:.1%} of {last['val_pairs']} pairs in the right order (a coin: 50 %), "
        f"margin {last['val_margin']:.2f}, loss {last['val_loss']:.3f} (a coin: 0.693)"
    )
    print(f"what next:\n  {program()} reward score {shlex.quote(str(out / 'model'))} answers.jsonl")
    return 0


def _consequences(config: RewardConfig, out: Path) -> list[str]:
    from zaya.model.flops import active_parameters, parameters
    from zaya.train.stage import open_initial

    model = open_initial(Path(config.init), notice).model
    return [
        f"run: {out}, from {config.init}",
        f"parameters: {parameters(model).total:,}, active per token {active_parameters(model).total:,}",
        f"a step: {config.pairs_per_step} pairs of {config.pairs}, answers of up to {config.context:,} tokens; "
        f"{config.schedule.total_tokens:,} tokens in all",
    ]


def _score(args: argparse.Namespace) -> int:
    from zaya.core.jsonl import json_objects
    from zaya.train.reward import RewardModel, to_unit

    file = Path(args.file)
    lines = [(line, _conversation(f"{file}:{number}", line)) for number, line in json_objects(file)]
    model = RewardModel.load(args.model)
    for line, messages in progress(lines, label="scoring", unit="answers"):
        (score,) = model.scores([messages])
        reward = to_unit(score, model.mean, model.std)
        print(json.dumps({**line, "score": score, "reward": reward}, ensure_ascii=False))
    return 0


def _conversation(where: str, line: dict[str, Any]) -> list[dict[str, Any]]:
    match line:
        case {"prompt": str() as prompt, "answer": str() as answer}:
            return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        case {"prompt": list() as before, "answer": str() as answer}:
            return [*before, {"role": "assistant", "content": answer}]
        case {"messages": [*before, {"role": "assistant", **last}]}:
            return [*before, {"role": "assistant", **last}]
        case _:
            raise DataError(
                f"{where} holds no answer to score", hint="prompt and answer, or messages that end with an assistant's"
            )
