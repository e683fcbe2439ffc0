"""Chats over HTTP, as OpenAI's own client sees them.

1. A streamed answer and a whole one are the same: message, reasons, usage; however many tokens come at a time.
2. Reasoning is apart, under both names, and can be left out.
3. Calls of tools come as OpenAI has them, with arguments by the tools' schemas; a call that was cut has arguments that
   are no JSON. A conversation with calls and results is the prompt that `zaya.text.render` makes of it.
4. `tool_choice` and the formats become structures; what cannot be held leaves "auto" free, and is refused elsewhere.
5. Log-probabilities have an entry for each token drawn, also in a stream.
6. Settings reach the engine as they were meant; what was not said has OpenAI's default.
7. Asked for, ids come as they were read and drawn.
8. `continue_final_message` goes on inside the last turn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.fakes import TOKENIZER, Running, Typist, logprob_of, running
from zaya.engine.types import SamplingParams, Structure
from zaya.text import render

ASK = [{"role": "user", "content": "?"}]
ANSWER = "let me see\n</think>\n\nIt is 4."

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["place"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
LOOSE = {
    "type": "function",
    "function": {"name": "loose", "parameters": {"type": "object", "properties": {}, "minProperties": 1}},
}


def call(name: str, **parameters: str) -> str:
    inside = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters.items())
    return f"<zyphra_tool_call>\n<function={name}>\n{inside}</function>\n</zyphra_tool_call>"


CALLS = f"hm\n</think>\n\nI look.\n\n{call('weather', place='Überlingen', days='3')}\n{call('clock')}"


def says(text: str, **options: Any) -> Typist:
    return Typist(lambda prompt, seed, index: text, **options)


@pytest.fixture(scope="module")
def typist() -> Typist:
    return says(ANSWER)


@pytest.fixture(scope="module")
def server(typist: Typist) -> Iterator[Running]:
    with running(typist) as found:
        yield found


def put_together(chunks: list[Any]) -> dict[str, Any]:
    """Of a stream, what a whole answer says."""
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            found = choices.setdefault(choice.index, {"message": {}, "logprobs": [], "finish_reason": None})
            delta = choice.delta.model_dump(exclude_none=True)
            for key, value in delta.items():
                if key == "tool_calls":
                    calls = found["message"].setdefault("tool_calls", [])
                    for piece in value:
                        if piece["index"] == len(calls):
                            calls.append({"type": piece["type"], "function": dict(piece["function"])})
                        else:
                            calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
                elif key == "role":
                    found["message"]["role"] = value
                else:
                    found["message"][key] = found["message"].get(key, "") + value
            if choice.logprobs is not None:
                found["logprobs"] += choice.logprobs.model_dump()["content"]
            found["finish_reason"] = choice.finish_reason or found["finish_reason"]
    return {"choices": choices, "usage": usage.model_dump() if usage else None}


def whole(answer: Any) -> dict[str, Any]:
    choices = {}
    for choice in answer.choices:
        message = choice.message.model_dump(exclude_none=True)
        for each in message.get("tool_calls", ()):
            del each["id"]
        logprobs = choice.logprobs.model_dump()["content"] if choice.logprobs else []
        message.setdefault("content", "")
        choices[choice.index] = {"message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason}
    return {"choices": choices, "usage": answer.usage.model_dump()}


TEXTS = {
    "plain": ANSWER,
    "calls": CALLS,
    "call alone": f"hm\n</think>\n\n{call('clock')}",
    "json in the tag": "hm\n</think>\n\n"
    '<zyphra_tool_call>{"name": "weather", "arguments": {"place": "x"}}</zyphra_tool_call>',
    "never closed": "thinking and thinking",
    "characters": "さ\n</think>\n\n日本 🙂 \\boxed{4}",
    "empty": "\n</think>\n\n",
}  # fmt: skip


@pytest.mark.parametrize("together", [1, 3, 1000])
@pytest.mark.parametrize("name", TEXTS)
def test_a_stream_is_the_whole_answer(name: str, together: int) -> None:
    ask: dict[str, Any] = {"model": "m", "messages": ASK, "n": 2, "seed": 1, "logprobs": True, "top_logprobs": 2}
    ask |= {"tools": [WEATHER, CLOCK], "max_tokens": 400}
    with running(says(TEXTS[name], together=together)) as server, server.client() as client:
        one = client.chat.completions.create(**ask)
        chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert put_together(chunks) == whole(one)
    assert [choice.index for choice in one.choices] == [0, 1]
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[-1].choices == []


def test_the_form_of_an_answer(server: Running) -> None:
    status, answer, headers = server.send("/v1/chat/completions", {"messages": ASK}, headers={"X-Request-Id": "mine"})
    rendered = render(TOKENIZER, ASK).ids
    drawn = TOKENIZER.encode(ANSWER, bos=False)
    assert (status, headers["content-type"], headers["x-request-id"]) == (200, "application/json", "mine")
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "m"
    [choice] = answer["choices"]
    assert choice["message"] == {
        "role": "assistant", "content": "It is 4.", "reasoning": "let me see", "reasoning_content": "let me see",
    }  # fmt: skip
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
    assert answer["usage"] == {
        "prompt_tokens": len(rendered),
        "completion_tokens": len(drawn) + 1,
        "total_tokens": len(rendered) + len(drawn) + 1,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": len(TOKENIZER.encode("let me see\n", bos=False))},
    }


def test_reasoning_can_be_left_out(server: Running) -> None:
    body = {"messages": ASK, "include_reasoning": False}
    _, answer, _ = server.send("/v1/chat/completions", body)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "It is 4."}
    deltas = [choice["delta"] for event in server.events("/v1/chat/completions", body) for choice in event["choices"]]
    assert not any("reasoning" in delta or "reasoning_content" in delta for delta in deltas)


# ----- tools


def test_calls_have_arguments_by_their_schemas() -> None:
    with running(says(CALLS)) as server, server.client() as client:
        answer = client.chat.completions.create(model="m", messages=ASK, tools=[WEATHER, CLOCK])
    [choice] = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I look.")
    found = [(c.type, c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls]
    assert found == [("function", "weather", {"place": "Überlingen", "days": 3}), ("function", "clock", {})]
    assert len({c.id for c in choice.message.tool_calls}) == 2


def test_without_tools_a_call_is_text() -> None:
    with running(says(f"hm\n</think>\n\n{call('clock')}")) as server:
        _, answer, _ = server.send("/v1/chat/completions", {"messages": ASK})
    assert answer["choices"][0]["message"]["content"] == call("clock")
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_call_that_was_cut_cannot_be_carried_out() -> None:
    with running(says(CALLS)) as server:
        ask = {"messages": ASK, "tools": [WEATHER, CLOCK]}
        size = len(TOKENIZER.encode(CALLS.partition("lingen")[0], bos=False))
        _, answer, _ = server.send("/v1/chat/completions", {**ask, "max_tokens": size})
        events = server.events("/v1/chat/completions", {**ask, "max_tokens": size})
    [choice] = answer["choices"]
    [cut] = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], cut["function"]["arguments"]) == ("length", '{"place":"Über')
    pieces = [c for e in events for choice in e["choices"] for c in choice["delta"].get("tool_calls", ())]
    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"place":"Über'


def test_a_conversation_with_calls_is_rendered_as_everywhere(server: Running, typist: Typist) -> None:
    said = {"role": "assistant", "content": "I look.", "reasoning": "hm", "refusal": None, "annotations": []}
    calls = [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What time"}, {"type": "text", "text": " is it?"}]},
        {**said, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
    ]
    strict = {**CLOCK, "function": {**CLOCK["function"], "strict": True}}
    status, _, _ = server.send("/v1/chat/completions", {"messages": messages, "tools": [strict]})
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What time is it?"}]
    expected = render(TOKENIZER, [*plain, {**said, "tool_calls": calls}, messages[3]], tools=[CLOCK])
    assert status == 200
    assert list(typist.requests[-1].prompt_ids or ()) == expected.ids


BOTH = [WEATHER, CLOCK]
CHOICES = {
    "left out": ({}, Structure(kind="tools", value=BOTH)),
    "auto": ({"tool_choice": "auto"}, Structure(kind="tools", value=BOTH)),
    "one at a time": ({"parallel_tool_calls": False}, Structure(kind="tools", value=BOTH, parallel_calls=False)),
    "required": ({"tool_choice": "required"}, Structure(kind="tools", value=BOTH, require_call=True)),
    "named": (
        {"tool_choice": {"type": "function", "function": {"name": "clock"}}},
        Structure(kind="tools", value=[CLOCK], require_call=True, parallel_calls=False),
    ),
    "none": ({"tool_choice": "none"}, None),
    "free": ({"strict_tools": False}, None),
}


@pytest.mark.parametrize("name", CHOICES)
def test_tool_choice(server: Running, typist: Typist, name: str) -> None:
    more, structure = CHOICES[name]
    status, _, _ = server.send("/v1/chat/completions", {"messages": ASK, "tools": BOTH, **more})
    params = typist.requests[-1].params
    assert (status, params.structure) == (200, structure)
    assert params.logit_bias == ({TOKENIZER.tags.call_open: -math.inf} if name == "none" else {})


def test_an_answer_of_a_schema_beside_tools(server: Running, typist: Typist) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
    ask = {"messages": ASK, "tools": BOTH, "response_format": form}
    held = {
        "auto": Structure(kind="tools", value=BOTH, answer_schema=SCHEMA),
        "required": Structure(kind="tools", value=BOTH, require_call=True),
        "none": Structure(kind="json", value=SCHEMA),
    }
    for choice, structure in held.items():
        assert server.send("/v1/chat/completions", {**ask, "tool_choice": choice})[0] == 200
        assert typist.requests[-1].params.structure == structure


def test_what_cannot_be_held(server: Running, typist: Typist) -> None:
    status, _, _ = server.send("/v1/chat/completions", {"messages": ASK, "tools": [LOOSE]})
    assert (status, typist.requests[-1].params.structure) == (200, None)


# ----- structures

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMATS = [
    ({"response_format": {"type": "text"}}, None),
    ({"response_format": {"type": "json_object"}}, Structure(kind="json", value={})),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}},
        Structure(kind="json", value=SCHEMA),
    ),
    ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, Structure(kind="json", value=SCHEMA)),
    ({"structured_outputs": {"regex": "[0-9]+"}}, Structure(kind="regex", value="[0-9]+")),
    ({"guided_json": SCHEMA}, Structure(kind="json", value=SCHEMA)),
    ({"guided_regex": "a|b"}, Structure(kind="regex", value="a|b")),
    ({"guided_choice": ["a", "b"]}, Structure(kind="choice", value=["a", "b"])),
    ({"tools": [CLOCK], "tool_choice": "none", "guided_choice": ["a"]}, Structure(kind="choice", value=["a"])),
]


@pytest.mark.parametrize(("more", "structure"), FORMATS)
def test_formats(server: Running, typist: Typist, more: dict[str, Any], structure: Structure | None) -> None:
    status, answer, _ = server.send("/v1/chat/completions", {"messages": ASK, **more})
    assert status == 200, answer
    assert typist.requests[-1].params.structure == structure


# ----- 5


def test_log_probabilities(server: Running) -> None:
    ids = [*TOKENIZER.encode(ANSWER, bos=False), TOKENIZER.tags.turn_close]
    with server.client() as client:
        answer = client.chat.completions.create(model="m", messages=ASK, logprobs=True, top_logprobs=2)
        plain = client.chat.completions.create(model="m", messages=ASK, logprobs=True)
    entries = answer.choices[0].logprobs.content
    assert [entry.logprob for entry in entries] == [logprob_of(i) for i in range(len(ids))]
    assert b"".join(bytes(entry.bytes) for entry in entries) == TOKENIZER.to_bytes(ids)
    assert [len(entry.top_logprobs) for entry in entries] == [2] * len(ids)
    assert [entry.top_logprobs[0].token for entry in entries] == [TOKENIZER.decode([id]) for id in ids]
    assert [entry.top_logprobs[1].logprob for entry in entries] == [logprob_of(i) - 1 for i in range(len(ids))]
    assert [entry.top_logprobs for entry in plain.choices[0].logprobs.content] == [[]] * len(ids)


# ----- 6


def test_defaults(server: Running, typist: Typist) -> None:
    for _ in range(2):
        server.send("/v1/chat/completions", {"messages": ASK})
    before, request = typist.requests[-2:]
    room = typist.context - len(render(TOKENIZER, ASK).ids)
    assert request.params == SamplingParams(max_tokens=room)
    assert (request.n, request.priority, request.cache_salt) == (1, 0, "")
    assert before.seed != request.seed


SETTINGS = [
    ({"temperature": 0, "top_p": 0.5, "top_k": 7, "min_p": 0.1},
     {"temperature": 0, "top_p": 0.5, "top_k": 7, "min_p": 0.1}),
    ({"top_k": -1}, {"top_k": None}),
    ({"top_k": 0}, {"top_k": None}),
    ({"repetition_penalty": 1.5, "presence_penalty": -1, "frequency_penalty": 2},
     {"repetition_penalty": 1.5, "presence_penalty": -1, "frequency_penalty": 2}),
    ({"logit_bias": {"17": -100, "3": 2.5}}, {"logit_bias": {17: -100, 3: 2.5}}),
    ({"stop": "x"}, {"stop": ("x",)}),
    ({"stop": ["x", "y"]}, {"stop": ("x", "y")}),
    ({"stop_token_ids": [5], "min_tokens": 4, "ignore_eos": False}, {"stop_ids": (5,), "min_tokens": 4}),
    ({"max_completion_tokens": 9}, {"max_tokens": 9}),
    ({"max_tokens": 9, "max_completion_tokens": 9}, {"max_tokens": 9}),
    ({"thinking_token_budget": 0}, {"think_budget": 0}),
    ({"reasoning_effort": "low"}, {"think_budget": 2048}),
    ({"reasoning_effort": "max"}, {"think_budget": None}),
    ({"reasoning_effort": "none"}, {"think_budget": None}),
]  # fmt: skip


@pytest.mark.parametrize(("more", "expected"), SETTINGS)
def test_settings(server: Running, typist: Typist, more: dict[str, Any], expected: dict[str, Any]) -> None:
    limit = {} if "max_completion_tokens" in more else {"max_tokens": 50}
    status, answer, _ = server.send("/v1/chat/completions", {"messages": ASK, **limit, **more})
    assert status == 200, answer
    assert typist.requests[-1].params == SamplingParams(**{"max_tokens": 50, **expected})


def test_what_is_beside_sampling(server: Running, typist: Typist) -> None:
    more = {"seed": -5, "n": 3, "priority": 2, "cache_salt": "s", "user": "u", "metadata": {"a": [1]}, "store": True}
    status, answer, _ = server.send("/v1/chat/completions", {"messages": ASK, **more})
    request = typist.requests[-1]
    assert status == 200
    assert (request.seed, request.n, request.priority, request.cache_salt) == (-5, 3, -2, "s")
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["prompt_tokens"] == len(render(TOKENIZER, ASK).ids)
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}  # the prompt is one, whatever shares it


@pytest.mark.parametrize("more", [{"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}])
def test_thinking_off(more: dict[str, Any]) -> None:
    typist = says("Four.")
    with running(typist) as server:
        _, answer, _ = server.send("/v1/chat/completions", {"messages": ASK, **more})
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Four."}
    assert list(typist.requests[0].prompt_ids or ()) == render(TOKENIZER, ASK, enable_thinking=False).ids


def test_a_stop_string_and_a_budget(server: Running) -> None:
    _, answer, _ = server.send("/v1/chat/completions", {"messages": ASK, "stop": [" 4"], "thinking_token_budget": 3})
    [choice] = answer["choices"]
    assert choice["message"]["reasoning"] == "let"
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", " 4")


# ----- 7 and 8


def test_ids(server: Running) -> None:
    drawn = [*TOKENIZER.encode(ANSWER, bos=False), TOKENIZER.tags.turn_close]
    body = {"messages": ASK, "return_token_ids": True}
    _, answer, _ = server.send("/v1/chat/completions", body)
    assert answer["prompt_token_ids"] == render(TOKENIZER, ASK).ids
    assert answer["choices"][0]["token_ids"] == drawn
    events = server.events("/v1/chat/completions", body)
    assert events[0]["prompt_token_ids"] == render(TOKENIZER, ASK).ids
    assert [id for e in events for choice in e["choices"] for id in choice.get("token_ids", ())] == drawn


def test_usage_in_every_chunk(server: Running) -> None:
    options = {"stream_options": {"continuous_usage_stats": True}}
    events = server.events("/v1/chat/completions", {"messages": ASK, **options})
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, len(TOKENIZER.encode(ANSWER, bos=False)) + 1)
    assert all("usage" not in event for event in server.events("/v1/chat/completions", {"messages": ASK}))


def test_going_on_inside_a_turn(server: Running, typist: Typist) -> None:
    messages = [*ASK, {"role": "assistant", "content": "The answer is"}]
    status, _, _ = server.send("/v1/chat/completions", {"messages": messages, "continue_final_message": True})
    text = TOKENIZER.decode(typist.requests[-1].prompt_ids or ())
    assert status == 200
    assert text.endswith("<think>\n</think>\n\nThe answer is")
    server.send("/v1/chat/completions", {"messages": messages})
    assert TOKENIZER.decode(typist.requests[-1].prompt_ids or ()).endswith(
        "is<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
