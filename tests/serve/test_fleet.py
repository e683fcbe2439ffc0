"""Several replicas behind one front, in this process and without Ray (test_replicas.py has it with).

1. Turns of a conversation go to the replica that has read it, prompts that share nothing spread out, a replica that is
   much busier than another is passed over, and what a dead one had read is forgotten. Memory is bounded.
2. However a text is cut into deltas, wherever its replica dies, and however the second run cuts it: what is told is the
   text, once. Where other ids come, that is noticed before anything of them is told.
3. Replicas give what one engine gives: ids, texts, log-probabilities, structures, scores.
4. A request whose replica dies is drawn by another. A stream goes on where it was, an answer is whole, and what was
   drawn counts once.
5. Where the second run differs, a stream ends in an error, replica_lost, and an answer nobody has seen is the second's.
   Where a second replica dies, or there is none, it is replica_lost too.
6. Without a replica, requests are a 503 with Retry-After, and /ready says so; /health does not. Once one is back,
   requests are answered.
7. A replica that says nothing for too long is dead, and what it had is asked of another.
8. A client that goes is told to the replica. Errors of requests are those of one engine, and are not asked twice.
9. What replicas have done is summed, also of those that are dead.
10. Whoever waits when the front is closed is told; nothing hangs.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

import numpy as np
import pytest

import zaya
from tests.serve.fakes import TOKENIZER, Running, Typist, eventually, running
from zaya.engine.engine import Engine
from zaya.engine.types import Delta, EngineStats, FinishReason, Request, SamplingParams, Structure
from zaya.errors import CheckpointError, CompletionError, UsageError
from zaya.model.config import preset
from zaya.model.transformer import ZayaModel
from zaya.serve.fleet import ReplicaCompleter
from zaya.serve.replay import Differs, Track
from zaya.serve.replica import Replica
from zaya.serve.routing import BLOCK, SLACK, Known, blocks, choose
from zaya.text import byte_tokenizer

CHAT, RAW = "/v1/chat/completions", "/v1/completions"
ASK = {"messages": [{"role": "user", "content": "?"}]}
TEXT = "hm, so\n</think>\n\nan answer."


# ----- 1


def prompt(*parts: int) -> list[int]:
    """A block of each part."""
    return [part for part in parts for _ in range(BLOCK)]


class Front:
    """What the front does with `choose`."""

    def __init__(self, replicas: int, most: int = 100) -> None:
        self.loads = dict.fromkeys(range(replicas), 0)
        self.known = Known(most)
        self.turns: dict[int, int] = {}

    def ask(self, ids: Sequence[int], salt: str = "") -> int:
        keys = blocks(ids, salt)
        replica = choose(keys, self.loads, self.known, self.turns)
        self.known.note(replica, keys)
        self.turns[replica] = len(self.turns) + max(self.turns.values(), default=0)
        return replica


def test_turns_stick_and_prompts_spread() -> None:
    front = Front(3)
    first = {i: front.ask(prompt(i)) for i in range(3)}
    assert sorted(first.values()) == [0, 1, 2]
    for turn in range(1, 4):
        for i in (2, 0, 1):
            assert front.ask([*prompt(i, *range(10, 10 + turn)), 5, 5]) == first[i]
    assert sorted(front.ask([7]) for _ in range(3)) == [0, 1, 2], "short ones share nothing that is kept"


def test_the_longest_prefix_wins() -> None:
    front = Front(2)
    assert [front.ask(prompt(1, 2)), front.ask(prompt(9))] == [0, 1]
    front.known.note(1, blocks(prompt(1), ""))  # as after it was passed over
    assert front.ask(prompt(1, 2, 3)) == 0
    front.loads = {0: 1, 1: 0}
    assert front.ask(prompt(1, 8)) == 1, "alike deep: the one that has less to do"


def test_a_busy_replica_is_passed_over() -> None:
    front = Front(2)
    there = front.ask(prompt(1))
    front.loads[there] = SLACK
    assert front.ask(prompt(1, 2)) == there
    front.loads[there] = SLACK + 1
    assert front.ask(prompt(1, 2)) != there


def test_load_decides_where_nothing_is_known() -> None:
    front = Front(3)
    front.loads = {0: 2, 1: 1, 2: 1}
    assert {front.ask(prompt(i)) for i in range(4)} == {1, 2}


def test_a_salt_has_its_own_prefixes() -> None:
    assert not set(blocks(prompt(1, 2), "a")) & set(blocks(prompt(1, 2), "b"))
    assert blocks(prompt(1, 2)[:-1], "a") == blocks(prompt(1), "a")
    assert blocks(prompt(1, 3), "")[1] != blocks(prompt(2, 3), "")[1], "a key stands for all up to its end"


def test_what_is_forgotten() -> None:
    known = Known(most=3)
    keys = blocks(prompt(1, 2), "")
    known.note(0, keys)
    known.note(0, blocks(prompt(5, 6), ""))
    assert known.depth(0, keys) == 1, "the end of the older goes first"
    known.note(0, blocks(prompt(7), ""))
    assert known.depth(0, keys) == 0
    known.forget(0)
    assert known.depth(0, blocks(prompt(7), "")) == 0


# ----- 2


def text_of(ids: Sequence[int]) -> tuple[str, str]:
    """Reasoning and text behind so many ids. Every third id is held back, as half a character is, until the next."""
    shown = ids if len(ids) % 3 else ids[:-1]
    said = "".join(f"<{id}>" for id in shown)
    cut = min(len(said), 12)
    return said[:cut], said[cut:]


def deltas(ids: Sequence[int], cuts: Sequence[int], *, ends: bool = True) -> list[Delta]:
    found, told = [], ("", "")
    for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        reasoning, text = text_of(ids[:end])
        found.append(
            Delta(
                index=0,
                ids=tuple(ids[start:end]),
                reasoning=reasoning[len(told[0]) :],
                text=text[len(told[1]) :],
                logprobs=np.array(ids[start:end], dtype=np.float32),
                finish_reason=FinishReason.STOP if ends and end == len(ids) else None,
            )
        )
        told = (reasoning, text)
    return found


def cuts_of(rng: random.Random, length: int) -> list[int]:
    return sorted(rng.sample(range(1, length), rng.randrange(min(length - 1, 6))))


@pytest.mark.parametrize("seed", range(60))
def test_what_is_told_is_the_text_once(seed: int) -> None:
    rng = random.Random(seed)
    ids = [rng.randrange(50) for _ in range(rng.randrange(2, 14))]
    track, told, counted = Track(), [], 0
    for run in range(3):
        pieces = deltas(ids, cuts_of(rng, len(ids)))
        dies_after = rng.randrange(len(pieces)) if run < 2 else len(pieces)
        if run:
            taken_back = rng.random() < 0.5
            track.begin_again(taken_back=taken_back)
            if taken_back:
                told = []
        for delta in pieces[:dies_after]:
            new, again = track.new(delta)
            if new is not None:
                told.append(new)
                counted += len(new.ids) - again
    assert [id for delta in told for id in delta.ids] == ids
    assert np.concatenate([delta.logprobs for delta in told]).tolist() == ids
    assert ("".join(d.reasoning for d in told), "".join(d.text for d in told)) == text_of(ids)
    assert [delta.finish_reason for delta in told].count(FinishReason.STOP) == 1
    assert counted == len(ids)


@pytest.mark.parametrize("other", [[1, 2, 9, 4], [1, 2], [9]])
def test_other_ids_are_noticed(other: list[int]) -> None:
    track = Track()
    for delta in deltas([1, 2, 3, 4, 5], [2, 3])[:2]:
        track.new(delta)
    track.begin_again(taken_back=False)
    told = []
    with pytest.raises(Differs):
        told += [track.new(delta)[0] for delta in deltas(other, [])]
    assert told == []


# ----- a fleet


class Local:
    """A replica in this process that can die, come back, and fall silent."""

    def __init__(self, open: Callable[[], Any]) -> None:
        self._replica = Replica(open)
        self.is_dead = False
        self.is_silent = False
        self.is_deaf = False
        """Its stream goes on, and nobody can call it: what a death looks like before the stream breaks."""
        self.ended: list[int] = []

    async def listen(self) -> AsyncGenerator[bytes, None]:
        while self.is_dead or self.is_silent:
            await asyncio.sleep(0.002)
        async with aclosing(self._replica.listen()) as events:
            while True:
                coming = asyncio.ensure_future(anext(events))
                try:
                    while not coming.done() or self.is_silent:
                        await asyncio.wait([coming], timeout=0.002)
                        self._check()
                    yield coming.result()
                finally:
                    if coming.cancel():
                        await asyncio.wait([coming])

    async def begin(self, life: str, id: int, request: Request) -> bytes:
        self._check()
        if self.is_deaf:
            raise ConnectionError("nobody is there")
        return await self._replica.begin(life, id, pickle.loads(pickle.dumps(request)))

    async def end(self, life: str, id: int) -> None:
        self._check()
        self.ended.append(id)
        await self._replica.end(life, id)

    async def score(self, life: str, ids: Sequence[int], top_logprobs: int) -> bytes:
        self._check()
        return await self._replica.score(life, ids, top_logprobs)

    def _check(self) -> None:
        if self.is_dead:
            raise ConnectionError("it is dead")


@contextmanager
def fleet(*completers: Any, **options: Any) -> Iterator[tuple[ReplicaCompleter, list[Local]]]:
    links = [Local(lambda completer=completer: completer) for completer in completers]
    with ReplicaCompleter(links, **options) as completer:
        completer.wait()
        yield completer, links


def held(text: str = TEXT, after: int | None = 9) -> Typist:
    """It stops in the midst, until it is told to go on."""
    return Typist(lambda *_: text, hold_after=after)


# ----- 3


@pytest.fixture(scope="module")
def model() -> ZayaModel:
    return ZayaModel(preset("micro", vocab_size=280, max_positions=2000), precision="float32", seed=3)


def engine_of(model: ZayaModel) -> Engine:
    return Engine(model, byte_tokenizer(), max_batch=4, pages=300)


def test_what_one_engine_gives(model: ZayaModel) -> None:
    ids = tuple(byte_tokenizer().encode("What? " * 60))
    number = Structure(kind="regex", value="[0-9]{3}")
    requests = [
        Request(prompt_ids=ids, params=SamplingParams(max_tokens=9, top_logprobs=2), n=3, seed=5),
        Request(prompt_ids=ids[:40], params=SamplingParams(max_tokens=12, stop=("a",)), seed=6, cache_salt="x"),
        Request(prompt_ids=ids[:9], params=SamplingParams(max_tokens=5, structure=number), seed=7, priority=2),
        Request(prompt_ids=ids, params=SamplingParams(max_tokens=7), n=2, seed=8, want_routes=True),
    ]
    progress: list[tuple[int, int]] = []
    with engine_of(model) as alone, engine_of(model) as first, engine_of(model) as second:
        expected = alone.complete(requests)
        with fleet(first, second) as (completer, _):
            found = completer.complete(requests, on_progress=lambda *at: progress.append(at))
            scores = completer.score(ids, 2)
            assert completer.context == alone.context
            assert first.stats.tokens_drawn > 0
            assert second.stats.tokens_drawn > 0
        expected_scores = alone.score(ids, 2)
    assert progress == [(3, 7), (4, 7), (5, 7), (7, 7)]
    for theirs, ours in zip(expected, found, strict=True):
        for one, other in zip(theirs, ours, strict=True):
            for name in ("ids", "text", "reasoning", "finish_reason", "stop_reason", "prompt_ids", "reasoning_ids"):
                assert getattr(one, name) == getattr(other, name), name
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
            if one.top_ids is not None:
                np.testing.assert_array_equal(one.top_ids, other.top_ids)
            if one.routes is not None:
                np.testing.assert_array_equal(one.routes, other.routes)
    np.testing.assert_allclose(scores.logprobs, expected_scores.logprobs, atol=1e-4)


def test_the_conversation_stays_where_it_was_read(model: ZayaModel) -> None:
    turn = [1, *range(30, 30 + 2 * BLOCK)]
    with engine_of(model) as first, engine_of(model) as second, fleet(first, second) as (completer, _):
        params = SamplingParams(max_tokens=2)
        completer.complete([Request(prompt_ids=[200] * 300, params=params)])
        completer.complete([Request(prompt_ids=[id % 250 for id in turn], params=params)])
        [[again]] = completer.complete([Request(prompt_ids=[*(id % 250 for id in turn), 9, 9], params=params)])
    assert again.cached_tokens == 2 * BLOCK


# ----- 4


def streamed(server: Running, body: dict[str, Any]) -> tuple[threading.Thread, list[Any]]:
    """A stream that is read in a thread, event by event."""
    found: list[Any] = []

    def read() -> None:
        connection = server.connection()
        connection.request("POST", CHAT, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                found.append(json.loads(line.removeprefix(b"data: ")))
        connection.close()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread, found


def said(events: Sequence[Any], index: int = 0) -> tuple[str, str]:
    choices = [c for event in events if "choices" in event for c in event["choices"] if c["index"] == index]
    reasoning, content = ("".join(c["delta"].get(name) or "" for c in choices) for name in ("reasoning", "content"))
    return reasoning, content


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_a_death_in_the_midst(stream: bool, heard: bool) -> None:
    dying, other = held(after=9 if heard else 0), held(after=None)
    body = {**ASK, "n": 2, "logprobs": True, "return_token_ids": True, "stream_options": {"include_usage": True}}
    if not stream:
        del body["stream_options"]
    with running(dying) as server:
        dying.go_on.set()
        expected = server.send(CHAT, {**body, "stream": False} if not stream else {**ASK, "n": 2})[1]
    dying.go_on.clear()
    dying.typed = 0
    dying.requests.clear()
    with fleet(dying, other) as (completer, links), running(completer) as server:
        if stream:
            thread, found = streamed(server, body)
        else:
            found = []
            thread = threading.Thread(target=lambda: found.append(server.send(CHAT, body)))
            thread.start()
        assert eventually(lambda: bool(dying.requests) and dying.typed >= (9 if heard else 0))
        if heard and stream:
            assert eventually(lambda: said(found)[0] != "")
        links[0].is_dead = True
        thread.join(10)
        assert len(other.requests) == 1
        assert other.requests[0] == dying.requests[-1]
        drawn = next(
            float(line.split()[-1])
            for line in server.served.metrics.text().decode().splitlines()
            if line.startswith("zaya:generation_tokens_total")
        )
        assert drawn == expected["usage"]["completion_tokens"]
        assert eventually(lambda: server.served.gate.pending == 0)
    if stream:
        for index, choice in enumerate(expected["choices"]):
            assert said(found, index) == (choice["message"]["reasoning"], choice["message"]["content"])
            ids = [
                id
                for event in found
                for c in event["choices"]
                if c["index"] == index
                for id in c.get("token_ids") or ()
            ]
            assert len(ids) == expected["usage"]["completion_tokens"] // 2
        assert found[-1]["usage"] == expected["usage"]
    else:
        [(status, answer, _)] = found
        assert status == 200
        assert answer["choices"] == expected["choices"]
        assert answer["usage"] == expected["usage"]


def test_a_call_that_fails_before_the_stream_does() -> None:
    typists = [held(after=None), held(after=None)]
    with fleet(*typists) as (completer, links):
        request = Request(prompt_ids=[5] * BLOCK)
        completer.complete([request])
        [there] = [number for number, typist in enumerate(typists) if typist.requests]
        links[there].is_deaf = True
        completer.complete([request])
        assert [len(typist.requests) for typist in typists] == [1, 1]


# ----- 5


def test_a_stream_that_cannot_go_on() -> None:
    dying, other = held("abcdefgh\n</think>\n\nyes"), held("abcdeXgh\n</think>\n\nno!", after=None)
    with fleet(dying, other) as (completer, links), running(completer) as server:
        thread, found = streamed(server, ASK)
        assert eventually(lambda: "abcdefgh" in said(found)[0])
        before = said(found)
        links[0].is_dead = True
        thread.join(10)
        assert said(found) == before
        error = found[-1]["error"]
        assert (error["code"], error["type"]) == ("replica_lost", "server_error")
        assert eventually(lambda: links[1].ended)
        assert eventually(lambda: server.served.gate.pending == 0)


def test_an_answer_that_nobody_has_seen_may_differ() -> None:
    dying, other = held("abcdefgh\n</think>\n\nyes"), held("abcdeXgh\n</think>\n\nno!", after=None)
    with fleet(dying, other) as (completer, links):
        handle = completer.submit(Request(prompt_ids=TOKENIZER.encode("?")))
        assert eventually(lambda: handle.drawn >= 9)
        links[0].is_dead = True
        [completion] = asyncio.run(handle.result())
        assert completion.text.startswith("abcdeXgh")
        deltas = asyncio.run(listed(handle))
        assert "".join(delta.text for delta in deltas) == completion.text
        assert handle.drawn == len(completion.ids)


async def listed(handle: Any) -> list[Delta]:
    return [delta async for delta in handle]


@pytest.mark.parametrize("stream", [True, False])
def test_a_second_death(stream: bool) -> None:
    typists = [held(), held(), held(after=None)]
    with fleet(*typists) as (completer, links), running(completer) as server:
        found: list[Any] = []
        asking = threading.Thread(
            target=lambda: found.append(server.events(CHAT, ASK)[-1] if stream else server.send(CHAT, ASK))
        )
        asking.start()
        assert eventually(lambda: typists[0].typed >= 9)
        links[0].is_dead = True
        assert eventually(lambda: typists[1].typed >= 9)
        links[1].is_dead = True
        asking.join(10)
        assert not typists[2].requests
    error = found[0]["error"] if stream else found[0][1]["error"]
    assert error["code"] == "replica_lost"
    assert stream or found[0][0] == 502


# ----- 6


def test_nobody_is_there() -> None:
    log: list[Any] = []
    typist = held(after=None)
    with fleet(typist, write=log.append) as (completer, links), running(completer) as server:
        assert server.send("/ready")[:2] == (200, {"status": "ready", "replicas": 1})
        links[0].is_dead = True
        assert eventually(lambda: not completer.is_ready)
        rsa = {**ASK, "rsa": True}
        for path, body in (("/ready", None), (CHAT, ASK), (RAW, {"prompt": "x"}), (CHAT, rsa)):
            status, answer, headers = server.send(path, body)
            assert (status, answer["error"]["code"]) == (503, "no_replica")
            assert int(headers["retry-after"]) > 0
        assert not typist.requests
        assert server.send("/health")[0] == 200
        with pytest.raises(CompletionError, match="no replica"):
            completer.submit(Request(prompt_ids=[1]))
        links[0].is_dead = False
        assert eventually(lambda: completer.is_ready)
        assert server.send(CHAT, ASK)[0] == 200
    assert [record["state"] for record in log] == ["ready", "lost", "ready"]


def test_what_is_lost_with_the_last_one() -> None:
    typist = held()
    with fleet(typist) as (completer, links), running(completer) as server:
        found: list[Any] = []
        asking = threading.Thread(target=lambda: found.append(server.send(CHAT, ASK)))
        asking.start()
        assert eventually(lambda: typist.typed >= 9)
        links[0].is_dead = True
        asking.join(10)
    status, answer, _ = found[0]
    assert (status, answer["error"]["code"]) == (502, "replica_lost")


# ----- 7


def test_silence() -> None:
    silent, other = held(), held(after=None)
    with fleet(silent, other, silence_s=1.5) as (completer, links), running(completer) as server:
        found: list[Any] = []
        asking = threading.Thread(target=lambda: found.append(server.send(CHAT, ASK)))
        asking.start()
        assert eventually(lambda: silent.typed >= 9)
        links[0].is_silent = True
        asking.join(15)
        assert found[0][0] == 200
        assert completer.alive == 1
        links[0].is_silent = False
        assert eventually(lambda: completer.alive == 2)
        assert silent.cancelled.wait(5), "what it had of its earlier life is nobody's"


# ----- 8


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes(stream: bool) -> None:
    typist = held()
    with fleet(typist) as (completer, links), running(completer) as server:
        connection = server.connection()
        connection.request("POST", CHAT, json.dumps({**ASK, "stream": stream}), {"Content-Type": "application/json"})
        assert eventually(lambda: typist.typed >= 9)
        connection.sock.close()
        connection.close()
        assert typist.cancelled.wait(5)
        assert links[0].ended
        assert eventually(lambda: server.served.gate.pending == 0)


def test_errors_are_those_of_one_engine(model: ZayaModel) -> None:
    bad = Request(prompt_ids=[1] * 20, params=SamplingParams(structure=Structure(kind="regex", value="(")))
    messages = []
    with engine_of(model) as first, engine_of(model) as second, fleet(first, second) as (completer, _):
        for one in (first, completer):
            with pytest.raises(UsageError) as raised:
                one.submit(bad)
            messages.append(str(raised.value))
            with pytest.raises(UsageError, match="ids that are not from"):
                one.score([100_000])
    assert messages[0] == messages[1]


def test_a_failure_is_not_asked_twice() -> None:
    def fails(*_: Any) -> str:
        raise ArithmeticError("nan")

    typists = [Typist(fails), Typist(fails)]
    with fleet(*typists) as (completer, _), running(completer) as server:
        assert server.send(CHAT, ASK)[0] == 500
        assert eventually(lambda: bool(server.log))
        assert sum(len(typist.requests) for typist in typists) == 1
        assert server.log[0]["error"] == "ArithmeticError"
        assert any("fakes.py" in place for place in server.log[0]["places"]), "where it arose, in the replica"


def test_a_completion_that_fails_is_alone() -> None:
    typist = Typist(lambda prompt, seed, index: None if index else TEXT)
    with fleet(typist) as (completer, _):
        handle = completer.submit(Request(prompt_ids=[1], n=2))
        assert len(asyncio.run(handle.result())) == 1
        assert list(handle.failures) == [1]


def test_a_replica_without_an_engine() -> None:
    def broken() -> Any:
        raise CheckpointError("no such weights", hint="look again")

    with ReplicaCompleter([Local(broken), Local(held)]) as completer:
        with pytest.raises(CheckpointError, match="no such weights") as raised:
            completer.wait()
        assert raised.value.hint == "look again"


# ----- 9


def test_what_they_have_done() -> None:
    def stats(drawn: int, running: int) -> EngineStats:
        names = EngineStats.__dataclass_fields__
        return EngineStats(**{**dict.fromkeys(names, 0), "tokens_drawn": drawn, "running": running, "pages_free": 5})

    typists: list[Any] = [held(), held()]
    for number, typist in enumerate(typists):
        typist.stats = stats(10 + number, 1)
    with fleet(*typists) as (completer, links), running(completer) as server:

        def told() -> tuple[int, int, int] | None:
            found = completer.stats
            return None if found is None else (found.tokens_drawn, found.running, found.pages_free)

        assert eventually(lambda: told() == (21, 2, 10))
        links[0].is_dead = True
        assert eventually(lambda: completer.alive == 1)
        assert told() == (21, 1, 5)
        links[1].is_dead = True
        assert eventually(lambda: completer.alive == 0)
        assert told() == (21, 0, 0)
        assert b"zaya:kv_cache_usage_perc" in server.served.metrics.text()


# ----- 10


def test_close_tells_whoever_waits() -> None:
    typist = held()
    with fleet(typist) as (completer, _):
        handle = completer.submit(Request(prompt_ids=[1]))
        assert eventually(lambda: handle.drawn > 0)
    with pytest.raises(CompletionError, match="closed"):
        asyncio.run(handle.result())
    assert typist.cancelled.wait(5)


def test_without_ray() -> None:
    code = (
        "import importlib.util as u, sys; found = u.find_spec\n"
        "import zaya.cli.serve as serve; serve.find_spec = lambda name: None if name == 'ray' else found(name)\n"
        "from zaya.cli import main; sys.exit(main(['serve', '--replicas', '2', '--port', '0']))"
    )
    source = os.path.dirname(os.path.dirname(zaya.__file__))
    environment = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode != 0
    assert "pip install 'openzaya[replicas]'" in done.stderr
