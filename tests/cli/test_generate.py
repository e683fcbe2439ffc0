"""zaya generate with a model that says what the test wants: what it is asked, and what is printed."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.fakes import EMBEDDED, TOKENIZER, Scripted, Terminal
from zaya.cli import main
from zaya.envs.answers import INSTRUCTION
from zaya.text import render

END = TOKENIZER.eos_id


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch):
    def script(text: str | list[int]) -> Scripted:
        return Scripted(text).install(monkeypatch)

    return script


def test_what_the_model_is_asked(scripted) -> None:
    fake = scripted("ok")
    options = ["--temperature", "0.5", "--top-p", "0.25", "--top-k", "7", "--seed", "3", "--max-tokens", "9"]
    assert main(["generate", "DIR", "Why?", *options, "--dtype", "float32", "--system", "Be brief."]) == 0
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    [asked] = fake.asked
    assert asked["prompt"] == render(TOKENIZER, messages).ids
    assert {"temperature": 0.5, "top_p": 0.25, "top_k": 7, "seed": 3}.items() <= asked.items()
    assert {"path": "DIR", "dtype": "float32"}.items() <= fake.loaded.items()
    assert asked["max_tokens"] == 9


def test_forms_of_the_prompt(scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = scripted("ok")
    assert main(["generate", "DIR", "a b", "--raw"]) == 0
    assert fake.asked[-1]["prompt"] == TOKENIZER.encode("a b")
    assert main(["generate", "DIR", "2, 40 41", "--ids"]) == 0
    assert fake.asked[-1]["prompt"] == [2, 40, 41]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("Wärum?".encode())))
    assert main(["generate", "DIR", "-"]) == 0
    assert fake.asked[-1]["prompt"] == render(TOKENIZER, [{"role": "user", "content": "Wärum?"}]).ids
    assert main(["generate", "DIR", "Why?", "--no-thinking"]) == 0
    assert (
        fake.asked[-1]["prompt"] == render(TOKENIZER, [{"role": "user", "content": "Why?"}], enable_thinking=False).ids
    )


def test_one_word_is_the_prompt_of_the_embedded_model(scripted) -> None:
    fake = scripted("ok")
    assert main(["generate", "What is 1 + 2?"]) == 0
    assert {"path": EMBEDDED, "dtype": "float32"}.items() <= fake.loaded.items()
    asked = render(TOKENIZER, [{"role": "user", "content": f"What is 1 + 2?\n{INSTRUCTION}"}]).ids
    assert fake.asked[-1]["prompt"] == asked
    assert main(["generate", f"What is 1 + 2?\n{INSTRUCTION}", "--dtype", "bfloat16"]) == 0
    assert fake.loaded["dtype"] == "bfloat16"
    assert fake.asked[-1]["prompt"] == asked, "it is there already"
    assert main(["generate", "a b", "--raw"]) == 0
    assert fake.asked[-1]["prompt"] == TOKENIZER.encode("a b")
    assert main(["generate", "DIR", "Why?"]) == 0
    assert {"path": "DIR", "dtype": "bfloat16"}.items() <= fake.loaded.items()
    assert fake.asked[-1]["prompt"] == render(TOKENIZER, [{"role": "user", "content": "Why?"}]).ids


@pytest.mark.parametrize(
    "words",
    [
        ["DIR", "--raw", "-1 + 2"],
        ["--raw", "DIR", "-1 + 2"],
        ["DIR", "-1 + 2", "--raw"],
        ["--raw", "--", "DIR", "-1 + 2"],
        ["DIR", "--raw", "--seed", "1", "-1 + 2"],
    ],
)
def test_options_stand_anywhere(scripted, words: list[str]) -> None:
    fake = scripted("ok")
    assert main(["generate", *words]) == 0
    assert (fake.loaded["path"], fake.asked[-1]["prompt"]) == ("DIR", TOKENIZER.encode("-1 + 2"))


def test_a_prompt_after_two_dashes(scripted) -> None:
    fake = scripted("ok")
    assert main(["generate", "--raw", "--", "--raw"]) == 0
    assert fake.asked[-1]["prompt"] == TOKENIZER.encode("--raw")


def test_a_model_without_a_prompt(scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = scripted("ok")
    assert main(["generate", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: there is no prompt: {tmp_path} is a directory\nhint: zaya generate MODEL PROMPT\n"
    )
    assert fake.loaded == {}
    assert main(["generate", "x" * 5000 + "\0", "--raw"]) == 0, "no name of a file at all"


@pytest.mark.parametrize("end", [1, 5, 106])
def test_the_text_ends_before_its_end(scripted, capsys: pytest.CaptureFixture[str], end: int) -> None:
    scripted([*TOKENIZER.encode("so it is\n</think>\n\nYes é", bos=False), end])
    assert main(["generate", "DIR", "Why?"]) == 0
    assert capsys.readouterr().out == "so it is\n\nYes é\n"
    scripted([*TOKENIZER.encode("plain", bos=False), end])
    assert main(["generate", "DIR", "Why?", "--raw"]) == 0
    assert capsys.readouterr().out == "plain\n"
    assert main(["generate", "DIR", "7", "--ids"]) == 0
    assert capsys.readouterr().out.split() == [str(i) for i in [*TOKENIZER.encode("plain", bos=False), end]]


@pytest.mark.parametrize(("environment", "dims"), [({}, True), ({"NO_COLOR": ""}, False), ({"TERM": "dumb"}, False)])
def test_thinking_is_dimmed_on_a_terminal(
    scripted, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], dims: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    scripted("hm</think>Yes\x1b[2J\x07\x9b!")
    assert main(["generate", "DIR", "Why?"]) == 0
    thinking, _, answer = screen.getvalue().partition("\n\n")
    assert answer == "Yes\ufffd[2J\ufffd\ufffd!\n"
    assert thinking.replace("\x1b[2m", "").replace("\x1b[0m", "") == "hm"
    assert ("\x1b[2m" in thinking) == dims


def test_tool_calls_stand_on_lines_of_their_own(scripted, capsys: pytest.CaptureFixture[str]) -> None:
    call = "<zyphra_tool_call>\n<function=look>\n<parameter=at>\nsky\n</parameter>\n</function>\n</zyphra_tool_call>"
    scripted(f"hm</think>\n\nWait.\n{call}\n{call}")
    assert main(["generate", "DIR", "Why?"]) == 0
    assert capsys.readouterr().out == 'hm\n\nWait.\n\nlook {"at":"sky"}\n\nlook {"at":"sky"}\n'


def test_without_thinking_all_is_answer(scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    scripted("Yes")
    assert main(["generate", "DIR", "Why?", "--no-thinking"]) == 0
    assert screen.getvalue() == "Yes\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--raw", "--system", "x"], "belong to the chat format"),
        (["--ids", "--no-thinking"], "belong to the chat format"),
        (["--raw", "--ids"], "not allowed with"),
        (["--max-tokens", "0"], "at least 1: 0"),
    ],
)
def test_options_that_do_not_go_together(
    scripted, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    fake = scripted("ok")
    assert main(["generate", "DIR", "1", *words]) == 2
    assert message in capsys.readouterr().err
    assert (fake.loaded, fake.asked) == ({}, []), "said before anything is loaded"


def test_bad_standard_input(scripted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    scripted("ok")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"caf\xe9")))
    assert main(["generate", "DIR", "-"]) == 2
    assert "standard input is not UTF-8" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["generate", "DIR", "-"]) == 2
    assert "standard input is closed" in capsys.readouterr().err
