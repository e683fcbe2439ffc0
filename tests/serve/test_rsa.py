"""Markovian RSA behind /v1/chat/completions.

1. What comes back is what `solve` comes to with the same settings and seed: answer, rounds, usage. Reasoning is apart
   from the answer, and neither is split twice.
2. A stream tells every rollout's beginning and end, in the order of time, then the same answer; it is never silent.
3. Settings: a request's before a preset's before the server's; what was not given follows what was; the flat fields of
   the proxy have the proxy's defaults; all resolved values are told.
4. What the server does not allow is cut, and said.
5. What would have no effect, does not exist or does not go together is refused with its name; a question that is too
   long before anything is asked.
6. A rollout that fails is asked again, then left out; a round without any is a 502 that says which; a deadline gives
   the best there is, and a 504 where there is nothing.
7. A client that goes, and a server that stops, end every rollout; places at the gate are free again.
8. Rollouts come behind ordinary requests, and never have all places.
9. A structure holds for the last round and for what weighs it; what cannot be held is refused before anything is drawn.
10. `finish_reason` is "length" only where the chosen candidate was cut.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pytest

from tests.serve.fakes import TOKENIZER, Running, Typist, eventually, running
from zaya.engine.engine import Engine
from zaya.engine.types import Structure
from zaya.model.config import preset
from zaya.model.transformer import ZayaModel
from zaya.text import byte_tokenizer
from zaya.ttc.config import PRESETS, RsaConfig
from zaya.ttc.rsa import solve

CHAT = "/v1/chat/completions"
QUESTION = r"Is \frac{1}{2} in {0, 1}? 日本"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}]}
SMALL = {"population": 4, "fan_in": 2, "rounds": 2, "think_budget": 60, "tail_tokens": 20, "final_budget": 80}


def script(prompt: str, seed: int, index: int) -> str:
    """Answers that differ, and reasoning that says what was read."""
    attempts = prompt.count("Attempt ")
    return f"{attempts} read, {seed % 1000} 日{{}}\n</think>\n\nIt is \\boxed{{{seed % 3}}}."


def body(**more: Any) -> dict[str, Any]:
    return {**ASK, "rsa": {**SMALL, "seed": 5, **more}}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Typist(script)) as found:
        yield found


def settings(server: Running, asked: Mapping[str, Any]) -> dict[str, Any]:
    status, answer, _ = server.send(CHAT, {**ASK, **asked})
    assert status == 200, answer
    return answer["rsa"]["settings"]


# ----- 1


@pytest.mark.parametrize("more", [{}, {"final_workers": 4}, {"selection": "aggregate"}, {"fan_in": 1}, {"rounds": 0}])
def test_the_same_solution(server: Running, more: dict[str, Any]) -> None:
    status, answer, _ = server.send(CHAT, body(**more))
    assert status == 200, answer
    rsa, message = answer["rsa"], answer["choices"][0]["message"]
    names = RsaConfig.__dataclass_fields__
    config = RsaConfig(**{name: value for name, value in rsa["settings"].items() if name in names})
    expected = solve(
        ASK["messages"], Typist(script), TOKENIZER, config=config, seed=5, selection=rsa["settings"]["selection"]
    )
    assert (message["content"], message["reasoning"]) == (expected.text, expected.reasoning)
    assert message["reasoning_content"] == message["reasoning"]
    assert "read" in message["reasoning"]
    assert "It is" in message["content"]
    assert "</think>" not in json.dumps(message)
    assert (rsa["answer"], rsa["selection"], rsa["stages"]) == (
        expected.answer, expected.selection, config.rounds + 1,
    )  # fmt: skip
    assert [(each["answer"], each["count"]) for each in rsa["tally"]] == list(expected.tally)
    assert rsa["answers"] == [candidate.answer for candidate in expected.candidates]
    counted = ("requests", "prompt_tokens", "cached_tokens", "generated_tokens", "finished", "truncated")
    for told, round in zip(rsa["rounds"], expected.rounds, strict=True):
        assert {name: told[name] for name in counted} == {name: getattr(round, name) for name in counted}
    used = expected.usage
    assert answer["usage"] == {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.generated_tokens,
        "total_tokens": used.prompt_tokens + used.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
    }
    assert used.generated_tokens > 30


def test_a_seed_is_told_and_gives_the_same_again(server: Running) -> None:
    _, first, _ = server.send(CHAT, {**ASK, "rsa": SMALL})
    seed = first["rsa"]["settings"]["seed"]
    assert 0 <= seed < 1 << 53
    _, again, _ = server.send(CHAT, {**ASK, "seed": seed, "rsa": SMALL})
    assert again["choices"] == first["choices"]
    _, other, _ = server.send(CHAT, {**ASK, "rsa": SMALL})
    assert other["rsa"]["settings"]["seed"] != seed


def test_candidates(server: Running) -> None:
    _, answer, _ = server.send(CHAT, body(return_candidates=True))
    first, second, last = (each["candidates"] for each in answer["rsa"]["rounds"])
    assert (len(first), len(second), len(last)) == (4, 4, 1)
    assert all(candidate["tail"] and not candidate["sources"] for candidate in first)
    assert all(len(set(candidate["sources"])) == 2 for candidate in (*second, *last))
    _, answer, _ = server.send(CHAT, body())
    assert all("candidates" not in each for each in answer["rsa"]["rounds"])


# ----- 2


def test_a_stream(server: Running) -> None:
    _, whole, _ = server.send(CHAT, body(final_workers=4))
    with server.client() as client:
        chunks = list(
            client.chat.completions.create(
                model="m", stream=True, stream_options={"include_usage": True}, messages=ASK["messages"],
                extra_body={"rsa": {**SMALL, "seed": 5, "final_workers": 4}},
            )
        )  # fmt: skip
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    deltas = [choice.delta.model_dump(exclude_none=True) for chunk in chunks for choice in chunk.choices]
    message = whole["choices"][0]["message"]
    for key in ("content", "reasoning", "reasoning_content"):
        assert "".join(delta.get(key, "") for delta in deltas) == message[key]
    is_progress = ["rsa_progress" in delta for delta in deltas]
    assert deltas[0]["role"] == "assistant"
    assert is_progress.index(True) == 1
    told = [event for delta in deltas for event in delta.get("rsa_progress", {}).get("events", ())]
    kinds = Counter(event["kind"] for event in told if event["kind"] != "grow")
    assert kinds == {"plan": 1, "start": 12, "end": 12, "round": 3, "choice": 1}
    others = [event for event in told if event["kind"] != "grow"]
    assert [event["at"] for event in others] == sorted(event["at"] for event in others)
    assert others[-1]["answer"] == whole["rsa"]["answer"]
    ended = {(e["round"], e["worker"]): e["answer"] for e in told if e["kind"] == "end"}
    assert [ended[2, worker] for worker in range(4)] == whole["rsa"]["answers"]
    *_, end, last = chunks
    assert (end.choices[0].finish_reason, last.choices) == ("stop", [])
    assert end.model_dump()["rsa"]["settings"] == whole["rsa"]["settings"]
    assert last.usage.model_dump(exclude_none=True) == whole["usage"]


def test_what_a_picture_needs() -> None:
    """Shares of a round, lines between them and who was chosen can be drawn from the stream, and from its end alone."""

    def halves(prompt: str, seed: int, index: int) -> str:
        """Two answers in four words, and none."""
        words = ["\\boxed{1/2}", "\\boxed{0.5}", "\\boxed{7}", "\\boxed{7.0}", "none"]
        return f"{prompt.count('Attempt ')}\n</think>\n\n{words[seed % 5]}"

    def halved(answer: str | None) -> float | None:
        return None if answer is None else {"1/2": 0.5}.get(answer) or float(answer)

    asked = body(population=8, final_workers=5)
    with running(Typist(halves)) as server:
        *_, last = chunks = server.events(CHAT, asked)
        _, whole, _ = server.send(CHAT, asked)
    told = [
        event for c in chunks for e in c["choices"] for event in e["delta"].get("rsa_progress", {}).get("events", ())
    ]
    plan = told[0]
    assert plan["kind"] == "plan"
    assert plan["settings"] == last["rsa"]["settings"]
    sizes = [{"workers": 8, "budget": 60}, {"workers": 8, "budget": 60}, {"workers": 5, "budget": 80}]
    assert plan["rounds"] == sizes
    ends = [event for event in told if event["kind"] == "end"]
    of_groups: dict[int | None, set[float | None]] = {}
    for event in ends:
        of_groups.setdefault(event["group"], set()).add(halved(event["answer"]))
    assert sorted(map(repr, of_groups.values())) == ["{0.5}", "{7.0}", "{None}"]
    assert of_groups[None] == {None}
    assert [halved(answer) for answer in last["rsa"]["groups"]] == [next(iter(of_groups[k])) for k in range(2)]
    begun = {(e["round"], e["worker"]): e["sources"] for e in told if e["kind"] == "start"}
    ended = {(e["round"], e["worker"]): e for e in ends}
    for number, each in enumerate(last["rsa"]["rounds"]):
        assert [one["worker"] for one in each["rollouts"]] == list(range(sizes[number]["workers"]))
        assert each["budget"] == sizes[number]["budget"]
        for one in each["rollouts"]:
            event = ended[number, one["worker"]]
            assert {name: event[name] for name in one} == one
            assert one["sources"] == begun[number, one["worker"]]
    chosen = last["rsa"]["chosen"]
    assert {name: told[-1][name] for name in ("kind", "round", "worker")} == {"kind": "choice", **chosen}
    assert chosen["round"] == 2
    assert ended[2, chosen["worker"]]["answer"] == last["rsa"]["answer"]
    assert whole["rsa"]["chosen"] == chosen


def test_who_was_chosen(server: Running) -> None:
    _, answer, _ = server.send(CHAT, body(selection="aggregate"))
    assert answer["rsa"]["chosen"] == {"round": 3, "worker": 0}
    assert [one["worker"] for one in answer["rsa"]["closing"]["rollouts"]] == [0]
    with running(Slow(script, hold_after=-1)) as slow:
        _, answer, _ = slow.send(CHAT, body(deadline_s=1))
    assert answer["rsa"]["partial"]
    assert answer["rsa"]["chosen"]["round"] == 0


def test_it_is_never_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    from zaya.serve import rsa

    monkeypatch.setattr(rsa, "_TICK_S", 0.01)
    monkeypatch.setattr(rsa, "_SILENCE_S", 0.03)
    typist = Typist(script, hold_after=3)
    with running(typist) as server:
        connection = server.connection()
        connection.request("POST", CHAT, json.dumps({**body(), "stream": True}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        quiet = 0
        while quiet < 3:
            quiet += b'"rsa_progress":{"events":[]}' in answer.readline()
        typist.go_on.set()
        assert answer.read().endswith(b"data: [DONE]\n\n")
        connection.close()


# ----- 3


def test_precedence(server: Running) -> None:
    micro = asdict(PRESETS["micro"])
    expected = {**micro, "final_workers": 1, "preset": "micro", "selection": "auto", "retries": 1}
    for asked in (True, "micro", {}, {"preset": "micro"}):
        found = settings(server, {"rsa": asked})
        assert {name: found[name] for name in expected} == expected
        assert found["max_concurrency"] == 8
    found = settings(server, {"rsa": {"temperature": 0.5}, "temperature": 0.7, "top_p": 0.9, "max_tokens": 100})
    assert (found["temperature"], found["top_p"], found["final_budget"]) == (0.5, 0.9, 100)
    found = settings(server, {"rsa": {"final_budget": 90}, "max_completion_tokens": 100, "top_k": -1})
    assert (found["final_budget"], found["top_k"]) == (90, None)
    assert settings(server, {"rsa": {"seed": 4}, "seed": 3})["seed"] == 4


def test_what_was_not_given_follows(server: Running) -> None:
    found = settings(server, {"rsa": {"population": 2, "think_budget": 30, "final_budget": 20}})
    assert (found["fan_in"], found["tail_tokens"], found["answer_reserve"]) == (2, 30, 10)
    found = settings(server, {"rsa": {"selection": "majority"}})
    assert found["final_workers"] is None
    found = settings(server, {"rsa": {"selection": "majority", "final_workers": 3}})
    assert found["final_workers"] == 3


def test_off_is_an_ordinary_chat(server: Running) -> None:
    for asked in ({"rsa": False}, {"rsa": None}, {"rsa_t": 0}, {"rsa_t": -1, "rsa_n": 5}, {"rsa_n": None}):
        status, answer, _ = server.send(CHAT, {**ASK, **asked})
        assert (status, "rsa" in answer) == (200, False)


@pytest.fixture(scope="module")
def roomy() -> Iterator[Running]:
    """Everything that the proxy does by default fits."""
    with running(Typist(script, context=100_000)) as found:
        yield found


def test_the_proxy_by_default(roomy: Running) -> None:
    _, answer, _ = roomy.send(CHAT, {**ASK, "rsa_t": 8, "max_tokens": 61440})
    found = answer["rsa"]["settings"]
    expected = {
        "rounds": 8, "population": 32, "fan_in": 4, "think_budget": 32768, "tail_tokens": 4096, "final_budget": 61440,
        "final_workers": 1, "temperature": 1.0, "top_p": 1.0, "top_k": None, "final_temperature": 0.6,
        "final_top_p": 0.95, "final_top_k": 40, "compaction": "tail", "preset": None, "max_concurrency": 32,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert sum(each["requests"] for each in answer["rsa"]["rounds"]) == 8 * 32 + 1
    assert answer["rsa"]["warnings"] == []
    told = {
        "rsa_iterations": 8, "rsa_k": 4, "rsa_n": 32, "rsa_summarize": False, "rsa_tail_window": True,
        "tail_window_len": 4096, "short_resp_len": 32768, "use_pacore": False, "rsa_max_concurrency": 32,
        "rsa_debug": False,
    }  # fmt: skip
    assert answer["rsa_metadata"] == told


def test_the_fields_of_the_proxy() -> None:
    asked = {
        "rsa_t": 1, "rsa_k": 3, "n": 5, "rsa_use_tail_window": True, "rsa_tail_window_len": 20, "short_resp_len": 50,
        "rsa_final_n": 0, "final_temperature": 0.1, "final_top_p": 0.5, "final_top_k": 0, "rsa_max_concurrency": 2,
        "rsa_debug": True, "return_rsa_metadata": False, "max_tokens": 70, "seed": 9, "temperature": 0.8, "top_k": 7,
    }  # fmt: skip
    typist = Typist(script)
    with running(typist) as server:
        _, answer, _ = server.send(CHAT, {**ASK, **asked})
    assert "rsa_metadata" not in answer
    found = answer["rsa"]["settings"]
    assert (found["rounds"], found["fan_in"], found["population"], found["final_workers"]) == (1, 3, 5, 5)
    assert (found["tail_tokens"], found["max_concurrency"], found["seed"]) == (20, 2, 9)
    params = [(r.params.max_tokens, r.params.temperature, r.params.top_p, r.params.top_k) for r in typist.requests]
    assert sorted(params) == [(50, 0.8, 1.0, 7)] * 5 + [(70, 0.1, 0.5, 7)] * 5


# ----- 4


def test_what_is_cut() -> None:
    typist = Typist(script)
    with running(typist, max_rsa_population=3) as server:
        _, answer, _ = server.send(CHAT, body(population=40, fan_in=30, final_workers=20))
        found = answer["rsa"]["settings"]
        assert (found["population"], found["fan_in"], found["final_workers"]) == (3, 3, 3)
        assert answer["rsa"]["warnings"][0] == "population was lowered from 40 to 3: 3 are allowed"
    # 2 rounds of n rollouts of 60 tokens, and a last one of 80
    with running(Typist(script), max_rsa_tokens=2 * 3 * 60 + 80) as server:
        _, answer, _ = server.send(CHAT, body(population=4))
        assert answer["rsa"]["settings"]["population"] == 3
        assert answer["rsa"]["warnings"][0].endswith("440 tokens are allowed")
        _, answer, _ = server.send(CHAT, body(population=3))
        assert answer["rsa"]["settings"]["population"] == 3
        status, answer, _ = server.send(CHAT, body(think_budget=500))
        assert (status, answer["error"]["param"]) == (400, "rsa")
        assert "a population of 1 may draw 1,080 tokens, and 440 are allowed" in answer["error"]["message"]


# ----- 5

TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"rsa": {"populaton": 3}}, "rsa.populaton", "did you mean population?"),
    ({"rsa": {"xyz": 3}}, "rsa.xyz", "unknown field"),
    ({"rsa": "deplo"}, "rsa", "did you mean deploy?"),
    ({"rsa": {"preset": "micr"}}, "rsa.preset", "did you mean micro?"),
    ({"rsa": 1}, "rsa", "should be"),
    ({"rsa": {"population": 0}}, "rsa.population", "greater than or equal to 1"),
    ({"rsa": {"rounds": 65}}, "rsa.rounds", "64"),
    ({"rsa": {"rounds": True}}, "rsa.rounds", "integer"),
    ({"rsa": {"deadline_s": 0}}, "rsa.deadline_s", "greater than 0"),
    ({"rsa": {"selection": "external"}}, "rsa.selection", "majority"),
    ({"rsa": {"fan_in": 5, "population": 4}}, "rsa.fan_in", "between 1 and population"),
    ({"rsa": {"tail_tokens": 500}}, "rsa.tail_tokens", "think_budget"),
    ({"rsa": {"selection": "single", "final_workers": 2}}, "rsa.selection", "one final rollout"),
    ({"rsa": True, "n": 2}, "n", "does not go with rsa"),
    ({"rsa": True, "tools": [TOOL]}, "tools", "a request of its own"),
    ({"rsa": True, "guided_regex": "a", "guided_choice": ["b"]}, "guided_regex, guided_choice", "one structure"),
    ({"rsa": True, "logprobs": True}, "logprobs", "does not go with rsa"),
    ({"rsa": True, "stop": "x"}, "stop", "does not go with rsa"),
    ({"rsa": True, "reasoning_effort": "low"}, "reasoning_effort", "rsa.think_budget"),
    ({"rsa": True, "thinking_token_budget": 0}, "thinking_token_budget", "rsa.think_budget"),
    ({"rsa": True, "tool_choice": "required"}, "tool_choice", "a request of its own"),
    ({"rsa": True, "repetition_penalty": 1.1}, "repetition_penalty", "does not go with rsa"),
    ({"rsa": True, "chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs", "every rollout thinks"),
    ({"rsa": True, "rsa_t": 2}, "rsa_t", "in two ways"),
    ({"rsa_t": 2, "rsa_summarize": True}, "rsa_summarize", "not offered"),
    ({"use_pacore": True}, "use_pacore", "rsa.compaction"),
    ({"rsa_tail_window": False}, "rsa_tail_window", "not offered"),
    ({"tail_window_len": 3, "rsa_tail_window_len": 4}, "tail_window_len", "different things"),
    ({"rsa_tt": 2}, "rsa_tt", "did you mean rsa_t?"),
    ({"rsa": {"think_budget": 9000, "final_budget": 9000}}, "messages", "the model's context holds 4,096"),
    ({"rsa": True, "prompt": "x"}, "prompt", "unknown field"),
]


@pytest.mark.parametrize(("asked", "param", "words"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_refused(server: Running, asked: dict[str, Any], param: str, words: str, stream: bool) -> None:
    typist = server.served.completer
    assert isinstance(typist, Typist)
    typist.requests.clear()
    status, answer, _ = server.send(CHAT, {**ASK, **asked, "stream": stream})
    assert (status, answer["error"]["type"], answer["error"]["param"]) == (400, "invalid_request_error", param), answer
    assert words in answer["error"]["message"]
    assert not typist.requests


def test_refused_by_its_messages() -> None:
    typist = Typist(script)
    with running(typist, max_prompt_tokens=2000) as server:
        for messages, code, words in (
            ([{"role": "user", "content": "x " * 3000}], "context_length_exceeded", "the question"),
            ([{"role": "user", "content": "x" * 1990}], "context_length_exceeded", "2,000 are allowed"),
            ([*ASK["messages"], {"role": "assistant", "content": "y"}], "invalid_value", "must be a user's question"),
        ):
            status, answer, _ = server.send(CHAT, {"messages": messages, "rsa": SMALL})
            assert (status, answer["error"]["code"]) == (400, code), answer
            assert words in answer["error"]["message"]
        status, answer, _ = server.send("/v1/completions", {"prompt": "x", "rsa": True})
        assert (status, answer["error"]["param"]) == (400, "rsa")
    assert not typist.requests
    assert server.served.gate.pending == 0


def test_habits_and_what_says_nothing(server: Running) -> None:
    neutral = {
        "n": 1, "tools": [], "response_format": {"type": "text"}, "logprobs": False, "presence_penalty": 0,
        "repetition_penalty": 1, "user": "x", "store": True, "chat_template_kwargs": {"enable_thinking": True},
    }  # fmt: skip
    assert server.send(CHAT, {**body(), **neutral})[0] == 200
    developer = [{"role": "developer", "content": "Be brief."}, *ASK["messages"]]
    assert server.send(CHAT, {**body(), "messages": developer})[0] == 200


# ----- 6


def test_a_rollout_that_fails() -> None:
    failed: set[int] = set()

    def once(prompt: str, seed: int, index: int) -> str | None:
        if seed % 2 and seed not in failed:
            failed.add(seed)
            return None
        return script(prompt, seed, index)

    def often(prompt: str, seed: int, index: int) -> str | None:
        return None if seed in failed and "Attempt" not in prompt else script(prompt, seed, index)

    with running(Typist(script)) as server:
        _, expected, _ = server.send(CHAT, body())
    with running(Typist(once)) as server:
        _, answer, _ = server.send(CHAT, body())
        assert failed
        assert (answer["choices"], answer["rsa"]["answers"]) == (expected["choices"], expected["rsa"]["answers"])
    with running(Typist(often)) as server:
        _, answer, _ = server.send(CHAT, body(retries=0))
    lost = answer["rsa"]["rounds"][0]["lost"]
    assert lost == {"RuntimeError": 4 - answer["rsa"]["rounds"][0]["finished"]}
    assert 0 < lost["RuntimeError"] < 4
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_a_dead_round(stream: bool) -> None:
    def dies(prompt: str, seed: int, index: int) -> str | None:
        return None if "Attempt" in prompt else script(prompt, seed, index)

    with running(Typist(dies)) as server:
        if stream:
            *_, last = server.events(CHAT, body())
            error = last["error"]
        else:
            status, answer, _ = server.send(CHAT, body())
            assert status == 502
            error = answer["error"]
        assert eventually(lambda: server.served.gate.pending == 0)
    assert (error["type"], error["code"]) == ("server_error", "dead_round")
    assert error["message"] == "every rollout of round 1 failed, after 1 of 3 rounds: 4 RuntimeError"


class Slow(Typist):
    """Types what the first round is asked, and nothing more until it is told to."""

    def _one(self, request: Any, index: int, handle: Any, stop: threading.Event) -> None:
        if self.hold_after is not None and "Attempt" in str(request.messages):
            while not (stop.is_set() or self.go_on.wait(0.005)):
                pass
        super()._one(request, index, handle, stop)


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_gives_what_there_is(stream: bool) -> None:
    with running(Slow(script, hold_after=-1)) as server:
        asked = body(deadline_s=1)
        answer = server.events(CHAT, asked)[-1] if stream else server.send(CHAT, asked)[1]
        assert eventually(lambda: server.served.gate.pending == 0)
    rsa = answer["rsa"]
    assert (rsa["partial"], rsa["stopped"], len(rsa["rounds"])) == (True, "deadline", 1)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert rsa["answer"] is not None


def test_the_deadline_of_the_server_gives_what_there_is() -> None:
    with running(Slow(script, hold_after=-1), deadline_s=1) as server:
        status, answer, _ = server.send(CHAT, body())
    assert (status, answer["rsa"]["partial"]) == (200, True)


def test_nothing_by_the_deadline() -> None:
    typist = Typist(script, hold_after=3)
    with running(typist) as server:
        status, answer, _ = server.send(CHAT, body(deadline_s=0.2))
        assert (status, answer["error"]["code"]) == (504, "deadline_exceeded")
        assert typist.cancelled.wait(5)


# ----- 7


class Counting(Typist):
    """Counts what is under way."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.running = 0
        self.most = 0
        self.lock = threading.Lock()

    def _one(self, request: Any, index: int, handle: Any, stop: threading.Event) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        super()._one(request, index, handle, stop)

    def _completion(self, prompt: Any, state: Any) -> Any:
        with self.lock:
            self.running -= 1  # before anybody hears of it, and its place is taken
        return super()._completion(prompt, state)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes(stream: bool) -> None:
    typist = Counting(script, hold_after=10)
    data = json.dumps({**body(), "stream": stream}).encode()
    with running(typist) as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
        connection.sendall(f"{head}\r\n\r\n".encode() + data)
        assert eventually(lambda: typist.running == 4)
        assert server.served.gate.pending == 4
        connection.close()
        assert eventually(lambda: typist.running == 0)
        assert eventually(lambda: server.served.gate.pending == 0 and bool(server.log))
        assert len(typist.requests) == 4
        typist.go_on.set()
        assert server.send(CHAT, body())[0] == 200
    assert server.log[0]["status"] == 499


def test_a_stop() -> None:
    typist = Counting(script, hold_after=10)
    found: list[Any] = []
    with running(typist, drain_s=0.2) as server:
        asking = threading.Thread(target=lambda: found.append(server.send(CHAT, body())))
        asking.start()
        assert eventually(lambda: typist.running == 4)
    asking.join(5)
    [(status, answer, _)] = found
    assert (status, answer["error"]["code"]) == (503, "stopping")
    assert eventually(lambda: typist.running == 0)


def test_no_room_for_all_of_them() -> None:
    typist = Counting(script, hold_after=10)
    with running(typist, max_pending=6) as server:
        asking = threading.Thread(target=lambda: server.send(CHAT, body()))
        asking.start()
        assert eventually(lambda: typist.running == 4)
        status, answer, _ = server.send(CHAT, body())
        assert (status, answer["error"]["code"]) == (429, "queue_full")
        typist.go_on.set()
        asking.join(5)
        assert server.send(CHAT, body())[0] == 200


# ----- 8


def test_rollouts_come_behind_others() -> None:
    typist = Typist(script)
    with running(typist) as server:
        server.send(CHAT, {**body(), "cache_salt": "s"})
        rollouts = [(request.priority, request.cache_salt) for request in typist.requests]
        typist.requests.clear()
        server.send(CHAT, ASK)
        assert rollouts == [(-1, "s")] * 9
        assert [request.priority for request in typist.requests] == [0]
        typist.requests.clear()
        server.send(CHAT, {**body(), "priority": 3})
        assert {request.priority for request in typist.requests} == {-4}


def test_rollouts_of_all_requests_share_a_part() -> None:
    typist = Counting(script, hold_after=5)
    with running(typist, max_rsa_running=3) as server:
        threads = [threading.Thread(target=lambda: server.send(CHAT, body())) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert eventually(lambda: typist.running == 3)
        assert eventually(lambda: server.served.gate.pending == 8)
        typist.go_on.set()
        for thread in threads:
            thread.join(10)
        assert typist.most == 3
        assert len(typist.requests) == 18


def test_others_are_not_starved() -> None:
    """The engine has four places and two are for rollouts; ordinary chats find the others, and do not wait."""
    model = ZayaModel(preset("micro", vocab_size=280, max_positions=100_000), precision="float32", seed=3)
    with Engine(model, byte_tokenizer(), max_batch=4, pages=4000) as engine:
        with running(engine, byte_tokenizer(), max_rsa_running=2, deadline_s=60) as server:
            long = {**SMALL, "population": 8, "think_budget": 20_000, "final_budget": 20_000, "seed": 1}
            data = json.dumps({**ASK, "rsa": long}).encode()
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
            connection.sendall(f"{head}\r\n\r\n".encode() + data)
            assert eventually(lambda: engine.stats.running == 2)
            status, answer, _ = server.send(CHAT, {**ASK, "max_tokens": 5, "ignore_eos": True, "n": 2})
            assert (status, answer["usage"]["completion_tokens"]) == (200, 10)
            assert (engine.stats.running, engine.stats.waiting) == (2, 0)
            connection.close()
            assert eventually(lambda: engine.stats.running == engine.stats.waiting == 0)
        engine.check()


# ----- 9


def test_a_structure_is_for_the_end() -> None:
    typist = Typist(lambda prompt, seed, index: "a\n</think>\n\n{}")
    with running(typist) as server:
        asked = {**body(final_workers=3), "response_format": {"type": "json_object"}}
        status, answer, _ = server.send(CHAT, asked)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "{}")
    assert (answer["rsa"]["selection"], answer["rsa"]["closing"]["requests"]) == ("aggregate", 1)
    structure = Structure(kind="json", value={})
    first, *others = typist.requests
    assert (first.params.structure, first.params.max_tokens) == (structure, 1)
    held = [request.params for request in others if request.params.structure is not None]
    assert (len(others), [params.structure for params in held]) == (12, [structure] * 4)
    assert {params.max_tokens for params in held} == {80}


def test_a_structure_that_an_earlier_round_lacks() -> None:
    with running(Slow(script, hold_after=-1)) as server:
        status, answer, _ = server.send(CHAT, {**body(deadline_s=1), "guided_regex": "[0-9]"})
    assert (status, answer["error"]["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize("stream", [False, True])
def test_the_engine_holds_a_structure(stream: bool) -> None:
    model = ZayaModel(preset("micro", vocab_size=280, max_positions=4096), precision="float32", seed=3)
    with (
        Engine(model, byte_tokenizer(), max_batch=8, pages=4000) as engine,
        running(engine, byte_tokenizer()) as server,
    ):
        status, answer, _ = server.send(CHAT, {**body(), "guided_choice": ["yes", "no"]})
        assert status == 200, answer
        assert answer["choices"][0]["message"]["content"] in ("yes", "no")
        drawn = engine.stats.passes
        status, answer, _ = server.send(CHAT, {**body(), "guided_regex": "(?=a)b", "stream": stream})
        assert (status, answer["error"]["code"]) == (400, "invalid_value"), answer
        assert engine.stats.passes == drawn


# ----- 10


def test_length_only_where_the_chosen_was_cut() -> None:
    """Rollouts of the first rounds are cut; the last one ends. Then the other way round."""
    long = "x" * 300

    def cut_first(prompt: str, seed: int, index: int) -> str:
        return script(prompt, seed, index) if prompt.count("Attempt ") else f"{long}\n</think>\n\n1"

    def cut_last(prompt: str, seed: int, index: int) -> str:
        return f"a\n</think>\n\n{long}" if prompt.count("Attempt ") else script(prompt, seed, index)

    for said, reason, truncated in ((cut_first, "stop", [4, 0, 0]), (cut_last, "length", [0, 4, 1])):
        with running(Typist(said)) as server:
            _, answer, _ = server.send(CHAT, body())
            events = server.events(CHAT, body())
        assert answer["choices"][0]["finish_reason"] == reason
        assert events[-1]["choices"][0]["finish_reason"] == reason
        assert [each["truncated"] for each in answer["rsa"]["rounds"]] == truncated
