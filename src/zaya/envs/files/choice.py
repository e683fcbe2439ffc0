"""Questions with options, of which one is right: GPQA, MMLU-Pro.

    {"question": ..., "options": [...], "answer": "C"}                          options in order, and which one is right
    {"Question": ..., "Correct Answer": ..., "Incorrect Answer 1": ..., ...}    the right one and the others

Of the second form the order is drawn from the content of the question, once and for all samples: over a benchmark every
letter is right about equally often, so that a model that likes one of them gains nothing. The answer is a letter in a
box. `answer` may be the letter, the place of the option from 0 on, or the option itself.
"""

from __future__ import annotations

import random
import re
from string import ascii_uppercase
from typing import ClassVar

from zaya.core.rng import derive_seed
from zaya.envs.answers import NO_ANSWER, boxed
from zaya.envs.base import Problem, Score
from zaya.envs.files.base import Field, FileEnvironment, Item, Row, opened
from zaya.errors import UsageError

INSTRUCTION = "Give the letter of the right option in \\boxed{}."

_LETTER = re.compile(r"(?:\\(?:text|textbf|mathrm|mathbf|bf)\s*\{\s*)?\(?\s*([A-Za-z])\s*\)?\s*[.:)]?\s*\}?")


class ChoiceFile(FileEnvironment):
    """Its meta: `answer`, a letter, and `options`, how many there are."""

    kind = "choice"
    fields: ClassVar = {
        "prompt": Field("question"),
        "options": Field("options", is_required=False),
        "answer": Field("answer"),
        "wrong": Field(is_required=False),
    }
    category = "multiple choice"

    def item(self, row: Row) -> Item:
        question = row.text("prompt").strip()
        options, right = _shuffled(row, question) if "wrong" in row.paths else _listed(row)
        letters = ascii_uppercase[: len(options)]
        lines = [f"{letter}. {option}" for letter, option in zip(letters, options, strict=True)]
        prompt = "\n".join([question, "", *lines, "", INSTRUCTION])
        return Item(prompt, {"answer": letters[right], "options": len(options)})

    def score(self, problem: Problem, text: str) -> Score:
        answer = boxed(text)
        if answer is None:
            return NO_ANSWER
        letter = letter_of(answer)
        is_correct = letter == problem.meta["answer"]
        return Score(float(is_correct), is_correct, answer=letter or answer)

    def reference(self, problem: Problem) -> str:
        return problem.meta["answer"]


def letter_of(answer: str) -> str | None:
    """The letter that is all an answer says: `C`, `c`, `(C)`, `C.`, `\\text{C}`; None where it says more or less."""
    found = _LETTER.fullmatch(answer.strip())
    return None if found is None else found[1].upper()


def _listed(row: Row) -> tuple[list[str], int]:
    """The options in their order, and the place of the right one."""
    options = _texts(row, "options")
    answer = row.get("answer")
    if isinstance(answer, str) and answer.strip() in ascii_uppercase[: len(options)] and len(answer.strip()) == 1:
        return options, ascii_uppercase.index(answer.strip())
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return options, answer
    if isinstance(answer, str) and options.count(answer.strip()) == 1:
        return options, options.index(answer.strip())
    raise row.wrong("answer", f"one of {len(options)} options, by letter, by place from 0 on, or as it stands", answer)


def _shuffled(row: Row, question: str) -> tuple[list[str], int]:
    """All options in an order that the content decides, and the place of the right one."""
    right = row.text("answer").strip()
    options = [right, *_texts(row, "wrong")]
    if right in options[1:]:
        raise UsageError(f"{row.where}: the right option is among the wrong ones: {right!r:.80}")
    random.Random(derive_seed("choice", question, *sorted(options))).shuffle(options)
    return options, options.index(right)


def _texts(row: Row, field: str) -> list[str]:
    """A field with a list, or several fields with one text each, named with commas between them."""
    path = row.paths[field]
    names = path.split(",")
    if len(names) > 1:
        parts = [Row(row.where, row.data, {name.strip(): name.strip()}).get(name.strip()) for name in names]
    else:
        parts = opened(row.get(field))
    if not isinstance(parts, list) or not 1 <= len(parts) < len(ascii_uppercase):
        raise row.wrong(field, "a list of up to 25 options", parts)
    options = [str(part).strip() for part in parts if part is not None]
    if not all(options) or len(options) < len(parts):
        raise row.wrong(field, "a list of options, none of them empty", parts)
    return options
