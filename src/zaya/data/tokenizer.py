"""A tokenizer learned from the sources that a model will learn from, in a directory that appears whole.

The same sources and size give the same files, and where those are there nothing is done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from zaya.core.files import new_directory
from zaya.data.sources import Source, Text, fingerprint
from zaya.errors import DataError
from zaya.text import train_tokenizer

_FORMAT = 1
_MANIFEST = "manifest.json"
_LEARNED = ("reasoning", "reasoning_content", "content")  # keys of a message


def make_tokenizer(sources: Sequence[Source], size: int, directory: str | Path, *, overwrite: bool = False) -> Path:
    """A byte tokenizer of `size` tokens with merges learned from all sources, in `directory`; the directory.

    Of a conversation its contents and reasonings are learned from. Each source is read twice. Raises DataError where
    the sources hold nothing, and where `directory` holds something else and `overwrite` is not set; UsageError for a
    size that is too small.
    """
    directory = Path(directory)
    known = [fingerprint(source) for source in sources]
    if not any(found.documents for found in known):
        raise DataError("there is nothing to learn a tokenizer from: the sources have no documents")
    parts = {"format": _FORMAT, "size": size, "sources": [found.hex for found in known]}
    key = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
    made = _key_of(directory)
    if made == key:
        return directory
    if made is not None and not overwrite:
        raise DataError(
            f"{directory} holds a tokenizer of other sources or another size",
            hint="choose another directory, or ask to overwrite",
        )
    tokenizer = train_tokenizer((text for source in sources for text in _texts(source)), size)
    with new_directory(directory, overwrite=overwrite) as partial:
        tokenizer.save(partial)
        manifest = {"key": key, **parts, "tokens": tokenizer.size, "digest": tokenizer.digest}
        (partial / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return directory


def _texts(source: Source) -> Iterator[str]:
    for document in source:
        if isinstance(document, Text):
            yield document.text
            continue
        for message in document.messages:
            yield from (value for part in _LEARNED if isinstance(value := message.get(part), str))


def _key_of(directory: Path) -> str | None:
    """What the tokenizer of a directory was made from; None where there is no manifest that says it."""
    try:
        return str(json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
