"""Promises of data/sources:

1. The standard library is the running one's: sources and topics, never tests, never what was installed.
2. Every source gives the same documents in the same order, and its fingerprint knows when one has changed.
3. A folder without files, and a line of another shape, is one error that says where.
4. What is held out depends on content alone, and a question's replies stay together.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zaya.data.sources import (
    Conversation,
    ConversationLines,
    InMemory,
    Source,
    StandardLibrary,
    Text,
    TextFolder,
    TextLines,
    fingerprint,
    is_held_out,
)
from zaya.errors import DataError


@pytest.fixture(scope="module")
def library() -> list[Text]:
    return list(StandardLibrary())


def test_the_standard_library(library: list[Text]):
    by_name = {document.name: document.text for document in library}
    assert len(by_name) == len(library)
    assert Path(json.__file__).read_text(encoding="utf-8") == by_name["json/__init__.py"]
    assert "assert" in by_name["pydoc_data/topics:assert"]
    assert "pydoc_data/topics.py" not in by_name
    folders = {part for name in by_name for part in Path(name).parts[:-1]}
    assert not folders & {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    sources = [name for name in by_name if name.endswith(".py")]
    assert sources == sorted(sources)
    assert "unittest/case.py" in sources
    assert fingerprint(StandardLibrary()).hex == fingerprint(InMemory(library)).hex


def test_files_of_the_standard_library_can_be_left_out(library: list[Text]):
    names = {document.name for document in StandardLibrary(exclude=("encodings/*", "*/__init__.py", "this.py"))}
    every = {document.name for document in library}
    assert {"encodings/utf_8.py", "json/__init__.py", "this.py"} <= every
    out = {name for name in every if name.startswith("encodings/") or name.endswith("/__init__.py")} | {"this.py"}
    assert names == every - out


def test_a_folder_of_text(tmp_path: Path):
    for name, text in {
        "b.txt": "B",
        "a/z.md": "Z",
        "a.md": "é",
        "x.bin": "no",
        ".git/y.txt": "no",
        "e.txt": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "folder.txt").mkdir()
    found = [Text("a.md", "é"), Text("a/z.md", "Z"), Text("b.txt", "B"), Text("e.txt", "")]
    assert list(TextFolder(tmp_path)) == found
    assert list(TextFolder(tmp_path, (".bin",))) == [Text("x.bin", "no")]


def test_lines_of_a_file_and_of_a_folder(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text('{"text": "A", "id": 1}\n\n{"text": "B"}\n')
    assert list(TextLines(tmp_path / "t.jsonl")) == [Text("t.jsonl:1", "A"), Text("t.jsonl:3", "B")]
    assert list(TextLines(tmp_path)) == [Text("t.jsonl:1", "A"), Text("t.jsonl:3", "B")]
    messages = [{"role": "user", "content": "Q"}]
    (tmp_path / "t.jsonl").write_text(json.dumps({"messages": messages, "tools": [{"name": "f"}]}) + "\n")
    assert list(ConversationLines(tmp_path)) == [Conversation("t.jsonl:1", messages, [{"name": "f"}])]


def test_empty_and_missing_folders(tmp_path: Path):
    for source in (TextFolder(tmp_path), TextLines(tmp_path), ConversationLines(tmp_path)):
        with pytest.raises(DataError, match="holds no file that ends with"):
            list(source)
    with pytest.raises(DataError, match="no such folder"):
        list(TextFolder(tmp_path / "missing"))
    with pytest.raises(DataError, match="no such folder"):
        list(TextLines(tmp_path / "missing.jsonl"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"t\.jsonl:2 is not JSON"),
        ("[" * 100_000, r"t\.jsonl:2 is not JSON"),
        ("[]", r"t\.jsonl:2 must be an object: list"),
        ('{"txt": "A"}', r"t\.jsonl:2 has no text"),
        ('{"text": 3}', r"t\.jsonl:2 has no text"),
    ],
)
def test_lines_of_another_shape(tmp_path: Path, line: str, said: str):
    (tmp_path / "t.jsonl").write_text('{"text": "A"}\n' + line)
    with pytest.raises(DataError, match=said):
        list(TextLines(tmp_path))


def test_text_of_another_encoding(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xff")
    (tmp_path / "a.jsonl").write_bytes(b"\xff\n")
    for source in (TextFolder(tmp_path), TextLines(tmp_path)):
        with pytest.raises(DataError, match=r"a\..* cannot be read") as error:
            list(source)
        assert error.value.hint == "text must be UTF-8"


def test_a_fingerprint_knows_names_contents_and_order():
    a, b = Text("a", "A"), Text("b", "B")
    sources: list[Source] = [
        InMemory([a, b]), InMemory([b, a]), InMemory([a]), InMemory([a, Text("b", "C")]), InMemory([a, Text("c", "B")]),
        InMemory([Text("aA", ""), b]), InMemory([Conversation("a", [])]), InMemory([Conversation("a", [], [])]),
    ]  # fmt: skip
    assert len({fingerprint(source).hex for source in sources}) == len(sources)
    assert fingerprint(InMemory([Text("a", "A"), b])).hex == fingerprint(sources[0]).hex
    assert fingerprint(sources[0]).documents == 2


def test_about_the_asked_fraction_is_held_out():
    documents = [Text(str(i), f"text {i}") for i in range(4000)]
    held_out = sum(is_held_out(document, 0.1) for document in documents)
    assert 400 - 100 < held_out < 400 + 100  # five standard deviations
    assert not any(is_held_out(document, 0.0) for document in documents)
    # a smaller fraction holds out a part of what a larger one does
    assert all(is_held_out(d, 0.2) for d in documents if is_held_out(d, 0.1))


def test_names_and_replies_do_not_decide_what_is_held_out():
    for i in range(50):
        assert is_held_out(Text("here", f"{i}"), 0.5) == is_held_out(Text("there", f"{i}"), 0.5)
        question = {"role": "user", "content": f"{i}"}
        replies = [[question], [question, {"role": "assistant", "content": "A"}]]
        replies.append([*replies[1], {"role": "user", "content": "and?"}])
        replies[2][1] = {"role": "assistant", "content": "B", "reasoning": "R"}
        assert len({is_held_out(Conversation("c", messages), 0.5) for messages in replies}) == 1
