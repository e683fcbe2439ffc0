"""Whatever is sent, the server stays up.

1. Every request gets an answer that a client can read, with a status below 500: what was asked for, or OpenAI's error
   object. Nothing is a mistake of ours in the log, nothing stays under way, and the engine's pages all come back.
2. Ten thousand of them leave memory as it was (slow).
3. Many connections that send a byte at a time hold up nobody, and are closed.
4. Bodies that come all at once are bounded together.
5. While a long text is read, other threads go on.
"""

from __future__ import annotations

import ctypes
import gc
import http.client
import json
import platform
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.serve.fakes import Running, Typist, eventually, running
from tests.serve.malformed import CHAT, Malformed, malformed
from zaya.engine.engine import Engine
from zaya.model.config import preset
from zaya.model.transformer import ZayaModel
from zaya.text import byte_tokenizer

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_LONGEST_S = 10
"""For one request: a bound against hangs."""


@contextmanager
def small_server() -> Iterator[tuple[Running, Engine]]:
    """An engine of random weights, for which even what happens to be right is little work."""
    model = ZayaModel(preset("micro", vocab_size=280, max_positions=160), precision="float32", seed=3)
    with (
        Engine(model, byte_tokenizer(), max_batch=8, pages=200) as engine,
        running(engine, byte_tokenizer(), max_completions=4, max_body_bytes=1 << 20, deadline_s=_LONGEST_S) as server,
    ):
        yield server, engine


class Sender:
    """Sends one request after the other, on one connection as long as it lasts."""

    def __init__(self, server: Running) -> None:
        self._connection = server.connection()

    def send(self, request: Malformed) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", **request.headers}
        for is_last in (False, True):
            try:
                self._connection.putrequest("POST", request.path)
                for name, value in headers.items():
                    self._connection.putheader(name, value.encode("latin-1"))
                self._connection.putheader("Content-Length", str(len(request.data)))
                self._connection.endheaders(request.data)
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (http.client.HTTPException, ConnectionError):
                self._connection.close()  # the server may have closed it behind the last answer
                if is_last:
                    raise
        raise AssertionError

    def close(self) -> None:
        self._connection.close()


def check(request: Malformed, status: int, answer: bytes) -> None:
    shown = f"{status} for {request.path} {request.headers} {request.data[:600]!r}: {answer[:600]!r}"
    assert 200 <= status < 500, shown
    if status >= 400:
        error = json.loads(answer)["error"]
        assert set(error) == {"message", "type", "param", "code"}, shown
        assert isinstance(error["message"], str), shown
        assert len(answer) < 5000, shown
    elif answer.startswith(b"data: "):
        *events, done, rest = answer.split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b""), shown
        found = [json.loads(event.removeprefix(b"data: ")) for event in events if not event.startswith(b":")]
        assert not any(event["error"]["type"] == "server_error" for event in found if "error" in event), shown
    else:
        json.loads(answer)


def send_all(server: Running, engine: Engine, requests: Iterator[Malformed]) -> Counter[int]:
    """How often each status came."""
    sender, statuses = Sender(server), Counter[int]()
    for request in requests:
        begun = time.monotonic()
        status, answer = sender.send(request)
        check(request, status, answer)
        assert time.monotonic() - begun < _LONGEST_S, f"{request.path} {request.data[:600]!r}"
        statuses[status] += 1
    sender.close()
    assert eventually(lambda: not server.served.under_way and server.served.gate.receiving == 0)
    assert server.served.gate.pending == 0
    assert eventually(lambda: engine.stats.running == engine.stats.waiting == 0)
    engine.check()
    assert [line for line in server.log if line["status"] >= 500 or "error" in line] == []
    server.log.clear()
    return statuses


def test_malformed_bodies() -> None:
    with small_server() as (server, engine):
        statuses = send_all(server, engine, malformed(1, 400))
    # they are all kinds: refused for several reasons, and some are right after all
    assert {200, 400, 404, 415} <= set(statuses)
    assert statuses[400] > 200


@pytest.fixture
def one_arena() -> Iterator[None]:
    """Threads share their memory: what one arena of glibc's has grown to, another cannot use, and there are many."""
    libc, m_arena_max = ctypes.CDLL("libc.so.6"), -8
    libc.mallopt(m_arena_max, 1)
    yield
    libc.mallopt(m_arena_max, 0)


def memory() -> int:
    """Bytes in use, without those that the allocator keeps for later."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return psutil.Process().memory_info().rss


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is measured as glibc gives it back")
@pytest.mark.usefixtures("one_arena")
def test_ten_thousand() -> None:
    with small_server() as (server, engine):
        # until the worst request has come, and the engine has about all the grammars that it keeps
        statuses = send_all(server, engine, malformed(2, 6000))
        before = memory()
        statuses += send_all(server, engine, malformed(3, 4000))
        grown = memory() - before
    assert sum(statuses.values()) == 10_000
    assert grown < 64 << 20, f"{grown >> 20} MiB more, {dict(statuses)}"


# ----- 3, 4, 5


def test_a_byte_at_a_time() -> None:
    sent = [HEAD + b"X-A: " + b"a" * 9999, HEAD + b"Content-Length: 9999\r\n\r\n" + b" " * 9999] * 30
    with running(Typist(lambda *_: ""), head_timeout_s=0.5, body_timeout_s=0.5) as server:
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in sent]
        for connection, data in zip(connections, sent, strict=True):
            connection.setblocking(False)
            connection.send(data[:100])
        left, at, answers = dict(zip(connections, sent, strict=True)), 100, 0
        end = time.monotonic() + 20
        while left and time.monotonic() < end:
            for connection, data in list(left.items()):
                try:
                    connection.send(data[at : at + 1])
                    is_over = connection.recv(4096) == b""
                except BlockingIOError:
                    is_over = False
                except ConnectionError:
                    is_over = True
                if is_over:
                    connection.close()
                    del left[connection]
            assert server.send("/health")[0] == 200
            answers += 1
            at += 1
            time.sleep(0.01)
        assert not left
        assert answers > 5
        assert eventually(lambda: server.served.gate.receiving == 0)
        assert server.send(CHAT, {"messages": [{"role": "user", "content": "?"}]})[0] == 200


def test_a_long_text_keeps_nobody_waiting() -> None:
    tokenizer, text, beats, is_over = byte_tokenizer(), "ab " * 300_000, 0, threading.Event()

    def beat() -> None:
        nonlocal beats
        while not is_over.wait(0.001):
            beats += 1

    beating = threading.Thread(target=beat)
    beating.start()
    assert eventually(lambda: beats > 0)
    before = beats
    ids = tokenizer.encode(text)
    during = beats - before
    is_over.set()
    beating.join()
    assert len(ids) > 300_000
    assert during >= 5


def test_bodies_together() -> None:
    head = HEAD + b"Content-Length: 900\r\n\r\n"
    ask = {"messages": [{"role": "user", "content": "?" * 300}]}
    with running(Typist(lambda *_: "a"), max_body_bytes=1000, max_bodies_bytes=1000) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head + b" " * 800)
            assert eventually(lambda: server.served.gate.receiving == 800)
            status, answer, headers = server.send(CHAT, ask)
            assert (status, answer["error"]["code"], headers["retry-after"]) == (429, "too_many_bytes", "1")
        assert eventually(lambda: server.served.gate.receiving == 0)
        assert server.send(CHAT, ask)[0] == 200
