"""A request as OpenAI-compatible servers take it.

Fields that OpenAI does not have are there where they differ from their default, so that a strict server does not
refuse them, and always where the server is known to have them, because it may take other defaults from the model.
Source: the request schemas of vLLM 0.33 and SGLang 0.5.23. Used by `engine.remote`; what comes back is for
`engine.reply`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from zaya.engine.types import Request, Structure
from zaya.errors import UsageError
from zaya.text import Tokenizer, opens_thinking

OPTIONAL = ("return_token_ids", "logprobs", "stream_options", "thinking_token_budget")
"""Fields that an answer can do without: a server that refuses one is asked without it."""

KNOWN_SERVERS = ("vllm", "sglang", "zaya")
"""What servers call themselves (`owned_by` of their models) whose further fields are known."""


def check(request: Request) -> None:
    """Raises UsageError for what no server can be asked for."""
    if request.want_routes or request.params.top_logprobs:
        name = "want_routes" if request.want_routes else "top_logprobs"
        raise UsageError(f"a remote server cannot be asked for {name}", hint="use an Engine in this process")


def body(
    request: Request, model: str, *, seed: int, server: str | None, leave_out: Set[str], wants: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """Where to post, and what. `leave_out` are fields that the server refuses, `wants` those that make ids certain.

    Raises UsageError for a structure that this server cannot be asked for.
    """
    params = request.params
    tokens = "max_completion_tokens" if "max_tokens" in leave_out and request.messages is not None else "max_tokens"
    fields: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        tokens: params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "seed": seed & ((1 << 63) - 1),
    }
    path = "/completions"
    if request.messages is None:
        assert request.prompt_ids is not None
        fields["prompt"] = [int(id) for id in request.prompt_ids]
    else:
        path = "/chat/completions"
        fields["messages"] = [dict(message) for message in request.messages]
        if request.tools:
            fields["tools"] = list(request.tools)
            if server == "zaya" and params.structure is None:
                fields["strict_tools"] = False  # it would hold calls to their schemas, as no engine does unasked
        if not request.thinking:
            fields["chat_template_kwargs"] = {"enable_thinking": False}
    is_known = server in KNOWN_SERVERS
    others = {
        "presence_penalty": (params.presence_penalty, 0.0),
        "frequency_penalty": (params.frequency_penalty, 0.0),
        "logit_bias": ({str(id): max(bias, -100) for id, bias in params.logit_bias.items()}, {}),  # JSON has no -inf
        "stop": (list(params.stop), []),
        "min_tokens": (params.min_tokens, 0),
        "stop_token_ids": (list(params.stop_ids), []),
        "ignore_eos": (params.ignore_eos, False),
        "priority": (-request.priority, 0),  # theirs is first where the number is small
        "cache_salt": (request.cache_salt, ""),
    }
    fields |= {name: value for name, (value, default) in others.items() if value != default}
    # these have defaults of the model's own on servers that read its generation_config.json
    open_ended = {
        "top_k": (-1 if params.top_k is None else params.top_k, -1),
        "min_p": (params.min_p, 0.0),
        "repetition_penalty": (params.repetition_penalty, 1.0),
    }
    fields |= {name: value for name, (value, default) in open_ended.items() if is_known or value != default}
    if params.structure is not None:
        fields |= _structure(params.structure, server, is_chat=request.messages is not None)
    if params.think_budget is not None and has_budget(server, leave_out):
        fields["thinking_token_budget"] = params.think_budget
    # of raw completions the tokens are spelled, not given as bytes, so they say nothing certain
    fields |= {name: True for name in wants if name != "logprobs" or request.messages is not None}
    return path, {name: value for name, value in fields.items() if name not in leave_out}


def has_budget(server: str | None, leave_out: Set[str]) -> bool:
    """Whether the server closes a reasoning that is too long."""
    return server in ("vllm", "zaya") and "thinking_token_budget" not in leave_out


def may_think(request: Request, tokenizer: Tokenizer | None) -> bool:
    """Whether what is drawn for a request may begin with reasoning."""
    if request.prompt_ids is None:
        return request.thinking
    return tokenizer is not None and opens_thinking(tokenizer, request.prompt_ids)


def _structure(structure: Structure, server: str | None, *, is_chat: bool) -> dict[str, Any]:
    kind, value = structure.kind, structure.value
    if kind == "json":
        if not value:
            return {"response_format": {"type": "json_object"}}
        schema = {"name": "answer", "schema": value, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if kind == "tools" and is_chat:
        fields: dict[str, Any] = {"tools": list(value)}
        fields["tool_choice"] = "required" if structure.require_call else "auto"
        if structure.answer_schema is not None:
            answer = Structure(kind="json", value=structure.answer_schema)
            fields |= _structure(answer, server, is_chat=True)
        return fields if structure.parallel_calls else {**fields, "parallel_tool_calls": False}
    if kind in ("regex", "choice") and server in ("vllm", "zaya"):
        return {"structured_outputs": {kind: value if kind == "regex" else list(value)}}
    raise UsageError(
        f"this server cannot be asked for a structure of the kind {kind}" + ("" if is_chat else " behind prompt_ids"),
        hint="a JSON schema is what most servers know: Structure(kind='json', value=...)",
    )
