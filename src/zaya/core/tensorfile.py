"""The safetensors format: reading in place, writing as a stream.

A file is eight bytes of header length, a JSON header, then the data. Reading maps the file privately: a tensor is a
view of the mapping, so nothing is read before it is used, the pages stay the kernel's to drop, and a write to a tensor
copies the page and never reaches the file. Writing takes one piece after the other, so that a checkpoint need not fit
in memory. The `safetensors` library reads and is read by this; its own writer wants every tensor at once, and its
reader reserves memory for the whole mapping, which a machine smaller than the file refuses.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from zaya.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

# The header's name of a type: torch's name of it, and its bytes.
DTYPES = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1), "U8": ("uint8", 1),
    "BOOL": ("bool", 1), "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
}  # fmt: skip
DTYPE_NAMES = {torch_name: name for name, (torch_name, _) in DTYPES.items()}
FLOATS = ("F64", "F32", "BF16", "F16")

_MAX_HEADER = 100_000_000  # the format's own limit
_LINE = 64  # bytes of a cache line
_CHUNK = 64 << 20  # bytes handed to the file at once
# Without it the kernel counts the whole mapping as memory we might write; Python 3.11 has no name for it.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


@dataclass(frozen=True, slots=True)
class Stored:
    """Where one tensor lies: its file, type and shape, and its bytes [start, end) counted from the file's first."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Planned:
    """One tensor to write: what the header says of it before its data is there."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype][1]


def read_header(path: Path) -> dict[str, Stored]:
    """What a file holds, by name. Raises CheckpointError for a file that is not whole or not safetensors."""

    def damaged(why: str) -> CheckpointError:
        return CheckpointError(f"{path} is damaged: {why}", hint="copy or download the file again")

    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            fits = len(prefix) == 8 and length <= min(_MAX_HEADER, size - 8)
            raw = file.read(length) if fits else b""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if prefix == b"version ":
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself", hint="run git lfs pull")
    if not fits:
        raise damaged(f"its header does not fit in {size} bytes")
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        base = 8 + length
        stored = {
            name: Stored(name, path, str(about["dtype"]), tuple(map(int, about["shape"])),
                         base + int(about["data_offsets"][0]), base + int(about["data_offsets"][1]))
            for name, about in header.items()
        }  # fmt: skip
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise damaged("its header is not that of a safetensors file") from error
    expected = base
    for tensor in sorted(stored.values(), key=lambda tensor: (tensor.start, tensor.end)):
        known = DTYPES.get(tensor.dtype)
        nbytes = tensor.end - tensor.start if known is None else math.prod(tensor.shape) * known[1]
        if tensor.start != expected or tensor.end - tensor.start != nbytes or min(tensor.shape, default=0) < 0:
            raise damaged(f"the place of {tensor.name} does not fit its type and shape")
        expected = tensor.end
    if expected != size:
        raise damaged(f"it should have {expected} bytes and has {size}")
    return stored


class TensorFiles:
    """Maps files when first asked for one of their tensors, and keeps them mapped as long as a tensor lives."""

    def __init__(self) -> None:
        self._mapped: dict[Path, mmap.mmap] = {}

    def tensor(self, stored: Stored) -> Tensor:
        """The tensor in place: no copy; writing to it changes memory only."""
        import torch

        dtype = getattr(torch, DTYPES[stored.dtype][0])
        count = math.prod(stored.shape)
        if count == 0:
            return torch.empty(stored.shape, dtype=dtype)
        data = self._mapped.get(stored.file)
        if data is None:
            with stored.file.open("rb") as file:
                flags = mmap.MAP_PRIVATE | _NO_RESERVE
                data = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            # What comes from the disk then comes in pages of 2 MB, of which there are fewer to look up. Advice: where
            # there are no such pages it is refused, and nothing is lost.
            with contextlib.suppress(OSError, AttributeError):
                data.madvise(mmap.MADV_HUGEPAGE)
            self._mapped[stored.file] = data
        tensor = torch.frombuffer(data, dtype=dtype, count=count, offset=stored.start).reshape(stored.shape)
        # the format does not promise alignment, and some kernels rely on it
        return tensor.clone() if stored.start % dtype.itemsize else tensor


def write_file(path: Path, tensors: Sequence[Planned], pieces: Callable[[str], Iterator[Tensor]]) -> Iterator[int]:
    """Write one file, and yield the bytes of each chunk as it is written.

    `pieces(name)` gives a tensor's values in order, in as many pieces as suit the caller; they must have the planned
    type and together the planned number of bytes. Tensors of whole cache lines come first and the data starts on one,
    so that kernels find mapped matrices aligned; then wider types, so that every tensor is aligned to its type.
    """
    tensors = sorted(tensors, key=lambda tensor: (tensor.nbytes % _LINE > 0, -DTYPES[tensor.dtype][1]))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in tensors:
        end = start + tensor.nbytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % _LINE)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for tensor in tensors:
            written = 0
            for piece in pieces(tensor.name):
                assert DTYPE_NAMES[str(piece.dtype).removeprefix("torch.")] == tensor.dtype, tensor.name
                for nbytes in _write(file, piece):
                    written += nbytes
                    yield nbytes
            assert written == tensor.nbytes, f"{tensor.name}: {written} bytes for {tensor.nbytes}"


def _write(file: BinaryIO, piece: Tensor) -> Iterator[int]:
    import torch

    data = piece.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    for chunk in data.split(_CHUNK):
        yield file.write(chunk.numpy().data)
