"""What a server serves: a completer, its tokenizer and its name; and the requests that are under way with it.

    async with served.start(requests, completions=3) as work, work.deadline():
        completions = await work.results()                      # or: async for number, delta in work.deltas()

`start` counts the completions at the gate and hands the requests to the completer; leaving the block, in whatever way,
cancels what still runs, so that nobody computes for a client that has gone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from zaya.engine.split import stop_ids
from zaya.engine.types import Completer, Completion, Delta, FinishReason, Handle, Request
from zaya.errors import CompletionError, did_you_mean
from zaya.serve.auth import charge
from zaya.serve.errors import ApiError, no_replica
from zaya.serve.limits import Gate, Limits
from zaya.serve.metrics import PREFIX, Metrics
from zaya.text import Tokenizer


@dataclass(eq=False)
class Served:
    """One model on offer."""

    completer: Completer
    tokenizer: Tokenizer
    name: str
    limits: Limits = field(default_factory=Limits)
    rsa_preset: str = "rsa_16k_4k"
    """Of Markovian RSA, where a request names none."""
    created: int = field(default_factory=lambda: int(time.time()))
    is_draining: bool = False
    """The server has been told to stop: what is under way goes on, and nothing new begins."""
    under_way: set[Work] = field(default_factory=set)
    metrics_prefix: str = PREFIX
    ignore_client_seed: bool = False
    """Every request draws a new text, whatever seed it sends."""

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.name, self.completer, self.metrics_prefix)
        self.gate = Gate(self.limits)
        self.rsa_slots = asyncio.Semaphore(self.limits.max_rsa_running)
        """For rollouts of Markovian RSA."""
        self.turn_ends = stop_ids(self.tokenizer)
        """Ids that end a turn, as nobody has to be told."""

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together."""
        return self.completer.context

    def check_ready(self) -> None:
        """Raises ApiError where nobody is there to answer, now or any more."""
        if self.is_draining:
            raise _stopping()
        if not getattr(self.completer, "is_ready", True):
            raise no_replica()

    def check_model(self, name: str | None) -> None:
        """Raises ApiError for a model that is not this one; none is this one."""
        if name is not None and name != self.name:
            hint = did_you_mean(name, [self.name])
            raise ApiError(404, f"no model is called {name!r} here; {hint}", code="model_not_found", param="model")

    def room(self, prompt_tokens: int, wanted: int | None) -> int:
        """Tokens that may be drawn behind a prompt of so many. Raises ApiError where there is none, or less than
        wanted."""
        most, context = self.limits.max_prompt_tokens, self.context
        if most is not None and prompt_tokens > most:
            raise _too_long(f"the prompt has {prompt_tokens:,} tokens, and {most:,} are allowed")
        if prompt_tokens < 1:
            raise ApiError(400, "the prompt is empty", code="invalid_value", param="prompt")
        if context is None:
            return wanted or 16
        if prompt_tokens >= context:
            raise _too_long(f"the prompt has {prompt_tokens:,} tokens, and the model's context holds {context:,}")
        if wanted is not None and prompt_tokens + wanted > context:
            raise _too_long(
                f"the prompt has {prompt_tokens:,} tokens and up to {wanted:,} new ones are wanted, "
                f"{prompt_tokens + wanted:,} in all; the model's context holds {context:,}"
            )
        return context - prompt_tokens if wanted is None else wanted

    @asynccontextmanager
    async def start(self, requests: Sequence[Request], *, completions: int) -> AsyncIterator[Work]:
        """Start on requests, which count as so many completions. Raises ApiError where there is no room for them,
        UsageError where one cannot be answered."""
        async with self.admit(completions, requests) as work:
            try:
                for request in requests:
                    work.handles.append(await self.submit(request))
                yield work
            finally:
                for handle in work.handles:
                    self.let_go(handle)

    @asynccontextmanager
    async def admit(self, completions: int, requests: Sequence[Request] = ()) -> AsyncIterator[Work]:
        """Count so many completions as under way. Raises ApiError where there is no room for them."""
        self.check_ready()
        with self.gate.enter(completions):
            work = Work(self, requests)
            self.under_way.add(work)
            try:
                yield work
            finally:
                self.under_way.discard(work)
                self.gate.took(time.monotonic() - work.begun)

    async def submit(self, request: Request) -> Handle:
        """Hand a request to the completer. Who asked lets go of it in the end (`let_go`)."""
        begun = time.monotonic()
        start: Callable[[Request], concurrent.futures.Future[Handle]] | None = getattr(self.completer, "start", None)
        if start is not None:  # one in another process (`serve.fleet`)
            submitted = asyncio.wrap_future(start(request))
        else:  # in a thread, because a grammar may take long to compile; which goes on when its client goes
            submitted = asyncio.get_running_loop().run_in_executor(None, self.completer.submit, request)
        try:
            handle = await asyncio.shield(submitted)
        except asyncio.CancelledError:
            submitted.add_done_callback(_cancel)
            raise
        self.metrics.begin(request, handle, begun)
        charge(len(request.prompt_ids or ()))
        return handle

    def let_go(self, handle: Handle) -> None:
        """Nothing more is wanted of it."""
        self.metrics.end(handle)
        handle.cancel()
        charge(handle.drawn)


class Work:
    """Requests under way on behalf of one client."""

    def __init__(self, served: Served, requests: Sequence[Request]) -> None:
        self.served = served
        self.requests = requests
        self.handles: list[Handle] = []
        self.begun = time.monotonic()
        self._timeout: asyncio.Timeout | None = None

    async def results(self) -> list[list[Completion]]:
        """The completions of each request. Raises what went wrong."""
        results = [await handle.result() for handle in self.handles]
        for request, completions in zip(self.requests, results, strict=True):
            if len(completions) < request.n:
                raise CompletionError("a completion failed on the way")
            if any(completion.finish_reason is FinishReason.CANCELLED for completion in completions):
                raise _stopping()  # nobody else cancels what a client still waits for
        return results

    async def deltas(self) -> AsyncGenerator[tuple[int, Delta], None]:
        """What comes, with the number of its request. Raises what went wrong with one; a completion that never comes
        is for `results` to tell."""
        seen: dict[tuple[int, int], float] = {}
        async with aclosing(_merged(self.handles)) as merged:
            async for number, delta in merged:
                if delta.ids:
                    key, now = (number, delta.index), time.monotonic()
                    if key in seen:
                        self.served.metrics.gap(now - seen[key], len(delta.ids))
                    seen[key] = now
                yield number, delta

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """What is awaited inside ends with an ApiError when the time is up."""
        limits = self.served.limits
        try:
            async with asyncio.timeout(max(self.begun + limits.deadline_s - time.monotonic(), 0)) as self._timeout:
                yield
        except TimeoutError:
            if self._timeout is None or not self._timeout.expired():
                raise
            if self.served.is_draining:
                raise _stopping() from None
            message = f"there was no answer within {limits.deadline_s:g} s"
            raise ApiError(504, message, code="deadline_exceeded") from None
        finally:
            self._timeout = None

    def expire(self) -> None:
        """End it as its deadline would."""
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())


async def _merged(handles: Sequence[Handle]) -> AsyncGenerator[tuple[int, Delta], None]:
    """The deltas of several requests as they come."""
    if len(handles) == 1:
        async for delta in handles[0]:
            yield 0, delta
        return
    # of one place: while nobody reads, deltas are joined in the handles and not heaped up here
    queue: asyncio.Queue[tuple[int, Delta] | Exception | None] = asyncio.Queue(maxsize=1)

    async def forward(number: int, handle: Handle) -> None:
        try:
            async for delta in handle:
                await queue.put((number, delta))
            await queue.put(None)
        except Exception as error:
            await queue.put(error)

    tasks = [asyncio.create_task(forward(number, handle)) for number, handle in enumerate(handles)]
    try:
        left = len(tasks)
        while left:
            match await queue.get():
                case None:
                    left -= 1
                case Exception() as error:
                    raise error
                case found:
                    yield found
    finally:
        for task in tasks:
            task.cancel()


def _cancel(submitted: asyncio.Future[Handle]) -> None:
    if not submitted.cancelled() and submitted.exception() is None:
        submitted.result().cancel()


def _too_long(message: str) -> ApiError:
    return ApiError(400, message, code="context_length_exceeded")


def _stopping() -> ApiError:
    return ApiError(503, "the server is stopping", code="stopping", retry_after_s=5)
