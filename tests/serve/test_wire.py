"""What coding agents send to a server like this one.

1. Every request of the table is answered, and the model reads in it what the agent meant: the prompt is that of a plain
   conversation, the settings are those that the agent chose. Each has its source, as of November 2026.
2. A call that was cut can be sent back, as an agent does that tells its model of the failure.
3. Codex gets back what it keeps of a turn: calls of custom tools as text, calls of a namespace by both names, and
   reasoning that it cannot read and returns.
4. What nobody here could do is refused in words that say what to change in the agent.
5. The micro model, which knows nothing of tools, calls by the schema where a call is demanded, by every way of asking.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.fakes import TOKENIZER, Running, Typist, called, running
from tests.serve.test_responses import built
from zaya.engine.engine import Engine
from zaya.engine.types import SamplingParams
from zaya.model.embedded import embedded_directory
from zaya.model.layouts import load
from zaya.text import render

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
ANSWER = "so\n</think>\n\nDone."
SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "lines": {"type": "array", "items": {"type": "integer"}}},
    "required": ["path"],
    "additionalProperties": False,
}
READ = {"type": "function", "function": {"name": "read", "description": "Read a file.", "parameters": SCHEMA}}
PATCH_GRAMMAR = 'start: "*** Begin Patch" LF\nLF: /\\n/'


@pytest.fixture(scope="module")
def typist() -> Typist:
    return Typist(lambda *_: ANSWER, context=20_000)


@pytest.fixture(scope="module")
def server(typist: Typist) -> Iterator[Running]:
    with running(typist) as found:
        yield found


def said(arguments: Any = '{"path": "a.py"}', **more: Any) -> dict[str, Any]:
    """An assistant's message with a call."""
    function = {"name": "read", "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "function", "function": function}],
            **more}  # fmt: skip


SYSTEM = {"role": "system", "content": "S"}
USER = {"role": "user", "content": "U"}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "R"}
THOUGHT = said(reasoning="T")
TURNS = [SYSTEM, USER, THOUGHT, RESULT]
PLAIN = [SYSTEM, USER, said(), RESULT]


def text(words: str, **more: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": words, **more}]


CACHED = {"cache_control": {"type": "ephemeral"}}
CHATS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = {
    # vercel/ai, packages/openai-compatible/src/chat (the provider that opencode uses for such servers)
    "opencode": (
        {"messages": [SYSTEM, USER, said(reasoning_content="T"), RESULT], "tools": [READ], "tool_choice": "auto",
         "max_tokens": 100, "temperature": 0.6, "top_p": 1, "stream_options": {"include_usage": True},
         "reasoning_effort": "high", "user": "u"},
        TURNS, {"temperature": 0.6, "think_budget": 32768},
    ),
    # the same, after a turn with a model that signs its thoughts, or by GitHub Copilot
    "opencode, another model before": (
        {"messages": [SYSTEM, USER, said(reasoning_text="T", reasoning_opaque="x", extra_content={"google": {}}),
                      RESULT], "tools": [READ], "max_tokens": 100},
        PLAIN, {},
    ),
    # earendil-works/pi, packages/ai/src/api/openai-completions.ts
    "pi": (
        {"messages": [{**SYSTEM, "role": "developer"}, USER, said(content=None, reasoning="T"),
                      {**RESULT, "name": "read"}],
         "tools": [{**READ, "function": {**READ["function"], "strict": False}}], "store": False,
         "prompt_cache_key": "k", "prompt_cache_retention": "24h", "max_completion_tokens": 100,
         "stream_options": {"include_usage": True}},
        TURNS, {},
    ),
    "pi, thinking off, told as OpenRouter wants it": (
        {"messages": [SYSTEM, USER], "tools": [], "reasoning": {"effort": "none"}, "max_completion_tokens": 100},
        [SYSTEM, USER], {},
    ),
    "pi, thinking off, told as DeepSeek wants it": (
        {"messages": [SYSTEM, USER], "thinking": {"type": "disabled"}, "max_completion_tokens": 100},
        [SYSTEM, USER], {},
    ),
    "pi, thinking off, told as Qwen wants it": (
        {"messages": [SYSTEM, USER], "enable_thinking": False, "max_completion_tokens": 100}, [SYSTEM, USER], {},
    ),
    # cline/cline, src/core/api/providers/openai.ts and transform/openai-format.ts
    "cline": (
        {"messages": [SYSTEM, {"role": "user", "content": text("U")},
                      {key: value for key, value in said().items() if key != "content"}, RESULT],
         "temperature": 0, "max_tokens": 100, "stream_options": {"include_usage": True}, "tools": [READ]},
        PLAIN, {"temperature": 0},
    ),
    "cline, arguments that it could not read": (
        {"messages": [SYSTEM, USER, said(json.dumps('{"path": "a.py')), {**RESULT, "content": ""}],
         "tools": [READ], "max_tokens": 100},
        [SYSTEM, USER, said('{"path": "a.py"}'), {**RESULT, "content": ""}], {},
    ),
    # aider, coders/chat_chunks.py (by litellm)
    "aider": (
        {"messages": [{"role": "system", "content": text("S", **CACHED)},
                      {"role": "user", "content": text("U", **CACHED)},
                      {"role": "assistant", "content": "Ok."}, {"role": "user", "content": "V"}],
         "temperature": 0, "stream": False, "max_tokens": 100},
        [SYSTEM, USER, {"role": "assistant", "content": "Ok."}, {"role": "user", "content": "V"}], {"temperature": 0},
    ),
    # continuedev/continue, core/llm/openaiTypeConverters.ts
    "continue": (
        {"messages": [SYSTEM, USER, said(content=" "), RESULT], "max_tokens": 100, "stop": ["X"],
         "prediction": {"type": "content", "content": "old text"}, "tools": [
             {"type": "function", "function": {**READ["function"], "strict": None}}], "parallel_tool_calls": False},
        [SYSTEM, USER, said(content=" "), RESULT], {"stop": ("X",)},
    ),
    # results of tools in parts, and a tool that says nothing (litellm, several agents)
    "results in parts": (
        {"messages": [SYSTEM, USER, said(), {**RESULT, "content": [*text("a"), *text("b", **CACHED)]}],
         "tools": [{**READ, **CACHED}], "max_tokens": 100},
        [SYSTEM, USER, said(), {**RESULT, "content": "ab"}], {},
    ),
    "no result": (
        {"messages": [SYSTEM, USER, said(), {**RESULT, "content": None}], "tools": [READ], "max_tokens": 100},
        [SYSTEM, USER, said(), {**RESULT, "content": ""}], {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", CHATS)
def test_chats(server: Running, typist: Typist, name: str, stream: bool) -> None:
    body, messages, settings = CHATS[name]
    if stream:
        assert "error" not in server.events(CHAT, body)[-1]
    else:
        status, answer, _ = server.send(CHAT, {**body, "stream": None})
        assert status == 200, answer
        assert answer["choices"][0]["message"]["content"].endswith("Done.")
    request = typist.requests[-1]
    tools = [READ] if body.get("tools") else None
    rendered = render(TOKENIZER, messages, tools=tools, enable_thinking="off" not in name)
    assert TOKENIZER.decode(request.prompt_ids or ()) == TOKENIZER.decode(rendered.ids)
    assert list(request.prompt_ids or ()) == rendered.ids
    params = request.params
    expected = SamplingParams(**{"max_tokens": 100, **settings})
    for field in ("temperature", "top_p", "stop", "think_budget", "max_tokens"):
        assert getattr(params, field) == getattr(expected, field), field


# ----- 2


@pytest.mark.parametrize("cut", [60, 75, 90, 110])
def test_a_call_that_was_cut_can_be_sent_back(cut: int) -> None:
    drawn = f"so\n</think>\n\n{called('read', {'path': 'src/größe.py', 'lines': [1, 2]})}"
    typist = Typist(lambda *_: drawn, context=20_000)
    ask = {"messages": [USER], "tools": [READ]}
    with running(typist) as server:
        message = server.send(CHAT, {**ask, "max_tokens": cut})[1]["choices"][0]["message"]
        [cut_call] = message["tool_calls"]
        failed = {"role": "tool", "tool_call_id": cut_call["id"], "content": "these arguments are not JSON"}
        status, answer, _ = server.send(CHAT, {**ask, "messages": [USER, message, failed]})
        assert status == 200, answer
        item = {"type": "function_call", "call_id": "c", "name": "read"}
        item["arguments"] = cut_call["function"]["arguments"]
        output = {"type": "function_call_output", "call_id": "c", "output": "no"}
        status, answer, _ = server.send(RESPONSES, {"input": [{"role": "user", "content": "U"}, item, output]})
        assert status == 200, answer
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut_call["function"]["arguments"])


# ----- 3

SHELL = {
    "type": "function", "name": "shell", "description": "Runs a command.", "strict": False,
    "parameters": {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}},
                   "required": ["command"], "additionalProperties": False},
}  # fmt: skip
PATCH = {
    "type": "custom", "name": "apply_patch", "description": "Patches files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": PATCH_GRAMMAR},
}  # fmt: skip
MCP = {
    "type": "namespace", "name": "mcp__docs", "description": "Documents.",
    "tools": [{"type": "function", "name": "find", "description": "Finds.", "strict": False, "parameters": {
        "type": "object", "properties": {"words": {"type": "string"}}, "required": ["words"]}}],
}  # fmt: skip
CODEX: dict[str, Any] = {
    # openai/codex, codex-rs: codex-api/src/common.rs (the request), protocol/src/models.rs, tools/src/tool_spec.rs
    "model": "m", "instructions": "You are Codex.", "tools": [SHELL, PATCH, MCP], "tool_choice": "auto",
    "parallel_tool_calls": True, "reasoning": {"effort": "medium", "summary": "auto"}, "store": False, "stream": True,
    "stream_options": {"reasoning_summary_delivery": "sequential_cutoff"},
    "include": ["reasoning.encrypted_content"], "service_tier": "priority", "prompt_cache_key": "thread",
    "text": {"verbosity": "low"}, "client_metadata": {"session_id": "s"},
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "P"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "E"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix it."}]},
    ],
}  # fmt: skip
DIFF = "*** Begin Patch\n*** Update File: größe.py\n@@\n-x = \"a\"\n+x = '</parameter>'\n*** End Patch"
TURN = (
    "I look.\nThen I patch.\n</think>\n\nPatching.\n\n"
    + called("shell", {"command": ["ls", "-l"]}) + "\n" + called("apply_patch", {"input": DIFF}) + "\n"
    + called("mcp__docs.find", {"words": "a b"})
)  # fmt: skip


def stream_of(server: Running, body: dict[str, Any]) -> list[dict[str, Any]]:
    connection = server.connection()
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "session_id": "s"}
    connection.request("POST", RESPONSES, json.dumps(body), headers)
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def kept_by_codex(item: dict[str, Any]) -> dict[str, Any]:
    """What it sends back: ids and statuses it forgets, and of reasoning it keeps what it cannot read."""
    item = {key: value for key, value in item.items() if key not in ("id", "status")}
    match item["type"]:
        case "reasoning":
            return {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}
        case "message":
            parts = [{"type": part["type"], "text": part["text"]} for part in item["content"]]
            return {"type": "message", "role": "assistant", "content": parts, "phase": "commentary", "end_turn": False}
    return item


@pytest.mark.parametrize("together", [1, 7, 1000])
def test_codex(together: int) -> None:
    typist = Typist(lambda *_: TURN, context=20_000, together=together)
    with running(typist) as server:
        events = stream_of(server, CODEX)
        whole = server.send(RESPONSES, {**CODEX, "stream": False})[1]
        reasoning, message, *calls = built(events)
        given = [
            {"type": "function_call_output", "call_id": calls[0]["call_id"], "output": "a.py"},
            {"type": "custom_tool_call_output", "call_id": calls[1]["call_id"], "output": "ok"},
            {"type": "function_call_output", "call_id": calls[2]["call_id"],
             "output": [{"type": "input_text", "text": "found"}]},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Go on."}]},
        ]  # fmt: skip
        back = [kept_by_codex(item) for item in (reasoning, message, *calls)]
        assert (
            stream_of(server, {**CODEX, "input": [*CODEX["input"], *back, *given]})[-1]["type"] == "response.completed"
        )
    # what Codex reads of a stream: its last event, and the items that are done
    assert events[-1]["type"] == "response.completed"
    assert {"input_tokens", "input_tokens_details", "output_tokens", "output_tokens_details", "total_tokens"} <= set(
        events[-1]["response"]["usage"]
    )
    names = [(item["type"], item["name"], item.get("namespace")) for item in calls]
    assert names == [("function_call", "shell", None), ("custom_tool_call", "apply_patch", None),
                     ("function_call", "find", "mcp__docs")]  # fmt: skip
    assert json.loads(calls[0]["arguments"]) == {"command": ["ls", "-l"]}
    assert calls[1]["input"] == DIFF
    assert json.loads(calls[2]["arguments"]) == {"words": "a b"}
    deltas = "".join(event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta")
    assert deltas == DIFF
    new = ("id", "call_id")
    told = [{key: value for key, value in item.items() if key not in new} for item in (reasoning, message, *calls)]
    assert told == [{key: value for key, value in item.items() if key not in new} for item in whole["output"]]
    # and what the model reads of it in the next turn
    functions = [
        {"type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in [("shell", {"command": ["ls", "-l"]}), ("apply_patch", {"input": DIFF}),
                                ("mcp__docs.find", {"words": "a b"})]
    ]  # fmt: skip
    described = f"Patches files.\n\nThe input is a text of this grammar, in Lark:\n\n{PATCH_GRAMMAR}"
    tools = [
        {"name": "shell", "description": "Runs a command.", "parameters": SHELL["parameters"]},
        {"name": "apply_patch", "description": described, "parameters": {
            "type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"],
            "additionalProperties": False}},
        {"name": "mcp__docs.find", "description": "Finds.", "parameters": MCP["tools"][0]["parameters"]},
    ]  # fmt: skip
    messages = [
        {"role": "system", "content": "You are Codex.\n\nP"},
        {"role": "user", "content": "E"},
        {"role": "user", "content": "Fix it."},
        {"role": "assistant", "reasoning": "I look.\nThen I patch.", "content": "Patching.", "tool_calls": functions},
        *({"role": "tool", "content": result} for result in ("a.py", "ok", "found")),
        {"role": "system", "content": "Go on."},
    ]
    expected = render(TOKENIZER, messages, tools=tools, add_generation_prompt=True)
    assert TOKENIZER.decode(typist.requests[-1].prompt_ids or ()) == TOKENIZER.decode(expected.ids)
    # so the cache knows all of it but what is new
    drawn = [*(typist.requests[0].prompt_ids or ()), *TOKENIZER.encode(TURN, bos=False)]
    assert list(typist.requests[-1].prompt_ids or ())[: len(drawn)] == drawn


def test_the_text_of_a_custom_tool_that_was_cut() -> None:
    typist = Typist(lambda *_: TURN, context=20_000)
    limit = len(TOKENIZER.encode(TURN.partition("größe")[0], bos=False))
    with running(typist) as server:
        found = server.send(RESPONSES, {**CODEX, "stream": False, "max_output_tokens": limit})[1]
    assert found["status"] == "incomplete"
    cut = found["output"][-1]
    assert (cut["type"], cut["status"]) == ("custom_tool_call", "incomplete")
    assert cut["input"] == DIFF.partition("größe")[0]


def test_a_custom_tool_with_an_expression(server: Running, typist: Typist) -> None:
    tool = {
        "type": "custom",
        "name": "digits",
        "format": {"type": "grammar", "syntax": "regex", "definition": "[0-9]+"},
    }
    body = {"input": "?", "tools": [tool], "tool_choice": {"type": "custom", "name": "digits"}}
    status, answer, _ = server.send(RESPONSES, body)
    assert status == 200, answer
    structure = typist.requests[-1].params.structure
    assert structure is not None
    [function] = structure.value
    assert function["function"]["parameters"]["properties"] == {"input": {"type": "string", "pattern": "^(?:[0-9]+)$"}}


def test_reasoning_is_sealed_for_those_who_ask(server: Running) -> None:
    items = server.send(RESPONSES, {"input": "?"})[1]["output"]
    assert "encrypted_content" not in items[0]
    sealed = server.send(RESPONSES, {"input": "?", "include": ["reasoning.encrypted_content"]})[1]["output"][0]
    assert "so" not in sealed["encrypted_content"]
    for seal, status in ((sealed["encrypted_content"], 200), ("gAAAA", 200), ("zaya:!", 400)):
        item = {"type": "reasoning", "summary": [], "encrypted_content": seal}
        asked = [{"role": "user", "content": "?"}, item, {"role": "assistant", "content": "a"}]
        assert server.send(RESPONSES, {"input": [*asked, {"role": "user", "content": "b"}]})[0] == status


# ----- 4

REFUSED = [
    # Codex offers it unless web_search = "disabled" is in its config.toml
    (RESPONSES, {"input": "?", "tools": [SHELL, {"type": "web_search", "external_web_access": False}]}, "tools[1]",
     "turn them off in the client"),
    (RESPONSES, {"input": "?", "tools": [{"type": "local_shell"}]}, "tools[0]", "function, custom and namespace"),
    (RESPONSES, {"input": "?", "tools": [{**MCP, "tools": [{"type": "mcp"}]}]}, "tools[0].tools[0]", "turn them off"),
    (RESPONSES, {"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0].type", "must be one of"),
    (RESPONSES, {"input": [{"type": "custom_tool_call", "call_id": "c", "name": "n"}]}, "input[0].input", "a string"),
    (RESPONSES, {"input": "?", "previous_response_id": "r"}, "previous_response_id", "send the whole conversation"),
    (CHAT, {"messages": [USER], "functions": []}, "functions", "send tools"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
     "messages[0].content[0]", "text only"),
    (CHAT, {"messages": [USER], "tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]", "not a function"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param", "words"), REFUSED)
def test_refused(server: Running, path: str, body: dict[str, Any], param: str, words: str) -> None:
    status, answer, _ = server.send(path, body)
    assert (status, answer["error"]["param"]) == (400, param), answer
    assert words in answer["error"]["message"]


# ----- 5

ORDER = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 1, "maximum": 99},
        "speed": {"enum": ["slow", "fast"]},
        "to": {
            "type": "object", "properties": {"zip": {"type": "integer", "minimum": 10, "maximum": 20}},
            "required": ["zip"], "additionalProperties": False,
        },
    },
    "required": ["count", "speed", "to"],
    "additionalProperties": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Iterator[Running]:
    model, tokenizer = load(embedded_directory(), dtype="float32")
    assert tokenizer is not None
    with Engine(model, tokenizer, max_batch=2) as engine, running(engine, tokenizer) as found:
        yield found


@pytest.mark.parametrize(("seed", "stream"), [(0, False), (1, True)])
def test_a_demanded_call(engine: Running, seed: int, stream: bool) -> None:
    ask = {"tool_choice": "required", "parallel_tool_calls": False, "seed": seed, "thinking_token_budget": 5}
    function = {"name": "order", "parameters": ORDER}
    with engine.client() as client:
        chats = client.chat.completions
        wanted = {"model": "m", "messages": [USER], "tools": [{"type": "function", "function": function}]}
        extra = {"extra_body": {"thinking_token_budget": ask.pop("thinking_token_budget")}}
        if stream:
            chunks = [chunk.choices[0] for chunk in chats.create(**wanted, **ask, **extra, stream=True)]
            reason = chunks[-1].finish_reason
            pieces = [piece for chunk in chunks for piece in chunk.delta.tool_calls or ()]
            name, arguments = pieces[0].function.name, "".join(piece.function.arguments for piece in pieces)
        else:
            [choice] = chats.create(**wanted, **ask, **extra).choices
            [one] = choice.message.tool_calls
            reason, name, arguments = choice.finish_reason, one.function.name, one.function.arguments
        tool = {"type": "function", **function}
        extra["extra_body"]["seed"] = ask.pop("seed")
        found = client.responses.create(model="m", input="U", tools=[tool], **ask, **extra)
    assert (reason, name) == ("tool_calls", "order")
    values = json.loads(arguments)
    assert set(values) == {"count", "speed", "to"}
    assert 1 <= values["count"] <= 99
    assert values["speed"] in ("slow", "fast")
    assert 10 <= values["to"]["zip"] <= 20
    assert [item.arguments for item in found.output if item.type == "function_call"] == [arguments]
