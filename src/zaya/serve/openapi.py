"""/openapi.json: what the endpoints take, from the same records that check it."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from zaya import __version__
from zaya.serve.protocol.chat import ChatBody
from zaya.serve.protocol.completions import CompletionBody
from zaya.serve.protocol.responses import ResponsesBody
from zaya.serve.protocol.tokens import DetokenizeBody, TokenizeBody

BODIES: dict[str, tuple[type[BaseModel], str]] = {
    "/v1/chat/completions": (ChatBody, "The assistant's next turn in a conversation."),
    "/v1/responses": (ResponsesBody, "The assistant's next turn, asked for and answered in items."),
    "/v1/completions": (CompletionBody, "Text behind a text, or behind ids."),
    "/tokenize": (TokenizeBody, "The ids of a text or of a conversation."),
    "/detokenize": (DetokenizeBody, "The text of ids."),
}
"""What is posted where."""

_GETS = {
    "/v1/models": "The models on offer: one.",
    "/v1/models/{name}": "One model.",
    "/health": "Whether the process lives.",
    "/ready": "Whether requests are taken; 503 while the server is stopping.",
    "/version": "The version of zaya.",
    "/tokenizer_info": "The special tokens and the chat template.",
    "/metrics": "What Prometheus reads.",
    "/openapi.json": "This document.",
}

_ERRORS = {
    "400": "The request is wrong; the error names the field.",
    "401": "The server asks for a key.",
    "404": "There is no such model.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is not JSON by its headers.",
    "429": "Too many requests are waiting, or too many came with this key; Retry-After says when to come again.",
    "500": "The server made a mistake.",
    "502": "A completion failed on the way.",
    "503": "The server is stopping.",
    "504": "There was no answer before the deadline.",
}


@cache
def openapi() -> dict[str, Any]:
    """The document."""
    refs, definitions = models_json_schema(
        [(body, "validation") for body, _ in BODIES.values()], ref_template="#/components/schemas/{model}"
    )
    schemas = {**definitions.get("$defs", {}), "Error": _error()}
    paths: dict[str, Any] = {path: {"get": _operation(summary)} for path, summary in _GETS.items()}
    paths["/metrics"]["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    paths["/v1/models/{name}"]["get"]["parameters"] = [name]
    for path, (body, summary) in BODIES.items():
        content = {"application/json": {"schema": refs[body, "validation"]}}
        paths[path] = {"post": {**_operation(summary), "requestBody": {"required": True, "content": content}}}
        if path.startswith("/v1/"):
            answer = paths[path]["post"]["responses"]["200"]
            event = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
            answer["content"]["text/event-stream"] = {"schema": event}
    info = {"title": "zaya", "version": __version__, "description": "ZAYA1 behind OpenAI's interface."}
    key = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": info,
        "security": [{}, {"key": []}],  # as the server was started
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": key},
    }


def _operation(summary: str) -> dict[str, Any]:
    fine = {"description": "What was asked for.", "content": {"application/json": {"schema": {"type": "object"}}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    wrong = {status: {"description": text, "content": error} for status, text in _ERRORS.items()}
    return {"summary": summary, "responses": {"200": fine, **wrong}}


def _error() -> dict[str, Any]:
    text, maybe = {"type": "string"}, {"type": ["string", "null"]}
    fields = {"message": text, "type": text, "param": maybe, "code": maybe}
    inner = {"type": "object", "properties": fields, "required": list(fields)}
    return {"type": "object", "properties": {"error": inner}, "required": ["error"]}
