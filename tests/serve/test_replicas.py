"""Replicas in processes that Ray Serve keeps alive (slow, and needs the network: Ray is 360 MB and not of the tests'
environment). What needs no processes is in test_fleet.py.

1. Nothing listens but on the loopback, and nobody who has no token may call.
2. The same requests give the same ids as an engine in this process: streams, several completions, structures,
   log-probabilities, prompts that are scored.
3. A client that goes takes its request with it.
4. kill -9 of a replica under load: every request is answered, with the same ids, streams go on, and another replica is
   started.
5. kill -9 of all: 503 until one is back, and nothing hangs.
6. SIGTERM to the server, and Ctrl-C to all that its terminal knows: what is under way is answered, the exit code is 0,
   and no process is left.
7. kill -9 of the server: no process is left a while later.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import zaya
from tests.serve.fakes import Running, eventually, running
from zaya.engine.engine import Engine
from zaya.model.embedded import embedded_directory
from zaya.model.layouts import load
from zaya.text import load_tokenizer

pytestmark = [pytest.mark.net, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
CHAT, RAW = "/v1/chat/completions", "/v1/completions"
TOKENIZER = load_tokenizer(embedded_directory())
assert TOKENIZER is not None
LONG = {
    "prompt": "What is 3 + 4?", "max_tokens": 600, "ignore_eos": True, "return_token_ids": True,
    "logit_bias": {str(TOKENIZER.tags.think_close): -100},
}  # fmt: skip
"""Takes seconds, and is one text."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """In which Python finds Ray beside what it has. It is removed again: pytest keeps directories."""
    where = tmp_path_factory.mktemp("ray")
    command = [sys.executable, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", "--target", where]
    subprocess.run([*command, "ray[serve]"], check=True, timeout=900)
    source = os.path.dirname(os.path.dirname(zaya.__file__))
    # behind our own packages in the path, which come with the interpreter, it only adds what is missing
    yield {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{where}"}
    shutil.rmtree(where)


class Front(Running):
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str, lines: list[str]) -> None:
        self.process = process
        self.url = url
        self.port = int(url.rpartition(":")[2])
        self.lines = lines
        """What it says."""

    def is_listening(self) -> bool:
        try:
            return self.send("/ready")[0] == 200
        except ConnectionRefusedError:
            return False

    def told(self, state: str) -> list[dict[str, Any]]:
        records = [json.loads(line) for line in [*self.lines] if line.startswith("{")]
        return [record for record in records if record["event"] == "replica" and record["state"] == state]

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def gauge(self, name: str) -> float:
        connection = self.connection()
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return float(re.findall(rf"^zaya:{name}{{.*}} (\S+)$", text, re.MULTILINE)[0])


@contextmanager
def front(environment: Mapping[str, str]) -> Iterator[Front]:
    process = subprocess.Popen(
        [sys.executable, "-m", "zaya", "serve", "--replicas", "2", "--port", "0"],
        stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    lines: list[str] = []
    family: list[psutil.Process] = []
    try:
        for line in process.stderr:
            lines.append(line)
            if "ready after" in line:
                break
        url = re.findall(r"http://[\d.:]+\d", lines[-1])[0]
        reading = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
        reading.start()
        found = Front(process, url, lines)
        family = found.family()
        assert eventually(found.is_listening)
        yield found
    finally:
        for each in family:
            if each.is_running():
                each.kill()
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(environment: Mapping[str, str]) -> Iterator[Front]:
    with front(environment) as found:
        yield found


@pytest.fixture(scope="module")
def alone() -> Iterator[Running]:
    model, tokenizer = load(embedded_directory(), dtype="float32")
    assert tokenizer is not None
    torch.set_num_threads(1)
    with Engine(model, tokenizer) as engine, running(engine, tokenizer, "zaya-micro") as found:
        yield found


def without_names(answer: Any) -> Any:
    """What is the same for every server."""
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


# ----- 1


def test_what_listens(server: Front) -> None:
    places = [
        (process.name(), connection.laddr.ip)
        for process in [psutil.Process(server.process.pid), *server.family()]
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(places) > 5
    assert [place for place in places if place[1].removeprefix("::ffff:") != "127.0.0.1"] == []


def test_nobody_calls_without_the_token(server: Front, environment: Mapping[str, str]) -> None:
    [port] = [
        connection.laddr.port
        for process in server.family()
        if process.name() == "gcs_server"
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    [token] = {process.environ()["RAY_AUTH_TOKEN"] for process in server.family() if "Replica" in process.name()}
    code = f"import ray; ray.init(address='127.0.0.1:{port}'); print(ray.get(ray.remote(lambda: 'ran').remote()))"

    def ran(**more: str) -> bool:
        try:
            done = subprocess.run(
                [sys.executable, "-c", code], env={**environment, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **more},
                capture_output=True, text=True, timeout=45,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        return "ran" in done.stdout.split()

    assert ran(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    assert not ran(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert not ran()


# ----- 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "What is 3 + 4?"}], "n": 3, "return_token_ids": True}),
        (CHAT, {"messages": [{"role": "user", "content": "7?"}], "guided_regex": "[0-9]{4}", "max_tokens": 90}),
        (RAW, {**LONG, "max_tokens": 300}),
        (RAW, {"prompt": ["a b", "c"], "max_tokens": 20, "temperature": 0, "stop": ["4"]}),
        (RAW, {"prompt": "What is 3 + 4?", "cache_salt": "x", "priority": 3, "presence_penalty": 0.5}),
    ],
)  # fmt: skip
def test_the_same_as_one_engine(server: Front, alone: Running, path: str, body: dict[str, Any]) -> None:
    body = {**body, "seed": 11}
    expected, found = alone.send(path, body), server.send(path, body)
    assert (expected[0], without_names(expected[1])) == (200, without_names(found[1]))

    choices = [choice for event in server.events(path, body) for choice in event["choices"] if choice["index"] == 0]
    said = "".join(choice["text"] if path == RAW else choice["delta"].get("content") or "" for choice in choices)
    whole = expected[1]["choices"][0]
    assert said == (whole["text"] if path == RAW else whole["message"]["content"])


def test_log_probabilities(server: Front, alone: Running) -> None:
    body = {"prompt": "What is 3 + 4?", "echo": True, "logprobs": 2, "max_tokens": 5, "seed": 3}
    expected, found = (each.send(RAW, body)[1]["choices"][0]["logprobs"] for each in (alone, server))
    assert found["tokens"] == expected["tokens"]
    assert found["token_logprobs"][1:] == pytest.approx(expected["token_logprobs"][1:], abs=1e-4)


# ----- 3


def test_a_client_that_goes(server: Front) -> None:
    connection = server.connection()
    connection.request("POST", RAW, json.dumps({**LONG, "n": 4, "stream": True}), {"Content-Type": "application/json"})
    assert eventually(lambda: server.gauge("num_requests_running") > 0, 20)
    connection.sock.close()
    connection.close()
    before = server.gauge("generation_tokens_total")
    assert eventually(lambda: server.gauge("num_requests_running") == 0, 20)
    assert server.gauge("generation_tokens_total") - before < 4 * 600 / 2


# ----- 4


def test_a_replica_is_killed(server: Front, alone: Running) -> None:
    expected = {seed: alone.send(RAW, {**LONG, "seed": seed})[1]["choices"][0] for seed in range(6)}
    found: dict[int, Any] = {}
    heard = threading.Event()

    def ask(seed: int) -> None:
        found[seed] = server.send(RAW, {**LONG, "seed": seed})

    def listen(seed: int) -> None:
        connection = server.connection()
        body = json.dumps({**LONG, "seed": seed, "stream": True})
        connection.request("POST", RAW, body, {"Content-Type": "application/json"})
        events = found[seed] = []
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                events.append(json.loads(line.removeprefix(b"data: ")))
                heard.set()
        connection.close()

    threads = [threading.Thread(target=ask if seed % 2 else listen, args=[seed]) for seed in expected]
    for thread in threads:
        thread.start()
    assert heard.wait(20)
    time.sleep(0.2)
    victim = server.told("ready")[-1]
    os.kill(victim["process"], signal.SIGKILL)
    for thread in threads:
        thread.join(60)
    assert eventually(lambda: bool(server.told("lost")), 60)
    assert server.told("lost")[-1]["requests"] > 0, "it had something to do"
    for seed, choice in expected.items():
        if seed % 2:
            status, answer, _ = found[seed]
            assert (status, answer["choices"][0]["token_ids"]) == (200, choice["token_ids"])
        else:
            choices = [c for event in found[seed] for c in event["choices"]]
            assert [id for c in choices for id in c["token_ids"]] == choice["token_ids"]
            assert "".join(c["text"] for c in choices) == choice["text"]
    assert eventually(lambda: server.send("/ready")[1].get("replicas") == 2, 60)
    assert server.told("ready")[-1]["replica"] == victim["replica"]


# ----- 5


def test_all_are_killed(server: Front) -> None:
    assert eventually(lambda: server.send("/ready")[1].get("replicas") == 2, 60)
    latest = {record["replica"]: record["process"] for record in server.told("ready")}
    for process in latest.values():
        os.kill(process, signal.SIGKILL)
    assert eventually(lambda: server.send("/ready")[0] == 503, 10)
    status, answer, headers = server.send(RAW, {"prompt": "x"})
    assert (status, answer["error"]["code"], "retry-after" in headers) == (503, "no_replica", True)
    assert server.send("/health")[0] == 200
    assert eventually(lambda: server.send("/ready")[0] == 200, 60)
    assert server.send(RAW, {"prompt": "x"})[0] == 200


# ----- 6, 7


@pytest.mark.parametrize("how", ["term", "interrupt"])
def test_a_stop(environment: Mapping[str, str], how: str) -> None:
    with front(environment) as server:
        family = server.family()
        found: list[Any] = []
        asking = threading.Thread(target=lambda: found.append(server.send(RAW, {**LONG, "n": 4})))
        asking.start()
        assert eventually(lambda: server.gauge("num_requests_running") > 0, 20)
        if how == "term":
            server.process.send_signal(signal.SIGTERM)
        else:
            os.killpg(server.process.pid, signal.SIGINT)
        asking.join(30)
        assert found[0][0] == 200
        assert server.process.wait(60) == 0
        assert eventually(lambda: not any(process.is_running() for process in family), 10)
        assert "Traceback" not in "".join(server.lines)


def test_the_front_is_killed(environment: Mapping[str, str]) -> None:
    with front(environment) as server:
        family = server.family()
        workers = [process for process in family if "Replica" in process.name()]
        assert len(workers) == 2
        server.process.kill()
        server.process.wait()
        assert eventually(lambda: not any(process.is_running() for process in workers), 20)
        # two of Ray's own first try to tell somebody that all others are gone
        assert eventually(lambda: not any(process.is_running() for process in family), 120)
