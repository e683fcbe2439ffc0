"""Two evaluations on the problems they share.

1. Means, difference, intervals and counts are those of paper, over shared problems alone.
2. Files are known by their first line, whatever they are called; what was tried again counts once.
3. What cannot be compared is refused by name: other problems, other versions, other files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zaya.envs.base import Status
from zaya.errors import UsageError
from zaya.eval.compare import compare, counterparts
from zaya.eval.evaluation import Evaluation, read_evaluations
from zaya.eval.records import FORMAT, Record, RsaRecord

ABOUT = {
    "records": "samples",
    "format": FORMAT,
    "problems": "x",
    "num_problems": 4,
    "versions": {"sums": 1},
    "seed": 0,
    "max_tokens": 8,
}


def row(digest: str, sample: int, correct: bool, env: str = "sums", status: Status = Status.OK) -> Record:
    return Record(
        digest=digest, env=env, sample=sample, seed=0, correct=correct, reward=float(correct), status=status,
        finish="stop", tokens=10, answer=None, question=f"{digest}?\nAnswer in a box.",
    )  # fmt: skip


def rows(values: Mapping[str, str], env: str = "sums") -> list[Record]:
    """`{"a": "10"}`: two samples of problem a, right and wrong."""
    return [row(digest, i, value == "1", env) for digest, some in values.items() for i, value in enumerate(some)]


def evaluation(name: str, records: Sequence[Record], **about: Any) -> Evaluation:
    return Evaluation(
        label=name, name=name, system=name, paths=(Path(f"{name}.jsonl"),), records=records,
        about=ABOUT | {"versions": {record.env: 1 for record in records}} | about,
        tasks={record.digest: record.env for record in records},
    )  # fmt: skip


def write(path: Path, found: Sequence[Record | RsaRecord], **about: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [ABOUT | about, *(record.to_row() for record in found)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


# 1


def test_on_paper() -> None:
    a = evaluation("old", rows({"a": "1000", "b": "1100", "c": "0000", "d": "1111"}), max_tokens=8)
    b = evaluation("new", rows({"e": "11", "a": "11", "b": "01", "c": "10"}), max_tokens=9)
    found = compare(a, b)
    assert (found.name_a, found.name_b, found.num_a, found.num_b, found.num_shared) == ("old", "new", 4, 4, 3)
    # a: 1/4, 1/2, 0; b: 1, 1/2, 1/2; differences 3/4, 0, 1/2
    assert (found.a.mean, found.b.mean) == (pytest.approx(1 / 4), pytest.approx(2 / 3))
    assert found.difference.mean == pytest.approx(5 / 12)
    # squares of deviations from 5/12: 16/144, 25/144, 1/144, over 2 and over 3
    assert found.difference.problems == pytest.approx(1.96 * math.sqrt(42 / 144 / 6))
    # p(1-p)/(k-1): 1/16, 1/12, 0 and 0, 1/4, 1/4
    assert found.difference.sampling == pytest.approx(1.96 * math.sqrt((7 / 48 + 1 / 2) / 9))
    assert (found.wins, found.losses, found.ties, found.p_value) == (2, 0, 1, 0.5)
    assert [(c.digest, c.question, c.a, c.b) for c in found.changes] == [("a", "a?", 0.25, 1), ("c", "c?", 0, 0.5)]
    assert found.settings == {"max_tokens": (8, 9)}
    back = compare(b, a)
    assert back.difference.mean == pytest.approx(-5 / 12)
    assert (back.wins, back.losses) == (0, 2)


def test_a_task_or_a_family() -> None:
    records = rows({"a": "1"}, "rlve/Sorting") + rows({"b": "1"}, "rlve/Nim") + rows({"c": "1", "d": "0"})
    a, b = evaluation("a", records), evaluation("b", [replace(r, correct=not r.correct) for r in records])
    assert compare(a, b).num_shared == 4
    assert compare(a, b, task="sums").difference.mean == 0
    assert compare(a, b, task="rlve/").difference.mean == -1
    assert compare(a, b, task="rlve/Nim").num_shared == 1
    with pytest.raises(UsageError, match="no problem of the two is of the task 'sum'") as caught:
        compare(a, b, task="sum")
    assert caught.value.hint == "did you mean sums?"


def test_what_has_no_value_is_not_shared() -> None:
    a = evaluation("a", [*rows({"a": "1", "b": "1"}), row("c", 0, False, status=Status.INFRA)])
    b = evaluation("b", [*rows({"a": "1", "c": "1"}), row("b", 0, False, status=Status.INFRA)])
    assert compare(a, b).num_shared == 1
    with pytest.raises(UsageError, match="no problem is shared: 2 of a, 1 of b"):
        compare(a, evaluation("b", rows({"x": "1"})))
    with pytest.raises(UsageError, match="no problem is shared"):
        compare(a, evaluation("b", [row("a", 0, True, env="other")]))  # another scorer: not the same problem


def test_versions() -> None:
    a, b = (evaluation(n, rows({"a": "1"}), versions={"sums": v, n: v}) for n, v in (("a", 1), ("b", 2)))
    with pytest.raises(UsageError, match="the task sums has version 1 in a and 2 in b"):
        compare(a, b)
    more = [*a.records, row("n", 0, True, env="nim")]
    a, b = (evaluation(n, more, versions={"sums": v, "nim": 1}) for n, v in (("a", 1), ("b", 2)))
    assert compare(a, b, task="nim").num_shared == 1


# 2


def test_files_are_known_by_their_first_line(tmp_path: Path) -> None:
    write(tmp_path / "x--deep.jsonl", rows({"a": "10"}))
    run = RsaRecord(
        digest="a", env="sums", run=0, seed=0, score=0.5, accuracy=(None, 0.5), majority=True, answer="4", left_out=1,
        tokens=9, prompt_tokens=9, round_tokens=(4, 5), lenient_score=0.5, truncated=0.0,
    )  # fmt: skip
    write(tmp_path / "anything.jsonl", [run], records="rsa")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\n")
    found = read_evaluations([tmp_path, tmp_path / "anything.jsonl"])
    assert [(e.name, e.is_rsa, e.missing) for e in found] == [("anything", True, 3), ("x--deep", False, 3)]
    assert list(found[0].records) == [run]
    # samples beside runs: both are values of a problem
    assert compare(found[1], found[0]).difference.mean == 0
    assert compare(found[1], found[0]).settings == {}


def test_files_that_say_the_same_system_are_one(tmp_path: Path) -> None:
    labels = {"system": "rl", "content": "x", "num_problems": 1}
    write(tmp_path / "rl.sums.jsonl", rows({"a": "10"}), task="sums", **labels)
    write(tmp_path / "rl.hard.jsonl", rows({"b": "11"}), task="hard", **labels | {"max_tokens": 512})
    write(tmp_path / "rl.sums.wide.jsonl", rows({"a": "11"}), task="sums", ttc="wide", **labels)
    write(tmp_path / "sft.sums.jsonl", rows({"a": "00"}), task="sums", **labels | {"system": "sft"})
    write(tmp_path / "2" / "rl.sums.jsonl", rows({"a": "11"}), task="sums", **labels)
    found = read_evaluations([tmp_path, tmp_path / "2"])
    root = tmp_path.name
    assert [(e.label, e.name, e.system, len(e.paths), e.missing) for e in found] == [
        ("rl", f"{root}/rl", "rl", 2, 0), ("rl--wide", f"{root}/rl--wide", "rl", 1, 0),
        ("sft", f"{root}/sft", "sft", 1, 0), ("rl", "2/rl", "rl", 1, 0),
    ]  # fmt: skip
    assert found[0].tasks == {"a": "sums", "b": "hard"}
    assert found[0].about["max_tokens"] == (512, 8)
    assert compare(found[0], found[3], task="sums").difference.mean == 0.5
    assert [pair[1].name for pair in counterparts(found[:3], found[3:])] == ["2/rl"]
    with pytest.raises(UsageError, match=r"no problem is shared: 1 of .*/rl, 0 of 2/rl"):
        compare(found[0], found[3], task="hard")


def test_a_later_record_replaces_an_earlier_one_and_a_torn_one_is_none(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row("a", 0, False, status=Status.INFRA), row("a", 1, True), row("a", 0, True)])
    file.write_text(file.read_text() + '{"digest": "b", "en')
    (found,) = read_evaluations([file])
    assert [(r.number, r.value) for r in found.records] == [(0, 1), (1, 1)]


def test_names_tell_apart(tmp_path: Path) -> None:
    files = [write(tmp_path / path, rows({"a": "1"})) for path in ("x/1/rl.jsonl", "y/1/rl.jsonl", "y/1/sft.jsonl")]
    assert [e.name for e in read_evaluations(files[:1])] == ["rl"]
    assert [e.name for e in read_evaluations(files)] == ["x/1/rl", "y/1/rl", "y/1/sft"]


def test_counterparts() -> None:
    a, b, c = (evaluation(name, []) for name in "abc")
    assert counterparts([a], [b]) == [(a, b)]
    assert counterparts([a, b], [c, b, a]) == [(a, a), (b, b)]
    with pytest.raises(UsageError, match="nothing is called the same on both sides: a, b; c"):
        counterparts([a, b], [c])


# 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"my notes\n", "is not a file of records"),
        (b"", "is not a file of records"),
        (b"[1]\n", "is not a file of records"),
        (b'{"records": "x"}\n', "is not a file of records"),
        (b"[" * 9999 + b"\n", "is not a file of records"),
        (b'{"records": "rsa", "seed": 0}\n', f"written by another version of zaya: format 1, expected {FORMAT}"),
        (json.dumps(ABOUT).encode() + b'\n{"digest": 1}\n', "is damaged: a line of it is no record"),
        (json.dumps(ABOUT).encode() + b"\n[1]\n", "is damaged: a line of it is no record"),
        (json.dumps(ABOUT).encode() + b"\n[1\n", "is not a file of records"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "f.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_evaluations([tmp_path / "f.jsonl"])
    assert str(tmp_path / "f.jsonl") in caught.value.message


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere.jsonl cannot be read: No such file"):
        read_evaluations([tmp_path / "nowhere.jsonl"])
    with pytest.raises(UsageError, match="there are no records of an evaluation in"):
        read_evaluations([tmp_path])
