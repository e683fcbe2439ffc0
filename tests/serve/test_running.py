"""A server under way: who is let in, who is let go, and how it stops.

1. A client that goes ends its request within a step, streamed or not; what the engine holds for it is free again.
2. A request that is not answered by its deadline ends in an error, and gives up its place even where nobody reads
   that; a connection whose head or body does not come is closed.
3. More completions than may wait are a 429 with Retry-After, and nothing of them is begun; later there is room again.
4. A stream without anything to say says so.
5. Told to stop, the server finishes what is under way, and ends what takes too long with an error; it takes nothing
   new.
6. A record for each request says what it took, and nothing of what was said.
7. The process: ready with the model in this package, one line when it is, exit code 0 on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

import zaya
from tests.serve.fakes import Running, Typist, eventually, running
from zaya.engine.engine import Engine
from zaya.model.config import preset
from zaya.model.transformer import ZayaModel
from zaya.serve.http import ClientGone, EventStream
from zaya.serve.limits import Limits
from zaya.serve.served import Served
from zaya.text import byte_tokenizer

CHAT, RAW = "/v1/chat/completions", "/v1/completions"
ASK = {"messages": [{"role": "user", "content": "SECRET?"}]}
TEXT = "hm\n</think>\n\nSECRET."


def held(**options: Any) -> Typist:
    """It stops in the midst, until it is told to go on."""
    return Typist(lambda *_: TEXT, hold_after=4, **options)


def asked(server: Running, path: str, body: dict[str, Any]) -> socket.socket:
    """A connection on which something was asked."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


# ----- 1


@pytest.mark.parametrize("path", [CHAT, RAW])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes(path: str, stream: bool) -> None:
    typist = held()
    body = {**ASK, "stream": stream} if path == CHAT else {"prompt": ["SECRET", "x"], "stream": stream}
    with running(typist) as server:
        connection = asked(server, path, body)
        assert eventually(lambda: typist.typed >= 4)
        assert server.served.gate.pending == (1 if path == CHAT else 2)
        connection.close()
        assert typist.cancelled.wait(5)
        assert eventually(lambda: server.served.gate.pending == 0 and bool(server.log))
        assert not server.served.under_way
    assert server.log[0]["status"] == 499


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    model = ZayaModel(preset("micro", vocab_size=280, max_positions=100_000), precision="float32", seed=3)
    with Engine(model, byte_tokenizer(), max_batch=4, pages=4000) as engine:
        yield engine


@pytest.mark.parametrize("stream", [False, True])
def test_the_engine_lets_go(engine: Engine, stream: bool) -> None:
    with running(engine, byte_tokenizer()) as server:
        body = {**ASK, "stream": stream, "max_tokens": 90_000, "ignore_eos": True, "n": 2}
        connection = asked(server, CHAT, body)
        assert eventually(lambda: engine.stats.running == 2)
        connection.close()
        assert eventually(lambda: engine.stats.running == engine.stats.waiting == 0)
        status, answer, _ = server.send(CHAT, {**ASK, "max_tokens": 3, "ignore_eos": True})
    assert (status, answer["usage"]["completion_tokens"]) == (200, 3)
    engine.check()


# ----- 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline(stream: bool) -> None:
    typist = held()
    with running(typist, deadline_s=0.1) as server:
        if stream:
            error = server.events(CHAT, ASK)[-1]["error"]
        else:
            status, answer, _ = server.send(CHAT, ASK)
            error = answer["error"]
            assert status == 504
        assert (error["code"], error["type"]) == ("deadline_exceeded", "server_error")
        assert typist.cancelled.wait(5)
        assert eventually(lambda: server.served.gate.pending == 0)


def test_a_body_that_does_not_come() -> None:
    with running(held(), body_timeout_s=0.1) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{{"
            connection.sendall(head.encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert server.send("/health")[0] == 200


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: "])
def test_a_head_that_does_not_come(sent: bytes) -> None:
    typist = held()
    with running(typist, head_timeout_s=0.1) as server:
        busy = asked(server, CHAT, {**ASK, "stream": True})
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(sent)
            assert connection.recv(4096) == b""
        assert not typist.cancelled.is_set()
        typist.go_on.set()
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += busy.recv(4096)
        busy.close()


def test_a_body_of_pieces_is_counted() -> None:
    with running(held(), max_body_bytes=100) as server:
        connection = server.connection()
        headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        connection.request("POST", CHAT, iter([b" " * 60] * 4), headers, encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()


def test_a_client_that_does_not_read() -> None:
    """What it was sent last stays where it is; its place must not."""
    left: list[str] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def events() -> AsyncGenerator[dict[str, Any], None]:
        while True:
            yield {"a": 1}

    async def ask(served: Served) -> None:
        stack = AsyncExitStack()
        stack.callback(left.append, "place")
        work = await stack.enter_async_context(served.start([], completions=1))
        stream = EventStream(events(), stack=stack, within=work.deadline(), limits=served.limits)
        with pytest.raises(ClientGone):
            await asyncio.wait_for(stream({"type": "http"}, receive, send), 10)

    served = Served(held(), byte_tokenizer(), "m", Limits(deadline_s=0.05, head_timeout_s=0.1))
    asyncio.run(ask(served))
    assert (left, served.gate.pending) == (["place"], 0)


# ----- 3


def test_a_full_queue() -> None:
    typist = held()
    with running(typist, max_pending=3) as server:
        first = asked(server, CHAT, {**ASK, "n": 2})
        assert eventually(lambda: typist.typed >= 4)
        status, answer, headers = server.send(CHAT, {**ASK, "n": 2})
        assert (status, answer["error"]["type"], answer["error"]["code"]) == (429, "rate_limit_error", "queue_full")
        assert 1 <= int(headers["retry-after"]) <= 60
        assert len(typist.requests) == 1
        assert server.send("/health")[0] == 200
        typist.go_on.set()
        assert first.recv(4096).startswith(b"HTTP/1.1 200 ")
        first.close()
        assert server.send(CHAT, {**ASK, "n": 2})[0] == 200
        assert server.send(CHAT, {**ASK, "n": 4})[0] == 400
    assert server.served.gate.pending == 0


def test_a_refused_request_takes_no_place() -> None:
    with running(Typist(lambda *_: TEXT), max_pending=1) as server:
        for _ in range(3):
            assert server.send(CHAT, {**ASK, "min_tokens": 10, "max_tokens": 5})[0] == 400
            assert server.send(CHAT, ASK)[0] == 200


# ----- 4


def test_a_sign_of_life() -> None:
    typist = held()
    with running(typist, keep_alive_s=0.02) as server:
        connection = server.connection()
        connection.request("POST", CHAT, json.dumps({**ASK, "stream": True}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        while answer.readline() != b": still here\n":
            pass
        typist.go_on.set()
        lines = answer.read().decode().split("\n")
        connection.close()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == "SECRET."
    assert "data: [DONE]" in lines


# ----- 5


def test_a_stop_waits_for_what_is_under_way() -> None:
    typist = held()
    found: list[Any] = []
    with running(typist) as server:
        asking = threading.Thread(target=lambda: found.append(server.send(CHAT, ASK)))
        asking.start()
        waiting = server.connection()  # one that is open, and asks once more
        waiting.request("GET", "/ready")
        assert waiting.getresponse().read()
        assert eventually(lambda: typist.typed >= 4)
        server.server.should_exit = True
        assert eventually(lambda: server.served.is_draining)
        with pytest.raises(OSError, match=r"."):
            server.send("/health")
        typist.go_on.set()
        asking.join(5)
        waiting.close()
    [(status, answer, _)] = found
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "SECRET.")


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_ends_what_takes_too_long(stream: bool) -> None:
    typist = held()
    found: list[Any] = []

    def ask() -> None:
        found.append(server.events(CHAT, ASK)[-1] if stream else server.send(CHAT, ASK)[1])

    with running(typist, drain_s=0.2) as server:
        asking = threading.Thread(target=ask)
        asking.start()
        assert eventually(lambda: typist.typed >= 4)
    asking.join(5)
    assert found[0]["error"]["code"] == "stopping"
    assert typist.cancelled.wait(5)


def test_nothing_new_while_it_stops() -> None:
    with running(Typist(lambda *_: TEXT)) as server:
        server.served.is_draining = True
        for path, body in ((CHAT, ASK), (RAW, {"prompt": "x"}), ("/ready", None)):
            status, answer, _ = server.send(path, body)
            assert (status, answer["error"]["code"]) == (503, "stopping")
        assert server.send("/health")[0] == 200


# ----- 6


def test_the_log() -> None:
    with running(Typist(lambda *_: TEXT)) as server:
        server.send(CHAT, ASK, headers={"X-Request-Id": "client-7"})
        server.events(CHAT, ASK)
        server.send(CHAT, {**ASK, "SECRET": 1}, headers={"X-Request-Id": "x\ty"})
        assert eventually(lambda: len(server.log) == 3)
    first, second, third = server.log
    assert (
        first.items() >= {"event": "request", "id": "client-7", "method": "POST", "path": CHAT, "status": 200}.items()
    )
    assert first["completion_tokens"] == second["completion_tokens"] > 10
    assert first["prompt_tokens"] == second["prompt_tokens"] > 10
    assert first["seconds"] >= 0
    assert (third["status"], third["code"]) == (400, "unknown_field")
    assert third["id"].startswith("req-")
    assert "SECRET" not in json.dumps([first, second])


# ----- 7


def test_the_process() -> None:
    source = os.path.dirname(os.path.dirname(zaya.__file__))
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "zaya", "serve", "--port", "0"], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "/v1" in line)
        assert time.monotonic() - begun < 30
        url = next(word for word in line.split() if word.startswith("http")).rstrip(",")
        with zaya.RemoteCompleter(url, "zaya-micro", retries=3) as completer:
            assert completer.context == 1024
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
