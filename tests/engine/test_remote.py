"""Completions from a server, over a real connection on the loopback.

1. Ids are those that the server says; else those of the bytes of its log-probabilities; else its text encoded again,
   and marked; without a tokenizer pieces stand for them, as many as the server counted.
2. Reasoning comes from either field, or from the content up to its first closing tag, once. Texts are those of the
   engine. Characters may be cut between packets, and halves of one between events.
3. A request says what was asked for, and nothing beyond OpenAI's fields that was not. What a server refuses of the rest
   is left out, and refused once only.
4. 429, 5xx, garbage, silence and streams that break off are tried again, a bounded number of times, and in the end
   counted by kind; the neighbours come. 429 makes everybody wait, as long as the server says.
5. What cannot work is a UsageError at once, with the server's words, a hint, and without the key.
6. `n` completions have seeds of their own; the first has the request's. At most `max_connections` are under way.
7. Who cancels gets what there is, and the connection is closed. So it is by `close`, and nobody waits for ever.
8. A completion that breaks off is not begun anew where somebody has seen some of it.
9. Reasoning that uses up its budget is closed: by the server, from ids, or from the text; or it stays cut, with a
   warning.
10. Markovian RSA over HTTP gives the solution that it gives in this process.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import pytest

import zaya
from tests.engine.fake_server import Answer, FakeServer, Out, chunk, served, usage
from zaya.engine.remote import RemoteCompleter
from zaya.engine.scripted import ScriptedCompleter
from zaya.engine.transport import ServerError
from zaya.engine.types import Completion, FinishReason, Request, SamplingParams, Structure
from zaya.errors import UsageError
from zaya.text import byte_tokenizer, parse, render
from zaya.ttc.rsa import RsaConfig, solve
from zaya.ttc.tails import carry

TOKENIZER = byte_tokenizer([("a", "b"), ("ab", "ab")])
QUESTION = [{"role": "user", "content": "?"}]
ASK = Request(messages=QUESTION)
GOOD = [chunk(content="4"), chunk("stop", content="2")]


def says(events: Iterable[Mapping[str, Any]], **options: bool) -> Answer:
    events = list(events)
    return lambda server, path, body, out: out.stream(events, **options)


@contextmanager
def remote(
    answer: Answer, models: list[dict[str, Any]] | None = None, **options: Any
) -> Iterator[tuple[FakeServer, RemoteCompleter]]:
    settings = {"timeout_s": 10, "backoff_s": 0.01, "retries": 3, **options}
    with (
        FakeServer(answer, models or [{"id": "m"}]) as server,
        RemoteCompleter(settings.pop("base_url", server.url), settings.pop("model", "m"), **settings) as completer,
    ):
        yield server, completer


def one(answer: Answer, request: Request = ASK, **options: Any) -> Completion:
    with remote(answer, **options) as (_, completer):
        [[completion]] = completer.complete([request])
        return completion


# ----- 1: ids

THOUGHT, SAID = "abab\n", "日é42"
IDS = tuple(TOKENIZER.encode(f"{THOUGHT}</think>\n\n{SAID}<|im_end|>", bos=False))


def with_ids(**more: Any) -> list[dict[str, Any]]:
    events = [chunk(reasoning="abab", choice={"token_ids": IDS[:2]}) | more]
    events += [chunk(content=SAID, choice={"token_ids": IDS[2:]}), chunk("stop"), usage(2, len(IDS), 1)]
    return events


def with_logprobs(ids: tuple[int, ...] = IDS) -> list[dict[str, Any]]:
    events = []
    for id in ids:
        spelled = TOKENIZER.token_bytes(id)
        token = {"token": spelled.decode("utf-8", "replace"), "bytes": list(spelled), "logprob": -1.0}
        events.append(chunk(choice={"logprobs": {"content": [token]}}))
    events[0]["choices"][0]["delta"] = {"reasoning_content": "abab"}
    events[-1]["choices"][0]["delta"] = {"content": SAID}
    return [*events, chunk("stop"), usage(7, len(ids))]


def test_ids_that_the_server_says() -> None:
    completion = one(says(with_ids(prompt_token_ids=[5, 6])), tokenizer=TOKENIZER)
    assert (completion.ids, completion.is_approximate, completion.pieces) == (IDS, False, None)
    assert completion.prompt_ids == (5, 6)  # no thinking was opened, by these ids
    assert (completion.prompt_tokens, completion.cached_tokens, completion.generated_tokens) == (2, 1, len(IDS))
    assert completion.stop_reason == TOKENIZER.tags.turn_close


@pytest.mark.parametrize("events", [with_ids(), with_logprobs()], ids=["token_ids", "logprobs"])
def test_what_is_exact_is_as_in_the_engine(events: list[dict[str, Any]]) -> None:
    completion = one(says(events), tokenizer=TOKENIZER)
    text = f"{THOUGHT}</think>\n\n{SAID}"
    [[expected]] = ScriptedCompleter(TOKENIZER, lambda *_: text).complete([ASK])
    for name in ("ids", "text", "reasoning", "reasoning_ids", "prompt_ids", "is_closed", "finish_reason"):
        assert getattr(completion, name) == getattr(expected, name), name
    assert not completion.is_approximate
    assert completion.generated_tokens == len(IDS)


def test_what_the_server_counts_decides_whether_ids_are_all() -> None:
    events = [*with_ids()[:-1], usage(2, len(IDS) + 1)]
    completion = one(says(events), tokenizer=TOKENIZER)
    assert completion.is_approximate
    assert completion.generated_tokens == len(IDS) + 1


def test_text_is_encoded_again_and_marked() -> None:
    events = [chunk(reasoning="abab"), chunk("stop", content=SAID), usage(7, 30)]
    completion = one(says(events), tokenizer=TOKENIZER)
    assert completion.is_approximate
    assert (completion.text, completion.reasoning, completion.is_closed) == (SAID, "abab", True)
    assert completion.ids == tuple(TOKENIZER.encode(f"abab\n</think>\n\n{SAID}<|im_end|>", bos=False))
    assert TOKENIZER.decode(completion.reasoning_ids) == "abab"
    assert completion.prompt_ids == tuple(render(TOKENIZER, QUESTION).ids)
    assert (completion.generated_tokens, completion.prompt_tokens) == (30, 7)


def test_bytes_of_tokens_stand_for_ids() -> None:
    completion = one(says(with_logprobs()))
    assert completion.is_approximate
    assert completion.ids == ()
    assert completion.pieces == tuple(TOKENIZER.token_bytes(id) for id in IDS)
    assert completion.reasoning_pieces == (b"abab", b"\n")
    assert completion.generated_tokens == len(IDS)
    # two characters of three and two bytes, tokens each: the tail is cut as if ids were known
    assert carry(None, completion, "hybrid", 100) == SAID
    assert [carry(None, completion, "hybrid", n) for n in (7, 6)] == ["...é42", "...42"]
    assert carry(TOKENIZER, completion, "tail", 5) == "abab"


def test_without_anything_text_is_cut_evenly() -> None:
    thought = "0123456789" * 4
    completion = one(says([chunk(reasoning=thought), chunk("stop", content="0123456789"), usage(7, 25)]))
    assert completion.pieces is not None
    assert len(completion.pieces) == completion.generated_tokens == 25
    assert completion.reasoning_pieces == tuple(thought[i : i + 2].encode() for i in range(0, 40, 2))
    assert b"".join(completion.pieces).decode() == thought + "0123456789"
    assert carry(None, completion, "tail", 8) == "..." + thought[-10:]  # 5 tokens of 2 characters, and 3 for the dots


def test_without_a_count_an_event_is_a_token() -> None:
    completion = one(says([chunk(reasoning="x"), chunk(reasoning="y"), chunk(content="z"), chunk("stop")]))
    assert completion.generated_tokens == 3
    assert completion.pieces == (b"x", b"y", b"z")


def test_the_wrong_tokenizer_is_noticed() -> None:
    other = byte_tokenizer([("q", "r"), ("qr", "qr")])
    ids = TOKENIZER.encode("abababab is it", bos=False)
    events = [chunk(content="abababab is it", choice={"token_ids": ids}), chunk("stop")]
    with pytest.raises(UsageError, match="not that of the server"):
        one(says(events), tokenizer=other)


# ----- 2: texts


@pytest.mark.parametrize(
    ("events", "reasoning", "text"),
    [
        ([{"reasoning": "a\n"}, {"content": "\n\n42"}], "a", "42"),
        ([{"reasoning_content": "a"}, {"reasoning_content": "b"}, {"content": "42"}], "ab", "42"),
        ([{"reasoning": "a", "reasoning_content": "a"}, {"content": "42"}], "a", "42"),
        ([{"content": "a</thi"}, {"content": "nk>\n\n4"}, {"content": "2"}], "a", "42"),
        ([{"content": "<think>\na\n</think>\n42"}], "a", "42"),
        ([{"content": "a</think>the tag </think> ends it"}], "a", "the tag </think> ends it"),
        ([{"reasoning": "a"}, {"content": "the tag </think> ends it"}], "a", "the tag </think> ends it"),
        ([{"content": "42"}], "", "42"),  # a model that does not think
    ],
)
def test_reasoning_and_answer(events: list[dict[str, str]], reasoning: str, text: str) -> None:
    completion = one(says([*(chunk(**delta) for delta in events), chunk("stop")]))
    assert (completion.reasoning, completion.text, completion.is_closed) == (reasoning, text, True)


@pytest.mark.parametrize("events", [[{"reasoning": "still"}], [{"content": "still"}], [{"content": "<think>still"}]])
def test_reasoning_that_is_cut(events: list[dict[str, str]]) -> None:
    completion = one(says([*(chunk(**delta) for delta in events), chunk("length")]))
    assert (completion.reasoning, completion.text, completion.is_closed) == ("still", "", False)
    assert completion.finish_reason is FinishReason.LENGTH


def test_characters_cut_anywhere() -> None:
    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        out.begin()
        line = 'data: {"choices": [{"delta": {"content": "日\u2028𝄞"}, "finish_reason": null}]}\n\n'.encode()
        for byte in line:
            out.write(bytes([byte]))
        halves = [
            '{"choices": [{"delta": {"content": "\\ud834"}}]}',
            '{"choices": [{"delta": {"content": "\\udd1e!"}}]}',
        ]
        for half in halves:
            out.write(f": a comment\n\nevent: x\ndata:{half}\r\n\r\n".encode())
        out.event(chunk("stop"))

    assert one(answer, Request(messages=QUESTION, thinking=False)).text == "日\u2028𝄞𝄞!"


def test_an_answer_that_is_no_stream() -> None:
    message = {"role": "assistant", "content": "42", "reasoning": "hm"}
    whole = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}
    completion = one(lambda server, path, body, out: out.json(whole))
    assert (completion.reasoning, completion.text, completion.generated_tokens) == ("hm", "42", 3)


def test_calls_that_the_server_has_taken_apart() -> None:
    calls = [
        {"index": 0, "id": "x", "function": {"name": "add", "arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": [1, 2]}"}},
    ]
    events = [chunk(content="So:"), *(chunk(tool_calls=[call]) for call in calls), chunk("tool_calls")]
    completion = one(says(events))
    message = parse(completion.text)
    assert message.content.strip() == "So:"
    [call] = message.tool_calls
    assert (call.name, call.arguments, call.complete) == ("add", {"a": [1, 2]}, True)


def test_stop_strings_end_the_text_and_not_the_ids() -> None:
    ids = TOKENIZER.encode("hm</think>one STOP", bos=False)
    events = [chunk(reasoning="hm"), chunk(content="one ", choice={"token_ids": ids}), chunk("stop")]
    completion = one(
        says(events), Request(messages=QUESTION, params=SamplingParams(stop=("STOP",))), tokenizer=TOKENIZER
    )
    assert (completion.text, completion.ids) == ("one ", tuple(ids))


def test_deltas() -> None:
    with remote(says(with_ids()), tokenizer=TOKENIZER) as (_, completer):

        async def listen() -> tuple[list[Any], list[Completion]]:
            handle = completer.submit(ASK)
            return [delta async for delta in handle], await handle.result()

        deltas, [completion] = asyncio.run(listen())
    assert tuple(id for delta in deltas for id in delta.ids) == completion.ids == IDS
    assert "".join(delta.reasoning for delta in deltas) == "abab"
    assert "".join(delta.text for delta in deltas) == SAID
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == [FinishReason.STOP]


# ----- 3: what is asked


def test_a_plain_request_is_openais() -> None:
    with remote(says(GOOD)) as (server, completer):
        completer.complete([Request(messages=QUESTION, seed=7, params=SamplingParams(max_tokens=9, temperature=0.5))])
    assert server.asked == [
        (
            "/v1/chat/completions",
            {
                "model": "m", "messages": QUESTION, "stream": True, "stream_options": {"include_usage": True},
                "max_tokens": 9, "temperature": 0.5, "top_p": 1.0, "seed": 7, "return_token_ids": True,
                "logprobs": True,
            },
        )
    ]  # fmt: skip


def test_everything_that_can_be_asked() -> None:
    params = SamplingParams(
        max_tokens=9, min_tokens=2, top_k=3, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=0.3, logit_bias={4: float("-inf"), 5: 1.0}, stop=("x",), stop_ids=(8,), ignore_eos=True,
        structure=Structure(kind="json", value={"type": "object"}),
    )  # fmt: skip
    with remote(says([{"choices": [{"text": "42", "finish_reason": "stop"}]}])) as (server, completer):
        [[completion]] = completer.complete([Request(prompt_ids=[1, 2], params=params, priority=2, cache_salt="s")])
    assert (completion.text, completion.prompt_ids) == ("42", (1, 2))
    [(path, body)] = server.asked
    assert path == "/v1/completions"
    expected = {
        "prompt": [1, 2], "min_tokens": 2, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": 0.2,
        "frequency_penalty": 0.3, "logit_bias": {"4": -100, "5": 1.0}, "stop": ["x"], "stop_token_ids": [8],
        "ignore_eos": True, "priority": -2, "cache_salt": "s",
    }  # fmt: skip
    assert {name: body[name] for name in expected} == expected
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert "logprobs" not in body


def test_a_known_server_is_told_what_it_might_take_from_the_model() -> None:
    structure = Structure(kind="choice", value=("a", "b"))
    request = Request(messages=QUESTION, thinking=False, params=SamplingParams(structure=structure))
    with remote(says(GOOD), [{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]) as (server, completer):
        assert completer.context == 4096
        completer.complete([request])
    [(_, body)] = server.asked
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0.0, 1.0)
    assert body["structured_outputs"] == {"choice": ["a", "b"]}
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    with remote(says(GOOD)) as (server, completer):
        assert completer.context is None
        with pytest.raises(UsageError, match="structure of the kind choice"):
            completer.complete([request])


def test_what_makes_ids_certain_is_asked_for_once_it_is_known() -> None:
    for events, wanted in ((with_ids(), "return_token_ids"), (with_logprobs(), "logprobs")):
        with remote(says(events)) as (server, completer):
            for _ in range(2):
                completer.complete([ASK])
        assert [sorted({"return_token_ids", "logprobs"} & body.keys()) for _, body in server.asked] == [
            ["logprobs", "return_token_ids"],
            [wanted],
        ]


@pytest.mark.parametrize("names_it", [True, False])
def test_a_strict_server(names_it: bool) -> None:
    known = {"model", "messages", "stream", "max_completion_tokens", "temperature", "top_p", "seed", "stream_options"}

    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        if "max_tokens" in body:
            out.json({"error": {"message": "max_tokens is not supported, use max_completion_tokens instead"}}, 400)
        elif unknown := sorted(body.keys() - known):
            words = f"unrecognized request argument: {unknown[0]}" if names_it else "extra inputs are not permitted"
            out.json({"error": {"message": words}}, 400)
        else:
            out.stream(GOOD)

    with remote(answer) as (server, completer):
        for _ in range(2):
            [[completion]] = completer.complete([ASK])
            assert completion.text == "42"
        assert len(server.asked) == (5 if names_it else 4)  # the second time it is known
        assert (completer.errors, completer.last_error) == ({}, None)


# ----- 4: trouble


def after(trouble: Callable[[Out], object], times: int = 1) -> Answer:
    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        if len(server.asked) <= times:
            trouble(out)
        else:
            out.stream(GOOD)

    return answer


def _reset(out: Out) -> None:
    out.begin(Content_Length="1000")
    out.event(chunk(content="half"))


TROUBLE: dict[str, tuple[str, Callable[[Out], object]]] = {
    "429": ("rate_limit", lambda out: out.json({"error": {"message": "slowly"}}, 429)),
    "500": ("server", lambda out: out.json({"error": {"message": "oops"}}, 500)),
    "502": ("server", lambda out: (out.begin(502, "text/html"), out.write(b"<html>bad gateway"))),
    "503": ("server", lambda out: out.json({"message": "loading"}, 503, Retry_After="0")),
    "garbage": ("garbled", lambda out: (out.begin(), out.write(b"data: {nonsense\n\n"))),
    "a list": ("garbled", lambda out: (out.begin(), out.write(b"data: [1]\n\n"))),
    "html": ("garbled", lambda out: (out.begin(200, "text/html"), out.write(b"<html>hello"))),
    "another": ("garbled", lambda out: out.stream([{"choices": [{"delta": {"content": 5}}]}])),
    "error": ("server", lambda out: out.stream([chunk(content="x"), {"error": {"message": "died", "code": 500}}])),
    "abort": ("broken_off", lambda out: out.stream([chunk("abort", content="x")])),
    "no end": ("broken_off", lambda out: out.stream([chunk(content="half")])),
    "reset": ("broken_off", _reset),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_what_may_work_the_next_time(name: str) -> None:
    kind, trouble = TROUBLE[name]
    with remote(after(trouble, 2)) as (server, completer):
        [[completion]] = completer.complete([ASK])
        assert completion.text == "42"  # and nothing of the half that came before
        assert len(server.asked) == 3
        assert completer.errors == {kind: 2}
        assert completer.failures == {}


def test_retries_are_bounded_and_the_neighbours_come() -> None:
    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        if body["messages"][0]["content"] == "bad":
            out.json({"error": {"message": "oops"}}, 500)
        else:
            out.stream(GOOD)

    bad, progress = Request(messages=[{"role": "user", "content": "bad"}], n=2), []
    with remote(answer) as (server, completer):
        answers = completer.complete([ASK, bad, ASK], on_progress=lambda *step: progress.append(step))
        assert [[c.text for c in completions] for completions in answers] == [["42"], [], ["42"]]
        assert len(server.asked) == 2 + 2 * 4
        assert completer.failures == {"server": 2}
        assert completer.last_failure is not None
        assert "oops" in str(completer.last_failure)
        assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]

        handle = completer.submit(bad)
        assert asyncio.run(handle.result()) == []
        assert {index: type(error) for index, error in handle.failures.items()} == {0: ServerError, 1: ServerError}


def test_silence() -> None:
    let_go = threading.Event()

    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        out.begin()
        out.write(b": hello\n\n")
        let_go.wait(10)

    with remote(answer, timeout_s=0.1, retries=1) as (server, completer):
        assert completer.complete([ASK]) == [[]]
        assert len(server.asked) == 2
        assert completer.failures == {"timeout": 1}
        let_go.set()


def test_a_server_that_never_comes_to_an_end() -> None:
    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        out.begin()
        while True:
            out.event(chunk(content="and "))
            time.sleep(0.02)

    with remote(answer, total_timeout_s=0.4, retries=100) as (server, completer):
        assert completer.complete([ASK]) == [[]]
        assert (len(server.asked), completer.failures) == (1, {"timeout": 1})
        assert server.gone.wait(2)


def test_nobody_there() -> None:
    with RemoteCompleter("http://127.0.0.1:9/v1", "m", retries=2, backoff_s=0.01) as completer:
        assert completer.complete([ASK]) == [[]]
        assert completer.errors == {"connection": 3}
        assert completer.last_error is not None
        assert "cannot be reached" in completer.last_error.message
        assert completer.context is None


@pytest.mark.parametrize(("line", "bound"), [(b"data: " + b"x" * 50, "MOST_LINE"), (b": comment\n", "MOST_BODY")])
def test_what_comes_is_bounded(monkeypatch: pytest.MonkeyPatch, line: bytes, bound: str) -> None:
    monkeypatch.setattr(f"zaya.engine.transport.{bound}", 1000)

    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        out.begin()
        while True:
            out.write(line)

    with remote(answer, retries=0, total_timeout_s=10) as (server, completer):
        assert completer.complete([ASK]) == [[]]
        assert completer.failures == {"garbled": 1}
        assert server.gone.wait(2)


@pytest.mark.parametrize("as_date", [False, True])
def test_everybody_waits_after_a_429(as_date: bool) -> None:
    wait_s = 2 if as_date else 0.4  # dates are of whole seconds, so there it is one at least

    def trouble(out: Out) -> None:
        value = formatdate(time.time() + wait_s, usegmt=True) if as_date else str(wait_s)
        out.json({"error": "slowly"}, 429, Retry_After=value)

    with remote(after(trouble)) as (server, completer):
        first = completer.submit(ASK)
        while completer.errors["rate_limit"] == 0:
            time.sleep(0.005)
        [[other]] = completer.complete([ASK])  # was never told to wait itself
        asyncio.run(first.result())
        assert other.text == "42"
        refused, *later = server.times
        assert min(later) - refused > (0.9 if as_date else 0.35)


def test_a_wait_beyond_the_bound_is_none() -> None:
    trouble = lambda out: out.json({"error": "slowly"}, 429, Retry_After="3600")  # noqa: E731
    start = time.monotonic()
    with remote(after(trouble), total_timeout_s=60) as (_, completer):
        assert completer.complete([ASK]) == [[]]
        assert completer.failures == {"rate_limit": 1}
    assert time.monotonic() - start < 20


# ----- 5: what cannot work

KEY = "sk-very-secret-123"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 301])
def test_refusals(status: int) -> None:
    words = {"error": {"message": f"no, {KEY} is wrong", "code": status}}
    with remote(lambda server, path, body, out: out.json(words, status), api_key=KEY) as (server, completer):
        with pytest.raises(UsageError, match=r"no, \*\*\* is wrong") as caught:
            completer.complete([ASK, ASK])
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert KEY not in str(caught.value) + repr(completer) + repr(caught.value.__cause__)
        handle = completer.submit(Request(messages=QUESTION, n=2))
        with pytest.raises(UsageError, match="is wrong"):
            asyncio.run(handle.result())


def test_a_model_that_is_not_there() -> None:
    answer: Answer = lambda server, path, body, out: out.json({"object": "error", "message": "no such model"}, 404)  # noqa: E731
    with (
        remote(answer, [{"id": "zaya1-8b"}, {"id": "other"}], model="zaya1-8") as (_, completer),
        pytest.raises(UsageError, match="did you mean zaya1-8b"),
    ):
        completer.complete([ASK])


def test_addresses_and_bounds() -> None:
    assert RemoteCompleter("http://u:pw@h:1", "m").base_url == "http://h:1/v1"
    for url in ("localhost:8000", "ftp://h/v1", "http://", ""):
        with pytest.raises(UsageError, match="base_url"):
            RemoteCompleter(url, "m")
    for bad in ({"timeout_s": 0}, {"total_timeout_s": float("inf")}, {"retries": -1}, {"max_connections": 0}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            RemoteCompleter("http://h/v1", "m", **bad)
    for options, name in (({"api_key": KEY + "\n"}, "api_key"), ({"headers": {"X-Key": KEY + "é"}}, "X-Key")):
        with pytest.raises(UsageError, match=name) as caught:
            RemoteCompleter("http://h/v1", "m", **options)
        assert KEY not in str(caught.value)
    completer = zaya.RemoteCompleter("http://h/v1", "m")
    for request in (
        Request(prompt_ids=[1], want_routes=True),
        Request(prompt_ids=[1], params=SamplingParams(top_logprobs=1)),
    ):
        with pytest.raises(UsageError, match="remote server"):
            completer.submit(request)


# ----- 6 to 8


def test_seeds_and_connections() -> None:
    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        time.sleep(0.03)
        out.stream([chunk("stop", content=str(body["seed"]))])

    with remote(answer, max_connections=3) as (server, completer):
        [first] = completer.complete([Request(messages=QUESTION, n=8, seed=5)])
        [again] = completer.complete([Request(messages=QUESTION, n=8, seed=5)])
        assert server.most_under_way == 3
    seeds = [int(completion.text) for completion in first]
    assert seeds[0] == 5
    assert len(set(seeds)) == 8
    assert [completion.text for completion in again] == [completion.text for completion in first]


def endless(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
    out.begin()
    while not server.gone.is_set():
        out.event(chunk(reasoning="x", choice={"token_ids": TOKENIZER.encode("x", bos=False)}))
        time.sleep(0.005)


def test_who_cancels_gets_what_there_is() -> None:
    with remote(endless, tokenizer=TOKENIZER) as (server, completer):

        async def listen() -> list[Completion]:
            handle = completer.submit(ASK)
            async for delta in handle:
                if delta.reasoning:
                    break
            handle.cancel()
            return await handle.result()

        [completion] = asyncio.run(listen())
        assert completion.finish_reason is FinishReason.CANCELLED
        assert completion.reasoning == "x" * len(completion.ids)
        assert completion.ids
        assert server.gone.wait(1)

        for _ in range(20):  # also where it has not begun
            handle = completer.submit(Request(messages=QUESTION, n=3))
            handle.cancel()
            ended = asyncio.run(asyncio.wait_for(handle.result(), 5))
            assert [c.finish_reason for c in ended] == [FinishReason.CANCELLED] * 3


def test_close_ends_everything() -> None:
    with remote(endless) as (server, completer):
        given: list[list[list[Completion]]] = []
        waiting = threading.Thread(target=lambda: given.append(completer.complete([ASK, ASK])))
        waiting.start()
        while server.under_way < 2:
            time.sleep(0.005)
        completer.close()
        waiting.join(5)
        assert [[c.finish_reason for c in cs] for cs in given[0]] == [[FinishReason.CANCELLED]] * 2
        assert server.gone.wait(1)
        with pytest.raises(UsageError, match="closed"):
            completer.submit(ASK)


@pytest.mark.parametrize("somebody_listens", [True, False])
def test_what_was_seen_is_not_begun_anew(somebody_listens: bool) -> None:
    may_break = threading.Event()

    def trouble(out: Out) -> None:
        out.begin()
        out.event(chunk(content="half "))
        may_break.wait(10)

    with remote(after(trouble)) as (_, completer):

        async def listen() -> list[Completion]:
            handle = completer.submit(Request(messages=QUESTION, thinking=False))
            if somebody_listens:
                async for _ in handle:
                    may_break.set()
            may_break.set()
            return await handle.result()

        ended = asyncio.run(listen())
        assert [completion.text for completion in ended] == ([] if somebody_listens else ["42"])
        assert completer.errors == {"broken_off": 1}


# ----- 9: budgets of reasoning


def budgeted(tokens: int, budget: int) -> Request:
    return Request(messages=QUESTION, params=SamplingParams(max_tokens=tokens, think_budget=budget))


def test_a_server_that_closes_reasoning_is_told_the_budget() -> None:
    with remote(says(GOOD), [{"id": "m", "owned_by": "vllm"}]) as (server, completer):
        completer.complete([budgeted(50, 10)])
    [(_, body)] = server.asked
    assert (body["thinking_token_budget"], body["max_tokens"]) == (10, 50)


def script(prompt: Any, seed: int, index: int) -> str:
    return "so 42" if isinstance(prompt, str) else "thinking of it for long\n</think>\n\n42"


@pytest.mark.parametrize("owner", ["somebody", "vllm"])
def test_reasoning_is_closed_from_ids(owner: str) -> None:
    scripted = served(ScriptedCompleter(TOKENIZER, script))

    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        if "thinking_token_budget" in body:  # a server that has it, and was not set up for it
            out.json({"error": {"message": "thinking_token_budget needs a reasoning config"}}, 400)
        else:
            scripted(server, path, body, out)

    with remote(answer, [{"id": "m", "owned_by": owner}], tokenizer=TOKENIZER) as (server, completer):
        [[completion]] = completer.complete([budgeted(50, 10)])
        handle = completer.submit(budgeted(50, 10))
        ids = asyncio.run(_ids(handle))
    closing = tuple(TOKENIZER.encode("\n</think>\n\n", bos=False))
    expected = (*TOKENIZER.encode("thinking o", bos=False), *closing, *TOKENIZER.encode("so 42<|im_end|>", bos=False))
    assert completion.ids == ids == expected
    assert (completion.reasoning, completion.text, completion.is_closed) == ("thinking o", "so 42", True)
    assert completion.finish_reason is FinishReason.STOP
    assert (completion.is_approximate, completion.generated_tokens) == (False, len(expected))
    assert TOKENIZER.decode(completion.reasoning_ids) == "thinking o"
    path, body = server.asked[-1]
    assert (path, body["prompt"]) == ("/v1/completions", [*render(TOKENIZER, QUESTION).ids, *expected[:14]])
    assert body["max_tokens"] == 50 - 10 - len(closing)


async def _ids(handle: Any) -> tuple[int, ...]:
    return tuple([id async for delta in handle for id in delta.ids])


def test_an_answer_that_the_budget_cut_goes_on() -> None:
    def speak(prompt: Any, seed: int, index: int) -> str:
        return "\nand more" if isinstance(prompt, str) else "hm</think>the answer"

    with remote(served(ScriptedCompleter(TOKENIZER, speak)), tokenizer=TOKENIZER) as (_, completer):
        [[completion]] = completer.complete([budgeted(50, 6)])
    assert (completion.reasoning, completion.text) == ("hm", "the\nand more")


@pytest.mark.parametrize(
    ("said", "text"),
    [("", "42 </think>"), ("it", "it\n\n42 </think>")],  # cut in the reasoning, or in the answer
)
def test_what_the_budget_cut_goes_on_from_text(said: str, text: str) -> None:
    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        if body.get("continue_final_message"):
            out.stream([chunk("stop", content="\n\n42 </think>"), usage(20, 3)])
        else:
            out.stream([chunk("length", reasoning="thinking", content=said), usage(5, 10)])

    with remote(answer) as (server, completer):
        [[completion]] = completer.complete([budgeted(50, 10)])
    assert (completion.reasoning, completion.text, completion.is_closed) == ("thinking", text, True)
    assert (completion.generated_tokens, completion.prompt_tokens, completion.is_approximate) == (13, 5, True)
    body = server.asked[1][1]
    assert body["messages"] == [*QUESTION, {"role": "assistant", "content": f"<think>\nthinking\n</think>\n\n{said}"}]
    assert (body["add_generation_prompt"], body["max_tokens"]) == (False, 40)
    assert carry(None, completion, "tail", 100) == "thinking"


def test_reasoning_stays_cut_and_one_warning_says_so() -> None:
    def answer(server: FakeServer, path: str, body: dict[str, Any], out: Out) -> None:
        if "continue_final_message" in body:
            out.json({"error": {"message": "unknown argument continue_final_message"}}, 400)
        else:
            out.stream([chunk("length", reasoning="thinking"), usage(5, 10)])

    with remote(answer) as (_, completer), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        [[first], [second]] = completer.complete([budgeted(50, 10)] * 2)
    for completion in (first, second):
        assert (completion.text, completion.finish_reason) == ("", FinishReason.LENGTH)
    assert [str(w.message).partition(",")[0] for w in caught] == ["reasoning that uses up think_budget stays cut"]


# ----- 10


def solver(prompt: Any, seed: int, index: int) -> str | None:
    if isinstance(prompt, str):
        return f"\\boxed{{{seed % 3}}}"
    if seed % 11 == 0:
        return None
    return "日本 " * (seed % 20) + f"attempt {seed}\n</think>\n\n\\boxed{{{seed % 3}}}"


@pytest.mark.parametrize("compaction", ["tail", "hybrid"])
def test_the_same_solution_over_http(compaction: Any) -> None:
    config = RsaConfig(
        population=6, fan_in=3, rounds=2, think_budget=100, tail_tokens=40, final_budget=400, answer_reserve=30,
        compaction=compaction,
    )  # fmt: skip
    scripted = ScriptedCompleter(TOKENIZER, solver)
    expected = [solve("What?", scripted, TOKENIZER, config=config, seed=seed) for seed in range(3)]
    with remote(served(scripted), tokenizer=TOKENIZER, retries=0) as (_, completer):
        found = [solve("What?", completer, TOKENIZER, config=config, seed=seed) for seed in range(3)]
        lost = completer.failures["server"]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.answer, ours.text, ours.reasoning, ours.usage) == (
            theirs.answer, theirs.text, theirs.reasoning, theirs.usage,
        )  # fmt: skip
        assert [round.candidates for round in ours.rounds] == [round.candidates for round in theirs.rounds]
    rollouts = sum(len(round.candidates) for solution in expected for round in solution.rounds)
    assert (lost, rollouts) == (2 * (3 * 18 - rollouts), rollouts)  # each was asked for twice
    assert lost > 0
    assert json.dumps([candidate.tail for s in found for r in s.rounds for candidate in r.candidates]).count("...") > 5
