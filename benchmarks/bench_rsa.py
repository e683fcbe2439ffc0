"""What a population costs: tokens a second, wall clock against one long chain, keys and values, prompts read once.

    python -m benchmarks.bench_rsa [--full DIR] [--parts speed clock memory prefill]

speed    N rollouts at once, N = 1, 8, 16, on the micro model and, with --full, on a whole checkpoint (int4, made by
         `zaya quantize`): tokens a second, and the ratio to N = 1 beside the one that bytes allow. A step reads what is
         always read, and of E experts the E (1 - (1 - 1/E)^N) that N tokens are expected to choose.
clock    `lightweight` with one rollout in the last round and all lengths divided by 16, against one chain that is as
         long as the longest way through it times --chain
memory   keys and values at their peak against the formula of spec markovian-rsa 6.1, sharing off
prefill  tokens of prompts that were not read again, round by round, against the counts of spec 6.3

Lengths are forced: nothing ends a text. Weights of the whole checkpoint may be random; then experts are drawn
uniformly. With --sweep DIR, the directory of `zaya eval --config recipes/micro/eval.toml`, the accuracy of every form
of thinking is set against that of chains by themselves, problem by problem. The last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench_engine import bytes_of_pass, spread
from zaya.engine.engine import Engine, PoolSizes
from zaya.eval.compare import compare
from zaya.eval.evaluation import read_evaluations
from zaya.model.config import preset
from zaya.model.embedded import embedded_directory
from zaya.model.layouts import load
from zaya.model.transformer import ZayaModel
from zaya.text import Tokenizer, byte_tokenizer
from zaya.ttc.config import PRESETS, RsaConfig
from zaya.ttc.rsa import solve_many
from zaya.ttc.types import Solution

POPULATIONS = (1, 8, 16)
EXPECTED_TAILS = {"random": 57.7, "index": 51.9, "frequency": 47.6}
"""Tails that are read of 64, for 16 prompts of 4 out of 16, where each common beginning is read once (spec 6.3)."""
QUESTION = "What is 58 + 67 - 9 + 24?\nGive the answer in \\boxed{}."


def run(engine: Engine, tokenizer: Tokenizer, config: RsaConfig, seed: int = 0) -> tuple[Solution, float]:
    begun = time.perf_counter()
    [solution] = solve_many([QUESTION], engine, tokenizer, config=config, seeds=[seed])
    return solution, time.perf_counter() - begun


def opened(directory: str | None) -> tuple[ZayaModel, Tokenizer]:
    model, tokenizer = load(directory or embedded_directory(), dtype="bfloat16" if directory else "float32")
    return model, tokenizer or byte_tokenizer()


def endless(model: ZayaModel, tokenizer: Tokenizer, **options: Any) -> Engine:
    """An engine whose texts end by their budget alone."""
    engine = Engine(model, tokenizer, **options)
    engine.stop_ids = frozenset()
    return engine


def letters() -> Tokenizer:
    """A byte is a token, and only letters and line breaks are drawn, so that text has as many tokens as were drawn and
    thinking does not end."""
    tokenizer = byte_tokenizer()
    wanted = set(tokenizer.encode_plain("abcdefghijklmnopqrstuvwxyz\n"))
    tokenizer.never_sampled = lambda vocab_size: [id for id in range(vocab_size) if id not in wanted]
    return tokenizer


@contextmanager
def uniform(engine: Engine, is_wanted: bool) -> Iterator[list[tuple[int, float]]]:
    distinct: list[tuple[int, float]] = []
    with spread(engine, torch.Generator().manual_seed(0), distinct) if is_wanted else nullcontext():
        yield distinct


def speed(directory: str | None, tokens: int, repeats: int) -> list[dict[str, Any]]:
    model, tokenizer = opened(directory)
    engine = endless(model, tokenizer, max_batch=max(POPULATIONS), prefix_cache=False)
    experts, rows = model.config.num_experts, []
    with uniform(engine, directory is not None):
        for population in POPULATIONS:
            config = RsaConfig(
                population=population, fan_in=1, rounds=0, think_budget=tokens, tail_tokens=1, final_budget=tokens,
                answer_reserve=1,
            )  # fmt: skip
            run(engine, tokenizer, replace(config, final_budget=8), 9)
            rates = []
            for seed in range(repeats):
                solution, seconds = run(engine, tokenizer, config, seed)
                rates.append(solution.usage.generated_tokens / seconds)
            distinct = experts * (1 - (1 - 1 / experts) ** population)
            rows.append(
                {
                    "population": population,
                    "tokens_s": statistics.median(rates),
                    "bytes_of_step": bytes_of_pass(model, distinct),
                }
            )
    for row in rows:
        row["ratio"] = row["tokens_s"] / rows[0]["tokens_s"]
        row["ceiling"] = row["population"] * rows[0]["bytes_of_step"] / row["bytes_of_step"]
        row["of_ceiling"] = row["ratio"] / row["ceiling"]
    return rows


def clock(directory: str, chain: float) -> dict[str, Any]:
    light = PRESETS["lightweight"]
    config = replace(
        light, think_budget=light.think_budget // 16, tail_tokens=light.tail_tokens // 16,
        final_budget=light.final_budget // 16, answer_reserve=light.answer_reserve // 16, final_workers=1,
    )  # fmt: skip
    path = config.rounds * config.think_budget + config.final_budget
    length = int(path * chain)
    one = RsaConfig(
        population=1, fan_in=1, rounds=0, think_budget=1, tail_tokens=1, final_budget=length,
        answer_reserve=config.answer_reserve,
    )  # fmt: skip
    model, tokenizer = opened(directory)
    engine = endless(model, tokenizer, max_batch=config.population)
    with uniform(engine, is_wanted=True):
        solution, population_s = run(engine, tokenizer, config)
        _, chain_s = run(engine, tokenizer, one)
    return {
        "settings": {"N": config.population, "C": config.fan_in, "T": config.rounds, "beta": config.think_budget,
                     "tau": config.tail_tokens, "final": config.final_budget, "final_workers": 1},
        "rounds_s": [round.wall_s for round in solution.rounds],
        "tokens": solution.usage.generated_tokens,
        "population_s": population_s,
        "chain_tokens": length,
        "chain_s": chain_s,
        "ratio": population_s / chain_s,
    }  # fmt: skip


def memory(population: int = 8) -> dict[str, Any]:
    """Peak of pages beside max(|q| + beta, |q| + C tau + max(beta, B_final)) for every sequence."""
    tokenizer = letters()
    model = ZayaModel(preset("micro", vocab_size=512, max_positions=16_384), precision="float32")
    engine = endless(model, tokenizer, max_batch=population, prefix_cache=False, page_size=32)
    config = RsaConfig(
        population=population, fan_in=4, rounds=2, think_budget=1024, tail_tokens=512, final_budget=1280,
        answer_reserve=1,
    )  # fmt: skip
    sizes = PoolSizes.of(model.config, 32, model.dtype.itemsize, population)
    step, peak = engine._step, [0]

    def watched() -> None:
        step()
        peak[0] = max(peak[0], engine.stats.pages_used)

    engine._step = watched
    solution, _ = run(engine, tokenizer, config)
    question, frame = solution.rounds[0].candidates[0].prompt_tokens, solution.rounds[1].candidates[0].prompt_tokens
    frame -= config.fan_in * config.tail_tokens
    most = max(
        question + config.think_budget,
        frame + config.fan_in * config.tail_tokens + max(config.think_budget, config.final_budget),
    )
    formula = population * most * sizes.page / 32
    return {
        "formula_bytes": formula,
        "peak_bytes": peak[0] * sizes.page,
        "ratio": peak[0] * sizes.page / formula,
    }


def prefill(population: int = 16) -> list[dict[str, Any]]:
    """Tails of whole blocks of the prefix cache, so that what can be shared is."""
    tokenizer = letters()
    rows = []
    for order in ("random", "index", "frequency"):
        model = ZayaModel(preset("micro", vocab_size=512, max_positions=16_384), precision="float32")
        engine = endless(model, tokenizer, max_batch=population, max_batch_tokens=512)
        config = RsaConfig(
            population=population, fan_in=4, rounds=1, think_budget=550, tail_tokens=512, final_budget=64,
            answer_reserve=1, order=order,
        )  # fmt: skip
        solutions = [run(engine, tokenizer, config, seed)[0] for seed in range(2)]
        first = [solution.rounds[0] for solution in solutions]
        later = [round for solution in solutions for round in solution.rounds[1:]]
        prompts = statistics.mean(round.prompt_tokens for round in later)
        frame = prompts / population - config.fan_in * config.tail_tokens
        shared = population * config.fan_in - EXPECTED_TAILS[order]
        rows.append(
            {
                "order": order,
                "round_0": [first[0].prompt_tokens, first[0].cached_tokens],
                "later": prompts,
                "later_saved": statistics.mean(round.cached_tokens for round in later),
                "later_at_most": (population - 1) * frame + shared * config.tail_tokens,
            }
        )
    return rows


def sweep(directory: str) -> list[dict[str, Any]]:
    """Every form in the records of a suite: its score, its tokens, its gain over chains by themselves."""
    found = {evaluation.label: evaluation for evaluation in read_evaluations([Path(directory)])}
    forms = {label: evaluation for label, evaluation in found.items() if evaluation.is_rsa}
    chain = next(evaluation for label, evaluation in forms.items() if label.endswith("--chain"))
    rows = []
    for label, form in forms.items():
        compared = compare(chain, form)
        rows.append(
            {
                "form": label.partition("--")[2],
                "accuracy": compared.b.mean,
                "half_width": compared.b.problems,
                "over_chain": compared.difference.mean,
                "over_chain_half_width": compared.difference.problems,
                "tokens": statistics.mean(record.tokens for record in form.records),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", metavar="DIR", help="a checkpoint of the full shape, in int4")
    parser.add_argument("--parts", nargs="+", default=["speed", "clock", "memory", "prefill"])
    parser.add_argument("--tokens", type=int, default=128, help="of a rollout, for speed (default: 128)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sweep", metavar="DIR", help="records of every form of thinking")
    parser.add_argument(
        "--chain", type=float, default=1.0,
        help="length of the chain, in longest ways through the population (default: 1)",
    )  # fmt: skip
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    if "speed" in args.parts:
        for name, directory in (("micro", None), ("full", args.full)):
            if name == "full" and directory is None:
                continue
            found[f"speed_{name}"] = speed(directory, args.tokens, args.repeats)
            for row in found[f"speed_{name}"]:
                print(
                    f"{name:6} N = {row['population']:2}  {row['tokens_s']:9,.1f} tokens/s  {row['ratio']:5.2f} times "
                    f"N = 1, of at most {row['ceiling']:5.2f}: {100 * row['of_ceiling']:.0f} %",
                    flush=True,
                )
    if "clock" in args.parts and args.full is not None:
        found["clock"] = clock(args.full, args.chain)
        took = found["clock"]
        print(
            f"population {took['population_s']:.0f} s ({took['tokens']:,} tokens), chain of {took['chain_tokens']:,} "
            f"tokens {took['chain_s']:.0f} s: {took['ratio']:.2f}",
            flush=True,
        )
    if "memory" in args.parts:
        found["memory"] = memory()
        print(f"peak of keys and values: {found['memory']['ratio']:.3f} of the formula", flush=True)
    if "prefill" in args.parts:
        found["prefill"] = prefill()
        for row in found["prefill"]:
            prompt, cached = row["round_0"]
            print(
                f"order {row['order']:9}  not read again: round 0 {cached:,} of {prompt:,} prompt tokens; round 1 "
                f"{row['later_saved']:,.0f} of {row['later']:,.0f}, where {row['later_at_most']:,.0f} are in common",
                flush=True,
            )
    if args.sweep is not None:
        found["sweep"] = sweep(args.sweep)
        for row in found["sweep"]:
            half = row["over_chain_half_width"] or 0.0
            print(
                f"{row['form']:8} {100 * row['accuracy']:5.1f} ±{100 * row['half_width']:.1f}  over chains "
                f"{100 * row['over_chain']:+5.1f} ±{100 * half:.1f}  {row['tokens']:,.0f} tokens",
                flush=True,
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
