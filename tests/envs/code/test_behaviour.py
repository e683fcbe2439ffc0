"""What programs do, as votes. All of it runs in the sandbox.

1. Programs of equal outputs have one signature, however they are written; numbers are compared as the task does.
2. A text without a program, and a program that is right on no example, have none; one that fails on some has one.
3. A text is run once. What never ends costs its limit, and when the time of all is used up nothing more is run.
4. Examples are read from the prompts of the tasks; `select` and `solve` choose by them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from zaya.engine.scripted import ScriptedCompleter
from zaya.envs.code import programs
from zaya.envs.code.behaviour import Behaviour, examples
from zaya.errors import UsageError
from zaya.text import byte_tokenizer
from zaya.ttc.rsa import RsaConfig, solve
from zaya.ttc.types import Candidate
from zaya.ttc.vote import select

EXAMPLES: list[tuple[Any, Any]] = [({"a": 1, "b": 2}, 3), ({"a": 2, "b": 2}, 4), ({"a": -1, "b": 5}, 4)]
PLUS = "def main_solution(a, b):\n    return a + b"
LOOP = "def main_solution(a, b):\n    for _ in range(b):\n        a += 1\n    return a"
CLOSE = "def main_solution(a, b):\n    return a + b + 1e-9"
TIMES = "def main_solution(a, b):\n    return a * b"  # right on the second example alone
POWER = "def main_solution(b, a):\n    return a ** 2 if a == b else a * b"  # the same
RAISES = "def main_solution(a, b):\n    return a + b if a > 0 else 1 // 0"
EXITS = "def main_solution(a, b):\n    if a < 0: raise KeyError(a)\n    return b + a"
WRONG = "def main_solution(a, b):\n    return 'sum'"


@pytest.fixture(autouse=True, scope="module")
def _sandbox() -> Iterator[None]:
    try:
        programs.sandbox().run("pass")
    except UsageError as error:
        pytest.skip(error.message)
    yield
    programs.sandbox().close()


def said(program: str) -> str:
    return f"This is it:\n\n```python\n{program}\n```\n"


def test_equal_outputs_are_one() -> None:
    behaviour = Behaviour(EXAMPLES)
    plus, times, raises = (behaviour(said(program)) for program in (PLUS, TIMES, RAISES))
    assert len({plus, times, raises, None}) == 4
    assert behaviour(said(LOOP)) == behaviour(said(CLOSE)) == plus
    assert behaviour(said(POWER)) == times
    assert behaviour(said(EXITS)) == raises  # however it fails


def test_what_has_none() -> None:
    behaviour = Behaviour(EXAMPLES)
    texts = ["a + b", "", said(WRONG), said("def main_solution(a): return a"), said("def other(a, b): return a + b")]
    texts += [said("def main_solution("), said("import os\nos._exit(0)"), said(PLUS).removesuffix("```\n")]
    texts += [said(PLUS + "\n#" + "x" * 20_000), f"```json\n{PLUS}\n```"]
    texts += [said("def main_solution(a, b):\n    x = []\n    for _ in range(900): x = [x]\n    return x")]
    assert [behaviour(text) for text in texts] == [None] * len(texts)


def test_a_text_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    run = programs.run
    monkeypatch.setattr(
        programs, "run", lambda source, *rest, **more: runs.append(source) or run(source, *rest, **more)
    )
    behaviour = Behaviour(EXAMPLES)
    first = behaviour(said(PLUS))
    assert behaviour("In other words:\n" + said(PLUS)) == first
    assert behaviour(said(WRONG)) is None is behaviour(said(WRONG))
    assert len(runs) == 2


def test_time_is_bounded() -> None:
    begun = time.monotonic()
    endless = "def main_solution(a, b):\n    while a == 1: pass\n    return a + b"
    behaviour = Behaviour(EXAMPLES, limit_s=0.3, total_s=0.4)
    assert behaviour(said(endless)) is not None  # right on the others
    assert 0 < behaviour.left_s < 0.2
    assert behaviour(said(endless + "  # more")) is not None  # begun while there was time
    assert behaviour.left_s < 0
    assert behaviour(said(PLUS)) is None
    assert behaviour(said(endless)) is not None  # known
    assert time.monotonic() - begun < 20


def test_a_sandbox_that_fails_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from zaya.envs.sandbox.runner import SandboxError

    def fails(*_: Any, **__: Any) -> Any:
        raise SandboxError("no more processes")

    behaviour = Behaviour(EXAMPLES)
    with monkeypatch.context() as patch:
        patch.setattr(programs, "run", fails)
        assert behaviour(said(PLUS)) is None
    assert behaviour(said(PLUS)) is not None  # tried again


PROMPT = (
    "Add.\n\nInput:\n  a, b\n\nInput: see below\nReturns: a sum\n\nExamples:\n\n"
    'Input: {"a": 1, "b": 2}\nReturns: 3\n\nInput: {"a": 2, "b": 2}\nReturns: 4\n\nWrite a Python function.'
)


def test_examples_of_a_prompt() -> None:
    assert examples(PROMPT) == EXAMPLES[:2]
    with pytest.raises(UsageError, match="no example input"):
        Behaviour(examples("Add two numbers."))


def test_a_problem_of_the_task() -> None:
    pytest.importorskip("reasoning_gym", reason="needs the extra envs")
    from zaya.envs.code.tasks import TASKS

    task = TASKS["code/reconstruct"]
    problem = next(found for seed in range(20) if (found := task.sample(seed, 0)) is not None)
    behaviour = Behaviour.of(problem)
    assert len(behaviour.examples) == 4
    reference = task.reference(problem)
    assert reference is not None
    found = behaviour(said(reference))
    assert found is not None
    assert behaviour(said(f"# the same\n{reference}")) == found
    assert behaviour(said(WRONG)) is None


def candidate(worker: int, program: str) -> Candidate:
    return Candidate(
        worker=worker, text=said(program), reasoning="", answer=None, is_finished=True, prompt_tokens=1,
        generated_tokens=10,
    )  # fmt: skip


def test_who_is_chosen() -> None:
    shown = [candidate(i, program) for i, program in enumerate([TIMES, PLUS, WRONG, WRONG, WRONG, LOOP, RAISES, CLOSE])]
    choice = select(shown, "behaviour", 0, behaviour=Behaviour(EXAMPLES))
    assert (choice.candidate, choice.how) == (shown[1], "behaviour")


def test_solve_by_behaviour() -> None:
    """Two of six rollouts write the same in different words; others nothing that runs, or something of their own."""
    turns = iter([TIMES, WRONG, PLUS, "def", LOOP, RAISES])
    completer = ScriptedCompleter(byte_tokenizer(), lambda *_: f"hm\n</think>\n\n{said(next(turns))}")
    config = RsaConfig(
        population=6, fan_in=2, rounds=0, think_budget=400, tail_tokens=100, final_budget=400, answer_reserve=100
    )
    solution = solve(
        PROMPT, completer, completer.tokenizer, config=config, selection="behaviour", behaviour=Behaviour(EXAMPLES)
    )
    assert solution.selection == "behaviour"
    assert solution.text.strip() in (said(PLUS).strip(), said(LOOP).strip())
