"""zaya serve: what is refused before a model is loaded. That it serves is tested in tests/serve/test_running.py."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from zaya.cli import main
from zaya.cli import serve as command
from zaya.serve.auth import Keys


@pytest.fixture(autouse=True)
def _nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(command, "_completer", fail)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-batch", "0"], "--max-batch must be above 0: 0"),
        (["--max-pending", "-1"], "--max-pending must be above 0: -1"),
        (["--deadline", "nan"], "--deadline must be above 0: nan"),
        (["--drain", "inf"], "--drain must be above 0: inf"),
        (["--max-rsa-population", "0"], "--max-rsa-population must be above 0: 0"),
        (["--max-rsa-tokens", "-1"], "--max-rsa-tokens must be above 0: -1"),
        (["--rsa-preset", "mico"], "there is no RSA preset 'mico'"),
        (["--port", "70000"], "a port is from 0 to 65535: 70000"),
        (["--host", "no such host"], "cannot listen at no such host"),
        (["--cors-origin", "page.example"], "an origin is a scheme and a host"),
        (["--cors-origin", "https://page.example/"], "an origin is a scheme and a host"),
        (["--api-key-file", "nowhere.toml"], "nowhere.toml"),
        (["--metrics-prefix", "a b"], "a prefix of metrics has letters"),
        (["--new-key", "a b"], "a name of a key has letters"),
        (["--deterministic", "--speculate", "2"], "--speculate saves nothing"),
    ],
)
def test_refused(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *options]) == 2
    assert words in capsys.readouterr().err


def test_an_address_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another --port or --host" in capsys.readouterr().err


def test_a_new_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", "--new-key", "alice"]) == 0
    said = capsys.readouterr()
    key = said.err.split()[-1]
    file = tmp_path / "keys.toml"
    file.write_text(said.out)
    keys = Keys.read(file)
    assert keys is not None
    assert (caller := keys.find(key.encode())) is not None
    assert caller.name == "alice"
    assert key not in said.out


@pytest.mark.parametrize(
    ("host", "key", "warns"),
    [("0.0.0.0", None, True), ("0.0.0.0", "a-key-of-some-length", False), ("127.0.0.1", None, False)],
)
def test_an_open_door(
    host: str, key: str | None, warns: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ZAYA_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("ZAYA_API_KEY", key)
    with pytest.raises(AssertionError, match="a model was loaded"):
        main(["serve", "--host", host, "--port", "0"])
    assert ("may use this server; --api-key-file asks for keys" in capsys.readouterr().err) is warns


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "starlette" else object())
    assert main(["serve"]) == 2
    assert capsys.readouterr().err.split("\n")[:2] == [
        "error: the server needs starlette",
        "hint: pip install 'openzaya[serve]'",
    ]


@pytest.mark.parametrize(("model", "name"), [(None, "zaya-micro"), ("Zyphra/ZAYA1-8B", "Zyphra/ZAYA1-8B")])
def test_the_name_of_a_model(model: str | None, name: str) -> None:
    assert command._name(model) == name


def test_the_name_of_a_directory(tmp_path: Any) -> None:
    (tmp_path / "mine").mkdir()
    assert command._name(f"{tmp_path}/mine/") == "mine"
