"""A process that has less than this machine offers, and tries all attacks in a sandbox it starts.

    python -m tests.envs.sandbox_modes [readable] [user] [no-namespaces] [no-landlock] [no-seccomp] [bubblewrap]
        [unconfined] [attacks | some-attacks | leaving]

Prints one line of JSON: what is in force or the error, what an honest program said, and the breaches.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from zaya.envs.sandbox import kernel
from zaya.envs.sandbox.seccomp import _instruction

if TYPE_CHECKING:
    from zaya.envs.sandbox.runner import Sandbox

NOBODY = 65534
IS_ARM = kernel.MACHINE == "aarch64"
SECCOMP = 277 if IS_ARM else 317
CALLS = {"no-namespaces": 97 if IS_ARM else 272, "no-landlock": 444, "no-seccomp": SECCOMP}


def let_everybody_read(path: str) -> None:
    """The interpreter may lie below a folder of root's: in mounts of our own, all on the way to it may be entered."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", "/mnt", "tmpfs", 0, "mode=755")
    closed = [parent for parent in Path(path).parents if not parent.stat().st_mode & 0o001]
    for parent in closed[-1:]:
        Path("/mnt/kept").mkdir()
        kernel.mount(path, "/mnt/kept", None, kernel.MS_BIND | kernel.MS_REC)
        kernel.mount("tmpfs", str(parent), "tmpfs", 0, "mode=755")
        Path(path).mkdir(parents=True)
        kernel.mount("/mnt/kept", path, None, kernel.MS_BIND | kernel.MS_REC)


def refuse(number: int, error: int) -> None:
    """From now on that system call fails, for this process and all it starts."""
    filters = [_instruction(0x20, 0), _instruction(0x15, number, 0, 1), _instruction(0x06, 0x50000 | error)]
    filters.append(_instruction(0x06, 0x7FFF0000))
    instructions = ctypes.create_string_buffer(b"".join(filters), 8 * len(filters))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(filters), ctypes.addressof(instructions)))
    kernel.system_call("seccomp", SECCOMP, 1, 0, program)


def left_by(sandbox: Sandbox) -> list[int]:
    """Processes that are still there after a program that could start some."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    started = sandbox.run(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(1000)\n"
        "    os._exit(0)\nprint('BREACH')"
    )
    assert "BREACH" in started.stdout
    found = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    _, left = psutil.wait_procs(found, timeout=5)  # what was killed may take a moment to be gone
    return [process.pid for process in left]


def main(wanted: list[str]) -> dict[str, object]:
    if "readable" in wanted:
        let_everybody_read(os.path.realpath(sys.base_prefix))
    if "user" in wanted:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    kernel.forbid_new_privileges()
    for name in wanted:
        if name in CALLS:
            refuse(CALLS[name], errno.EPERM if name == "no-namespaces" else errno.ENOSYS)
    # Imported as late as this, since it reads files that the user can read by now.
    from tests.envs.sandbox_attacks import ATTACKS, breaches
    from zaya.envs.sandbox import bubblewrap, runner
    from zaya.envs.sandbox.runner import Sandbox
    from zaya.errors import UsageError

    if "bubblewrap" in wanted:
        start = runner._Server
        runner._Server = lambda packages, unconfined, _: start(
            packages, unconfined, bubblewrap.command(runner._paths(packages))
        )
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "secret"
        secret.write_text("secret")
        try:
            with Sandbox(unconfined="unconfined" in wanted) as sandbox:
                if "leaving" in wanted:
                    return {"left": left_by(sandbox)}
                said = sandbox.run("import colorsys, os\nprint(input(), os.getuid())", stdin="hello")
                asked = sandbox.run("def double(x): return 2 * x", call=("double", [21]))
                attacks = ATTACKS if "attacks" in wanted else ATTACKS[::6] if "some-attacks" in wanted else []
                found = [breach for attack in attacks for breach in breaches(sandbox, attack, secret)]
                layers, missing = sandbox.layers, sandbox.missing
        except UsageError as error:
            return {"error": error.message}
    honest = [said.stdout, said.stderr, asked.value]
    return {"layers": layers, "missing": missing, "honest": honest, "breaches": found}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
