"""Any OpenAI-compatible server as a `Completer`.

    completer = RemoteCompleter("http://localhost:8000/v1", "zaya1-8b", tokenizer=tokenizer)
    completer.complete([Request(messages=..., n=4)])
    zaya.solve("...", completer)

1. Each completion is a request of its own, streamed: so one that fails is alone in it, and one that is cancelled closes
   its connection. Completion 0 has the seed of the request, the others seeds derived from it.
2. What makes ids certain is asked for until the server refuses it; then it is asked without (`engine.reply` has
   what is made of the answer). `Completion.is_approximate` marks ids that are not what was drawn.
3. Reasoning that uses up its `think_budget` is closed by the server where it is known to do that. Else the first
   request ends there, and a second goes on behind a closing tag: from ids with a tokenizer, else from the text as an
   assistant's turn to be continued. A server that does neither leaves it cut, and a warning says so once.
4. What goes wrong is tried again (`engine.transport`); a completion that stays without an answer is left out, and
   counted in `failures` by its kind. What cannot work raises UsageError with the server's words.

One event loop in one thread serves all. Not covered: log-probabilities, whose distribution servers do not name, and
routes. Imports no torch.
"""

from __future__ import annotations

import asyncio
import math
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any

from zaya.core.rng import derive_seed
from zaya.engine.handle import RequestHandle
from zaya.engine.job import Job
from zaya.engine.reply import CLOSING
from zaya.engine.transport import Refused, ServerError, Transport
from zaya.engine.types import Completion, FinishReason, OnProgress, Request
from zaya.engine.wire import OPTIONAL, body, check, has_budget, may_think
from zaya.errors import UsageError, did_you_mean
from zaya.text import Tokenizer, tags

_CARD_TIMEOUT_S = 10.0
"""For the list of models, without which there is less to know but nothing to wait for."""
_CARD_PAUSE_S = 30.0
"""Until a list that was not to be had is asked for again."""

_CONTEXT_NAMES = ("max_model_len", "context_length", "context_window")
"""What servers call the context of a model."""


class RemoteCompleter:
    """A server's completions (`zaya.engine.types.Completer`)."""

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        tokenizer: Tokenizer | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 600.0,
        connect_timeout_s: float = 10.0,
        total_timeout_s: float = 7200.0,
        retries: int = 6,
        backoff_s: float = 0.5,
        max_connections: int = 64,
    ) -> None:
        """`model` as the server calls it; an address without a path gets /v1. `tokenizer` is that of the model: with
        it ids can be read, so that tails and continuations are exact.

        timeout_s: without a byte from the server; `total_timeout_s` bounds a request with its retries. backoff_s: the
        first wait before a retry, doubled for each further one. max_connections: requests under way at once.
        Raises UsageError for an address or a key that is none, and where the extra `remote` is missing.
        """
        for name, value in (("timeout_s", timeout_s), ("connect_timeout_s", connect_timeout_s),
                            ("total_timeout_s", total_timeout_s), ("max_connections", max_connections)):  # fmt: skip
            if not value > 0 or math.isinf(value):
                raise UsageError(f"{name} must be above 0 and finite: {value}")
        if retries < 0 or not backoff_s >= 0:
            raise UsageError(f"retries and backoff_s must not be negative: {retries}, {backoff_s}")
        key = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._transport = Transport(
            base_url, {**key, **(headers or {})}, secrets=[*([api_key] if api_key else []), *(headers or {}).values()],
            timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, total_timeout_s=total_timeout_s, retries=retries,
            max_connections=max_connections, backoff_s=backoff_s,
        )  # fmt: skip
        self.base_url = self._transport.shown
        self.model = model
        self.tokenizer = tokenizer
        self.failures: Counter[str] = Counter()
        """Completions that never came, by kind (`engine.transport.FailureKind`)."""
        self.last_failure: ServerError | None = None
        self._wants: tuple[str, ...] = ("return_token_ids", "logprobs")
        """What makes ids certain; the one that the server is found to answer is enough."""
        self._leave_out: frozenset[str] = frozenset()
        """Fields that the server refuses."""
        self._has_accepted = False
        self._has_warned = False
        self._card: Mapping[str, Any] = {}
        """What the server says of the model."""
        self._models: list[str] | None = None
        """The models it has; None while it has not said."""
        self._card_lock = asyncio.Lock()
        self._card_after = 0.0
        self._tasks: dict[RequestHandle, list[asyncio.Task[Completion]]] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"RemoteCompleter({self.base_url!r}, {self.model!r})"

    # ----- asking

    @property
    def context(self) -> int | None:
        """Tokens that prompt and completion may have together, as the server says; None where it does not."""
        asyncio.run_coroutine_threadsafe(self._look_up(), self._running()).result()
        lengths = (self._card.get(name) for name in _CONTEXT_NAMES)
        return next((length for length in lengths if isinstance(length, int) and length > 0), None)

    @property
    def errors(self) -> Counter[str]:
        """How often something went wrong, by kind, also where the next try went well."""
        return self._transport.errors

    @property
    def last_error(self) -> ServerError | None:
        """What went wrong last, also where the next try went well."""
        return self._transport.last_error

    def submit(self, request: Request) -> RequestHandle:
        """Start on a request. May be called from anywhere. `failures` of the handle has what went wrong with single
        completions; what the server refuses comes out of the handle as UsageError."""
        check(request)
        handle = RequestHandle(request.n, self._cancel, wants_deltas=True)
        self._running().call_soon_threadsafe(self._start, handle, request, lambda _: None)
        return handle

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        """For each request its `n` completions, in order, without those that the server did not give.

        Raises UsageError for what it refuses: an unknown model, a key, a prompt that is too long. A call that breaks
        off cancels what it has asked for.
        """
        for request in requests:
            check(request)
        ended: SimpleQueue[RequestHandle] = SimpleQueue()
        handles = [RequestHandle(request.n, self._cancel, wants_deltas=False) for request in requests]
        total = sum(handle.n for handle in handles)
        try:
            loop = self._running()
            for handle, request in zip(handles, requests, strict=True):
                loop.call_soon_threadsafe(self._start, handle, request, ended.put)
            for done in range(1, total + 1):
                handle = ended.get()
                if handle.error is not None:
                    raise handle.error
                if on_progress is not None:
                    on_progress(done, total)
        except BaseException:
            for handle in handles:
                handle.cancel()
            raise
        return [handle.completed() for handle in handles]

    def close(self) -> None:
        """Cancel what is under way, and take no more requests."""
        with self._lock:
            self._is_closed = True
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._wind_up(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def __enter__(self) -> RemoteCompleter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ----- the thread

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop, which begins when it is first needed. Raises UsageError once it is closed."""
        with self._lock:
            if self._is_closed:
                raise UsageError("the remote completer was closed", hint="make a new one")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="zaya-remote", daemon=True)
                self._thread.start()
            return self._loop

    def _cancel(self, handle: RequestHandle) -> None:
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._end, handle)

    def _start(self, handle: RequestHandle, request: Request, on_end: Callable[[RequestHandle], object]) -> None:
        tasks = self._tasks[handle] = []
        for index in range(request.n):
            job = Job(request, index, handle)
            task = asyncio.get_running_loop().create_task(self._answer(job))
            # a task that is cancelled before its first step runs nothing of itself, not even a finally
            task.add_done_callback(partial(self._settle, job, on_end))
            tasks.append(task)

    def _end(self, handle: RequestHandle) -> None:
        for task in self._tasks.get(handle, ()):
            task.cancel()

    async def _wind_up(self) -> None:
        tasks = [task for tasks in self._tasks.values() for task in tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.close()

    def _settle(self, job: Job, on_end: Callable[[RequestHandle], object], task: asyncio.Task[Completion]) -> None:
        """A completion has ended, in whatever way."""
        handle, index = job.handle, job.index
        try:
            completion = job.so_far(self.tokenizer) if task.cancelled() else task.result()
            job.tell(completion.finish_reason)
            handle.complete(index, completion)
        except ServerError as error:
            self.failures[error.kind] += 1
            self.last_failure = error
            handle.lose(index, error)
        except Exception as error:  # refused, or ours
            handle.fail(error)
            self._end(handle)
        if all(task.done() for task in self._tasks.get(handle, ())):
            self._tasks.pop(handle, None)
        on_end(handle)

    # ----- one completion

    async def _answer(self, job: Job) -> Completion:
        """Raises ServerError where the server gives none, UsageError where it never will."""
        try:
            return await self._complete(job)
        except Refused as error:
            raise await self._explained(error) from None

    async def _complete(self, job: Job) -> Completion:
        request, params = job.request, job.request.params
        if params.think_budget is None or not may_think(request, self.tokenizer):
            return await self._ask(job, request)
        await self._look_up()
        if has_budget(self._card.get("owned_by"), self._leave_out):
            try:
                return await self._ask(job, request)
            except _BudgetRefused:
                pass
        first = await self._ask(job, _limited(request, min(max(params.think_budget, 1), params.max_tokens)))
        left = params.max_tokens - first.generated_tokens
        if first.finish_reason is not FinishReason.LENGTH or left < 1:
            return first
        closing = "" if first.is_closed else CLOSING
        if self.tokenizer is not None and first.prompt_ids:
            closing_ids = tuple(self.tokenizer.encode(closing, bos=False))
            left -= len(closing_ids)  # an engine counts them as well
            if left < 1:
                return first
            ids = (*first.prompt_ids, *first.ids, *closing_ids)
            rest, more = replace(request, messages=None, tools=None, prompt_ids=ids), {}
        elif request.messages is not None:
            closing_ids = ()
            said = f"{tags.THINK_OPEN}\n{first.reasoning}{CLOSING}{first.text}"
            rest = replace(request, messages=[*request.messages, {"role": "assistant", "content": said}])
            more = {"continue_final_message": True, "add_generation_prompt": False}
        else:
            return first
        job.go_on(first, closing, closing_ids)
        try:
            return job.joined(await self._ask(job, _limited(rest, left), more), self.tokenizer)
        except Refused as error:
            if not more:
                raise
            if not self._has_warned:
                self._has_warned = True
                message = "reasoning that uses up think_budget stays cut, without an answer; a tokenizer would help"
                warnings.warn(f"{message}: {error.message}", stacklevel=2)
            return first

    async def _ask(self, job: Job, request: Request, more: Mapping[str, Any] | None = None) -> Completion:
        """What a request gives, in the end. Raises ServerError, Refused."""
        return await self._transport.persist(lambda: self._attempt(job, request, more or {}), job.begin_anew)

    async def _attempt(self, job: Job, request: Request, more: Mapping[str, Any]) -> Completion:
        await self._look_up()
        server = self._card.get("owned_by")
        seed = request.seed if job.index == 0 else derive_seed(request.seed, "remote", job.index)
        if job.before is not None:
            seed = derive_seed(seed, "answer")  # a server would begin the stream of the first request again
        leave_out = self._leave_out
        while True:
            path, fields = body(request, self.model, seed=seed, server=server, leave_out=leave_out, wants=self._wants)
            try:
                reply = job.begin(request, self.tokenizer)
                async with aclosing(self._transport.events(path, {**fields, **more})) as events:
                    async for event in events:
                        if event.get("error"):
                            raise self._transport.failure(event["error"])
                        reply.feed(event)
                        job.tell()
                completion = reply.completion()
            except Refused as error:
                refused = self._refused_fields(error, fields)
                if not refused:
                    raise
                if "thinking_token_budget" in refused:
                    self._leave_out |= refused
                    raise _BudgetRefused from None
                leave_out |= refused
            else:
                self._leave_out |= leave_out
                self._has_accepted = True
                if reply.ids or reply.tokens:
                    self._wants = ("return_token_ids",) if reply.ids else ("logprobs",)
                return completion

    def _refused_fields(self, error: Refused, fields: Mapping[str, Any]) -> frozenset[str]:
        """Which of the fields that were sent may be at fault, and can be left out."""
        if error.status not in (400, 422):
            return frozenset()
        if "max_tokens" in fields and "max_completion_tokens" in error.message and "instead" in error.message:
            return frozenset({"max_tokens"})
        sent = frozenset(name for name in OPTIONAL if name in fields)
        named = frozenset(name for name in sent if name in error.message)
        # one that says nothing of them may still mean them, as long as none was ever accepted
        return named or (frozenset() if self._has_accepted else sent - {"thinking_token_budget"})

    # ----- the server

    async def _look_up(self) -> None:
        """Learn what the server says of its models, once. That it says nothing is no error."""
        loop = asyncio.get_running_loop()
        async with self._card_lock:
            if self._models is not None or loop.time() < self._card_after:
                return
            try:
                answer = await asyncio.wait_for(self._transport.get("/models"), _CARD_TIMEOUT_S)
            except (ServerError, TimeoutError):
                self._card_after = loop.time() + _CARD_PAUSE_S
                return
            except Refused:
                answer = {}
            cards = answer.get("data") if isinstance(answer, Mapping) else None
            cards = [card for card in cards if isinstance(card, Mapping)] if isinstance(cards, list) else []
            self._models = [str(card.get("id")) for card in cards]
            self._card = next((card for card in cards if card.get("id") == self.model), {})

    async def _explained(self, error: Refused) -> UsageError:
        """What a server refused, and what to do about it."""
        hint = None
        if error.status in (401, 403):
            hint = "check api_key"
        elif 300 <= error.status < 400:
            hint = "give the address that it names as base_url"
        elif error.status == 404 or "model" in error.message:
            await self._look_up()
            if self._models and self.model not in self._models:
                hint = did_you_mean(self.model, self._models)
            elif error.status == 404:
                hint = "an OpenAI-compatible address usually ends in /v1"
        return UsageError(error.message, hint=hint)


class _BudgetRefused(Exception):
    """The server does not close reasoning."""


def _limited(request: Request, tokens: int) -> Request:
    """The same for so many tokens, whatever they are."""
    params = request.params
    return replace(
        request,
        params=replace(params, max_tokens=tokens, min_tokens=min(params.min_tokens, tokens), think_budget=None),
    )
