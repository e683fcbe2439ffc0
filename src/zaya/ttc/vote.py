"""Which of the last candidates becomes the answer. Source: spec markovian-rsa 8.2. Used by `ttc.rsa` and `eval`."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Literal

from zaya.ttc.types import Candidate

Selection = Literal["auto", "majority", "single", "random"]
"""`majority`: one with the answer that most agree on; `single`: the only one there is; `random`: any; `auto`: by
majority where anybody has an answer, else any."""

Extract = Callable[[str], str | None]
"""The answer in a visible text, None where there is none."""
Equivalent = Callable[[str, str], bool]
"""Whether two answers say the same."""

_BRACES = re.compile(r"\\boxed\{|[{}]")


def boxed(text: str) -> str | None:
    r"""What the last \boxed{...} that is closed holds; None where there is none, or nothing in it."""
    opened: list[re.Match[str]] = []
    start = stop = -1
    for match in _BRACES.finditer(text):
        if match[0] != "}":
            opened.append(match)
        elif opened and (opener := opened.pop())[0] != "{" and opener.end() > start:
            start, stop = opener.end(), match.start()
    return text[start:stop].strip() or None if start >= 0 else None


def same_text(a: str, b: str) -> bool:
    """The equivalence of those who know nothing about the answers."""
    return a.strip() == b.strip()


def clusters(answers: Sequence[str | None], equivalent: Equivalent | None = None) -> list[list[int]]:
    """Indices of equivalent answers, the largest cluster first, of equal ones the one that begins first.

    An answer joins the first cluster whose first member it is equivalent to. Who has none is in no cluster.
    """
    same = equivalent or same_text
    found: list[list[int]] = []
    for i, answer in enumerate(answers):
        if answer is None:
            continue
        for cluster in found:
            first = answers[cluster[0]]
            assert first is not None
            if same(first, answer):
                cluster.append(i)
                break
        else:
            found.append([i])
    return sorted(found, key=len, reverse=True)  # stable, so the earlier stays before the later


def majority(
    candidates: Sequence[Candidate], extract: Extract | None = None, equivalent: Equivalent | None = None
) -> Candidate | None:
    """A candidate with the answer that most have: one the model finished before one that was cut, then the shortest.

    `extract` reads the answers anew; without it they are those the candidates have. None where nobody has one.
    """
    answers = [candidate.answer if extract is None else extract(candidate.text) for candidate in candidates]
    found = clusters(answers, equivalent)
    if not found:
        return None
    members = [candidates[i] for i in found[0]]
    return min(members, key=lambda candidate: (not candidate.is_finished, candidate.generated_tokens))


def select(
    candidates: Sequence[Candidate], selection: Selection, seed: int, equivalent: Equivalent | None = None
) -> Candidate | None:
    """The candidate that becomes the answer; None where there are no candidates, or nobody to vote for."""
    if not candidates or selection == "single":
        return next(iter(candidates), None)
    voted = None if selection == "random" else majority(candidates, None, equivalent)
    if voted is None and selection != "majority":
        return random.Random(seed).choice(candidates)
    return voted
