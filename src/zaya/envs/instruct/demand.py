"""What every problem demands of an answer besides its instruction: that there is one, and that it is for this problem.

Half of the checkers are content with an empty text, and nearly all with any text that was made for another problem.
So an answer needs a number of words that are not copied from the prompt, half of them different, and among them the
three that its request names. One text with every word that any request could name would then serve for all; so it may
have only so many that its own did not name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zaya.envs.instruct.words import NAMES, SINGLE

COPIED_RUN = 5
"""So many words in a row that stand in the prompt as well are copied."""

MOST_STRAY = 15
"""So many words that other requests name, and this message does not, make an answer a list of words. By them a fixed
text would serve for less than one request in a hundred; an honest one of 200 words has about three."""
_NAMED = frozenset(word.lower() for word in (*SINGLE, *NAMES))


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
        f"{COPIED_RUN} or more words that stand in this message do not count. All that you write is part of the "
        "answer, and a mere list of words is none."
    )


def lacks(text: str, prompt: str, number: int, mentions: Sequence[str]) -> str | None:
    """What an answer has too little of; None where nothing is missing."""
    own = own_words(text, prompt)
    different = set(own)
    if len(own) < number or len(different) < number // 2:
        return f"{len(own)} words of its own, {len(different)} different: {number} and {number // 2} are needed"
    missing = [word for word in mentions if word.lower() not in different]
    if missing:
        return f"does not mention {', '.join(missing)}"
    stray = len(different & _NAMED - set(words(prompt)))
    return f"lists {stray} words that other requests name" if stray > MOST_STRAY else None
