"""A sandbox: programs that a model wrote run in it, and what they put out comes back.

    with Sandbox() as sandbox:
        sandbox.run("print(int(input()) + 1)", stdin="1")                    ->  Result(status="ok", stdout="2\\n", ...)
        sandbox.run("def double(x): return 2 * x", call=("double", [21]))    ->  Result(status="ok", value=42, ...)

Every run is a process of its own, in an empty directory of its own, and sees nothing of others. What comes back is what
the program says, no more: compare it here, and never send in what it should be. How it is held is in
docs/concepts/sandbox.md; the other end is `envs.sandbox.server`. Source: spec post-training 9.3 and 9.4.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import math
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from zaya.envs.sandbox import bubblewrap
from zaya.errors import UsageError

START_TIMEOUT_S = 60.0
_GRACE_S = 10.0
"""For a keeper to report what it killed."""
_BOOT = """
import socket, sys
from zaya.envs.sandbox.server import main
main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[4:], sys.argv[3] == "unconfined")
"""
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # which `python -I` would ignore: hence -s -P and an environment that is all ours
    "HOME": "/sandbox",
    "TMPDIR": "/sandbox",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may take."""

    seconds: float = 5.0
    """On the clock, from the request to the last output; twice that of processor time, where there are threads."""
    memory_bytes: int = 1 << 30
    """Address space beyond what Python itself has."""
    output_bytes: int = 1 << 20
    """Of stdout, of stderr and of the value of a call, each."""
    file_bytes: int = 1 << 20
    """Of each file in the scratch directory, which holds 16 MiB and 256 files."""
    threads: int = 16
    """Threads, the first one included. There are no other processes."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise UsageError(f"a limit of a run must be above 0 and finite: {name} = {value}")


Status = Literal["ok", "error", "time", "memory", "output", "denied"]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a run."""

    status: Status
    """How it ended. ok: by itself, with exit code 0, and with a value where one was asked for; error: otherwise; time,
    memory and output: over the limit; denied: killed for a system call that only an attack makes. A program can fake
    every one of them but ok, with which it has said what its output is."""
    stdout: str
    """What it printed, up to the limit; bytes that are no UTF-8 are replaced."""
    stderr: str
    exit_code: int
    """Of the process; negative is a signal."""
    seconds: float
    """On the clock."""
    cpu_seconds: float
    """Of a processor. Far below `seconds`, a run that ended by time has slept, or the machine had too much to do."""
    value: Any = None
    """What the called function returned, through JSON: a tuple is a list, keys are strings."""


class SandboxError(Exception):
    """The sandbox itself failed, by no fault of the program: nothing is known about it."""


class Sandbox:
    """Runs programs in a server process of its own, which starts when first needed. A context manager.

    `packages` names what programs may import beside the standard library, such as numpy; it is imported before they
    start. Runs may overlap, from several threads. The sandbox ends with `close`, and when its process ends in any way.

    Raises UsageError where the system cannot confine programs. `unconfined=True` runs them nonetheless, with what
    protection there is, which may be none: they may then read, change and send away all that you can.
    """

    def __init__(self, limits: Limits | None = None, *, packages: Sequence[str] = (), unconfined: bool = False) -> None:
        self.limits = limits or Limits()
        self.packages = tuple(packages)
        self.unconfined = unconfined
        self.layers: tuple[str, ...] = ()
        """What is in force, for people; empty before the first run."""
        self.missing: tuple[str, ...] = ()
        """What the system does not offer, with its reason."""
        self._server: _Server | None = None
        self._lock = threading.Lock()

    def run(
        self,
        program: str,
        *,
        stdin: str = "",
        call: tuple[str, Sequence[Any]] | None = None,
        limits: Limits | None = None,
    ) -> Result:
        """Run a Python program as a script that reads `stdin`; with `call`, then call one of its functions.

        The arguments of a call are JSON, and so is what it returns. Raises SandboxError when the sandbox itself fails.
        """
        server, limits = self._started(), limits or self.limits
        request = json.dumps({"program": program, "call": call}).encode()
        try:
            return _Run(server, request, stdin.encode("utf-8", "replace"), limits, wants_value=call is not None).result
        except SandboxError:
            self.close()  # the next run starts a new server
            raise

    def close(self) -> None:
        """End the server and all that runs. The sandbox can still be used: it starts again."""
        with self._lock:
            if self._server is not None:
                self._server.end()
                self._server = None

    def __enter__(self) -> Sandbox:
        self._started()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> _Server:
        with self._lock:
            if self._server is None:
                server = _Server(self.packages, self.unconfined, [])
                if "namespaces" not in server.layers and (wrapped := bubblewrap.command(_paths(self.packages))):
                    with contextlib.suppress(UsageError, SandboxError):
                        inside = _Server(self.packages, self.unconfined, wrapped)
                        server.end()
                        server = inside
                try:
                    if not self.unconfined:
                        _prove(server)
                except BaseException:
                    server.end()
                    raise
                self.layers, self.missing, self._server = server.layers, server.missing, server
            return self._server


class _Server:
    """The server process and the socket to it. It sees the end of this process by a descriptor, however it ends."""

    def __init__(self, packages: Sequence[str], unconfined: bool, wrapper: Sequence[str]) -> None:
        if sys.platform != "linux":
            raise UsageError(
                f"programs that a model wrote are run on Linux alone: this is {sys.platform}",
                hint="use a Linux container or machine",
            )
        for name in packages:
            if importlib.util.find_spec(name) is None:
                raise UsageError(f"a package for programs is not installed: {name}")
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.pidfd_open(os.getpid())
        paths = _paths(packages)
        self.process = subprocess.Popen(
            [
                *wrapper,
                *(sys.executable, "-s", "-P", "-S", "-B", "-X", "utf8", "-c", _BOOT),
                *(str(theirs.fileno()), str(parent), "unconfined" if unconfined else "confined"),
                *packages,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), parent),
            cwd="/",
            env={**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        theirs.close()
        os.close(parent)
        self.end = weakref.finalize(self, _end, self.process, self.control)  # also when Python ends
        self.control.settimeout(START_TIMEOUT_S)
        try:
            answer = self.control.recv(1 << 16)
        except TimeoutError:
            answer = b""
        if not answer:
            self.end()
            raise SandboxError(f"the sandbox's server did not start: {' '.join(wrapper) or sys.executable}")
        said = json.loads(answer)
        if "error" in said:
            self.end()
            raise SandboxError(f"the sandbox's server failed: {said['error']}")
        if not (said["is_tight"] or unconfined):
            self.end()
            raise _cannot_confine("; ".join(said["missing"]))
        self.layers = (*(["bubblewrap"] if wrapper else []), *said["layers"])
        self.missing = tuple(said["missing"])


def _paths(packages: Sequence[str]) -> list[str]:
    """Where the server imports from: our own source first, and where packages for programs lie, if there are any."""
    return [str(Path(__file__).parents[3]), *(path for path in sys.path if packages and path)]


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cannot_confine(reason: str) -> UsageError:
    return UsageError(
        f"this system does not confine the programs a model writes: {reason}",
        hint="Landlock (Linux 5.13, in the kernel's lsm= list) and seccomp are enough, or namespaces and seccomp; "
        "Sandbox(unconfined=True) runs them without, with all your rights",
    )


class _Run:
    """One run, seen from outside: the files it gets, the bytes that come, and the clock."""

    def __init__(self, server: _Server, request: bytes, stdin: bytes, limits: Limits, *, wants_value: bool) -> None:
        self.limits = limits
        self.wants_value = wants_value
        self.start = time.monotonic()
        self.stopped: Status | None = None
        """Why we ended it."""
        with contextlib.ExitStack() as stack:
            lifeline, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            stack.enter_context(lifeline)
            given = [_in_memory(stdin)]
            self.received: dict[int, bytearray] = {}
            for _ in ("stdout", "stderr", "value"):
                self._pipe(given, stack)
            given.append(_in_memory(request))
            stdout, stderr, value = self.received.values()
            try:
                with theirs:
                    message = json.dumps(asdict(limits)).encode()
                    socket.send_fds(server.control, [message], [*given, theirs.fileno()])
            except OSError as error:
                raise SandboxError(f"the sandbox's server is gone: {error}") from error
            finally:
                for file in given:
                    os.close(file)
            report = self._follow(lifeline)
        if "error" in report:
            raise SandboxError(f"a run could not be prepared: {report['error']}")
        self.result = self._judge(report, bytes(stdout), bytes(stderr), bytes(value))

    def _pipe(self, given: list[int], stack: contextlib.ExitStack) -> None:
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        stack.callback(os.close, ours)
        given.append(theirs)
        self.received[ours] = bytearray()

    def _follow(self, lifeline: socket.socket) -> dict[str, Any]:
        """Read until the keeper reports. Over a limit, end the program first, by closing our side of the lifeline."""
        lifeline.setblocking(False)
        deadline = self.start + self.limits.seconds
        report = bytearray()
        with selectors.DefaultSelector() as selector:
            for file in self.received:
                selector.register(file, selectors.EVENT_READ)
            selector.register(lifeline, selectors.EVENT_READ)
            while lifeline in selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                for key, _ in ready:
                    data = _read(key.fd)
                    if key.fileobj is lifeline:
                        report += data or b""
                        if not data:
                            selector.unregister(lifeline)
                    elif data == b"":
                        selector.unregister(key.fd)
                    elif self._take(key.fd, data or b"") and self.stopped is None:
                        self.stopped = "output"
                        lifeline.shutdown(socket.SHUT_WR)
                        deadline = time.monotonic() + _GRACE_S
                if time.monotonic() >= deadline and lifeline in selector.get_map():
                    if self.stopped is not None:
                        raise SandboxError("a program that was to be killed is still there")
                    self.stopped = "time"
                    lifeline.shutdown(socket.SHUT_WR)
                    deadline = time.monotonic() + _GRACE_S
        for file in self.received:  # what was written before the end and not yet read
            while data := _read(file):
                if self._take(file, data):
                    self.stopped = self.stopped or "output"
                    break
        try:
            return json.loads(report.split(b"\n")[0])
        except ValueError:
            raise SandboxError("the keeper of a run died") from None

    def _take(self, file: int, data: bytes) -> bool:
        """Keep up to the limit, and say whether there was more."""
        kept = self.received[file]
        room = self.limits.output_bytes - len(kept)
        kept += data[:room]
        return len(data) > room

    def _judge(self, report: dict[str, Any], stdout: bytes, stderr: bytes, said: bytes) -> Result:
        exit_code = os.waitstatus_to_exitcode(report["status"])
        note: dict[str, Any] = {}
        with contextlib.suppress(ValueError, RecursionError):  # the program may have written anything there
            read = json.loads(said)
            note = read if isinstance(read, dict) else {}
        status: Status
        if self.stopped is not None:
            status = self.stopped
        elif exit_code == -signal.SIGSYS:
            status = "denied"
        elif exit_code in (-signal.SIGKILL, -signal.SIGXCPU):
            status = "time" if report["cpu"] >= self.limits.seconds else "memory"
        elif note.get("memory"):
            status = "memory"
        elif exit_code != 0 or (self.wants_value and "value" not in note):
            status = "error"
        else:
            status = "ok"
        value = note.get("value") if status == "ok" and self.wants_value else None
        return Result(
            status,
            stdout.decode("utf-8", "replace"),
            stderr.decode("utf-8", "replace"),
            exit_code,
            time.monotonic() - self.start,
            report["cpu"],
            value,
        )


def _read(file: int) -> bytes | None:
    """What is there; nothing at the end; None where there is nothing yet."""
    try:
        return os.read(file, 1 << 16)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


def _in_memory(data: bytes) -> int:
    """A file that nobody can change, at its start."""
    file = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(file, "wb", closefd=False) as writer:
        writer.write(data)
    seal, shrink, grow, write = 1, 2, 4, 8
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seal | shrink | grow | write)
    os.lseek(file, 0, os.SEEK_SET)
    return file


_PROBE = """
import os, socket, sys
import colorsys  # of the standard library, and not loaded before
attempts = {
    "open a connection": lambda: socket.socket(),
    "start a process": lambda: os.fork() or os._exit(0),
    "read a file outside": lambda: open(sys.stdin.readline().strip()).read(),
    "write a file outside": lambda: open(sys.stdin.readline().strip(), "w"),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError:
        continue
    print(name)
"""


def _prove(server: _Server) -> None:
    """Try what must not be possible, before any program does."""
    folder = Path(tempfile.mkdtemp(prefix="zaya-sandbox-"))
    try:
        folder.chmod(0o777)
        secret = folder / "secret"
        secret.write_text("secret")
        secret.chmod(0o666)
        stdin = f"{secret}\n{folder / 'new'}\n".encode()
        request = json.dumps({"program": _PROBE, "call": None}).encode()
        result = _Run(server, request, stdin, Limits(seconds=30), wants_value=False).result
    finally:
        shutil.rmtree(folder)
    if result.status != "ok":
        raise _cannot_confine(f"its own test ended with {result.status}: {result.stderr.strip()[-500:]}")
    if result.stdout:
        raise _cannot_confine(f"a program could {', '.join(result.stdout.splitlines())}")
