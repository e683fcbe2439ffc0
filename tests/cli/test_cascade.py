"""zaya cascade, as far as the command goes: stages that do nothing, in the order of the recipe that is shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from zaya.cli import main
from zaya.eval.metrics import Estimate
from zaya.eval.scores import StageRow, SuiteResult, TaskScore
from zaya.eval.thinking import ThinkingRow
from zaya.rl import cascade
from zaya.rl.cascade import Cascade, Stage

RECIPE = str(Path(__file__).parents[2] / "recipes/micro/cascade.toml")
STAGES = ["corpus", "pretrain", "midtrain", "sft", "rl", "eval"]
ESTIMATE = Estimate(mean=0.5, sampling=0.01, problems=0.1, num_problems=160, num_values=320)
TASK = TaskScore(accuracy=ESTIMATE, k=16, tokens=9.0, truncated=0.0, levels={}, categories={})
RESULT = SuiteResult(
    stages=tuple(
        StageRow(name=name, accuracy=ESTIMATE, tasks={"arithmetic": TASK}, answer_tokens=9.0, gain=ESTIMATE, loss=1.0,
                 entropy_mean=0.99, entropy_min=0.98, tokens=2_400_000, seconds=1234.0)
        for name in STAGES[1:5]
    ),
    thinking=(ThinkingRow(name="Markovian RSA, 2 rounds", accuracy=ESTIMATE, tokens=2272.0, gain=ESTIMATE),),
)  # fmt: skip


def fake(upto: str | None, error: type[BaseException] | None = None) -> Callable[..., SuiteResult | None]:
    """Stages that do nothing, up to one in which Ctrl-C is pressed."""

    def run(given: Cascade, notice: object, heading: Callable[[Stage], None]) -> SuiteResult | None:
        for stage in given.stages:
            heading(stage)
            if stage.name == upto:
                if error is not None:
                    raise error
                return None
        return RESULT

    return run


@pytest.mark.parametrize("width", [80, 40])
def test_from_begin_to_end(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cascade, "run_cascade", fake(None))
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["cascade", RECIPE]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    headings = " ".join(out.split()).split("[")[1:7]
    assert headings[0].strip() == "1/6] corpus: zaya prepare, in runs/micro/corpus"
    assert headings[4].strip() == "5/6] rl: zaya rl, in runs/micro/rl, 0:00 so far"
    assert "finished in 0:00" in headings[5]
    assert "midtrain  1.000  50.0 ±10.0" in out if width == 80 else "midtrain " in out
    assert ("1,234" in out) == (width == 80)
    assert "make embed" in out
    assert main(["cascade", RECIPE, "--out", "elsewhere"]) == 0
    out = capsys.readouterr().out
    assert "elsewhere/shipped" in out
    assert "make embed" not in out, "it is another place that is put into the package"


@pytest.mark.parametrize(("stage", "error"), [("pretrain", None), ("eval", KeyboardInterrupt)])
def test_ctrl_c(
    stage: str, error: type[BaseException] | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cascade, "run_cascade", fake(stage, error))
    assert main(["cascade", RECIPE, "rl.run.steps=90", "--out", "a b", "seed=3"]) == 130
    said, command = capsys.readouterr().out.splitlines()[-2:]
    assert said == f"interrupted in {stage}; to go on:"
    assert command == f"  zaya cascade {RECIPE} rl.run.steps=90 seed=3 --out 'a b'"


def test_a_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["cascade", RECIPE, "rl.run.steps=97", "--out", "there", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines() if ": zaya " in line] == [f"# {name}" for name in STAGES]
    assert "# rl: zaya rl, in there/rl\n#   97 steps of 40 x 16 rollouts, from there/sft\n" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrian.run.seed=1"], "an override begins with the name of a stage: 'pretrian.run.seed=1'\nhint: did you"),
        (["rl.run.step=1"], "rl.toml: unknown key 'run.step'\nhint: did you mean run.steps?"),
    ],
)
def test_what_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cascade", RECIPE, *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_cascade_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cascade.toml"
    file.write_text('root = "r"\nship = "a"\n[stages.a]\nkind = "rl"\nrecipe = "rl.toml"\n')
    assert main(["cascade", str(file)]) == 2
    assert capsys.readouterr().err.startswith("error: no stage evaluates\n")
