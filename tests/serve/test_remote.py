"""Our own client against our own server: what is asked over HTTP is what is asked in this process.

1. Ids, texts, reasoning, reasons and counts of `RemoteCompleter` are those of the engine: for chats and for ids, with
   every sampling setting, budgets of thinking, stop strings, structures, and tools held or free.
2. What the server refuses is a UsageError with its words; what it takes is never asked twice.
3. Markovian RSA over HTTP gives the solution that it gives in this process, token by token, over the real model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.serve.fakes import Running, Typist, eventually, running
from zaya.engine.engine import Engine
from zaya.engine.remote import RemoteCompleter
from zaya.engine.types import Completion, Request, SamplingParams, Structure
from zaya.errors import UsageError
from zaya.model.embedded import as_trained, embedded_directory
from zaya.model.layouts import load
from zaya.text import Tokenizer, render
from zaya.ttc.rsa import RsaConfig, solve

MESSAGES = [{"role": "user", "content": as_trained("What is 12 + 30?")}]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
            "required": ["a", "b"],
        },
    },
}


@pytest.fixture(scope="module")
def micro() -> Iterator[tuple[Running, Engine, Tokenizer]]:
    model, tokenizer = load(embedded_directory(), dtype="float32")
    assert tokenizer is not None
    with Engine(model, tokenizer, max_batch=16, deterministic=True) as engine, running(engine, tokenizer) as server:
        yield server, engine, tokenizer


def facts(completion: Completion) -> dict[str, Any]:
    return {
        name: getattr(completion, name)
        for name in (
            "ids", "text", "reasoning", "finish_reason", "prompt_ids", "reasoning_ids", "is_closed", "stop_reason",
            "is_approximate", "generated_tokens", "prompt_tokens",
        )
    }  # fmt: skip


SETTINGS = {
    "greedy": SamplingParams(max_tokens=60, temperature=0),
    "plain": SamplingParams(max_tokens=60),
    "cut": SamplingParams(max_tokens=7),
    "truncated": SamplingParams(max_tokens=60, temperature=1.3, top_p=0.8, top_k=20, min_p=0.02),
    "penalties": SamplingParams(
        max_tokens=60, repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.25
    ),
    "bias": SamplingParams(max_tokens=30, logit_bias={70: 5.0, 80: -3.0}),
    "budget": SamplingParams(max_tokens=60, think_budget=5),
    "no budget": SamplingParams(max_tokens=60, think_budget=0),
    "stop": SamplingParams(max_tokens=60, stop=("=", "box")),
    "stop ids": SamplingParams(max_tokens=60, stop_ids=(20, 21, 22), min_tokens=6),
    "endless": SamplingParams(max_tokens=80, ignore_eos=True),
    "json": SamplingParams(
        max_tokens=120, think_budget=10,
        structure=Structure(kind="json", value={"type": "object", "properties": {"a": {"type": "integer"}},
                                                "required": ["a"], "additionalProperties": False}),
    ),
    "any json": SamplingParams(max_tokens=60, think_budget=10, structure=Structure(kind="json", value={})),
    "regex": SamplingParams(max_tokens=60, think_budget=10, structure=Structure(kind="regex", value="[0-9]{3}")),
    "choice": SamplingParams(max_tokens=60, think_budget=10, structure=Structure(kind="choice", value=["yes", "no"])),
    "a call": SamplingParams(
        max_tokens=150, think_budget=10,
        structure=Structure(kind="tools", value=[TOOL], require_call=True, parallel_calls=False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_chats(micro: tuple[Running, Engine, Tokenizer], name: str) -> None:
    server, engine, tokenizer = micro
    tools = [TOOL] if name == "a call" else None
    requests = [Request(messages=MESSAGES, tools=tools, params=SETTINGS[name], seed=seed) for seed in (3, 4)]
    expected = engine.complete(requests)
    with RemoteCompleter(server.url, "m", tokenizer=tokenizer, retries=0) as completer:
        found = completer.complete(requests)
        assert not completer.errors
    assert [[facts(each) for each in completions] for completions in found] == [
        [facts(each) for each in completions] for completions in expected
    ]


@pytest.mark.parametrize("name", ["plain", "budget", "stop", "truncated"])
def test_ids(micro: tuple[Running, Engine, Tokenizer], name: str) -> None:
    server, engine, tokenizer = micro
    ids = render(tokenizer, MESSAGES).ids
    requests = [Request(prompt_ids=ids, params=SETTINGS[name], seed=seed, cache_salt="s") for seed in (5, 6)]
    expected = engine.complete(requests)
    with RemoteCompleter(server.url, "m", tokenizer=tokenizer, retries=0) as completer:
        found = completer.complete(requests)
        assert not completer.errors
    assert [facts(each[0]) for each in found] == [facts(each[0]) for each in expected]


@pytest.mark.parametrize("thinking", [True, False])
def test_free_tools(micro: tuple[Running, Engine, Tokenizer], thinking: bool) -> None:
    server, engine, tokenizer = micro
    request = Request(messages=MESSAGES, tools=[TOOL], thinking=thinking, params=SamplingParams(max_tokens=60), seed=1)
    [[expected]] = engine.complete([request])
    with RemoteCompleter(server.url, "m", tokenizer=tokenizer, retries=0) as completer:
        [[found]] = completer.complete([request])
    assert facts(found) == facts(expected)


def test_without_a_tokenizer(micro: tuple[Running, Engine, Tokenizer]) -> None:
    server, engine, _ = micro
    request = Request(messages=MESSAGES, params=SETTINGS["plain"], seed=3)
    [[expected]] = engine.complete([request])
    with RemoteCompleter(server.url, "m", retries=0) as completer:
        [[found]] = completer.complete([request])
        assert completer.context == engine.context
    assert (found.text, found.reasoning, found.ids) == (expected.text, expected.reasoning, expected.ids)
    assert (found.finish_reason, found.is_closed) == (expected.finish_reason, expected.is_closed)


def test_refused(micro: tuple[Running, Engine, Tokenizer]) -> None:
    server, _, tokenizer = micro
    with RemoteCompleter(server.url, "m", tokenizer=tokenizer, retries=3) as completer:
        with pytest.raises(UsageError, match="the model's context holds 1,024"):
            completer.complete([Request(messages=MESSAGES, params=SamplingParams(max_tokens=2000))])
        broken = Structure(kind="json", value={"type": "string", "pattern": "(?=a)"})
        with pytest.raises(UsageError, match="cannot be held"):
            completer.complete([Request(messages=MESSAGES, params=SamplingParams(structure=broken))])
    with RemoteCompleter(server.url, "mm") as completer, pytest.raises(UsageError, match="no model is called 'mm'"):
        completer.complete([Request(messages=MESSAGES)])


@pytest.mark.parametrize("compaction", ["tail", "hybrid"])
def test_the_same_solution(micro: tuple[Running, Engine, Tokenizer], compaction: Any) -> None:
    server, engine, tokenizer = micro
    config = RsaConfig(
        population=4, fan_in=2, rounds=1, think_budget=40, tail_tokens=20, final_budget=60, answer_reserve=20,
        compaction=compaction,
    )  # fmt: skip
    question = as_trained("What is 12 + 30?")
    expected = solve(question, engine, tokenizer, config=config, seed=7)
    with RemoteCompleter(server.url, "m", tokenizer=tokenizer, retries=0) as completer:
        found = solve(question, completer, tokenizer, config=config, seed=7)
    assert (found.answer, found.text, found.reasoning) == (expected.answer, expected.text, expected.reasoning)
    assert found.usage.generated_tokens == expected.usage.generated_tokens
    assert found.usage.prompt_tokens == expected.usage.prompt_tokens
    for ours, theirs in zip(found.rounds, expected.rounds, strict=True):
        assert [c.tail for c in ours.candidates] == [c.tail for c in theirs.candidates]
        assert [c.text for c in ours.candidates] == [c.text for c in theirs.candidates]
        assert len(ours.candidates) == 4


def test_tools_are_held_where_a_structure_says_so() -> None:
    typist = Typist(lambda *_: "x\n</think>\n\ny")
    held = Structure(kind="tools", value=[TOOL])
    with running(typist) as server, RemoteCompleter(server.url, "m", retries=0) as completer:
        for structure in (None, held):
            params = SamplingParams(max_tokens=20, structure=structure)
            completer.complete([Request(messages=MESSAGES, tools=[TOOL], params=params)])
    assert [request.params.structure for request in typist.requests] == [None, held]


def test_many_at_once(micro: tuple[Running, Engine, Tokenizer]) -> None:
    """Half of them go in the midst; the others have the answers that they would have alone."""
    server, engine, tokenizer = micro
    requests = [
        Request(messages=[{"role": "user", "content": as_trained(f"What is {i} + {i}?")}], seed=i, n=1 + i % 3,
                params=SamplingParams(max_tokens=20 + i, think_budget=15, stop=("7",) if i % 5 == 0 else ()))
        for i in range(14)
    ]  # fmt: skip
    expected = [[facts(each) for each in engine.complete([replace(request, n=1)])[0]] for request in requests]
    with RemoteCompleter(server.url, "m", tokenizer=tokenizer, retries=0) as completer:
        handles = [completer.submit(request) for request in requests]
        for handle in handles[::2]:
            eventually(lambda handle=handle: handle.take() is not None)
            handle.cancel()
        for handle, first in zip(handles[1::2], expected[1::2], strict=True):
            assert facts(asyncio.run(handle.result())[0]) == first[0]
        assert eventually(lambda: server.served.gate.pending == 0)
    assert eventually(lambda: engine.stats.running == engine.stats.waiting == 0)
    assert not server.served.under_way
    engine.check()
