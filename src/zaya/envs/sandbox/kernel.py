"""The system calls of Linux that Python does not offer, through the C library. Imported by the server alone.

Each raises OSError with the name of what failed. Numbers are those of x86_64 and aarch64, the two machines that
`seccomp` knows too.
"""

from __future__ import annotations

import ctypes
import os
import platform

MACHINE = platform.machine()
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_SYS_PIVOT_ROOT, _SYS_CAPSET = (41, 91) if MACHINE == "aarch64" else (155, 126)
_SYS_MOUNT_SETATTR = 442
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def system_call(name: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    # A variadic C function takes a bare int as 32 bits; pointers and sizes need all 64.
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(name, _libc.syscall(ctypes.c_long(number), *values))


def unshare(flags: int) -> None:
    _checked("unshare", _libc.unshare(flags))


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _checked(f"mount {target}", _libc.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]))


def make_read_only(path: str) -> None:
    """All mounts at and below a path, and without setuid. Devices there still do what they do."""
    read_only, no_setuid = 1, 2
    attributes = b"".join(value.to_bytes(8, "little") for value in (read_only | no_setuid, 0, 0, 0))
    size = len(attributes)
    system_call("mount_setattr", _SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, attributes, size)


def pivot_root(new: str, old: str) -> None:
    system_call("pivot_root", _SYS_PIVOT_ROOT, os.fsencode(new), os.fsencode(old))


def detach(path: str) -> None:
    _checked(f"umount {path}", _libc.umount2(os.fsencode(path), _MNT_DETACH))


def drop_capabilities() -> None:
    header = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    system_call("capset", _SYS_CAPSET, header, bytes(24))


def die_with_parent() -> None:
    """By SIGKILL. The kernel forgets it when the process changes its user, and it means the thread that forked."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def hide_memory() -> None:
    """No other process of the same user may look into this one, and no core is written."""
    _prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    zeros = [ctypes.c_ulong(0)] * 3
    _checked(f"prctl {option}", _libc.prctl(option, ctypes.c_ulong(value), *zeros))


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
