"""Which programs can be trusted, and which mistakes in them are worth finding: makes `programs.json`.

    python -m zaya.envs.code.select

A program is taken that uses the standard library alone, whose generator makes the same inputs of the same seeds, that
returns the same values for them in two processes, as JSON and within a second, and different ones for different inputs;
whose values are of a size to reason about, and do not stand in its source. Of its mutants those are kept that are wrong
on between 1 % and 60 % of inputs. Its level is its tenth among all, by lines executed and size of its syntax tree.
Source: spec post-training 9.2 and 9.3.
"""

from __future__ import annotations

import ast
import json
import math
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from zaya.core.progress import Progress
from zaya.core.rng import derive_seed
from zaya.envs.code import values
from zaya.envs.code.mutants import mutants
from zaya.envs.code.programs import LEVELS, SELECTED, inputs_and_outputs, records, run, sandbox
from zaya.envs.code.schema import shape_of

SEEDS = 100
"""Inputs that a mutant is tried on."""
MUTANTS_TRIED, MUTANTS_KEPT = 10, 3
LEAST_WRONG, MOST_WRONG = 0.01, 0.6
LEAST_DISTINCT = 0.3
"""Share of different outputs, of twenty."""
LONGEST_TEXT = 6000
"""Characters of a description and source together."""

_TRACE = """

def __zaya_steps(inputs):
    import copy, sys
    steps = 0
    def trace(frame, event, argument):
        nonlocal steps
        steps += event == "line"
        return trace
    sys.settrace(trace)
    try:
        for given in inputs:
            main_solution(**copy.deepcopy(given))
    finally:
        sys.settrace(None)
    return steps / len(inputs)
"""


@dataclass(slots=True)
class Found:
    digest: str
    size: float
    mutants: list[int]


def look(digest: str) -> Found | str:
    """A program that can be trusted; or in a word why not."""
    record = records()[digest]
    source, generator = record["code_sample"].strip() + "\n", record["input_generator"].strip() + "\n"
    if len(source) + len(record["task_description"]) > LONGEST_TEXT:
        return "long"
    try:
        tree = ast.parse(source)
        imported = {name.split(".")[0] for node in ast.walk(tree) for name in _imports(node)}
    except (SyntaxError, ValueError, RecursionError):
        return "syntax"
    if not imported <= sys.stdlib_module_names or imported & {"time", "datetime", "uuid", "secrets", "threading", "os"}:
        return "imports"
    seeds = list(range(SEEDS))
    first, again = (inputs_and_outputs(source, generator, seeds) for _ in range(2))
    if first is None or again is None:
        return "fails"
    inputs, outputs = first
    if values.dump(first) != values.dump(again):
        return "changes"
    if not all(isinstance(output, list) for output in outputs) or not all(isinstance(x, dict) and x for x in inputs):
        return "raises"
    texts = [values.dump(output[0]) for output in outputs]
    if max(map(len, texts)) + max(len(values.dump(x)) for x in inputs) > values.LARGEST:
        return "large"
    if not all(values.same(x, x) for pair in (inputs, [output[0] for output in outputs]) for x in pair):
        return "NaN"
    if len(set(texts[:20])) < LEAST_DISTINCT * 20 or len({values.dump(x) for x in inputs[:20]}) < 10:
        return "alike"
    if sum(len(text) > 3 and text.strip('"') in source for text in texts) > 0.2 * SEEDS:
        return "printed"
    steps = sandbox().run(source + _TRACE, call=("__zaya_steps", [inputs[:5]]))
    if steps.status != "ok" or not isinstance(steps.value, int | float):
        return "untraceable"
    size = math.log(steps.value + 1) + math.log(sum(1 for _ in ast.walk(tree)))
    return Found(digest, size, _worthwhile(digest, source, inputs, outputs))


def _worthwhile(digest: str, source: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> list[int]:
    """Numbers of mutants that are wrong on some inputs and not on most."""
    every = [mutant for _, mutant in mutants(source)]
    chosen = random.Random(derive_seed("mutants", digest)).sample(range(len(every)), min(MUTANTS_TRIED, len(every)))
    shape = shape_of(inputs)
    assert all(shape.fits(x) for x in inputs), "a shape fits what it was made of"
    kept: list[int] = []
    for number in chosen:
        found = run(every[number], inputs, limit_s=0.1)
        if found is None:
            continue
        wrong = sum(not isinstance(f, list) or not values.same(f[0], o[0]) for f, o in zip(found, outputs, strict=True))
        if LEAST_WRONG <= wrong / len(inputs) <= MOST_WRONG:
            kept.append(number)
            if len(kept) == MUTANTS_KEPT:
                break
    return sorted(kept)


def _imports(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [name.name for name in names]
        case ast.ImportFrom(module=module):
            return [module or "."]
    return []


def main() -> None:
    found: list[Found] = []
    reasons: dict[str, int] = {}
    with Progress(len(records()), "programs") as progress, ThreadPoolExecutor(2) as threads:
        for one in threads.map(look, sorted(records())):
            progress.update()
            if isinstance(one, str):
                reasons[one] = reasons.get(one, 0) + 1
            else:
                found.append(one)
    sandbox().close()
    found.sort(key=lambda one: (one.size, one.digest))
    rows = [
        {"digest": one.digest, "level": index * LEVELS // len(found), "mutants": one.mutants}
        for index, one in enumerate(found)
    ]
    rows.sort(key=lambda row: str(row["digest"]))
    SELECTED.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", "utf-8")
    with_mutants = sum(bool(one.mutants) for one in found)
    print(f"{len(found)} programs of {len(records())}, {with_mutants} with mutants; left out: {reasons}")


if __name__ == "__main__":
    main()
