"""The warm process that programs are forked from, and the keeper that each of them has.

    runner  --socket-->  server  --fork-->  keeper  --fork-->  program
       |                                      |
       +------------- lifeline ---------------+

The server imports what programs are likely to import and moves into its private root. For each run it receives limits
and open files, and forks; it never reads what is in the files, so that nothing of one run is in the memory of the next.
The keeper prepares the place of one run, forks the program into it, waits for its end, and reports. It ends the program
when the lifeline is closed or the runner's process is gone; the program dies with its keeper. Started by
`envs.sandbox.runner` with an environment of its own and no files but the two it needs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import importlib
import json
import math
import os
import resource
import select
import signal
import site
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from zaya.envs.sandbox import kernel, landlock, namespaces, program, seccomp

REQUEST_BYTES = 1 << 12
_PRELOADED = (
    "array", "ast", "asyncio", "base64", "bisect", "bz2", "calendar", "cmath", "collections", "contextlib", "copy",
    "csv", "ctypes", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq",
    "inspect", "io", "itertools", "json", "lzma", "math", "numbers", "operator", "pickle", "pprint", "queue", "random",
    "re", "socket", "sqlite3", "statistics", "string", "struct", "subprocess", "tempfile", "textwrap", "time", "typing",
    "unicodedata", "uuid", "xml.etree.ElementTree", "zlib", "zoneinfo",
)  # fmt: skip
"""Loaded before a program runs: what many use, and what needs libraries of the system, which are out of reach later."""
_RESULT, _REQUEST, _KEEPER, _LIFELINE = range(3, 7)
"""Numbers of open files in the program's process, after stdin, stdout and stderr. The last two are closed in time."""
_FIRST_UID = 0x70000000
"""Of the users that programs run as where we are root: one for each keeper, so that none has another's limits."""
_NOBODY = 65534


def main(control: socket.socket, parent: int, packages: list[str], unconfined: bool) -> None:
    """Serve until the runner is gone. The first message says what is in force, or why nothing is."""
    try:
        house = _House(packages)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        return
    control.send(json.dumps({"layers": house.layers, "missing": house.missing, "is_tight": house.is_tight}).encode())
    if not (house.is_tight or unconfined):
        return
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers end without anybody waiting for them
    gc.disable()
    gc.freeze()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(parent, select.POLLIN)
    while True:
        if any(descriptor == parent for descriptor, _ in poll.poll()):
            return
        message, files, _, _ = socket.recv_fds(control, REQUEST_BYTES, 8)
        if not message:
            return
        if os.fork() == 0:
            with _telling(files[-1]):
                _keep(house, json.loads(message), files, control, parent)
        for file in files:
            os.close(file)


class _House:
    """What the server has found and done before the first run."""

    def __init__(self, packages: list[str]) -> None:
        self.layers: list[str] = []
        self.missing: list[str] = []
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")  # where memory ends, programs go first
        for name in _PRELOADED:
            with contextlib.suppress(ImportError):  # a Python may be built without some
                importlib.import_module(name)
        library = os.path.realpath(sysconfig.get_path("stdlib"))
        visible, hidden = [library], [f"{library}/{name}" for name in ("site-packages", "dist-packages")]
        site.setquit()  # exit() and quit(), which Python without its site module lacks and programs use
        visible += self._load_packages(packages, library)
        for name in ("PYTHONPATH", "PWD"):  # where the packages are, and what bubblewrap adds
            os.environ.pop(name, None)
        sys.path[:] = [library, f"{library}/lib-dynload"]
        self.base_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        # In a child first: half of a private root is worse than none.
        self.has_root = self._try(
            "namespaces", lambda: _in_child(lambda: namespaces.enter_private_root(visible, hidden))
        )
        if self.has_root:
            namespaces.enter_private_root(visible, hidden)
            self.readable, self.writable = ["/"], [namespaces.SCRATCH, "/dev/null"]
        else:
            inside = [entry.path for entry in os.scandir(library) if entry.path not in hidden]
            self.readable, self.writable = [*inside, *visible[1:]], []
        self.has_landlock = self._try("landlock", lambda: _in_child(lambda: landlock.restrict(["/"], [])))
        self.has_seccomp = self._try("seccomp", lambda: _in_child(lambda: seccomp.restrict(has_scratch=True)))
        is_root = os.geteuid() == 0
        self.drops_user = is_root and self._try("user", lambda: _in_child(lambda: _read_as_other(library)))
        if is_root and not self.drops_user:
            self.missing[-1] = f"user (nobody but root can read {library})"
        self.is_tight = self.has_seccomp and (self.has_root or self.has_landlock) and (self.drops_user or not is_root)

    def _load_packages(self, names: list[str], library: str) -> list[str]:
        """Import them, and find the folders of all that came with them, which may load more of themselves later."""
        for name in names:
            importlib.import_module(name)
        found = set()
        for name, module in [*sys.modules.items()]:
            if "." in name or name == "zaya":
                continue
            for place in getattr(module, "__path__", None) or [getattr(module, "__file__", None)]:
                path = os.path.realpath(place) if place else library
                inside = path.removeprefix(f"{library}/")
                if path == library or (inside != path and not inside.startswith(("site-packages/", "dist-packages/"))):
                    continue
                found.add(path)
        return sorted(found)

    def _try(self, name: str, action: Callable[[], object]) -> bool:
        try:
            action()
        except OSError as error:
            self.missing.append(f"{name} ({error.strerror})")
            return False
        self.layers.append(name)
        return True


def _in_child(action: Callable[[], object]) -> None:
    """Try what cannot be undone where it does no harm."""
    child = os.fork()
    if child == 0:
        code = 255
        try:
            kernel.forbid_new_privileges()
            action()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 0:
        raise OSError(code, os.strerror(code))


def _keep(house: _House, limits: dict[str, Any], files: list[int], control: socket.socket, parent: int) -> NoReturn:
    """One run, from an empty scratch directory to a report of how it ended."""
    control.close()
    *given, lifeline = files
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kernel.adopt_orphans()
    if house.has_root:
        namespaces.enter_own_run()
    if not house.drops_user:
        # A namespace of users has the server and the keepers in it; without one, all of the user's processes count.
        limits["threads"] += 64 if house.has_root else _threads_of_this_user()
    own = os.pidfd_open(os.getpid())
    child = os.fork()
    if child == 0:
        with _telling(lifeline):
            _take_places([*given, own, lifeline])
        with _telling(_LIFELINE):
            _become_program(house, limits)
        os.close(_KEEPER)
        os.close(_LIFELINE)
        program.run(_REQUEST, _RESULT)
    for file in [*given, own]:
        os.close(file)
    ended = os.pidfd_open(child)
    poll = select.poll()
    for descriptor in (ended, lifeline, parent):
        poll.register(descriptor, select.POLLIN)
    poll.poll()
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(ended, signal.SIGKILL)  # of process 1 of a namespace: and all others in it
    _, status, usage = os.wait4(child, 0)
    _end_orphans()
    with contextlib.suppress(OSError):
        _say(lifeline, {"status": status, "cpu": usage.ru_utime + usage.ru_stime})
    os._exit(0)


@contextlib.contextmanager
def _telling(lifeline: int) -> Iterator[None]:
    """What goes wrong before the program runs is our fault, and is said. Then this process has nothing left to do."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):
            _say(lifeline, {"error": f"{type(error).__name__}: {error}"})
        os._exit(1)


def _say(lifeline: int, report: dict[str, Any]) -> None:
    os.write(lifeline, json.dumps(report).encode() + b"\n")


def _take_places(files: list[int]) -> None:
    """Move these open files to the lowest numbers, in order, and close all others."""
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD, 64) for file in files]
    for place, file in enumerate(moved):
        os.dup2(file, place)
    os.closerange(len(moved), 1 << 16)


def _become_program(house: _House, limits: dict[str, Any]) -> None:
    """Give everything up, one layer after the other. The order matters: each step needs what a later one takes."""
    os.setsid()
    _limit(house, limits)
    if house.drops_user:
        _drop_user()
    kernel.drop_capabilities()
    kernel.die_with_parent()
    if select.select([_KEEPER], [], [], 0)[0]:  # it died before that could be heard
        os._exit(1)
    kernel.hide_memory()
    kernel.forbid_new_privileges()
    os.chdir(namespaces.SCRATCH if house.has_root else "/")
    for name in [name for name in sys.modules if name.split(".")[0] == "zaya"]:
        del sys.modules[name]
    if house.has_landlock:
        landlock.restrict(house.readable, house.writable)
    if house.has_seccomp:
        seccomp.restrict(has_scratch=house.has_root)


def _limit(house: _House, limits: dict[str, Any]) -> None:
    cpu_s = math.ceil(2 * limits["seconds"])
    for what, most in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, house.base_bytes + limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_NPROC, limits["threads"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def _drop_user() -> None:
    for uid in (_FIRST_UID + os.getppid(), _NOBODY):
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            return
        except OSError as error:
            if uid == _NOBODY or error.errno != errno.EINVAL:  # EINVAL: a container that has few users
                raise


def _read_as_other(library: str) -> None:
    _drop_user()
    os.listdir(library)


def _threads_of_this_user() -> int:
    """RLIMIT_NPROC counts them all, also those we have nothing to do with."""
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == os.getuid():
                    count += len(os.listdir(f"{entry.path}/task"))
    return count


def _end_orphans() -> None:
    """Kill what the program started and left, which came to us. Nothing where it could not start anything."""
    while True:
        try:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        except OSError:
            return  # the private root has no /proc, and its process ids ended with the program
        if not children:
            return
        for child in map(int, children):
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
