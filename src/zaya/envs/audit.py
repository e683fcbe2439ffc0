"""Whether a task can be trusted to pay for right answers and for nothing else.

For a few of its levels an environment makes some dozen problems, and then, through the pool:

    makes        most seeds give a problem, the same one in another process and in another order
    oracle       the reference earns 1, wherever one is known; one has to be known
    nothing      an empty box, no box and random text earn 0
    contains     a text with the right answer in it and something else beside it earns 0
    options      all answers of the sample in a row earn 0, but for a few by luck where an answer is a row of moves
    constant     no single answer is right too often: the references of all other problems are tried on each, and what
                 people guess; two that are both right for a problem count, so this bounds other problems' answers too
    hostile      megabytes, depth, lone surrogates, NaN, code: a score, never an exception, in bounded time
    size         prompts fit a context

Source: spec post-training 8.6.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from zaya.core.rng import derive_seed
from zaya.envs import registry
from zaya.envs.base import About, Problem, Score, Status
from zaya.envs.pool import TaskPool

MOST_CONSTANT = 0.35
"""Share of problems that one answer may be right for."""
MOST_CONSTANT_BINARY = 0.65
"""The same where there are two answers to choose from."""
LONGEST_PROMPT = 8000
"""Characters."""
LEAST_MADE = 0.5
"""Share of seeds that must give a problem."""

LUCK = 0.1
"""Share of rows of all answers that may be right."""

GUESSES = (
    "", "0", "1", "-1", "2", "3", "4", "5", "10", "100", "yes", "no", "Yes", "No", "YES", "NO", "true", "false",
    "True", "False",
    "A", "B", "C", "D", "E", "None", "none", "impossible", "Impossible", "[]", "0 0", "1 1", "1 2", "0 1", "1 2 3",
    "x", "0/1",
    "1/2", "0.5", "inf", "Alice", "Bob", "first", "second", "First", "Second", "UNKNOWN", "1 0", "0.0", "()", "{}",
)  # fmt: skip
"""What people guess, whatever the question."""


def hostile_answers() -> tuple[str, ...]:
    """Answers that break what was written in good faith."""
    return (
        "1" * 1_000_000, "(" * 20_000, "[" * 20_000 + "]" * 20_000, "1 " * 200_000, "\n" * 100_000, "9" * 5000,
        "-" * 3000 + "1",
        "{" * 300 + "}" * 300, "\ud800", "\udfff1", "\x00", "\x02\x03", "nan", "NaN", "inf", "-inf", "1e999", "-0",
        "1e-400",
        "9**9**9**9", "10**10**10", "1/0", "0/0", "٣", "１", "²", "1_000", "0x10", "1e3", "\u202e1", "a" * 10_000 + "!",
        "__import__('os').system('true')", "().__class__.__bases__[0].__subclasses__()", "lambda: 1", "exec('1')",
        "${7*7}", "{{7*7}}", "%s%n", "'; DROP TABLE x; --", "<answer>1</answer>", "\\boxed{1}",
        '{"a": [1, {"b": null}]}',
        "[[[[1]]]]", '{"__tuple__": [1]}', "None", "null", "[null]", "[[]]", "(,)", "1,,2", "1 2 3 4 5 6 7 8 9 10",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """How closely to look."""

    items: int = 48
    """Problems of each level."""
    levels: int = 2
    """Levels looked at: the lowest, and evenly up to `reach` above it."""
    reach: int = 3
    """How far above the lowest the last of them is."""
    hostile: int = 2
    """Problems that hostile answers are tried on."""


@dataclass(slots=True)
class Level:
    """What was seen at one level. Shares are of what was tried."""

    difficulty: int
    made: float = 0.0
    oracle: float | None = None
    """Share of references that are right; None where none is known."""
    constant: float = 0.0
    """Share of problems that the best constant answer is right for."""
    constant_answer: str = ""
    longest_prompt: int = 0
    """Characters."""
    sample_ms: float = 0.0
    """Mean time to make a problem."""
    score_ms: float = 0.0
    """Mean time to score a reference."""


@dataclass(slots=True)
class Audit:
    """What an environment was found to be."""

    env: str
    about: About
    version: int
    levels: list[Level] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What it does that it must not; empty where it may be trusted."""

    @property
    def passed(self) -> bool:
        return not self.failures

    def row(self) -> dict[str, object]:
        """As it is written down: the worst of all levels."""
        oracles = [level.oracle for level in self.levels if level.oracle is not None]
        worst = max(self.levels, key=lambda level: level.constant, default=Level(0))
        return {
            "env": self.env, "version": self.version, "category": self.about.category, "license": self.about.license,
            "lowest": self.about.lowest, "highest": self.about.highest, "choices": self.about.choices,
            "passed": self.passed, "failures": self.failures, "oracle": min(oracles) if oracles else None,
            "constant": round(worst.constant, 3), "constant_answer": worst.constant_answer[:40],
            "longest_prompt": max((level.longest_prompt for level in self.levels), default=0),
            "sample_ms": round(max((level.sample_ms for level in self.levels), default=0.0), 2),
            "score_ms": round(max((level.score_ms for level in self.levels), default=0.0), 3),
        }  # fmt: skip


def audit(name: str, pool: TaskPool, other: TaskPool, config: AuditConfig | None = None) -> Audit:
    """Look at an environment through a pool; `other` makes its problems once more, in other processes.

    Raises UsageError for one that does not exist.
    """
    config = config or AuditConfig()
    environment = registry.get(name)
    pool.sample([(name, 0, environment.about.lowest)])  # imports what it needs, which is not to be timed
    found = Audit(name, environment.about, environment.version)
    for difficulty in _levels(environment.about, config):
        _look(found, difficulty, pool, other, config)
    if all(level.oracle is None for level in found.levels):
        found.failures.append("no reference answer is known")
    return found


def lowest_trusted(name: str, pool: TaskPool, config: AuditConfig | None = None, *, most: int = 20) -> int | None:
    """The lowest difficulty from which on no constant answer pays: there, and at the three levels above it.

    None where there is none up to `most`.
    """
    config = config or AuditConfig()
    about = registry.get(name).about
    paying: dict[int, bool | None] = {}

    def pays(difficulty: int) -> bool | None:
        """None where problems are not made."""
        if difficulty not in paying:
            found = Audit(name, about, registry.get(name).version)
            seeds = [(name, derive_seed("audit", name, difficulty, i), difficulty) for i in range(config.items)]
            problems = [problem for problem in pool.sample(seeds[:8]) if problem is not None]
            if len(problems) < 8 * LEAST_MADE:
                paying[difficulty] = None
                return None
            problems += [problem for problem in pool.sample(seeds[8:]) if problem is not None]
            references = [ref for problem in problems if (ref := registry.get(name).reference(problem)) is not None]
            _no_constant(found, Level(difficulty), problems, references, pool)
            paying[difficulty] = bool(found.failures)
        return paying[difficulty]

    for lowest in range(most + 1):
        found = [pays(difficulty) for difficulty in range(lowest, lowest + 4)]
        if None in found:
            return None
        if not any(found):
            return lowest
    return None


def _levels(about: About, config: AuditConfig) -> list[int]:
    top = about.lowest + config.reach if about.highest is None else min(about.lowest + config.reach, about.highest)
    steps = max(1, config.levels - 1)
    return sorted({about.lowest + (top - about.lowest) * i // steps for i in range(config.levels)})


def _look(found: Audit, difficulty: int, pool: TaskPool, other: TaskPool, config: AuditConfig) -> None:
    name, fail = found.env, found.failures.append
    at = f"at difficulty {difficulty}"
    level = Level(difficulty)
    found.levels.append(level)
    seeds = [(name, derive_seed("audit", name, difficulty, i), difficulty) for i in range(config.items)]
    start = time.monotonic()
    sampled = pool.sample(seeds)
    level.sample_ms = (time.monotonic() - start) / len(seeds) * 1000
    problems = [problem for problem in sampled if problem is not None]
    level.made = len(problems) / len(seeds)
    if level.made < LEAST_MADE:
        fail(f"makes: {len(problems)} of {len(seeds)} seeds give a problem {at}; {pool.last_failure}".rstrip("; "))
    if not problems:
        return
    again = other.sample(seeds[::-1][: config.items // 4])[::-1]
    if again != sampled[-len(again) :]:
        fail(f"makes: another process makes other problems {at}")
    level.longest_prompt = max(len(problem.prompt) for problem in problems)
    if level.longest_prompt > LONGEST_PROMPT:
        fail(f"size: a prompt of {level.longest_prompt} characters {at}")

    environment = registry.get(name)
    known = [(problem, ref) for problem in problems if (ref := environment.reference(problem)) is not None]
    if known:
        start = time.monotonic()
        scores = pool.score([(problem, found.about.framed(ref)) for problem, ref in known])
        level.score_ms = (time.monotonic() - start) / len(known) * 1000
        level.oracle = sum(score.correct for score in scores) / len(known)
        for (problem, ref), score in zip(known, scores, strict=True):
            if not score.correct or score.reward != 1:
                fail(f"oracle: {_short(ref)} earns {score.reward:g} {at}, seed {problem.seed} ({score.status.value})")
                break
    references = [ref for _, ref in known]
    _must_earn_nothing(found, at, problems, known, pool)
    _no_constant(found, level, problems, references, pool)
    _bears_hostility(found, at, problems[: config.hostile], pool)


def _must_earn_nothing(
    found: Audit, at: str, problems: Sequence[Problem], known: Sequence[tuple[Problem, str]], pool: TaskPool
) -> None:
    rng = random.Random(derive_seed("audit", "random", found.env))
    garbage = ["".join(rng.choices("abcdefgh0123456789 ,.-", k=rng.randint(12, 60))) for _ in problems]
    cases: list[tuple[str, Problem, str]] = []
    for problem, noise in zip(problems, garbage, strict=True):
        cases += [("nothing", problem, ""), ("nothing", problem, found.about.framed("")), ("nothing", problem, noise)]
    if found.about.frame != "%s":
        cases += [
            ("nothing", problem, found.about.framed(noise)) for problem, noise in zip(problems, garbage, strict=True)
        ]
        cases += [("nothing", problem, ref) for problem, ref in known]  # right, and in no box
        every = list(dict.fromkeys(ref for _, ref in known))
        for i, (problem, ref) in enumerate(known):
            beside = known[(i + 1) % len(known)][1]
            for text in (f"{ref} or {beside}", f"either {ref} or not", f"The answer is not {ref}, it is {beside}."):
                cases.append(("contains", problem, found.about.framed(text)))
            if len(every) > 1:
                cases += [
                    ("options", problem, found.about.framed(sep.join(every))) for sep in (" ", ", ", "\n", " or ")
                ]
    scores = pool.score([(problem, text) for _, problem, text in cases])
    paid: dict[str, list[str]] = {}
    for (check, problem, text), score in zip(cases, scores, strict=True):
        if score.reward > 0 or score.correct or score.status is Status.INFRA:
            paid.setdefault(check, []).append(f"{_short(text)} {_earns(score)} {at}, seed {problem.seed}")
    for check, texts in paid.items():
        if check != "options" or len(texts) > LUCK * sum(case[0] == check for case in cases):
            found.failures.append(f"{check}: {texts[0]}")


def _no_constant(
    found: Audit, level: Level, problems: Sequence[Problem], references: Sequence[str], pool: TaskPool
) -> None:
    guesses = GUESSES if "boxed" in found.about.frame else ()
    candidates = list(dict.fromkeys([*references, *guesses]))
    pairs = [(problem, answer) for answer in candidates for problem in problems]
    scores = pool.score([(problem, found.about.framed(answer)) for problem, answer in pairs])
    right: dict[str, int] = dict.fromkeys(candidates, 0)
    for (_, answer), score in zip(pairs, scores, strict=True):
        right[answer] += score.correct
    if not right:
        return
    level.constant_answer = max(right, key=lambda answer: right[answer])
    level.constant = right[level.constant_answer] / len(problems)
    limit = MOST_CONSTANT_BINARY if found.about.choices == 2 else MOST_CONSTANT
    if level.constant > limit:
        found.failures.append(
            f"constant: {_short(level.constant_answer)} is right for {level.constant:.0%} "
            f"at difficulty {level.difficulty}"
        )


def _bears_hostility(found: Audit, at: str, problems: Sequence[Problem], pool: TaskPool) -> None:
    texts = [(problem, text) for problem in problems for text in _hostile_texts(found.about)]
    for (problem, text), score in zip(texts, pool.score(texts), strict=True):
        if score.status is Status.INFRA:
            found.failures.append(f"hostile: {_short(text)} {_earns(score)} {at}, seed {problem.seed}")
            return


def _hostile_texts(about: About) -> Iterator[str]:
    for answer in hostile_answers():
        yield about.framed(answer)
        yield answer


def _short(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 60 else f"{shown[:50]}... ({len(text)} characters)"


def _earns(score: Score) -> str:
    return f"breaks the scorer ({score.detail})" if score.status is Status.INFRA else f"earns {score.reward:g}"
