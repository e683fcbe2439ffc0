"""zaya reward, and the pairs of zaya prepare.

1. A dry run says what would be and writes nothing; a run says how it went on what it has not seen, goes on after
   Ctrl-C, and what it made scores the answers of a file, in its order, with what else the lines hold.
2. Lines without an answer are named, and so are recipes and models that are none.
3. A pair of `zaya prepare` is a right solution and a wrong one of one problem; without slips there are none.
"""

from __future__ import annotations

import json
import signal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.train.stages import SHAPE
from zaya.cli import main
from zaya.config import load, to_toml
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Problem
from zaya.errors import ConfigError
from zaya.model.config import preset
from zaya.model.layouts import save
from zaya.model.transformer import ZayaModel
from zaya.text import byte_tokenizer
from zaya.train import reward
from zaya.train.optim import OptimConfig
from zaya.train.recipe import RunConfig
from zaya.train.reward import RewardConfig, RewardModel, read_pairs
from zaya.train.schedule import ScheduleConfig
from zaya.ttc.corpus import FileConfig
from zaya.ttc.examples import pair

WORDS = ("tea", "sea", "sun", "map", "owl", "fig")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose pairs prefer an exclamation mark, in the directory the command is run in."""
    monkeypatch.chdir(tmp_path)
    byte_tokenizer().save("tok")
    save(ZayaModel(preset("micro", **SHAPE), precision="float32", seed=3), "init", text_from="tok")
    pairs = [
        {"prompt": f"{one} or {other}?", "chosen": f"{said}!", "rejected": f"{said}."}
        for one in WORDS
        for other in WORDS
        for said in (one, other)
        if one != other
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in pairs))
    config = RewardConfig(
        init="init",
        pairs="pairs.jsonl",
        schedule=ScheduleConfig(total_tokens=14 * 600, warmup_tokens=600),
        context=64,
        pairs_per_step=8,
        held_out=0.2,
        run=RunConfig(threads=1, micro_tokens=256, eval_every=1000, save_every_s=1e9),
        optim=OptimConfig(lr=1e-2),
    )
    Path("recipe.toml").write_text(to_toml(config))
    return Path("recipe.toml")


def files() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(".").rglob("*")}


# 1


def test_from_pairs_to_scores(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = files()
    words = ["reward", "train", "--config", str(file), "--out", "run"]
    assert main([*words, "optim.lr=0.5", "--dry-run"]) == 0
    assert files() == before
    said = capsys.readouterr().out
    assert "# run: run, from init\n" in said
    assert "# a step: 8 pairs of pairs.jsonl, answers of up to 64 tokens; 8,400 tokens in all\n" in said
    Path("again.toml").write_text(said)
    assert load(RewardConfig, "again.toml") == load(RewardConfig, file, ["optim.lr=0.5"])

    calls, original = count(1), reward.train_step

    def train_step(*args: Any, **settings: Any) -> Any:
        if next(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(reward, "train_step", train_step)
        assert main(words) == 130
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[1:] == words
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "resuming run after step 3" in captured.err
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_accuracy"] > 0.9
    held_out = reward.load_pairs(load(RewardConfig, file), byte_tokenizer(), pytest.fail)[1]
    assert (
        f"held out: {last['val_accuracy']:.1%} of {len(held_out)} pairs in the right order (a coin: 50 %), "
        f"margin {last['val_margin']:.2f}, loss {last['val_loss']:.3f} (a coin: 0.693)\n"
    ) in captured.out

    question = {"role": "user", "content": "map or tea?"}
    answers = [
        {"prompt": "map or tea?", "answer": "tea!", "id": 7},
        {"prompt": [question], "answer": "tea."},
        {"messages": [question, {"role": "assistant", "content": "tea!"}]},
    ]
    Path("answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answers))
    assert main(["reward", "score", "run/model", "answers.jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{k: v for k, v in row.items() if k not in ("score", "reward")} for row in rows] == answers
    assert rows[0]["score"] == rows[2]["score"] > rows[1]["score"]
    trained = RewardModel.load("run/model")
    conversation = [question, {"role": "assistant", "content": "tea!"}]
    assert [rows[0]["score"]] == trained.scores([conversation])
    assert [rows[0]["reward"]] == trained.rewards([conversation])


# 2


def test_what_is_wrong_is_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("answers.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "a"}\n')
    assert main(["reward", "score", "init", "answers.jsonl"]) == 2
    assert "error: answers.jsonl:2 holds no answer to score\n" in capsys.readouterr().err
    Path("answers.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    assert main(["reward", "score", "init", "answers.jsonl"]) == 2
    assert "error: init is no reward model" in capsys.readouterr().err
    assert main(["reward", "train", "--config", str(file), "pair=x"]) == 2
    assert capsys.readouterr().err == "error: unknown key 'pair'\nhint: did you mean pairs?\n"


# 3


def test_pairs_of_solutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [ARITHMETIC.sample(seed, 2) for seed in range(50)]
    for problem in problems:
        made = pair(problem, slip=0.1)
        assert made is not None
        (question, right), (same, wrong) = made
        assert question == same == {"role": "user", "content": problem.prompt}
        assert ARITHMETIC.score(problem, right["content"]).correct
        assert not ARITHMETIC.score(problem, wrong["content"]).correct
        assert right["reasoning_content"] != wrong["reasoning_content"]
    assert pair(problems[0], slip=0.0) is None
    with pytest.raises(ConfigError, match="slip is 0: nobody errs"):
        FileConfig(kind="pair", problems=3)


def test_prepared_pairs_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.toml").write_text(
        'vocabulary = 300\nlibrary_share = 0.01\nlibrary_exclude = ["[!j]*"]\n[tasks.sums]\nenv = "arithmetic"\n'
        '[files.pairs]\nkind = "pair"\nproblems = 12\nslip = 0.2\n'
    )
    assert main(["prepare", "--config", "pairs.toml", "--out", "made"]) == 0
    read = list(read_pairs(Path("made/pairs.jsonl")))
    assert len(read) == 12
    for _, (question, right), (same, wrong) in read:
        assert question == same
        a, op, b = question["content"].split("\n")[0].removeprefix("What is ").removesuffix("?").split()
        problem = Problem("arithmetic", "", {"answer": int(a) + int(b) * (1 if op == "+" else -1)}, 0, 0)
        assert ARITHMETIC.score(problem, right["content"]).correct
        assert not ARITHMETIC.score(problem, wrong["content"]).correct
