"""How fast environments make and score problems, one by one, through the pool.

    python -m benchmarks.bench_env [--envs rlve/ code/solve ...] [--difficulty 3] [--workers 1]

Each environment makes new problems at the difficulty, or at the nearest it offers, and scores the reference answers of
24 of them again and again, each for a quarter of a second and more, after a round that does not count. Everything runs
on as many cores as there are workers, the process that hands out the work included, where the system can say so: with
one worker a figure is what one core does. Then a few environments, one of each family, with one worker and with two.

Four of the five tasks of code/ run answers in the sandbox, each in a process of its own: their figures are about that.

Printed: a row for each family, with the median and what a tenth of its environments stays below; the ten slowest of
all; how the few scale. The last line is the same as JSON, with every environment.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count

from zaya.core.progress import Progress
from zaya.core.rng import derive_seed
from zaya.envs import registry
from zaya.envs.pool import TaskPool
from zaya.errors import UsageError

ITEMS = 24
"""Problems whose answers are scored, and the least that are made, for each worker."""
LARGEST = 512
"""The most in one call of the pool, for each worker."""
SECONDS = 0.25
"""At least so long each environment makes problems, and scores."""
TARGET = 2000
"""Answers that the median environment is to score in a second, on one core."""
SCALED = ("arithmetic", "code/solve", "instruct/keywords.existence", "math/quadratic", "reasoning-gym/n_queens",
          "rlve/Sorting")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Speed:
    env: str
    items_s: float
    """Problems made in a second."""
    scores_s: float
    """Reference answers judged in a second; 0 where no answer is known."""

    @property
    def family(self) -> str:
        return self.env.partition("/")[0]


def measure(name: str, difficulty: int, pool: TaskPool) -> Speed | None:
    """None where no problem is made."""
    environment = registry.get(name)
    about = environment.about
    level = max(about.lowest, difficulty if about.highest is None else min(difficulty, about.highest))
    seeds = (derive_seed("bench", name, i) for i in count())

    def make(size: int) -> list:
        return [p for p in pool.sample([(name, next(seeds), level) for _ in range(size)]) if p is not None]

    problems = make(ITEMS * pool.workers)  # imports what it needs
    if not problems:
        return None
    pairs = [(p, about.framed(ref)) for p in problems if (ref := environment.reference(p)) is not None]

    def score(size: int) -> int:
        return len(pool.score([pairs[i % len(pairs)] for i in range(size)]))

    if pairs:
        score(len(pairs))  # a worker may keep what it learns of a problem
    return Speed(name, rate(lambda size: len(make(size)), pool), rate(score, pool) if pairs else 0.0)


def rate(run: Callable[[int], int], pool: TaskPool) -> float:
    """What is done in a second, by calls that grow."""
    done, spent, size = 0, 0.0, ITEMS
    while spent < SECONDS:
        start = time.perf_counter()
        done += run(size * pool.workers)
        spent += time.perf_counter() - start
        size = min(4 * size, LARGEST)
    return done / spent


@contextmanager
def pool_on_cores(workers: int) -> Iterator[TaskPool]:
    """A pool that shares as many cores with this process as it has workers, where the system lets us choose them."""
    if not hasattr(os, "sched_setaffinity"):
        with TaskPool(workers) as pool:
            yield pool
        return
    allowed = os.sched_getaffinity(0)
    if workers > len(allowed):
        raise UsageError(f"{workers} workers need as many cores: {len(allowed)}")
    os.sched_setaffinity(0, sorted(allowed)[:workers])  # the workers, which start later, inherit it
    try:
        with TaskPool(workers) as pool:
            yield pool
    finally:
        os.sched_setaffinity(0, allowed)


def measure_all(names: Sequence[str], difficulty: int, workers: int) -> list[Speed]:
    speeds: list[Speed] = []
    missing: dict[str, str] = {}  # one of each family, with the reason: its package is not installed
    with pool_on_cores(workers) as pool, Progress(len(names), "environments") as progress:
        for name in names:
            try:
                speed = measure(name, difficulty, pool)
            except UsageError as error:
                missing.setdefault(name.partition("/")[0], error.message)
                continue
            progress.update()
            if speed is None:
                print(f"{name} is not measured: it makes no problem at difficulty {difficulty} within the limits")
            else:
                speeds.append(speed)
    for family, why in missing.items():
        print(f"{family} is not measured: {why}")
    return speeds


def summary(what: str, speeds: Sequence[Speed]) -> str:
    columns = [[s.items_s for s in speeds], [s.scores_s for s in speeds if s.scores_s]]
    cells = [(statistics.median(v), sorted(v)[len(v) // 10], min(v)) if v else (0.0,) * 3 for v in columns]
    return f"{what:16}{len(speeds):>6}" + "".join(f"{value:>10,.0f}" for cell in cells for value in cell)


def report(speeds: Sequence[Speed]) -> None:
    print(f"{'':22}{'problems made in a second':>30}{'answers scored in a second':>30}")
    print(f"{'family':16}{'number':>6}" + f"{'median':>10}{'a tenth':>10}{'least':>10}" * 2)
    for family in dict.fromkeys(s.family for s in speeds):
        print(summary(family, [s for s in speeds if s.family == family]))
    print(summary("all", speeds))
    judged = [s for s in speeds if s.scores_s]
    print(f"{sum(s.scores_s >= TARGET for s in judged)} of {len(judged)} score at least {TARGET:,} answers a second")
    slowest = sorted(speeds, key=lambda s: s.items_s)[:10]
    print("slowest to make: " + ", ".join(f"{s.env} {s.items_s:,.1f}" for s in slowest))
    slowest = sorted(judged, key=lambda s: s.scores_s)[:10]
    print("slowest to score: " + ", ".join(f"{s.env} {s.scores_s:,.1f}" for s in slowest))


def report_scaling(one: Sequence[Speed], two: Sequence[Speed]) -> None:
    print("with one worker on one core, and with two on two: problems made, answers scored")
    for first, second in zip(one, two, strict=True):
        print(
            f"{first.env:30}{first.items_s:>10,.0f}{second.items_s:>10,.0f} x{second.items_s / first.items_s:.2f}"
            f"{first.scores_s:>10,.0f}{second.scores_s:>10,.0f} x{second.scores_s / first.scores_s:.2f}"
        )


def chosen(words: Sequence[str]) -> list[str]:
    """Names as they are; one that ends in / is all of a family; none is every name."""
    if not words:
        return list(registry.names())
    found: list[str] = []
    for word in words:
        family = [name for name in registry.names() if word.endswith("/") and name.startswith(word)]
        found += family or [registry.get(word).name]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", metavar="NAME", help="only these; a name that ends in / is a family")
    parser.add_argument("--difficulty", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    speeds = measure_all(chosen(args.envs or []), args.difficulty, args.workers)
    print(f"difficulty {args.difficulty}; workers, and cores: {args.workers}")
    report(speeds)
    scaled = {workers: measure_all(SCALED, args.difficulty, workers) for workers in (1, 2)}
    report_scaling(scaled[1], scaled[2])
    found = {
        "workers": args.workers,
        "difficulty": args.difficulty,
        "rows": [asdict(s) for s in speeds],
        "scaling": {workers: [asdict(s) for s in rows] for workers, rows in scaled.items()},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
