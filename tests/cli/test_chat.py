"""zaya chat.

1. What was sampled stays as it was: a question's prompt is the conversation's ids and those that follow its end.
2. Ctrl-C ends an answer and not the session; what was cut or stopped is closed before the next question.
3. A full context is said, with what to do; the conversation is as it was. From a pipe it ends the command.
4. Questions come from a pipe as they do from a terminal, and there is no prompt in what is printed.
5. The embedded model, and no other, is asked with the instruction of its training.
"""

from __future__ import annotations

import io
import signal
import sys
from types import SimpleNamespace

import pytest

from tests.cli.fakes import EMBEDDED, TOKENIZER, Scripted, Terminal
from zaya.cli import main
from zaya.envs.answers import INSTRUCTION
from zaya.text import render, render_next

END = TOKENIZER.tags.turn_close
assert END is not None
YES = [*TOKENIZER.encode("hm\n</think>\n\nYes", bos=False), END]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def piped(monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> Terminal:
    """A session at a terminal, ended by Ctrl-D; an exception is what a key raises. Returns the screen."""
    screen, waiting = Terminal(), iter([*lines, EOFError])

    def answer(prompt: str) -> str:
        print(prompt, end="")
        line = next(waiting)
        if not isinstance(line, str):
            raise line
        return line

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_turns_are_ids(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # ids that no encoding of their text gives: the first byte of a character, and another end
    odd = [TOKENIZER.encode("é", bos=False)[0], *TOKENIZER.encode("m</think>", bos=False), 5]
    fake = Scripted(odd, YES).install(monkeypatch)
    piped(monkeypatch, "One?\n\n  Two?  \nThree?")
    options = ["--system", "Be brief.", "--temperature", "0.5", "--top-p", "0.25", "--seed", "3", "--max-tokens", "99"]
    assert main(["chat", "DIR", *options]) == 0
    first, second, third = fake.asked
    system = {"role": "system", "content": "Be brief."}
    assert first["prompt"] == render(TOKENIZER, [system, *user("One?")]).ids
    assert second["prompt"] == [*first["prompt"], *odd, END, *render_next(TOKENIZER, user("Two?")).ids]
    assert third["prompt"] == [*second["prompt"], *YES, *render_next(TOKENIZER, user("Three?")).ids]
    assert {"temperature": 0.5, "top_p": 0.25, "max_tokens": 99}.items() <= first.items()
    assert len({call["seed"] for call in fake.asked}) == 3, "the same question twice has two answers"
    assert {"path": "DIR", "dtype": "bfloat16"}.items() <= fake.loaded.items()
    assert capsys.readouterr().out == "\ufffdm\n" + "hm\n\nYes\n" + "\ufffdm\n", "no prompt, no welcome"


def test_options_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Scripted(YES).install(monkeypatch)
    piped(monkeypatch, "One?")
    options = ["--top-k", "7", "--min-p", "0.1", "--repetition-penalty", "1.5", "--stop", "a", "--think-budget", "9"]
    assert main(["chat", "DIR", *options, "--kv", "int8", "--speculate", "4"]) == 0
    [asked] = fake.asked
    assert {"top_k": 7, "min_p": 0.1, "repetition_penalty": 1.5, "stop": ("a",), "think_budget": 9}.items() <= (
        asked.items()
    )
    assert fake.made == {"max_batch": 1, "kv_dtype": "int8", "speculate": 4, "deterministic": False}


def test_a_stop_string_is_not_shown_and_stays_in_the_conversation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = Scripted("hm</think>\n\nYes STOP and more").install(monkeypatch)
    piped(monkeypatch, "One?\nTwo?")
    assert main(["chat", "DIR", "--stop", "STOP"]) == 0
    assert capsys.readouterr() == ("hm\n\nYes \n" * 2, ""), "it is not cut: it has ended"
    first, second = fake.asked
    drawn = TOKENIZER.encode("hm</think>\n\nYes STOP", bos=False)
    assert second["prompt"] == [*first["prompt"], *drawn, END, *render_next(TOKENIZER, user("Two?")).ids]


def test_no_thinking(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Scripted(YES[3:]).install(monkeypatch)
    piped(monkeypatch, "One?\nTwo?")
    assert main(["chat", "DIR", "--no-thinking"]) == 0
    first, second = fake.asked
    assert first["prompt"] == render(TOKENIZER, user("One?"), enable_thinking=False).ids
    after = render_next(TOKENIZER, user("Two?"), enable_thinking=False).ids
    assert second["prompt"][-len(after) :] == after


def test_ctrl_c_stops_the_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Scripted(YES).install(monkeypatch)

    def interrupt(count: int) -> None:
        if len(fake.asked) == 1 and count == 1:
            signal.raise_signal(signal.SIGINT)

    fake.before = interrupt
    handler = signal.getsignal(signal.SIGINT)
    screen = typed(monkeypatch, KeyboardInterrupt, "One?", "Two?")
    assert main(["chat", "DIR"]) == 0
    assert "> \nCtrl-D or /exit leaves.\n> hm\n(stopped)\n\n> hm\n\nYes\n\n> \n" in screen.getvalue()
    assert fake.closed == 2
    assert signal.getsignal(signal.SIGINT) == handler
    first, second = fake.asked
    closing = [*YES[:2], *TOKENIZER.encode("\n</think>\n\n", bos=False), END]
    assert second["prompt"] == [*first["prompt"], *closing, *render_next(TOKENIZER, user("Two?")).ids]


def test_ctrl_c_ends_a_session_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Scripted(YES).install(monkeypatch)

    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    fake.before = interrupt
    piped(monkeypatch, "One?\nTwo?")
    assert main(["chat", "DIR"]) == 130
    assert len(fake.asked) == 1


def test_an_answer_that_is_cut_is_closed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Scripted(YES).install(monkeypatch)
    piped(monkeypatch, "One?\nTwo?")
    budget = len(YES) - 2
    assert main(["chat", "DIR", "--max-tokens", str(budget)]) == 0
    first, second = fake.asked
    after = render_next(TOKENIZER, user("Two?")).ids
    assert second["prompt"] == [*first["prompt"], *YES[:budget], END, *after], "its thinking was closed already"
    assert f"(cut after {budget} tokens; --max-tokens allows more)" in capsys.readouterr().err


def test_the_context_is_full(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    begun = len(render(TOKENIZER, user("One?")).ids)
    follows = len(render_next(TOKENIZER, user("Two?")).ids)
    size = begun + len(YES) + follows  # the second question fits, and no answer to it
    fake = Scripted(YES, max_positions=size).install(monkeypatch)
    screen = typed(monkeypatch, "One?", "Two?", "Two?", "/new", "One?", "x" * size)
    assert main(["chat", "DIR"]) == 0
    assert [call["prompt"] for call in fake.asked] == [render(TOKENIZER, user("One?")).ids] * 2
    assert [call["max_tokens"] for call in fake.asked] == [len(YES) + follows] * 2
    shown = " ".join(screen.getvalue().split())
    full = f"error: the context is full: with this question the conversation has {size} tokens, and the model holds"
    assert shown.count(f"{full} {size} hint: /new forgets what was said") == 2
    assert max(map(len, screen.getvalue().splitlines())) <= 40
    typed(monkeypatch)
    monkeypatch.undo()
    Scripted(YES, max_positions=size).install(monkeypatch)
    piped(monkeypatch, "x" * size + "\nOne?")
    assert main(["chat", "DIR"]) == 2
    assert capsys.readouterr().err.endswith("hint: ask a shorter question\n")


def test_an_answer_that_fills_the_context(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    size = len(render(TOKENIZER, user("One?")).ids) + 3
    Scripted(YES, max_positions=size).install(monkeypatch)
    piped(monkeypatch, "One?")
    assert main(["chat", "DIR"]) == 0
    assert capsys.readouterr().err == f"(cut: the context of {size} tokens is full; /new forgets what was said)\n"


def test_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Scripted(YES).install(monkeypatch)
    screen = typed(monkeypatch, "One?", "/new", "One?", "/nwe", "/help", "", "/exit", "Two?")
    assert main(["chat", "DIR"]) == 0
    assert [call["prompt"] for call in fake.asked] == [render(TOKENIZER, user("One?")).ids] * 2
    assert fake.asked[0]["seed"] != fake.asked[1]["seed"]
    shown = screen.getvalue()
    assert "error: there is no /nwe\nhint: did you mean /new?\n" in shown
    assert "  /exit   leave, as Ctrl-D does\n" in shown
    assert max(map(len, shown.splitlines())) <= 40


def test_the_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Scripted(YES).install(monkeypatch)
    piped(monkeypatch, "What is 1 + 2?")
    assert main(["chat"]) == 0
    assert {"path": EMBEDDED, "dtype": "float32"}.items() <= fake.loaded.items()
    assert fake.asked[0]["prompt"] == render(TOKENIZER, user(f"What is 1 + 2?\n{INSTRUCTION}")).ids
    screen = typed(monkeypatch)
    assert main(["chat", "--dtype", "bfloat16"]) == 0
    assert fake.loaded["dtype"] == "bfloat16"
    assert screen.getvalue().startswith("Micro ZAYA, ")
    assert max(map(len, screen.getvalue().splitlines())) <= 40


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Scripted(YES).install(monkeypatch)
    piped(monkeypatch, b"caf\xe9")
    assert main(["chat", "DIR"]) == 2
    assert "standard input is not UTF-8" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["chat", "DIR"]) == 2
    assert "standard input is closed" in capsys.readouterr().err
    fake.loaded = {}
    for wrong in (["--max-tokens", "0"], ["--think-budget", "5", "--no-thinking"], ["--threads", "0"], ["--json", "f"]):
        assert main(["chat", "DIR", *wrong]) == 2
    assert fake.loaded == {}, "said before anything is loaded"
    monkeypatch.setattr("zaya.model.layouts.load", lambda *_, **__: (None, None))
    assert main(["chat", "DIR"]) == 2
    assert "DIR has no tokenizer files" in capsys.readouterr().err
