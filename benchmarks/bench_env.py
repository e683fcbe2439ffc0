"""How fast environments make and score problems, one by one, through the pool.

    python -m benchmarks.bench_env [--envs NAME ...] [--difficulty 3] [--workers 1]

Each environment makes problems at the difficulty, or at the nearest it offers, and scores their reference answers, with
one worker unless told otherwise: what one core does. The slowest ten are named; the last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass

from zaya.core.progress import Progress
from zaya.core.rng import derive_seed
from zaya.envs import registry
from zaya.envs.pool import TaskPool
from zaya.errors import UsageError

ITEMS = 24
SECONDS = 0.25
"""At least so long each environment scores."""


@dataclass(frozen=True, slots=True)
class Speed:
    env: str
    items_s: float
    """Problems made in a second."""
    scores_s: float
    """Reference answers judged in a second; 0 where no answer is known."""


def measure(name: str, difficulty: int, pool: TaskPool) -> Speed | None:
    """None where no problem is made."""
    environment = registry.get(name)
    about = environment.about
    level = max(about.lowest, difficulty if about.highest is None else min(difficulty, about.highest))
    pool.sample([(name, 0, level)])  # imports what it needs
    seeds = [(name, derive_seed("bench", name, i), level) for i in range(ITEMS * pool.workers)]
    start = time.perf_counter()
    problems = [problem for problem in pool.sample(seeds) if problem is not None]
    made_s = time.perf_counter() - start
    if not problems:
        return None
    pairs = [(p, about.framed(ref)) for p in problems if (ref := environment.reference(p)) is not None]
    scored, scored_s, round_of = 0, 0.0, list(pairs)
    while round_of and scored_s < SECONDS:
        start = time.perf_counter()
        pool.score(round_of)
        scored_s += time.perf_counter() - start
        scored += len(round_of)
        round_of = (round_of * 4)[: 512 * pool.workers]
    return Speed(name, len(problems) / made_s, scored / scored_s if scored else 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", metavar="NAME", help="only these; a name that ends in / is a family")
    parser.add_argument("--difficulty", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    wanted = args.envs or [""]
    names = [
        name
        for name in registry.names()
        if any(name.startswith(w) if w.endswith("/") or not w else name == w for w in wanted)
    ]
    speeds: list[Speed] = []
    with TaskPool(args.workers) as pool, Progress(len(names), "environments") as progress:
        for name in names:
            try:
                speed = measure(name, args.difficulty, pool)
            except UsageError as error:  # its package is not installed
                print(f"{name}: {error.message}")
                continue
            progress.update()
            if speed is None:
                print(f"{name}: makes no problem at difficulty {args.difficulty} within the limits")
            else:
                speeds.append(speed)
    judged = [speed for speed in speeds if speed.scores_s]
    print(f"{len(speeds)} environments, {args.workers} workers, difficulty {args.difficulty}")
    for what, values in (("items", [s.items_s for s in speeds]), ("scores", [s.scores_s for s in judged])):
        low = sorted(values)[len(values) // 10]
        print(
            f"{what} a second: median {statistics.median(values):,.0f}, a tenth below {low:,.0f}, "
            f"least {min(values):,.1f}"
        )
    for what, key in (("make", lambda s: s.items_s), ("score", lambda s: s.scores_s)):
        slowest = sorted(speeds if what == "make" else judged, key=key)[:10]
        print(f"slowest to {what}: " + ", ".join(f"{s.env} {key(s):,.1f}/s" for s in slowest))
    print(json.dumps({"workers": args.workers, "difficulty": args.difficulty, "machine": platform.processor(),
                      "rows": [asdict(s) for s in speeds]}))  # fmt: skip


if __name__ == "__main__":
    main()
