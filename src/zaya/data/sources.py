"""Where documents come from: the running Python, folders of text, JSON lines, or a list in memory.

A source gives its documents in the same order each time and says whether they are plain text or conversations. What
it gave is known by a hash of all of it (`fingerprint`). Whether a document is held out is decided by a hash of its
content, never by its place: a corpus may grow or be reordered, and nothing that was held out is trained on. Used by
`data.prepare`.
"""

from __future__ import annotations

import hashlib
import json
import sysconfig
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from zaya.core.jsonl import json_objects
from zaya.errors import DataError


@dataclass(frozen=True, slots=True)
class Text:
    """A plain document."""

    name: str
    """Where it is from, for messages; the same on every machine."""
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages as `zaya.text.render` takes them."""

    name: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None


Document = Text | Conversation


class Source(Protocol):
    """Anything that gives documents, all of one kind, in one order, as often as it is asked."""

    @property
    def conversations(self) -> bool:
        """Whether the documents are conversations; else they are plain text."""
        ...

    def __iter__(self) -> Iterator[Document]: ...


@dataclass(frozen=True, slots=True)
class StandardLibrary:
    """The Python sources of the running interpreter's standard library, and the topics of its language reference.

    Never its test suites, and nothing that was installed into it. Raises DataError where there are no sources.
    """

    exclude: tuple[str, ...] = ()
    """Patterns of files to leave out, as in `encodings/*`; a star reaches over folders."""

    conversations = False

    def __iter__(self) -> Iterator[Text]:
        root = Path(sysconfig.get_path("stdlib"))
        files = [path for path in _files(root, (".py",)) if not self._is_left_out(path.relative_to(root))]
        if not files:
            raise DataError(f"this Python has no standard library in source form: {root}")
        for path in files:
            try:
                with tokenize.open(path) as stream:  # sources may declare an encoding
                    yield Text(path.relative_to(root).as_posix(), stream.read())
            except (OSError, SyntaxError, UnicodeDecodeError) as error:
                raise DataError(f"{path} cannot be read: {error}") from error
        for name, text in sorted(_topics().items()):
            yield Text(f"{_TOPICS}:{name}", text)

    def _is_left_out(self, path: Path) -> bool:
        return _is_no_library(path) or any(fnmatchcase(path.as_posix(), pattern) for pattern in self.exclude)


@dataclass(frozen=True, slots=True)
class TextFolder:
    """Every text file below a folder, in the order of their paths; hidden files and folders are left out.

    Raises DataError where there is none, and for a file that is not UTF-8.
    """

    path: Path
    suffixes: tuple[str, ...] = (".txt", ".md", ".rst", ".py")

    conversations = False

    def __iter__(self) -> Iterator[Text]:
        for path in _some_files(self.path, self.suffixes):
            try:
                yield Text(path.relative_to(self.path).as_posix(), path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path} cannot be read: {error}", hint="text must be UTF-8") from error


@dataclass(frozen=True, slots=True)
class TextLines:
    """JSON lines with a string `text`, of one file or of every .jsonl file below a folder. Other keys are ignored.

    Raises DataError where there is no file, and for a line of another shape.
    """

    path: Path

    conversations = False

    def __iter__(self) -> Iterator[Text]:
        for name, value in _json_lines(self.path):
            if not isinstance(value.get("text"), str):
                raise DataError(f"{name} has no text", hint='each line is {"text": "..."}')
            yield Text(name, value["text"])


@dataclass(frozen=True, slots=True)
class ConversationLines:
    """JSON lines with `messages`, and perhaps `tools`, of one file or of every .jsonl file below a folder.

    Other keys are ignored. Raises DataError where there is no file, and for a line of another shape.
    """

    path: Path

    conversations = True

    def __iter__(self) -> Iterator[Conversation]:
        for name, value in _json_lines(self.path):
            if not isinstance(value.get("messages"), list):
                raise DataError(f"{name} has no messages", hint='each line is {"messages": [{"role": ...}, ...]}')
            yield Conversation(name, value["messages"], value.get("tools"))


@dataclass(frozen=True, slots=True)
class InMemory:
    """Documents that a program made, such as procedural tasks."""

    documents: Sequence[Document]

    @property
    def conversations(self) -> bool:
        # all documents are of one kind, which who reads them checks
        return isinstance(next(iter(self.documents), None), Conversation)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)


class Fingerprint:
    """A hash of documents in their order, taken as they pass by."""

    def __init__(self) -> None:
        self.documents = 0
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, document: Document) -> None:
        """Take in one document, its name included."""
        for part in (document.name, canonical(document)):
            data = part.encode("utf-8", "surrogatepass")
            self._digest.update(f"{len(data)}:".encode())
            self._digest.update(data)
        self.documents += 1

    @property
    def hex(self) -> str:
        return self._digest.hexdigest()


def fingerprint(source: Source) -> Fingerprint:
    """The hash of all that a source gives, which is read once for it."""
    found = Fingerprint()
    for document in source:
        found.add(document)
    return found


def canonical(document: Document) -> str:
    """The content of a document as one string."""
    if isinstance(document, Text):
        return document.text
    return _json({"messages": list(document.messages), "tools": document.tools})


def is_held_out(document: Document, fraction: float) -> bool:
    """Whether a document belongs to the held-out part, which is about that fraction of all.

    A conversation is known by what stands before the first assistant's turn, so that two replies to one question are
    never on different sides.
    """
    if isinstance(document, Text):
        content = document.text
    else:
        roles = [message.get("role") if isinstance(message, Mapping) else None for message in document.messages]
        content = _json(document.messages[: roles.index("assistant") if "assistant" in roles else None])
    digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8, person=b"held out")
    return int.from_bytes(digest.digest(), "big") < fraction * 2**64


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


_TOPICS = "pydoc_data/topics"
_NO_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_bundled"}


def _is_no_library(path: Path) -> bool:
    # The file of topics is program text around the documents that it gives itself; config-* describes one build.
    in_folders = any(part in _NO_LIBRARY or part.startswith("config-") for part in path.parts[:-1])
    return in_folders or path.with_suffix("").as_posix() == _TOPICS or path.name.startswith("_sysconfigdata")


def _topics() -> dict[str, str]:
    try:
        return import_module("pydoc_data.topics").topics
    except ImportError:  # some systems leave it out
        return {}


def _files(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    found = (path for path in root.rglob("*") if path.suffix in suffixes and path.is_file())
    visible = (p for p in found if not any(part.startswith(".") for part in p.relative_to(root).parts))
    return sorted(visible, key=lambda path: path.relative_to(root).as_posix())


def _some_files(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"there is no such folder: {root}")
    files = _files(root, suffixes)
    if not files:
        raise DataError(f"the folder {root} holds no file that ends with {' or '.join(suffixes)}")
    return files


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's name, which is file and number, and the object on it. Blank lines are skipped."""
    files = [path] if path.is_file() else _some_files(path, (".jsonl",))
    for file in files:
        name = file.name if file == path else file.relative_to(path).as_posix()
        for number, value in json_objects(file):
            yield f"{name}:{number}", value
