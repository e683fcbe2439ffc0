"""zaya env: look at the tasks, check that they can be trusted, and try one yourself."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from zaya.cli.printing import note, say, wrapped
from zaya.core.progress import Progress, columns
from zaya.errors import UsageError

if TYPE_CHECKING:
    from zaya.envs.audit import Audit, AuditConfig
    from zaya.envs.base import Problem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(has_actions=True)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="the environments, by category", allow_abbrev=False)
    listed.add_argument("words", nargs="*", metavar="WORD", help="only those with this in their name or category")
    listed.add_argument("--plain", action="store_true", help="one name in a line, for programs")

    shown = actions.add_parser(
        "show", help="one environment: what it is, what was found, an example", allow_abbrev=False
    )
    shown.add_argument("env", metavar="ENV", help="a name, such as rlve/Sorting, or package.module:NAME")

    sampled = actions.add_parser("sample", help="some problems of an environment", allow_abbrev=False)
    sampled.add_argument("env", metavar="ENV")
    _add_level(sampled)
    sampled.add_argument("-n", type=int, default=1, metavar="COUNT", help="how many (default: 1)")
    sampled.add_argument("--json", action="store_true", help="a JSON object in each line, with what scoring needs")

    checked = actions.add_parser(
        "check", help="whether environments pay for right answers and nothing else", allow_abbrev=False
    )
    checked.add_argument("envs", nargs="*", metavar="ENV", help="names; a name that ends in / is all of a family")
    checked.add_argument("--all", action="store_true", help="every environment whose package is installed")
    checked.add_argument("--items", type=int, default=48, metavar="N", help="problems of each level (default: 48)")
    checked.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="audits at once (default: one a core)"
    )
    checked.add_argument(
        "--write", action="store_true", help="keep what is found as the catalogue and docs/reference/environments.md"
    )

    checked.add_argument(
        "--lowest", action="store_true", help="find instead the lowest level from which on no guess pays"
    )

    played = actions.add_parser("play", help="try an environment yourself", allow_abbrev=False)
    played.add_argument("env", metavar="ENV")
    _add_level(played)


def _add_level(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-d", "--difficulty", type=int, metavar="LEVEL", help="0 is the easiest (default: the lowest offered)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other problems (default: 0)")


def run(args: argparse.Namespace) -> int:
    return {"list": _list, "show": _show, "sample": _sample, "check": _check, "play": _play}[args.action](args)


# ----- list and show


def _list(args: argparse.Namespace) -> int:
    from zaya.envs import registry
    from zaya.envs.catalogue import catalogue, in_default_mix

    chosen: dict[str, list[str]] = {}
    for name in registry.names():
        category = registry.get(name).about.category
        if all(word.lower() in f"{name} {category}".lower() for word in args.words):
            chosen.setdefault(category, []).append(name)
    if not chosen:
        raise UsageError(f"no environment has {' '.join(args.words)!r} in its name or category")
    if args.plain:
        print("\n".join(name for names in chosen.values() for name in names))
        return 0
    found = catalogue()
    width = columns(sys.stdout)
    out = 0
    for category, names in sorted(chosen.items()):
        marks = {name: "" if name in found and in_default_mix(found[name]) else "*" for name in names}
        out += sum(mark != "" for mark in marks.values())
        say(f"{category} ({len(names)})")
        print(wrapped(" ".join(f"{name}{marks[name]}" for name in names), width, "  "))
    total = sum(map(len, chosen.values()))
    print()
    say(f"{total} environments" + (f"; * {out} are not in the default mix, `zaya env show` says why" if out else ""))
    return 0


def _show(args: argparse.Namespace) -> int:
    from zaya.envs import registry
    from zaya.envs.catalogue import catalogue, in_default_mix, left_out
    from zaya.envs.pool import TaskPool

    environment = registry.get(args.env)
    about = environment.about
    levels = f"{about.lowest} and up" if about.highest is None else f"{about.lowest} to {about.highest}"
    say(f"{environment.name}, version {environment.version}: {about.category}, {about.license}, levels {levels}")
    if (row := catalogue().get(environment.name)) is not None:
        if in_default_mix(row):
            say(f"in the default mix; the best guess is right for {row['constant']:.0%}")
        else:
            say(f"not in the default mix: {left_out(row)}; the best guess is right for {row['constant']:.0%}")
    with TaskPool() as pool:
        problem = _some(pool, environment.name, about.lowest, 0, 1)[0]
    print(f"\n{problem.prompt}")
    reference = environment.reference(problem)
    print(
        f"\nanswer: {reference}" if reference is not None else "\nno answer is known; the scorer checks what is given"
    )
    return 0


# ----- sample and play


def _sample(args: argparse.Namespace) -> int:
    from zaya.envs import registry
    from zaya.envs.pool import TaskPool

    environment = registry.get(args.env)
    with TaskPool() as pool:
        problems = _some(pool, args.env, _level(args), args.seed, args.n)
    for index, problem in enumerate(problems):
        if args.json:
            print(problem.to_json())
            continue
        print(f"{'' if index == 0 else chr(10)}--- {problem.env}, difficulty {problem.difficulty}, seed {problem.seed}")
        print(problem.prompt)
        print(f"answer: {environment.reference(problem)}")
    return 0


def _level(args: argparse.Namespace) -> int:
    from zaya.envs import registry

    about = registry.get(args.env).about
    level = about.lowest if args.difficulty is None else args.difficulty
    if level < about.lowest or (about.highest is not None and level > about.highest):
        ends = f"from {about.lowest} on" if about.highest is None else f"from {about.lowest} to {about.highest}"
        raise UsageError(f"{args.env} has levels {ends}: {level}")
    return level


def _some(pool, env: str, difficulty: int, first_seed: int, count: int) -> list[Problem]:  # type: ignore[no-untyped-def]
    """The problems of the next seeds that give one."""
    if count < 1:
        raise UsageError(f"ask for at least 1 problem: {count}")
    found: list[Problem] = []
    seed = first_seed
    while len(found) < count:
        if seed - first_seed >= 20 + 5 * count:
            why = f"; the last failure: {pool.last_failure}" if pool.last_failure else ""
            raise UsageError(f"{env} makes no more problems at difficulty {difficulty}{why}", hint="try a lower one")
        found += [p for p in pool.sample([(env, s, difficulty) for s in range(seed, seed + count)]) if p is not None]
        seed += count
    return found[:count]


def _play(args: argparse.Namespace) -> int:
    from zaya.envs import registry
    from zaya.envs.pool import TaskPool

    environment = registry.get(args.env)
    difficulty, right, asked = _level(args), 0, 0
    note("An empty line ends your answer; what it has to stand in is put around it. Ctrl-D ends the game.")
    with TaskPool() as pool:
        for seed in range(args.seed, args.seed + 1000):
            problem = _some(pool, args.env, difficulty, seed * 1000, 1)[0]
            print(f"\n--- difficulty {difficulty}\n{problem.prompt}\n")
            lines = list(_answer_lines())
            if not lines:
                break
            answer = "\n".join(lines)
            head = environment.about.frame.partition("%s")[0].strip()
            text = answer if head in answer else environment.about.framed(answer)
            (score,) = pool.score([(problem, text)])
            asked, right = asked + 1, right + score.correct
            known = environment.reference(problem)
            if score.correct:
                print(f"right ({right} of {asked})")
                if environment.about.highest is None or difficulty < environment.about.highest:
                    difficulty += 1
            else:
                print(
                    f"wrong{f', {score.detail}' if score.detail else ''} ({right} of {asked})"
                    + (f"; it was: {known}" if known else "")
                )
    print(f"\n{right} right of {asked}")
    return 0


def _answer_lines() -> Iterator[str]:
    """What is typed, up to an empty line; nothing at the end of the input."""
    begun = False
    while True:
        try:
            line = input("> ")
        except EOFError:
            return
        if line.strip():
            begun = True
            yield line
        elif begun:
            return


# ----- check


def _check(args: argparse.Namespace) -> int:
    from zaya.envs.audit import AuditConfig

    chosen = _chosen(args)
    if args.items < 8 or args.workers < 1:
        raise UsageError(f"an audit takes at least 8 items and 1 worker: {args.items}, {args.workers}")
    if args.lowest:
        return _find_lowest(chosen, AuditConfig(items=args.items))
    if args.write and not Path("docs/reference").is_dir():
        raise UsageError("--write keeps what is found in the source of zaya", hint="run it at the top of a clone")
    audits: list[Audit] = []
    with Progress(len(chosen), "checking", unit=" environments") as progress:
        for found in _audits(chosen, AuditConfig(items=args.items), args.workers, may_skip=args.all):
            audits.append(found)
            progress.update()
            if len(chosen) <= 20 or not found.passed:
                progress.close()
                _say_audit(found)
    passed = sum(found.passed for found in audits)
    say(f"{passed} of {len(audits)} environments pass every check")
    if args.write:
        _write(audits)
    return 0 if passed == len(audits) or args.write else 1


def _find_lowest(names: Sequence[str], config: AuditConfig) -> int:
    from zaya.envs.audit import lowest_trusted
    from zaya.envs.pool import TaskPool

    with TaskPool(sample_timeout_s=2) as pool:
        for name in names:
            lowest = lowest_trusted(name, pool, config)
            say(f"{name}: {'none that can be made' if lowest is None else lowest}")
    return 0


def _chosen(args: argparse.Namespace) -> list[str]:
    from zaya.envs import registry

    if args.all == bool(args.envs):
        raise UsageError(
            "say which environments to check", hint="zaya env check ENV ..., zaya env check rlve/, or --all"
        )
    if args.all:
        return list(registry.names())
    chosen = []
    for name in args.envs:
        family = [known for known in registry.names() if name.endswith("/") and known.startswith(name)]
        chosen += family or [registry.get(name).name]
    return chosen


def _audits(names: Sequence[str], config: AuditConfig, workers: int, *, may_skip: bool) -> Iterator[Audit]:
    """As they end; without those that cannot be had, where some may be missing.

    Each thread has two pools of one process; what was imported once is there for the next.
    """
    from queue import SimpleQueue

    from zaya.envs.audit import audit
    from zaya.envs.pool import TaskPool

    pools: SimpleQueue[tuple[TaskPool, TaskPool]] = SimpleQueue()
    made = [(TaskPool(), TaskPool()) for _ in range(min(workers, len(names)))]
    for pair in made:
        pools.put(pair)

    def one(name: str) -> Audit | None:
        pair = pools.get()
        try:
            return audit(name, *pair, config)
        except UsageError as error:
            if not may_skip:
                raise
            note(f"not checked: {error.message}")
            return None
        finally:
            pools.put(pair)

    with ThreadPoolExecutor(len(made)) as threads:
        try:
            for future in as_completed([threads.submit(one, name) for name in names]):
                if (found := future.result()) is not None:
                    yield found
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            for pair in made:
                for pool in pair:
                    pool.close()


def _say_audit(found: Audit) -> None:
    row = found.row()
    say(
        f"{'ok  ' if found.passed else 'FAIL'} {found.env}: guess {row['constant']:.0%}, prompts up to "
        f"{row['longest_prompt']:,} characters, {row['sample_ms']} ms to make, {row['score_ms']} ms to score"
    )
    for why in found.failures:
        say(why, indent="     ")


def _write(audits: Sequence[Audit]) -> None:
    from zaya.envs.catalogue import FILE, catalogue, reference_page, write_catalogue

    rows = list({**catalogue(), **{found.env: found.row() for found in audits}}.values())
    write_catalogue(rows)
    page = Path("docs/reference/environments.md")
    page.write_text(reference_page(rows), "utf-8")
    say(f"wrote {FILE.name} and {page}")
