"""The pool against tasks that misbehave, and against its own end.

1. Items come back in order, from every number of workers, as the environment itself makes and scores them.
2. Too much time or memory costs the item alone, as ANSWER_LIMIT or as no problem, and its worker: another takes over.
3. A scorer that raises or gives back what is no score is INFRA. So is a worker that dies, but only when it dies again.
4. What tasks print or read does not reach the protocol, and answers may be any text.
5. An environment that cannot be had is the user's to mend, and says how.
6. No worker outlives its pool: not when it is closed, forgotten or interrupted, not when its parent is killed.
7. The two environments that run in this process make the same problems in a worker.
8. Failures are counted, by environment and kind.
9. A problem that is too large is none, and of an answer that is very long the beginning comes back.
10. A loose reading is an item of its own, where a task has one: no score changes by it, and one that takes too long is
    no.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.envs.tasks import LENIENT, SCRIPTED
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Problem, Score, Status
from zaya.envs.pool import TaskPool
from zaya.envs.worker import LONGEST_ANSWER
from zaya.errors import UsageError

ROOT = Path(__file__).parents[2]
PROBLEM = Problem(SCRIPTED.name, "item 0", {"read": ""}, 0, 0)
FINE = Score(1.0, True, answer="fine")


def without_process(score: Score) -> Score:
    return Score(score.reward, score.correct, score.status, score.answer, "" if score.correct else score.detail)


def child_ids() -> set[int]:
    return {process.pid for process in psutil.Process().children()}


@pytest.mark.parametrize("workers", [1, 3])
def test_order_and_content(workers: int) -> None:
    items = [("arithmetic", seed, seed % 4) for seed in range(700)]
    with TaskPool(workers) as pool:
        problems = pool.sample(items)
        assert problems == [ARITHMETIC.sample(seed, difficulty) for _, seed, difficulty in items]
        made = [problem for problem in problems if problem is not None]
        texts = [f"\\boxed{{{i if i % 3 else problem.meta['answer']}}}" for i, problem in enumerate(made)]
        pairs = list(zip(made, texts, strict=True))
        assert pool.score(pairs) == [ARITHMETIC.score(problem, text) for problem, text in pairs]
        assert pool.sample([]) == []
        assert pool.score([]) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("text", "status", "detail"),
    [
        ("loop", Status.ANSWER_LIMIT, "took more than 1 s"),
        ("memory", Status.ANSWER_LIMIT, "took more memory than allowed"),
        ("raise", Status.INFRA, "RuntimeError: cannot judge"),
        ("nan", Status.INFRA, "ValueError: not a score: Score(reward=nan, correct=False"),
        ("nothing", Status.INFRA, "ValueError: not a score: None"),
        ("die", Status.INFRA, "the worker ended with status 7"),
        ("segfault", Status.INFRA, "the worker ended with status -11"),
    ],
)
def test_a_bad_answer_costs_its_own_score(text: str, status: Status, detail: str, workers: int) -> None:
    texts = ["fine"] * 30
    texts[4] = texts[20] = text
    with TaskPool(workers, score_timeout_s=1) as pool:
        scores = pool.score([(PROBLEM, text) for text in texts])
        assert detail in pool.last_failure
    for i, score in enumerate(scores):
        if i in (4, 20):
            assert (score.reward, score.correct, score.status, score.answer) == (0, False, status, None)
            assert detail in score.detail
        else:
            assert without_process(score) == FINE


@pytest.mark.parametrize(("text", "is_replaced"), [("loop", True), ("memory", True), ("die", True), ("raise", False)])
def test_workers_are_replaced_when_they_have_to_be(text: str, is_replaced: bool) -> None:
    with TaskPool(score_timeout_s=1) as pool:
        before, bad, after = (pool.score([(PROBLEM, t)])[0] for t in ("fine", text, "fine"))
        assert bad.reward == 0
        assert (before.detail != after.detail) == is_replaced
        assert psutil.pid_exists(int(before.detail)) != is_replaced
        assert psutil.pid_exists(int(after.detail))


def test_a_worker_that_dies_once_is_forgiven(tmp_path: Path) -> None:
    with TaskPool() as pool:
        texts = ["fine", f"die once {tmp_path / 'mark'}", "fine"]
        assert [score.reward for score in pool.score([(PROBLEM, text) for text in texts])] == [1, 1, 1]
        assert (tmp_path / "mark").exists()


def test_a_worker_that_died_while_idle_is_replaced() -> None:
    with TaskPool() as pool:
        (score,) = pool.score([(PROBLEM, "fine")])
        worker = psutil.Process(int(score.detail))
        worker.kill()
        assert pool.score([(PROBLEM, "fine")] * 3)[2].reward == 1


def test_problems_that_are_not_made() -> None:
    difficulties = [0, 1, 2, 3, 4, 5, 0]
    with TaskPool(sample_timeout_s=1) as pool:
        problems = pool.sample([(SCRIPTED.name, 9, difficulty) for difficulty in difficulties])
    # the input of a task is empty: it did not take a byte of the requests
    assert problems == [Problem(SCRIPTED.name, "item 9", {"read": ""}, 0, 9) if d == 0 else None for d in difficulties]


def test_failures_are_counted_by_kind() -> None:
    with TaskPool(2, score_timeout_s=1, sample_timeout_s=1) as pool:
        pool.score([(PROBLEM, text) for text in ("fine", "raise", "loop", "nan", "memory", "die", "fine")])
        pool.sample([(SCRIPTED.name, 9, difficulty) for difficulty in (0, 1, 2, 3, 6)] + [("arithmetic", 1, 0)])
    kinds = {"raised": 2 + 2, "time": 1 + 1, "memory": 1, "died": 1}
    assert pool.failures == {(SCRIPTED.name, kind): count for kind, count in kinds.items()}


def test_what_is_sent_is_bounded() -> None:
    with TaskPool() as pool:
        assert pool.sample([(SCRIPTED.name, 9, 6)]) == [None]
        assert "a problem of 2,0" in pool.last_failure
        (score,) = pool.score([(PROBLEM, "fine" * 100_000)])
        assert score.answer == ("fine" * 100_000)[:LONGEST_ANSWER]


def test_any_text_is_an_answer() -> None:
    texts = ["", "\n", '"\\', "\x00\x1b", "ß ∑ 𝔸", "\ud800", "x" * 1_000_000, "{}[]"]
    with TaskPool() as pool:
        assert [score.answer for score in pool.score([(PROBLEM, text) for text in texts])] == [
            text[:LONGEST_ANSWER] for text in texts
        ]


def test_a_problem_of_another_version_is_not_scored() -> None:
    problem = ARITHMETIC.sample(0, 0)
    other = Problem(problem.env, problem.prompt, problem.meta, 0, 0, version=9)
    with TaskPool() as pool:
        (score,) = pool.score([(other, f"\\boxed{{{problem.meta['answer']}}}")])
    assert score.status is Status.INFRA
    assert "as version 9 and is 1" in score.detail


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arithmetics", "there is no environment 'arithmetics'\nhint: did you mean arithmetic?"),
        ("tests.envs.nowhere:TASK", "cannot be imported: No module named 'tests.envs.nowhere'"),
        ("tests.envs.tasks:NOTHING", "cannot be imported: module 'tests.envs.tasks' has no attribute 'NOTHING'"),
        ("tests.envs.tasks:NAMELESS", "it has no name, version, about, sample, score, reference"),
        ("tests.envs.tasks:RENAMED", "set its attribute name to 'tests.envs.tasks:RENAMED'"),
        ("tests.envs.broken_tasks:TASK", "cannot be imported: ZeroDivisionError"),
        ("tests.envs.deadly_tasks:TASK", "could not be loaded: a worker ended with status 7"),
    ],
)
def test_environments_that_cannot_be_had(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_tasks.py").write_text("1 / 0\n")
    (tmp_path / "deadly_tasks.py").write_text("import os\nos._exit(7)\n")
    if "broken" in name or "deadly" in name:
        name = name.removeprefix("tests.envs.")
    with TaskPool() as pool:
        with pytest.raises(UsageError) as caught:
            pool.sample([("arithmetic", 0, 0), (name, 0, 0)])
        assert message in str(caught.value)
        # and the pool goes on
        assert pool.sample([("arithmetic", 0, 0)]) == [ARITHMETIC.sample(0, 0)]


def test_impossible_pools_and_items() -> None:
    with pytest.raises(UsageError, match="at least 1 worker: 0"):
        TaskPool(0)
    with pytest.raises(UsageError, match="timeouts must be above 0"):
        TaskPool(score_timeout_s=0)
    with pytest.raises(UsageError, match="difficulty must not be negative: -1"):
        TaskPool().sample([("arithmetic", 0, -1)])


def test_workers_start_when_needed_and_end_with_the_pool() -> None:
    before = child_ids()
    with TaskPool(2) as pool:
        assert child_ids() == before
        pool.sample([("arithmetic", 0, 0)])
        assert len(child_ids() - before) == 1  # one item needs no more
        pool.sample([("arithmetic", seed, 0) for seed in range(100)])
        assert len(child_ids() - before) == 2
    assert child_ids() == before
    forgotten = TaskPool(2)
    forgotten.sample([("arithmetic", seed, 0) for seed in range(100)])
    del forgotten
    assert child_ids() == before


def run_parent(code: str) -> subprocess.CompletedProcess[str]:
    """A parent that uses a pool. Returns when nobody holds its standard error any more, and so no worker lives."""
    head = "from tests.envs.test_pool import *\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, "-c", head + code]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, env=environment, cwd=ROOT, start_new_session=True
    )


def test_a_worker_in_a_loop_ends_with_its_killed_parent() -> None:
    done = run_parent("TaskPool(score_timeout_s=1000).score([(PROBLEM, 'orphan')])")
    assert done.returncode == -9


def test_an_idle_worker_ends_with_its_killed_parent() -> None:
    code = "pool = TaskPool()\npool.score([(PROBLEM, 'fine')])\nos.kill(os.getpid(), 9)"
    assert run_parent(code).returncode == -9


def test_an_interrupted_pool_can_be_used_again() -> None:
    done = run_parent(
        # a shell starts what runs in its background with Ctrl-C ignored, and children inherit that
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "pool = TaskPool(score_timeout_s=1000)\n"
        "try:\n"
        "    pool.score([(PROBLEM, 'fine'), (PROBLEM, 'interrupt'), (PROBLEM, 'fine')])\n"
        "except KeyboardInterrupt:\n"
        "    print(len(child_ids()), pool.score([(PROBLEM, 'fine')])[0].reward)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 1.0\n", "")


def test_a_fork_leaves_the_workers_alone() -> None:
    code = (
        "pool = TaskPool()\n"
        "first = pool.score([(PROBLEM, 'fine')])\n"
        "if os.fork() == 0:\n"
        "    sys.exit()\n"
        "os.wait()\n"
        "print(pool.score([(PROBLEM, 'fine')]) == first)\n"
    )
    assert run_parent(code).stdout == "True\n"


# 10


def test_a_loose_reading_is_an_item_of_its_own() -> None:
    lenient = replace(PROBLEM, env=LENIENT.name)
    items = [(lenient, text) for text in ("right", "loose", "wrong", "loop", "raise")]
    items.insert(1, (PROBLEM, "right"))  # of a task with one reading
    with TaskPool(score_timeout_s=1.0) as pool:
        assert pool.loosely_right(items) == [True, None, True, False, False, None]
        judged = pool.score([item for item in items if item[1] != "loop"])
        assert [(score.correct, score.status) for score in judged] == [
            (True, Status.OK), (True, Status.OK), *[(False, Status.OK)] * 3
        ]  # fmt: skip
        assert pool.loosely_right([(replace(lenient, version=2), "right")]) == [None]
        assert pool.loosely_right([]) == []
