"""zaya solve, with a model that says what a script says.

1. The answer goes to standard output; a line for every round, when it is over, and what it cost, to standard error.
2. Without a model the embedded one is asked, with the preset micro and the instruction of its training.
3. What cannot be done is said in one error, before anything is sampled.
4. No line about a round is wider than the terminal, and what a model says in it cannot steer the terminal.
"""

from __future__ import annotations

import re
import sys
from itertools import count

import pytest

from tests.cli.fakes import EMBEDDED, TOKENIZER, Scripted, Terminal
from zaya.cli import main
from zaya.cli.solve import told
from zaya.engine.scripted import Prompt, Script, ScriptedCompleter
from zaya.envs.answers import INSTRUCTION
from zaya.text import render
from zaya.ttc.prompts import aggregation_messages
from zaya.ttc.types import Candidate, Round


def install(monkeypatch: pytest.MonkeyPatch, script: Script, max_positions: int = 4096) -> tuple[Scripted, list]:
    """What is loaded, and the completers that were made."""
    fake, made = Scripted("", max_positions=max_positions).install(monkeypatch), []

    def engine(model: object, tokenizer: object, **options: object) -> ScriptedCompleter:
        fake.made = options
        made.append(ScriptedCompleter(TOKENIZER, script, max_positions))
        return made[-1]

    monkeypatch.setattr("zaya.engine.engine.Engine", engine)
    return fake, made


def counting() -> Script:
    """73 for every second rollout of the question, nothing for the others; who is shown attempts says 75."""
    calls = count(1)

    def script(prompt: Prompt, seed: int, index: int) -> str:
        assert not isinstance(prompt, str)
        if "Attempt 1" in prompt[-1]["content"]:
            return "look\n</think>\n\nIt is \\boxed{75}."
        return "think\n</think>\n\n" + ("\\boxed{73}" if next(calls) % 2 else "who knows")

    return script


def test_what_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake, made = install(monkeypatch, counting())
    assert main(["solve", "What is 1 + 2?"]) == 0
    out, err = capsys.readouterr()
    assert out == "look\n\nIt is \\boxed{75}.\n"
    first, second, third, last = err.splitlines()
    # a token a byte, tags and the end one each
    drawn = 4 * (len("think\n" + "\n\n" + "\\boxed{73}") + 2) + 4 * (len("think\n" + "\n\n" + "who knows") + 2)
    assert first == f"round 0  8 rollouts  answers 73 x4, (none) x4  {drawn} tokens"
    later = 8 * (len("look\n" + "\n\n" + "It is \\boxed{75}.") + 2)
    assert second == f"round 1  8 rollouts  answers 75 x8  {later} tokens"
    assert third == second.replace("round 1", "round 2")
    assert re.fullmatch(rf"answer 75; {drawn + 2 * later:,} tokens drawn in 24 rollouts, \d+\.\d s", last)
    assert {"path": EMBEDDED, "dtype": "float32"}.items() <= fake.loaded.items()
    [completer] = made
    assert len(completer.requests) == 24
    assert [completer.requests[i].params.max_tokens for i in (0, 8, 16)] == [192, 192, 208]
    assert completer.requests[0].messages == [{"role": "user", "content": f"What is 1 + 2?\n{INSTRUCTION}"}]


def test_another_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    long = "hm " * 300
    fake, made = install(monkeypatch, lambda *_: f"{long}\n</think>\n\nYes.", 131_072)
    assert main(["solve", "Why?", "--model", "DIR", "--rounds", "0", "--seed", "5"]) == 0
    assert {"path": "DIR", "dtype": "bfloat16"}.items() <= fake.loaded.items()
    requests = made[0].requests
    # nobody has an answer in a box, so the last are weighed by one call more
    assert (len(requests), requests[0].params.max_tokens) == (17, 40_960)
    assert requests[0].messages == [{"role": "user", "content": "Why?"}]
    out, err = capsys.readouterr()
    assert out == "Yes.\n", "long reasoning is shown on request"
    assert err.splitlines()[-1].startswith("nobody has an answer; ")
    again = ["solve", "Why?", "--model", "DIR", "--preset", "lightweight", "--seed", "6", "--show"]
    sizes = {"population": 3, "fan-in": 2, "rounds": 1, "think-budget": 2000, "tail-tokens": 20, "final-budget": 4000}
    changes = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    assert main([*again, *changes, "--temperature", "0.5"]) == 0
    assert capsys.readouterr().out == f"{long.strip()}\n\nYes.\n"
    later = made[1].requests
    assert [request.params.max_tokens for request in later] == [2000] * 3 + [4000] * 3 + [4000]
    assert {request.params.temperature for request in later[:-1]} == {0.5}
    assert later[0].seed != requests[0].seed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "micr"], "there is no RSA preset 'micr'\nhint: did you mean micro?"),
        (["--population", "3", "--fan-in", "4"], "rsa.fan_in must be between 1 and population: 4, 3"),
        (["--threads", "0"], "--threads must be at least 1: 0"),
        (["--speculate", "2", "--deterministic"], "--deterministic may read every token in a pass of its own"),
        (["--rounds", "-1"], "rsa.rounds must not be negative: -1"),
        (["--temperature", "-1"], "temperature must not be negative"),
        (["--tail-tokens", "500"], "rsa.tail_tokens must be between 1 and think_budget: 500, 192"),
    ],
)
def test_what_is_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake, made = install(monkeypatch, lambda *_: "")
    assert main(["solve", "Why?", *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert (fake.loaded, made) == ({}, [])


def test_options_reach_the_engine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake, _ = install(monkeypatch, lambda *_: "</think>Yes")
    assert main(["solve", "Why?", "--kv", "int8", "--speculate", "4"]) == 0
    assert fake.made == {"max_batch": 256, "kv_dtype": "int8", "speculate": 4, "deterministic": False}
    assert main(["solve", " "]) == 2
    assert "error: the question is empty" in capsys.readouterr().err


def test_a_question_has_to_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [{"role": "user", "content": f"Why?\n{INSTRUCTION}"}]
    needed = len(render(TOKENIZER, aggregation_messages(asked, [""] * 4)).ids) + 4 * 40 + 208
    _, made = install(monkeypatch, lambda *_: "</think>Yes", needed)
    assert main(["solve", "Why?"]) == 0
    assert main(["solve", "Why??"]) == 2
    error = capsys.readouterr().err.splitlines()[-2]
    assert f"may take {needed + 1:,} tokens, and the model's context holds {needed:,}" in error
    alone = len(render(TOKENIZER, [{"role": "user", "content": f"Why??\n{INSTRUCTION}"}]).ids)
    assert main(["solve", "Why??", "--rounds", "0", "--final-budget", str(needed - alone)]) == 0
    assert main(["solve", "Why???", "--rounds", "0", "--final-budget", str(needed - alone)]) == 2
    assert [len(completer.requests) > 0 for completer in made] == [True, False, True, False]


def candidate(answer: str | None) -> Candidate:
    return Candidate(
        worker=0, text="", reasoning="", answer=answer, is_finished=True, prompt_tokens=1, generated_tokens=9
    )


def test_a_round_in_a_narrow_terminal() -> None:
    answers = ["1 2 3 4 5 6", None, "7 8", "1 2 3 4 5 6", "\x1b[2J\n9", "x" * 99, "a", "b", "c", None, None]
    round = Round(candidates=tuple(map(candidate, answers)), requests=11, wall_s=1.0)
    assert told(1, round, 200) == (
        "round 1  11 rollouts  "
        "answers 1 2 3 4 5 6 x2, 7 8 x1, \ufffd[2J 9 x1, xxxxxxxxxxxxxxxxxxxxxxx… x1, a x1, 3 more  "
        "99 tokens"
    )
    narrow = told(1, round, 40).splitlines()
    assert narrow[0] == "round 1  11 rollouts  99 tokens"
    assert narrow[1].startswith("  answers 1 2 3 4 5 6 x2, ")
    assert max(map(len, narrow)) <= 40
    one = Round(candidates=(candidate(None),), requests=1, wall_s=1.0)
    assert told(0, one, 80) == "round 0  1 rollout  answers (none) x1  9 tokens"


def test_progress_makes_room_for_what_a_round_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zaya.core.progress._TERMINAL_INTERVAL_S", 0.0)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    install(monkeypatch, lambda *_: "hm\n</think>\n\n\\boxed{75}")
    assert main(["solve", "Why?"]) == 0
    seen = [line.rsplit("\r", 1)[-1] for line in screen.getvalue().split("\n")]
    assert [line[:7] for line in seen[:6:2]] == ["round 0", "round 1", "round 2"]
    assert seen[1] == "  answers 75 x8"
    assert "round 1   38%  9/24" in screen.getvalue()
    assert max(len(part) for part in re.split("[\r\n]", screen.getvalue())) <= 40
