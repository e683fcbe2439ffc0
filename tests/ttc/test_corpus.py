"""Corpora made of tasks.

1. The same settings leave every file untouched; with others only what is made from them is written anew.
2. Each kind of document is what it says, loads as what a recipe names it, and renders.
3. No document holds a held-out problem, and two files practise different ones.
4. A file that was cut is written again; what cannot be made is an error.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zaya.config import from_mapping
from zaya.data.sources import ConversationLines, TextLines
from zaya.envs.arithmetic import ARITHMETIC
from zaya.envs.base import Problem
from zaya.envs.demonstrate import boxed_answer
from zaya.envs.mixture import TaskConfig
from zaya.envs.stream import is_held_out
from zaya.errors import ConfigError, UsageError
from zaya.text import Tokenizer, load_tokenizer, render
from zaya.ttc import corpus
from zaya.ttc.corpus import CorpusConfig, FileConfig, make_corpus

CONFIG = CorpusConfig(
    tasks={"sums": TaskConfig(env="arithmetic", difficulties=(0, 2))},
    files={
        "plain": FileConfig(kind="text", problems=40),
        "slips": FileConfig(kind="text", problems=40, slip=0.5),
        "chat": FileConfig(kind="conversation", problems=30),
        "long": FileConfig(kind="dialogue", problems=41, turns=4),
        "weigh": FileConfig(kind="aggregation", problems=40, slip=0.2, answers=0.4),
    },
    held_out=0.5,
    vocabulary=300,
    library_exclude=("[!j]*",),
    library_share=0.1,
    fan_in=(2, 3),
    tail_tokens=(25, 60),
)


@pytest.fixture(autouse=True, scope="module")
def _few_samples() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "_SAMPLE_TEXTS", 50)
        yield


def make(config: CorpusConfig, directory: Path) -> list[str]:
    notices: list[str] = []
    make_corpus(config, directory, notices.append)
    return notices


def rows(directory: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def times(directory: Path) -> dict[str, int]:
    return {str(p.relative_to(directory)): p.stat().st_mtime_ns for p in directory.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    notices = make(CONFIG, directory)
    assert notices[0] == f"{directory / 'plain.jsonl'}: 40 documents of 40 problems"
    assert len(notices) == 5
    return directory


@pytest.fixture(scope="module")
def tokenizer(made: Path) -> Tokenizer:
    found = load_tokenizer(made / "tokenizer")
    assert found is not None
    assert found.size == 300
    return found


def changed(before: dict[str, int], directory: Path) -> set[str]:
    return {name.removesuffix(".jsonl") for name, time in times(directory).items() if before.get(name) != time}


def test_what_is_there_is_left(made: Path) -> None:
    before = times(made)
    assert make(replace(CONFIG, workers=2), made) == [f"{made / name}.jsonl is there already" for name in CONFIG.files]
    assert times(made) == before


def test_only_what_has_changed_is_written(made: Path, tmp_path: Path) -> None:
    for path in made.rglob("*"):
        target = tmp_path / path.relative_to(made)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    before = times(tmp_path)
    files = CONFIG.files | {
        "chat": replace(CONFIG.files["chat"], slip=0.1),
        "more": FileConfig(kind="text", problems=3),
    }
    config = replace(CONFIG, files=files, tail_tokens=(25, 61))
    (tmp_path / "long.jsonl").write_text('{"made_from": "som')  # as a disk without room may leave it
    make(config, tmp_path)
    assert changed(before, tmp_path) == {"chat", "more", "weigh", "long"}
    assert rows(tmp_path, "long") == rows(made, "long")
    # another seed, task or split is another corpus
    for settings in ({"seed": 1}, {"held_out": 0.4}, {"tasks": {"sums": TaskConfig(env="arithmetic")}}):
        before = times(tmp_path)
        make(replace(config, **settings), tmp_path)
        assert changed(before, tmp_path) >= set(files)


def test_kinds(made: Path, tokenizer: Tokenizer) -> None:
    for name in ("plain", "slips"):
        texts = [document.text for document in TextLines(made / f"{name}.jsonl")]
        assert len(texts) == 40
        wrong = 0
        for text in texts:
            question, instruction, *work, answer = text.split("\n")
            problem = problem_of(question, instruction)
            assert work[-1] == f"So {answer.removeprefix(boxed_answer('')[:-1])[:-1]}."
            wrong += not ARITHMETIC.score(problem, answer).correct
        assert (wrong > 0) == (name == "slips")
    chats = conversations(made, "chat")
    assert all([message["role"] for message in chat] == ["user", "assistant"] for chat in chats)
    assert len(chats) == 30
    dialogues = conversations(made, "long")
    turns = [len(dialogue) // 2 for dialogue in dialogues]
    assert sum(turns) == 41
    assert set(turns[:-1]) == {2, 3, 4}
    assert 1 <= turns[-1] <= 4
    for dialogue in dialogues:
        assert [message["role"] for message in dialogue] == ["user", "assistant"] * (len(dialogue) // 2)
    weighed = conversations(made, "weigh")
    assert 20 < len(weighed) <= 40
    shown = [sum(f"\n\nAttempt {i}:\n" in messages[0]["content"] for i in range(1, 9)) for messages in weighed]
    assert set(shown) == {2, 3}
    blocks = [message[0]["content"].split("\n\n")[2:-1] for message in weighed]
    assert 5 < sum(all("\n\\boxed{" in block for block in some) for some in blocks) < 25
    lengths = {len(tokenizer.encode_plain(block.split(":\n", 1)[1])) for some in blocks for block in some}
    assert any(25 < length <= 61 for length in lengths)  # one more where text was cut inside a token
    assert max(lengths) <= 61
    for messages in (*chats, *dialogues, *weighed):
        for question, reply in zip(messages[::2], messages[1::2], strict=True):
            problem = problem_of(*asked(question["content"]).split("\n"))
            assert ARITHMETIC.score(problem, reply["content"]).correct
        rendered = render(tokenizer, messages)
        text = tokenizer.decode(rendered.ids)
        assert text.count("<think>") == text.count("</think>") == len(messages) // 2
        for message in messages:
            assert message["content"] in text


def test_no_problem_is_held_out_and_files_differ(made: Path) -> None:
    found = {
        name: {text.split("\n\\", 1)[0].rsplit("\n", 1)[0] for text in questions(made, name)} for name in CONFIG.files
    }
    for name, prompts in found.items():
        assert len(prompts) > 20, name
        problems = [problem_of(*prompt.split("\n")) for prompt in prompts]
        assert not any(is_held_out(problem, 0.5) for problem in problems), name
    # half of the problems have two terms, and so few contents that one is met twice now and then
    names = list(found)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            assert len(found[name] & found[other]) < 5, (name, other)


def questions(directory: Path, name: str) -> list[str]:
    """The prompts of all problems in a file, each with one line more."""
    if CONFIG.files[name].kind == "text":
        return ["\n".join([*row["text"].split("\n")[:2], "-"]) for row in rows(directory, name)]
    chats = conversations(directory, name)
    return [asked(message["content"]) + "\n-" for chat in chats for message in chat if message["role"] == "user"]


def conversations(directory: Path, name: str) -> list[Any]:
    return [document.messages for document in ConversationLines(directory / f"{name}.jsonl")]


def asked(content: str) -> str:
    """The problem itself, where attempts stand behind it too."""
    return content.split("\n\n")[1] if "\n\nAttempt 1:" in content else content


def problem_of(question: str, instruction: str) -> Problem:
    """A problem as it is known by its text."""
    assert question.startswith("What is ")
    terms = question.removeprefix("What is ").removesuffix("?").replace(" - ", " -").replace(" + ", " ").split()
    total = sum(map(int, terms))
    return Problem("arithmetic", f"{question}\n{instruction}", {"answer": total}, 0, 0)


def test_a_tokenizer_for_what_will_be_read(tokenizer: Tokenizer) -> None:
    """Sums go digit by digit, and the words around attempts are few tokens."""
    assert [tokenizer.decode([id]) for id in tokenizer.encode_plain("47+38")] == ["4", "7", "+", "3", "8"]
    words = "Here is a problem, then several attempts at it, which may be cut off, wrong or in disagreement."
    assert len(tokenizer.encode_plain(words)) < len(words) / 1.3


def test_what_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_SAMPLE_TEXTS", 20)  # that task has forty
    mapping = {"tasks": {"a": {"env": "arithmetic"}}, "files": {"a": {"kind": "text", "problems": 3}}}
    assert from_mapping(CorpusConfig, mapping).files["a"].problems == 3
    for change, message in (
        ({"files": {}}, "needs tasks and files"),
        ({"tasks": {}}, "needs tasks and files"),
        ({"library_share": 0.0}, "library_share must be above 0"),
        ({"fan_in": []}, r"fan_in lists numbers of at least 1: \[\]"),
        ({"tail_tokens": [40, 0]}, r"tail_tokens lists numbers of at least 1: \[40, 0\]"),
        ({"workers": 0}, "workers must be at least 1: 0"),
        ({"files": {"a": {"kind": "text", "problems": 0}}}, "problems must be at least 1"),
        ({"files": {"a": {"kind": "text", "problems": 1, "slip": 1.5}}}, "slip is a probability: 1.5"),
        ({"files": {"a": {"kind": "text", "problems": 1, "answers": -1}}}, "answers is a probability: -1"),
        ({"files": {"a": {"kind": "texts", "problems": 1}}}, "files.a.kind = 'texts' is not allowed"),
    ):
        with pytest.raises(ConfigError, match=message):
            from_mapping(CorpusConfig, mapping | change)
    untaught = replace(CONFIG, tasks={"a": TaskConfig(env="tests.envs.tasks:SCRIPTED")})
    with pytest.raises(UsageError, match="nobody demonstrates tests"):
        make(replace(untaught, held_out=0.0), tmp_path)
    with pytest.raises(UsageError, match="there is no environment 'sums'"):
        make(replace(CONFIG, tasks={"a": TaskConfig(env="sums")}), tmp_path)
