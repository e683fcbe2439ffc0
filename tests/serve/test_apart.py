"""The engine in a process of its own. Requests that are lost, and what is told of them, are those of test_fleet.py.

1. It gives what an engine of this process gives: ids, texts, log-probabilities, structures, several completions,
   scores. What it refuses it refuses in the same words.
2. However the engine joins what it tells, a stream has all of it, once. The engine waits for no front that does not
   read, and keeps the rest for it in one piece.
3. A client that goes ends its request within a step, streamed or not.
4. Killed, it is started again. Until then requests are a 503 and /ready says so; what was under way ends in a 502.
5. What keeps an engine from being opened arrives as it was raised, one of ours with the places. A process that dies
   each time is not started for ever, and a server whose engine will not come again stops.
6. SIGINT and SIGTERM are the front's. The process ends when the front closes its end, also where the front was killed,
   and before there is an engine.
7. `zaya serve`: the front has no torch. Ctrl-C to all of its terminal ends it when what is under way is answered, with
   exit code 0; a model that is not there is the error that it was, with exit code 2. No process is left.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import zaya
from tests.serve import opened
from tests.serve.fakes import Running, Typist, eventually, running
from zaya.engine.engine import Engine
from zaya.engine.types import Delta, Request, SamplingParams, Structure
from zaya.errors import CheckpointError, UsageError, ZayaError
from zaya.serve.apart import HEAD, MOST_STARTS, NEWS, ProcessLink, _started, frame
from zaya.serve.fleet import ReplicaCompleter
from zaya.serve.replica import PULSE_S, Ended, Told, unpack
from zaya.text import byte_tokenizer

CHAT, RAW = "/v1/chat/completions", "/v1/completions"
TOKENIZER = byte_tokenizer()
LONG = {"prompt": "x", "max_tokens": 90_000, "ignore_eos": True}


@pytest.fixture(scope="module")
def alone() -> Iterator[Engine]:
    with opened.engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def apart() -> Iterator[ReplicaCompleter]:
    with ReplicaCompleter([ProcessLink(opened.engine)]) as completer:
        completer.wait()
        yield completer


@pytest.fixture
def server(apart: ReplicaCompleter) -> Iterator[Running]:
    with running(apart, TOKENIZER) as found:
        yield found


def workers(parent: int | None = None) -> list[psutil.Process]:
    """The engine's processes of a process, by default of this one."""
    return [child for child in psutil.Process(parent).children() if "zaya.serve.worker" in child.cmdline()]


# ----- 1


def test_what_an_engine_here_gives(alone: Engine, apart: ReplicaCompleter) -> None:
    ids = tuple(TOKENIZER.encode("What? " * 60))
    number = Structure(kind="regex", value="[0-9]{3}")
    requests = [
        Request(prompt_ids=ids, params=SamplingParams(max_tokens=90, top_logprobs=2), n=3, seed=5),
        Request(prompt_ids=ids[:40], params=SamplingParams(max_tokens=120, stop=("a",)), seed=6, cache_salt="x"),
        Request(prompt_ids=ids[:9], params=SamplingParams(max_tokens=5, structure=number), seed=7, priority=2),
        Request(prompt_ids=ids, params=SamplingParams(max_tokens=7), n=2, seed=8, want_routes=True),
    ]
    for theirs, ours in zip(alone.complete(requests), apart.complete(requests), strict=True):
        for one, other in zip(theirs, ours, strict=True):
            for name in ("ids", "text", "reasoning", "finish_reason", "stop_reason", "prompt_ids", "weight_versions"):
                assert getattr(one, name) == getattr(other, name), name
            for name in ("logprobs", "behavior_logprobs", "top_ids", "top_logprobs", "routes"):
                expected, found = getattr(one, name), getattr(other, name)
                assert (expected is None) == (found is None)
                if expected is not None:
                    assert found.dtype == expected.dtype
                    np.testing.assert_allclose(expected, found, atol=1e-4)
    expected, found = alone.score(ids, 2), apart.score(ids, 2)
    np.testing.assert_allclose(expected.logprobs, found.logprobs, atol=1e-4)
    np.testing.assert_array_equal(expected.top_ids, found.top_ids)
    assert apart.context == alone.context


def test_what_it_says_of_itself(apart: ReplicaCompleter) -> None:
    """Is right as soon as nothing is under way."""
    apart.complete([Request(prompt_ids=[1], params=SamplingParams(max_tokens=2))])
    before = apart.stats
    apart.complete([Request(prompt_ids=[1, 5], params=SamplingParams(max_tokens=9, ignore_eos=True))] * 3)
    after = apart.stats
    assert before is not None
    assert after is not None
    assert (after.tokens_drawn - before.tokens_drawn, after.running) == (27, 0)


@pytest.mark.parametrize(
    "bad",
    [
        Request(prompt_ids=[1] * 20, params=SamplingParams(structure=Structure(kind="regex", value="("))),
        Request(prompt_ids=[100_000]),
    ],
)
def test_what_it_refuses(alone: Engine, apart: ReplicaCompleter, bad: Request) -> None:
    said = []
    for completer in (alone, apart):
        with pytest.raises(UsageError) as raised:
            completer.submit(bad)
        said.append((raised.value.message, raised.value.hint))
    assert said[0] == said[1]
    with pytest.raises(UsageError, match="ids that are not from"):
        apart.score([100_000])


def test_nothing_waits_for_a_sign_of_life(apart: ReplicaCompleter) -> None:
    begun = time.monotonic()
    for seed in range(20):
        apart.score([1, 5])
        apart.complete([Request(prompt_ids=[1, 5], params=SamplingParams(max_tokens=1), seed=seed)])
        with pytest.raises(UsageError):
            apart.submit(Request(prompt_ids=[100_000]))
    assert time.monotonic() - begun < 10 * PULSE_S, "each of them would have waited for one"


# ----- 2


def test_a_stream_has_all_of_it(apart: ReplicaCompleter) -> None:
    params = SamplingParams(max_tokens=200, top_logprobs=2, ignore_eos=True)

    async def read(seed: int) -> tuple[list[Delta], Any]:
        request = Request(prompt_ids=[1, 60 + seed], params=params, seed=seed, n=2)
        handle = await asyncio.to_thread(apart.submit, request)
        return [delta async for delta in handle], await handle.result()

    async def read_all() -> list[Any]:
        return await asyncio.gather(*(read(seed) for seed in range(4)))

    for deltas, completions in asyncio.run(read_all()):
        for index, completion in enumerate(completions):
            own = [delta for delta in deltas if delta.index == index]
            assert tuple(id for delta in own for id in delta.ids) == completion.ids
            assert "".join(delta.text for delta in own) == completion.text
            assert "".join(delta.reasoning for delta in own) == completion.reasoning
            for name in ("logprobs", "top_ids", "top_logprobs"):
                told = np.concatenate([getattr(delta, name) for delta in own])
                np.testing.assert_array_equal(told, getattr(completion, name))
            assert [delta.finish_reason for delta in own if delta.finish_reason] == [completion.finish_reason]
            assert len(own) < len(completion.ids)


def is_idle(process: psutil.Process) -> bool:
    before = process.cpu_times().user
    time.sleep(0.3)
    return process.cpu_times().user - before < 0.05


def test_a_front_that_does_not_read() -> None:
    """Nobody waits for it, and it misses nothing."""
    here, there = socket.socketpair()
    with there:
        process = _started(there)
    params = SamplingParams(max_tokens=3000, top_logprobs=20, ignore_eos=True)
    with here, here.makefile("rb") as file:

        def next_events() -> tuple[int, Any]:
            number, length = HEAD.unpack(file.read(HEAD.size))
            data = file.read(length)
            return number, [*unpack(data)] if number == NEWS else pickle.loads(data)

        here.sendall(frame(NEWS, pickle.dumps(opened.engine)))
        _, [hello] = next_events()
        for id, seed in enumerate((1, 2)):
            request = Request(prompt_ids=[1, 60], params=params, n=3, seed=seed)
            here.sendall(frame(1 + id, pickle.dumps(("begin", hello.life, id, request))))
        assert eventually(lambda: is_idle(psutil.Process(process.pid)), 60)
        told: dict[tuple[int, int], list[int]] = {}
        ends: dict[int, Any] = {}
        answered, longest = [], 0
        while len(ends) < 2 or len(answered) < 2:
            number, events = next_events()
            if number != NEWS:
                answered.append((number, events))
                continue
            for event in events:
                if isinstance(event, Told):
                    told.setdefault((event.id, event.delta.index), []).extend(event.delta.ids)
                    longest = max(longest, len(event.delta.ids))
                elif isinstance(event, Ended):
                    ends[event.id] = event.completions
    assert sorted(answered) == [(1, None), (2, None)]
    for (id, index), ids in told.items():
        assert tuple(ids) == ends[id][index].ids
    assert len(told) == 6
    assert longest > 300, "what it had no time for came together"
    assert process.wait(10) == 0


# ----- 3


def asked(server: Running, body: dict[str, Any]) -> socket.socket:
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    head = f"POST {RAW} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def is_running(completer: ReplicaCompleter, count: int) -> bool:
    stats = completer.stats
    return stats is not None and stats.running == count


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes(apart: ReplicaCompleter, server: Running, stream: bool) -> None:
    connection = asked(server, {**LONG, "stream": stream, "n": 2})
    assert eventually(lambda: is_running(apart, 2))
    connection.close()
    assert eventually(lambda: is_running(apart, 0))
    assert eventually(lambda: server.served.gate.pending == 0)
    status, answer, _ = server.send(RAW, {**LONG, "max_tokens": 3})
    assert (status, answer["usage"]["completion_tokens"]) == (200, 3)


# ----- 4


@pytest.mark.parametrize("stream", [False, True])
def test_it_is_killed(apart: ReplicaCompleter, server: Running, stream: bool) -> None:
    before = server.send(RAW, {"prompt": "x", "seed": 3, "max_tokens": 20})[1]["choices"]
    drawn = apart.stats
    found: list[Any] = []
    asking = threading.Thread(
        target=lambda: found.append(server.events(RAW, LONG)[-1] if stream else server.send(RAW, LONG))
    )
    asking.start()
    assert eventually(lambda: is_running(apart, 1))
    [worker] = workers()
    worker.kill()
    asking.join(10)
    error = found[0]["error"] if stream else found[0][1]["error"]
    assert error["code"] == "replica_lost"
    assert stream or found[0][0] == 502
    for path, body in (("/ready", None), (RAW, LONG)):
        status, answer, headers = server.send(path, body)
        assert (status, answer["error"]["code"], "retry-after" in headers) == (503, "no_replica", True)
    assert eventually(lambda: apart.is_ready, 30)
    assert server.send("/ready")[0] == 200
    assert server.send(RAW, {"prompt": "x", "seed": 3, "max_tokens": 20})[1]["choices"] == before
    [other] = workers()
    assert other.pid != worker.pid
    assert apart.stats is not None
    assert drawn is not None
    assert apart.stats.tokens_drawn > drawn.tokens_drawn, "what it had done before stays"


def test_dying_now_and_then(tmp_path: Path) -> None:
    """Those that died before it was there once are not counted again."""
    others = workers()
    with ReplicaCompleter([ProcessLink(partial(opened.dying_now_and_then, tmp_path / "starts"))]) as completer:
        completer.wait()
        [worker] = [each for each in workers() if each not in others]
        worker.kill()
        assert eventually(lambda: (tmp_path / "starts").stat().st_size == 6 and completer.is_ready, 30)


# ----- 5


def error_of(open: Any) -> Exception:
    others = workers()
    with ReplicaCompleter([ProcessLink(open)]) as completer:
        with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is for the caller to say
            completer.wait()
        assert completer.refused is raised.value
    assert workers() == others
    return raised.value


def test_errors_of_opening() -> None:
    error = error_of(opened.refused)
    assert isinstance(error, CheckpointError)
    assert (error.message, error.hint) == ("no such weights", "look again")
    error = error_of(opened.not_there)
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.filename) == (errno.ENOENT, "/no/such/file")
    error = error_of(opened.mistaken)
    assert isinstance(error, ArithmeticError)
    assert "opened.py" in error.__notes__[0]


def test_one_that_always_dies(tmp_path: Path) -> None:
    error = error_of(partial(opened.dying, tmp_path / "starts"))
    assert isinstance(error, ZayaError)
    assert "was killed by SIGKILL" in error.message
    assert error.hint is not None
    assert (tmp_path / "starts").read_text() == "x" * MOST_STARTS


def test_a_server_without_hope() -> None:
    typist: Any = Typist(lambda *_: "x")
    with running(typist) as server:
        typist.refused = ZayaError("it is gone")
        assert eventually(lambda: server.server.should_exit)


# ----- 6


def test_signals_are_for_the_front(apart: ReplicaCompleter) -> None:
    [worker] = workers()
    for number in (signal.SIGINT, signal.SIGTERM):
        worker.send_signal(number)
    assert apart.complete([Request(prompt_ids=[1], params=SamplingParams(max_tokens=3))])[0][0].ids
    assert workers() == [worker]


@pytest.mark.parametrize("is_up", [True, False])
def test_the_front_is_killed(is_up: bool) -> None:
    code = (
        "from tests.serve import opened; from zaya.serve.apart import ProcessLink\n"
        "from zaya.serve.fleet import ReplicaCompleter\n"
        f"completer = ReplicaCompleter([ProcessLink(opened.{'engine' if is_up else 'slow'})])\n"
        f"if {is_up}: completer.wait(); completer.score([1, 2])\n"
        "print('up', flush=True); completer._thread.join()"
    )
    front = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment())
    assert front.stdout is not None
    assert front.stdout.readline() == b"up\n"
    assert eventually(lambda: len(workers(front.pid)) == 1)
    [worker] = workers(front.pid)
    front.kill()
    front.wait()
    front.stdout.close()
    assert eventually(lambda: not worker.is_running(), 10)


# ----- 7


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(os.path.dirname(zaya.__file__)), os.getcwd()])}


@contextmanager
def served() -> Iterator[tuple[subprocess.Popen[str], Running]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "zaya", "serve", "--port", "0", "--threads", "1"], stderr=subprocess.PIPE, text=True,
        env=environment(), start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert "ready after" in line, "the first line that it says"
        url = next(word for word in line.split() if word.startswith("http")).removesuffix("/v1,")
        found: Any = Running.__new__(Running)
        found.url, found.port = url, int(url.rpartition(":")[2])
        yield process, found
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_the_process() -> None:
    with served() as (process, server):
        [worker] = workers(process.pid)
        assert os.getsid(worker.pid) == worker.pid, "a signal to the terminal's group would reach it while it starts"
        assert not any("torch" in each.path for each in psutil.Process(process.pid).memory_maps())
        body = {"prompt": "x", "max_tokens": 500, "ignore_eos": True, "echo": True, "logprobs": 1}
        found: list[Any] = []
        asking = threading.Thread(target=lambda: found.append(server.send(RAW, body)))
        asking.start()
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        asking.join(20)
        assert process.wait(20) == 0
        assert eventually(lambda: not worker.is_running())
    status, answer, _ = found[0]
    assert (status, answer["usage"]["completion_tokens"]) == (200, 500)


def test_ctrl_c_while_it_loads() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "zaya", "serve", "--port", "0"], stderr=subprocess.PIPE, text=True, env=environment(),
        start_new_session=True,
    )  # fmt: skip
    assert eventually(lambda: len(workers(process.pid)) == 1, 20)
    [worker] = workers(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "interrupted\n")
    assert eventually(lambda: not worker.is_running())


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    for name, words in ((f"{tmp_path}/none", f"there is no {tmp_path}/none"), (str(tmp_path), "config.json")):
        command = [sys.executable, "-m", "zaya", "serve", name, "--port", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert "Traceback" not in done.stderr
