"""Environments for the tests of the pool, which misbehave on demand."""

from __future__ import annotations

import ctypes
import os
import signal

from zaya.envs.base import About, Problem, Score
from zaya.envs.worker import MEMORY_BYTES

TOO_MUCH = MEMORY_BYTES + (1 << 30)
"""Bytes that are asked for and never written: without a limit one gets them, and they cost nothing."""


def forever() -> None:
    while True:
        pass


class Scripted:
    """Difficulty says what making a problem does, the answer what scoring it does. Scores say which process it was."""

    name = "tests.envs.tasks:SCRIPTED"
    version = 1
    about = About("scripted", "Apache-2.0")

    def sample(self, seed: int, difficulty: int) -> Problem | None:
        match difficulty:
            case 1:
                forever()
            case 2:
                raise RuntimeError("no such problem")
            case 3:
                return None
            case 4:
                os._exit(7)
            case 5:
                bytearray(TOO_MUCH)
            case 6:
                return Problem(self.name, "long" * 500_000, {}, difficulty, seed)
        print("what a task prints")
        return Problem(self.name, f"item {seed % 40}", {"read": os.read(0, 1).decode()}, difficulty, seed)

    def score(self, problem: Problem, text: str) -> Score:
        print('["done", "printed by a task"]', flush=True)
        match text:
            case "loop":
                forever()
            case "raise":
                raise RuntimeError("cannot judge")
            case "memory":
                bytearray(TOO_MUCH)
            case "die":
                os._exit(7)
            case "segfault":
                ctypes.string_at(0)
            case "nan":
                return Score(float("nan"), False)
            case "nothing":
                return None  # pyright: ignore[reportReturnType]
            case "orphan":
                os.kill(os.getppid(), signal.SIGKILL)
                forever()
            case "interrupt":
                os.killpg(os.getpgid(os.getppid()), signal.SIGINT)  # as a terminal does
                forever()
        if text.startswith("die once "):
            try:
                os.close(os.open(text.removeprefix("die once "), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os._exit(7)
        return Score(1.0, True, answer=text, detail=str(os.getpid()))

    def reference(self, problem: Problem) -> str | None:
        return None


class Lenient(Scripted):
    """Reads loosely too: `loose` is wrong as it stands, and right so."""

    name = "tests.envs.tasks:LENIENT"

    def score(self, problem: Problem, text: str) -> Score:
        return Score(float(text == "right"), text == "right", answer=text)

    def is_loosely_right(self, problem: Problem, text: str) -> bool:
        match text:
            case "loop":
                forever()
            case "raise":
                raise RuntimeError("cannot judge")
        return text in ("right", "loose")


SCRIPTED = Scripted()
LENIENT = Lenient()
NAMELESS = object()
RENAMED = SCRIPTED
