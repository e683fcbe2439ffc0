"""Raw completions over HTTP.

1. Text, ids, and lists of either are prompts; each prompt has `n` choices, in order, and draws from a stream of its
   own.
2. A streamed answer and a whole one are the same.
3. Where a prompt leaves the reasoning open, the text is reasoning, closing tag and answer, however it is cut. Where it
   does not, such a tag is no text.
4. Log-probabilities are those of the completer; the drawn token is always among the likeliest that are told.
5. `echo` gives the prompt back, with the model's log-probabilities of it: what evaluations by likelihood read.
6. Over the model in this package, ids, texts and log-probabilities are those of the engine in this process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.serve.fakes import TOKENIZER, Running, Typist, logprob_of, running
from zaya.core.rng import derive_seed
from zaya.engine.engine import Engine
from zaya.engine.types import Request, SamplingParams
from zaya.model.embedded import embedded_directory
from zaya.model.layouts import load
from zaya.text import Tokenizer, render

PATH = "/v1/completions"


@pytest.fixture(scope="module")
def typist() -> Typist:
    return Typist(lambda prompt, seed, index: f"ab{index} of {prompt[-1]} 日本")


@pytest.fixture(scope="module")
def server(typist: Typist) -> Iterator[Running]:
    with running(typist) as found:
        yield found


PROMPTS = [
    ("hi", [[2, *TOKENIZER.encode("hi", bos=False)]]),
    ([5, 6, 70], [[5, 6, 70]]),
    (["hi", "ho"], [[2, *TOKENIZER.encode("hi", bos=False)], [2, *TOKENIZER.encode("ho", bos=False)]]),
    ([[5, 70], [6, 71, 72]], [[5, 70], [6, 71, 72]]),
]


@pytest.mark.parametrize(("prompt", "ids"), PROMPTS)
def test_prompts(server: Running, typist: Typist, prompt: Any, ids: list[list[int]]) -> None:
    before = len(typist.requests)
    body = {"prompt": prompt, "n": 2, "seed": 9, "max_tokens": 40, "return_token_ids": True}
    status, answer, _ = server.send(PATH, body)
    requests = typist.requests[before:]
    assert (status, answer["object"]) == (200, "text_completion")
    assert [list(request.prompt_ids or ()) for request in requests] == ids
    assert [request.seed for request in requests] == [9, *(derive_seed(9, "prompt", i) for i in range(1, len(ids)))]
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * len(ids)))
    lasts = [TOKENIZER.decode(each)[-1] for each in ids for _ in range(2)]
    assert [choice["text"] for choice in answer["choices"]] == [f"ab{i % 2} of {c} 日本" for i, c in enumerate(lasts)]
    assert [choice["prompt_token_ids"] for choice in answer["choices"]] == [each for each in ids for _ in range(2)]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, ids))
    assert answer["usage"]["completion_tokens"] == sum(len(choice["token_ids"]) for choice in answer["choices"])


@pytest.mark.parametrize("path", [PATH, "/v1/chat/completions"])
def test_seeds_that_are_not_taken(path: str) -> None:
    typist = Typist(lambda *_: "a")
    ask = {"prompt": "hi"} if path == PATH else {"messages": [{"role": "user", "content": "hi"}]}
    with running(typist, ignore_client_seed=True) as server:
        for _ in range(3):
            assert server.send(path, {**ask, "seed": 9})[0] == 200
    seeds = {request.seed for request in typist.requests}
    assert len(seeds) == 3
    assert 9 not in seeds


def put_together(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    choices: dict[int, dict[str, Any]] = {}
    for event in events:
        for choice in event["choices"]:
            found = choices.setdefault(choice["index"], {"text": "", "token_ids": [], "logprobs": None})
            found["text"] += choice["text"]
            found["token_ids"] += choice.get("token_ids", [])
            found["prompt_token_ids"] = choice.get("prompt_token_ids", found.get("prompt_token_ids"))
            for name, values in (choice["logprobs"] or {}).items():
                found["logprobs"] = found["logprobs"] or {}
                found["logprobs"].setdefault(name, []).extend(values)
            if choice["finish_reason"] is not None:
                found["finish_reason"], found["stop_reason"] = choice["finish_reason"], choice["stop_reason"]
    return [{"index": index, **choices[index]} for index in sorted(choices)]


@pytest.mark.parametrize("more", [{}, {"logprobs": 2}, {"stop": "日"}, {"max_tokens": 3}, {"echo": True}])
def test_a_stream_is_the_whole_answer(server: Running, more: dict[str, Any]) -> None:
    body = {"prompt": ["hi", "ho"], "n": 2, "max_tokens": 40, "seed": 1, "return_token_ids": True, **more}
    _, answer, _ = server.send(PATH, body)
    events = server.events(PATH, {**body, "stream_options": {"include_usage": True}})
    assert put_together(events) == answer["choices"]
    assert events[-1]["usage"] == answer["usage"]


@pytest.mark.parametrize("together", [1, 4, 1000])
def test_reasoning_is_text(together: int) -> None:
    said = "thinking\n</think>\n\nIt is 4."
    prompt = render(TOKENIZER, [{"role": "user", "content": "?"}]).ids
    body = {"prompt": prompt, "max_tokens": 100}
    with running(Typist(lambda *_: said, together=together)) as server:
        _, answer, _ = server.send(PATH, body)
        streamed = put_together(server.events(PATH, body))
    assert answer["choices"][0]["text"] == streamed[0]["text"] == said


@pytest.mark.parametrize("together", [1, 4, 1000])
def test_a_closing_tag_that_closes_nothing(together: int) -> None:
    body = {"prompt": "hi", "max_tokens": 100}
    with running(Typist(lambda *_: "It</think> is 4.", together=together)) as server:
        _, answer, _ = server.send(PATH, body)
        streamed = put_together(server.events(PATH, body))
    assert answer["choices"][0]["text"] == streamed[0]["text"] == "It is 4."


def test_log_probabilities(server: Running) -> None:
    with server.client() as client:
        answer = client.completions.create(model="m", prompt=[5, 6, 97], logprobs=2, max_tokens=40)
    told = answer.choices[0].logprobs
    assert told.tokens[:3] == ["ab", "0", " "]
    assert told.token_logprobs == [logprob_of(i) for i in range(len(told.tokens))]
    assert all(told.top_logprobs[i][token] == logprob_of(i) for i, token in enumerate(told.tokens))
    assert [len(top) for top in told.top_logprobs] == [2] * len(told.tokens)
    assert told.text_offset == [sum(map(len, told.tokens[:i])) for i in range(len(told.tokens))]
    assert "bytes:\\xe6" in told.tokens  # of 日, which is three tokens here


def test_the_drawn_token_is_told_where_it_is_not_likely() -> None:
    from zaya.serve.telling import completion_logprobs

    tops = (np.array([[97, 98]]), np.array([[-0.1, -3.0]]))
    told = completion_logprobs(TOKENIZER, [99], [-7.0], tops, count=2, offset=4)
    assert told["top_logprobs"] == [
        {TOKENIZER.decode([97]): -0.1, TOKENIZER.decode([98]): -3.0, TOKENIZER.decode([99]): -7.0}
    ]
    assert told["text_offset"] == [4]
    told = completion_logprobs(TOKENIZER, [99], [float("-inf")], (None, None), count=0, offset=0)
    assert (told["token_logprobs"], told["top_logprobs"]) == ([-9999.0], [{}])


def test_echo_needs_a_completer_that_knows(server: Running) -> None:
    status, answer, _ = server.send(PATH, {"prompt": "hi", "echo": True, "logprobs": 1})
    assert (status, answer["error"]["param"]) == (400, "echo")
    status, answer, _ = server.send(PATH, {"prompt": "hi", "echo": True, "max_tokens": 0})
    assert (status, answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == (200, "hi", "length")
    assert answer["usage"]["completion_tokens"] == 0


# ----- 5 and 6: over the real model


@pytest.fixture(scope="module")
def micro() -> Iterator[tuple[Running, Engine, Tokenizer]]:
    model, tokenizer = load(embedded_directory(), dtype="float32")
    assert tokenizer is not None
    with Engine(model, tokenizer, max_batch=8) as engine, running(engine, tokenizer) as server:
        yield server, engine, tokenizer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("max_tokens", [0, 5])
def test_echo(micro: tuple[Running, Engine, Tokenizer], max_tokens: int, stream: bool) -> None:
    server, engine, tokenizer = micro
    ids = tokenizer.encode("What is 3 + 4?")
    body = {"prompt": ids, "echo": True, "logprobs": 2, "max_tokens": max_tokens, "temperature": 0}
    if stream:
        [choice] = put_together_echo(server.events(PATH, body))
    else:
        [choice] = server.send(PATH, body)[1]["choices"]
    told, scores = choice["logprobs"], engine.score(ids, 2)
    assert told["token_logprobs"][0] is None
    assert told["top_logprobs"][0] is None
    assert told["token_logprobs"][1 : len(ids)] == pytest.approx(scores.logprobs.tolist())
    for i, top in enumerate(told["top_logprobs"][1 : len(ids)]):
        assert top[tokenizer.decode([int(scores.top_ids[i, 0])])] == pytest.approx(float(scores.top_logprobs[i, 0]))
        assert told["tokens"][i + 1] in top
    lengths = {len(values) for values in told.values()}
    assert lengths == {len(ids) + max_tokens}
    assert choice["text"].startswith(tokenizer.decode(ids))
    # what lm-eval sums up for a prompt of a context and its continuation
    assert sum(told["token_logprobs"][4 : len(ids)]) == pytest.approx(float(scores.logprobs[3:].sum()), rel=1e-5)


def put_together_echo(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for event in events:
        for choice in event["choices"]:
            choice.setdefault("stop_reason", None)
    return put_together(events)


def test_the_engine_in_this_process(micro: tuple[Running, Engine, Tokenizer]) -> None:
    server, engine, tokenizer = micro
    ids = render(tokenizer, [{"role": "user", "content": "What is 12 + 30?"}]).ids
    params = SamplingParams(max_tokens=60, top_p=0.9, think_budget=20, top_logprobs=2)
    [expected] = engine.complete([Request(prompt_ids=ids, params=params, n=3, seed=4)])
    body = {"prompt": ids, "max_tokens": 60, "top_p": 0.9, "thinking_token_budget": 20, "logprobs": 2}
    body |= {"n": 3, "seed": 4, "return_token_ids": True}
    _, answer, _ = server.send(PATH, body)
    streamed = put_together(server.events(PATH, body))
    for found in (answer["choices"], streamed):
        assert [choice["token_ids"] for choice in found] == [list(completion.ids) for completion in expected]
        for choice, completion in zip(found, expected, strict=True):
            assert completion.logprobs is not None
            assert choice["logprobs"]["token_logprobs"] == pytest.approx(completion.logprobs.tolist(), abs=1e-4)
            assert choice["text"].endswith(completion.text)
            assert choice["text"].startswith(completion.reasoning)
