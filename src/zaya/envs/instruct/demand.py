"""What every problem demands of an answer besides its instruction: that there is one, and that it is for this problem.

Half of the checkers are content with an empty text, and nearly all with any text that was made for another problem.
So an answer needs a number of words that are not copied from the prompt, half of them different, and among them the
three that its request names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

COPIED_RUN = 5
"""So many words in a row that stand in the prompt as well are copied."""


def words(text: str) -> list[str]:
    """Of letters: numbers make no answer."""
    return re.findall(r"[^\W\d_]+", text.lower())


def own_words(text: str, prompt: str) -> list[str]:
    """The words of a text, without those in a run that stands in the prompt."""
    found, source = words(text), words(prompt)
    runs = {tuple(source[i : i + COPIED_RUN]) for i in range(len(source) - COPIED_RUN + 1)}
    copied = [False] * len(found)
    for i in range(len(found) - COPIED_RUN + 1):
        if tuple(found[i : i + COPIED_RUN]) in runs:
            copied[i : i + COPIED_RUN] = [True] * COPIED_RUN
    return [word for word, is_copied in zip(found, copied, strict=True) if not is_copied]


def demand(number: int) -> str:
    """How a prompt says it."""
    return (
        f"The answer needs at least {number} words of its own, at least {number // 2} of them different. Runs of "
        f"{COPIED_RUN} or more words that stand in this message do not count. Everything you write is part of the answer."
    )


def lacks(text: str, prompt: str, number: int, mentions: Sequence[str]) -> str | None:
    """What an answer has too little of; None where nothing is missing."""
    own = own_words(text, prompt)
    different = set(own)
    if len(own) < number or len(different) < number // 2:
        return f"{len(own)} words of its own, {len(different)} different: {number} and {number // 2} are needed"
    missing = [word for word in mentions if word.lower() not in different]
    return f"does not mention {', '.join(missing)}" if missing else None
