"""Prompts with instructions that a rule can check, in the form of IFEval and IFBench.

    {"prompt": ..., "instruction_id_list": ["keywords:existence", ...], "kwargs": [{"keywords": [...]}, ...]}

Judged by the checkers of the package if-verifiable, through `envs.instruct.checkers`, which says what of it differs.
The whole visible answer, as it is, has to follow every instruction: the benchmarks' strict accuracy of prompts. The
reward is the part of the instructions that is followed, from which their accuracy of instructions comes. Nothing of
what our own tasks ask beside (`envs.instruct.tasks`) is asked here. Source: spec post-training 11 and 12.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from zaya.envs.base import Problem, Score, Status
from zaya.envs.files.base import Field, FileEnvironment, Item, LeftOut, Row, opened
from zaya.envs.instruct import checkers
from zaya.errors import UsageError, did_you_mean

UNJUDGED = {"words:start_verb": "needs a tagger of parts of speech, which has to be downloaded"}
"""Instructions that nothing here can check."""


class InstructFile(FileEnvironment):
    """Its meta: `instructions`, pairs of an identifier and its arguments."""

    kind = "instruct"
    fields: ClassVar = {
        "prompt": Field("prompt"),
        "instructions": Field("instruction_id_list"),
        "arguments": Field("kwargs"),
    }
    category = "instructions"
    frame = "%s"

    def __init__(self, name: str) -> None:
        checkers.load()
        super().__init__(name)

    def item(self, row: Row) -> Item:
        names, arguments = opened(row.get("instructions")), opened(row.get("arguments"))
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise row.wrong("instructions", "a list of identifiers", names)
        if not isinstance(arguments, list) or len(arguments) != len(names):
            raise row.wrong("arguments", f"a list of {len(names)} objects, one for each instruction", arguments)
        pairs = []
        for name, given in zip(names, arguments, strict=True):
            given = {} if given is None else opened(given)
            if not isinstance(given, Mapping):
                raise row.wrong("arguments", "a list of objects", arguments)
            # tables of the data have a column for every argument there is, empty where an instruction has none
            pairs.append([name, {key: value for key, value in given.items() if value is not None}])
        _check(row, pairs)
        return Item(row.text("prompt"), {"instructions": pairs})

    def score(self, problem: Problem, text: str) -> Score:
        if not text.strip():
            return Score(0.0, False, Status.BAD_FORMAT, detail="there is no answer")
        followed = followed_by(text, problem)
        missed = [name for (name, _), is_followed in zip(problem.meta["instructions"], followed, strict=True)
                  if not is_followed]  # fmt: skip
        detail = f"does not follow {', '.join(missed)}" if missed else ""
        return Score(sum(followed) / len(followed), not missed, answer=text, detail=detail)

    def reference(self, problem: Problem) -> None:
        return None


def followed_by(text: str, problem: Problem) -> list[bool]:
    """For each instruction of a problem whether a text follows it."""
    return [checkers.follows(name, arguments, text) for name, arguments in problem.meta["instructions"]]


def _check(row: Row, pairs: list[Any]) -> None:
    """That each instruction exists, can be judged, and takes these arguments."""
    known = checkers.identifiers()
    for name, arguments in pairs:
        if name not in known:
            raise UsageError(f"{row.where}: there is no instruction {name!r}", hint=did_you_mean(name, known))
        if name in UNJUDGED:
            raise LeftOut(f"{name} {UNJUDGED[name]}")
        try:
            checkers.describe(name, arguments)
        except Exception as error:  # whatever a checker makes of arguments that are not its own
            raise UsageError(f"{row.where}: {name} does not take {arguments!r:.80}: {error}") from error
