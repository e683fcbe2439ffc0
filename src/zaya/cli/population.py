"""What a population at work looks like: events in, lines out. Nothing here knows a terminal or a clock.

    round 0 of 2  2,319 tokens  412/s  0:06  ~0:21 left
    round 0  3 of 8 ended  A 73 x2, B 75 x1
      0 done      ######............   61  A 73
      1 thinking  #########.........   88
      ...
    round 1  0 of 8 ended
      4 thinking  ##................   24  reads 0 2 5 7

A line for every rollout of the rounds under way, which may be two: a prompt starts as soon as the tails it shows are
there. Where they do not fit, the rest is in one. Equivalent answers have one letter and one color, the same in all
rounds. Drawn by `cli.watching`. Source of the events: `ttc.live`, and `ttc.trace` for a replay.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters

from zaya.cli.screen import Line, Span, cells, clipped, one_line, padded
from zaya.core.progress import duration
from zaya.envs.math.equivalence import equivalent
from zaya.ttc.config import RsaConfig
from zaya.ttc.live import LATE
from zaya.ttc.types import Candidate, Event, Round
from zaya.ttc.vote import Groups, clusters

DIM, RED = "2", "31"
_COLORS = ("36", "32", "33", "35", "34", "96", "92", "93", "95", "94")
"""Of answers, in the order in which they turn up."""
_MOST = 5
"""Answers of a round that are listed."""
_LONGEST = 24
"""Columns of one of them."""
_STATE = 9
"""Columns of a state."""
_WINDOW_S = 5.0
"""What the speed is a mean of."""
_SETTLED_S = 0.5
"""Of a rollout, before its pace says anything."""
_UNDER_WAY = ("reading", "thinking", "answering", "again")
_OVER = ("done", "cut", "failed", "late")


@dataclass(slots=True)
class Row:
    """A rollout, as it is shown."""

    round: int
    worker: int
    state: str = "waiting"
    """One of "waiting", `_UNDER_WAY` and `_OVER`."""
    begun: float = 0.0
    tokens: int = 0
    sources: tuple[int, ...] = ()
    answer: int | None = None
    """Which of the answers that have turned up."""
    why: str = ""
    """What it failed of, for now or for good."""


class Answers(Groups):
    """Answers that have turned up, as they are shown."""

    def span(self, index: int) -> Span:
        letter = ascii_letters[26 + index] if index < 26 else ascii_letters[index - 26] if index < 52 else "*"
        return f"{letter} {shortened(self.first[index])}", _COLORS[index % len(_COLORS)]


class View:
    """A population, as far as its events have told."""

    def __init__(self, config: RsaConfig, *, deadline_at: float | None = None, has_blocks: bool = True) -> None:
        """`has_blocks`: whether bars can be drawn of blocks."""
        self.config = config
        self.deadline_at = deadline_at
        """Seconds of the events' clock at which all is over."""
        self._bar = "█░" if has_blocks else "#."
        self._rounds = [[Row(n, worker) for worker in range(config.workers(n))] for n in range(config.rounds + 1)]
        self._closed: set[int] = set()
        self._answers = Answers(equivalent)
        self._spoken: deque[tuple[float, int]] = deque([(0.0, 0)])
        """Seconds, and tokens drawn by then."""

    @property
    def tokens(self) -> int:
        """Drawn so far."""
        return sum(row.tokens for round in self._rounds for row in round)

    def feed(self, event: Event) -> None:
        """Something happened."""
        if event.kind == "choice":
            return
        if event.kind == "round":
            self._closed.add(event.round)
            return
        if event.round == len(self._rounds):  # the last candidates are weighed
            self._rounds.append([Row(event.round, 0)])
        row = self._rounds[event.round][event.worker]
        match event.kind:
            case "start":
                row.state, row.begun, row.tokens, row.sources = "reading", event.at, 0, event.sources
            case "grow":
                row.state, row.tokens = "answering" if event.is_answering else "thinking", event.tokens
            case "retry":
                row.state, row.why = "again", event.text
            case "lost":
                row.state, row.why = "late" if event.text == LATE else "failed", event.text
            case "end":
                assert event.candidate is not None
                self._end(row, event.candidate)
        if event.at >= self._spoken[-1][0] + _WINDOW_S / 20:
            self._spoken.append((event.at, self.tokens))

    def frame(self, now: float, width: int, height: int) -> list[Line]:
        """Lines, at most so many and so wide."""
        under_way = [rows for rows in self._rounds if self._is_open(rows)]
        lines: list[Line] = [[(self.heading(now, width), "1")]]
        room = height - len(lines) - len(under_way)
        rows = [row for round in under_way for row in round]
        shown = rows
        if len(rows) > room:
            # who is at work first, then who has come to an end
            urgent = sorted(rows, key=lambda row: (row.state not in _UNDER_WAY, row.state == "waiting"))
            chosen = {id(row) for row in urgent[: max(0, room - 1)]}
            shown = [row for row in rows if id(row) in chosen]
        for round in under_way:
            lines.append(self._round_line(round, width))
            lines += [self._row_line(row, now, width) for row in round if row in shown]
        if len(shown) < len(rows):
            states = Counter(row.state for row in rows if row not in shown)
            rest = ", ".join(f"{states[state]} {state}" for state in (*_UNDER_WAY, *_OVER, "waiting") if states[state])
            lines.append([(clipped(f"{len(rows) - len(shown)} more: {rest}", width), DIM)])
        return lines[:height]

    def heading(self, now: float, width: int) -> str:
        """How far it is, how fast it goes, how long it may still take."""
        number = next((rows[0].round for rows in self._rounds if self._is_open(rows)), len(self._closed))
        parts = {"round": f"round {min(number, self.config.rounds)} of {self.config.rounds}"}
        if number > self.config.rounds:
            parts["round"] = "choosing"
        parts["tokens"] = f"{self.tokens:,} token{'' if self.tokens == 1 else 's'}"
        if (speed := self._speed(now)) >= 1:
            parts["speed"] = f"{speed:,.0f}/s"
        parts["elapsed"] = duration(now)
        if (left := self.left_s(now)) is not None:
            parts["left"] = f"~{duration(left)} left"
        for name in ("speed", "tokens", "elapsed"):
            if len("  ".join(parts.values())) > width:
                parts.pop(name, None)
        return clipped("  ".join(parts.values()), width)

    def left_s(self, now: float) -> float | None:
        """Seconds that the slowest rollout needs for its budget, and as many rounds as are to come at its pace; those
        are taken to be as long as the longest so far. None while there is nothing to go by."""
        bound = None if self.deadline_at is None else max(0.0, self.deadline_at - now)
        rows = next((rows for rows in self._rounds if self._is_open(rows)), [])
        timed = [r for r in rows if r.state in _UNDER_WAY and r.tokens and now - r.begun > _SETTLED_S]
        if not timed:
            return bound
        needs = {r.worker: (self._budget(r) - r.tokens) * (now - r.begun) / r.tokens for r in timed}
        slowest = max(timed, key=lambda row: needs[row.worker])
        per_token = (now - slowest.begun) / slowest.tokens
        waiting = sum(row.state == "waiting" for row in rows)
        at_work = sum(row.state in _UNDER_WAY for row in rows)
        ahead = [slowest.round] * -(-waiting // at_work) + list(range(slowest.round + 1, self.config.rounds + 1))
        left = needs[slowest.worker] + per_token * sum(map(self._expected, ahead))
        return left if bound is None else min(left, bound)

    # ----- what is known

    def _end(self, row: Row, candidate: Candidate) -> None:
        row.state = "done" if candidate.is_finished else "cut"
        row.tokens, row.sources = candidate.generated_tokens, candidate.sources
        row.answer = None if candidate.answer is None else self._answers.of(candidate.answer)

    def _is_open(self, rows: Sequence[Row]) -> bool:
        return rows[0].round not in self._closed and any(row.state != "waiting" for row in rows)

    def _budget(self, row: Row) -> int:
        return self.config.params(min(row.round, self.config.rounds)).max_tokens

    def _expected(self, round: int) -> int:
        """Tokens of the longest rollout of a round."""
        budget = self.config.params(round).max_tokens
        if not self._closed:
            return budget
        return min(budget, max(row.tokens for rows in self._rounds for row in rows))

    def _speed(self, now: float) -> float:
        while len(self._spoken) > 1 and self._spoken[1][0] <= now - _WINDOW_S:
            self._spoken.popleft()
        at, tokens = self._spoken[0]
        return (self.tokens - tokens) / (now - at) if now > at else 0.0

    # ----- what it looks like

    def _round_line(self, rows: Sequence[Row], width: int) -> Line:
        if rows[0].round > self.config.rounds:
            return [("weighing the last candidates", "")]
        over = sum(row.state in _OVER for row in rows)
        line: list[Span] = [(f"round {rows[0].round}  {over} of {len(rows)} ended", "")]
        found = Counter(row.answer for row in rows if row.answer is not None)
        for place, (index, count) in enumerate(found.most_common()):
            text, color = self._answers.span(index)
            line += [(", " if place else "  ", ""), (f"{text} x{count}", color)]
        return _fitting(line, width)

    def _row_line(self, row: Row, now: float, width: int) -> Line:
        color = "" if row.answer is None else self._answers.span(row.answer)[1]
        budget = self._budget(row)
        look = {"waiting": DIM, "reading": DIM, "failed": RED, "again": RED}.get(row.state, color)
        size = max(6, min(24, width // 4))
        full = min(size, -(-size * row.tokens // budget))
        number = len(str(self.config.population - 1))
        most = max(self.config.think_budget + self.config.answer_reserve, self.config.final_budget)
        line: list[Span] = [
            (f"{row.worker:>{number + 1}} ", DIM),
            (f"{row.state:{_STATE}} ", look),
            (self._bar[0] * full, color),
            (self._bar[1] * (size - full), DIM),
            (f" {row.tokens:>{len(f'{most:,}')},}" if row.tokens else " " * (len(f"{most:,}") + 1), ""),
        ]
        reads = f"reads {' '.join(map(str, row.sources))}" if row.sources else ""
        remark = self._remark(row)
        column = len("reads") + min(self.config.fan_in, 8) * (number + 1)
        taken = sum(cells(text) for text, _ in line)
        if row.round and width - taken >= column + _LONGEST // 2:
            line += [("  ", ""), (padded(clipped(reads, column), column), DIM)]
            reads = ""
        line.append(("  ", ""))
        line.append(remark if remark[0] else (reads, DIM))
        return _fitting(line, width)

    def _remark(self, row: Row) -> Span:
        if row.answer is not None:
            return self._answers.span(row.answer)
        if row.state in ("again", "failed"):
            return one_line(row.why), RED
        if row.state == "late":
            return "nobody could show it any more", DIM
        return ("no answer", DIM) if row.state in _OVER else ("", "")


def told(number: int, round: Round, width: int) -> str:
    """What a round did, in a line; the answers in lines of their own where it is too long."""
    count = len(round.candidates)
    parts = [f"round {number}", f"{count} rollout{'' if count == 1 else 's'}"]
    if round.lost:
        parts.append("lost " + ", ".join(f"{one_line(why)} x{number}" for why, number in round.lost.items()))
    answers = tally([candidate.answer for candidate in round.candidates])
    if not answers:
        return clipped("  ".join(parts), width)
    spent = f"{round.generated_tokens:,} tokens"
    line = "  ".join([*parts, f"answers {', '.join(answers)}", spent])
    if cells(line) <= width:
        return line
    lines, room = ["  ".join([*parts, spent]), f"  answers {answers[0]}"], width - 1  # a comma may follow
    for answer in answers[1:]:
        if cells(lines[-1]) + 2 + cells(answer) <= room:
            lines[-1] += f", {answer}"
        else:
            lines[-1] += ","
            lines.append(f"    {answer}")
    return "\n".join(clipped(line, width) for line in lines)


def tally(answers: Sequence[str | None]) -> list[str]:
    """Such as `73 x5`, `75 x2`, `(none) x1`: equivalent answers as one, in the words of the first."""
    found = clusters(answers, equivalent)
    parts = [f"{shortened(str(answers[of[0]]))} x{len(of)}" for of in found]
    if missing := sum(answer is None for answer in answers):
        parts.append(f"(none) x{missing}")
    return parts[:_MOST] + ([f"{len(parts) - _MOST} more"] if len(parts) > _MOST else [])


def shortened(answer: str) -> str:
    return clipped(one_line(answer), _LONGEST)


def _fitting(line: Sequence[Span], width: int) -> Line:
    kept: list[Span] = []
    for text, look in line:
        kept.append((clipped(text, width), look))
        width -= cells(kept[-1][0])
    return kept
