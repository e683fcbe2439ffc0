"""Commands on the model that comes with the package, and as processes of their own.

1. What is printed is what the engine draws: several answers, stop strings, structures, budgets, int8 keys.
2. Ctrl-C in a chat ends the answer: the engine has nothing left to do, keeps what it has read, and goes on as it would
   have from the same conversation.
3. As processes: Ctrl-C ends `generate` with 130 and a chat's answer alone, and a closed pipe is nothing to speak of.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.cli.fakes import Terminal
from zaya.cli import main
from zaya.cli.chat import Chat
from zaya.core.rng import derive_seed
from zaya.engine.engine import Engine
from zaya.engine.types import Completion, SamplingParams, Structure
from zaya.model.embedded import as_trained, embedded_directory
from zaya.model.layouts import load
from zaya.text import render

QUESTION = "What is 47 + 38 - 12?"
SCHEMA = {
    "type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"],
    "additionalProperties": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Engine:
    model, tokenizer = load(embedded_directory(), dtype="float32")
    return Engine(model, tokenizer, max_batch=4)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def asked(engine: Engine, params: SamplingParams, n: int = 1) -> list[Completion]:
    assert engine.tokenizer is not None
    ids = render(engine.tokenizer, [{"role": "user", "content": as_trained(QUESTION)}]).ids
    return engine.generate([ids], params, n=n)


def shown(completion: Completion) -> str:
    parts = [part.rstrip("\n") for part in (completion.reasoning, completion.text) if part]
    return "\n\n".join(parts) + "\n"


def test_several_answers(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", QUESTION, "-n", "3", "--max-tokens", "100"]) == 0
    completions = asked(engine, SamplingParams(max_tokens=100, top_p=0.95), n=3)
    assert len({completion.ids for completion in completions}) > 1
    expected = "\n".join(f"[{i + 1}/3]\n{shown(completion)}" for i, completion in enumerate(completions))
    assert capsys.readouterr().out == expected


def test_a_stop_string(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    for stop in ("\n", "\\boxed", "So 7"):
        assert main(["generate", QUESTION, "--stop", stop, "--temperature", "0", "--speculate", "3"]) == 0
        [completion] = asked(engine, SamplingParams(temperature=0, stop=(stop,)))
        assert completion.stop_reason == stop
        assert capsys.readouterr().out.rstrip("\n") == shown(completion).rstrip("\n")


def test_structures(engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    words = ["generate", QUESTION, "--temperature", "0", "--think-budget", "20", "--kv", "int8"]
    assert main([*words, "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    structure = Structure(kind="json", value=SCHEMA)
    [completion] = asked(engine, SamplingParams(temperature=0, think_budget=20, structure=structure))
    assert json.loads(out).keys() == {"answer"}
    assert err.startswith(completion.reasoning[:10])
    assert main([*words, "--choice", "seventy", "--choice", "eighty"]) == 0
    assert capsys.readouterr().out in ("seventy\n", "eighty\n")
    assert main([*words, "--regex", "[0-9]{3}"]) == 0
    assert re.fullmatch(r"\d{3}\n", capsys.readouterr().out)


def test_a_quantised_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(embedded_directory()), str(tmp_path / "int8"), "--format", "int8"]) == 0
    size = sum(file.stat().st_size for file in (tmp_path / "int8").glob("*.safetensors"))
    assert capsys.readouterr().out.endswith(f"wrote {tmp_path / 'int8'} in int8, {size / 1e6:.2f} MB\n")
    question = as_trained(QUESTION)
    assert main(["generate", str(tmp_path / "int8"), question, "--dtype", "float32", "--temperature", "0"]) == 0
    copy = capsys.readouterr().out
    assert main(["generate", question, "--quantize", "int8", "--temperature", "0"]) == 0
    out, err = capsys.readouterr()
    assert out == copy
    model, _ = load(embedded_directory(), dtype="float32", quantize="int8")
    size = sum(weight.nbytes for weight in model.state_dict().values())
    assert f"weights in {size / 1e6:.2f} MB" in err
    assert main(["generate", str(tmp_path / "int8"), "x", "--quantize", "int8"]) == 2
    assert "is quantised already" in capsys.readouterr().err


def test_ctrl_c_leaves_the_engine_idle_and_what_it_has_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pressing(Terminal):
        count = 0

        def write(self, text: str) -> int:
            self.count += 1
            if self.count == 5:
                signal.raise_signal(signal.SIGINT)
            return super().write(text)

    screen = Pressing()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("NO_COLOR", "1")
    tokenizer = engine.tokenizer
    assert tokenizer is not None
    args = argparse.Namespace(model=None, system=None, no_thinking=False, seed=3)
    params = SamplingParams(max_tokens=100)
    chat = Chat(engine, tokenizer, args, params)
    chat.ask(QUESTION, may_stop=True)
    assert screen.getvalue().endswith("\n(stopped)\n")
    stats = engine.stats
    assert (stats.running, stats.waiting) == (0, 0)
    engine.check()
    assert len(chat.ids) < 60, "it was stopped early"

    hits = stats.prefix_hits
    prompt = chat._prompt(as_trained("What is 1 + 2?"))
    chat.ask("What is 1 + 2?", may_stop=True)
    assert engine.stats.prefix_hits == hits + 1
    fresh = Engine(engine.model, tokenizer, max_batch=1)
    drawn = [id for delta in fresh.stream(prompt, params, seed=derive_seed(3, "chat", 1)) for id in delta.ids]
    assert chat.ids[: len(prompt) + len(drawn)] == [*prompt, *drawn]


# ----- processes

ENVIRONMENT = {**os.environ, "ZAYA_KERNELS": "off", "NO_COLOR": "1", "COLUMNS": "60", "PYTHONUNBUFFERED": ""}
RAMBLING = ["--temperature", "30", "--top-p", "1", "--max-tokens", "900", "--threads", "1"]
"""So many words for nothing that nobody waits for their end."""


def started(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "zaya", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)


def test_ctrl_c_ends_generate() -> None:
    process = started("generate", QUESTION, *RAMBLING, "--deterministic")
    assert process.stdout is not None
    first = process.stdout.read(5)
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (len(first), err) == (5, b"interrupted\n")
    assert rest.endswith(b"\n")


def test_a_closed_pipe_is_quiet() -> None:
    process = started("generate", QUESTION, *RAMBLING, "-n", "2")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(20)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141


def test_a_chat_at_a_terminal() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "zaya", "chat", *RAMBLING, "--deterministic"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT)
    os.close(theirs)
    screen = b""

    def until(pattern: bytes) -> None:
        nonlocal screen
        deadline = time.monotonic() + 60
        while not (found := re.search(pattern, screen, re.DOTALL)):
            assert time.monotonic() < deadline, screen
            if select.select([ours], [], [], 1)[0]:
                screen += os.read(ours, 4096)
        screen = screen[found.end() :]

    try:
        until(rb"> $")
        for _ in range(2):
            os.write(ours, b"What is 1 + 2?\n")
            until(rb"2\?\r\n.{20}")
            process.send_signal(signal.SIGINT)
            until(rb"\(stopped\)\r\n\r\n> $")
        os.write(ours, b"\x04")
        assert process.wait(60) == 0
    finally:
        process.kill()
        os.close(ours)
