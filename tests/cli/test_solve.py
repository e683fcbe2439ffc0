"""zaya solve, with a model that says what a script says.

1. The answer goes to standard output; a line for every round, when it is over, how the answer was chosen and what it
   took, to standard error.
2. Without a model the embedded one is asked, with the preset micro and the instruction of its training.
3. What cannot be done is said in one error, in the names of the options, before anything is sampled.
4. Any setting of `RsaConfig` can be given; how the answer is chosen, the deadline and the rest reach `solve`.
5. With --json, standard output is one object; where standard error is no terminal, it is empty.
6. With --url the server is asked, by the name, key and tokenizer that were given, and no model is loaded.
7. A run that Ctrl-C ended says how to go on; the same command does not ask again for what the trace holds.
8. A replay shows the trace without a model, and comes to the same answer.
9. In a terminal the population is there while it works and gone when the answer comes.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.fakes import EMBEDDED, TOKENIZER, Scripted, Terminal
from tests.cli.test_watching import played
from zaya.cli import main
from zaya.engine.scripted import Prompt, Script, ScriptedCompleter
from zaya.engine.types import Completion, Request
from zaya.envs.answers import INSTRUCTION
from zaya.text import Tokenizer, render
from zaya.ttc.prompts import aggregation_messages
from zaya.ttc.rsa import PRESETS


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
    first, second, third, *last = err.splitlines()
    # a token a byte, tags and the end one each
    drawn = 4 * (len("think\n" + "\n\n" + "\\boxed{73}") + 2) + 4 * (len("think\n" + "\n\n" + "who knows") + 2)
    assert first == f"round 0  8 rollouts  answers 73 x4, (none) x4  {drawn} tokens"
    later = 8 * (len("look\n" + "\n\n" + "It is \\boxed{75}.") + 2)
    assert second == f"round 1  8 rollouts  answers 75 x8  {later} tokens"
    assert third == second.replace("round 1", "round 2")
    read = sum(len(completion.prompt_ids) for [completion] in made[0].complete(made[0].requests[:24]))
    spent = rf"{drawn + 2 * later:,} tokens drawn in 24 rollouts; {read:,} read"
    assert re.fullmatch(rf"answer 75, by majority of 75 x8; {spent}; \d+\.\d s, [\d,]+ tokens/s", " ".join(last))
    assert {"path": EMBEDDED, "dtype": "float32"}.items() <= fake.loaded.items()
    [completer] = made
    assert len(completer.requests) == 24 + 24  # and once more, to count what was read
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
    assert err.splitlines()[1].startswith("nobody has an answer, by aggregate of (none) x16; ")
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
        (["--population", "3", "--fan-in", "4"], "--fan-in must be between 1 and --population: 4, 3"),
        (["--threads", "0"], "--threads must be at least 1: 0"),
        (["--speculate", "2", "--deterministic"], "--deterministic may read every token in a pass of its own"),
        (["--rounds", "-1"], "--rounds must not be negative: -1"),
        (["--temperature", "-1"], "--temperature must not be negative: -1.0"),
        (["--top-p", "2"], "--top-p must be above 0 and at most 1: 2.0"),
        (["--tail-tokens", "500"], "--tail-tokens must be between 1 and --think-budget: 500, 192"),
        (["--set", "barier=full"], "unknown key 'barier'\nhint: did you mean barrier?"),
        (["--set", "barrier"], "--set takes KEY=VALUE: 'barrier'\nhint: such as --set barrier=full"),
        (["--set", "quorum=2"], "--set quorum must be above 0 and at most 1: 2.0"),
        (["--set", "top_k=few"], "top_k = 'few' is a str; expected int"),
        (["--population", "3", "--set", "population=3"], "--population is overridden twice"),
        (["--selection", "majorty"], "there is no --selection majorty\nhint: did you mean majority?"),
        (["--selection", "external"], "there is no --selection external"),
        (
            ["--selection", "single"],
            "--selection single needs one final rollout: there are 8\nhint: set --final-workers=1",
        ),
        (["--deadline", "0"], "--deadline must be above 0: 0.0"),
        (["--concurrency", "0"], "--concurrency must be at least 1: 0"),
        (["--retries", "-1"], "--retries must not be negative: -1"),
        (["--candidates"], "--candidates is for --json"),
        (["--speed", "2"], "--speed is for --replay"),
        (["--replay", "FILE", "--trace", "FILE"], "--replay asks nobody, so --trace has no effect"),
        (["--replay", "FILE", "--speed", "-1"], "--speed must not be negative: -1.0"),
        (["--replay", "/none"], "/none cannot be read: No such file or directory"),
        (["--tokenizer", "DIR"], "--tokenizer is for --url"),
        (["--url", "http://host"], "--url needs --model"),
        (["--url", "http://host", "--model", "m", "--kv", "int8"], "--kv is for a model that is loaded here"),
        (["--url", "http://host", "--model", "m", "--api-key-env", "NO_SUCH"], "--api-key-env names a variable"),
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
    assert main(["solve"]) == 2
    assert "error: there is no question" in capsys.readouterr().err


def test_a_question_has_to_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [{"role": "user", "content": f"Why?\n{INSTRUCTION}"}]
    needed = len(render(TOKENIZER, aggregation_messages(asked, [""] * 4)).ids) + 4 * 40 + 208
    _, made = install(monkeypatch, lambda *_: "</think>Yes", needed)
    assert main(["solve", "Why?"]) == 0
    assert main(["solve", "Why??"]) == 2
    error = capsys.readouterr().err.splitlines()[-2]
    assert f"may take {needed + 1:,} tokens, and the model's context holds {needed:,}" in error
    assert main(["solve", "Why??"]) == 2
    assert "lower --think-budget, --final-budget, --fan-in or --tail-tokens" in capsys.readouterr().err
    alone = len(render(TOKENIZER, [{"role": "user", "content": f"Why??\n{INSTRUCTION}"}]).ids)
    assert main(["solve", "Why??", "--rounds", "0", "--final-budget", str(needed - alone)]) == 0
    assert main(["solve", "Why???", "--rounds", "0", "--final-budget", str(needed - alone)]) == 2
    assert [len(completer.requests) > 0 for completer in made] == [True, False, False, True, False]


def test_any_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, made = install(monkeypatch, counting())
    words = ["--set", "top_k=7", "--set", "barrier = full", "--top-p", "0.9", "--final-workers", "1"]
    options = ["--selection", "single", "--deadline", "60", "--concurrency", "3", "--retries", "0"]
    assert main(["solve", "Why?", *words, *options, "--tail-tokens", "120", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    given = {"top_k": 7, "barrier": "full", "top_p": 0.9, "final_workers": 1, "tail_tokens": 120}
    run = {"seed": 0, "selection": "single", "deadline_s": 60.0, "max_concurrency": 3, "retries": 0}
    assert settings == {**asdict(PRESETS["micro"]), **given, **run}
    params = made[0].requests[0].params
    assert (params.top_k, params.top_p, len(made[0].requests)) == (7, 0.9, 17)
    assert main(["solve", "Why?", "--tail-tokens", "120"]) == 0
    assert capsys.readouterr().err.startswith("warning: --think-budget 192 is less than two tails of 120 tokens")
    assert main(["solve", "Why?", "--population", "3", "--rounds", "0"]) == 0
    assert len(made[-1].requests) == 3


def test_a_deadline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Stuck(ScriptedCompleter):
        def submit(self, request: Request) -> Any:
            handle = super().submit(request)
            if "Attempt 1" not in str(request.messages) and has_first:
                return handle
            return SimpleNamespace(result=asyncio.Event().wait)

    install(monkeypatch, counting())
    monkeypatch.setattr("zaya.engine.engine.Engine", lambda *_, **__: Stuck(TOKENIZER, counting()))
    has_first = True
    monkeypatch.setattr("zaya.ttc.live.Live._completion", _without_deltas)
    assert main(["solve", "Why?", "--deadline", "0.5"]) == 0
    assert "answer 73, by majority of 73 x4, (none) x4; partial (deadline); " in capsys.readouterr().err.replace(
        "\n", " "
    )
    has_first = False
    assert main(["solve", "Why?", "--deadline", "0.05"]) == 2
    assert "hint: allow more time, or lower --think-budget" in capsys.readouterr().err


async def _without_deltas(live: Any, rollout: Any, request: Request) -> Any:
    [completion] = await live.completer.submit(request).result()
    return completion


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    install(monkeypatch, counting())
    assert main(["solve", "Why?", "--rounds", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert out.count("\n") == 1
    assert found.items() >= {
        "answer": "75", "text": "It is \\boxed{75}.", "reasoning": "look", "selection": "majority", "partial": False,
        "stopped": None, "stages": 2, "closing": None, "answers": ["75"] * 8, "tally": [{"answer": "75", "count": 8}],
    }.items()  # fmt: skip
    first, last = found["rounds"]
    assert {"requests": 8, "finished": 8, "truncated": 0, "lost": {}, "cached_tokens": 0}.items() <= first.items()
    for name in ("prompt_tokens", "cached_tokens", "generated_tokens"):
        assert found["usage"][name] == first[name] + last[name]
    assert "candidates" not in first
    assert {"wall_s", "median_s", "longest_s"} < last.keys()
    assert main(["solve", "Why?", "--rounds", "1", "--json", "--candidates"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [candidate["answer"] for candidate in again["rounds"][0]["candidates"]] == ["73", None] * 4
    shown = again["rounds"][1]["candidates"][3]
    assert (shown["tail"], shown["text"], len(shown["sources"])) == ("look", "It is \\boxed{75}.", 4)


class Server(ScriptedCompleter):
    """In the place of `zaya.engine.remote.RemoteCompleter`."""

    made: Mapping[str, Any] = {}

    def __init__(
        self, base_url: str, model: str, api_key: str | None = None, tokenizer: Tokenizer | None = None
    ) -> None:
        super().__init__(TOKENIZER, counting())
        Server.made = {"base_url": base_url, "model": model, "api_key": api_key, "tokenizer": tokenizer, "open": True}

    def __enter__(self) -> Server:
        return self

    def complete(self, requests: Any, **options: Any) -> Any:
        """It says what its tokens are, and not which."""

        def told(completion: Completion) -> Completion:
            pieces = tuple(map(TOKENIZER.token_bytes, completion.ids))
            return replace(completion, pieces=pieces, reasoning_pieces=pieces[: len(completion.reasoning_ids)])

        return [[told(each) for each in answer] for answer in super().complete(requests, **options)]

    def __exit__(self, *_: object) -> None:
        Server.made = {**Server.made, "open": False, "requests": self.requests}


def test_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake, _ = install(monkeypatch, lambda *_: "")
    monkeypatch.setattr("zaya.engine.remote.RemoteCompleter", Server)
    monkeypatch.setenv("KEY", "sesame")
    words = ["solve", "Why?", "--url", "http://host/v1", "--model", "zaya1-8b", "--rounds", "0"]
    assert main([*words, "--api-key-env", "KEY"]) == 0
    out, err = capsys.readouterr()
    assert out == "think\n\n\\boxed{73}\n"
    assert "warning" not in err
    requests = Server.made["requests"]
    assert {**Server.made, "requests": 0} == {
        "base_url": "http://host/v1", "model": "zaya1-8b", "api_key": "sesame", "tokenizer": None, "open": False,
        "requests": 0,
    }  # fmt: skip
    # as it is asked, and by the preset of large models
    assert requests[0].messages == [{"role": "user", "content": "Why?"}]
    assert (len(requests), requests[0].params.max_tokens) == (16, 40_960)
    TOKENIZER.save(tmp_path)
    for named in (tmp_path, tmp_path / "tokenizer.json"):
        assert main([*words, "--tokenizer", str(named)]) == 0
        assert Server.made["tokenizer"].digest == TOKENIZER.digest
        assert Server.made["api_key"] is None
        assert "warning" not in capsys.readouterr().err
    assert fake.loaded == {}
    (tmp_path / "empty").mkdir()
    assert main([*words, "--tokenizer", str(tmp_path / "empty")]) == 2
    assert "has no tokenizer files" in capsys.readouterr().err


def test_a_trace_is_gone_on_with_and_shown_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, calls = tmp_path / "run.jsonl", count(1)

    def interrupted(prompt: Prompt, seed: int, index: int) -> str:
        if next(calls) == 12:
            raise KeyboardInterrupt
        return f"hm {seed % 7}\n</think>\n\n\\boxed{{{seed % 2}}}"

    fake, made = install(monkeypatch, interrupted)
    command = ["solve", "Why?", "--trace", str(path), "--concurrency", "1", "--set", "barrier=full"]
    assert main(command) == 130
    err = capsys.readouterr().err
    assert f"{path} holds what has ended; the same command goes on from there\ninterrupted\n" in err
    assert main(["solve", "--replay", str(path)]) == 2
    err = capsys.readouterr().err.splitlines()
    # not the second round, which is not over
    assert [line[:22] for line in err[:2]] == ["Why? Give the answer i", "round 0  8 rollouts  a"]
    assert "has no answer yet: it was interrupted after 11 of 24 rollouts" in err[2]
    # again, whole
    ticks = count()
    monkeypatch.setattr("zaya.cli.solve.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert main(command) == 0
    out, err = capsys.readouterr()
    spent = sum(len(completion.ids) for [completion] in made[1].complete(made[1].requests[:]))
    assert f"1.0 s, {spent} tokens/s" in err.replace("\n", " ")  # of this run, not of both
    lines = err.splitlines()
    assert lines[0] == f"{path} holds 11 of 24 rollouts"
    assert [line[:8] for line in lines[1:4]] == ["round 0 ", "round 1 ", "round 2 "]
    assert len(made[1].requests) == 2 * (24 - 11)
    whole = main(["solve", "Why?", "--set", "barrier=full", "--concurrency", "1"]), capsys.readouterr()
    assert (0, out, lines[1:4]) == (whole[0], whole[1].out, whole[1].err.splitlines()[:3])
    fake.loaded.clear()
    assert main(["solve", "--replay", str(path)]) == 0
    replayed = capsys.readouterr()
    assert (replayed.out, replayed.err.splitlines()[1:4]) == (out, lines[1:4])
    assert main(["solve", "--replay", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["stages"], found["settings"]["barrier"], found["text"]) == (3, "full", out.split("\n\n")[1].strip())
    assert (fake.loaded, len(made)) == ({}, 3)
    # another run
    for changes, message in ((["--seed", "4"], "--seed is 0 there, 4 here"),
                             (["--set", "top_k=4"], "--set top_k is None there, 4 here"),
                             (["--rounds", "1"], "--rounds is 2 there, 1 here")):  # fmt: skip
        assert main([*command, *changes]) == 2
        assert f"{path} is of another run: {message}" in capsys.readouterr().err
    assert main(["solve", "Why not?", *command[2:]]) == 2
    assert f"{path} is of another question: Why? Give the answer in" in capsys.readouterr().err
    whole = path.read_bytes().splitlines(keepends=True)
    for damage in (b"{\n", b"3\n", whole[4].replace(b'"round"', b'"ruond"')):
        path.write_bytes(b"".join([*whole[:4], damage, *whole[5:]]))
        for words in (command, ["solve", "--replay", str(path)]):
            assert main(words) == 2
            assert f"{path}:5 is damaged" in capsys.readouterr().err
    path.write_text("hello\n")
    assert main(command) == 2
    assert "is not a trace" in capsys.readouterr().err


def test_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("zaya.cli.watching._TERMINAL_INTERVAL_S", 3600.0)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    install(monkeypatch, lambda *_: "hm\n</think>\n\n\\boxed{75}")
    assert main(["solve", "Why?"]) == 0
    lines, is_restored = played(screen.getvalue())
    assert [line[:8] for line in lines[:6]] == ["round 0 ", "  answer", "round 1 ", "  answer", "round 2 ", "  answer"]
    assert lines[1] == "  answers 75 x8"
    assert lines[6].startswith("answer 75, by majority of 75 x8;")
    assert max(map(len, lines)) <= 40
    assert is_restored
    capsys.readouterr()
    written = len(screen.getvalue())
    assert main(["solve", "Why?", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "75"
    assert played(screen.getvalue()[written:])[0][:7] == lines[:7]
