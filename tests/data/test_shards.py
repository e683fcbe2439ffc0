"""Promises of data/shards:

1. What was written is read back; the pair .idx and .bin is Megatron's format.
2. A shard appears whole or not at all, and writing it takes little memory.
3. A file that is missing, damaged, or of another shard is an error that says so.
"""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya.data.shards import Shard, write_shard
from zaya.errors import DataError

DOCUMENTS = [[2, 70_000, 5], [2, 9], [262_271]]
MASKS = [np.array([0, 3, 5], np.uint8), np.array([0, 1], np.uint8), np.array([1], np.uint8)]


@pytest.fixture
def stem(tmp_path: Path) -> Path:
    stem = tmp_path / "shard.v1"
    with write_shard(stem, tokenizer="abc", masked=True, context=8, keep_min=1) as shard:
        for ids, mask in zip(DOCUMENTS, MASKS, strict=True):
            shard.add(ids, mask)
    return stem


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_what_was_written_is_read_back(stem: Path):
    shard = Shard(stem, verify=True)
    assert [shard.tokens(d).tolist() for d in range(len(shard))] == DOCUMENTS
    assert [np.asarray(shard.mask(d)).tolist() for d in range(len(shard))] == [mask.tolist() for mask in MASKS]
    assert shard.lengths.tolist() == [3, 2, 1]
    assert shard.tokens(0).dtype == np.int32
    assert (shard.info.documents, shard.info.tokens, shard.info.tokenizer) == (3, 6, "abc")
    assert (shard.info.context, shard.info.keep_min, shard.info.masked) == (8, 1, True)
    assert names(stem.parent) == ["shard.v1.bin", "shard.v1.idx", "shard.v1.json", "shard.v1.mask.bin"]


def test_parts_of_a_document_end_where_it_ends(stem: Path):
    shard = Shard(stem)
    assert shard.tokens(0, 1, 3).tolist() == [70_000, 5]
    assert shard.tokens(0, 1, 99).tolist() == [70_000, 5]
    assert shard.tokens(1, 1, 2).tolist() == [9]
    assert np.asarray(shard.mask(0, 1, 99)).tolist() == [3, 5]


def test_the_bytes_are_megatrons(stem: Path):
    index = (
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, 4, 3, 4)
        + struct.pack("<3i", 3, 2, 1)
        + struct.pack("<3q", 0, 12, 20)
        + struct.pack("<4q", 0, 1, 2, 3)
    )
    assert Path(f"{stem}.idx").read_bytes() == index
    assert Path(f"{stem}.bin").read_bytes() == struct.pack("<6i", 2, 70_000, 5, 2, 9, 262_271)


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9), min_size=1, max_size=9))
def test_any_documents(tmp_path_factory, documents: list[list[int]]):
    stem = tmp_path_factory.mktemp("shard") / "s"
    with write_shard(stem, tokenizer="t") as shard:
        for ids in documents:
            shard.add(ids)
    read = Shard(stem, verify=True)
    assert [read.tokens(d).tolist() for d in range(len(read))] == documents
    assert read.mask(0) is None


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]):
    def fail_half_way() -> None:
        with write_shard(tmp_path / "s", tokenizer="t", masked=True) as shard:
            shard.add(DOCUMENTS[0], MASKS[0])
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert names(tmp_path) == []


def test_a_shard_without_documents_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no documents"), write_shard(tmp_path / "s", tokenizer="t"):
        pass
    assert names(tmp_path) == []


def test_writing_holds_no_corpus(tmp_path: Path):
    document = np.arange(10_000, dtype=np.int32)
    tracemalloc.start()
    with write_shard(tmp_path / "s", tokenizer="t") as shard:
        for _ in range(200):  # 8 MB
            shard.add(document)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000
    assert Shard(tmp_path / "s").info.tokens == 2_000_000


@pytest.mark.parametrize("end", [".bin", ".idx", ".mask.bin"])
def test_files_that_are_missing_or_of_another_size(stem: Path, end: str):
    path = Path(f"{stem}{end}")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"{len(whole) - 1} bytes; expected {len(whole)}"):
        Shard(stem)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        Shard(stem)


@pytest.mark.parametrize("end", [".bin", ".idx", ".mask.bin"])
def test_a_changed_byte_is_found_when_asked_for(stem: Path, end: str):
    path = Path(f"{stem}{end}")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    Shard(stem)
    with pytest.raises(DataError, match="is damaged"):
        Shard(stem, verify=True)


@pytest.mark.parametrize(
    ("at", "data", "said"),
    [
        (0, b"X", "not an index"),
        (9, b"\x02", "not an index"),
        (17, b"\x08", "not int32: dtype code 8"),
        (18, b"\x04", "does not belong"),
        (34, b"\x04", "does not belong"),
        (34, struct.pack("<2i", 5, 0), "does not belong"),
    ],
)
def test_an_index_that_says_something_else(stem: Path, at: int, data: bytes, said: str):
    path = Path(f"{stem}.idx")
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])
    with pytest.raises(DataError, match=said):
        Shard(stem)


def test_descriptions_that_are_none(stem: Path):
    path = Path(f"{stem}.json")
    good = json.loads(path.read_text())
    for text in ("", "[]", "{}", json.dumps(good | {"tokens": "6"}), json.dumps(good | {"colour": 1})):
        path.write_text(text)
        with pytest.raises(DataError, match="cannot be read"):
            Shard(stem)
    path.unlink()
    with pytest.raises(DataError, match="no such shard"):
        Shard(stem)
