"""Agent libraries of others against the server, each in an environment of its own (slow, and needs the network).

1. Two turns of calls, two of them at once, and an answer: the calls arrive with the values and types that the model
   wrote, results come back to it, and the answer is the model's; by chats and by responses, whole and streamed.
2. It does not matter how the model closes its reasoning, nor whether it writes a call as XML or as JSON.
3. An answer of a schema beside tools, as a tool's call or as the format of the answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.agents import task
from tests.serve.fakes import Running, Typist, called, running
from tests.serve.test_outside import installed, output_of

pytestmark = [pytest.mark.net, pytest.mark.slow]

PROGRAMS = Path(__file__).parent / "agents"
LIBRARIES = {
    "openai_agents": ["openai-agents==0.24.0"],
    "pydantic_agent": ["pydantic-ai-slim[openai]==2.68.0"],
    "smol_agent": ["smolagents[openai]==1.26.0"],
    "lite_client": ["litellm==1.110.2"],
    "lang_agent": ["langchain==1.5.2", "langchain-openai==1.7.4"],
    "instructor_client": ["instructor==1.17.0"],
}
WAYS = {
    "openai_agents": ["chat-whole", "chat-stream", "responses-whole", "responses-stream",
                      "chat-whole-typed", "chat-stream-typed", "responses-whole-typed", "responses-stream-typed"],
    "pydantic_agent": ["chat-whole", "chat-stream", "responses-whole", "responses-stream",
                       "chat-whole-tool", "chat-stream-tool", "responses-whole-tool", "responses-stream-tool",
                       "chat-whole-native", "chat-stream-native", "responses-whole-native", "responses-stream-native"],
    "smol_agent": ["whole", "stream"],
    "lite_client": ["whole", "stream"],
    "lang_agent": ["chat-whole", "chat-stream", "responses-whole", "responses-stream",
                   "chat-whole-typed", "responses-stream-typed"],
    "instructor_client": ["tools", "json_schema"],
}  # fmt: skip
BARE = ("instructor_client",)
"""Those that ask for an answer and nothing before it."""


def as_json(name: str, arguments: dict[str, Any]) -> str:
    return f"<zyphra_tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</zyphra_tool_call>"


def model(prompt: str, seed: int, index: int) -> str:
    """What is drawn behind a prompt: the next turn of the task."""
    turns = prompt.count("<|im_start|>assistant\n") - 1
    add, order, write = task.CALLS
    has_tools = "<name>add</name>" in prompt
    if has_tools and turns == 0:
        return f"I plan.\n</think>\n\nBoth at once.\n\n{called(*write)}\n{called(*order)}"
    if has_tools and turns == 1:
        return f"<think>\nNow the sum.\n</think>\n\n{as_json(*add)}"
    if has_tools:  # the last number there is has to be the sum
        assert re.findall(r"\d+", prompt)[-1] == "7", prompt[-500:]
    result = task.RESULT
    done = "Done.\n</think>\n\n</think>"
    for name, arguments in {"final_result": result, "Result": result, "final_answer": {"answer": task.ANSWER}}.items():
        if f"<name>{name}</name>" in prompt:
            return f"{done}{called(name, arguments)}"
    return done + (json.dumps(result) if task.AS_JSON in prompt else task.ANSWER)


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    with installed(tmp_path_factory.mktemp(request.param) / "venv", *LIBRARIES[request.param]) as programs:
        yield request.param, programs / "python"


def told(python: Path, name: str, server: Running, way: str, where: Path) -> dict[str, Any]:
    """What a program says."""
    return json.loads(output_of([python, PROGRAMS / f"{name}.py", server.url, way], where).splitlines()[-1])


# ----- 1, 2, 3


def test_the_task(library: tuple[str, Path], tmp_path: Path) -> None:
    name, python = library
    for way in WAYS[name]:
        is_typed = name in BARE or any(word in way for word in ("typed", "tool", "native"))
        with running(Typist(model, context=100_000, together=3)) as server:
            found = told(python, name, server, way, tmp_path)
        calls = [] if name in BARE else json.loads(json.dumps(task.CALLS))
        assert found == {"calls": calls, "answer": task.RESULT if is_typed else task.ANSWER}, way
        assert all(line["status"] == 200 for line in server.log), way
