"""Who may ask: keys, of which only hashes are kept, and what each may take of a minute.

    [keys.alice]                                            a file of keys, TOML
    sha256 = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"
    requests_per_minute = 60                                left out: no limit
    tokens_per_minute = 100000

A key is made here, of 256 random bits, so a plain hash gives nothing away. `Guard` stands before the application: what
comes without a key is answered before anything else of it is read. Names of keys are in the log, keys never.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Set
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zaya.config import load
from zaya.errors import ConfigError, UsageError
from zaya.serve import log
from zaya.serve.errors import ApiError
from zaya.serve.http import error_response
from zaya.serve.rates import Clock, Rates

OPEN = frozenset({"/health", "/ready", "/version"})
"""Paths that need no key: whoever looks after the process asks for them. The files of the page need none either."""

ENVIRONMENT = "ZAYA_API_KEY"
"""Holds one key, as it is, for a server with one."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""Who asked the request at hand; none where nobody needs a key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyConfig:
    """One key, as its file has it."""

    sha256: str
    """Of the key, in 64 hexadecimal digits."""
    requests_per_minute: float | None = None
    """How many may be made; none for as many as there is room for."""
    tokens_per_minute: float | None = None
    """How many may be read and drawn, prompts that were known already included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFile:
    """A file of keys."""

    keys: dict[str, KeyConfig]
    """By the names that the log gives them."""


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Whoever has a key."""

    name: str
    rates: Rates


class Keys:
    """The keys of a server."""

    def __init__(self, entries: Mapping[str, KeyConfig], clock: Clock = time.monotonic) -> None:
        """Raises ConfigError for an entry that cannot be one."""
        self._callers: dict[bytes, Caller] = {}
        for name, entry in entries.items():
            if not _NAME.fullmatch(name):
                raise ConfigError(f"a name of a key has letters, digits, - and _, 64 at most: {name[:100]!r}")
            if not _DIGEST.fullmatch(entry.sha256):  # not shown: it may be the key itself
                hint = "`zaya serve --new-key NAME` makes a key and its entry"
                raise ConfigError(f"keys.{name}.sha256 must be 64 hexadecimal digits, small letters", hint=hint)
            digest = bytes.fromhex(entry.sha256)
            if digest in self._callers:
                raise ConfigError(f"keys.{name} is the key of {self._callers[digest].name} once more")
            for limit in ("requests_per_minute", "tokens_per_minute"):
                value = getattr(entry, limit)
                if value is not None and not 1 <= value <= 1e12:
                    raise ConfigError(f"keys.{name}.{limit} must be from 1 to 1e12: {value}")
            self._callers[digest] = Caller(name, Rates(entry.requests_per_minute, entry.tokens_per_minute, clock))
        if not self._callers:
            raise ConfigError("there is no key, so nobody could ask anything")

    @classmethod
    def read(cls, path: str | Path | None, key: str | None = None) -> Keys | None:
        """From a file, and one more as it is; None where there is neither. Raises ConfigError."""
        if path is None and key is None:
            return None
        entries = {} if path is None else load(KeyFile, path).keys
        if key is not None:
            if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
                raise UsageError(f"{ENVIRONMENT} must be at least 16 printable ASCII characters without spaces")
            entries = {**entries, ENVIRONMENT: KeyConfig(sha256=hash_of(key.encode()))}
        return cls(entries)

    def find(self, key: bytes) -> Caller | None:
        """Whose key it is. As long for one as for another."""
        digest, found = hashlib.sha256(key).digest(), None
        for own, caller in self._callers.items():
            if hmac.compare_digest(own, digest):
                found = caller
        return found


def hash_of(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def new_key() -> str:
    return "sk-" + secrets.token_urlsafe(32)


def entry_of(name: str, key: str) -> str:
    """What a file of keys needs for a key. Raises UsageError for a name that is none."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"a name of a key has letters, digits, - and _, 64 at most: {name[:100]!r}")
    return f'[keys.{name}]\nsha256 = "{hash_of(key.encode())}"\n'


def charge(tokens: int) -> None:
    """Put tokens on the account of whoever asked the request at hand."""
    caller = _caller.get()
    if caller is not None:
        caller.rates.charge(tokens)


class Guard:
    """Lets in who has a key, as far as it goes, and says with every answer how far that still is."""

    def __init__(
        self, app: ASGIApp, keys: Keys, *, open_paths: Set[str] = OPEN, uncounted: Set[str] = frozenset()
    ) -> None:
        """What is posted to `uncounted` needs a key, and is none of the requests it has."""
        self._app = app
        self._keys = keys
        self._open = open_paths
        self._uncounted = uncounted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        caller: Caller | None = None

        async def send_with_rates(message: Message) -> None:
            if caller is not None and message["type"] == "http.response.start":
                told = [(name.encode(), value.encode()) for name, value in caller.rates.headers().items()]
                message = {**message, "headers": [*message["headers"], *told]}
            await send(message)

        try:
            caller = self._caller(scope["headers"])
            log.note_caller(caller.name)
            if scope["method"] == "POST" and scope["path"] not in self._uncounted:  # to look is free
                caller.rates.admit()
        except ApiError as error:
            log.note_error(error)
            await error_response(error)(scope, receive, send_with_rates)
            return
        _caller.set(caller)
        await self._app(scope, receive, send_with_rates)

    def _caller(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Raises ApiError where it is nobody we know."""
        given = [value for name, value in headers if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer" or not key.strip():
            raise ApiError(401, "there is no API key; send it as Authorization: Bearer KEY", code="invalid_api_key")
        caller = self._keys.find(key.strip())
        if caller is None:
            raise ApiError(401, "the API key is not one of this server's", code="invalid_api_key")
        return caller
