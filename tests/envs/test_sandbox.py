"""The sandbox against programs that a model might write, honest and not.

1. An honest program runs as Python runs it: input, output, exit code, errors, threads, files of its own. Hashes are
   those of seed 0.
2. A called function gives back JSON, and what is no such value is an error. So is an end that comes before.
3. Every attack of `sandbox_attacks` is denied within the limit and changes nothing outside. Those that can be tried
   without harm succeed without a sandbox.
4. So it is with less: as a user, without namespaces, without Landlock, within bubblewrap. With neither, without
   seccomp, or where programs could only run as root, the sandbox refuses and says why, unless it is told otherwise.
5. Each limit is its own status. A program can fake them only to its harm.
6. A run sees nothing of another: no files, no memory, no state, not even when they overlap.
7. Nothing is left behind: no process, file, mount or open file. Not by a run, not by the end of the sandbox, not when
   its process is killed in the middle of a run, not by programs that start others where they can.
8. What fails by no fault of the program is no result: it raises, and the next run works.
9. Packages that are asked for can be imported, others not.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest

from tests.envs.sandbox_attacks import ATTACKS, LIMITS, Attack, breaches, program_of
from zaya.envs.sandbox import runner
from zaya.envs.sandbox.runner import Limits, Sandbox, SandboxError
from zaya.errors import UsageError

ROOT = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0
STARTED = time.time()


def why_not() -> str | None:
    try:
        with Sandbox():
            return None
    except UsageError as error:
        return error.message


REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(seconds=20, memory_bytes=1 << 28, output_bytes=1 << 16)) as sandbox:
        yield sandbox


@pytest.fixture
def secret() -> Iterator[Path]:
    """A file that everybody may read and write. Not in tmp_path, whose parents only its user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        file = Path(folder) / "secret"
        file.write_text("secret")
        file.chmod(0o666)
        yield file


def descendants() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def wait_until(is_true: Callable[[], bool]) -> bool:
    """Within ten seconds, which is far more than it takes."""
    for _ in range(500):
        if is_true():
            return True
        time.sleep(0.02)
    return False


def alone(*wanted: str) -> dict[str, Any]:
    """What a process that has less says; see `sandbox_modes`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.envs.sandbox_modes", *wanted],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# 1


def test_a_script_reads_and_writes(sandbox: Sandbox) -> None:
    result = sandbox.run("a, b = map(int, input().split())\nprint(a + b)\nprint('é', input())", stdin="1 2\nzwei\n")
    assert (result.status, result.stdout, result.stderr, result.exit_code) == ("ok", "3\né zwei\n", "", 0)
    assert 0 < result.seconds < 20


@pytest.mark.parametrize(
    ("program", "stdout"),
    [
        ("import sys\nprint(sys.stdin.read())", "in"),
        ("print(open(0).read())", "in"),
        ("import os\nprint(os.read(0, 9).decode())", "in"),
        ("import sys\nfor line in sys.stdin.buffer: print(line.decode())", "in"),
        ("if __name__ == '__main__': print('main')", "main"),
        ("import sys\nprint(sys.argv, __file__)", "['program.py'] program.py"),
        ("print('so far')\nexit()\nprint('and no further')", "so far"),
        ("import sys\nsys.stdout.write('out')\nsys.exit(0)", "out"),
        ("import os\nprint('lost', end='', flush=True)\nos._exit(0)", "lost"),
        ("import atexit\natexit.register(print, 'at the end')", "at the end"),
        ("import dataclasses, pickle\n@dataclasses.dataclass\nclass A: x: int\nprint(pickle.loads(pickle.dumps(A(3))))",
         "A(x=3)"),
        ("import asyncio\nasync def main(): await asyncio.sleep(0); print('async')\nasyncio.run(main())", "async"),
        ("import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 26)\n"
         "def f(n): return n and 1 + f(n - 1)\n"
         "t = threading.Thread(target=lambda: print(f(50000)))\nt.start()", "50000"),
        ("from concurrent.futures import ThreadPoolExecutor\n"
         "with ThreadPoolExecutor(8) as pool: print(sum(pool.map(abs, range(9))))", "36"),
        ("import tempfile\nwith tempfile.TemporaryFile() as f: print(f.write(b'12345'))", "5"),
        ("import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').write('x')\nos.rename('a/b/c', 'a/d')\n"
         "print(sorted(os.listdir('a')), open('a/d').read())", "['b', 'd'] x"),
        ("import sqlite3\nprint(sqlite3.connect(':memory:').execute('select 1 + 1').fetchone())", "(2,)"),
        ("import decimal, fractions, bz2, lzma, zlib, hashlib, random, statistics, colorsys, graphlib, difflib", ""),
        ("import subprocess\ntry: subprocess.run(['ls'])\nexcept OSError: print('none')", "none"),
    ],
)  # fmt: skip
def test_python_is_as_it_is_elsewhere(sandbox: Sandbox, program: str, stdout: str) -> None:
    result = sandbox.run(program, stdin="in")
    assert (result.status, result.stdout.strip(), result.stderr) == ("ok", stdout, "")


def test_hashes_are_those_of_seed_0(sandbox: Sandbox) -> None:
    program = "print(hash('abc'), list({'x', 'y', 'z'}))"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    plain = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert sandbox.run(program).stdout == plain.stdout


@pytest.mark.parametrize(
    ("program", "exit_code", "stderr"),
    [
        ("x = 1\nx / 0", 1, 'File "program.py", line 2, in <module>\n    x / 0\n'),
        ("def f(:", 1, "SyntaxError"),
        ("raise SystemExit(7)", 7, ""),
        ("quit(7)", 7, ""),
        ("import sys\nsys.exit('bye')", 1, "bye"),
        ("print('right')\nraise ValueError('after all')", 1, "after all"),
        ("print('right', flush=True)\nimport os\nos._exit(3)", 3, ""),
        ("import os\nos.abort()", None, ""),
        ("\ud800", 1, "Error"),
        ("\0", 1, "Error"),
    ],
)
def test_errors(sandbox: Sandbox, program: str, exit_code: int | None, stderr: str) -> None:
    result = sandbox.run(program)
    assert result.status == "error"
    assert exit_code is None or result.exit_code == exit_code
    assert stderr in result.stderr
    assert "zaya" not in result.stderr  # frames of ours are no help


# 2


@pytest.mark.parametrize(
    ("program", "arguments", "value"),
    [
        ("def f(x): return 2 * x", [21], 42),
        ("def f(*x): return x", [[1, "é"], {"a": None}], [[1, "é"], {"a": None}]),
        ("def f(): return None", [], None),
        ("def f(x):\n    print('printed')\n    return x", [1.5], 1.5),
        ("import sys\nf = sys.intern", ["x"], "x"),
        ("if __name__ == '__main__': 1 / 0\ndef f(): return __name__", [], "program"),
        ("def f(x): return {1: x}", [2], {"1": 2}),
    ],
)
def test_calls(sandbox: Sandbox, program: str, arguments: list[object], value: object) -> None:
    result = sandbox.run(program, call=("f", arguments))
    assert (result.status, result.value, result.stderr) == ("ok", value, "")


@pytest.mark.parametrize(
    "program",
    [
        "def f(): return {1, 2}",
        "def f(): return object()",
        "def f(x): return x",
        "def g(): return 1",
        "f = 3",
        "def f():\n    x = []\n    x.append(x)\n    return x",
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "def f():\n    import os\n    os.close(3)\n    return 1",
        "import os\nos.write(3, b'{\"value\": ')\nos._exit(0)",
        "import os\nos.write(3, b'[1]')\nos._exit(0)",
        "import os\nos.write(3, b'[' * 60000)\nos._exit(0)",
        "import os\nos.write(3, b'1' * 60000)\nos._exit(0)",
        "import os\nos.write(3, b'\\xff\\xfe')\nos._exit(0)",
        "import os\nos.write(3, b'{\"value\": 1}')\ndef f(): return 2",
        "import json\njson.dumps = lambda x: 'ok'\ndef f(): return 1",
        "import json\njson.dumps = lambda x: b'{}'\ndef f(): return 1",
    ],
)
def test_what_is_no_value(sandbox: Sandbox, program: str) -> None:
    result = sandbox.run(program, call=("f", []))
    assert (result.status, result.value) == ("error", None)


def test_a_program_can_only_say_what_its_own_output_is(sandbox: Sandbox) -> None:
    """A result that it writes itself is what it says for these arguments: no more than to return it."""
    forged = 'import os\nos.write(3, b\'{"value": 5, "status": "ok", "correct": true}\')\nos._exit(0)'
    assert sandbox.run(forged, call=("f", [])).value == 5
    assert sandbox.run(forged).value is None


# 3


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attacks(sandbox: Sandbox, attack: Attack, secret: Path) -> None:
    before = descendants()
    assert breaches(sandbox, attack, secret) == []
    assert wait_until(lambda: descendants() <= before)


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.is_harmless], ids=lambda attack: attack.name)
@pytest.mark.skipif(not IS_ROOT, reason="some need to be root")
def test_attacks_are_real(attack: Attack, secret: Path, tmp_path: Path) -> None:
    program = program_of(attack, secret, os.getpid())
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True)
    assert b"BREACH" in done.stdout, done.stderr


def test_there_are_as_many_attacks_as_promised() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 40


# 4


@pytest.mark.skipif(not IS_ROOT, reason="takes rights away that only root has")
@pytest.mark.parametrize("attacks", ["some-attacks", pytest.param("attacks", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("wanted", "layers"),
    [
        ("user", ["namespaces", "landlock", "seccomp"]),
        ("no-namespaces", ["landlock", "seccomp", "user"]),
        ("user no-namespaces", ["landlock", "seccomp"]),
        ("no-landlock", ["namespaces", "seccomp", "user"]),
        ("user no-landlock", ["namespaces", "seccomp"]),
        ("user bubblewrap", ["bubblewrap", "namespaces", "landlock", "seccomp"]),
    ],
)
def test_with_less(wanted: str, layers: list[str], attacks: str) -> None:
    if "bubblewrap" in wanted and not shutil.which("bwrap"):
        pytest.skip("bwrap is not installed")
    said = alone("readable", attacks, *wanted.split())
    assert said["layers"] == layers
    assert said["breaches"] == []
    (greeting, errors, value) = said["honest"]
    assert (greeting.split()[0], errors, value) == ("hello", "", 42)
    assert int(greeting.split()[1]) != 0


@pytest.mark.skipif(not IS_ROOT, reason="takes rights away that only root has")
@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("no-namespaces no-landlock", "landlock (Function not implemented)"),
        ("user no-namespaces no-landlock", "namespaces (Operation not permitted); landlock"),
        ("no-seccomp", "seccomp (Function not implemented)"),
    ],
)
def test_too_little_is_refused(wanted: str, reason: str) -> None:
    assert reason in str(alone("readable", *wanted.split())["error"])
    said = alone("readable", "unconfined", *wanted.split())
    assert said["honest"][0].startswith("hello")


def test_a_sandbox_that_does_not_hold_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kernel that has all the calls and enforces nothing would: here the test asks for what is allowed."""
    monkeypatch.setattr(runner, "_PROBE", "print('read a file outside')")
    with pytest.raises(UsageError, match="a program could read a file outside"), Sandbox():
        pass


# 5


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("print('some', flush=True)\nwhile True: pass", "time"),
        ("bytearray(1 << 40)", "memory"),
        ("def f(): raise MemoryError\nf()", "memory"),
        ("print('x' * 100000)", "output"),
        ("import os\nos.write(3, b'{\"memory\": true}')", "memory"),
        ("import ctypes\nctypes.CDLL(None).ptrace(0, 0, 0, 0)", "denied"),
    ],
)
def test_limits_are_told_apart(sandbox: Sandbox, program: str, status: str) -> None:
    result = sandbox.run(program, limits=Limits(**LIMITS, seconds=0.5 if status == "time" else 20))
    assert result.status == status
    assert result.stdout in ("some\n", "", "x" * (1 << 16))
    assert result.value is None


def test_time_is_told_apart(sandbox: Sandbox) -> None:
    asleep, busy = (
        sandbox.run(program, limits=Limits(seconds=1)) for program in ("import time\ntime.sleep(9)", "while True: pass")
    )
    assert asleep.seconds >= 1
    assert busy.seconds >= 1
    assert 0 <= asleep.cpu_seconds < busy.cpu_seconds <= busy.seconds


def test_just_enough_is_enough(sandbox: Sandbox) -> None:
    assert sandbox.run(f"print('x' * {(1 << 16) - 1})").stdout == "x" * ((1 << 16) - 1) + "\n"
    assert sandbox.run("len(bytearray(200 << 20))").status == "ok"


def test_the_limits_of_the_system_are_set(sandbox: Sandbox) -> None:
    names = ("CPU", "FSIZE", "NOFILE", "CORE", "MEMLOCK")
    program = f"import resource as r\nfor n in {names}: print(*r.getrlimit(getattr(r, 'RLIMIT_' + n)))"
    said = sandbox.run(program, limits=Limits(seconds=1.2, file_bytes=777)).stdout
    assert said == "3 3\n777 777\n32 32\n0 0\n0 0\n"


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_limits_that_are_none(value: float) -> None:
    with pytest.raises(UsageError, match="a limit of a run must be above 0 and finite: seconds"):
        Limits(seconds=value)


# 6

FIND = """
import ctypes, gc, os
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
reader, writer = os.pipe()
page = 4096
def scan(start, pages):
    for n in range(pages):
        # The kernel looks for us: an address that is not there is an error, not a crash.
        if libc.write(writer, ctypes.c_void_p(start + n * page), ctypes.c_size_t(page)) == page:
            yield os.read(reader, page)
places = [((id(x) >> 20) - 40 << 20, 40 * 512) for x in (object(), [], "y" * 100)]
places.append(((libc.sbrk(0) - (64 << 20)) // page * page, 16384))
# The text is looked for in disguise, so that the search does not find itself.
disguise = bytes(b ^ 1 for b in range(256))
print(sum(WANTED in data.translate(disguise) for place in places for data in scan(*place)))
"""


def test_memory_of_a_run_is_not_in_the_next(sandbox: Sandbox) -> None:
    marker = "a-secret-of-the-first-run-"
    hidden = bytes(b ^ 1 for b in marker.encode())
    find = FIND.replace("WANTED", repr(hidden))
    assert int(sandbox.run(f"kept = ['{marker}' + str(n) for n in range(9999)]\n{find}").stdout) > 0
    for _ in range(3):
        sandbox.run(f"kept = ['{marker}' + str(n) for n in range(9999)]\nprint(input())", stdin=marker * 999)
    assert sandbox.run(find).stdout == "0\n"


def test_state_of_a_run_is_not_in_the_next(sandbox: Sandbox) -> None:
    changes = ("open('left', 'w').close()", "builtins.print = None", "os.environ['A'] = 'B'", "json.dumps = None",
               "sys.path.append('/tmp')", "os.umask(0o777)")  # fmt: skip
    assert sandbox.run("\n".join(["import builtins, json, os, sys", *changes])).status == "ok"
    told = sandbox.run("import os\nprint(os.listdir('.'), os.environ.get('A'), os.umask(0o22))\ndef f(): return 1")
    assert told.stdout == "[] None 18\n"
    assert sandbox.run("def f(): return 1", call=("f", [])).value == 1


def test_runs_may_overlap(sandbox: Sandbox) -> None:
    program = (
        "import os, time\nopen(input(), 'w').close()\ntime.sleep(0.2)\nprint(os.listdir('.'), os.listdir('/sandbox'))"
    )
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: sandbox.run(program, stdin=f"file{n}"), range(8)))
    assert [result.stdout for result in results] == [f"['file{n}'] ['file{n}']\n" for n in range(8)]


def test_open_files_of_the_parent_stay_there(sandbox: Sandbox, secret: Path) -> None:
    with secret.open() as file:
        os.set_inheritable(file.fileno(), True)
        program = "import os\nfor n in range(5, 256):\n    try: os.fstat(n); print(n)\n    except OSError: pass"
        with Sandbox() as other:
            assert other.run(program).stdout == "" == sandbox.run(program).stdout
        # 3 is the result, 4 the request, of which nothing is secret.


# 7


def test_the_sandbox_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, files, mounts = descendants(), len(os.listdir("/proc/self/fd")), Path("/proc/self/mountinfo").read_text()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sandbox = Sandbox()
    for _ in range(3):
        assert sandbox.run("open('x', 'w').write('left')").status == "ok"
        assert descendants() > before
        sandbox.close()
    assert sandbox.run("print(1)").stdout == "1\n"
    del sandbox
    gc.collect()
    assert wait_until(lambda: descendants() == before)
    assert len(os.listdir("/proc/self/fd")) == files
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert os.listdir(tmp_path) == []


def test_nobody_has_lost_a_process() -> None:
    """After all the above: no process of a sandbox whose parent is gone."""

    def orphans() -> list[psutil.Process]:
        found = [p for p in psutil.process_iter(["cmdline", "ppid"]) if p.create_time() > STARTED]
        return [p for p in found if p.info["ppid"] == 1 and "zaya.envs.sandbox.server" in str(p.info["cmdline"])]

    assert wait_until(lambda: not orphans())


KILLED = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
from zaya.envs.sandbox import runner
from zaya.envs.sandbox.runner import Limits, Sandbox
sandbox = Sandbox()
sandbox.run("print(1)")
for program in ("while True: pass", "import time; time.sleep(1000)"):
    threading.Thread(target=sandbox.run, args=(program,), kwargs={"limits": Limits(seconds=1000)}, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_parent_that_is_killed_leaves_nothing(number: int) -> None:
    parent = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    process = psutil.Process(parent.pid)
    assert wait_until(lambda: len(process.children(recursive=True)) == 5)  # the server, two keepers, two programs
    left = process.children(recursive=True)
    parent.send_signal(number)
    parent.wait(60)
    parent.stdout.close()
    assert wait_until(lambda: not any(child.is_running() and child.status() != "zombie" for child in left))


def test_a_fork_of_the_parent_does_not_keep_the_sandbox(secret: Path) -> None:
    """A child that was forked has the sockets too; the end of the parent is what counts."""
    code = KILLED.replace('print("ready"', 'import time\nif os.fork() == 0: time.sleep(60); os._exit(0)\nprint("ready"')
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    process = psutil.Process(parent.pid)
    assert wait_until(lambda: len(process.children(recursive=True)) == 6)
    (fork,) = (child for child in process.children() if child.cmdline()[1] == "-c")
    left = [child for child in process.children(recursive=True) if child != fork]
    parent.kill()
    parent.wait(60)
    parent.stdout.close()
    assert wait_until(lambda: not any(child.is_running() for child in left))
    assert fork.is_running()
    fork.kill()


def test_a_server_started_by_a_thread_that_ended(secret: Path) -> None:
    sandbox = Sandbox()
    with sandbox:
        thread = threading.Thread(target=sandbox.run, args=("print(1)",))
        thread.start()
        thread.join()
        assert sandbox.run("print(2)").stdout == "2\n"


@pytest.mark.skipif(not IS_ROOT, reason="takes rights away that only root has")
def test_without_layers_what_programs_start_is_ended_too() -> None:
    said = alone("readable", "unconfined", "no-namespaces", "no-landlock", "no-seccomp", "leaving")
    assert said["left"] == []


# 8


def test_a_server_that_died_is_no_result() -> None:
    with Sandbox() as sandbox:
        assert sandbox._server is not None
        server = sandbox._server.process
        server.kill()
        server.wait()
        with pytest.raises(SandboxError, match="server"):
            sandbox.run("print(1)")
        assert sandbox.run("print(1)").stdout == "1\n"


def test_a_keeper_that_died_is_no_result() -> None:
    with Sandbox() as sandbox:
        before = descendants()
        started: list[psutil.Process] = []

        def kill() -> None:
            wait_until(lambda: len(descendants() - before) == 2)
            started.extend(map(psutil.Process, descendants() - before))
            parents = {process.ppid() for process in started}
            next(process for process in started if process.pid in parents).kill()

        thread = threading.Thread(target=kill)
        thread.start()
        with pytest.raises(SandboxError, match="the keeper of a run died"):
            sandbox.run("import time\ntime.sleep(1000)")
        thread.join()
        assert len(started) == 2
        assert wait_until(lambda: not any(process.is_running() for process in started))
        assert sandbox.run("print(1)").stdout == "1\n"


# 9


def test_packages() -> None:
    program = "import numpy, numpy.random\nimport numpy.polynomial.hermite\nprint(numpy.linalg.inv([[2.0]]))"
    with Sandbox(packages=["numpy"]) as sandbox:
        assert sandbox.run(program).stdout == "[[0.5]]\n"
        assert "No module named" in sandbox.run("import jinja2").stderr
        folder = Path(numpy.__file__).parents[1]
        seen = sandbox.run(f"import os\nprint(*os.listdir({str(folder)!r}))").stdout.split()
        assert set(seen) <= {"numpy", "numpy.libs"}  # none at all without namespaces
    with Sandbox() as sandbox:
        assert "No module named" in sandbox.run(program).stderr
    with pytest.raises(UsageError, match="a package for programs is not installed: no_such_package"):
        Sandbox(packages=["no_such_package"]).run("")
