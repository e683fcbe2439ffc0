"""A little OpenAI-compatible server on the loopback, for tests: it says what a test tells it to, in the way of a test.

    with FakeServer(lambda server, path, body, out: out.stream([...])) as server: server.url

Every POST is handed to the function, which answers over `Out`; what was asked is kept in `server.asked`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from zaya.engine.scripted import ScriptedCompleter
from zaya.engine.types import Completion, Request, SamplingParams


class Out:
    """The answer to one request."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler

    def begin(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        self._handler.send_response(status)
        self._handler.send_header("Content-Type", kind)
        self._handler.send_header("Connection", "close")
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def write(self, data: bytes) -> None:
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def json(self, value: Any, status: int = 200, **headers: str) -> None:
        self.begin(status, "application/json", **headers)
        self.write(json.dumps(value).encode())

    def event(self, value: Mapping[str, Any]) -> None:
        self.write(b"data: " + json.dumps(value).encode() + b"\n\n")

    def stream(self, events: Iterable[Mapping[str, Any]], *, done: bool = True) -> None:
        self.begin()
        for event in events:
            self.event(event)
        if done:
            self.write(b"data: [DONE]\n\n")


Answer = Callable[["FakeServer", str, dict[str, Any], Out], None]


class FakeServer:
    def __init__(self, answer: Answer, models: Sequence[Mapping[str, Any]] = ({"id": "m"},)) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[Mapping[str, str]] = []
        self.times: list[float] = []
        self.gone = threading.Event()
        """A client has closed its connection in the midst of an answer."""
        self.under_way = self.most_under_way = 0
        lock, fake = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                Out(self).json({"object": "list", "data": list(models)})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    fake.asked.append((self.path, body))
                    fake.headers.append(dict(self.headers))
                    fake.times.append(time.monotonic())
                    fake.under_way += 1
                    fake.most_under_way = max(fake.most_under_way, fake.under_way)
                try:
                    answer(fake, self.path, body, Out(self))
                except OSError:
                    fake.gone.set()
                finally:
                    with lock:
                        fake.under_way -= 1

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def number(self) -> int:
        """How many requests came before this one, where they come one after the other."""
        return len(self.asked) - 1


def chunk(finish: str | None = None, *, choice: Mapping[str, Any] | None = None, **delta: Any) -> dict[str, Any]:
    """An event of a chat stream."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}]}


def usage(prompt: int, drawn: int, cached: int | None = None) -> dict[str, Any]:
    """The last event of a stream."""
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": drawn, **details}}


def served(completer: ScriptedCompleter) -> Answer:
    """A server that answers as a completer does, with token ids, a few at a time, as vLLM writes them."""

    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        params = SamplingParams(
            max_tokens=body["max_tokens"], temperature=body["temperature"], top_p=body["top_p"],
            think_budget=body.get("thinking_token_budget"),
        )  # fmt: skip
        prompt = (
            {"messages": body["messages"]} if path.endswith("/chat/completions") else {"prompt_ids": body["prompt"]}
        )
        request = Request(**prompt, params=params, seed=body["seed"])
        [completions] = completer.complete([request])
        if not completions:
            out.json({"error": {"message": "no luck"}}, 500)
            return
        out.stream(_events(completions[0], is_chat="messages" in body))

    return answer


def _events(completion: Completion, *, is_chat: bool) -> Iterable[dict[str, Any]]:
    ids = completion.ids
    first = {"prompt_token_ids": list(completion.prompt_ids)}
    for at in range(0, len(ids), 7):
        text = {"reasoning": completion.reasoning, "content": completion.text} if at == 0 else {}
        choice = {"token_ids": list(ids[at : at + 7]), **({} if is_chat else {"text": text.get("content", "")})}
        yield {**first, **chunk(choice=choice, **(text if is_chat else {}))}
        first = {}
    yield chunk(completion.finish_reason.value)
    yield usage(len(completion.prompt_ids), len(ids))
