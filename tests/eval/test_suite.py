"""A suite: systems beside each other on several tasks, and some of them thinking in rounds.

1. A row says what its records and its run's log hold: accuracy by task, level and category, gain over the row before
   on the same problems, the loss, tokens and seconds of the log, and of the load's entropy the least moving average
   from a fifth of the run on. Where prompts have instructions, it says what part of all was followed.
2. The tables say the same in Markdown.
3. A suite asks held-out problems, no two alike, goes on where it was interrupted, and says which system is missing. A
   task that is added leaves the records of the others as they are; of another version of a task there is no mixing.
4. A task brings its own sampling and number of samples. Problems with tools are asked with them, and not thought about
   in rounds.
5. A server is a system: it is asked through `zaya.engine.remote`, with a key that stands in no recipe.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.eval.making import record, records, task_set
from zaya.config import from_mapping, load, to_toml
from zaya.engine.scripted import Prompt, ScriptedCompleter
from zaya.engine.types import Completion, OnProgress, Request
from zaya.envs.base import Problem, Status
from zaya.envs.pool import TaskPool
from zaya.envs.stream import is_held_out
from zaya.errors import CheckpointError, UsageError, ZayaError
from zaya.eval import suite
from zaya.eval.metrics import Estimate
from zaya.eval.presets import SamplingConfig
from zaya.eval.records import by_problem
from zaya.eval.scores import StageRow, SuiteResult, TaskScore, stage_row, task_score
from zaya.eval.suite import SuiteConfig, problem_sets, run_suite
from zaya.eval.systems import System, SystemConfig
from zaya.eval.tables import markdown, part_tables, stage_table, task_table, thinking_table
from zaya.eval.tasks import EvalTask
from zaya.eval.thinking import ThinkingRow, TtcConfig
from zaya.text import byte_tokenizer

TOKENIZER = byte_tokenizer()
SMALL = {
    "population": 3, "fan_in": 2, "rounds": 1, "think_budget": 60, "tail_tokens": 30, "final_budget": 90,
    "answer_reserve": 30,
}  # fmt: skip


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
    sets = [task_set("sums", k=2), task_set("lists", k=1)]
    counted = {"sums": after, "lists": records("d 1")}
    row = stage_row("sft", sets, counted, {**by_problem(before), "c": [], "d": [0.5]}, system)
    assert (row.name, row.accuracy.mean, row.accuracy.num_problems) == ("sft", (0.5 + 1 + 1) / 3, 3)
    assert {name: (score.accuracy.mean, score.k) for name, score in row.tasks.items()} == {
        "sums": (0.75, 2), "lists": (1, 1),
    }  # fmt: skip
    assert row.answer_tokens == pytest.approx((10 + 11) * 3 / 7 + 10 / 7)
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(0.5)
    assert row.gain.problems == 0  # both gained a half: paired, there is nothing left to vary
    assert (row.loss, row.tokens, row.seconds, row.entropy_mean, row.entropy_min) == (2.6, 30, 1.5, None, None)
    (tmp_path / "run" / "config.toml").write_text("[run]\nseed = 0\n\n[stop]\npatience = 3\n")
    assert stage_row("sft", sets, counted, None, system).loss == 2.5  # the best weights are the result
    first = stage_row("model", sets[:1], {"sums": before}, None, SystemConfig(model="x", run=str(tmp_path / "nowhere")))
    assert (first.gain, first.loss, first.tokens, first.accuracy.mean) == (None, None, None, 0.25)
    with pytest.raises(UsageError, match="not asked the same problems"):
        stage_row("sft", sets, counted, by_problem(before), system)


def test_entropy_is_the_least_average_of_the_later_run(tmp_path: Path) -> None:
    averages = [0.1, 0.2, 0.9, 0.7, 0.8, 0.95, 0.9, 0.99, 0.99, 0.99]
    lines = [{"entropy_mean": 0.0, "entropy_mean_ema": x, "entropy_min_ema": x / 2, "entropy_min": 0} for x in averages]
    sets, counted = [task_set("sums", k=1)], {"sums": records("a 1")}
    row = stage_row("a", sets, counted, None, log(tmp_path / "ten", lines))
    assert (row.entropy_mean, row.entropy_min) == (0.7, 0.35)  # lines 3 to 10; the first two are a fifth
    row = stage_row("a", sets, counted, None, log(tmp_path / "four", lines[:4]))
    assert row.entropy_mean == 0.1  # a fifth of four is none
    row = stage_row("a", sets, counted, None, log(tmp_path / "empty", []))
    assert row.entropy_mean is None


def test_levels_categories_and_instructions() -> None:
    asked = [Problem("instruct:x", str(i), {"instructions": [["a", {}]] * n, "category": c}, 0, 0) for i, (n, c) in
             enumerate([(1, "x"), (3, "x"), (2, "y")])]  # fmt: skip
    one, two, three = (problem.digest for problem in asked)
    found = [
        *records(f"{one} 1 0"),  # 1 and 0 of 1
        record(two, 0, False, reward=2 / 3), record(two, 1, True),  # 2 and 3 of 3
        record(three, 0, False, reward=0.5), record(three, 1, False, reward=0.0),  # 1 and 0 of 2
        replace(record(three, 2, False), status=Status.INFRA, finish=None),
    ]  # fmt: skip
    found = [replace(r, finish="length") if r.sample == 1 else r for r in found]
    score = task_score(task_set("if", *asked, steps={one: 0, two: 1, three: 1}), found)
    assert score.instructions == pytest.approx((1 + 0 + 2 + 3 + 1 + 0) / 12)
    assert {level: (e.mean, e.num_problems) for level, e in score.levels.items()} == {0: (0.5, 1), 1: (0.25, 2)}
    assert {name: (e.mean, e.num_problems) for name, e in score.categories.items()} == {"x": (0.5, 2), "y": (0, 1)}
    assert score.truncated == 0.5
    plain = task_score(task_set("sums", Problem("sums", "?", {}, 0, 0)), records("a 1"))
    assert (plain.levels, plain.categories, plain.instructions) == ({}, {}, None)


# 2


def test_a_row_has_both_readings() -> None:
    """Of a with instructions the second sample is loosely right; b has one reading, and counts by that in both."""
    plain = records("b 1 0")
    with_loose = [replace(r, loose=r.sample < 2) for r in records("a 1 0 0 0")]
    sets = [task_set("if", Problem("instruct/x", "?", {}, 0, 0)), task_set("sums", Problem("sums", "?", {}, 0, 0))]
    row = stage_row("sft", sets, {"if": with_loose, "sums": plain}, None, SystemConfig(model="x"))
    assert row.accuracy.mean == pytest.approx((0.25 + 0.5) / 2)
    assert row.loose is not None
    assert row.loose.mean == pytest.approx((0.5 + 0.5) / 2)
    strict, loose, other = row.tasks["if"].accuracy, row.tasks["if"].loose, row.tasks["sums"].loose
    assert (strict.mean, loose and loose.mean, other) == (0.25, 0.5, None)
    head, cells = stage_table([row])
    assert head[2:5] == ["accuracy", "loose", "gain"]
    assert (cells[2][:4], cells[3][:4]) == ("37.5", "50.0")
    text = markdown(SuiteResult(stages=(row,), thinking=()), {})
    assert "| if, loose |" in text
    assert "Loose, as in IFEval" in text


def test_tables_and_markdown() -> None:
    accuracy = Estimate(0.612, 0.01, 0.031, 40, 640)
    sums = TaskScore(accuracy=accuracy, k=16, tokens=9.0, truncated=0.25, levels={}, categories={})
    rules = replace(sums, instructions=0.7, levels={0: accuracy, 2: replace(accuracy, mean=0.5, num_problems=7)})
    first = StageRow(
        name="pretrain", accuracy=accuracy, tasks={"rules": rules, "sums": sums}, answer_tokens=20.0, loss=1.23456,
        entropy_mean=0.98765, entropy_min=0.9, tokens=2_400_000, seconds=123.4,
    )  # fmt: skip
    gains = [Estimate(value, 0.01, 0.02, 40, 640) for value in (0.05, -0.05)]
    second = StageRow(
        name="rl", accuracy=accuracy, tasks={"rules": replace(rules, levels={0: accuracy}), "sums": sums},
        answer_tokens=2, gain=gains[0],
    )  # fmt: skip
    stages = (first, second, replace(second, name="worse", gain=gains[1]))
    assert stage_table(stages) == [
        ["stage", "loss", "accuracy", "gain", "load entropy", "tokens", "seconds"],
        ["pretrain", "1.235", "61.2 ±3.1", "", "0.988 / 0.900", "2,400,000", "123"],
        ["rl", "", "61.2 ±3.1", "+5.0 ±2.0", "", "", ""],
        ["worse", "", "61.2 ±3.1", "-5.0 ±2.0", "", "", ""],
    ]
    assert task_table(stages[:2]) == [
        ["task", "problems", "samples", "pretrain", "rl", "cut off"],
        ["rules", "40", "16", "61.2 ±3.1", "61.2 ±3.1", "25 % / 25 %"],
        ["rules, instructions", "40", "16", "70.0", "70.0", "25 % / 25 %"],
        ["sums", "40", "16", "61.2 ±3.1", "61.2 ±3.1", "25 % / 25 %"],
    ]
    assert part_tables(stages[:2]) == [
        [
            ["rules, by level", "problems", "pretrain", "rl"],
            ["0", "40", "61.2 ±3.1", "61.2 ±3.1"],
            ["2", "7", "50.0 ±3.1", ""],
        ]
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
    lines = markdown(SuiteResult(stages=stages, thinking=thinking), {"small": TtcConfig(rsa=SMALL)}).splitlines()
    assert lines[0].startswith("40 problems. ")
    assert "| rl |  | 61.2 ±3.1 | +5.0 ±2.0 |  |  |  |" in lines
    assert "| sums | 40 | 16 | 61.2 ±3.1 | 61.2 ±3.1 | 61.2 ±3.1 | 25 % / 25 % / 25 % |" in lines
    assert "| 2 | 7 | 50.0 ±3.1 |  |  |" in lines
    assert "| vote | 61.2 ±3.1 | +5.0 ±2.0 | 1,234 |" in lines
    assert any(line.startswith("Markovian RSA small: population 3, fan-in 2, rounds 1") for line in lines)
    tables = [line for line in lines if line.startswith("|")]
    assert all(line.endswith(" |") for line in tables)
    assert "Markovian" not in markdown(SuiteResult(stages=stages, thinking=()), {})


# 3


class Speaker(ScriptedCompleter):
    """Counts its answers, and breaks down after so many."""

    def __init__(self, script: Callable[[Prompt, int, int], str], patience: int) -> None:
        super().__init__(TOKENIZER, script)
        self.patience = patience

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
        "problems": 12, "k": 2, "held_out": 0.3, "max_batch": 5, "ttc": {"small": {"rsa": SMALL}},
    }  # fmt: skip
    return from_mapping(SuiteConfig, tree)


def speakers(monkeypatch: pytest.MonkeyPatch, patience: int = 10**6) -> dict[str, Speaker]:
    made = {name: Speaker(script, patience) for name, script in SCRIPTS.items()}

    def open_system(system: SystemConfig, max_batch: int) -> System:
        assert max_batch == 5
        assert system.directory is not None
        assert system.directory.name == "model"
        return System(made[system.directory.parent.name], TOKENIZER)

    monkeypatch.setattr(suite, "open_system", open_system)
    return made


def test_runs_are_recorded_in_lots_of_a_size(
    config: SuiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost when a run is killed is bounded by sequences, however many a population has."""
    lots: list[int] = []
    speakers(monkeypatch)
    original = suite.evaluate_rsa
    monkeypatch.setattr(suite, "evaluate_rsa", lambda *a, chunk, **k: lots.append(chunk) or original(*a, **k))
    run_suite(config, tmp_path / "out", pytest.fail)
    assert set(lots) == {2 * 5 // config.ttc["small"].config.population}


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
        sets = problem_sets(config, pool, pytest.fail)
    problems = [problem for task in sets for problem in task.problems]
    assert {problem.prompt for problem in problems} == asked
    assert len(asked) == 12
    assert all(is_held_out(problem, 0.3) for problem in problems)
    assert [[problem.difficulty for problem in task.problems] for task in sets] == [[0] * 6, [3] * 6]
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [row["name"] for row in saved["stages"]] == ["weak", "good"]
    assert (tmp_path / "out" / "result.md").read_text() == markdown(result, config.ttc)
    files = {"weak.a", "weak.b", "good.a", "good.b", "good.a.small", "good.b.small"}
    assert {file.stem for file in (tmp_path / "out").glob("*.jsonl")} == files
    header = json.loads((tmp_path / "out" / "good.b.small.jsonl").read_text().split("\n")[0])
    assert (header["records"], header["system"], header["task"], header["ttc"]) == ("rsa", "good", "b", "small")

    again = speakers(monkeypatch)
    assert run_suite(config, tmp_path / "out", pytest.fail) == result
    assert sum(len(speaker.requests) for speaker in again.values()) == 0

    speakers(monkeypatch, patience=100)  # enough for all samples, and not for the rounds
    with pytest.raises(KeyboardInterrupt):
        run_suite(config, tmp_path / "broken", pytest.fail)
    assert not (tmp_path / "broken" / "result.md").exists()
    rest = speakers(monkeypatch)
    assert run_suite(config, tmp_path / "broken", pytest.fail) == result
    assert rest["weak"].requests == []
    assert 0 < len(rest["good"].requests) <= 72

    with pytest.raises(UsageError, match="something else: problems is"):
        run_suite(replace(config, seed=1), tmp_path / "out", pytest.fail)


def test_a_task_more(config: SuiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, tasks={"a": replace(config.tasks["a"], problems=4)}, ttc={})
    speakers(monkeypatch)
    run_suite(config, tmp_path / "out", pytest.fail)
    file = tmp_path / "own.jsonl"
    rows = [{"problem": f"What is {i} + {i}?", "answer": 2 * i} for i in range(1, 4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = replace(config, tasks={**config.tasks, "own": EvalTask(file=str(file), benchmark="aime", k=4)})
    made = speakers(monkeypatch)
    result = run_suite(more, tmp_path / "out", pytest.fail)
    requests = made["good"].requests
    assert len(requests) == 12
    assert {(r.params.temperature, r.params.top_p, r.params.max_tokens) for r in requests} == {(1.0, 0.95, 192)}
    assert result.stages[1].tasks["own"].k == 4
    assert 0 < result.stages[1].tasks["own"].accuracy.mean < 1  # right at every second seed
    file.write_text(file.read_text().replace('"answer": 2', '"answer": 3'))
    speakers(monkeypatch)
    with pytest.raises(UsageError, match=r"weak.own.jsonl holds the records of something else"):
        run_suite(more, tmp_path / "out", pytest.fail)


def test_tools_are_offered_and_not_thought_about(
    config: SuiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"question": "What is 1?", "function": [{"name": "note"}], "ground_truth": []}
    (tmp_path / "tools.jsonl").write_text(json.dumps(row))
    tasks = {
        "a": replace(config.tasks["a"], problems=2),
        "t": EvalTask(file=str(tmp_path / "tools.jsonl"), kind="tools"),
    }
    made = speakers(monkeypatch)
    result = run_suite(replace(config, tasks=tasks), tmp_path / "out", pytest.fail)
    offered = [request for request in made["good"].requests if request.tools]
    assert [request.tools[0]["function"]["name"] for request in offered if request.tools] == ["note"] * 2  # k of them
    assert result.stages[1].tasks["t"].accuracy.num_values == 2
    assert {row.accuracy.num_problems for row in result.thinking} == {2}
    assert "on 2 problems: those without tools" in (tmp_path / "out" / "result.md").read_text()


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
        ({"tasks": {}}, "there are no problems"),
        ({"systems": {"a": {}}}, "a system needs a run, a model or a url"),
        ({"systems": {"a": {"url": "http://x"}}}, "http://x needs the name of a model"),
        ({"systems": {"a": {"url": "http://x", "model": "m", "run": "r"}}}, "run and is_base are for checkpoints"),
        ({"systems": {"a": {"run": "r", "api_key_env": "KEY"}}}, "are for a system with a url"),
        ({"systems": {"a": {"run": "x"}}, "ttc": {"b": {"of": "c"}}}, "ttc.b.of names no system: 'c'"),
        ({"systems": {"a/b": {"run": "x"}}}, "the name of a system has letters, digits, _ and - only: 'a/b'"),
        ({"k": 0}, "k must be at least 1: 0"),
        ({"sampling": "report_maths"}, "sampling = 'report_maths' does not exist"),
        ({"sampling": {"temperature": -1.0}}, "temperature must not be negative"),
    ],
)
def test_impossible_suites(changes: dict[str, Any], message: str) -> None:
    tree = {"tasks": {"a": {"env": "arithmetic"}}, "systems": {"a": {"run": "x"}}}
    with pytest.raises(ZayaError, match=message):
        from_mapping(SuiteConfig, tree | changes)


def test_a_recipe_survives_being_written(config: SuiteConfig, tmp_path: Path) -> None:
    tasks = {
        "x": EvalTask(file="a b.jsonl", kind="math", fields={"prompt": "q.text"}, sampling=SamplingConfig(top_k=5))
    }
    config = replace(config, tasks={**config.tasks, **tasks}, sampling="report_code")
    (tmp_path / "again.toml").write_text(to_toml(config))
    assert load(SuiteConfig, tmp_path / "again.toml") == config


# 5


def test_a_server_is_a_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    class Remote(Speaker):
        def __init__(self, *given: Any) -> None:
            asked.append(given)
            super().__init__(SCRIPTS["good"], 10**6)

        def complete(self, requests: Any, **options: Any) -> Any:
            """Without a tokenizer here, the server says what its tokens are."""
            answers = super().complete(requests, **options)
            pieces = [[tuple(map(TOKENIZER.token_bytes, each.ids)) for each in answer] for answer in answers]
            return [
                [
                    replace(each, pieces=own, reasoning_pieces=own[: len(each.reasoning_ids)])
                    for each, own in zip(answer, some, strict=True)
                ]
                for answer, some in zip(answers, pieces, strict=True)
            ]

    monkeypatch.setattr("zaya.engine.remote.RemoteCompleter", Remote)
    tree = {
        "tasks": {"a": {"env": "arithmetic", "difficulties": [0]}}, "problems": 4, "k": 2,
        "systems": {"far": {"url": "http://localhost:1/v1", "model": "big", "api_key_env": "A_KEY"}},
    }  # fmt: skip
    config = from_mapping(SuiteConfig, tree)
    monkeypatch.delenv("A_KEY", raising=False)
    with pytest.raises(UsageError, match="the key of the system far is not there: A_KEY is not set"):
        run_suite(config, tmp_path / "out", pytest.fail)
    monkeypatch.setenv("A_KEY", "secret")
    result = run_suite(config, tmp_path / "out", pytest.fail)
    assert asked == [("http://localhost:1/v1", "big", "secret", None)]
    assert result.stages[0].accuracy.num_values == 8
    assert "secret" not in "".join(file.read_text() for file in (tmp_path / "out").iterdir())
    thinking = from_mapping(SuiteConfig, {**tree, "ttc": {"x": {"rsa": SMALL}}})
    ways = run_suite(thinking, tmp_path / "other", pytest.fail).thinking
    assert [row.name for row in ways][-1] == "its vote at the end"
