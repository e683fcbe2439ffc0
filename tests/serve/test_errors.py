"""What is refused, and how: with a status, OpenAI's error object, and the field at fault.

1. A field that nobody knows is named, with the nearest one; so it is inside of objects and messages.
2. Values of the wrong type or size are refused with their path, and never repeated in the error.
3. What contradicts itself, or cannot be answered, is a 400 with a reason, before anything is drawn.
4. Bytes that are no JSON, half characters, deep nesting, compressed or foreign bodies are refused before they are used.
5. What goes wrong later is an error that the client can read, in a stream as well; a mistake of ours says nothing of
   the inside, and is in the log without what was said.
6. Every endpoint answers in this form, unknown paths and methods included; the document tells what is posted where.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.serve.fakes import Running, Typist, running
from zaya.engine.types import Request
from zaya.errors import CompletionError, UsageError
from zaya.serve.errors import as_api_error
from zaya.serve.protocol.base import NoOps

CHAT, RAW = "/v1/chat/completions", "/v1/completions"
ASK = [{"role": "user", "content": "?"}]
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
LOOSE = {"type": "function", "function": {"name": "l", "parameters": {"type": "object", "minProperties": 1}}}
SECRET = "SECRET-" * 20


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Typist(lambda *_: "a\n</think>\n\nb", context=200)) as found:
        yield found


def chat(**more: Any) -> tuple[str, Any]:
    return CHAT, {"messages": ASK, **more}


def raw(**more: Any) -> tuple[str, Any]:
    return RAW, {"prompt": "hi", **more}


UNKNOWN = [
    (chat(temprature=1), "temprature", "did you mean temperature?"),
    (chat(best_of=2), "best_of", "unknown field: best_of"),
    (chat(functions=[]), "functions", "unknown field: functions; send tools"),
    (chat(input="?"), "input", "this is /v1/chat/completions"),
    (("/v1/responses", {"input": "?", "max_tokens": 5}), "max_tokens", "here it is max_output_tokens"),
    (("/v1/responses", {"messages": ASK}), "messages", "this is /v1/responses"),
    (raw(messages=ASK), "messages", "unknown field: messages"),
    (raw(suffix="x"), "suffix", "unknown field: suffix"),
    (chat(stream_options={"usage": True}), "stream_options.usage", "unknown field"),
    (chat(response_format={"type": "text", "x": 1}), "response_format.x", "unknown field"),
    (chat(structured_outputs={"grammar": "x"}), "structured_outputs.grammar", "unknown field"),
    (chat(chat_template_kwargs={"thinking": True}), "chat_template_kwargs.thinking", "unknown field"),
    ((CHAT, {"messages": [{"role": "user", "content": "?", "colour": 1}]}), "messages[0]", "colour"),
    (("/tokenize", {"prompt": "x", "promt": "y"}), "promt", "did you mean prompt?"),
    (("/detokenize", {"tokens": [], "text": 1}), "text", "unknown field"),
]


@pytest.mark.parametrize(("asked", "param", "words"), UNKNOWN)
def test_unknown_fields(server: Running, asked: tuple[str, Any], param: str, words: str) -> None:
    status, answer, _ = server.send(*asked)
    error = answer["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert words in error["message"]


WRONG = [
    ((CHAT, {}), "messages"),
    ((CHAT, {"messages": []}), "messages"),
    ((CHAT, {"messages": "hi"}), "messages"),
    ((CHAT, {"messages": ["hi"]}), "messages[0]"),
    (chat(temperature="1"), "temperature"),
    (chat(temperature=-1), "temperature"),
    (chat(temperature=True), "temperature"),
    (chat(top_p=0), "top_p"),
    (chat(top_p=1.5), "top_p"),
    (chat(min_p=2), "min_p"),
    (chat(top_k=1.5), "top_k"),
    (chat(top_k=10**30), "top_k"),
    (chat(repetition_penalty=0), "repetition_penalty"),
    (chat(n=0), "n"),
    (chat(n="2"), "n"),
    (chat(max_tokens=0), "max_tokens"),
    (chat(max_tokens=-5), "max_tokens"),
    (chat(max_tokens=10**40), "max_tokens"),
    (chat(seed=1 << 63), "seed"),
    (chat(seed=1.5), "seed"),
    (chat(stop=""), "stop"),
    (chat(stop=["a"] * 65), "stop"),
    (chat(model="m" * 1000), "model"),
    (chat(stop=["a", 1]), "stop[1]"),
    (chat(stop={"a": 1}), "stop"),
    (chat(stop_token_ids=[-1]), "stop_token_ids[0]"),
    (chat(logit_bias={"x": 1}), "logit_bias.x"),
    (chat(logit_bias={"1": "x"}), "logit_bias.1"),
    (chat(logprobs=1), "logprobs"),
    (chat(top_logprobs=3), "top_logprobs"),
    (chat(top_logprobs=21, logprobs=True), "top_logprobs"),
    (chat(reasoning_effort="extreme"), "reasoning_effort"),
    (chat(tool_choice="sometimes", tools=[TOOL]), "tool_choice"),
    (chat(response_format={"type": "xml"}), "response_format.type"),
    (chat(response_format={"type": "json_schema"}), "response_format.json_schema.schema"),
    (chat(response_format={"type": "json_schema", "json_schema": {"name": "x"}}), "response_format.json_schema.schema"),
    (chat(stream="yes"), "stream"),
    (chat(skip_special_tokens=False), "skip_special_tokens"),
    (chat(skip_special_tokens=1), "skip_special_tokens"),
    (raw(include_stop_str_in_output=0), "include_stop_str_in_output"),
    (chat(thinking_token_budget=-1), "thinking_token_budget"),
    ((RAW, {}), "prompt"),
    ((RAW, {"prompt": []}), "prompt"),
    ((RAW, {"prompt": None}), "prompt"),
    ((RAW, {"prompt": [1, "a"]}), "prompt[1]"),
    ((RAW, {"prompt": [[1], [-2]]}), "prompt[1][0]"),
    ((RAW, {"prompt": [10**12]}), "prompt[0]"),
    (raw(max_tokens=0), "max_tokens"),
    (raw(logprobs=True), "logprobs"),
    (("/tokenize", {}), "prompt"),
    (("/tokenize", {"prompt": "x", "messages": ASK}), "prompt"),
    (("/detokenize", {"tokens": "x"}), "tokens"),
]


@pytest.mark.parametrize(("asked", "param"), WRONG)
def test_wrong_values(server: Running, asked: tuple[str, Any], param: str) -> None:
    status, answer, _ = server.send(*asked)
    error = answer["error"]
    assert (status, error["type"]) == (400, "invalid_request_error"), answer
    assert error["param"] is not None
    assert error["param"] == param or (param.startswith("prompt") and error["param"].startswith("prompt"))
    assert param.split("[")[0].split(".")[-1] in error["message"]


REFUSED = [
    (chat(max_tokens=5, max_completion_tokens=6), 400, "different things"),
    (chat(guided_json={}, guided_regex="a"), 400, "guided_json, guided_regex"),
    (chat(tools=[TOOL], guided_choice=["a"]), 400, "set tool_choice to 'none'"),
    (chat(tools=[TOOL], response_format={"type": "json_object"}, strict_tools=False), 400, "leave one out"),
    (chat(tool_choice="required"), 400, "there are no tools"),
    (chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "clok"}}), 400, "did you mean clock?"),
    (chat(tools=[{"type": "function"}]), 400, "tools[0] has no function name"),
    (chat(tools=[{"type": "custom", "custom": {"name": "x"}}]), 400, "tools[0] is not a function: 'custom'"),
    (chat(reasoning_effort="high", reasoning={"effort": "low"}), 400, "reasoning_effort, reasoning.effort"),
    (chat(thinking={"type": "disabled"}, reasoning_effort="low"), 400, "reasoning_effort, thinking"),
    (chat(enable_thinking=False, chat_template_kwargs={"enable_thinking": True}), 400, "contradict"),
    (chat(thinking_token_budget=5, reasoning={"max_tokens": 6}), 400, "say different things"),
    (chat(reasoning_effort="none", chat_template_kwargs={"enable_thinking": True}), 400, "contradict"),
    (chat(continue_final_message=True), 400, "continue_final_message"),
    (chat(min_tokens=9, max_tokens=5), 400, "min_tokens"),
    (chat(model="n"), 404, "no model is called 'n' here"),
    (raw(model="mm"), 404, "did you mean m?"),
    (chat(max_tokens=200), 400, "200 new ones are wanted"),
    ((CHAT, {"messages": [{"role": "user", "content": "x" * 300}]}), 400, "the model's context holds 200"),
    ((RAW, {"prompt": [7] * 200}), 400, "the prompt has 200 tokens, and the model's context holds 200"),
    ((RAW, {"prompt": "", "add_special_tokens": False}), 400, "the prompt is empty"),
    ((RAW, {"prompt": [[]]}), 400, "the prompt is empty"),
    (chat(n=129), 400, "128 completions at most"),
    ((CHAT, {"messages": [{"role": "user"}]}), 400, "messages[0] (user) has no content"),
    ((CHAT, {"messages": [{"content": "x"}]}), 400, "messages[0].role"),
    ((CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}), 400, "text only"),
    ((CHAT, {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "x"}}]}]}), 400,
     "arguments is not JSON"),
    ((CHAT, [1]), 400, "must be a JSON object"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "status", "words"), REFUSED)
def test_refused(server: Running, asked: tuple[str, Any], status: int, words: str) -> None:
    found, answer, _ = server.send(*asked)
    assert (found, set(answer["error"])) == (status, {"message", "type", "param", "code"})
    assert words in answer["error"]["message"]


@pytest.mark.parametrize(
    ("message", "expected", "param"),
    [
        ("stop_ids has ids that are not from 0 to 9: 10", "stop_token_ids has ids", "stop_token_ids"),
        ("logit_bias has ids that are not", "logit_bias has ids", "logit_bias"),
        ("think_budget needs a tokenizer", "thinking_token_budget needs", None),
        ("messages[3].tool_calls[0].arguments is not JSON", "messages[3]", "messages[3].tool_calls[0].arguments"),
        ("messages[0] (user) has no content", "messages[0]", "messages[0]"),
        ("the schema cannot be held", "the schema", None),
    ],
)
def test_words_of_the_engine(message: str, expected: str, param: str | None) -> None:
    error = as_api_error(UsageError(message))
    assert (error.status, error.param, error.message.startswith(expected)) == (400, param, True)


def test_values_are_not_repeated(server: Running) -> None:
    for body in ({"messages": SECRET}, {"messages": ASK, "stop": {"a": SECRET}}, {"messages": ASK, "n": SECRET}):
        assert SECRET not in json.dumps(server.send(CHAT, body)[1])


BYTES = [
    (b"", 400, "not_json"),
    (b"{", 400, "not_json"),
    (b'{"a": NaN}', 400, "not_json"),
    (b'{"a": Infinity}', 400, "not_json"),
    (b'{"a": [-1e999]}', 400, "not_json"),
    (b'{"a": ' + b"9" * 5000 + b"}", 400, "not_json"),
    (b'{"a": "\xff"}', 400, "not_json"),
    ('{"a": 1}'.encode("utf-16"), 400, "not_json"),
    (b"\xef\xbb\xbf{}", 400, "not_json"),
    (b'{"a": "\\ud800"}', 400, "not_unicode"),
    (b'{"\\udfff": 1}', 400, "not_unicode"),
    (b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', 400, "not_unicode"),
    (b"[" * 100_000, 400, "too_deep"),
    (b'{"a":' * 65 + b"1" + b"}" * 65, 400, "too_deep"),
    (json.dumps({f"x{i}": 1 for i in range(10_001)}).encode(), 400, "too_many_fields"),
    (b" " * 5000, 413, "body_too_large"),
]


@pytest.mark.parametrize(("data", "status", "code"), BYTES, ids=range(len(BYTES)))
def test_bytes(data: bytes, status: int, code: str) -> None:
    with running(Typist(lambda *_: ""), max_body_bytes=4999 if status == 413 else 1 << 20) as server:
        for path in (CHAT, RAW, "/tokenize", "/detokenize"):
            found, answer, _ = server.send(path, data)
            assert (found, answer["error"]["code"]) == (status, code)


def test_a_whole_character_may_be_escaped(server: Running) -> None:
    assert server.send(CHAT, b'{"messages": [{"role": "user", "content": "\\ud83d\\ude42"}]}')[0] == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content-Type": "text/plain"}, "unsupported_media_type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "unsupported_media_type"),
        ({"Content-Encoding": "gzip"}, "unsupported_encoding"),
    ],
)
def test_other_bodies(server: Running, headers: dict[str, str], code: str) -> None:
    status, answer, _ = server.send(CHAT, {"messages": ASK}, headers=headers)
    assert (status, answer["error"]["code"]) == (415, code)


def test_habits_change_nothing(server: Running) -> None:
    for value in (None, True, "x", {"a": [1]}, 5):
        assert server.send(CHAT, {"messages": ASK, **dict.fromkeys(NoOps.model_fields, value)})[0] == 200


# ----- 5


class Broken(Typist):
    """Fails in the way of a test: at once, or behind the first token."""

    def __init__(self, error: Exception, *, at_once: bool) -> None:
        super().__init__(lambda *_: "x", together=1)
        self.error = error
        self.at_once = at_once

    def submit(self, request: Request) -> Any:
        if self.at_once:
            raise self.error
        return super().submit(request)

    def _one(self, request: Request, index: int, handle: Any, stop: Any) -> None:
        raise self.error


FAILURES = [
    (UsageError("the structure leads nowhere"), 400, "the structure leads nowhere"),
    (CompletionError("it broke off", kind="broken_off"), 502, "it broke off"),
    (RuntimeError(f"prompt was {SECRET}"), 500, "the server made a mistake"),
]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("error", "status", "words"), FAILURES)
def test_failures(error: Exception, status: int, words: str, at_once: bool) -> None:
    with running(Broken(error, at_once=at_once)) as server:
        found, answer, _ = server.send(CHAT, {"messages": ASK})
        assert (found, words in answer["error"]["message"]) == (status, True)
        with server.client() as client, pytest.raises(openai.APIError, match=words):
            list(client.chat.completions.create(model="m", messages=ASK, stream=True))
        if not at_once:
            events = server.events(CHAT, {"messages": ASK})
            assert words in events[-1]["error"]["message"]
            assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert SECRET not in json.dumps([answer, server.log])
    if status == 500:
        assert all(line["error"] == "RuntimeError" and line["status"] == 500 for line in server.log)
        assert any(("submit" if at_once else "_one") in place for place in server.log[0]["places"]), server.log


def test_a_completion_that_never_comes() -> None:
    with running(Typist(lambda prompt, seed, index: None if index else "x")) as server:
        status, answer, _ = server.send(CHAT, {"messages": ASK, "n": 2})
        last = server.events(CHAT, {"messages": ASK, "n": 2})[-1]
    assert (status, answer["error"]["type"]) == (502, "server_error")
    assert last["error"] == answer["error"]


# ----- 6


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/health/", 404),
        ("GET", CHAT, 405),
        ("POST", "/health", 405),
        ("GET", "/v1/models/other", 404),
    ],
)
def test_paths(server: Running, method: str, path: str, status: int) -> None:
    found, answer, headers = server.send(path, method=method)
    assert (found, set(answer["error"])) == (status, {"message", "type", "param", "code"})
    assert headers["x-request-id"].startswith("req-")


def test_about(server: Running) -> None:
    with server.client() as client:
        assert [model.id for model in client.models.list()] == ["m"]
        assert client.models.retrieve("m").owned_by == "zaya"
    card = server.send("/v1/models")[1]["data"][0]
    assert card["max_model_len"] == 200
    for path in ("/health", "/ready", "/version"):
        assert server.send(path)[0] == 200
    _, answer, _ = server.send("/tokenize", {"prompt": "ab 日", "return_token_strs": True})
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert (answer["token_strs"][0], answer["max_model_len"]) == ("<bos>", 200)
    assert server.send("/detokenize", {"tokens": answer["tokens"][1:]})[1] == {"prompt": "ab 日"}
    _, info, _ = server.send("/tokenizer_info")
    assert (info["bos_token"], info["eos_token"]) == ("<bos>", "<|im_end|>")
    assert {"chat_template", "tokenizer_class"} <= info.keys()
    _, chat, _ = server.send("/tokenize", {"messages": ASK})
    asked = server.send(CHAT, {"messages": ASK})[1]
    assert chat["count"] == asked["usage"]["prompt_tokens"]


def test_the_document(server: Running) -> None:
    _, document, _ = server.send("/openapi.json")
    bodies = {path: each["post"]["requestBody"] for path, each in document["paths"].items() if "post" in each}
    assert set(bodies) == {CHAT, RAW, "/v1/responses", "/tokenize", "/detokenize"}
    schema = document["components"]["schemas"]["ChatBody"]
    assert schema["required"] == ["messages"]
    assert schema["additionalProperties"] is False
    assert {"temperature", "tools", "thinking_token_budget", "store"} <= schema["properties"].keys()
    named = json.dumps(document).split('"$ref": "')[1:]
    for ref in {each.partition('"')[0] for each in named}:
        assert ref.rpartition("/")[2] in document["components"]["schemas"]
