"""zaya env: look at the tasks, check that they can be trusted, and try one yourself."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from zaya.cli.printing import note, say, wrapped
from zaya.cli.screen import one_line
from zaya.core.progress import Progress, columns
from zaya.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from zaya.envs.audit import Audit, AuditConfig
    from zaya.envs.base import Problem

_ENV_HELP = "a name, such as rlve/Sorting, or package.module:NAME"
_PATIENCE_S = 20.0
"""Without a single problem, before a level is given up."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(has_actions=True)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="the environments, by category", allow_abbrev=False)
    listed.add_argument("words", nargs="*", metavar="WORD", help="only those with this in their name or category")
    listed.add_argument("--plain", action="store_true", help="one name in a line, for programs")

    shown = actions.add_parser(
        "show", help="one environment: what it is, what was found, an example", allow_abbrev=False
    )
    shown.add_argument("env", metavar="ENV", help=_ENV_HELP)

    sampled = actions.add_parser("sample", help="some problems of an environment", allow_abbrev=False)
    sampled.add_argument("env", metavar="ENV", help=_ENV_HELP)
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
    played.add_argument("env", metavar="ENV", help=_ENV_HELP)
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
        categories = {registry.get(name).about.category for name in registry.names()}
        raise UsageError(
            f"no environment has {' '.join(args.words)!r} in its name or category",
            hint=did_you_mean(args.words[-1], categories),
        )
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
    left_out = (
        f"; * {out} {'is' if out == 1 else 'are'} not in the default mix, `zaya env show` says why" if out else ""
    )
    say(f"{total} environment{'' if total == 1 else 's'}{left_out}")
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
    print(f"\n{problem.prompt}\n\n{_answer(environment.reference(problem))}")
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
        print(_answer(environment.reference(problem)))
    return 0


def _answer(reference: str | None) -> str:
    return "no answer is known; the scorer checks what is given" if reference is None else f"answer: {reference}"


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
    from zaya.envs import registry

    if count < 1:
        raise UsageError(f"ask for at least 1 problem: {count}")
    found: list[Problem] = []
    seed, why, begun = first_seed, "", time.monotonic()
    while len(found) < count:
        is_too_long = not found and time.monotonic() - begun >= _PATIENCE_S
        if is_too_long or seed - first_seed >= 20 + 5 * count:
            raise UsageError(
                f"{env} makes no {'more problems' if found else 'problem'} at difficulty {difficulty}{why}",
                hint="try a lower one" if difficulty > registry.get(env).about.lowest else None,
            )
        size = count if found else 1
        found += [p for p in pool.sample([(env, s, difficulty) for s in range(seed, seed + size)]) if p is not None]
        why = f"; the last failure: {one_line(pool.last_failure)}" if pool.last_failure else why
        seed += size
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
    """What is typed, up to an empty line; nothing at the end of the input, or where it is closed."""
    if sys.stdin is None:
        return
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
    with Progress(len(chosen), "checking", unit="environments") as progress:
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

    Each thread has two pools of one process; what was imported once is there for the next. Nobody waits for threads:
    Ctrl-C ends the program, and with it their processes.
    """
    from zaya.envs.audit import audit
    from zaya.envs.pool import TaskPool

    waiting = deque(names)
    ended: SimpleQueue[Audit | Exception] = SimpleQueue()

    def work() -> None:
        with TaskPool() as pool, TaskPool() as other, suppress(IndexError):
            while True:
                name = waiting.popleft()
                try:
                    found: Audit | Exception = audit(name, pool, other, config)
                except Exception as error:  # raised where somebody sees it
                    found = error
                ended.put(found)

    for _ in range(min(workers, len(names))):
        threading.Thread(target=work, name="zaya-audit", daemon=True).start()
    try:
        for _ in names:
            found = ended.get()
            if isinstance(found, UsageError) and may_skip:
                note(f"not checked: {found.message}")
            elif isinstance(found, Exception):
                raise found
            else:
                yield found
    finally:
        waiting.clear()


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
