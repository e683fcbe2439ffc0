"""Kinds of files, by the prefix of an environment's name: `math:FILE.jsonl`, `choice:FILE.jsonl` and so on."""

from __future__ import annotations

from zaya.envs.files.base import FileEnvironment
from zaya.envs.files.choice import ChoiceFile
from zaya.envs.files.instruct import InstructFile
from zaya.envs.files.math import MathFile
from zaya.envs.files.programs import ProgramFile
from zaya.envs.files.tools import ToolFile

KINDS: dict[str, type[FileEnvironment]] = {
    kind.kind: kind for kind in (ChoiceFile, InstructFile, MathFile, ProgramFile, ToolFile)
}


def names() -> tuple[str, ...]:
    """None: files are named by who has them."""
    return ()


def environment(name: str) -> FileEnvironment:
    return KINDS[name.partition(":")[0]](name)
