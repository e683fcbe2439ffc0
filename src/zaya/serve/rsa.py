"""Markovian RSA behind /v1/chat/completions: many rollouts in rounds, one answer.

    Plan ─► the gate, once for all that run beside each other ─► ttc.rsa.asolve over `Rollouts` ─► the chosen candidate

A stream tells what happens while it happens, as `rsa_progress` in the delta, and then the chosen candidate. Rollouts
come behind ordinary requests, and never take all places of the engine (`Limits.max_rsa_running`). Source: spec
markovian-rsa 8.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from zaya.engine.types import (
    Completion,
    Delta,
    Handle,
    OnProgress,
    Request,
    SamplingParams,
    Structure,
)
from zaya.envs.math.equivalence import equivalent
from zaya.errors import CompletionError
from zaya.serve.errors import ApiError
from zaya.serve.http import EventStream, json_response, unless_gone
from zaya.serve.log import note
from zaya.serve.planning import Plan
from zaya.serve.progress import News, told_of_rollouts
from zaya.serve.served import Served
from zaya.serve.telling import chat_head
from zaya.serve.turn import Piece, Turn, message
from zaya.text import render
from zaya.ttc.live import OnEvent
from zaya.ttc.report import as_mapping
from zaya.ttc.rsa import asolve
from zaya.ttc.types import Solution
from zaya.ttc.vote import Groups

_BEHIND = 1
"""By how much the priority of a rollout is below that of an ordinary request."""
_TICK_S = 0.5
"""How often a stream tells what is new."""
_SILENCE_S = 5.0
"""After which a stream says that nothing is new: clients and proxies take silence for the end."""
_PIECE = 1024
"""Characters of the chosen candidate in a chunk."""


async def think_together(http: HttpRequest, plan: Plan) -> Response:
    """The answer to a chat that asks for Markovian RSA."""
    served: Served = http.app.state.served
    async with AsyncExitStack() as stack:
        work = await stack.enter_async_context(served.admit(plan.max_concurrency))
        if plan.structure is not None:
            await _check_structure(served, plan.structure)
        if plan.body.stream:
            chunks = _chunks(served, plan)
            return EventStream(chunks, stack=stack.pop_all(), within=work.deadline(), limits=served.limits)
        async with work.deadline():
            solution = await unless_gone(http.receive, _solve(served, plan))
    blocks = await asyncio.to_thread(_blocks, plan, solution, Groups(equivalent))
    pieces = _pieces(plan, solution)
    total = _usage(solution)
    note(total)
    choice = {
        "index": 0,
        "message": message(pieces),
        "logprobs": None,
        "finish_reason": _finish_reason(solution),
        "stop_reason": None,
    }
    head = chat_head(served.name, "chat.completion")
    return json_response({**head, "choices": [choice], "usage": total, **blocks})


async def _check_structure(served: Served, structure: Structure) -> None:
    """Ask for it, and want nothing: what cannot be held is refused before a rollout is drawn and not in the last round.
    Raises UsageError."""
    ids = render(served.tokenizer, [{"role": "user", "content": "."}]).ids
    handle = await served.submit(Request(prompt_ids=ids, params=SamplingParams(max_tokens=1, structure=structure)))
    served.let_go(handle)


async def _solve(served: Served, plan: Plan, on_event: OnEvent | None = None) -> Solution:
    try:
        solution = await asolve(
            plan.messages, Rollouts(served, plan), served.tokenizer, config=plan.config, seed=plan.seed,
            selection=plan.selection, structure=plan.structure, deadline_s=plan.deadline_s,
            max_concurrency=plan.max_concurrency, retries=plan.retries, on_event=on_event,
        )  # fmt: skip
    except CompletionError as error:
        if error.kind == "deadline":
            raise ApiError(504, str(error), code="deadline_exceeded") from error
        raise ApiError(502, error.message, code=error.kind.replace(" ", "_")) from error
    if plan.structure is not None and len(solution.rounds) <= plan.config.rounds:
        # what an earlier round has is free text
        raise ApiError(504, "the last round, which has the structure, was not reached", code="deadline_exceeded")
    return solution


# ----- what is said


async def _chunks(served: Served, plan: Plan) -> AsyncGenerator[dict[str, Any], None]:
    head = chat_head(served.name, "chat.completion.chunk")
    body = plan.body

    def chunk(delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**head, "choices": [choice], **({"usage": None} if body.wants_usage else {})}

    yield chunk({"role": "assistant", "content": ""})
    news = News(plan.config, _run(plan), Groups(equivalent), with_candidates=plan.with_candidates)
    yield chunk({"rsa_progress": {"events": await news.take()}})  # the plan: whoever waits for a place can show it
    loop = asyncio.get_running_loop()
    solving, told_at = asyncio.create_task(_solve(served, plan, news.note)), loop.time()
    try:
        is_over = False
        while not is_over:
            await asyncio.wait({solving}, timeout=_TICK_S)
            is_over = solving.done()  # before its last events are taken
            events = await news.take()
            if events or loop.time() - told_at >= _SILENCE_S:
                told_at = loop.time()
                yield chunk({"rsa_progress": {"events": events}})
        solution = solving.result()
    finally:
        if not solving.done():
            solving.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await solving
    for piece in _pieces(plan, solution):
        yield chunk(piece)
    blocks = await asyncio.to_thread(_blocks, plan, solution, news.groups)
    yield {**chunk({}, _finish_reason(solution)), **blocks}
    total = _usage(solution)
    note(total)
    if body.wants_usage:
        yield {**head, "choices": [], "usage": total}


def _pieces(plan: Plan, solution: Solution) -> list[Piece]:
    turn = Turn(None, with_reasoning=plan.body.include_reasoning is not False)
    pieces = [turn.feed(part, "") for part in _parts(solution.reasoning)]
    pieces += [turn.feed("", part) for part in _parts(solution.text)]
    return [piece for piece in pieces if piece]


def _parts(text: str) -> list[str]:
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]


def _finish_reason(solution: Solution) -> str:
    return "stop" if solution.chosen is None or solution.chosen.is_finished else "length"


def _usage(solution: Solution) -> dict[str, Any]:
    """Of all rollouts that ended in the rounds that are told; how much of it was reasoning nobody counts."""
    used = solution.usage
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.generated_tokens,
        "total_tokens": used.prompt_tokens + used.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
    }


def _run(plan: Plan) -> dict[str, Any]:
    """The settings beside the configuration."""
    return {
        "seed": plan.seed,
        "preset": plan.preset,
        "selection": plan.selection,
        "max_concurrency": plan.max_concurrency,
        "deadline_s": plan.deadline_s,
        "retries": plan.retries,
    }


def _blocks(plan: Plan, solution: Solution, groups: Groups) -> dict[str, Any]:
    """What is beside the answer: `rsa`, and for those who spoke in the words of the proxy what it says."""
    config, body = plan.config, plan.body
    told = as_mapping(solution, config, with_candidates=plan.with_candidates, **_run(plan))
    rsa = {name: value for name, value in told.items() if name not in ("text", "reasoning", "usage")}
    rsa |= told_of_rollouts(solution, config, groups, rsa)
    blocks: dict[str, Any] = {"rsa": {**rsa, "warnings": list(plan.warnings)}}
    if body.proxy_fields and body.return_rsa_metadata is not False:
        blocks["rsa_metadata"] = {
            "rsa_iterations": config.rounds,
            "rsa_k": config.fan_in,
            "rsa_n": config.population,
            "rsa_summarize": False,
            "rsa_tail_window": True,
            "tail_window_len": config.tail_tokens,
            "short_resp_len": config.think_budget,
            "use_pacore": False,
            "rsa_max_concurrency": plan.max_concurrency,
            "rsa_debug": False,
        }
    return blocks


# ----- who is asked


class Rollouts:
    """The server's completer, as the rollouts of one question see it: behind everybody else, and a few at a time."""

    def __init__(self, served: Served, plan: Plan) -> None:
        self._served = served
        self._priority = -(plan.body.priority or 0) - _BEHIND
        self._salt = plan.body.cache_salt or ""

    @property
    def context(self) -> int | None:
        return self._served.context

    def submit(self, request: Request) -> Handle:
        return _InTurn(self._served, replace(request, priority=self._priority, cache_salt=self._salt))

    def complete(self, requests: Sequence[Request], *, on_progress: OnProgress | None = None) -> list[list[Completion]]:
        raise NotImplementedError("a server does not wait")


class _InTurn:
    """A request that is handed over, in a thread, when there is a place for it."""

    def __init__(self, served: Served, request: Request) -> None:
        self._served = served
        self._request = request
        self._begun = asyncio.Event()
        self._handle: Handle | None = None
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> list[Completion]:
        try:
            async with self._served.rsa_slots:
                self._handle = await self._served.submit(self._request)
                self._begun.set()
                try:
                    return await self._handle.result()
                finally:
                    self._served.let_go(self._handle)
        finally:
            self._begun.set()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        await self._begun.wait()
        if self._handle is not None:
            async for delta in self._handle:
                yield delta

    async def result(self) -> list[Completion]:
        return await self._task

    def completed(self) -> list[Completion]:
        return self._task.result()

    @property
    def is_done(self) -> bool:
        return self._task.done()

    @property
    def drawn(self) -> int:
        return 0 if self._handle is None else self._handle.drawn

    @property
    def first_at(self) -> float | None:
        return None if self._handle is None else self._handle.first_at

    @property
    def failures(self) -> Mapping[int, Exception] | None:
        return getattr(self._handle, "failures", None)

    def cancel(self) -> None:
        if not self._task.done():
            self._task.cancel()
        elif not self._task.cancelled():
            self._task.exception()  # nobody else may have asked for it
