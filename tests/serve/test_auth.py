"""Keys, and what each may take.

1. Without a key, or with one that is not known, the answer is OpenAI's 401, before the body is read; what looks after
   the process needs none.
2. Only hashes are kept, and keys are in no log and no error; names are.
3. A key's requests and tokens of a minute are counted; what is too much is a 429 that says when to come again, and
   costs nothing. Other keys have their own.
4. What was drawn counts, also for a client that has gone.
5. A file that cannot hold keys is refused, without showing what may be one.
6. Pages of other origins may ask where the server was told so, and are asked for their keys as anybody else.
"""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openai
import pytest

from tests.serve.fakes import Running, Typist, eventually, running
from zaya.errors import ConfigError, UsageError, ZayaError
from zaya.serve.auth import KeyConfig, Keys, entry_of, hash_of, new_key
from zaya.serve.rates import Bucket, Rates

CHAT, RAW = "/v1/chat/completions", "/v1/completions"
ASK = {"messages": [{"role": "user", "content": "?"}]}
KEY, OTHER = "sk-alices-own-key", "sk-of-somebody-else"


def typist() -> Typist:
    return Typist(lambda *_: "a\n</think>\n\nb")


def keys(**limits: Any) -> Keys:
    return Keys(
        {
            "alice": KeyConfig(sha256=hash_of(KEY.encode()), **limits),
            "bob": KeyConfig(sha256=hash_of(OTHER.encode())),
        }
    )


def bearer(key: str = KEY) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# ----- 1, 2


def test_who_is_let_in() -> None:
    with running(typist(), keys=keys()) as server:
        for path in ("/health", "/ready", "/version"):
            assert server.send(path)[0] == 200
        for path, body in ((CHAT, ASK), ("/v1/models", None), ("/openapi.json", None), ("/nowhere", None)):
            for headers in ({}, bearer("sk-wrong"), bearer(KEY + "x"), bearer(""), {"Authorization": KEY}):
                status, answer, told = server.send(path, body, headers=headers)
                assert status == 401
                assert (answer["error"]["type"], answer["error"]["code"]) == (
                    "invalid_request_error",
                    "invalid_api_key",
                )
                assert told["www-authenticate"] == "Bearer"
        for key in (KEY, OTHER):
            assert server.send(CHAT, ASK, headers=bearer(key))[0] == 200
            assert server.send("/v1/models", headers={"Authorization": f"bearer  {key} "})[0] == 200
        with server.client() as client, pytest.raises(openai.AuthenticationError, match="not one of this server's"):
            client.models.list()
        with server.client().with_options(api_key=KEY) as client:
            assert [model.id for model in client.models.list()] == ["m"]
    assert {line.get("key") for line in server.log} == {None, "alice", "bob"}
    written = json.dumps(server.log)
    assert not any(secret in written for secret in (KEY, OTHER, "sk-wrong", hash_of(KEY.encode())))


def answer_to(server: Running, head: str) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        return connection.recv(4096)


def test_a_stranger_sends_no_body() -> None:
    head = f"POST {CHAT} HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 5000000\n\n"
    with running(typist(), keys=keys()) as server:
        assert answer_to(server, head).startswith(b"HTTP/1.1 401 ")


def test_two_keys_are_none() -> None:
    both = f"Authorization: Bearer {KEY}\nAuthorization: Bearer {OTHER}\n"
    with running(typist(), keys=keys()) as server:
        assert answer_to(server, f"GET /v1/models HTTP/1.1\nHost: x\n{both}\n").startswith(b"HTTP/1.1 401 ")


# ----- 3


def test_a_bucket() -> None:
    now = 0.0
    bucket = Bucket(120, lambda: now)
    assert (bucket.left, bucket.wait_s(1)) == (120, 0)
    bucket.take(120)
    assert (bucket.left, bucket.wait_s(1), bucket.wait_s(120)) == (0, 0.5, 60)
    now = 0.25
    assert (bucket.left, bucket.wait_s(1)) == (0.5, 0.25)
    bucket.take(300.5)  # a debt of 300, paid at 2 a second
    assert bucket.wait_s(1) == 150.5
    now = 0.25 + 150
    assert bucket.left == 0
    now = 1e9  # never more than a minute's worth
    assert bucket.left == 120


def test_rates() -> None:
    now = 0.0
    rates = Rates(2, 100, lambda: now)
    rates.admit()
    rates.charge(40)
    assert rates.headers() == {
        "x-ratelimit-limit-requests": "2", "x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-limit-tokens": "100", "x-ratelimit-remaining-tokens": "60", "x-ratelimit-reset-tokens": "24s",
    }  # fmt: skip
    rates.charge(100)
    for _ in range(3):  # a refusal takes nothing
        with pytest.raises(Exception, match="100 tokens a minute; come again in 25 s") as refused:
            rates.admit()
        assert (refused.value.status, refused.value.retry_after_s) == (429, 25)
    now = 25
    rates.admit()
    assert rates.headers()["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(Exception, match="2 requests a minute; come again in 5 s"):
        rates.admit()
    assert Rates(None, None).headers() == {}


def test_requests_of_a_key() -> None:
    with running(typist(), keys=keys(requests_per_minute=2)) as server:
        first, second = (server.send(CHAT, ASK, headers=bearer()) for _ in range(2))
        assert (first[0], first[2]["x-ratelimit-limit-requests"], first[2]["x-ratelimit-remaining-requests"]) == (
            200, "2", "1",
        )  # fmt: skip
        assert (second[0], second[2]["x-ratelimit-remaining-requests"]) == (200, "0")
        status, answer, headers = server.send(CHAT, ASK, headers=bearer())
        error = answer["error"]
        assert (status, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert 1 <= int(headers["retry-after"]) <= 30
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert server.send("/v1/models", headers=bearer())[0] == 200
        status, _, headers = server.send(CHAT, ASK, headers=bearer(OTHER))
        assert status == 200
        assert not [name for name in headers if name.startswith("x-ratelimit")]


def left(server: Running) -> int:
    return int(server.send("/v1/models", headers=bearer())[2]["x-ratelimit-remaining-tokens"])


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_a_key(stream: bool) -> None:
    with running(typist(), keys=keys(tokens_per_minute=600)) as server:
        for path, body in ((CHAT, ASK), (RAW, {"prompt": ["hi", "ho"], "n": 2})):
            before = left(server)
            if stream:
                body = {**body, "stream_options": {"include_usage": True}}
                usage = server.events(path, body, bearer())[-1]["usage"]
            else:
                usage = server.send(path, body, headers=bearer())[1]["usage"]
            taken = before - left(server)
            assert taken == usage["total_tokens"] > 20


def test_a_prompt_that_is_only_read() -> None:
    with running(scored(), keys=keys(tokens_per_minute=600)) as server:
        body = {"prompt": [7] * 100, "max_tokens": 0, "echo": True, "logprobs": 0}
        assert server.send(RAW, body, headers=bearer())[0] == 200
        assert left(server) == 500


def scored() -> Typist:
    """It knows how likely a prompt is."""
    found = typist()

    def score(ids: list[int], top_logprobs: int) -> Any:
        numbers = np.zeros(len(ids) - 1, dtype=np.float32)
        return SimpleNamespace(logprobs=numbers, top_ids=None, top_logprobs=None)

    found.score = score
    return found


# ----- 4


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_drawn_for_nobody(stream: bool) -> None:
    typist = Typist(lambda *_: "x" * 3000, hold_after=300)
    with running(typist, keys=keys(tokens_per_minute=600)) as server:
        connection = server.connection()
        head = {**bearer(), "Content-Type": "application/json"}
        connection.request("POST", RAW, json.dumps({"prompt": [7] * 10, "max_tokens": 3000, "stream": stream}), head)
        assert eventually(lambda: typist.typed >= 300)
        assert 590 <= left(server) < 600  # ten come back every second
        connection.sock.close()
        assert eventually(lambda: bool(server.log) and server.served.gate.pending == 0)
        assert 285 <= left(server) < 400  # a step more may have been under way


# ----- 5


def test_a_file(tmp_path: Path) -> None:
    key = new_key()
    assert key != new_key()
    assert len(key) == 46
    file = tmp_path / "keys.toml"
    file.write_text(entry_of("alice", key) + "requests_per_minute = 5\n\n" + entry_of("bob", KEY))
    found = Keys.read(file, OTHER)
    assert found is not None
    names = {each: caller.name for each in (key, KEY, OTHER) if (caller := found.find(each.encode()))}
    assert names == {key: "alice", KEY: "bob", OTHER: "ZAYA_API_KEY"}
    assert found.find(b"") is found.find(hash_of(key.encode()).encode()) is None
    assert key not in file.read_text()
    assert f'"{hashlib.sha256(key.encode()).hexdigest()}"' in file.read_text()
    assert Keys.read(None) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "required and not given: keys"),
        ("keys = {}", "there is no key"),
        ("[keys.a]\nsha256 = 'sk-SECRET'", "keys.a.sha256 must be 64 hexadecimal digits"),
        ("[keys.a]\nkey = 'sk-SECRET'", "unknown key 'keys.a.key'"),
        (f"[keys.a]\nsha256 = '{'A' * 64}'", "keys.a.sha256 must be 64 hexadecimal digits"),
        (f"[keys.'a b']\nsha256 = '{'a' * 64}'", "a name of a key has letters"),
        (f"[keys.a]\nsha256 = '{'a' * 64}'\n[keys.b]\nsha256 = '{'a' * 64}'", "keys.b is the key of a once more"),
        (f"[keys.a]\nsha256 = '{'a' * 64}'\nrequests_per_minute = 0", "keys.a.requests_per_minute must be from 1"),
        (f"[keys.a]\nsha256 = '{'a' * 64}'\ntokens_per_minute = nan", "keys.a.tokens_per_minute must be from 1"),
    ],
)
def test_a_file_that_is_none(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")) as refused:
        Keys.read(file)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize("key", ["", "short", "with a space in it", "not ascii: ééééééééé", "a line\nbreak-------"])
def test_a_key_that_is_none(key: str) -> None:
    with pytest.raises(UsageError, match="ZAYA_API_KEY must be"):
        Keys.read(None, key)
    with pytest.raises(ZayaError, match="a name of a key"):
        entry_of("a]", KEY)


# ----- 6


def test_pages_of_other_origins() -> None:
    page, other = {"Origin": "https://page.example"}, {"Origin": "https://other.example"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    with running(typist()) as server:
        status, _, headers = server.send("/health", headers=page)
        assert (status, [name for name in headers if name.startswith("access-control")]) == (200, [])
        assert server.send(CHAT, method="OPTIONS", headers={**page, **asks})[0] == 405
    with running(typist(), keys=keys(), origins=["https://page.example"]) as server:
        connection = server.connection()
        for origin, status in ((page, 200), (other, 400)):
            connection.request("OPTIONS", CHAT, headers={**origin, **asks})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
            allowed = answer.getheader("access-control-allow-origin")
            assert allowed == ("https://page.example" if status == 200 else None)
        connection.close()
        status, _, headers = server.send(CHAT, ASK, headers={**page, **bearer()})
        assert (status, headers["access-control-allow-origin"]) == (200, "https://page.example")
        assert "access-control-allow-credentials" not in headers
        assert "X-Request-Id" in headers["access-control-expose-headers"]
        status, _, headers = server.send(CHAT, ASK, headers=page)
        assert (status, headers["access-control-allow-origin"]) == (401, "https://page.example")
        assert "access-control-allow-origin" not in server.send(CHAT, ASK, headers={**other, **bearer()})[2]
