"""Five tasks about programs. What is asked is answered in a fenced block, and judged by running it.

code/output         a program and an input: what does it return?
code/input          a program and an output: an input that makes it return that, of any that do
code/reconstruct    a description and a few examples: write the program
code/solve          a description and no example but one: write the program
code/falsify        a description and a program with a mistake: an input on which it is wrong

A level is a tenth of all programs, from short and simple to long. A written program passes when it is right on every
held-out input, among them some on which every stored mutant is wrong; it runs in the sandbox, sees inputs and
never what is expected. An input has to look like those of the generator before it counts. Source: spec post-training
9.3.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from zaya.core.rng import derive_seed
from zaya.envs.base import About, Problem, Score, Status
from zaya.envs.code import programs, values
from zaya.envs.code.programs import ENTRY, LEVELS, Program
from zaya.envs.code.schema import Shape, shape_of
from zaya.errors import UsageError, did_you_mean

PREFIX = "code/"
SEEN = 100
"""Inputs of each program that its shape is learnt from. Examples come after them, held-out inputs after those."""
TESTS = 20
EXAMPLES = {"reconstruct": 4, "solve": 1}
LONGEST_PROGRAM = 20_000
"""Characters of a program that is judged."""

_NO_BLOCK = Score(0.0, False, Status.BAD_FORMAT, detail="the answer does not end in a fenced block")


class CodeTask:
    """One of the five, by its short name."""

    version = 1

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = PREFIX + kind
        frame = "```python\n%s\n```" if kind in EXAMPLES else "```json\n%s\n```"
        self.about = About("code", "Apache-2.0", highest=LEVELS - 1, frame=frame)

    def sample(self, seed: int, difficulty: int) -> Problem | None:
        rng = random.Random(derive_seed("code", self.kind, self.version, seed, difficulty))
        chosen = [p for p in programs.at_level(difficulty) if p.mutants or self.kind != "falsify"]
        if not chosen:
            return None
        program = rng.choice(chosen)
        first = rng.randrange(1_000, 1_000_000)
        made = programs.inputs_and_outputs(
            program.source, program.generator, [*range(SEEN), *range(first, first + TESTS + 8)]
        )
        if made is None:
            return None
        inputs, outputs = made
        known = [(x, y[0]) for x, y in zip(inputs[SEEN:], outputs[SEEN:], strict=True) if isinstance(y, list)]
        if len(known) < TESTS or not all(isinstance(y, list) for y in outputs):
            return None
        match self.kind:
            case "output":
                return self._output(program, known, seed, difficulty)
            case "input":
                return self._input(program, known, seed, difficulty)
            case "falsify":
                return self._falsify(program, rng.choice(program.mutants), inputs[:SEEN], known, seed, difficulty)
        return self._write(program, known, list(zip(inputs[:SEEN], outputs[:SEEN], strict=True)), seed, difficulty)

    def score(self, problem: Problem, text: str) -> Score:
        answer = values.fenced(text, *(("python", "py") if self.kind in EXAMPLES else ("json",)))
        if answer is None:
            return _NO_BLOCK
        if self.kind in EXAMPLES:
            return _judge_program(problem, answer)
        try:
            value = values.parse(answer)
        except values.NotAValue as error:
            return Score(0.0, False, Status.BAD_FORMAT, answer, str(error))
        match self.kind:
            case "output":
                return _verdict(values.same(value, problem.meta["output"]), answer)
            case "input":
                return _judge_input(problem, answer, value)
        return _judge_counterexample(problem, answer, value)

    def reference(self, problem: Problem) -> str | None:
        if self.kind in EXAMPLES:
            return programs.by_digest()[problem.meta["program"]].source
        return values.dump(problem.meta["output" if self.kind == "output" else "input"])

    # ----- what is asked

    def _problem(self, program: Program, prompt: str, meta: dict[str, Any], seed: int, difficulty: int) -> Problem:
        return Problem(self.name, prompt, {"program": program.digest, **meta}, difficulty, seed, self.version)

    def _output(self, program: Program, known: Sequence[tuple[Any, Any]], seed: int, difficulty: int) -> Problem | None:
        given, output = known[0]
        prompt = (
            f"{program.description}\n\n{program.spec}\n\nThis program does it:\n\n```python\n{program.source}```\n\n"
            f"What does `{ENTRY}` return for this input, of which every key is an argument?\n\n"
            f"```json\n{values.dump(given)}\n```\n\nEnd with the returned value as JSON in a block of its own:\n\n"
            "```json\n...\n```"
        )
        return self._problem(program, prompt, {"output": output}, seed, difficulty)

    def _input(self, program: Program, known: Sequence[tuple[Any, Any]], seed: int, difficulty: int) -> Problem | None:
        given, output = known[0]
        if sum(values.same(output, other) for _, other in known) > 0.2 * len(known):
            return None  # many inputs give it: nothing to find
        prompt = (
            f"{program.description}\n\n{program.spec}\n\nThis program does it:\n\n```python\n{program.source}```\n\n"
            f"Find an input for which `{ENTRY}` returns this value:\n\n```json\n{values.dump(output)}\n```\n\n"
            "End with the input, an object with a key for every argument, as JSON in a block of its own:\n\n"
            "```json\n...\n```"
        )
        return self._problem(program, prompt, {"input": given, "output": output}, seed, difficulty)

    def _write(
        self,
        program: Program,
        known: Sequence[tuple[Any, Any]],
        seen: Sequence[tuple[Any, Any]],
        seed: int,
        difficulty: int,
    ) -> Problem | None:
        shown, held = known[: EXAMPLES[self.kind]], known[EXAMPLES[self.kind] :][:TESTS]
        for number in program.mutants:  # a test that each one fails
            found = programs.run(program.mutant(number), [x for x, _ in held], limit_s=0.2)
            if found is not None and not _is_wrong(found, held):
                more = programs.run(program.mutant(number), [x for x, _ in seen], limit_s=0.2) or ["time"] * len(seen)
                held = [*held, *(
                    (x, y[0]) for (x, y), z in zip(seen, more, strict=True)
                    if not _returned(z, y[0])
                )][: TESTS + 4]  # fmt: skip
        heading = "Examples" if len(shown) > 1 else "An example"
        examples = "\n\n".join(f"Input: {values.dump(x)}\nReturns: {values.dump(y)}" for x, y in shown)
        prompt = (
            f"{program.description}\n\n{program.spec}\n\n{heading}:\n\n{examples}\n\n"
            f"Write a Python function `{ENTRY}` that takes the keys of an input as arguments and returns the output, "
            "with the standard library alone. End with the whole program in a block of its own:\n\n```python\n...\n```"
        )
        return self._problem(program, prompt, {"tests": [[x, y] for x, y in held]}, seed, difficulty)

    def _falsify(
        self,
        program: Program,
        number: int,
        seen: Sequence[Any],
        known: Sequence[tuple[Any, Any]],
        seed: int,
        difficulty: int,
    ) -> Problem | None:
        shape, mutant = shape_of(seen), program.mutant(number)
        fitting = [(x, y) for x, y in known if shape.fits(x)]
        found = programs.run(mutant, [x for x, _ in fitting], limit_s=0.2)
        if found is None:
            return None
        wrong = [x for (x, y), z in zip(fitting, found, strict=True) if not _returned(z, y)]
        if not wrong:
            return None
        examples = "\n".join(values.dump(x) for x in seen[:2])
        assert shape.keys is not None
        bounds = "\n".join(f"- {key}: {child.words_for()}" for key, child in shape.keys.items())
        prompt = (
            f"{program.description}\n\n{program.spec}\n\nThis program should do it, and has a mistake:\n\n"
            f"```python\n{mutant}\n```\n\nFind an input for which it returns something wrong, fails or does not end. "
            f"Inputs are objects with a key for every argument of `{ENTRY}`:\n\n{bounds}\n\n"
            f"Such as:\n\n```json\n{examples}\n```\n\n"
            "End with the input as JSON in a block of its own:\n\n```json\n...\n```"
        )
        return self._problem(program, prompt, {"mutant": number, "input": wrong[0]}, seed, difficulty)


# ----- judging


def _verdict(is_correct: bool, answer: str, detail: str = "") -> Score:
    return Score(float(is_correct), is_correct, answer=answer, detail=detail)


def _is_wrong(found: Sequence[Any], tests: Sequence[tuple[Any, Any]]) -> bool:
    return any(not _returned(z, y) for z, (_, y) in zip(found, tests, strict=True))


def _returned(found: Any, expected: Any) -> bool:
    """Whether what `programs.run` said of an input is this value; a program that was written may have said anything."""
    return isinstance(found, list) and len(found) == 1 and values.same(found[0], expected)


def _judge_program(problem: Problem, source: str) -> Score:
    if len(source) > LONGEST_PROGRAM:
        return _verdict(False, source, f"a program of {len(source):,} characters")
    tests = [(x, y) for x, y in problem.meta["tests"]]
    found = programs.run(source, [x for x, _ in tests])
    if found is None:
        return _verdict(False, source, "the program does not run")
    return _verdict(not _is_wrong(found, tests), source)


def _judge_input(problem: Problem, answer: str, value: Any) -> Score:
    program = programs.by_digest()[problem.meta["program"]]
    if not isinstance(value, dict) or value.keys() != problem.meta["input"].keys():
        return _verdict(False, answer, "an input has a key for every argument")
    found = programs.run(program.source, [value])
    return _verdict(found is not None and _returned(found[0], problem.meta["output"]), answer)


def _judge_counterexample(problem: Problem, answer: str, value: Any) -> Score:
    program = programs.by_digest()[problem.meta["program"]]
    shape = _shape(program.digest)
    if shape is None:
        raise RuntimeError(f"the inputs of program {program.digest} could not be made again")
    if not shape.fits(value):
        return _verdict(False, answer, "the input is not of the form that is asked for")
    trusted = programs.run(program.source, [value])
    if trusted is None or not isinstance(trusted[0], list):
        return _verdict(False, answer, "the input is none that the task is for")
    found = programs.run(program.mutant(problem.meta["mutant"]), [value])
    return _verdict(found is None or _is_wrong(found, [(value, trusted[0][0])]), answer)


_SHAPES: dict[str, Shape] = {}


def _shape(digest: str) -> Shape | None:
    if digest not in _SHAPES:
        program = programs.by_digest()[digest]
        made = programs.inputs_and_outputs(program.source, program.generator, range(SEEN))
        if made is None:
            return None
        _SHAPES[digest] = shape_of(made[0])
    return _SHAPES[digest]


TASKS = {PREFIX + kind: CodeTask(kind) for kind in ("falsify", "input", "output", "reconstruct", "solve")}


def names() -> tuple[str, ...]:
    return tuple(TASKS)


def environment(name: str) -> CodeTask:
    if name not in TASKS:
        raise UsageError(f"there is no task {name!r} about programs", hint=did_you_mean(name, TASKS))
    return TASKS[name]
