"""Directories and files that appear whole or not at all.

What is written goes to a temporary sibling first, is flushed to the disk, and takes its name in one rename. A run that
is killed leaves a hidden sibling behind; the next one that writes to the same place removes it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from zaya.errors import UsageError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Have the directory to oneself while the block runs; it is made where it is not there, and goes if it stays empty.

    A kill gives it back. Raises UsageError where another process, or another block of this one, has it, and where it is
    a file. Where the system has no locks nothing is held.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{directory} is no directory", hint="name another with --out") from None
    if fcntl is None:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another process is at work in {directory}", hint="wait for it, or name another with --out"
            ) from None
        except OSError:
            pass  # a file system without locks
        try:
            yield
        finally:
            with suppress(OSError):  # that it is not empty; still held, so that nobody else has it
                directory.rmdir()
    finally:
        os.close(descriptor)


@contextmanager
def new_directory(destination: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty directory that becomes `destination` when the block ends without an exception.

    On any exception, Ctrl-C included, nothing of it stays. One process writes one destination at a time. Raises
    UsageError where `destination` is a file, or holds something and `overwrite` is not set; with it, what was there
    goes once the new directory has taken its place.
    """
    destination = Path(os.path.realpath(destination))
    destination.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(destination.parent, destination.name)
    if destination.exists() and not destination.is_dir():
        raise UsageError(f"the destination is a file: {destination}", hint="name a directory")
    if destination.is_dir() and any(destination.iterdir()) and not overwrite:
        raise UsageError(
            f"the destination is not empty: {destination}", hint="choose another name, or ask to overwrite"
        )
    partial = _sibling(destination, "partial")
    replaced = _sibling(destination, "replaced")
    try:
        partial.mkdir()
        yield partial
        for folder, _, files in os.walk(partial):
            for name in files:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if destination.exists():
            destination.rename(replaced)
        partial.rename(destination)
        _sync(destination.parent)
    except BaseException:
        if replaced.exists() and not destination.exists():
            replaced.rename(destination)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if destination.exists():
            shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def new_file(destination: Path) -> Iterator[BinaryIO]:
    """Yield a stream of bytes that becomes the file `destination` when the block ends without an exception.

    What was there before stays until then, and for good on any exception. One process writes one destination at a
    time. Raises UsageError where `destination` is a directory.
    """
    destination = Path(os.path.realpath(destination))
    destination.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(destination.parent, destination.name)
    if destination.is_dir():
        raise UsageError(f"the destination is a directory: {destination}", hint="name a file")
    partial = _sibling(destination, "partial")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(destination)
        _sync(destination.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sibling(destination: Path, state: str) -> Path:
    """The hidden name beside `destination` that says who works on it: host and process."""
    return destination.with_name(f".{destination.name}.{state}-{socket.gethostname()}-{os.getpid()}")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what processes of this host that are gone have left in a folder, of one destination or of all; give back
    a directory that one had set aside. For a folder in which no other thread of this process is writing."""
    wanted = ".+" if name is None else re.escape(name)
    owner = re.compile(rf"\.({wanted})\.(partial|replaced)-{re.escape(socket.gethostname())}-(\d+)")
    for path in folder.iterdir():
        match = owner.fullmatch(path.name)
        # our own id means an earlier process had it: in a restarted container ids repeat
        if match is None or (int(match[3]) != os.getpid() and _is_alive(int(match[3]))):
            continue
        destination = folder / match[1]
        if match[2] == "replaced" and not destination.exists():
            path.rename(destination)
        elif path.is_file():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
