"""zaya generate with a model that says what the test wants: what it is asked, and what is printed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from zaya.cli import main
from zaya.model.config import preset
from zaya.text import Tokenizer, byte_tokenizer, render

TOKENIZER = byte_tokenizer()
END = TOKENIZER.eos_id


class Scripted:
    """Stands in for loading and generating: keeps what it was asked, yields the ids it was given."""

    def __init__(self, text: str | list[int]) -> None:
        self.ids = TOKENIZER.encode(text, bos=False) if isinstance(text, str) else text
        self.asked: dict[str, Any] = {}

    def load(self, path: str, **options: Any) -> tuple[Any, Tokenizer]:
        self.asked |= {"path": path, **options}
        return SimpleNamespace(config=preset("micro", eos_id=1, more_eos_ids=(5,))), TOKENIZER

    def generate(self, model: Any, prompt: list[int], **options: Any) -> Iterator[int]:
        self.asked |= {"prompt": prompt, **options}
        return iter(self.ids)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch):
    def script(text: str | list[int]) -> Scripted:
        fake = Scripted(text)
        monkeypatch.setattr("zaya.model.layouts.load", fake.load, raising=False)
        monkeypatch.setattr("zaya.model.generate.generate", fake.generate)
        return fake

    return script


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_the_model_is_asked(scripted) -> None:
    fake = scripted("ok")
    options = ["--temperature", "0.5", "--top-p", "0.25", "--top-k", "7", "--seed", "3", "--max-tokens", "9"]
    assert main(["generate", "DIR", "Why?", *options, "--dtype", "float32", "--system", "Be brief."]) == 0
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert fake.asked["prompt"] == render(TOKENIZER, messages).ids
    expected = {"path": "DIR", "dtype": "float32", "temperature": 0.5, "top_p": 0.25, "top_k": 7, "seed": 3}
    assert expected.items() <= fake.asked.items()
    assert fake.asked["max_tokens"] == 9
    assert fake.asked["stop_ids"] == {1, 5, 106}  # both of the config, and the end of a turn
    assert list(fake.asked["never"]) == list(range(268, 2048))


def test_forms_of_the_prompt(scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = scripted("ok")
    assert main(["generate", "DIR", "a b", "--raw"]) == 0
    assert fake.asked["prompt"] == TOKENIZER.encode("a b")
    assert main(["generate", "DIR", "2, 40 41", "--ids"]) == 0
    assert fake.asked["prompt"] == [2, 40, 41]
    assert fake.asked["never"] == []
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("Wärum?".encode())))
    assert main(["generate", "DIR", "-"]) == 0
    assert fake.asked["prompt"] == render(TOKENIZER, [{"role": "user", "content": "Wärum?"}]).ids
    assert main(["generate", "DIR", "Why?", "--no-thinking"]) == 0
    assert fake.asked["prompt"] == render(TOKENIZER, [{"role": "user", "content": "Why?"}], enable_thinking=False).ids


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
    assert fake.asked == {}, "said before anything is loaded"


def test_bad_standard_input(scripted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    scripted("ok")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"caf\xe9")))
    assert main(["generate", "DIR", "-"]) == 2
    assert "standard input is not UTF-8" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["generate", "DIR", "-"]) == 2
    assert "standard input is closed" in capsys.readouterr().err
