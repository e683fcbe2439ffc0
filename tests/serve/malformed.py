"""Requests as no client should send them: right ones, changed at random in what they say and in how it is written.

The same seed makes the same requests. What comes out may happen to be right.
"""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

CHAT, RAW = "/v1/chat/completions", "/v1/completions"

_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", 1, None]}}, "required": ["a"]}
_TOOL = {"type": "function", "function": {"name": "clock", "description": "d", "parameters": _SCHEMA, "strict": True}}
_CALL = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": '{"a": 1}'}}

BODIES: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {
        "model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi", "name": "n"}],
        "max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 1, "n": 2, "stop": ["x"],
        "logit_bias": {"5": 1.5}, "logprobs": True, "top_logprobs": 2, "presence_penalty": 0.5, "priority": 1,
        "stream_options": {"include_usage": True}, "user": "u", "reasoning_effort": "low", "cache_salt": "s",
    }),
    (CHAT, {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "reasoning": "r", "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "1", "content": "3"},
        ],
        "tools": [_TOOL], "tool_choice": "auto", "parallel_tool_calls": False, "max_completion_tokens": 4,
        "chat_template_kwargs": {"enable_thinking": False},
    }),
    (CHAT, {
        "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "thinking_token_budget": 1,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA}},
    }),
    (CHAT, {"messages": [{"role": "user", "content": "?"}], "max_tokens": 3, "structured_outputs": {"json": _SCHEMA}}),
    (CHAT, {"messages": [{"role": "user", "content": "?"}], "max_tokens": 3, "guided_regex": "[a-c]{2,5}x?"}),
    (RAW, {"prompt": ["hi", "ho"], "max_tokens": 2, "echo": True, "logprobs": 1, "stop_token_ids": [7], "n": 1}),
    (RAW, {"prompt": [[5, 6], [7]], "max_tokens": 2, "ignore_eos": True, "return_token_ids": True, "min_tokens": 1}),
    (RAW, {"prompt": "hi", "max_tokens": 2, "guided_choice": ["yes", "no"], "repetition_penalty": 1.1}),
    ("/tokenize", {"prompt": "hi", "add_special_tokens": True, "return_token_strs": True}),
    ("/tokenize", {"messages": [{"role": "user", "content": "hi"}], "tools": [_TOOL], "add_generation_prompt": True}),
    ("/detokenize", {"tokens": [1, 2, 3]}),
]  # fmt: skip

_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 64, 1.5, -0.0, 2**31 - 1, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, 2**63,
    -(2**63) - 1, 10**30, 10**4000, 1e308, -1e308, 5e-324, 1e-7, "", " ", "\0", "a", "1", "NaN", "null", "a" * 300,
    "a" * 70_000, "\u2028", "\r\n\r\n", "\u202e", "\U0001f642", "\ud83d", "\udc00x", "\ufffe", "<|im_end|>",
    "</think>", "<bos>", "data: [DONE]\n\n", "{{ 7 * 7 }}", "{% for x in range(9**9) %}{% endfor %}",
    "../../etc/passwd", "(a+)+$", "[", "\\", "a{99999}", "(?=a)b", "\\p{L}+", "(((((((((a)*)*)*)*)*)*)*)*)*",
    "#/$defs/x", [], {}, [[]], [None], [{}], {"": None}, ["a", 1, None], [1] * 3000, ["x"] * 70, {"a": {"b": [{}]}},
    {"type": "object"}, {"$ref": "#"}, {"type": "array", "items": {}},
    {"minimum": 1e308, "maximum": -1e308, "type": "number"}, {"allOf": [{"$ref": "#/x"}]}, {"enum": []},
    {"pattern": "("}, {"type": "string", "minLength": 10**9},
    {"type": "array", "minItems": 10**6, "items": {"type": "integer"}}, {"not": {}}, {"role": "user", "content": "x"},
    {"role": "wizard", "content": "x"}, {"type": "image_url", "image_url": {"url": "file:///x"}},
]  # fmt: skip

_NAMES = [
    "",
    "a",
    "model",
    "messages",
    "role",
    "content",
    "n",
    "stream",
    "rsa",
    "__class__",
    "\ud800",
    "x" * 5000,
    "$ref",
]

_WRITTEN: list[bytes] = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"9" * 5000, b"0" * 50, b"01", b"+1", b"1.", b".5",
    b"0x10", b"'a'", b'"\\ud83d"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\\x41"', b'"\xff\xfe"', b'"\xed\xa0\x80"',
    b'"\xc0\xaf"', b'"\n"', b"[" * 3000, b'{"a":' * 100 + b"1" + b"}" * 100, b"[" * 63 + b"]" * 63,
    b"[" * 100_000 + b"]" * 100_000, b"/* c */ 1", b"1 1", b"tru", b"",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Malformed:
    """One request."""

    path: str
    data: bytes
    headers: dict[str, str] = field(default_factory=dict)


def malformed(seed: int, count: int) -> Iterator[Malformed]:
    """As many requests."""
    rng = random.Random(seed)
    for _ in range(count):
        path, body = rng.choice(BODIES)
        yield rng.choice(_WAYS)(rng, path, copy.deepcopy(body))


def _changed(rng: random.Random, path: str, body: dict[str, Any]) -> Malformed:
    """Other values, fewer fields, unknown fields."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        holder, key = rng.choice(list(_places(body)))
        match rng.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice(_NAMES)] = rng.choice(_VALUES)
            case 2:
                holder[key] = [copy.deepcopy(holder[key])] * rng.choice((1, 2, 200))
            case _:
                holder[key] = copy.deepcopy(rng.choice(_VALUES))
        if not body:
            break
    if rng.random() < 0.3:
        body["stream"] = True
    return Malformed(path, _written(body))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where something can be changed."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(item, dict | list) and item:
            yield from _places(item)


def _misspelled(rng: random.Random, path: str, body: dict[str, Any]) -> Malformed:
    """A value that is no JSON, or is on the edge of it."""
    holder, key = rng.choice(list(_places(body)))
    holder[key] = "HERE"
    return Malformed(path, _written(body).replace(b'"HERE"', rng.choice(_WRITTEN), 1))


def _damaged(rng: random.Random, path: str, body: dict[str, Any]) -> Malformed:
    """Bytes changed, lost, doubled, cut off."""
    data = bytearray(_written(body))
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(20)]
            case 2:
                data[at:at] = data[at : at + rng.randrange(40)]
            case 3:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case _:
                del data[at:]
        if not data:
            break
    return Malformed(path, bytes(data))


def _other(rng: random.Random, path: str, body: dict[str, Any]) -> Malformed:
    """Not an object at all."""
    return Malformed(path, rng.choice([*map(_written, _VALUES), *_WRITTEN, rng.randbytes(rng.randrange(400))]))


def _packed(rng: random.Random, path: str, body: dict[str, Any]) -> Malformed:
    """Another encoding or kind of body, and a bomb."""
    data = _written(body)
    return rng.choice([
        Malformed(path, gzip.compress(b"[" + b" " * (8 << 20) + b"]"), {"Content-Encoding": "gzip"}),
        Malformed(path, gzip.compress(data)),
        Malformed(path, data, {"Content-Encoding": rng.choice(("gzip", "br", "zstd", "deflate, gzip", "x"))}),
        Malformed(path, json.dumps(body).encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))),
        Malformed(path, data, {"Content-Type": rng.choice(("", "text/plain", "multipart/form-data"))}),
        Malformed(path, data, {"Content-Type": "application/json; charset=utf-16"}),
        Malformed(path, data, {"X-Request-Id": rng.choice(("a b", "x" * 4000, "\t", "é"))}),
        Malformed(rng.choice((path + "/", path.upper(), "/" + path, "/v1", "/%00", "/v1/models/x", "/metrics")), data),
    ])  # fmt: skip


def _huge(rng: random.Random, path: str, body: dict[str, Any]) -> Malformed:
    """Much of one thing, within the bound of a body."""
    value: Any = rng.choice([
        "ab " * 100_000, [7] * 100_000, [[]] * 50_000, [{}] * 50_000, ["x"] * 50_000,
        {str(i): i for i in range(20_000)}, [{"role": "user", "content": "x"}] * 5000,
    ])  # fmt: skip
    holder, key = rng.choice(list(_places(body)))
    holder[key] = value
    return Malformed(path, _written(body))


def _written(value: Any) -> bytes:
    return json.dumps(value).encode()


_WAYS: list[Callable[[random.Random, str, dict[str, Any]], Malformed]] = [
    *[_changed] * 10, *[_misspelled] * 4, *[_damaged] * 3, _other, *[_packed] * 2, _huge,
]  # fmt: skip
