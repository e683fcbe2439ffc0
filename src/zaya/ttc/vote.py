"""Which of the last candidates becomes the answer. Source: spec markovian-rsa 8.2. Used by `ttc.rsa` and `eval`."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from zaya.errors import UsageError, did_you_mean
from zaya.ttc.types import Candidate

Selection = Literal["auto", "majority", "aggregate", "behaviour", "external", "single", "random"]
"""How the answer is chosen among the candidates of the last round.

majority    one with the answer that most agree on
aggregate   nobody: their tails are shown once more, at a low temperature, and what comes back is the answer
behaviour   one of the largest group of programs that do the same
external    the one that a judge gives the most
single      the only one there is
random      any
auto        by majority where two have an answer or more, else aggregate, else random
"""

Extract = Callable[[str], str | None]
"""The answer in a visible text, None where there is none."""
Equivalent = Callable[[str, str], bool]
"""Whether two answers say the same."""
Behaviour = Callable[[str], str | None]
"""What a visible text does, as something to compare; None where it does nothing. Called in no event loop."""
Judge = Callable[[Candidate], float]
"""How good a candidate is: a verifier, a reward model, tests. Called in no event loop."""

_COMPARED = 64
"""Groups that a new answer is compared with: thousands of answers that all differ would take minutes."""
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


class Groups:
    """Answers as they turn up, one after the other; equivalent ones are one group.

    For whoever shows a population at work. A choice is made by `clusters`, on the last round alone.
    """

    def __init__(self, equivalent: Equivalent) -> None:
        self.first: list[str] = []
        """Of each group, in the order in which they turned up."""
        self._equivalent = equivalent
        self._known: dict[str, int] = {}

    def of(self, answer: str) -> int:
        """Which group it is in."""
        if answer not in self._known:
            likely = enumerate(self.first[:_COMPARED])
            self._known[answer] = next((i for i, first in likely if self._equivalent(first, answer)), len(self.first))
            if self._known[answer] == len(self.first):
                self.first.append(answer)
        return self._known[answer]


@dataclass(frozen=True, slots=True)
class Choice:
    """Who becomes the answer."""

    candidate: Candidate | None
    """None where there is nobody to choose."""
    how: str
    """The selection that was used."""
    tally: tuple[tuple[str, int], ...] = ()
    """Answers and how many have each, equivalent ones as one, the most frequent first."""


def check_selection(selection: str, workers: int, behaviour: Behaviour | None, judge: Judge | None) -> None:
    """Before anything is asked. Raises UsageError for a selection that does not exist, or lacks what it needs."""
    if selection not in get_args(Selection):
        raise UsageError(f"there is no selection {selection!r}", hint=did_you_mean(selection, get_args(Selection)))
    if selection == "single" and workers > 1:
        raise UsageError(f"selection single needs one final rollout: there are {workers}", hint="set final_workers=1")
    for name, needed in (("behaviour", behaviour), ("external", judge)):
        if selection == name and needed is None:
            argument = {"behaviour": "behaviour", "external": "judge"}[name]
            raise UsageError(f"selection {name} needs a function to ask", hint=f"give one as {argument}=")


def select(
    candidates: Sequence[Candidate],
    selection: Selection,
    seed: int,
    *,
    equivalent: Equivalent | None = None,
    behaviour: Behaviour | None = None,
    judge: Judge | None = None,
    may_ask: bool = False,
) -> Choice:
    """Choose among candidates. With `may_ask` the choice may be nobody, by "aggregate": then it is to be asked for."""
    found = clusters([candidate.answer for candidate in candidates], equivalent)
    tally = tuple((str(candidates[cluster[0]].answer), len(cluster)) for cluster in found)
    if not candidates:
        return Choice(None, selection)
    if selection == "auto":
        selection = _automatic(candidates, sum(map(len, found)), may_ask=may_ask)
    match selection:
        case "aggregate" if may_ask and any(candidate.tail for candidate in candidates):
            return Choice(None, "aggregate", tally)
        case "single":
            return Choice(candidates[0], "single", tally)
        case "external" if judge is not None:
            return Choice(max(candidates, key=judge), "external", tally)
        case "behaviour" if behaviour is not None:
            groups = clusters([behaviour(candidate.text) for candidate in candidates])
            if groups:
                return Choice(_best([candidates[i] for i in groups[0]]), "behaviour", tally)
        case "majority" if found:
            return Choice(_best([candidates[i] for i in found[0]]), "majority", tally)
        case "majority":
            return Choice(None, "majority", tally)
        case _:
            pass
    return Choice(random.Random(seed).choice(candidates), "random", tally)


def _automatic(candidates: Sequence[Candidate], answers: int, *, may_ask: bool) -> Selection:
    if len(candidates) == 1:
        return "single"
    # one answer is no majority, but where nobody can be asked it is the one there is
    return "majority" if answers >= 2 or (answers and not may_ask) else "aggregate"


def _best(members: Sequence[Candidate]) -> Candidate:
    return min(members, key=lambda candidate: (not candidate.is_finished, candidate.generated_tokens))
