"""Programs that try what a sandbox has to deny. Each prints BREACH where it succeeds.

`SECRET` in a program stands for the path of a file outside that everybody may read and write, `FOLDER` for its folder,
`PARENT` for the process id of who runs the sandbox.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import zaya.errors
from zaya.envs.sandbox.runner import Limits, Sandbox

LIMITS = {"memory_bytes": 1 << 28, "output_bytes": 1 << 16}
LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ncall = libc.syscall\n"


@dataclass(frozen=True, slots=True)
class Attack:
    name: str
    program: str
    statuses: tuple[str, ...] = ("ok", "error")
    """How the run may end."""
    is_harmless: bool = False
    """May be tried without a sandbox, where it has to succeed: it is a real attack then."""

    @property
    def seconds(self) -> float:
        """Those that only time can end are not given much of it."""
        return 0.4 if self.statuses == ("time",) else 20


def harmless(name: str, program: str) -> Attack:
    return Attack(name, program, is_harmless=True)


def killed(name: str, call: str) -> Attack:
    """A system call that ends the process; by none of its errors does it come back."""
    return Attack(name, f"{LIBC}{call}\nprint('BREACH')", ("denied",))


SOCKETS = {
    "unix": 1, "inet": 2, "ax25": 3, "ipx": 4, "inet6": 10, "netlink": 16, "packet": 17, "rds": 21, "can": 29,
    "tipc": 30, "bluetooth": 31, "alg": 38, "vsock": 40, "xdp": 44,
}  # fmt: skip

READS = {
    "a secret": "SECRET",
    "the users": "/etc/passwd",
    "the shadow file": "/etc/shadow",
    "its own environment": "/proc/self/environ",
    "its own memory": "/proc/self/mem",
    "the parent's environment": "/proc/PARENT/environ",
    "the parent's command line": "/proc/PARENT/cmdline",
    "the parent's memory map": "/proc/PARENT/maps",
    "the first process": "/proc/1/cmdline",
    "the kernel's version": "/proc/version",
    "the mounts": "/proc/self/mountinfo",
    "the host's name": "/etc/hostname",
    "sysfs": "/sys/kernel/notes",
    "a disk": "/dev/vda",
    "a terminal": "/dev/tty",
    "kernel messages": "/dev/kmsg",
    "a path with dots": "/tmp/../..SECRET",
    "our own source": "SOURCE",
}

READABLE = {"a secret", "the users", "its own environment", "the parent's command line", "the mounts", "our own source"}

ATTACKS = [
    *(
        Attack(f"socket {name}", f"import socket\nsocket.socket({family}, 2)\nprint('BREACH')")
        for name, family in SOCKETS.items()
    ),
    harmless("connect", "import socket\nsocket.socket()\nprint('BREACH')"),
    Attack(
        "datagram pair", "import socket\nsocket.socketpair(1, socket.SOCK_DGRAM)\nprint('BREACH')", is_harmless=True
    ),
    harmless(
        "send to a path",
        "import socket\na, b = socket.socketpair()\ntry:\n    a.sendto(b'', '/tmp/none')\n"
        "except OSError as error:\n    import errno\n    print('' if error.errno == errno.EPERM else 'BREACH')",
    ),
    *(
        Attack(f"read {name}", f"print('BREACH' if open({path!r}, 'rb').read(1) else '')", is_harmless=name in READABLE)
        for name, path in READS.items()
    ),
    harmless("list the root", "import os\nprint('BREACH' if {'etc', 'home', 'usr'} & set(os.listdir('/')) else '')"),
    harmless("list processes", "import os\nprint('BREACH' if os.listdir('/proc') else '')"),
    harmless("import a package", "import pip\nprint('BREACH')"),
    harmless(
        "other people's packages",
        "import os\nprint('BREACH' if os.listdir(os.path.dirname(os.__file__) + '/site-packages') else '')",
    ),
    Attack("import zaya", "import zaya\nprint('BREACH')"),
    Attack(
        "import zaya again", "import sys\nsys.path += ['SRC']\nimport zaya.errors\nprint('BREACH')", is_harmless=True
    ),
    Attack("loaded modules", "import sys\nprint('BREACH' if any(m.startswith('zaya') for m in sys.modules) else '')"),
    harmless(
        "environment",
        "import os\nprint('BREACH' if set(os.environ) - {'PYTHONHASHSEED', 'HOME', 'TMPDIR', 'LANG', 'TZ',\n"
        "    'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'LC_CTYPE'} else '')",
    ),
    harmless("write outside", "open('FOLDER/new', 'w').write('x')\nprint('BREACH')"),
    harmless("change outside", "open('SECRET', 'a').write('x')\nprint('BREACH')"),
    harmless("truncate outside", "import os\nos.truncate('SECRET', 3)\nprint('BREACH')"),
    harmless("mode outside", "import os\nos.chmod('SECRET', 0o666)\nprint('BREACH')"),
    harmless("time outside", "import os\nos.utime('SECRET', (1, 1))\nprint('BREACH')"),
    harmless("link outside", "import os\nos.link('SECRET', 'FOLDER/link')\nprint('BREACH')"),
    harmless("rename outside", "import os\nos.rename('SECRET', 'FOLDER/moved')\nprint('BREACH')"),
    harmless("remove outside", "import os\nos.remove('SECRET')\nprint('BREACH')"),
    harmless("folder outside", "import os\nos.mkdir('FOLDER/folder')\nprint('BREACH')"),
    harmless(
        "symbolic link",
        "import os\nos.symlink('SECRET', 'FOLDER/s' if 0 else 'here')\nopen('here').read()\nprint('BREACH')",
    ),
    Attack(
        "symbolic link race",
        "import os, threading\nopen('a', 'w').close()\nos.symlink('SECRET', 'b')\n"
        "def swap():\n    while True:\n        os.rename('a', 'c'); os.rename('b', 'a'); os.rename('a', 'b')\n"
        "        os.rename('c', 'a')\n"
        "threading.Thread(target=swap, daemon=True).start()\n"
        "for _ in range(20000):\n    try:\n        print('BREACH' if open('a').read() else '', end='')\n"
        "    except OSError:\n        pass",
        ("ok", "error", "time"),
    ),
    harmless("write the library", "import json\nopen(json.__file__, 'a')\nprint('BREACH')"),
    harmless("a device", "import os\nos.mknod('FOLDER/pipe', 0o10600)\nprint('BREACH')"),
    harmless("fork", "import os\nif os.fork() == 0:\n    os._exit(0)\nprint('BREACH')"),
    Attack(
        "fork bomb",
        "import os\nwhile True:\n    try:\n        os.fork(); print('BREACH')\n"
        "    except PermissionError:\n        break",
    ),
    Attack("vfork", f"{LIBC}print('BREACH' if libc.vfork() > 0 else '')", ("ok", "error", "denied")),
    Attack("clone3", f"{LIBC}print('BREACH' if call(435, bytes(88), 88) >= 0 else '')"),
    Attack("clone with new namespaces", f"{LIBC}print('BREACH' if call(CLONE, 0x10000011, 0, 0, 0, 0) >= 0 else '')"),
    harmless("subprocess", "import subprocess, sys\nsubprocess.run(['/bin/true'])\nprint('BREACH')"),
    harmless("exec", "import os\nos.execv('/bin/echo', ['echo', 'BREACH'])"),
    Attack("exec of itself", "import os, sys\nos.execv(sys.executable, ['python', '-c', 'print(\"BREACH\")'])"),
    Attack("exec from memory", "import os\nf = os.memfd_create('x')\nprint('BREACH')", is_harmless=True),
    harmless(
        "multiprocessing",
        "import multiprocessing as m\np = m.get_context('fork').Process(target=print)\n"
        "p.start()\np.join()\nprint('BREACH')",
    ),
    Attack(
        "a child that never ends",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(1000)\n"
        "print('BREACH')",
    ),
    Attack(
        "thread bomb",
        "import threading, time\nthreading.stack_size(32768)\nn = 0\n"
        "for n in range(5000):\n    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()\n"
        "print('BREACH')",
    ),
    Attack("memory bomb", "x = []\nwhile True:\n    x.append(bytearray(1 << 26))", ("memory",)),
    Attack("memory bomb by pieces", "x = []\nwhile True:\n    x.append([x] * 1000)", ("memory",)),
    Attack("a huge number", "x = 1 << (1 << 40)\nprint('BREACH')", ("memory", "error")),
    Attack(
        "shared memory",
        "import mmap\nx = [mmap.mmap(-1, 1 << 28) for _ in range(16)]\nprint('BREACH')",
        ("memory", "error"),
    ),
    Attack(
        "stack overflow",
        "import ctypes, sys\nsys.setrecursionlimit(10**9)\n"
        "class A:\n    def __repr__(self): return repr(self)\nrepr(A())\nprint('BREACH')",
        ("error", "memory"),
    ),
    Attack("crash", "import ctypes\nctypes.string_at(0)\nprint('BREACH')", ("error",)),
    Attack("loop", "while True: pass", ("time",)),
    Attack(
        "loop in C", "'a' * 5000000 in ('a' * 2500000 + 'b') * 4\nimport re\nre.match('(a*)*b', 'a' * 40)", ("time",)
    ),
    Attack("sleep", "import time\ntime.sleep(1000)", ("time",)),
    Attack(
        "deaf to signals",
        "import signal\nfor n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except OSError: pass\nwhile True: pass",
        ("time",),
    ),
    Attack(
        "a thread that stays",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()",
        ("time",),
    ),
    Attack("an end that does not come", "import atexit, time\natexit.register(time.sleep, 1000)", ("time",)),
    Attack("flood of stdout", "while True: print('x' * 1000)", ("output",)),
    Attack("flood of stderr", "import sys\nwhile True: print('x' * 1000, file=sys.stderr)", ("output",)),
    Attack("flood of the result", "import os\nwhile True: os.write(3, b'x' * 1000)", ("output",)),
    Attack("flood and end", "import os\nos.write(1, b'x' * 60000); os.write(1, b'x' * 60000)", ("output",)),
    Attack(
        "a large file", "f = open('x', 'wb')\nfor _ in range(64): f.write(bytes(1 << 20))\nf.flush()\nprint('BREACH')"
    ),
    Attack("many files", "import os\nfor n in range(10000): open(str(n), 'w').close()\nprint('BREACH')"),
    Attack("a full disk", "import os\nfor n in range(200): open(str(n), 'wb').write(bytes(1 << 20))\nprint('BREACH')"),
    Attack(
        "many open files",
        "x = [open(0, closefd=False) for _ in range(3)]\nimport os\nfor _ in range(1000): os.dup(0)\nprint('BREACH')",
    ),
    Attack(
        "forge the report",
        "import os\nfor n in range(4, 99):\n    try: os.write(n, b'{\"error\": 1}\\n'); print('BREACH')\n"
        "    except OSError: pass",
    ),
    Attack("more limits", "import resource as r\nr.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2)\nprint('BREACH')"),
    Attack("more processor time", "import resource as r\nr.setrlimit(r.RLIMIT_CPU, (9999, 9999))\nprint('BREACH')"),
    Attack(
        "the parent's limits",
        "import resource as r\nr.prlimit(PARENT, r.RLIMIT_NOFILE)\nprint('BREACH')",
        is_harmless=True,
    ),
    Attack("signal to the parent", "import os\nos.kill(PARENT, 0)\nprint('BREACH')", is_harmless=True),
    Attack(
        "signal to its parent",
        "import os\nos.kill(os.getppid(), 0) if os.getppid() else 1 / 0\nprint('BREACH')",
        is_harmless=True,
    ),
    Attack("signal to all", "import os\nos.kill(-1, 9)\nprint('BREACH')"),
    Attack("signal to the group", "import os\nos.killpg(0, 0)\nprint('BREACH')", is_harmless=True),
    Attack(
        "signal to a thread of the parent",
        f"{LIBC}print('BREACH' if call(TGKILL, PARENT, PARENT, 0) == 0 else '')",
        is_harmless=True,
    ),
    Attack(
        "signal by a queue", f"{LIBC}print('BREACH' if libc.sigqueue(PARENT, 0, None) == 0 else '')", is_harmless=True
    ),
    Attack(
        "signal by a file",
        "import fcntl, os\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, PARENT)\nprint('BREACH')",
        is_harmless=True,
    ),
    Attack("handle of the parent", "import os\nos.pidfd_open(PARENT)\nprint('BREACH')", is_harmless=True),
    Attack("outlive the keeper", f"{LIBC}print('BREACH' if libc.prctl(1, 0, 0, 0, 0) == 0 else '')", is_harmless=True),
    Attack("a core for all", f"{LIBC}print('BREACH' if libc.prctl(4, 1, 0, 0, 0) == 0 else '')", is_harmless=True),
    Attack("priority", "import os\nos.setpriority(0, 0, -5)\nprint('BREACH')"),
    Attack("processors", "import os\nos.sched_setaffinity(0, {0})\nprint('BREACH')", is_harmless=True),
    Attack("shared memory of the system", f"{LIBC}print('BREACH' if libc.shmget(77, 4096, 0o1666) >= 0 else '')"),
    Attack("message queue", f"{LIBC}print('BREACH' if libc.msgget(77, 0o1666) >= 0 else '')"),
    Attack("watch files", f"{LIBC}print('BREACH' if libc.inotify_init() >= 0 else '')", is_harmless=True),
    killed("ptrace", "libc.ptrace(16, PARENT, 0, 0)"),
    killed("ptrace me", "libc.ptrace(0, 0, 0, 0)"),
    killed("the parent's memory", "libc.process_vm_readv(PARENT, None, 0, None, 0, 0)"),
    killed("into the parent's memory", "libc.process_vm_writev(PARENT, None, 0, None, 0, 0)"),
    killed("the parent's files", "call(438, 0, 1, 0)"),
    killed("unshare", "libc.unshare(0x10000000)"),
    killed("other namespaces", "libc.setns(0, 0)"),
    killed("mount", "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)"),
    killed("unmount", "libc.umount2(b'/tmp', 2)"),
    killed("chroot", "os.chroot('.')"),
    killed("user 0", "os.setuid(0)"),
    killed("group 0", "os.setgid(0)"),
    killed("io_uring", "call(425, 8, bytes(120))"),
    killed("keys", "libc.syscall(KEYCTL, 0, -3, 0)"),
    killed("personality", "call(PERSONALITY, 0x0040000)"),
]


NUMBERS = {"CLONE": (56, 220), "TGKILL": (234, 131), "KEYCTL": (250, 219), "PERSONALITY": (135, 92)}


def program_of(attack: Attack, secret: Path, parent: int) -> str:
    """The program, with what stands for something outside filled in."""
    places = {"SECRET": secret, "FOLDER": secret.parent, "PARENT": parent, "SOURCE": zaya.errors.__file__}
    places |= {name: numbers[platform.machine() == "aarch64"] for name, numbers in NUMBERS.items()}
    places["SRC"] = Path(zaya.errors.__file__).parents[1]
    program = attack.program
    for name, value in places.items():
        program = re.sub(rf"\b{name}\b", str(value), program)
    return program


def breaches(sandbox: Sandbox, attack: Attack, secret: Path) -> list[str]:
    """What an attack did that it must not; nothing where the sandbox holds."""
    before = [(file, file.stat(), file.read_bytes()) for file in sorted(secret.parent.iterdir())]
    result = sandbox.run(program_of(attack, secret, os.getpid()), limits=Limits(seconds=attack.seconds, **LIMITS))
    after = [(file, file.stat(), file.read_bytes()) for file in sorted(secret.parent.iterdir())]
    found = []
    if "BREACH" in result.stdout:
        found.append("it succeeded")
    if result.status not in attack.statuses:
        found.append(f"{result.status}: {result.stderr[-300:]}")
    if [(file, stat.st_mode, stat.st_mtime, data) for file, stat, data in before] != [
        (file, stat.st_mode, stat.st_mtime, data) for file, stat, data in after
    ]:
        found.append("files changed")
    return [f"{attack.name}: {what}" for what in found]
