"""What a server says of itself and its model: models, health, version; and the tokenizer at work."""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from zaya import __version__
from zaya.serve.http import json_response, read_body
from zaya.serve.prompting import conversation_ids
from zaya.serve.protocol.base import parse_body
from zaya.serve.protocol.reading import read_json
from zaya.serve.protocol.tokens import DetokenizeBody, TokenizeBody
from zaya.serve.served import Served
from zaya.serve.telling import spelled


async def list_models(http: HttpRequest) -> Response:
    return json_response({"object": "list", "data": [_card(http.app.state.served)]})


async def one_model(http: HttpRequest) -> Response:
    served: Served = http.app.state.served
    served.check_model(http.path_params["name"])
    return json_response(_card(served))


def _card(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "zaya",
        "root": served.name,
        "parent": None,
        "max_model_len": served.context,
        "permission": [],
    }


async def health(http: HttpRequest) -> Response:
    return json_response({"status": "ok"})


async def ready(http: HttpRequest) -> Response:
    served: Served = http.app.state.served
    served.check_ready()
    alive: int | None = getattr(served.completer, "alive", None)
    return json_response({"status": "ready"} if alive is None else {"status": "ready", "replicas": alive})


async def version(http: HttpRequest) -> Response:
    return json_response({"version": __version__})


async def metrics(http: HttpRequest) -> Response:
    served: Served = http.app.state.served
    return Response(served.metrics.text(), media_type=CONTENT_TYPE_LATEST)


async def tokenizer_info(http: HttpRequest) -> Response:
    """As vLLM has it: harnesses ask for it before they leave tokens to the server."""
    tokenizer = http.app.state.served.tokenizer
    return json_response(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **tokenizer.special_names,
            "chat_template": tokenizer.chat_template,
        }
    )


async def tokenize(http: HttpRequest) -> Response:
    served: Served = http.app.state.served
    data = await read_body(http, served.limits)
    return json_response(await asyncio.to_thread(_tokenized, served, data))


def _tokenized(served: Served, data: bytes) -> dict[str, Any]:
    body = parse_body(TokenizeBody, read_json(data))
    body.check()
    served.check_model(body.model)
    if body.messages is None:
        assert body.prompt is not None
        ids = served.tokenizer.encode(body.prompt, bos=body.add_special_tokens is not False)
    else:
        ids = conversation_ids(
            served.tokenizer,
            body.messages,
            tools=body.tools,
            template=body.chat_template_kwargs,
            thinks=body.chat_template_kwargs is None or body.chat_template_kwargs.enable_thinking is not False,
            continues=bool(body.continue_final_message),
            opens=body.add_generation_prompt,
        )
    answer: dict[str, Any] = {"count": len(ids), "max_model_len": served.context, "tokens": ids}
    if body.return_token_strs:
        answer["token_strs"] = [spelled(served.tokenizer, id) for id in ids]
    return answer


async def detokenize(http: HttpRequest) -> Response:
    served: Served = http.app.state.served
    data = await read_body(http, served.limits)
    return json_response(await asyncio.to_thread(_detokenized, served, data))


def _detokenized(served: Served, data: bytes) -> dict[str, Any]:
    body = parse_body(DetokenizeBody, read_json(data))
    served.check_model(body.model)
    return {"prompt": served.tokenizer.decode(body.tokens)}
