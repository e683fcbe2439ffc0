"""/v1/responses, as OpenAI's own client sees it.

1. A stream's events build the whole answer, item by item: of each kind in its place, numbered without a gap, and its
   last event holds the response; however many tokens come at a time.
2. The answer is that of a chat with the same settings and seed: the same prompt, reasoning, text, calls and counts.
3. A conversation goes on by sending back what came: items become the turns of the chat that they were.
4. Settings reach the engine as they were meant.
5. What was cut is incomplete; what goes wrong in a stream is a response that failed.
6. Nothing is kept: what would need it is refused with its name, as is what is unknown or of another kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.fakes import TOKENIZER, Running, Typist, eventually, running
from tests.serve.test_chat import CALLS, CLOCK, TEXTS, WEATHER, says
from zaya.engine.types import SamplingParams, Structure
from zaya.text import render

PATH, CHAT = "/v1/responses", "/v1/chat/completions"
ASK: dict[str, Any] = {"input": "?"}
TOOLS = [{"type": "function", **tool["function"]} for tool in (WEATHER, CLOCK)]
LATE = {
    "what may become a call": "hm\n</think>\n\nThe tag is <zyphra_tool",
    "text between calls": CALLS + "\nAnd that is all.",
    "a call that was not closed": "hm\n</think>\n\nI look.\n\n<zyphra_tool_call>\n<function=clock>\n",
}


@pytest.fixture(scope="module")
def typist() -> Typist:
    return says(TEXTS["plain"])


@pytest.fixture(scope="module")
def server(typist: Typist) -> Iterator[Running]:
    with running(typist) as found:
        yield found


def nameless(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what is new every time."""
    return [{key: value for key, value in item.items() if key not in ("id", "call_id")} for item in items]


def built(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items that events of a stream add up to, checked on the way."""
    items: list[dict[str, Any]] = []
    parts: dict[int, str] = {}
    done: list[dict[str, Any]] = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind in ("created", "in_progress", "completed", "incomplete", "failed"):
            continue
        at = event["output_index"]
        if kind == "output_item.added":
            assert at == len(items) == len(done)
            assert event["item"]["status"] == "in_progress"
            items.append(event["item"])
            parts[at] = ""
            continue
        assert at == len(items) - 1
        if kind == "output_item.done":
            assert event["item"]["id"] == items[at]["id"]
            done.append(event["item"])
            continue
        assert event["item_id"] == items[at]["id"]
        if kind.endswith(".delta"):
            parts[at] += event["delta"]
        elif kind == "content_part.added":
            assert event["part"]["text"] == ""
        elif kind == "content_part.done":
            assert event["part"]["text"] == parts[at]
        else:
            named = {"function_call_arguments.done": "arguments", "custom_tool_call_input.done": "input"}
            assert kind in ("output_text.done", "reasoning_text.done", *named)
            assert event[named.get(kind, "text")] == parts[at]
    assert len(done) == len(items)
    for at, item in enumerate(done):
        held = {"function_call": "arguments", "custom_tool_call": "input"}.get(item["type"])
        assert parts[at] == (item["content"][0]["text"] if held is None else item[held])
    return done


# ----- 1


@pytest.mark.parametrize("together", [1, 3, 1000])
@pytest.mark.parametrize("name", [*TEXTS, *LATE])
def test_a_stream_is_the_whole_answer(name: str, together: int) -> None:
    ask: dict[str, Any] = {"model": "m", "input": "?", "tools": TOOLS, "max_output_tokens": 400}
    with running(says({**TEXTS, **LATE}[name], together=together)) as server, server.client() as client:
        one = client.responses.create(**ask).model_dump(exclude_unset=True)
        events = [event.model_dump(exclude_unset=True) for event in client.responses.create(**ask, stream=True)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[0]["response"]["output"] == []
    last = events[-1]["response"]
    assert events[-1]["type"] == f"response.{one['status']}"
    assert {event["response"]["id"] for event in events if "response" in event} == {last["id"]}
    assert built(events) == last["output"]
    assert nameless(last["output"]) == nameless(one["output"])
    assert last["usage"] == one["usage"]


def test_the_helper_of_the_client() -> None:
    with (
        running(says(CALLS)) as server,
        server.client() as client,
        client.responses.stream(model="m", input="?", tools=TOOLS) as stream,
    ):
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
    assert final.output_text == "I look."


def test_events_have_names(server: Running) -> None:
    connection = server.connection()
    connection.request("POST", PATH, json.dumps({**ASK, "stream": True}), {"Content-Type": "application/json"})
    text = connection.getresponse().read().decode()
    connection.close()
    *events, rest = text.split("\n\n")
    assert rest == ""
    for event in events:
        name, data = event.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"


# ----- 2


@pytest.mark.parametrize("name", [*TEXTS, *LATE])
def test_it_is_the_chat(name: str) -> None:
    typist = says({**TEXTS, **LATE}[name])
    with running(typist) as server:
        _, found, _ = server.send(PATH, {**ASK, "tools": TOOLS, "seed": 4, "max_output_tokens": 300})
        messages = [{"role": "user", "content": "?"}]
        _, chat, _ = server.send(CHAT, {"messages": messages, "tools": [WEATHER, CLOCK], "seed": 4, "max_tokens": 300})
    assert typist.requests[0] == typist.requests[1]
    message, used = chat["choices"][0]["message"], chat["usage"]
    texts = {kind: "".join(i["content"][0]["text"] for i in found["output"] if i["type"] == kind)
             for kind in ("reasoning", "message")}  # fmt: skip
    assert texts == {"reasoning": message.get("reasoning", ""), "message": message["content"] or ""}
    calls = [(item["name"], item["arguments"]) for item in found["output"] if item["type"] == "function_call"]
    expected = [call["function"] for call in message.get("tool_calls", ())]
    assert calls == [(call["name"], call["arguments"]) for call in expected]
    assert found["usage"] == {
        "input_tokens": used["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": used["completion_tokens"],
        "output_tokens_details": used["completion_tokens_details"],
        "total_tokens": used["total_tokens"],
    }


def test_the_response(server: Running) -> None:
    with server.client() as client:
        found = client.responses.create(
            model="m", input="?", instructions="Be brief.", temperature=0.5, tools=TOOLS, store=True,
            metadata={"a": "b"}, tool_choice={"type": "function", "name": "clock"}, reasoning={"effort": "low"},
        )  # fmt: skip
    assert (found.object, found.status, found.model, found.instructions) == ("response", "completed", "m", "Be brief.")
    assert (found.temperature, found.top_p, found.metadata) == (0.5, 1.0, {"a": "b"})
    assert found.output_text == "It is 4."
    assert found.tools[0].model_dump()["name"] == "weather"
    assert found.tool_choice.model_dump() == {"type": "function", "name": "clock"}
    assert found.reasoning.effort == "low"
    assert (found.error, found.incomplete_details, found.previous_response_id) == (None, None, None)


# ----- 3


def test_a_conversation() -> None:
    typist = says(CALLS)
    with running(typist) as server, server.client() as client:
        first = client.responses.create(model="m", input="?", instructions="Be brief.", tools=TOOLS)
        calls = [item for item in first.output if item.type == "function_call"]
        sent: list[Any] = [{"role": "user", "content": "?"}, *first.output]
        sent += [
            {"type": "function_call_output", "call_id": calls[0].call_id, "output": "rain"},
            {"type": "function_call_output", "call_id": calls[1].call_id,
             "output": [{"type": "input_text", "text": "noon"}]},
            {"role": "user", "content": [{"type": "input_text", "text": part} for part in ("And ", "so?")]},
        ]  # fmt: skip
        client.responses.create(model="m", input=sent, instructions="Be brief.", tools=TOOLS)
    functions = [
        {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "?"},
        {"role": "assistant", "reasoning": "hm", "content": "I look.", "tool_calls": functions},
        {"role": "tool", "tool_call_id": calls[0].call_id, "content": "rain"},
        {"role": "tool", "tool_call_id": calls[1].call_id, "content": "noon"},
        {"role": "user", "content": "And so?"},
    ]
    tools = [{"type": "function", "function": tool["function"]} for tool in (WEATHER, CLOCK)]
    assert list(typist.requests[0].prompt_ids or ()) == render(TOKENIZER, messages[:2], tools=tools).ids
    assert list(typist.requests[1].prompt_ids or ()) == render(TOKENIZER, messages, tools=tools).ids


def test_who_says_what(server: Running, typist: Typist) -> None:
    items = [
        {"type": "message", "role": "developer", "content": "B"},
        {"role": "system", "content": "C"},
        {"role": "user", "content": "1"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "2", "annotations": []}],
         "id": "msg_1", "status": "completed"},
        {"role": "assistant", "content": "3"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "r"}]},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "x"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "5"},
    ]  # fmt: skip
    assert server.send(PATH, {"input": items, "instructions": "A"})[0] == 200
    messages = [
        {"role": "system", "content": "A\n\nB\n\nC"},
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "assistant", "content": "3"},
        {"role": "assistant", "reasoning": "r"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "5"},
    ]
    assert list(typist.requests[-1].prompt_ids or ()) == render(TOKENIZER, messages).ids


# ----- 4

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"temperature": 0.2, "top_p": 0.9, "top_k": 5, "min_p": 0.1},
     {"temperature": 0.2, "top_p": 0.9, "top_k": 5, "min_p": 0.1}),
    ({"reasoning": {"effort": "low", "summary": "auto"}}, {"think_budget": 2048}),
    ({"thinking_token_budget": 7}, {"think_budget": 7}),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}}},
     {"structure": Structure(kind="json", value=SCHEMA)}),
    ({"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
     {"structure": Structure(kind="json", value={})}),
    ({"text": {"format": {"type": "text"}}, "include": ["reasoning.encrypted_content"], "store": False}, {}),
    ({"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
     {"structure": Structure(kind="tools", value=[WEATHER, CLOCK], require_call=True, parallel_calls=False)}),
    ({"tools": [{**TOOLS[0], "strict": True}, TOOLS[1]], "tool_choice": {"type": "function", "name": "clock"}},
     {"structure": Structure(kind="tools", value=[CLOCK], require_call=True, parallel_calls=False)}),
]  # fmt: skip


@pytest.mark.parametrize(("more", "expected"), SETTINGS)
def test_settings(server: Running, typist: Typist, more: dict[str, Any], expected: dict[str, Any]) -> None:
    status, answer, _ = server.send(PATH, {**ASK, "max_output_tokens": 50, **more})
    assert status == 200, answer
    assert typist.requests[-1].params == SamplingParams(**{"max_tokens": 50, **expected})


def test_thinking_off(server: Running, typist: Typist) -> None:
    assert server.send(PATH, {**ASK, "reasoning": {"effort": "none"}})[0] == 200
    messages = [{"role": "user", "content": "?"}]
    assert list(typist.requests[-1].prompt_ids or ()) == render(TOKENIZER, messages, enable_thinking=False).ids


# ----- 5


@pytest.mark.parametrize(("text", "kinds"), [
    ("thinking and thinking and thinking", ["reasoning"]),
    ("a\n</think>\n\nan answer that takes more than there is", ["reasoning", "message"]),
    (CALLS, ["reasoning", "message", "function_call"]),
])  # fmt: skip
def test_what_was_cut(text: str, kinds: list[str]) -> None:
    limit = {"reasoning": 10, "message": 30, "function_call": 55}[kinds[-1]]
    with running(says(text)) as server, server.client() as client:
        found = client.responses.create(model="m", input="?", tools=TOOLS, max_output_tokens=limit)
    assert (found.status, found.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert [item.type for item in found.output] == kinds
    assert [item.status for item in found.output] == ["completed"] * (len(kinds) - 1) + ["incomplete"]
    assert found.usage.output_tokens == limit


def test_a_stream_that_fails() -> None:
    with running(Typist(lambda *_: None)) as server, server.client() as client:
        events = list(client.responses.create(model="m", input="?", stream=True))
        status, answer, _ = server.send(PATH, ASK)
    assert [event.type for event in events] == ["response.created", "response.in_progress", "response.failed"]
    assert (events[-1].response.status, events[-1].response.error.code) == ("failed", "server_error")
    assert events[-1].sequence_number == 2
    assert (status, answer["error"]["message"]) == (502, events[-1].response.error.message)


def test_a_client_that_goes() -> None:
    typist = says(TEXTS["plain"], hold_after=4)
    with running(typist) as server, server.client() as client:
        stream = client.responses.create(model="m", input="?", stream=True)
        next(iter(stream))
        assert eventually(lambda: typist.typed >= 4)
        stream.close()
        assert typist.cancelled.wait(5)
        assert eventually(lambda: server.served.gate.pending == 0)


# ----- 6

CALL = {"type": "function_call", "call_id": "c", "name": "clock"}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"previous_response_id": "resp_1"}, "previous_response_id", "nothing is kept here"),
    ({"conversation": "c"}, "conversation", "send the whole conversation"),
    ({"background": True}, "background", "False"),
    ({"background": 0}, "background", "boolean"),
    ({"truncation": "auto"}, "truncation", "disabled"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "nothing is kept here"),
    ({"input": []}, "input", "at least 1"),
    ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type", "must be one of message, reasoning"),
    ({"input": [{"id": "x"}]}, "input[0].type", "must be one of"),
    ({"input": [{"role": "user", "content": "x", "colour": 1}]}, "input[0].colour", "unknown field"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "must be user"),
    ({"input": [{"role": "user"}]}, "input[0].content", "must be a string or a list"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]",
     "text only"),
    ({"input": [{**CALL, "arguments": {}}]}, "input[0].arguments", "must be a string"),
    ({"input": [{**CALL, "arguments": "x"}]}, "input", "is not JSON"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id", "must be a string"),
    ({"input": "x" * 5000}, "input", "the model's context holds 4,096"),
    ({"max_output_tokens": 4096}, "input", "new ones are wanted"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]", "turn them off in the client"),
    ({"tools": [{"type": "function"}]}, "tools[0].name", "missing"),
    ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "missing"),
    ({"text": {"form": {}}}, "text.form", "did you mean format?"),
    ({"reasoning": {"effort": "extreme"}}, "reasoning.effort", "high"),
    ({"include": ["message.output_text.logprobs"]}, "include[0]", "reasoning.encrypted_content"),
    ({"max_tokens": 5}, "max_tokens", "unknown field"),
    ({"rsa": True}, "rsa", "unknown field"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "param", "words"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_refused(server: Running, typist: Typist, asked: dict[str, Any], param: str, words: str, stream: bool) -> None:
    typist.requests.clear()
    status, answer, _ = server.send(PATH, {**ASK, **asked, "stream": stream})
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error"), answer
    assert words in answer["error"]["message"]
    assert answer["error"]["param"] == param
    assert not typist.requests
