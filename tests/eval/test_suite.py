"""A suite: stages beside each other, and one of them thinking in rounds.

1. A row says what its records and its run's log hold: accuracy by task, gain over the row before on the same problems,
   the loss, tokens and seconds of the log, and of the load's entropy the least moving average from a fifth of the run
   on.
2. The rows of thinking are one sample, the vote of as many samples as there are rollouts, each round, and the vote at
   the end. Gains are over one sample. A problem of which something is not known is left out of what needs it.
3. The tables say the same in Markdown.
4. A suite asks held-out problems, no two alike, goes on where it was interrupted, and says which system is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zaya.config import from_mapping
from zaya.engine.scripted import Prompt, ScriptedCompleter
from zaya.engine.types import Completion, OnProgress, Request
from zaya.envs.base import Status
from zaya.envs.mixture import TaskConfig
from zaya.envs.pool import TaskPool
from zaya.envs.stream import is_held_out
from zaya.errors import CheckpointError, ConfigError, UsageError
from zaya.eval import suite
from zaya.eval.metrics import Estimate
from zaya.eval.records import Record, RsaRecord, by_problem
from zaya.eval.suite import (
    StageRow,
    SuiteConfig,
    SuiteResult,
    SystemConfig,
    ThinkingRow,
    held_out_problems,
    markdown,
    run_suite,
    stage_table,
    thinking_rows,
    thinking_table,
)  # fmt: skip
from zaya.text import byte_tokenizer
from zaya.ttc.rsa import RsaConfig

TOKENIZER = byte_tokenizer()
SMALL = RsaConfig(population=3, fan_in=2, rounds=1, think_budget=60, tail_tokens=30, final_budget=90, answer_reserve=30)
BASE = SuiteConfig(tasks={"a": TaskConfig(env="arithmetic")}, systems={"one": SystemConfig(model="one")}, rsa=SMALL)


def record(
    digest: str, sample: int, correct: bool, env: str = "sums", status: Status = Status.OK, answer: str = ""
) -> Record:
    return Record(
        digest=digest, env=env, sample=sample, seed=0, correct=correct, reward=float(correct), status=status,
        finish="stop", tokens=10 + sample, answer="5" if correct else "4",
    )  # fmt: skip


def records(*rows: str, env: str = "sums", status: Status = Status.OK) -> list[Record]:
    """`a 1 0 1`: the samples of problem a, right, wrong and right."""
    found = []
    for row in rows:
        digest, *values = row.split()
        found += [record(digest, i, value == "1", env, status) for i, value in enumerate(values)]
    return found


def rsa(digest: str, accuracy: Sequence[float | None], majority: bool | None) -> RsaRecord:
    return RsaRecord(
        digest=digest, env="sums", run=0, seed=0, score=accuracy[-1], accuracy=tuple(accuracy), majority=majority,
        answer=None, left_out=0, tokens=300, prompt_tokens=99,
    )  # fmt: skip


# 1


def log(directory: Path, lines: Sequence[dict[str, Any]]) -> SystemConfig:
    directory.mkdir()
    whole = [{"step": i, "tokens": 10 * i, "seconds": 0.5 * i, **line} for i, line in enumerate(lines, 1)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in whole))
    return SystemConfig(run=str(directory))


def test_a_row_of_a_stage(tmp_path: Path) -> None:
    before = records("a 0 0", "b 1 0")
    after = records("a 1 0", "b 1 1") + records("c 1 0", env="lists", status=Status.INFRA)
    system = log(tmp_path / "run", [{"loss": 3.0}, {"loss": 2.0, "val_loss": 2.5}, {"loss": 1.0, "val_loss": 2.6}])
    row = suite._stage_row("sft", after, {**by_problem(before), "c": []}, system)
    assert (row.name, row.accuracy.mean, row.accuracy.num_problems) == ("sft", 0.75, 2)
    assert row.by_task == {"sums": 0.75}
    assert row.answer_tokens == 10.5
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(0.5)
    assert row.gain.problems == 0  # both gained a half: paired, there is nothing left to vary
    assert (row.loss, row.tokens, row.seconds, row.entropy_mean, row.entropy_min) == (2.6, 30, 1.5, None, None)
    (tmp_path / "run" / "config.toml").write_text("[run]\nseed = 0\n\n[stop]\npatience = 3\n")
    assert suite._stage_row("sft", after, None, system).loss == 2.5  # the best weights are the result
    first = suite._stage_row("model", before, None, SystemConfig(model="x", run=str(tmp_path / "nowhere")))
    assert (first.gain, first.loss, first.tokens, first.accuracy.mean) == (None, None, None, 0.25)
    with pytest.raises(UsageError, match="not asked the same problems"):
        suite._stage_row("sft", after, by_problem(before), system)


def test_entropy_is_the_least_average_of_the_later_run(tmp_path: Path) -> None:
    averages = [0.1, 0.2, 0.9, 0.7, 0.8, 0.95, 0.9, 0.99, 0.99, 0.99]
    lines = [{"entropy_mean": 0.0, "entropy_mean_ema": x, "entropy_min_ema": x / 2, "entropy_min": 0} for x in averages]
    row = suite._stage_row("a", records("a 1"), None, log(tmp_path / "ten", lines))
    assert (row.entropy_mean, row.entropy_min) == (0.7, 0.35)  # lines 3 to 10; the first two are a fifth
    row = suite._stage_row("a", records("a 1"), None, log(tmp_path / "four", lines[:4]))
    assert row.entropy_mean == 0.1  # a fifth of four is none
    row = suite._stage_row("a", records("a 1"), None, log(tmp_path / "empty", []))
    assert row.entropy_mean is None


# 2


def test_rows_of_thinking() -> None:
    """Population 3, one round more: 6 rollouts. Of problem a 4 samples in 8 are right, of b 6."""
    samples = records("a 1 0 1 0 1 0 1 0", "b 1 1 1 1 1 1 0 0")
    rounds = [rsa("a", [0.0, 1 / 3], False), rsa("b", [1.0, 1.0], True)]
    rows = thinking_rows(samples, rounds, replace(BASE, k=2))
    assert [row.name for row in rows] == [
        "one sample", "vote of 6 samples", "Markovian RSA, 1 round", "its vote at the end",
    ]  # fmt: skip
    one, vote, reached, told = rows
    each = sum(r.tokens for r in samples) / 16
    assert (one.accuracy.mean, one.tokens, one.gain) == (0.75, each, None)  # of the first two samples: 1/2 and 1

    def majority(values: str) -> float:
        """By every subset of six, a draw being right half of the time."""
        subsets = list(combinations([value == "1" for value in values.split()], 6))
        return sum((2 * sum(s) > 6) + 0.5 * (2 * sum(s) == 6) for s in subsets) / len(subsets)

    expected = [majority("1 0 1 0 1 0 1 0"), majority("1 1 1 1 1 1 0 0")]
    assert vote.accuracy.mean == pytest.approx(sum(expected) / 2)
    assert vote.gain is not None
    assert vote.gain.mean == pytest.approx((expected[0] - 0.5 + expected[1] - 1) / 2)
    assert vote.tokens == 6 * each
    assert reached.accuracy.mean == pytest.approx(2 / 3)
    assert reached.gain is not None
    assert reached.gain.mean == pytest.approx((1 / 3 - 1 / 2 + 0) / 2)
    assert (reached.tokens, told.tokens) == (300, 300)
    assert told.accuracy.mean == 0.5
    assert told.gain is not None
    assert told.gain.mean == pytest.approx(-0.25)


def test_several_rounds_and_runs() -> None:
    config = replace(BASE, rsa=replace(SMALL, rounds=2))
    rounds = [rsa("a", [0.0, 0.5, 1.0], True), replace(rsa("a", [0.0, 0.0, 0.5], False), run=1)]
    rows = thinking_rows(records("a 1 0"), rounds, config)
    assert [row.name for row in rows[2:4]] == ["Markovian RSA, 1 round", "Markovian RSA, 2 rounds"]
    assert [row.accuracy.mean for row in rows[2:]] == [0.25, 0.75, 0.5]
    assert rows[2].tokens is None  # what a round takes alone is not written down
    assert rows[3].tokens == 300


def test_what_is_not_known_is_left_out() -> None:
    samples = records("a 1 0 1", "b 1 1 0") + records("c 0 0 0", status=Status.INFRA)
    rounds = [rsa("a", [0.0, 1.0], True), rsa("b", [1.0, None], None), rsa("c", [1.0, 0.5], True)]
    one, vote, reached, told = thinking_rows(samples, rounds, BASE)
    assert [row.accuracy.num_problems for row in (one, vote, reached, told)] == [2, 2, 2, 2]
    assert [row.gain.num_problems for row in (vote, reached, told) if row.gain] == [2, 1, 1]
    assert reached.gain is not None
    assert reached.gain.mean == pytest.approx(1 / 3)


def test_a_row_has_both_readings() -> None:
    """Of a with instructions the second sample is loosely right; b has one reading, and counts by that in both."""
    plain = records("b 1 0")
    with_loose = [replace(r, loose=r.sample < 2) for r in records("a 1 0 0 0", env="instruct/x")]
    row = suite._stage_row("sft", with_loose + plain, None, SystemConfig(model="x"))
    assert row.accuracy.mean == pytest.approx((0.25 + 0.5) / 2)
    assert row.loose is not None
    assert row.loose.mean == pytest.approx((0.5 + 0.5) / 2)
    assert row.by_task == {"instruct/x": 0.25, "instruct/x, loose": 0.5, "sums": 0.5}
    other = suite._stage_row("rl", plain, None, SystemConfig(model="x"))
    assert other.loose is None
    head, first, second = stage_table([row, other])
    assert head[2:5] == ["accuracy", "loose", "gain"]
    assert (first[2][:4], first[3][:4], second[3]) == ("37.5", "50.0", "")
    text = markdown(SuiteResult(stages=(row,), thinking=()), BASE)
    assert "| stage | instruct/x | instruct/x, loose | sums |" in text
    assert "Loose, as in IFEval" in text


# 3


def test_tables_and_markdown() -> None:
    accuracy = Estimate(0.612, 0.01, 0.031, 40, 640)
    first = StageRow(
        name="pretrain", accuracy=accuracy, by_task={"lists": 0.5, "sums": 0.7}, answer_tokens=20.0, loss=1.23456,
        entropy_mean=0.98765, entropy_min=0.9, tokens=2_400_000, seconds=123.4,
    )  # fmt: skip
    gains = [Estimate(value, 0.01, 0.02, 40, 640) for value in (0.05, -0.05)]
    second = StageRow(name="rl", accuracy=accuracy, by_task={"lists": 0.6, "sums": 0.7}, answer_tokens=2, gain=gains[0])
    stages = (first, second, replace(second, name="worse", gain=gains[1]))
    assert stage_table(stages) == [
        ["stage", "loss", "accuracy", "gain", "load entropy", "tokens", "seconds"],
        ["pretrain", "1.235", "61.2 ±3.1", "", "0.988 / 0.900", "2,400,000", "123"],
        ["rl", "", "61.2 ±3.1", "+5.0 ±2.0", "", "", ""],
        ["worse", "", "61.2 ±3.1", "-5.0 ±2.0", "", "", ""],
    ]
    thinking = (
        ThinkingRow(name="one sample", accuracy=accuracy, tokens=20.4),
        ThinkingRow(name="vote", accuracy=accuracy, tokens=1234.5, gain=gains[0]),
        ThinkingRow(name="round", accuracy=accuracy, tokens=None, gain=gains[1]),
    )
    assert thinking_table(thinking) == [
        ["way", "accuracy", "gain", "tokens"],
        ["one sample", "61.2 ±3.1", "", "20"],
        ["vote", "61.2 ±3.1", "+5.0 ±2.0", "1,234"],
        ["round", "61.2 ±3.1", "-5.0 ±2.0", ""],
    ]
    config = replace(BASE, problems=40, rsa_of="one")
    text = markdown(SuiteResult(stages=stages, thinking=thinking), config)
    lines = text.splitlines()
    assert lines[0].startswith("40 held-out problems, 16 samples of each at temperature 1. ")
    assert "| rl |  | 61.2 ±3.1 | +5.0 ±2.0 |  |  |  |" in lines
    assert lines[8:11] == ["| stage | lists | sums |", "| --- | ---: | ---: |", "| pretrain | 50.0 | 70.0 |"]
    assert "| vote | 61.2 ±3.1 | +5.0 ±2.0 | 1,234 |" in lines
    assert "Markovian RSA of one: population 3, fan-in 2, rounds 1" in text
    tables = [line for line in lines if line.startswith("|")]
    assert all(line.endswith(" |") for line in tables)
    assert "Markovian" not in markdown(SuiteResult(stages=stages, thinking=()), config)
    assert "oose" not in text


# 4


class Speaker(ScriptedCompleter):
    """Counts its answers, and breaks down after so many."""

    def __init__(self, script: Callable[[Prompt, int, int], str], patience: int) -> None:
        super().__init__(TOKENIZER, script)
        self.patience = patience
        self.model = SimpleNamespace(config=SimpleNamespace(max_positions=4096))

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        if len(self.requests) + len(requests) > self.patience:
            raise KeyboardInterrupt
        return super().complete(requests, on_progress=on_progress)


def adds(is_right: Callable[[str, int], bool]) -> Callable[[Prompt, int, int], str]:
    def script(prompt: Prompt, seed: int, index: int) -> str:
        assert not isinstance(prompt, str)
        text = prompt[-1]["content"]
        question = next(line for line in text.split("\n") if line.startswith("What is "))
        terms = question.removeprefix("What is ").removesuffix("?").replace(" - ", " -").replace(" + ", " ").split()
        return f"hm\n</think>\n\n\\boxed{{{sum(map(int, terms)) + (not is_right(text, seed))}}}"

    return script


SCRIPTS = {
    "weak": adds(lambda text, seed: seed % 4 == 0),
    "good": adds(lambda text, seed: "Attempt" in text or seed % 2 == 0),
}


@pytest.fixture
def config(tmp_path: Path) -> SuiteConfig:
    for name in SCRIPTS:
        (tmp_path / name / "model").mkdir(parents=True)
    tree = {
        "tasks": {"a": {"env": "arithmetic", "difficulties": [0]}, "b": {"env": "arithmetic", "difficulties": [3]}},
        "systems": {"weak": {"run": str(tmp_path / "weak")}, "good": {"model": str(tmp_path / "good" / "model")}},
        "problems": 12, "k": 2, "held_out": 0.3, "rsa_of": "good", "max_batch": 5,
    }  # fmt: skip
    return replace(from_mapping(SuiteConfig, tree), rsa=SMALL)


def speakers(monkeypatch: pytest.MonkeyPatch, patience: int = 10**6) -> dict[str, Speaker]:
    made = {name: Speaker(script, patience) for name, script in SCRIPTS.items()}

    def open_engine(directory: Path, max_batch: int) -> Any:
        assert max_batch == 5
        assert directory.name == "model"
        return made[directory.parent.name], TOKENIZER

    monkeypatch.setattr(suite, "open_engine", open_engine)
    return made


def test_a_suite(config: SuiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = speakers(monkeypatch)
    result = run_suite(config, tmp_path / "out", pytest.fail)
    weak, good = result.stages
    # the good one has 6 samples for the vote, of which its row counts 2; and 6 rollouts in two rounds
    assert len(made["weak"].requests) == 24
    assert len(made["good"].requests) == 12 * 6 + 12 * 6
    assert (weak.accuracy.num_values, good.accuracy.num_values) == (24, 24)
    assert weak.gain is None
    assert good.gain is not None
    assert good.gain.mean == pytest.approx(good.accuracy.mean - weak.accuracy.mean)
    assert result.thinking[2].accuracy.mean == 1
    asked = {request.messages[-1]["content"] for request in made["weak"].requests if request.messages}
    with TaskPool() as pool:
        problems = held_out_problems(config, pool)
    assert {problem.prompt for problem in problems} == asked
    assert len(asked) == 12
    assert all(is_held_out(problem, 0.3) for problem in problems)
    assert {problem.difficulty for problem in problems} == {0, 3}
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [row["name"] for row in saved["stages"]] == ["weak", "good"]
    assert (tmp_path / "out" / "result.md").read_text() == markdown(result, config)

    again = speakers(monkeypatch)
    assert run_suite(config, tmp_path / "out", pytest.fail) == result
    assert sum(len(speaker.requests) for speaker in again.values()) == 0

    speakers(monkeypatch, patience=100)  # enough for all samples, and not for the rounds
    with pytest.raises(KeyboardInterrupt):
        run_suite(config, tmp_path / "broken", pytest.fail)
    assert not (tmp_path / "broken" / "result.md").exists()
    rest = speakers(monkeypatch)
    assert run_suite(config, tmp_path / "broken", pytest.fail) == result
    assert [len(speaker.requests) for speaker in rest.values()] == [0, 72]

    with pytest.raises(UsageError, match="something else: problems is"):
        run_suite(replace(config, seed=1), tmp_path / "out", pytest.fail)


def test_a_system_that_is_not_there(config: SuiteConfig, tmp_path: Path) -> None:
    (tmp_path / "weak" / "model").rmdir()
    with pytest.raises(CheckpointError, match=r"the system weak is not there: .*weak/model") as caught:
        run_suite(config, tmp_path / "out", pytest.fail)
    assert caught.value.hint == "run the stage that makes it"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"systems": {}}, "there is nobody to evaluate"),
        ({"systems": {"a": {}}}, "a system needs a run or a model"),
        ({"systems": {"a": {"run": "x"}}, "rsa_of": "b"}, "rsa_of names no system: 'b'"),
        ({"k": 0}, "k must be at least 1: 0"),
    ],
)
def test_impossible_suites(changes: dict[str, Any], message: str) -> None:
    tree = {"tasks": {"a": {"env": "arithmetic"}}, "systems": {"a": {"run": "x"}}}
    with pytest.raises(ConfigError, match=message):
        from_mapping(SuiteConfig, tree | changes)
