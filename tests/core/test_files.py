"""Promises of core/files:

1. A directory, or a file, appears with everything in it, or not at all; an exception or Ctrl-C leaves nothing behind.
2. What is there is replaced only when asked, and is back if the replacement fails.
3. What a killed process left goes with the next write; what a living one is writing stays.
4. A directory that is held is nobody else's until the block ends or its process dies.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from zaya.core.files import held, new_directory, new_file
from zaya.errors import UsageError


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def sibling(path: Path, state: str, pid: int) -> Path:
    return path.with_name(f".{path.name}.{state}-{socket.gethostname()}-{pid}")


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with new_directory(target) as partial:
        (partial / "a").write_text("1")
        (partial / "sub").mkdir()
        (partial / "sub" / "b").write_text("2")
        assert not target.exists()
    assert names(target) == ["a", "sub"]
    assert names(target.parent) == ["target"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail_half_way() -> None:
        with new_directory(tmp_path / "target") as partial:
            (partial / "a").write_text("1")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert names(tmp_path) == []


def test_an_empty_directory_is_used_and_a_full_one_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with new_directory(target) as partial:
        (partial / "old").write_text("1")
    with pytest.raises(UsageError, match="the destination is not empty"), new_directory(target):
        pass
    assert names(target) == ["old"]


def test_a_file_is_refused_even_to_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    with pytest.raises(UsageError, match="the destination is a file"), new_directory(target, overwrite=True):
        pass
    assert target.read_text() == "mine"


def test_overwriting_replaces_everything(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("1")
    with new_directory(target, overwrite=True) as partial:
        (partial / "new").write_text("2")
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["target"]


def test_a_failed_replacement_gives_back_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("1")
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if ".partial-" in self.name:
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt), new_directory(target, overwrite=True) as partial:
        (partial / "new").write_text("2")
    assert names(target) == ["old"]
    assert names(tmp_path) == ["target"]


def test_leftovers_of_dead_processes_go_and_of_living_ones_stay(tmp_path: Path, dead_pid: int) -> None:
    target = tmp_path / "target"
    for pid in (dead_pid, os.getppid()):
        sibling(target, "partial", pid).mkdir()
    elsewhere = tmp_path / f".target.partial-another-host-{dead_pid}"
    elsewhere.mkdir()
    other = sibling(tmp_path / "other", "partial", dead_pid)
    other.mkdir()
    with new_directory(target):
        pass
    assert not sibling(target, "partial", dead_pid).exists()
    assert sibling(target, "partial", os.getppid()).exists()
    assert elsewhere.exists()
    assert other.exists()


def test_a_directory_set_aside_by_a_killed_process_comes_back(tmp_path: Path, dead_pid: int) -> None:
    target = tmp_path / "target"
    aside = sibling(target, "replaced", dead_pid)
    aside.mkdir()
    (aside / "old").write_text("1")
    with pytest.raises(UsageError, match="not empty"), new_directory(target):
        pass
    assert names(target) == ["old"]


def test_a_killed_process_leaves_what_the_next_one_removes(tmp_path: Path) -> None:
    target = tmp_path / "target"
    code = (
        "import os, signal, sys; from pathlib import Path; from zaya.core.files import new_directory\n"
        "with new_directory(Path(sys.argv[1])) as partial:\n"
        "    (partial / 'a').write_text('1'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert len(names(tmp_path)) == 1
    with new_directory(target) as partial:
        (partial / "b").write_text("2")
    assert names(tmp_path) == ["target"]
    assert names(target) == ["b"]


def test_everything_reaches_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or real(fd))
    with new_directory(tmp_path / "target") as partial:
        (partial / "a").write_text("1")
        (partial / "sub").mkdir()
        (partial / "sub" / "b").write_text("2")
        assert synced == []
    inside = {str(Path(path).relative_to(partial)) for path in synced[:-1]}
    assert inside == {"a", "sub/b", "sub", "."}
    assert synced[-1] == str(tmp_path), "the directory that holds the new name comes last"


def test_a_file_appears_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    for text in (b"1", b"2"):
        with new_file(target) as stream:
            stream.write(text)
            assert not target.exists() or target.read_bytes() == b"1"
        assert target.read_bytes() == text
    assert names(target.parent) == ["target"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_file_that_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "target").write_text("old")

    def fail_half_way() -> None:
        with new_file(tmp_path / "target") as stream:
            stream.write(b"new")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert (tmp_path / "target").read_text() == "old"
    assert names(tmp_path) == ["target"]


def test_a_file_does_not_take_the_place_of_a_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the destination is a directory"), new_file(tmp_path):
        pass


def test_a_partial_file_of_a_dead_process_goes(tmp_path: Path, dead_pid: int) -> None:
    sibling(tmp_path / "target", "partial", dead_pid).write_text("half")
    with new_file(tmp_path / "target") as stream:
        stream.write(b"1")
    assert names(tmp_path) == ["target"]


HOLDER = """
import sys, time
from pathlib import Path
from zaya.core.files import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_a_held_directory_is_refused_until_its_process_dies(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(target)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            with pytest.raises(UsageError, match=f"another process is at work in {target}"), held(target):
                pytest.fail("held twice")
            assert target.is_dir()  # empty, and not for the refused one to remove
            with held(tmp_path / "deep" / "other"):
                pass
        finally:
            process.kill()
    with held(target):
        (target / "a").write_text("1")
    assert names(tmp_path / "deep") == ["run"]  # what stayed empty is gone


def test_holding_ends_with_its_block(tmp_path: Path) -> None:
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), held(tmp_path / "run"):
            raise error
        assert names(tmp_path) == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="is no directory"), held(path):
            pytest.fail("held a file")
    assert names(tmp_path) == ["file"]
