"""JSON lines from outside: an object on each line, and where it stands, for errors that say so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zaya.errors import DataError


def json_objects(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line that is not blank. Raises DataError for a file or a line that is none."""
    try:
        with file.open(encoding="utf-8") as stream:  # lines end with \n alone: a string may hold other separators
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _object(f"{file}:{number}", line)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} cannot be read: {error.reason} at byte {error.start:,}", hint="text must be UTF-8"
        ) from error


def _object(where: str, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}", hint="one object on each line") from error
    if not isinstance(value, dict):
        raise DataError(f"{where} must be an object: {type(value).__name__}")
    return value
