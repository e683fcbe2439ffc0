"""HTTP to a server that may be busy, slow, gone or broken, and never waits for it without a bound.

1. What may work the next time is tried again, `retries` times: 408, 425, 429 and 5xx, connections that fail or break
   off, silence, answers that are no JSON. The waits double, and are spread at random.
2. A 429 slows the whole client down: nobody asks again before the time that the server names, or its own wait.
3. What can never work is `Refused` at once, with the server's words.
4. Bounds: `timeout_s` without a byte, `total_timeout_s` for a request with all its retries (its turn among
   `max_connections` comes before), a line and a body of so many bytes.
5. Secrets are cut out of every message; redirects, which would carry them elsewhere, are not followed.

Knows nothing of completions. Runs in one event loop, that of `engine.remote`. The only file that imports the HTTP
client. Imports no torch.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from zaya.errors import CompletionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2

FailureKind = Literal["rate_limit", "server", "connection", "timeout", "garbled", "broken_off", "withheld"]
"""What went wrong: too many requests, an error of the server's, no connection, silence, an answer that cannot be read,
one that ended in its midst, one that the server does not give."""

MOST_LINE = 16 << 20
"""Bytes of one line of a stream: the ids of a prompt of a million tokens fit."""
MOST_BODY = 256 << 20
"""Bytes of an answer in all."""
_LONGEST_WAIT_S = 60.0
"""Between two tries, unless the server asks for more."""
_MOST_WORDS = 500
"""Characters of a server's message that are repeated."""

T = TypeVar("T")


class ServerError(CompletionError):
    """A server that did not answer. Its neighbours may have."""

    def __init__(self, kind: FailureKind, message: str, *, wait_s: float | None = None) -> None:
        super().__init__(message, kind=kind)
        self.wait_s = wait_s
        """When the server wants to be asked again."""


class Refused(Exception):
    """An answer that would be the same the next time."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Transport:
    """Requests to one server."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        secrets: Sequence[str],
        timeout_s: float,
        connect_timeout_s: float,
        total_timeout_s: float,
        retries: int,
        max_connections: int,
        backoff_s: float,
    ) -> None:
        """Raises UsageError for an address that is none, and where the HTTP client is not installed."""
        try:
            import httpx2
        except ImportError as error:
            raise UsageError(
                "a remote server needs the extra 'remote'", hint="pip install 'openzaya[remote]'"
            ) from error
        try:
            url = httpx2.URL(base_url.rstrip("/"))
        except httpx2.InvalidURL as error:
            raise UsageError(f"base_url is no address: {error}", hint="such as http://localhost:8000/v1") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise UsageError(
                f"base_url must begin with http:// or https:// and name a host: {url.copy_with(userinfo=b'')}",
                hint="such as http://localhost:8000/v1",
            )
        if url.path in ("", "/"):
            url = url.copy_with(path="/v1")
        for name, value in headers.items():
            # the HTTP client would refuse it as well, and spell it out
            if not (value.isascii() and value.isprintable()) or value != value.strip():
                what = "api_key" if name == "Authorization" else f"the header {name}"
                raise UsageError(f"{what} must be printable ASCII, with no space or line break around it")
        self._url = url
        self.shown = str(url.copy_with(userinfo=b"", query=None))
        """The address, without what may be secret in it."""
        self._secrets = [secret for secret in (*secrets, url.password) if secret]
        self._headers = dict(headers)
        self._timeout = httpx2.Timeout(timeout_s, connect=connect_timeout_s, pool=None)
        self._limits = httpx2.Limits(max_connections=max_connections + 1)  # one to ask which models there are
        self._total_timeout_s = total_timeout_s
        self._retries = retries
        self._backoff_s = backoff_s
        self._slots = asyncio.Semaphore(max_connections)
        self._not_before = 0.0
        """On the loop's clock: nobody asks before."""
        self._client: httpx2.AsyncClient | None = None
        self.errors: Counter[str] = Counter()
        """How often something went wrong, by kind; most of it went well the next time."""
        self.last_error: ServerError | None = None
        """The last of it."""

    async def persist(self, attempt: Callable[[], Awaitable[T]], again: Callable[[], bool] = lambda: True) -> T:
        """What `attempt` returns, once it does. It raises ServerError for what may work the next time; where `again`
        denies it there is none."""
        loop = asyncio.get_running_loop()
        async with self._slots:
            deadline = loop.time() + self._total_timeout_s
            tries = 0
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        while (pause := self._not_before - loop.time()) > 0:
                            await asyncio.sleep(pause + random.uniform(0, pause / 2))  # not all at the same moment
                        return await attempt()
                except TimeoutError:
                    message = f"{self.shown} did not come to an end within {self._total_timeout_s:g} s"
                    failure = ServerError("timeout", message)
                except ServerError as error:
                    failure = error
                self.errors[failure.kind] += 1
                self.last_error = failure
                wait_s = min(self._backoff_s * 2**tries, _LONGEST_WAIT_S) * random.uniform(0.5, 1)
                wait_s = max(wait_s, failure.wait_s or 0)
                tries += 1
                is_last = tries > self._retries or loop.time() + wait_s >= deadline
                if failure.kind == "withheld" or is_last or not again():
                    raise failure
                if failure.kind == "rate_limit":
                    self._not_before = max(self._not_before, loop.time() + wait_s)
                else:
                    await asyncio.sleep(wait_s)

    async def get(self, path: str) -> Any:
        """A small answer. Raises ServerError, Refused."""
        with self._translated():
            async with self._open().stream("GET", self._address(path)) as response:
                return await self._whole(response)

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The objects of a stream as they come; the one object of an answer that is none. Raises ServerError, Refused.

        Whoever stops listening has to close it, which closes the connection.
        """
        data = json.dumps(body).encode()
        with self._translated():
            async with self._open().stream("POST", self._address(path), content=data) as response:
                if response.status_code != 200 or "event-stream" not in response.headers.get("content-type", ""):
                    yield self._object(await self._whole(response))
                    return
                async for line in _lines(response):
                    field, _, value = line.partition(b":")
                    if field != b"data":  # comments keep the connection alive; other fields say nothing here
                        continue
                    value = value.strip()
                    if value == b"[DONE]":
                        return
                    if value:
                        yield self._object(self._json(value))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def clean(self, text: str) -> str:
        """A text of the server's, short and without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text if len(text) <= _MOST_WORDS else text[:_MOST_WORDS] + " ..."

    def failure(self, error: Any) -> ServerError | Refused:
        """What an error object in an answer means; without a status in it, that of a server in trouble."""
        code = error.get("code") if isinstance(error, Mapping) else None
        status = code if isinstance(code, int) and code >= 400 else 500
        return self._failure(status, self._words(error), {})

    def _address(self, path: str) -> httpx2.URL:
        return self._url.copy_with(path=self._url.path.rstrip("/") + path)

    def _open(self) -> httpx2.AsyncClient:
        import httpx2

        if self._client is None:
            headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
            self._client = httpx2.AsyncClient(
                headers={**headers, **self._headers}, timeout=self._timeout, limits=self._limits
            )
        return self._client

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the HTTP client, as ours."""
        import httpx2

        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise ServerError("connection", f"{self.shown} cannot be reached: {self._said(error)}") from None
        except httpx2.TimeoutException as error:
            raise ServerError("timeout", f"{self.shown} was silent for too long: {self._said(error)}") from None
        except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
            raise ServerError("broken_off", f"{self.shown} broke off: {self._said(error)}") from None
        except httpx2.DecodingError as error:
            raise ServerError("garbled", f"{self.shown} sent what cannot be decoded: {self._said(error)}") from None
        except httpx2.HTTPError as error:
            raise ServerError("connection", f"{self.shown} cannot be reached: {self._said(error)}") from None

    def _said(self, error: Exception) -> str:
        return self.clean(f"{type(error).__name__} {error}".strip())

    async def _whole(self, response: httpx2.Response) -> Any:
        """The body of an answer that is no stream. Raises what its status means."""
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > MOST_LINE:
                raise ServerError("garbled", f"{self.shown} sent more than {MOST_LINE:,} bytes in one piece")
        if response.status_code == 200:
            return self._json(bytes(data))
        try:
            words = self._words(json.loads(data))
        except (ValueError, RecursionError):
            words = self.clean(data.decode("utf-8", "replace").strip())
        raise self._failure(response.status_code, words, response.headers)

    def _failure(self, status: int, words: str, headers: Mapping[str, str]) -> ServerError | Refused:
        message = f"{self.shown} answered {status}: {words}" if words else f"{self.shown} answered {status}"
        if status == 429 or status == 503:
            kind: FailureKind = "rate_limit" if status == 429 else "server"
            return ServerError(kind, message, wait_s=_retry_after(headers.get("retry-after")))
        if status in (408, 425) or (status >= 500 and status != 501):
            return ServerError("server", message)
        return Refused(status, message)

    def _words(self, body: Any) -> str:
        """What an error says: servers put it at the top, under `error`, under `detail`."""
        while isinstance(body, Mapping):
            inner = next((body[key] for key in ("error", "message", "detail") if body.get(key)), None)
            if inner is None:
                break
            body = inner
        return self.clean(body if isinstance(body, str) else json.dumps(body))

    def _json(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:  # ValueError: also what is not UTF-8
            raise ServerError("garbled", f"{self.shown} sent what is not JSON: {self.clean(str(error))}") from None

    def _object(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ServerError("garbled", f"{self.shown} sent no JSON object: {type(value).__name__}")
        return value


async def _lines(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The lines of a stream. They are told apart as bytes: JSON may hold characters at which strings are split."""
    pending, total = bytearray(), 0
    async for chunk in response.aiter_bytes():
        total += len(chunk)
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            yield bytes(pending + line)
            pending.clear()
        pending += rest
        if len(pending) > MOST_LINE or total > MOST_BODY:
            raise ServerError("garbled", f"the server sent {len(pending):,} bytes in one line, {total:,} in all")
    if pending:
        yield bytes(pending)


def _retry_after(value: str | None) -> float | None:
    """Seconds until a server wants to be asked again: it says a number, or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
