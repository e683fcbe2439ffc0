"""zaya aggregate: what is written, what is said, and that a dry run writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zaya.cli import main
from zaya.cli.aggregate import bins
from zaya.data.sources import ConversationLines
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.demonstrate import demonstrate


@pytest.fixture
def rollouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = []
    for seed in range(8):
        problem = ARITHMETIC.sample(seed, 1)
        for number in range(5):
            shown = demonstrate(problem, slip=0.1, seed=number)
            is_right = ARITHMETIC.score(problem, shown.answer).correct
            rows.append(
                {
                    "query": json.loads(problem.to_json()), "id": number, "reasoning": shown.reasoning,
                    "answer": shown.answer, "correct": is_right,
                }
            )  # fmt: skip
    path = tmp_path / "rollouts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("held.jsonl").write_text(json.dumps({"query": rows[0]["query"]}) + "\n")
    return path


COMMAND = ["aggregate", "--rollouts", "rollouts.jsonl", "--field", "problem=query", "--tau", "20", "40"]


def test_prompts(rollouts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*COMMAND, "--dedupe", "held.jsonl", "--stratify", "--per-problem", "2", "--fan-in", "4"]
    assert main([*command, "--dry-run"]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["held.jsonl", "rollouts.jsonl"]
    dry = capsys.readouterr().out
    assert "13 prompts from 8 problems with 40 rollouts" in dry
    assert "problem is excluded      1\nprompt is there already  1" in dry
    assert main([*command, "--out", "prompts.jsonl"]) == 0
    assert capsys.readouterr().out == dry + "\nprompts.jsonl has them\n"
    rows = [json.loads(line) for line in Path("prompts.jsonl").read_text().splitlines()]
    assert len(rows) == 13
    assert {len(row["aggregation"]["rollouts"]) for row in rows} == {4}
    assert {row["problem"]["env"] for row in rows} == {"arithmetic"}
    before = Path("prompts.jsonl").read_bytes()
    assert main([*command, "--out", "prompts.jsonl"]) == 0
    assert Path("prompts.jsonl").read_bytes() == before
    assert main([*command, "--out", "prompts.jsonl", "--seed", "1"]) == 2
    assert "prompts.jsonl holds something else" in capsys.readouterr().err


def test_a_teacher(rollouts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model of this package, which was trained on such prompts."""
    command = [*COMMAND, "--out", "train.jsonl", "--teacher", "micro", "--max-tokens", "160", "--threads", "1"]
    assert main(command) == 0
    said = capsys.readouterr().out
    documents = list(ConversationLines(Path("train.jsonl")))
    assert f"{len(documents)} prompts from 8 problems" in said
    assert "solutions" in said
    assert len(documents) >= 6
    assert all("\\boxed{" in document.messages[-1]["content"] for document in documents)
    assert all(document.messages[-1]["reasoning_content"] for document in documents)


def test_a_teacher_that_is_interrupted(
    rollouts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zaya.ttc.teach.write_conversations", interrupted)
    assert main([*COMMAND, "--out", "train.jsonl", "--teacher", "micro"]) == 130
    err = capsys.readouterr().err
    assert err.endswith("what the teacher has solved is kept; the same command goes on from there\ninterrupted\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rollouts", "rollouts.jsonl", "--dry-run"], "rollouts.jsonl:1 has no problem"),
        (["--rollouts", "none.jsonl", "--dry-run"], "none.jsonl cannot be read"),
        ([*COMMAND[1:]], "there is nowhere to write"),
        ([*COMMAND[1:], "--dry-run", "--field", "problem"], "--field takes OURS=THEIRS: 'problem'"),
        ([*COMMAND[1:], "--dry-run", "--field", "probem=x"], "a rollout has no field 'probem'"),
        ([*COMMAND[1:], "--dry-run", "--fan-in", "0"], "--fan-in lists numbers of at least 1: [0]"),
        ([*COMMAND[1:], "--dry-run", "--cut", "3"], "--cut is a probability, from 0 to 1: 3.0"),
        ([*COMMAND[1:], "--dry-run", "--teacher", "http://localhost:1/v1"], "a server needs it"),
        ([*COMMAND[1:], "--dry-run", "--teacher", "http://a", "--teacher-model", "b"], "a server does not give its"),
        ([*COMMAND[1:], "--dry-run", "--tokenizer", "nowhere"], "nowhere"),
        (
            [*COMMAND[1:], "--out", "o.jsonl", "--fan-in", "9"],
            "nothing is left to write: problem has too few rollouts x8",
        ),
    ],
)
def test_what_is_wrong(words: list[str], message: str, rollouts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aggregate", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("o.jsonl").exists()


def test_bins() -> None:
    assert bins([1, 2, 3, 9]) == [(1, 1, 1), (2, 3, 2), (4, 7, 0), (8, 15, 1)]
