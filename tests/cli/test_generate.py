"""zaya generate with a model that says what the test wants.

1. Every option reaches the engine, and what cannot work is refused before anything is loaded, with one error.
2. Standard output has what was drawn, without the token or the stop string that ended it; several answers are told
   apart. Standard error has the last line: what it took.
3. An answer with a structure is for programs: standard output has nothing but the answers.
4. Interrupted, it ends with 130, what was printed stays, and nothing more is drawn.
"""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.fakes import EMBEDDED, TOKENIZER, Scripted, Terminal
from zaya.cli import main
from zaya.engine.types import Structure
from zaya.envs.answers import INSTRUCTION
from zaya.text import render

END = TOKENIZER.eos_id


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch):
    def script(*texts: str | list[int], max_positions: int = 4096) -> Scripted:
        return Scripted(*texts, max_positions=max_positions).install(monkeypatch)

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


def test_every_option_reaches_the_engine(scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, threads = scripted("ok"), []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    options = {
        "min-p": 0.1, "repetition-penalty": 1.5, "presence-penalty": -0.5, "frequency-penalty": 0.25, "think-budget": 9,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words += ["--stop", "a", "--stop", "b c", "-n", "3", "--threads", "7", "--quantize", "int4"]
    assert main(["generate", "DIR", "Why?", *words, "--kv", "int8", "--deterministic"]) == 0
    [asked] = fake.asked
    assert {name.replace("-", "_"): value for name, value in options.items()}.items() <= asked.items()
    assert (asked["stop"], asked["n"]) == (("a", "b c"), 3)
    assert fake.made == {"max_batch": 3, "kv_dtype": "int8", "speculate": 0, "deterministic": True}
    assert (fake.loaded["quantize"], threads) == ("int4", [7])
    assert main(["generate", "DIR", "Why?", "--speculate", "4"]) == 0
    assert fake.made == {"max_batch": 1, "kv_dtype": "model", "speculate": 4, "deterministic": False}
    assert threads == [7], "it is left to PyTorch"


@pytest.mark.parametrize(
    ("words", "kind", "value"),
    [
        (["--json", "FILE"], "json", {"type": "integer"}),
        (["--regex", "[0-9]+"], "regex", "[0-9]+"),
        (["--choice", "yes", "--choice", "no"], "choice", ["yes", "no"]),
    ],
)
def test_structures(
    scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], kind: str, value: object
) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"type": "integer"}))
    fake = scripted("hm\n</think>\n\n12", "</think>3")
    words = [str(file) if word == "FILE" else word for word in words]
    assert main(["generate", "DIR", "Why?", *words, "-n", "2"]) == 0
    assert fake.asked[0]["structure"] == {
        "kind": kind, "value": value, "require_call": False, "parallel_calls": True, "answer_schema": None,
    } == asdict(Structure(kind=kind, value=value))  # fmt: skip
    out, err = capsys.readouterr()
    assert out == "12\n3\n", "nothing but the answers"
    assert err.startswith("[1/2]\nhm\n\n\n[2/2]\nloaded in ")
    scripted("hm")
    assert main(["generate", "DIR", "Why?", *words]) == 0
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", "hm"), "there is no answer"


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
    assert main(["generate", "x" * 4000 + "\0", "--raw"]) == 0, "no name of a file at all"


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


def test_several_answers(scripted, capsys: pytest.CaptureFixture[str]) -> None:
    scripted("a long thought</think>one", "</think>two", "</think>and three")
    assert main(["generate", "DIR", "Why?", "-n", "3"]) == 0
    out, err = capsys.readouterr()
    assert out == "[1/3]\na long thought\n\none\n\n[2/3]\ntwo\n\n[3/3]\nand three\n"
    drawn = len("a long thought") + 1 + 3 + 1 + 3 + 1 + 9
    assert f", {drawn} tokens in 3 answers, " in err
    scripted([40, 41, END], [42, END])
    assert main(["generate", "DIR", "7 8", "-n", "2", "--ids"]) == 0
    assert capsys.readouterr().out == f"40 41 {END} \n42 {END} \n", "a line each"


def test_a_stop_string_is_not_shown(scripted, capsys: pytest.CaptureFixture[str]) -> None:
    for text, shown in {
        "hm</think>\n\nYes STOP no": "hm\n\nYes \n",
        "hmSTOP</think>Yes": "hm\n",
        "hm</think>YesSTO": "hm\n\nYesSTO\n",
    }.items():
        scripted(text)
        assert main(["generate", "DIR", "Why?", "--stop", "STOP"]) == 0
        assert capsys.readouterr().out == shown
    scripted("\n  return\n\nSTOP")
    assert main(["generate", "DIR", "def f():", "--raw", "--stop", "\n\n"]) == 0
    assert capsys.readouterr().out == "\n  return\n", "a text goes on with its own newlines"


def test_the_last_line(scripted, capsys: pytest.CaptureFixture[str]) -> None:
    scripted([*TOKENIZER.encode("hm</think>Yes", bos=False), END])
    assert main(["generate", "DIR", "Why?"]) == 0
    prompt = len(render(TOKENIZER, [{"role": "user", "content": "Why?"}]).ids)
    speed = r"first token after \d+\.\d\d s, 7 tokens, [\d.]+ a second\n"
    assert re.fullmatch(rf"loaded in \d+\.\d s, {prompt} prompt tokens, {speed}", capsys.readouterr().err)
    assert main(["generate", "DIR", "Why?", "--quantize", "int8"]) == 0
    expected = rf"loaded in \d+\.\d s, weights in 4 kB, {prompt} prompt tokens, {speed}"
    assert re.fullmatch(expected, capsys.readouterr().err)
    scripted([END])
    assert main(["generate", "DIR", "7", "--ids"]) == 0
    end = r"1 prompt token, first token after \d+\.\d\d s, 1 token\n"
    assert re.fullmatch(rf"loaded in \d+\.\d s, {end}", capsys.readouterr().err)


def test_what_was_cut_is_said(scripted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def said() -> list[str]:
        return capsys.readouterr().err.splitlines()[:-1]

    scripted("hm</think>Yes", "</think>Y")
    assert main(["generate", "DIR", "Why?", "--max-tokens", "2"]) == 0
    assert said() == ["(cut after 2 tokens; --max-tokens allows more, --think-budget brings the answer sooner)"]
    scripted("hm</think>Yes", "</think>Y")
    assert main(["generate", "DIR", "Why?", "--max-tokens", "4", "-n", "2"]) == 0
    assert said() == ["(1 of 2 cut after 4 tokens; --max-tokens allows more)"]
    room = 5
    prompt = len(render(TOKENIZER, [{"role": "user", "content": "Why?"}]).ids)
    fake = scripted("hm</think>Yes", max_positions=prompt + room)
    assert main(["generate", "DIR", "Why?"]) == 0
    assert said() == [f"(cut: the context of {prompt + room} tokens is full)"]
    assert fake.asked[0]["max_tokens"] == room
    fake = scripted("ok", max_positions=prompt)
    assert main(["generate", "DIR", "Why?"]) == 2
    assert capsys.readouterr().err == (
        f"error: the prompt has {prompt} tokens, and the model's context holds {prompt}\n"
        "hint: shorten it: an answer needs room as well\n"
    )
    assert fake.asked == []


def test_interrupted(scripted, capsys: pytest.CaptureFixture[str]) -> None:
    fake = scripted("hm</think>Yes")

    def interrupt(count: int) -> None:
        if count == 4:
            raise KeyboardInterrupt

    fake.before = interrupt
    assert main(["generate", "DIR", "Why?"]) == 130
    assert capsys.readouterr() == ("hm\n\nY\n", "interrupted\n")
    assert fake.closed == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--raw", "--system", "x"], "belong to the chat format"),
        (["--ids", "--no-thinking"], "belong to the chat format"),
        (["--raw", "--ids"], "not allowed with"),
        (["--max-tokens", "0"], "--max-tokens must be at least 1: 0"),
        (["--max-tokens", "ten"], "argument --max-tokens: invalid int value: 'ten'"),
        (["--temperature", "-1"], "--temperature must not be negative: -1.0"),
        (["--temperature", "nan"], "--temperature must be a finite number: nan"),
        (["--top-p", "0"], "--top-p must be above 0 and at most 1: 0.0"),
        (["--top-k", "0"], "--top-k must be at least 1: 0"),
        (["--min-p", "1.5"], "--min-p must be from 0 to 1: 1.5"),
        (["--repetition-penalty", "0"], "--repetition-penalty must be above 0: 0.0"),
        (["--presence-penalty", "inf"], "--presence-penalty must be a finite number: inf"),
        (["--think-budget", "-1"], "--think-budget must not be negative: -1"),
        (["--think-budget", "1", "--no-thinking"], "--think-budget is for thinking, and --no-thinking asks for none"),
        (["--think-budget", "1", "--ids"], "--think-budget needs text, and --ids does without"),
        (["--stop", ""], "--stop needs a text"),
        (["--stop", "a", "--ids"], "--stop needs text, and --ids does without"),
        (["--stop", "\udcff"], r"argument --stop: this is not UTF-8: '\udcff'"),
        (["-n", "0"], "-n must be at least 1: 0"),
        (["-n", "2", "--temperature", "0"], "-n 2 with --temperature 0 gives the same answer 2 times"),
        (["--threads", "0"], "--threads must be at least 1: 0"),
        (["--speculate", "-1"], "--speculate must not be negative: -1"),
        (["--speculate", "2", "--deterministic"], "--deterministic may read every token in a pass of its own"),
        (["--speculate", "2", "--choice", "a"], "--speculate saves nothing where an answer has a structure"),
        (["--kv", "int4"], "argument --kv: invalid choice: 'int4'"),
        (["--choice", "a", "--regex", "b"], "argument --regex: not allowed with argument --choice"),
        (["--choice", "a", "--ids"], "a structure needs text, and --ids does without"),
        (["--choice", "a", "--choice", ""], "--choice needs a text, and this one is empty"),
        (["--regex", ""], "--regex needs an expression, and this one is empty"),
        (["--regex", "("], "--regex '(' cannot be held: unclosed group"),
        (["--json", "none.json"], "--json names a file that holds a JSON schema, and there is no such file: none.json"),
        (["--json", "{}"], "--json names a file that holds a JSON schema, and there is no such file: {}"),
    ],
)
def test_what_is_refused(scripted, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    fake = scripted("ok")
    assert main(["generate", "DIR", "1", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("error: "), fake.loaded, fake.asked) == ("", 1, {}, []), "said before anything is loaded"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "is not JSON: Expecting property name"),
        ("[1]", "a JSON schema is an object"),
        ('{"type": "objct"}', "cannot be held: Invalid type: objct\nhint: correct it"),
        ('{"minimum": 5, "maximum": 3, "type": "integer"}', "cannot be held: Unsatisfiable schema"),
    ],
)
def test_bad_schemas(scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str], schema: str, message: str) -> None:
    fake, file = scripted("ok"), tmp_path / "schema.json"
    file.write_text(schema)
    assert main(["generate", "DIR", "1", "--json", str(file)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert str(file) in err
    assert fake.loaded == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["DIR", ""], "the prompt is empty"),
        (["DIR", " \n"], "the prompt is empty"),
        (["DIR", "", "--ids"], "the prompt is empty"),
        (["DIR", "1 x", "--ids"], "--ids takes numbers: '1 x'"),
        (["DIR", "\udcff"], r"argument PROMPT: this is not UTF-8: '\udcff'"),
        ([], "the following arguments are required: PROMPT"),
        (["What", "is", "that?"], "unrecognized arguments: that?\nhint: put a text of several words in quotes"),
        (["DIR", "1", "--max-token", "5"], "--max-token 5\nhint: did you mean --max-tokens? see zaya generate --help"),
        (["DIR", "1", "--quantise=int8"], "--quantise=int8\nhint: did you mean --quantize? see zaya generate --help"),
    ],
)
def test_bad_prompts_and_misspelt_options(
    scripted, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    fake = scripted("ok")
    assert main(["generate", *words]) == 2
    assert message in capsys.readouterr().err
    assert fake.loaded == {}
    assert main(["generate", "DIR", "", "--raw"]) == 0, "a text may begin with nothing"


def test_bad_standard_input(scripted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    scripted("ok")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"caf\xe9")))
    assert main(["generate", "DIR", "-"]) == 2
    assert "standard input is not UTF-8" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["generate", "DIR", "-"]) == 2
    assert "standard input is closed" in capsys.readouterr().err
