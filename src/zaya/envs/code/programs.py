"""Reference programs, what they take, and running them.

The records come from inside the wheel of reasoning-gym (Apache-2.0), which bundles some 3,000 CodeI/O-style programs
with descriptions and generators of inputs (arXiv 2502.07316; spec post-training 9.2). They are read, never imported
or run in this process: what runs, runs in the sandbox. `programs.json` beside this file names those that can be
trusted, as `envs.code.select` found them, with a level of difficulty and the mutants that are worth something.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zaya.envs.code.mutants import mutant
from zaya.envs.sandbox.runner import Limits, Result, Sandbox
from zaya.errors import UsageError

ENTRY = "main_solution"
"""The function of every program; its parameters are the keys of an input."""
SELECTED = Path(__file__).with_name("programs.json")
LIMITS = Limits(seconds=4.0, memory_bytes=512 << 20, output_bytes=1 << 18, threads=1)
LEVELS = 10

_DRIVER = f"""

def __zaya_run(inputs, limit):
    # an alarm for each input: one that never ends is an answer too
    import copy, json, signal
    class Over(BaseException):
        pass
    def over(*_):
        raise Over
    signal.signal(signal.SIGALRM, over)
    found = []
    for given in inputs:
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            found.append([json.loads(json.dumps({ENTRY}(**copy.deepcopy(given))))])
        except Over:
            found.append("time")
        except Exception as error:
            found.append(type(error).__name__)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return found

def __zaya_inputs(seeds):
    import json
    from random import Random
    return [json.loads(json.dumps(generate_inputs(Random(seed)))) for seed in seeds]

def __zaya_both(seeds, limit):
    inputs = __zaya_inputs(seeds)
    return [inputs, __zaya_run(inputs, limit)]
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A reference program, and all that belongs to it."""

    digest: str
    """Of its source and its generator: what names it here."""
    description: str
    spec: str
    """Inputs and output in words."""
    source: str
    generator: str
    level: int
    """From 0, short and simple, to 9."""
    mutants: tuple[int, ...]
    """Numbers of mutants that are wrong on some inputs and right on most."""

    def mutant(self, number: int) -> str:
        """Its source with one mistake."""
        return mutant(self.source, number)[1]


@cache
def records() -> Mapping[str, Mapping[str, str]]:
    """Every record of the wheel, by digest. Raises UsageError where it is not installed."""
    found = importlib.util.find_spec("reasoning_gym")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "the tasks about programs need the extra 'envs': reasoning_gym is not installed",
            hint="pip install 'openzaya[envs]'",
        )
    file = Path(found.submodule_search_locations[0]) / "data/codeio.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return {_digest(record): record for record in map(json.loads, lines)}


@cache
def programs() -> tuple[Program, ...]:
    """Those that were selected, by level and then by digest."""
    if not SELECTED.is_file():
        return ()
    found = []
    for row in json.loads(SELECTED.read_text("utf-8")):
        record = records().get(row["digest"])
        if record is not None:
            found.append(
                Program(
                    row["digest"],
                    record["task_description"].strip(),
                    record["input_output_spec"].strip(),
                    record["code_sample"].strip() + "\n",
                    record["input_generator"].strip() + "\n",
                    row["level"],
                    tuple(row["mutants"]),
                )
            )
    return tuple(sorted(found, key=lambda program: (program.level, program.digest)))


@cache
def by_digest() -> Mapping[str, Program]:
    return {program.digest: program for program in programs()}


@cache
def at_level(level: int) -> tuple[Program, ...]:
    return tuple(program for program in programs() if program.level == level)


@cache
def sandbox() -> Sandbox:
    """The one of this process. Its runs are confined one by one."""
    return Sandbox(LIMITS)


def run(source: str, inputs: Sequence[Any], *, limit_s: float = 1.0) -> list[Any] | None:
    """What a program's function returns for inputs, in one process: [value], or the name of what it raised, or "time".

    None where the program does not get that far.
    """
    result = _call(source, "__zaya_run", [list(inputs), limit_s])
    found = result.value
    is_whole = result.status == "ok" and isinstance(found, list) and len(found) == len(inputs)
    return found if is_whole else None


def inputs_and_outputs(source: str, generator: str, seeds: Sequence[int], *, limit_s: float = 1.0) -> Any:
    """Inputs that the generator makes of seeds, and what the program returns for them as `run` has it, or None."""
    result = _call(f"{source}\n\n{generator}", "__zaya_both", [list(seeds), limit_s])
    return result.value if result.status == "ok" else None


def _call(source: str, name: str, arguments: Sequence[Any]) -> Result:
    return sandbox().run(source + _DRIVER, call=(name, arguments))


def _digest(record: Mapping[str, str]) -> str:
    return hashlib.blake2b(f"{record['code_sample']}\0{record['input_generator']}".encode(), digest_size=8).hexdigest()
