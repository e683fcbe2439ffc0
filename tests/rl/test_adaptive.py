"""Practice whose levels follow the policy, and how it finds where they begin.

1. Every group of a plain question moves its level by the rule, also one that teaches nothing; a prompt with attempts
   moves none, and a group without scores neither.
2. Problems come at the level that was reached, and the log says the levels.
3. Calibration finds the level at which a policy solves half, of every environment, within its budget; what nobody
   solves at its lowest level begins parked after three groups, what cannot be made is not asked for, and a scorer that
   always fails ends at the budget.
4. A calibration that goes on from its state, written down as JSON in between, is one that was never interrupted.
5. A run that calibrates and adapts is, interrupted at any place, the run that was not; it calibrates once.
6. A recipe says either levels or a schedule.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.rl.runs import policy, recipe
from tests.rl.scripted import TOKENIZER, Policy, Pool, config, question, says
from tests.rl.test_trainer import assert_same_run, by_ctrl_c, log_of
from zaya.config import from_mapping, to_mapping
from zaya.engine.scripted import Prompt as Asked
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import About, Problem
from zaya.envs.difficulty import Schedule
from zaya.errors import ConfigError
from zaya.rl import trainer
from zaya.rl.advantage import SolveRates
from zaya.rl.calibrate import Calibrator, summary
from zaya.rl.recipe import RlConfig
from zaya.rl.rollout import Curriculum
from zaya.rl.trainer import collect, train
from zaya.rl.types import Start

Script = Callable[[Asked, int, int], str]


def level_of(prompt: Asked) -> int:
    """Of a question about a sum; also of one with attempts."""
    assert not isinstance(prompt, str)
    line = next(line for line in prompt[-1]["content"].split("\n") if line.startswith("What is "))
    return line.count(" + ") + line.count(" - ") - 1


def solves_up_to(level: int) -> Script:
    return lambda prompt, seed, index: says(question(prompt).meta["answer"] + (level_of(prompt) > level))


def adaptive(**changes: Any) -> RlConfig:
    return config(**{"tasks": {"sums": {"env": "arithmetic"}}, "schedule": {}, **changes})


# 1 and 2


def step_of(curriculum: Curriculum, script: Script, settings: RlConfig, step: int = 0) -> trainer.Sampled:
    return collect(settings, curriculum, Policy(script), Pool(), SolveRates(), step)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked_shapes")
def test_levels_climb_to_where_it_fails() -> None:
    settings = adaptive(aggregation={"share": 0.0})
    curriculum = Curriculum(settings, Pool(), TOKENIZER)
    levels = []
    for step in range(6):
        found = step_of(curriculum, solves_up_to(2), settings, step)
        assert found.informative == 0  # all right, or all wrong: nothing is learned, and the level still moves
        levels.append(curriculum.levels())
    assert [line["level/arithmetic"] for line in levels] == [1, 2, 3, 2, 3, 2]
    assert {problem.difficulty for problem in curriculum.mixture.next(5)} == {2}
    assert levels[0] == {"level/arithmetic": 1, "parked": 0}


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("right", "level"), [(0, 1), (1, 2), (2, 2), (3, 3), (4, 3)])
def test_the_rule_on_paper(right: int, level: int) -> None:
    """Of four: none is a level down, three are more than 0.7."""
    settings = adaptive(aggregation={"share": 0.0})
    curriculum = Curriculum(settings, Pool(), TOKENIZER)
    curriculum.begin({"arithmetic": Start(2, 0, 0.0, 0.0, False)})
    step_of(curriculum, lambda prompt, _, index: says(question(prompt).meta["answer"] + (index >= right)), settings)
    assert curriculum.levels()["level/arithmetic"] == level


@pytest.mark.usefixtures("unchecked_shapes")
def test_attempts_and_failed_scorers_move_nothing() -> None:
    def script(prompt: Asked, seed: int, index: int) -> str:
        assert not isinstance(prompt, str)
        shows_attempts = "Attempt " in prompt[-1]["content"]
        return says(question(prompt).meta["answer"] + (index > 1 and not shows_attempts), f"{index}")

    settings = adaptive()
    curriculum = Curriculum(settings, Pool(), TOKENIZER)
    step_of(curriculum, script, settings)  # half is right: the level stays, and attempts are kept
    found = step_of(curriculum, script, settings, 1)
    assert [group.solve_rate for group in found.groups] == [1, 1, 0.5, 0.5]
    assert curriculum.levels()["level/arithmetic"] == 0
    state = curriculum.state()["problems"]["schedule"]
    assert (state["clock"], state["standings"]["arithmetic"]["groups"]) == (6, 6)
    step_of(curriculum, lambda *_: says("break"), adaptive(aggregation={"share": 0.0}), 2)
    state = curriculum.state()["problems"]["schedule"]["standings"]["arithmetic"]
    assert (state["unsolved"], state["groups"]) == (0, 10 - 2)


# 3 and 4


def found_by(script: Script, pool: Pool | None = None, **changes: Any) -> tuple[Calibrator, list[int]]:
    settings = adaptive(**{"calibration": {}, "sampling": {"group_size": 16}, **changes})
    search = Calibrator(settings, pool or Pool(), lambda problem: True, 268)
    asked = []
    while not search.is_done:
        groups, _ = search.advance(Policy(script))
        asked.append(groups)
    return search, asked


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("level", [0, 3, 12, 40])
def test_it_begins_where_half_is_solved(level: int) -> None:
    search, asked = found_by(solves_up_to(level))
    start = search.starts["arithmetic"]
    assert abs(start.level - (level + 0.5)) <= 1.5
    assert start.groups == sum(asked) <= 24
    assert not start.is_parked
    assert summary(search.starts) == f"levels to begin at, from {start.groups} groups: arithmetic {start.level}"


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_nobody_solves_begins_parked() -> None:
    search, _ = found_by(lambda *_: says("no idea"))
    start = search.starts["arithmetic"]
    assert (start.level, start.solve_rate, start.is_parked) == (0, 0.0, True)
    assert start.groups < 24
    curriculum = Curriculum(adaptive(), Pool(), TOKENIZER)
    curriculum.begin(search.starts)
    assert curriculum.levels() == {"level/arithmetic": 0, "parked": 1}
    assert "nobody solves arithmetic" in summary(search.starts)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_scorer_that_always_fails_ends_at_the_budget() -> None:
    search, asked = found_by(lambda *_: says("break"), calibration={"budget": 5})
    assert asked == [1] * 5
    assert (search.starts["arithmetic"].groups, search.starts["arithmetic"].solve_rate) == (5, 0.0)


class Short(Pool):
    """Makes problems up to a level, and keeps what it was asked for."""

    def __init__(self, highest: int) -> None:
        super().__init__()
        self.highest = highest
        self.failed: list[int] = []

    def sample(self, items: Any) -> list[Problem | None]:
        self.failed += [level for _, _, level in items if level > self.highest]
        return [ARITHMETIC.sample(seed, level) if level <= self.highest else None for _, seed, level in items]


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_cannot_be_made_is_not_asked_for() -> None:
    pool = Short(5)
    search, _ = found_by(solves_up_to(100), pool)
    assert search.starts["arithmetic"].level in (4, 5)
    assert len(pool.failed) <= 3 * 9  # halves the way each time, three items at each level
    none = Short(-1)
    search, asked = found_by(solves_up_to(100), none)
    assert sum(asked) == 0
    assert search.starts["arithmetic"] == Start(0, 0, 0.0, search.starts["arithmetic"].spread, True)


@pytest.mark.usefixtures("unchecked_shapes")
def test_an_interrupted_calibration_is_the_one_that_was_not() -> None:
    whole, asked = found_by(solves_up_to(7))
    settings = adaptive(calibration={}, sampling={"group_size": 16})
    parts = Calibrator(settings, Pool(), lambda problem: True, 268)
    for _ in asked:
        assert not parts.is_done
        parts.advance(Policy(solves_up_to(7)))
        state = json.loads(json.dumps(parts.state()))
        parts = Calibrator(settings, Pool(), lambda problem: True, 268)
        parts.load_state(state)
    assert parts.is_done
    assert parts.starts == whole.starts


# 5


@pytest.fixture(scope="module")
def practice(tmp_path_factory: pytest.TempPathFactory) -> RlConfig:
    init = policy(tmp_path_factory.mktemp("init") / "policy")
    tasks = {"lengths": {"env": "tests.rl.tasks:LENGTHS"}, "sums": {"env": "arithmetic"}}
    return recipe(init, tasks=tasks, schedule={"parked_groups": 4}, calibration={"budget": 6, "certain": 0.0})


@pytest.fixture(scope="module")
def whole(practice: RlConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole") / "run"
    notices: list[str] = []
    assert train(practice, directory, notices.append).finished
    assert len(notices) == 1
    assert notices[0].startswith("levels to begin at, from ")
    return directory


def test_what_the_log_says(whole: Path) -> None:
    first, *steps = log_of(whole)
    assert first["step"] == 0
    assert first["calibration_rate/arithmetic"] == 0
    assert 3 <= first["calibration_groups/arithmetic"] < 6  # nobody solves it: given up before the budget
    assert first["calibration_groups/tests.rl.tasks:LENGTHS"] == 6
    assert first["tokens"] > 0
    assert first["parked"] == 1
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert steps[0]["tokens"] > first["tokens"]
    names = {"level/arithmetic", "level/tests.rl.tasks:LENGTHS", "parked"}
    assert all(names <= line.keys() for line in steps)
    assert {tuple(line[name] for name in sorted(names)) for line in steps} != {(0, 0, 1)}  # something moved


def during_calibration(config: RlConfig, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = count(1), Calibrator.advance

    def advance(self: Calibrator, completer: Any) -> Any:
        if next(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return original(self, completer)

    with monkeypatch.context() as patch:
        patch.setattr(Calibrator, "advance", advance)
        at = train(config, directory, pytest.fail)
    assert (at.finished, at.step) == (False, 0)


def before_the_first_step(config: RlConfig, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **settings: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "update", fails)
        with pytest.raises(KeyboardInterrupt):
            train(config, directory, lambda _: None)


def later(config: RlConfig, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pytest, "fail", lambda _: None)  # by_ctrl_c wants to hear nothing, and calibration says something
        by_ctrl_c(config, directory, monkeypatch)


@pytest.mark.parametrize("interrupt", [during_calibration, before_the_first_step, later])
def test_an_interrupted_run_is_the_run_that_was_not(
    practice: RlConfig, whole: Path, interrupt: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(practice, tmp_path / "run", monkeypatch)
    calls, original = [], Calibrator.advance
    monkeypatch.setattr(Calibrator, "advance", lambda *args: calls.append(1) or original(*args))
    assert train(practice, tmp_path / "run", lambda _: None).finished
    assert bool(calls) == (interrupt is during_calibration)
    assert_same_run(whole, tmp_path / "run")


# 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"a": {"env": "arithmetic", "difficulties": [1]}}, "schedule": {}}, "tasks.a has difficulties or"),
        ({"tasks": {"a": {"env": "arithmetic", "weight": 2.0}}, "schedule": {}}, "tasks.a has difficulties or"),
        ({"tasks": {"a": {"env": "x"}, "b": {"env": "x"}}, "schedule": {}}, "tasks.a and tasks.b are one environment"),
        ({"tasks": {"a": {"env": "arithmetic"}}, "calibration": {}}, "none of them moves"),
    ],
)
def test_a_recipe_says_levels_or_a_schedule(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(RlConfig, to_mapping(config()) | changes)


def test_begin_of_a_schedule() -> None:
    schedule = Schedule({"a": About("x", "x", 1, 4), "b": About("x", "x")}, adaptive().schedule, 0)  # type: ignore[arg-type]
    schedule.begin("a", 9)
    schedule.begin("b", 0, is_parked=True)
    assert schedule.levels() == {"a": 4, "b": 0}
    assert (schedule.is_parked("a"), schedule.is_parked("b")) == (False, True)
    assert {schedule.next()[0] for _ in range(20)} == {"a"}
