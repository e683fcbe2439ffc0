"""/v1/chat/completions: a conversation in, the assistant's next turn out.

body ─► ChatBody ─► ids, rendered once ─► a Request ─► Turn ─► one answer, or a chunk for every delta
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from zaya.engine.types import Completion, Delta, Request
from zaya.serve.http import EventStream, json_response, read_body, unless_gone
from zaya.serve.log import note
from zaya.serve.planning import Plan, planned
from zaya.serve.prompting import conversation_ids
from zaya.serve.protocol.base import parse_body
from zaya.serve.protocol.chat import ChatBody
from zaya.serve.protocol.reading import read_json
from zaya.serve.rsa import think_together
from zaya.serve.served import Served, Work
from zaya.serve.telling import chat_head, chat_logprobs, stop_reason, usage, usage_of
from zaya.serve.tools import Toolbox
from zaya.serve.turn import Turn, message


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat request made ready."""

    body: ChatBody
    request: Request
    toolbox: Toolbox


def prepare(served: Served, data: bytes) -> Chat | Plan:
    """From the bytes of a body. Raises ApiError, UsageError for what cannot be answered."""
    body = parse_body(ChatBody, read_json(data))
    if body.wants_rsa:
        served.check_model(body.model)
        return planned(served, body)
    return chat_of(served, body)


def chat_of(served: Served, body: ChatBody) -> Chat:
    """A chat that is answered by completions. Raises ApiError, UsageError."""
    served.check_model(body.model)
    toolbox = Toolbox.of(body, served.tokenizer, body.structure())
    ids = conversation_ids(
        served.tokenizer,
        body.messages,
        tools=toolbox.offered,
        template=body.chat_template_kwargs,
        thinks=body.thinks,
        continues=bool(body.continue_final_message),
        opens=body.add_generation_prompt,
    )
    room = served.room(len(ids), body.token_limit)
    params = body.params(
        max_tokens=room,
        top_logprobs=body.num_top_logprobs,
        think_budget=body.think_budget,
        structure=toolbox.structure,
        bias=toolbox.bias,
    )
    request = Request(
        prompt_ids=ids,
        params=params,
        n=body.num_completions,
        seed=body.drawn_seed(ignore=served.ignore_client_seed),
        priority=-(body.priority or 0),
        cache_salt=body.cache_salt or "",
    )
    return Chat(body, request, toolbox)


async def chat_completions(http: HttpRequest) -> Response:
    served: Served = http.app.state.served
    data = await read_body(http, served.limits)
    chat = await asyncio.to_thread(prepare, served, data)  # it renders, and a long prompt takes its time
    if isinstance(chat, Plan):
        return await think_together(http, chat)
    async with AsyncExitStack() as stack:
        work = await stack.enter_async_context(served.start([chat.request], completions=chat.request.n))
        if chat.body.stream:
            events = _chunks(served, chat, work)
            return EventStream(events, stack=stack.pop_all(), within=work.deadline(), limits=served.limits)
        async with work.deadline():
            [completions] = await unless_gone(http.receive, work.results())
        answer = _answer(served, chat, completions)
        note(answer["usage"])
        return json_response(answer)


def _answer(served: Served, chat: Chat, completions: list[Completion]) -> dict[str, Any]:
    choices = []
    for index, completion in enumerate(completions):
        turn = Turn(chat.toolbox.offered, with_reasoning=chat.body.tells_reasoning)
        pieces = [turn.feed(completion.reasoning, completion.text), turn.finish()]
        choice: dict[str, Any] = {
            "index": index,
            "message": message(pieces),
            "logprobs": None,
            "finish_reason": turn.finish_reason(completion.finish_reason),
            "stop_reason": stop_reason(completion, served.turn_ends),
        }
        if chat.body.logprobs:
            tops = (completion.top_ids, completion.top_logprobs)
            choice["logprobs"] = chat_logprobs(served.tokenizer, completion.ids, completion.logprobs, tops)
        if chat.body.return_token_ids:
            choice["token_ids"] = list(completion.ids)
        choices.append(choice)
    answer = {**chat_head(served.name, "chat.completion"), "choices": choices, "usage": usage_of([completions])}
    if chat.body.return_token_ids:
        answer["prompt_token_ids"] = list(completions[0].prompt_ids)
    return answer


async def _chunks(served: Served, chat: Chat, work: Work) -> AsyncGenerator[dict[str, Any], None]:
    body, head = chat.body, chat_head(served.name, "chat.completion.chunk")
    turns = [Turn(chat.toolbox.offered, with_reasoning=body.tells_reasoning) for _ in range(body.num_completions)]
    prompt = chat.request.prompt_ids or ()
    generated = 0

    def chunk(choices: list[dict[str, Any]]) -> dict[str, Any]:
        if body.wants_usage_always:
            return {**head, "choices": choices, "usage": usage(len(prompt), generated, 0, 0)}
        return {**head, "choices": choices, **({"usage": None} if body.wants_usage else {})}

    for index in range(len(turns)):
        opening = {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None}
        first = chunk([{**opening, "finish_reason": None}])
        yield {**first, "prompt_token_ids": list(prompt)} if body.return_token_ids and index == 0 else first
    async with aclosing(work.deltas()) as deltas:
        async for _, delta in deltas:
            turn = turns[delta.index]
            generated += len(delta.ids)
            piece = turn.feed(delta.reasoning, delta.text)
            if piece or (delta.ids and (body.return_token_ids or body.logprobs)):
                yield chunk([_choice(served, body, delta, piece)])
            if delta.finish_reason is not None:
                if last := turn.finish():
                    yield chunk([{"index": delta.index, "delta": last, "logprobs": None, "finish_reason": None}])
                end = {"index": delta.index, "delta": {}, "logprobs": None}
                reason = turn.finish_reason(delta.finish_reason)
                yield chunk([{**end, "finish_reason": reason, "stop_reason": stop_reason(delta, served.turn_ends)}])
    total = usage_of(await work.results())
    note(total)
    if body.wants_usage:
        yield {**head, "choices": [], "usage": total}


def _choice(served: Served, body: ChatBody, delta: Delta, piece: dict[str, Any]) -> dict[str, Any]:
    logprobs = None
    if body.logprobs:
        tops = (delta.top_ids, delta.top_logprobs)
        logprobs = chat_logprobs(served.tokenizer, delta.ids, delta.logprobs, tops)
    choice = {"index": delta.index, "delta": piece, "logprobs": logprobs, "finish_reason": None}
    return {**choice, "token_ids": list(delta.ids)} if body.return_token_ids else choice
