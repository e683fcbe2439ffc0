"""What the tests of the server share: a completer that types what a test says, and a server on the loopback.

    with running(Typist(lambda prompt, seed, index: "so\\n</think>\\n\\n4")) as server:
        server.client().chat.completions.create(...)

The text takes the way of an engine's: token by token through `SequenceState`, so that stop strings, budgets and limits
are the real ones, with log-probabilities that can be computed by hand.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from openai import OpenAI

from zaya.engine.handle import RequestHandle
from zaya.engine.scripted import Script
from zaya.engine.split import split, stop_ids
from zaya.engine.state import SequenceState
from zaya.engine.thinking import Thinking
from zaya.engine.types import Completer, Completion, Delta, FinishReason, Request
from zaya.serve.auth import Keys
from zaya.serve.limits import Limits
from zaya.serve.running import Server, listen, url_of
from zaya.serve.served import Served
from zaya.text import Tokenizer, byte_tokenizer, render

TOKENIZER = byte_tokenizer([("a", "b"), ("ab", "ab")])
ENDS = stop_ids(TOKENIZER)


def called(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as ZAYA1 writes it."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in arguments.items()}
    inside = "".join(f"<parameter={key}>\n{text}\n</parameter>\n" for key, text in texts.items())
    return f"<zyphra_tool_call>\n<function={name}>\n{inside}</function>\n</zyphra_tool_call>"


def logprob_of(at: int) -> float:
    """Of the token at this place of any text that is typed."""
    return -0.25 * (at + 1)


class Typist:
    """A `Completer` that types what a script says, a token at a time."""

    def __init__(self, script: Script, *, context: int = 4096, hold_after: int | None = None, together: int = 1):
        """`hold_after` so many tokens it waits until `go_on` is set. `together` tokens come in one delta."""
        self.script = script
        self.context = context
        self.tokenizer = TOKENIZER
        self.hold_after = hold_after
        self.together = together
        self.go_on = threading.Event()
        self.requests: list[Request] = []
        self.cancelled = threading.Event()
        """Somebody did not want the rest."""
        self.typed = 0

    def submit(self, request: Request) -> RequestHandle:
        self.requests.append(request)
        stop = threading.Event()
        handle = RequestHandle(request.n, lambda _: stop.set(), wants_deltas=True)
        threading.Thread(target=self._type, args=(request, handle, stop), daemon=True).start()
        return handle

    def complete(self, requests: Sequence[Request], *, on_progress: Any = None) -> list[list[Completion]]:
        handles = [self.submit(request) for request in requests]
        while not all(handle.is_done for handle in handles):
            time.sleep(0.001)
        return [handle.completed() for handle in handles]

    def _type(self, request: Request, handle: RequestHandle, stop: threading.Event) -> None:
        for index in range(request.n):
            try:
                self._one(request, index, handle, stop)
            except Exception as error:
                handle.fail(error)
                return

    def _one(self, request: Request, index: int, handle: RequestHandle, stop: threading.Event) -> None:
        params = request.params
        prompt = tuple(request.prompt_ids or render(TOKENIZER, request.messages or ()).ids)
        text = self.script(TOKENIZER.decode(prompt), request.seed, index)
        if text is None:
            handle.lose(index, RuntimeError("no luck"))
            return
        pending = [*TOKENIZER.encode(text, bos=False), TOKENIZER.tags.turn_close]
        state = SequenceState(
            prompt, params, point=lambda _: 0.0, tokenizer=TOKENIZER, constraint=None,
            stop_ids=frozenset(params.stop_ids) if params.ignore_eos else ENDS.union(params.stop_ids),
            thinking=Thinking.after(TOKENIZER, prompt, params.think_budget),
        )  # fmt: skip
        told = 0
        while state.finish_reason is None:
            if self.typed == self.hold_after:
                while not (stop.is_set() or self.go_on.wait(0.005)):
                    pass
            if stop.is_set():
                state.finish_reason = FinishReason.CANCELLED
                self.cancelled.set()
            else:
                due = state.thinking.due if state.thinking is not None else None
                state.push(pending.pop(0) if due is None and pending else 1 if due is None else due)
                self.typed += 1
            if state.finish_reason is not None or len(state.ids) - told == self.together:
                handle.tell(self._delta(index, state, told))
                told = len(state.ids)
        handle.complete(index, self._completion(prompt, state))

    def _delta(self, index: int, state: SequenceState, told: int) -> Delta:
        reasoning, text = state.take()
        return Delta(
            index=index, ids=tuple(state.ids[told:]), text=text, reasoning=reasoning,
            finish_reason=state.finish_reason, stop_reason=state.stop_reason, **_numbers(state, told),
        )  # fmt: skip

    def _completion(self, prompt: tuple[int, ...], state: SequenceState) -> Completion:
        reasoning, text = state.texts()
        reasoning_ids, is_closed, _, _ = split(TOKENIZER, prompt, state.ids)
        assert state.finish_reason is not None
        return Completion(
            ids=tuple(state.ids), text=text, reasoning=reasoning, finish_reason=state.finish_reason,
            stop_reason=state.stop_reason, prompt_ids=prompt, reasoning_ids=reasoning_ids, is_closed=is_closed,
            cached_tokens=3, **_numbers(state, 0),
        )  # fmt: skip


def _numbers(state: SequenceState, start: int) -> dict[str, Any]:
    """Every token has its own log-probability by its place; beside it the ids that follow it are the likeliest."""
    ids, wanted = state.ids[start:], state.params.top_logprobs
    own = np.array([logprob_of(start + i) for i in range(len(ids))], dtype=np.float32)
    if not wanted:
        return {"logprobs": own}
    tops = np.array([[(id + k) % TOKENIZER.size for k in range(wanted)] for id in ids], dtype=np.int32).reshape(
        -1, wanted
    )
    values = np.array([[own[i] - k for k in range(wanted)] for i in range(len(ids))], dtype=np.float32)
    return {"logprobs": own, "top_ids": tops, "top_logprobs": values.reshape(-1, wanted)}


class Running:
    """A server on the loopback."""

    def __init__(self, served: Served, url: str, server: Server, log: list[dict[str, Any]]) -> None:
        self.served = served
        self.url = url
        self.server = server
        self.log = log
        """A record for each request that is over."""
        self.port = int(url.rpartition(":")[2])

    def client(self) -> Any:
        """OpenAI's own. Its answers are typed as if nearly all of them could be absent, so here they are not."""
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=20)

    def send(
        self, path: str, body: Any = None, *, method: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, JSON and headers of an answer. A body that is bytes goes out as it is."""
        connection = self.connection()
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        wanted = {"Content-Type": "application/json", **(headers or {})}
        connection.request(method or ("GET" if body is None else "POST"), path, data, wanted)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text), {name.lower(): value for name, value in answer.getheaders()}

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def events(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """The events of a stream, which has to end as one does."""
        connection = self.connection()
        wanted = {"Content-Type": "application/json", **(headers or {})}
        connection.request("POST", path, json.dumps({**body, "stream": True}), wanted)
        text = connection.getresponse().read().decode()
        connection.close()
        *events, done, rest = text.split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events if not event.startswith(":")]


@contextmanager
def running(
    completer: Completer,
    tokenizer: Tokenizer = TOKENIZER,
    name: str = "m",
    *,
    keys: Keys | None = None,
    origins: Sequence[str] = (),
    ignore_client_seed: bool = False,
    **limits: Any,
) -> Iterator[Running]:
    served = Served(completer, tokenizer, name, Limits(**limits), "micro", ignore_client_seed=ignore_client_seed)
    log: list[dict[str, Any]] = []
    server = Server(served, write=lambda record: log.append(dict(record)), keys=keys, origins=origins)
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.002)
        yield Running(served, url_of(listener), server, log)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive(), "the server does not stop"


def eventually(condition: Any, seconds: float = 5.0) -> bool:
    """Whether something becomes true within a bound against hangs."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True
