"""A prepared directory, open for reading: a manifest, and shards that count as one list of documents.

Written by `data.prepare`, read by `data.loader`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zaya import config
from zaya.data.shards import Shard
from zaya.data.trim import TrimCounts
from zaya.errors import ConfigError, DataError

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a prepared directory holds, and what it was made from."""

    key: str
    """Hash of everything that decides the contents: settings, tokenizer and source."""
    source: str
    """What the documents were read from, in words."""
    source_digest: str
    """Hash of all documents that were read."""
    tokenizer: str
    """Digest of the tokenizer."""
    conversations: bool
    """Whether the documents are conversations, which carry masks and are never split."""
    context: int | None
    """Tokens that conversations were trimmed to."""
    documents: int
    """Documents in the shards: those of this split that were not dropped."""
    other_split: int
    """Documents that were read and belong to the other split."""
    tokens: int
    trimming: TrimCounts
    """What became of conversations that were too long."""
    shards: tuple[str, ...]
    """Names of the shards, in the order of their documents."""


class Dataset:
    """Documents as ids."""

    def __init__(self, directory: str | Path, *, verify: bool = False) -> None:
        """Open a prepared directory; with `verify` read all of it and hold it against its checksums.

        Raises DataError where the directory is not one, or is damaged.
        """
        self.directory = Path(directory)
        manifest = read_manifest(self.directory)
        if manifest is None:
            raise DataError(f"{self.directory} is not a prepared dataset: it has no {MANIFEST}")
        self.manifest = manifest
        self.shards = [Shard(self.directory / name, verify=verify) for name in manifest.shards]
        for shard in self.shards:
            if shard.info.tokenizer != manifest.tokenizer:
                raise DataError(f"{shard.stem} was made with another tokenizer than {MANIFEST} says")
        self._first = np.cumsum([0, *map(len, self.shards)])
        if self._first[-1] != manifest.documents:
            raise DataError(f"{self.directory} holds {self._first[-1]} documents; expected {manifest.documents}")

    def __len__(self) -> int:
        return self.manifest.documents

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Ids [start, stop) of a document, int32; fewer where the document ends before. A view of the file."""
        shard, number = self._find(document)
        return shard.tokens(number, start, stop)

    def mask(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray | None:
        """The mask bytes of the same ids (see `data.masks`); None for plain text."""
        shard, number = self._find(document)
        return shard.mask(number, start, stop)

    def _find(self, document: int) -> tuple[Shard, int]:
        at = int(np.searchsorted(self._first, document, side="right")) - 1
        return self.shards[at], document - int(self._first[at])


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a prepared directory, None where there is none. Raises DataError where it is damaged."""
    path = directory / MANIFEST
    try:
        return config.from_mapping(Manifest, json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, AttributeError, TypeError, ConfigError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="remove the directory and prepare it again") from error
