"""Promises of the tensor files: the library reads what we write and we read what it writes; reading copies nothing and
writing to what was read never reaches the file; a damaged file is named as such."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from zaya.core.tensorfile import DTYPE_NAMES, DTYPES, Planned, TensorFiles, read_header, write_file
from zaya.errors import CheckpointError


def plan(tensors: dict[str, Tensor]) -> list[Planned]:
    return [
        Planned(name, DTYPE_NAMES[str(t.dtype).removeprefix("torch.")], tuple(t.shape)) for name, t in tensors.items()
    ]


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    def pieces(name: str) -> Iterator[Tensor]:
        yield from tensors[name].split(2)

    for _ in write_file(path, plan(tensors), pieces):
        pass


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(
        st.tuples(st.sampled_from(["float32", "bfloat16", "float16", "float64", "uint8", "float8_e4m3fn"]),
                  st.lists(st.integers(1, 5), min_size=1, max_size=3)),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_the_library_and_we_read_each_other(tmp_path: Path, shapes: list[tuple[str, list[int]]]) -> None:
    tensors = {}
    for i, (dtype, shape) in enumerate(shapes):
        nbytes = getattr(torch, dtype).itemsize
        raw = torch.randint(0, 255, (*shape[:-1], shape[-1] * nbytes), dtype=torch.uint8)
        tensors[f"layers.{i}"] = raw.view(getattr(torch, dtype))
    write(tmp_path / "ours", tensors)
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    by_library = load_file(tmp_path / "ours")
    files = TensorFiles()
    by_us = {name: files.tensor(stored) for name, stored in read_header(tmp_path / "theirs").items()}
    for name, tensor in tensors.items():
        assert same(by_library[name], tensor)
        assert same(by_us[name], tensor)
    for stored in read_header(tmp_path / "ours").values():
        assert stored.start % DTYPES[stored.dtype][1] == 0
    with safe_open(tmp_path / "ours", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_tensor_lies_in_the_mapped_file_and_writing_to_it_stays_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_file({"a": torch.arange(5000.0), "b": torch.ones(3, 4)}, path)
    before = path.read_bytes()
    header = read_header(path)
    files = TensorFiles()
    a, b = files.tensor(header["a"]), files.tensor(header["b"])
    mapped = [
        line.split()[0].split("-")
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path)) and line.split()[1].endswith("p")
    ]
    assert len(mapped) == 1
    for tensor in (a, b):
        assert int(mapped[0][0], 16) <= tensor.data_ptr() < int(mapped[0][1], 16)
    assert a.untyped_storage().nbytes() == a.nbytes  # or saving one tensor would save the whole file
    a.fill_(-1)
    b += 1
    assert path.read_bytes() == before
    again = TensorFiles()
    assert torch.equal(again.tensor(header["a"]), torch.arange(5000.0))
    path.unlink()
    assert float(a.sum()) == -5000


def test_a_tensor_that_is_not_aligned_to_its_type_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                         "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]}}).encode()  # fmt: skip
    header += b" " * (-len(header) % 8)
    data = b"\x01" + torch.tensor([1.5, -2.0]).view(torch.uint8).numpy().tobytes()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    tensor = TensorFiles().tensor(read_header(path)["b"])
    assert tensor.data_ptr() % 4 == 0
    assert tensor.tolist() == [1.5, -2.0]


def one(**about: object) -> bytes:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | about}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


DAMAGED = {
    "empty": (b"", "its header does not fit in 0 bytes"),
    "short": (b"\x01\x02", "its header does not fit in 2 bytes"),
    "cut in the header": (one()[:30], "its header does not fit in 30 bytes"),
    "huge header": (b"\xff" * 64, "its header does not fit in 64 bytes"),
    "not json": ((5).to_bytes(8, "little") + b"{nope", "its header is not that of a safetensors file"),
    "a list": ((2).to_bytes(8, "little") + b"[]", "its header is not that of a safetensors file"),
    "no shape": (one(shape=None), "its header is not that of a safetensors file"),
    "not text": ((3).to_bytes(8, "little") + b"\xff\xfe\xfd", "its header is not that of a safetensors file"),
    "cut in the data": (one()[:-3], "it should have"),
    "longer than it says": (one() + b"\0", "it should have"),
    "shape too large": (one(shape=[3]), "the place of x does not fit its type and shape"),
    "negative shape": (one(shape=[-2, -1]), "the place of x does not fit its type and shape"),
    "hole": (one(data_offsets=[4, 12]), "the place of x does not fit its type and shape"),
    "backwards": (one(data_offsets=[8, 0]), "the place of x does not fit its type and shape"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
}


@pytest.mark.parametrize(("data", "why"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as error:
        read_header(path)
    assert str(path) in error.value.message
    assert why in error.value.message
    assert error.value.hint


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_to_a_header_is_an_error_or_a_valid_header(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(one())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 9))] = data.draw(st.integers(0, 255))
    path = tmp_path / "f.safetensors"
    path.write_bytes(raw)
    try:
        stored = read_header(path)
    except CheckpointError:
        return
    assert all(s.end <= len(raw) for s in stored.values())
