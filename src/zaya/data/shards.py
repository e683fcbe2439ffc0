"""Token shards: documents as ids on the disk, mapped into memory and never read whole.

A shard is three files, or four where documents carry masks:

    NAME.bin       int32 ids, little-endian, one document after another
    NAME.idx       lengths and byte offsets in Megatron's format, so other tools read the pair too; a sequence for
                   each document
    NAME.mask.bin  one byte per id (see `data.masks`)
    NAME.json      what is in it: counts, checksums, the tokenizer and how documents were trimmed; written last, so a
                   shard without it is none

Ids are int32 because the published vocabulary has 262,272. Source: spec pretraining 6.1. Written by `data.prepare`,
read through `data.dataset`.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from zaya import config
from zaya.core.files import new_file
from zaya.errors import ConfigError, DataError

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_INT32_CODE = 4
_HEADER = np.dtype([("magic", "V9"), ("version", "<u8"), ("dtype", "u1"), ("sequences", "<u8"), ("documents", "<u8")])


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What NAME.json says."""

    documents: int
    tokens: int
    tokenizer: str
    """Digest of the tokenizer that made the ids."""
    context: int | None
    """Tokens that conversations were trimmed to; None where nothing was trimmed."""
    keep_min: int
    """Tokens of reasoning that trimming had to leave."""
    sha256: dict[str, str]
    """Checksum of each of the other files, by what its name ends with."""

    @property
    def masked(self) -> bool:
        """Whether documents carry masks."""
        return ".mask.bin" in self.sha256


class ShardWriter:
    """Takes documents one by one; holds their lengths only."""

    def __init__(self, bin: BinaryIO, mask: BinaryIO | None) -> None:
        self.tokens = 0
        self.lengths = array("i")
        self.sha256 = {".bin": hashlib.sha256()}
        self._bin = bin
        self._mask = mask
        if mask is not None:
            self.sha256[".mask.bin"] = hashlib.sha256()

    def add(self, ids: Sequence[int] | np.ndarray, mask: np.ndarray | None = None) -> None:
        """Append a document, with its mask where the shard has masks."""
        assert len(ids) > 0
        assert (mask is None) == (self._mask is None)
        self._write(self._bin, ".bin", np.asarray(ids, dtype="<i4").tobytes())
        if mask is not None and self._mask is not None:
            assert mask.shape == (len(ids),)
            self._write(self._mask, ".mask.bin", mask.astype("u1").tobytes())
        self.lengths.append(len(ids))
        self.tokens += len(ids)

    def _write(self, stream: BinaryIO, end: str, data: bytes) -> None:
        stream.write(data)
        self.sha256[end].update(data)


@contextmanager
def write_shard(
    stem: Path, *, tokenizer: str, masked: bool = False, context: int | None = None, keep_min: int = 0
) -> Iterator[ShardWriter]:
    """Yield a writer of the shard `stem`, which is there when the block ends without an exception, and else is not.

    `tokenizer` is a tokenizer's digest. Raises DataError where nothing was added.
    """
    with ExitStack() as files:
        mask = files.enter_context(new_file(_file(stem, ".mask.bin"))) if masked else None
        writer = ShardWriter(files.enter_context(new_file(_file(stem, ".bin"))), mask)
        yield writer
        if not writer.lengths:
            raise DataError(f"there are no documents to write: {stem}")
        index = _index(np.array(writer.lengths, dtype="<i4"))
        with new_file(_file(stem, ".idx")) as stream:
            stream.write(index)
    sha256 = {".idx": hashlib.sha256(index), **writer.sha256}
    info = ShardInfo(
        documents=len(writer.lengths),
        tokens=writer.tokens,
        tokenizer=tokenizer,
        context=context,
        keep_min=keep_min,
        sha256={end: digest.hexdigest() for end, digest in sha256.items()},
    )
    with new_file(_file(stem, ".json")) as stream:
        stream.write(json.dumps(config.to_mapping(info), indent=2).encode() + b"\n")


class Shard:
    """A shard, open for reading."""

    def __init__(self, stem: Path, *, verify: bool = False) -> None:
        """Map the files of `stem`. With `verify` every byte is read and held against the checksums.

        Raises DataError where a file is missing, damaged, or does not belong to the others.
        """
        self.stem = stem
        self.info = _read_info(_file(stem, ".json"))
        self.lengths, self._ends = _read_index(_file(stem, ".idx"), self.info)
        self._tokens = _map(_file(stem, ".bin"), np.dtype("<i4"), self.info.tokens)
        self._mask = None
        if self.info.masked:
            self._mask = _map(_file(stem, ".mask.bin"), np.dtype("u1"), self.info.tokens)
        if verify:
            self.verify()

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Ids [start, stop) of a document, int32; fewer where the document ends before. A view of the file."""
        return self._tokens[self._range(document, start, stop)]

    def mask(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray | None:
        """The mask bytes of the same ids, uint8; None where the shard has none."""
        return None if self._mask is None else self._mask[self._range(document, start, stop)]

    def verify(self) -> None:
        """Raise DataError unless every file has the bytes that were written."""
        for end, expected in self.info.sha256.items():
            path = _file(self.stem, end)
            with path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != expected:
                    raise DataError(f"{path} is damaged: its checksum is not the one written down", hint=_AGAIN)

    def _range(self, document: int, start: int, stop: int | None) -> slice:
        end = int(self._ends[document])
        first = end - int(self.lengths[document])
        return slice(first + start, end if stop is None else min(first + stop, end))


_AGAIN = "remove the directory and prepare the data again"


def _file(stem: Path, end: str) -> Path:
    return stem.with_name(stem.name + end)


def _index(lengths: np.ndarray) -> bytes:
    header = np.zeros(1, dtype=_HEADER)
    header["magic"] = np.void(_MAGIC)
    header["version"], header["dtype"] = _VERSION, _INT32_CODE
    header["sequences"], header["documents"] = len(lengths), len(lengths) + 1
    ends = np.cumsum(lengths, dtype="<i8") * 4
    offsets = (ends - lengths * np.int64(4)).astype("<i8")
    documents = np.arange(len(lengths) + 1, dtype="<i8")
    return b"".join(part.tobytes() for part in (header, lengths, offsets, documents))


def _read_info(path: Path) -> ShardInfo:
    try:
        return config.from_mapping(ShardInfo, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise DataError(f"there is no such shard: {path.with_suffix('')}", hint=_AGAIN) from error
    except (OSError, ValueError, AttributeError, TypeError, ConfigError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint=_AGAIN) from error


def _read_index(path: Path, info: ShardInfo) -> tuple[np.ndarray, np.ndarray]:
    """Length of each document, int32, and where it ends, int64, in tokens."""
    n = info.documents
    data = _map(path, np.dtype("u1"), _HEADER.itemsize + 12 * n + 8 * (n + 1))
    header = data[: _HEADER.itemsize].view(_HEADER)[0]
    if header["magic"].tobytes() != _MAGIC or header["version"] != _VERSION:
        raise DataError(f"{path} is not an index of tokens", hint=_AGAIN)
    if header["dtype"] != _INT32_CODE:
        raise DataError(f"{path} is of ids that are not int32: dtype code {header['dtype']}", hint=_AGAIN)
    lengths = data[_HEADER.itemsize : _HEADER.itemsize + 4 * n].view("<i4")
    ends = np.cumsum(lengths, dtype=np.int64)
    if not n or header["sequences"] != n or ends[-1] != info.tokens or lengths.min() < 1:
        raise DataError(f"{path} does not belong to the tokens beside it", hint=_AGAIN)
    return lengths, ends


def _map(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    try:
        size = path.stat().st_size
        if size != count * dtype.itemsize:
            raise DataError(f"{path} has {size} bytes; expected {count * dtype.itemsize}", hint=_AGAIN)
        # a plain array over the same pages: slices of a memmap carry more with them
        return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint=_AGAIN) from error
