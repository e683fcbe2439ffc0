"""zaya aggregate: from rollouts to prompts that show attempts, for reinforcement learning or, with a teacher, for SFT.

zaya aggregate --rollouts rollouts.jsonl --out prompts.jsonl                      problem and messages
zaya aggregate --rollouts rollouts.jsonl --out train.jsonl --teacher MODEL        conversations with a solution
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zaya.cli.asking import add_engine, add_loading, check_engine, open_chat_model, open_engine
from zaya.cli.printing import counted, notice, table
from zaya.core.progress import Progress, columns
from zaya.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from zaya.text import Tokenizer
    from zaya.ttc.aggregate import Report
    from zaya.ttc.teach import Teacher

_MICRO = "micro"
_KEY = "ZAYA_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument(
        "--rollouts", nargs="+", required=True, metavar="FILE",
        help="JSON lines, a rollout in each: problem, reasoning, answer, perhaps id, correct, ids, messages; or traces",
    )  # fmt: skip
    files.add_argument(
        "--field", action="append", default=[], metavar="OURS=THEIRS", help="a field has another name, as problem=query"
    )
    files.add_argument(
        "--dedupe", nargs="+", default=[], metavar="FILE",
        help="leave out the problems of these: JSON lines with problems, or records of an evaluation",
    )  # fmt: skip
    files.add_argument("--out", metavar="FILE", help="where to write; what is there of the same work is gone on with")
    drawing = parser.add_argument_group("drawing", "of several values each prompt takes one")
    drawing.add_argument("--tau", nargs="+", type=int, metavar="N", help="tokens of a rollout shown (default: 4096)")
    drawing.add_argument("--fan-in", nargs="+", type=int, metavar="C", help="rollouts in a prompt (default: 1 2 3 4)")
    drawing.add_argument(
        "--compaction", nargs="+", metavar="HOW",
        help="what is shown: tail, tail_full, hybrid (answers), full (default: tail tail tail hybrid)",
    )  # fmt: skip
    drawing.add_argument(
        "--budget", nargs="+", type=int, metavar="N", help="tokens at which rollouts are cut (default: as they are)"
    )
    drawing.add_argument("--cut", type=float, metavar="P", help="of rollouts, cut within their thought (default: 0.1)")
    drawing.add_argument("--per-problem", type=int, metavar="N", help="prompts of a problem (default: 1)")
    drawing.add_argument(
        "--stratify", action="store_true", default=None, help="as many prompts with 0 as with 1 ... C right rollouts"
    )
    drawing.add_argument("--max-prompt", type=int, metavar="N", help="tokens of a prompt at most (default: 20480)")
    drawing.add_argument("--seed", type=int, metavar="N", help="same seed, same bytes (default: 0)")
    teaching = parser.add_argument_group("teacher")
    teaching.add_argument(
        "--teacher", metavar="MODEL",
        help="who solves the prompts: a checkpoint directory or hub id, micro for the model in this package, or the "
        "http address of a server",
    )  # fmt: skip
    teaching.add_argument("--teacher-model", metavar="NAME", help=f"what a server calls it; its key is in ${_KEY}")
    teaching.add_argument(
        "--max-tokens", type=int, default=40_960, metavar="N", help="tokens of a solution at most (default: 40960)"
    )
    teaching.add_argument(
        "--max-total", type=int, default=131_072, metavar="N", help="with its prompt (default: 131072)"
    )
    teaching.add_argument("--temperature", type=float, default=1.0, metavar="X", help="(default: 1)")
    parser.add_argument(
        "--tokenizer", metavar="DIR", help="what tokens are counted by (default: the teacher's, or the micro model's)"
    )
    parser.add_argument("--dry-run", action="store_true", help="make the prompts, say what they are, write nothing")
    add_loading(parser)
    add_engine(parser)


def run(args: argparse.Namespace) -> int:
    from zaya.config import from_mapping
    from zaya.ttc.aggregate import AggregateConfig, Report, make_examples
    from zaya.ttc.rollouts import Excluded, read_pools
    from zaya.ttc.teach import check_place, made_from, write_conversations, write_prompts

    check_engine(args)
    out = None if args.dry_run else _place(args.out)
    with _naming_options(AggregateConfig):
        config = from_mapping(AggregateConfig, _given(args, AggregateConfig))
    report = Report()
    names = _fields(args.field)
    tokenizer, teacher = _opened(args)
    pools = read_pools([Path(path) for path in args.rollouts], tokenizer, names)
    excluded = Excluded([Path(path) for path in args.dedupe], names)
    kept = [pool for pool in pools if pool not in excluded]
    report.left_out["problem is excluded"] += len(pools) - len(kept)
    examples = make_examples(kept, tokenizer, config, report)
    if out is None:
        for example in examples:
            report.count(example)
    else:
        key = made_from(kept, tokenizer, config, teacher)
        check_place(out, key)
        if teacher is None:
            write_prompts(examples, out, key, report)
        else:
            try:
                with Progress(label="solutions") as bar:
                    write_conversations(examples, teacher, tokenizer, out, key, report, bar.reach)
            except KeyboardInterrupt:
                notice("what the teacher has solved is kept; the same command goes on from there")
                raise
    num_rollouts = sum(len(pool.attempts) for pool in pools)
    made, problems = counted(len(report.prompts), "prompt"), counted(len(pools), "problem")
    print(f"{made} from {problems} with {counted(num_rollouts, 'rollout')}")
    _say_report(report)
    if out is not None:
        print(f"\n{out} has them")
    return 0


def _place(out: str | None) -> Path:
    if out is None:
        raise UsageError("there is nowhere to write", hint="add --out FILE, or --dry-run")
    return Path(out)


def _given(args: argparse.Namespace, settings: type) -> dict[str, Any]:
    """The settings that the command line names."""
    values = {field.name: getattr(args, field.name) for field in fields(settings)}
    return {name: value for name, value in values.items() if value is not None}


@contextmanager
def _naming_options(settings: type) -> Iterator[None]:
    """Errors in the names of the options."""
    names = "|".join(field.name for field in fields(settings))
    try:
        yield
    except ConfigError as error:
        error.message = re.sub(rf"^({names})\b", lambda found: f"--{found[1].replace('_', '-')}", error.message)
        raise


def _fields(words: Sequence[str]) -> dict[str, str]:
    for word in words:
        if not all(word.partition("=")):
            raise UsageError(f"--field takes OURS=THEIRS: {word!r}", hint="such as --field problem=question")
    return {ours: theirs for ours, _, theirs in (word.partition("=") for word in words)}


def _opened(args: argparse.Namespace) -> tuple[Tokenizer, Teacher | None]:
    """What tokens are counted by, and who solves. A dry run asks nobody."""
    from zaya.model.embedded import embedded_directory
    from zaya.text import load_tokenizer
    from zaya.ttc.teach import Teacher

    is_server = args.teacher is not None and args.teacher.startswith(("http://", "https://"))
    if is_server != (args.teacher_model is not None):
        raise UsageError(
            "--teacher-model goes with a server, --teacher http://..., and a server needs it",
            hint="the name that the server has for its model" if is_server else "leave it out",
        )
    given = None if args.tokenizer is None else load_tokenizer(args.tokenizer)
    if args.tokenizer is not None and given is None:
        raise UsageError(f"{args.tokenizer} has no tokenizer files", hint="it needs tokenizer.json")
    if args.teacher is None or (args.dry_run and given is not None):
        found = given or load_tokenizer(embedded_directory())
        assert found is not None
        return found, None
    settings = {"max_tokens": args.max_tokens, "max_total": args.max_total, "temperature": args.temperature}
    if is_server:
        if given is None:
            raise UsageError("a server does not give its tokenizer", hint="add --tokenizer DIR")
        from zaya.engine.remote import RemoteCompleter

        completer = RemoteCompleter(args.teacher, args.teacher_model, api_key=os.environ.get(_KEY), tokenizer=given)
        return given, Teacher(name=args.teacher_model, completer=completer, **settings)
    model, tokenizer = open_chat_model(None if args.teacher == _MICRO else args.teacher, args)
    return given or tokenizer, Teacher(name=args.teacher, completer=open_engine(model, tokenizer, args), **settings)


def _say_report(report: Report) -> None:
    """Lengths, how many rollouts were right, and what is missing."""
    width = columns(sys.stdout)
    for name, lengths in (("prompt", report.prompts), ("solution", report.targets)):
        if lengths:
            rows = [("tokens", f"{name}s"), *((f"{low:,} to {high:,}", f"{n:,}") for low, high, n in bins(lengths))]
            print("\n" + table(rows, width))
    if report.mix:
        mix = sorted(report.mix.items(), key=lambda item: (item[0][0], -1 if item[0][1] is None else item[0][1]))
        rows = [(f"{c}", "not known" if right is None else f"{right}", f"{n:,}") for (c, right), n in mix]
        print("\n" + table([("rollouts", "right", "prompts"), *rows], width))
    reasons = [(reason, f"{n:,}") for reason, n in sorted(report.left_out.items()) if n]
    if reasons:
        print("\n" + table([("left out", ""), *reasons], width))


def bins(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Lengths between powers of two: from, to, how many."""
    found = Counter(length.bit_length() for length in lengths)
    return [(2 ** (bits - 1), 2**bits - 1, found[bits]) for bits in range(min(found), max(found) + 1)]
