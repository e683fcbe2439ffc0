"""/v1/completions: text behind a text, or behind ids, as they are. With `echo`, how likely the prompt itself is.

    body ─► CompletionBody ─► a Request for each prompt ─► RawText ─► one answer, or a chunk for every delta

Reasoning is text here as any other. Where a prompt leaves it open, the text is the reasoning, `</think>`, the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from zaya import __version__
from zaya.core.rng import derive_seed
from zaya.engine.reply import CLOSING
from zaya.engine.types import Completion, Delta, FinishReason, Request, Scores
from zaya.serve.auth import charge
from zaya.serve.errors import ApiError
from zaya.serve.http import EventStream, json_response, read_body, unless_gone
from zaya.serve.log import note
from zaya.serve.protocol.base import parse_body
from zaya.serve.protocol.completions import CompletionBody
from zaya.serve.protocol.reading import read_json
from zaya.serve.served import Served, Work
from zaya.serve.telling import Tops, completion_logprobs, new_id, spelled, stop_reason, usage, usage_of
from zaya.text import opens_thinking

_FINISHED = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length", FinishReason.CANCELLED: "abort"}


class Scorer(Protocol):
    """A completer that can say how likely a given text is."""

    def score(self, ids: Sequence[int], top_logprobs: int = 0) -> Scores: ...


@dataclass(frozen=True, slots=True)
class Raw:
    """A request made ready."""

    body: CompletionBody
    prompts: list[list[int]]
    texts: list[str]
    """Of the prompts, for `echo`."""
    requests: list[Request]
    """One for each prompt; none where nothing is to be drawn."""

    @property
    def count(self) -> int:
        """Log-probabilities at each place."""
        return self.body.logprobs or 0


def prepare(served: Served, data: bytes) -> Raw:
    """From the bytes of a body. Raises ApiError, UsageError for what cannot be answered."""
    body = parse_body(CompletionBody, read_json(data))
    served.check_model(body.model)
    wanted = body.token_limit
    if wanted == 0 and not body.echo:
        raise ApiError(400, "max_tokens 0 draws nothing, and is for echo", code="invalid_value", param="max_tokens")
    given = body.prompts
    served.gate.check(len(given) * body.num_completions)  # before work is spent on a million of them
    tokenizer, prompts, texts = served.tokenizer, [], []
    for prompt in given:
        is_text = isinstance(prompt, str)
        ids = tokenizer.encode(prompt, bos=body.add_special_tokens is not False) if is_text else list(prompt)
        served.room(len(ids), wanted)
        prompts.append(ids)
        texts.append(prompt if is_text else tokenizer.decode(ids))
    requests = []
    if wanted:
        params = body.params(
            max_tokens=wanted,
            top_logprobs=body.logprobs or 0,
            think_budget=body.thinking_token_budget,
            structure=body.structure(),
        )
        # each prompt draws from a stream of its own, and one alone from the one it was given
        seed = body.drawn_seed(ignore=served.ignore_client_seed)
        seeds = [seed if i == 0 else derive_seed(seed, "prompt", i) for i in range(len(prompts))]
        requests = [
            Request(
                prompt_ids=ids,
                params=params,
                n=body.num_completions,
                seed=own,
                priority=-(body.priority or 0),
                cache_salt=body.cache_salt or "",
            )
            for ids, own in zip(prompts, seeds, strict=True)
        ]
    return Raw(body, prompts, texts, requests)


async def completions(http: HttpRequest) -> Response:
    served: Served = http.app.state.served
    data = await read_body(http, served.limits)
    raw = await asyncio.to_thread(prepare, served, data)
    async with AsyncExitStack() as stack:
        work = await stack.enter_async_context(served.start(raw.requests, completions=_expected(raw)))
        if raw.body.stream:
            events = _chunks(served, raw, work)
            return EventStream(events, stack=stack.pop_all(), within=work.deadline(), limits=served.limits)
        async with work.deadline():
            answer = await unless_gone(http.receive, _answer(served, raw, work))
        note(answer["usage"])
        return json_response(answer)


def _expected(raw: Raw) -> int:
    return len(raw.prompts) * raw.body.num_completions


class RawText:
    """The text of one completion, put together of its reasoning and its answer."""

    def __init__(self, served: Served, prompt_ids: Sequence[int]) -> None:
        self._close = served.tokenizer.tags.think_close
        self._is_closed = not opens_thinking(served.tokenizer, prompt_ids)
        """A closing tag closes nothing there, and is no text."""

    def feed(self, ids: Sequence[int], reasoning: str, text: str) -> str:
        """More of it. `ids` are those of this piece."""
        if not self._is_closed and self._close in ids:
            self._is_closed = True
            return reasoning + CLOSING + text
        return reasoning + text


def _head(served: Served) -> dict[str, Any]:
    return {
        "id": new_id("cmpl-"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": f"zaya-{__version__}",
    }


async def _answer(served: Served, raw: Raw, work: Work) -> dict[str, Any]:
    body = raw.body
    echoes = [await _echo(served, raw, number) for number in range(len(raw.prompts))]
    results = await work.results()
    choices = []
    for number, echo in enumerate(echoes):
        for sibling in range(body.num_completions):
            index = number * body.num_completions + sibling
            if not results:
                choices.append(_choice(raw, number, index, echo.text, echo.logprobs, (), "length"))
                continue
            completion = results[number][sibling]
            text = RawText(served, raw.prompts[number]).feed(completion.ids, completion.reasoning, completion.text)
            logprobs = None
            if body.logprobs is not None:
                tops = (completion.top_ids, completion.top_logprobs)
                own = _logprobs(served, raw, completion.ids, completion.logprobs, tops, echo.length)
                logprobs = _joined(echo.logprobs, own)
            reason, ids = _FINISHED[completion.finish_reason], completion.ids
            choice = _choice(raw, number, index, echo.text + text, logprobs, ids, reason)
            choices.append({**choice, "stop_reason": stop_reason(completion, served.turn_ends)})
    return {**_head(served), "choices": choices, "usage": _usage(raw, results)}


def _choice(
    raw: Raw, number: int, index: int, text: str, logprobs: Any, ids: Sequence[int], reason: str | None
) -> dict[str, Any]:
    choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
    if raw.body.return_token_ids:
        choice |= {"token_ids": list(ids), "prompt_token_ids": raw.prompts[number]}
    return choice


def _usage(raw: Raw, results: Sequence[Sequence[Completion]]) -> dict[str, Any]:
    return usage_of(results) if results else usage(sum(map(len, raw.prompts)), 0, 0, 0)


async def _chunks(served: Served, raw: Raw, work: Work) -> AsyncGenerator[dict[str, Any], None]:
    body, head = raw.body, _head(served)
    siblings = body.num_completions
    texts = [RawText(served, prompt) for prompt in raw.prompts for _ in range(siblings)]
    lengths = [0] * len(texts)
    generated, prompt_tokens = 0, sum(map(len, raw.prompts))

    def chunk(choice: dict[str, Any]) -> dict[str, Any]:
        told = {"usage": usage(prompt_tokens, generated, 0, 0)} if body.wants_usage_always else {}
        return {**head, "choices": [choice], **({"usage": None} if body.wants_usage else {}), **told}

    for index in range(len(texts)):
        number = index // siblings
        if body.echo:
            echo = await _echo(served, raw, number)
            lengths[index] = echo.length
            reason = None if raw.requests else "length"
            yield chunk(_choice(raw, number, index, echo.text, echo.logprobs, (), reason))
        elif body.return_token_ids:
            yield chunk(_choice(raw, number, index, "", None, (), None))
    async with aclosing(work.deltas()) as deltas:
        async for number, delta in deltas:
            index = number * siblings + delta.index
            generated += len(delta.ids)
            text = texts[index].feed(delta.ids, delta.reasoning, delta.text)
            if text or delta.finish_reason is not None or (body.return_token_ids or body.logprobs is not None):
                yield chunk(_piece(served, raw, index, delta, text, lengths))
    results = await work.results()
    total = _usage(raw, results)
    note(total)
    if body.wants_usage:
        yield {**head, "choices": [], "usage": total}


def _piece(served: Served, raw: Raw, index: int, delta: Delta, text: str, lengths: list[int]) -> dict[str, Any]:
    logprobs = None
    if raw.body.logprobs is not None:
        tops = (delta.top_ids, delta.top_logprobs)
        logprobs = _logprobs(served, raw, delta.ids, delta.logprobs, tops, lengths[index])
        lengths[index] += sum(map(len, logprobs["tokens"]))
    reason = None if delta.finish_reason is None else _FINISHED[delta.finish_reason]
    choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
    if raw.body.return_token_ids:
        choice["token_ids"] = list(delta.ids)
    return choice if reason is None else {**choice, "stop_reason": stop_reason(delta, served.turn_ends)}


# ----- echo


@dataclass(frozen=True, slots=True)
class _Echo:
    """A prompt, given back."""

    text: str = ""
    logprobs: dict[str, Any] | None = None
    length: int = 0
    """Where the text behind it begins, as its tokens are spelled."""


async def _echo(served: Served, raw: Raw, number: int) -> _Echo:
    if not raw.body.echo:
        return _Echo()
    ids, text = raw.prompts[number], raw.texts[number]
    length = sum(len(spelled(served.tokenizer, id)) for id in ids)
    if raw.body.logprobs is None:
        return _Echo(text, None, length)
    completer: Any = served.completer
    if not hasattr(completer, "score"):
        raise ApiError(400, "log-probabilities of a prompt are not to be had from this model", param="echo")
    scorer: Scorer = completer
    charge(len(ids))
    scores = await asyncio.to_thread(scorer.score, ids, raw.count)
    numbers = [None, *scores.logprobs.tolist()]
    tops: Tops = (scores.top_ids, scores.top_logprobs) if raw.count else (None, None)
    logprobs = completion_logprobs(served.tokenizer, ids, numbers, tops, count=raw.count, offset=0, first_top=1)
    return _Echo(text, logprobs, length)


def _logprobs(served: Served, raw: Raw, ids: Sequence[int], numbers: Any, tops: Tops, offset: int) -> dict[str, Any]:
    return completion_logprobs(served.tokenizer, ids, numbers, tops, count=raw.count, offset=offset)


def _joined(first: dict[str, Any] | None, second: dict[str, Any]) -> dict[str, Any]:
    return second if first is None else {name: first[name] + second[name] for name in second}
