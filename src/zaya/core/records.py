"""Records of long work: a line of JSON for everything that is finished, in a file that a killed run takes up again.

The first line says what the work is; a file of something else is refused, never mixed. Records follow as they are
finished, each on the disk before the next. Used by evaluations and by `ttc.trace`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from zaya.errors import UsageError


class RecordFile:
    """Appends rows to a file, after reading what is there. A context manager; None keeps everything in memory."""

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        """Open the records of what is described by `about`. Raises UsageError for those of something else."""
        self.rows: list[dict[str, Any]] = []
        """What the file held."""
        self._file = None
        if path is None:
            return
        header = _line(about)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            self._file.seek(0)
            data = self._file.read()
        except OSError as error:
            raise UsageError(f"{path} cannot be opened: {error.strerror}") from error
        whole = data[: data.rfind(b"\n") + 1]  # a line that was cut by a kill goes
        try:
            if whole:
                self.rows = _read(path, whole, json.loads(header))
            elif not header.startswith(data):
                raise _foreign(path)
        except UsageError:
            self._file.close()
            raise
        self._file.truncate(len(whole))
        if not whole:
            self._write(header)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows, and have them on the disk before returning."""
        if self._file is not None:
            self._write(b"".join(map(_line, rows)))

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _read(path: Path, data: bytes, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        header, *rows = map(json.loads, data.splitlines())
    except ValueError as error:
        raise _foreign(path) from error
    if not isinstance(header, dict) or not all(isinstance(row, dict) for row in rows):
        raise _foreign(path)
    if header.get("format") != about.get("format"):
        raise UsageError(
            f"{path} was written by another version of zaya: format {header.get('format', 1)}, expected "
            f"{about.get('format', 1)}",
            hint="name another file, or move this one away",
        )
    for key in (*about, *header):
        if header.get(key) != about.get(key):
            raise UsageError(
                f"{path} holds the records of something else: {key} is {header.get(key)!r} there, "
                f"{about.get(key)!r} here",
                hint="name another file, or move this one away",
            )
    return rows


def _foreign(path: Path) -> UsageError:
    return UsageError(f"{path} is not a file of records", hint="name another file")
