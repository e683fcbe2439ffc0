"""What a program does, as something to vote with: its outputs for the example inputs that everybody can see.

    behaviour = Behaviour.of(problem)
    zaya.solve(problem.prompt, completer, selection="behaviour", behaviour=behaviour)

Programs of equal outputs are one, however they are written (spec markovian-rsa 8.2). Nothing is used but the prompt: no
test, no reference. Programs run in the sandbox, each text once, and all of them together for a bounded time. Not
covered: two programs that differ on no example are one, right or wrong.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

from zaya.envs.base import Problem
from zaya.envs.code import programs, values
from zaya.envs.code.tasks import LONGEST_PROGRAM
from zaya.envs.sandbox.runner import SandboxError
from zaya.errors import UsageError

_EXAMPLE = re.compile(r"^Input: (.+)\nReturns: (.+)$", re.MULTILINE)


class Behaviour:
    """Calls of it give a signature of what the program in a text does; None where there is no program, where it is
    right on no example, and where the time is used up."""

    def __init__(self, examples: Sequence[tuple[Any, Any]], *, limit_s: float = 1.0, total_s: float = 60.0) -> None:
        """examples: inputs, whose keys are arguments, and what is returned for them. limit_s: for an input; total_s:
        for all programs together, beyond which none is started. Raises UsageError where nothing can be run safely."""
        if not examples:
            raise UsageError("there is no example input to run programs on", hint="choose another selection")
        self.examples = list(examples)
        self.limit_s = limit_s
        self.left_s = total_s
        """Seconds that programs may still take."""
        self._known: dict[str, str | None] = {}
        self._seen: list[list[Any]] = []
        """Outputs that differ from each other."""
        self._lock = threading.Lock()
        programs.sandbox().run("pass")

    @classmethod
    def of(cls, problem: Problem, *, limit_s: float = 1.0, total_s: float = 60.0) -> Behaviour:
        """That of programs which answer a problem of `code/reconstruct` or `code/solve`, on its examples."""
        return cls(examples(problem.prompt), limit_s=limit_s, total_s=total_s)

    def __call__(self, text: str) -> str | None:
        source = values.fenced(text, "python", "py")
        if source is None or len(source) > LONGEST_PROGRAM:
            return None
        with self._lock:  # which of two alike is the first must not depend on threads, nor the time that is left
            if source not in self._known:
                if self.left_s <= 0:
                    return None
                begun = time.monotonic()
                try:
                    self._known[source] = self._signature(source)
                except (SandboxError, RecursionError):  # nothing is known about it; it gave back a bottomless value
                    return None
                finally:
                    self.left_s -= time.monotonic() - begun
            return self._known[source]

    def _signature(self, source: str) -> str | None:
        found = programs.run(source, [given for given, _ in self.examples], limit_s=self.limit_s)
        if found is None:
            return None
        outputs = [output if isinstance(output, list) else None for output in found]  # however it failed
        if not any(_is(output, [expected]) for output, (_, expected) in zip(outputs, self.examples, strict=True)):
            return None
        for number, others in enumerate(self._seen):
            if all(map(_is, outputs, others)):
                return f"behaviour {number}"
        self._seen.append(outputs)
        return f"behaviour {len(self._seen) - 1}"


def examples(prompt: str) -> list[tuple[Any, Any]]:
    """Inputs and outputs that the prompt of a task shows."""
    found = []
    for example in _EXAMPLE.findall(prompt):
        with contextlib.suppress(ValueError):  # words of a description
            given, output = map(json.loads, example)
            found.append((given, output))
    return found


def _is(output: list[Any] | None, other: list[Any] | None) -> bool:
    """Whether two outputs are the same, as the task compares them."""
    return values.same(output, other)
