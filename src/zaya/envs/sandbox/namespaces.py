"""Namespaces: a root directory that holds the interpreter and nothing else, no network, and processes of one's own.

The server moves into its private root once; each run gets a scratch directory in memory and process ids of its own on
top of that, and both are gone with its last process. Works as root, and as a user where the system lets users have
namespaces; many containers and some distributions do not. Source: spec post-training 9.4, namespaces(7).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from zaya.envs.sandbox import kernel

SCRATCH = "/sandbox"
"""Where a run may write, and where it starts. Not /tmp, where Python or a package may lie."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
SCRATCH_BYTES = 16 << 20
SCRATCH_FILES = 256
_CARRIED = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS


def enter_private_root(visible: Iterable[str], hidden: Iterable[str]) -> None:
    """Leave the files and the network of the machine for good; of the files, keep what is `visible`, read only.

    What is `hidden` becomes an empty directory. Raises OSError where the system does not allow all of it, with part of
    it done.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        kernel.unshare(_CARRIED)
    else:
        kernel.unshare(_CARRIED | kernel.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)  # nothing of what follows is seen outside
    _mount_memory("/tmp", "size=1m,mode=755")
    Path("/tmp/old").mkdir()
    kernel.pivot_root("/tmp", "/tmp/old")
    os.chdir("/")
    Path(SCRATCH).mkdir()
    for path in [*visible, *DEVICES]:
        _bind(path)
    for path in hidden:
        if Path(path).is_dir():
            _mount_memory(path, "size=4k,mode=755")
    kernel.detach("/old")
    Path("/old").rmdir()
    kernel.make_read_only("/")


def enter_own_run() -> None:
    """A scratch directory that nobody else sees; whatever this process forks next is process 1 of its own kind."""
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC)
    # Not executable: a library that a program writes there cannot be loaded.
    _mount_memory(SCRATCH, f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_FILES},mode=777", kernel.MS_NOEXEC)


def _mount_memory(target: str, options: str, flags: int = 0) -> None:
    kernel.mount("tmpfs", target, "tmpfs", flags | kernel.MS_NOSUID | kernel.MS_NODEV, options)


def _bind(path: str) -> None:
    if Path("/old" + path).is_dir():
        Path(path).mkdir(parents=True, exist_ok=True)
    elif not Path(path).exists():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    kernel.mount("/old" + path, path, None, kernel.MS_BIND | kernel.MS_REC)
