"""zaya quickstart: see a small trained model at work in about a minute, without a download.

A held-out question of each task, with the model's reasoning as it writes it; then some more of them, answered once, by
vote, and by Markovian RSA, and what each way costs.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from zaya.cli.asking import warn_without_kernels
from zaya.cli.eval import thinking_lines
from zaya.cli.printing import Flow, notice, program, say, say_commands, visible, waiting
from zaya.core.progress import columns
from zaya.envs import registry
from zaya.envs.base import Problem
from zaya.eval.tasks import EvalTask

if TYPE_CHECKING:
    from zaya.engine.engine import Engine
    from zaya.envs.pool import TaskPool
    from zaya.eval.suite import SuiteConfig

TASKS = {
    "arithmetic": EvalTask(env="arithmetic", difficulties=(1, 2), weight=2.0),
    "sorting": EvalTask(env="rlve/Sorting", difficulties=(1, 2)),
    "window": EvalTask(env="rlve/SlidingWindow", difficulties=(2, 3, 4)),
}
"""What the embedded model was trained and evaluated on: the tasks of recipes/micro/eval.toml."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--problems", type=int, default=48, metavar="N", help="how many to compare the ways on (default: 48)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides which problems, and every draw (default: 0)")


def run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    warn_without_kernels()
    with waiting("loading"):
        from zaya.envs.pool import TaskPool
        from zaya.eval.suite import SuiteConfig, problem_sets, rounds_of, samples_of
        from zaya.eval.systems import SystemConfig, local_system, open_engine
        from zaya.eval.thinking import TtcConfig
        from zaya.eval.thinking import thinking_rows as rows_of
        from zaya.model.embedded import embedded_directory
        from zaya.model.flops import active_parameters, parameters
        from zaya.ttc.rsa import PRESETS

        rsa = PRESETS["micro"]
        config = SuiteConfig(
            tasks=TASKS if _has_rlve() else {"arithmetic": TASKS["arithmetic"]},
            systems={"micro": SystemConfig(model=str(embedded_directory()))},
            problems=args.problems,
            k=rsa.generations,
            seed=args.seed,
            ttc={"micro": TtcConfig(preset="micro")},
        )
        engine, tokenizer = open_engine(embedded_directory(), config.max_batch)
        system = local_system(engine, tokenizer)
    shape = engine.model.config
    say(
        f"Micro ZAYA: {parameters(shape).total / 1e6:.2f} M parameters, of which "
        f"{active_parameters(shape).total / 1e6:.2f} M work on a token. This code trained it from nothing on two "
        "processor cores: zaya cascade recipes/micro/cascade.toml"
    )
    if len(config.tasks) < len(TASKS):
        print()
        say("Its other tasks come from rlve-gym, which is not here (pip install 'openzaya[envs]'): sums alone.")
    with TaskPool(config.workers) as pool:
        print("\nProblems it has not seen:\n")
        with waiting("making problems"):
            alone = [replace(config, tasks={name: task}, problems=1) for name, task in config.tasks.items()]
            shown = [problem_sets(one, pool, notice)[0].problems[0] for one in alone]
        for problem in shown:
            _think(problem, engine, pool, config)
        say(
            f"{config.problems} such problems, in {rsa.generations} samples each; and by Markovian RSA with as many "
            f"rollouts: {rsa.population} of the question, then {rsa.rounds} rounds of {rsa.population} that each read "
            f"the ends of {rsa.fan_in} from the round before."
        )
        print()
        with waiting("making problems"):
            sets = problem_sets(config, pool, notice)
        samples = [record for task in sets for record in samples_of("micro", system, task, config, pool, None)]
        rounds = [record for task in sets for record in rounds_of("micro", system, task, "micro", config, pool, None)]
    if sys.stderr.isatty():
        print(file=sys.stderr)  # below the lines of progress
    print(thinking_lines(rows_of(samples, samples, {"micro": rounds}, {"micro": rsa}), columns(sys.stdout)))
    print()
    say(
        f"Percent right, ± the 95 % interval over new problems, and tokens drawn for a problem. One sample is the mean "
        f"of {config.k}, avg@{config.k}; a round is the mean over its candidates; gains are over one sample."
    )
    print(f"\n{time.perf_counter() - started:.0f} seconds. What next:")
    zaya = program()
    say_commands(
        {
            f"{zaya} chat": "ask it yourself",
            f"{zaya} solve 'What is 58 + 67 - 9 + 24?'": "Markovian RSA on one question",
            "make micro": "train this model, through all stages",
            f"{zaya} generate Zyphra/ZAYA1-8B 'Why is the sky blue?'": "the 8B, 17.7 GB",
        }
    )
    return 0


def brief(problem: Problem) -> str:
    """The question in a line."""
    match problem.meta:
        case {"config": {"parameter": {"array": [*numbers]}}}:
            return f"Sort {' '.join(map(str, numbers))}"
        case {"config": {"parameter": {"A": [*numbers], "K": width}}}:
            return f"The least of every {width} neighbours in {' '.join(map(str, numbers))}"
    return problem.prompt.partition("\n")[0]


def _think(problem: Problem, engine: Engine, pool: TaskPool, config: SuiteConfig) -> None:
    """Show a problem, what the model thinks about it, and whether it is right."""
    from zaya.text import Content, Decoder, Parser, Reasoning

    assert engine.tokenizer is not None
    say(brief(problem))
    flow, decoder, parser = Flow("  "), Decoder(engine.tokenizer), Parser(in_thinking=True)
    answer = ""
    for id in _drawn(problem, engine, config):
        for event in parser.feed(decoder.feed([id])):
            match event:
                case Reasoning(text):
                    flow.feed(text)
                case Content(text):
                    answer += text
    answer += "".join(event.text for event in parser.finish() if isinstance(event, Content))
    flow.finish()
    [score] = pool.score([(problem, answer)])
    right = registry.get(problem.env).reference(problem)
    verdict = "right" if score.correct else f"wrong, it is {right}"
    say(f"{'no answer' if score.answer is None else visible(score.answer)}: {verdict}", indent="  ")
    print()


def _drawn(problem: Problem, engine: Engine, config: SuiteConfig) -> Iterator[int]:
    """The ids of an answer, without the one that ends it."""
    from zaya.core.rng import derive_seed
    from zaya.model.generate import generate
    from zaya.text import render

    assert engine.tokenizer is not None
    prompt = render(engine.tokenizer, [{"role": "user", "content": problem.prompt}]).ids
    ids = generate(
        engine.model, prompt, max_tokens=config.max_tokens, temperature=1.0, stop_ids=engine.stop_ids,
        seed=derive_seed(config.seed, "quickstart", problem.digest), never=engine.never,
    )  # fmt: skip
    return (id for id in ids if id not in engine.stop_ids)


def _has_rlve() -> bool:
    """Whether its tasks can be loaded. It is asked for, not imported: it brings torch and seeds global generators."""
    return all(importlib.util.find_spec(name) for name in ("Gym", "networkx", "sympy"))
