"""HTTP to OpenAI-compatible servers: what is tried again, what is not, and what was sent where.

A request is tried again after a lost connection, a time limit, a 5xx or a reply that makes no sense, after a random
pause of up to 0.5, 1, 2, ... seconds (full jitter). A 429 is waited out. A server that fails several times in a row is
left alone for a while, and then asked one request at a time until it answers again (a circuit breaker); of several
servers the least busy one that works is taken. What a server refuses is not asked again.
"""

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2

from smallwit.errors import UserError
from smallwit.inference.endpoint_body import Broken, Traffic, headers_size, read_body, read_events
from smallwit.inference.endpoint_key import hidden, without_key
from smallwit.network.offline import VARIABLE, is_local_host, is_this_machine

T = TypeVar("T")
_BREAKS_AFTER = 8
_SHOWN, _READ_FOR_IT = 300, 4096
_log = logging.getLogger(__name__)


class EndpointError(Exception):
    """A server could not be used, or failed at what it was asked. The message says why, in one line."""


class RequestFailed(EndpointError):
    """One request failed for good; others may succeed."""


class Refused(RequestFailed):
    """The server will not do this request, however often it is asked (400, 413, 422)."""


class NotThere(RequestFailed):
    """The server has no such path, or no such model (404, 405, 501)."""


class _Busy(Exception):
    """The server asks to wait; `seconds` as it said, or `None`."""

    def __init__(self, reason: str, seconds: float | None) -> None:
        super().__init__(reason)
        self.seconds = seconds


@dataclass(frozen=True)
class Endpoint:
    """A model behind one or several servers (base URLs, as `http://host:8000/v1`), and how patiently it is asked.

    The key is read from the environment variable `key_env` when it is needed, and kept nowhere. Seconds: `connect` to
    open a connection, `read` between two pieces of a reply, `total` for one attempt, `patience` without any success
    before servers that fail are given up, `longest_wait` that a server may ask for.
    """

    urls: tuple[str, ...]
    model: str
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = 16
    attempts: int = 6
    backoff: float = 0.5
    connect: float = 10.0
    read: float = 900.0
    total: float = 900.0
    cooldown: float = 5.0
    patience: float = 300.0
    longest_wait: float = 300.0

    def __post_init__(self) -> None:
        """Raises `UserError` for a URL that cannot be one, or that `--offline` forbids."""
        for url in self.urls:
            try:
                parsed = httpx2.URL(url)
            except httpx2.InvalidURL as error:
                raise UserError(f"endpoint {url}: {error}; give a URL as http://127.0.0.1:8000/v1") from error
            if parsed.scheme not in ("http", "https") or not parsed.host:
                raise UserError(f"endpoint {url}: is no http or https URL; give one as http://127.0.0.1:8000/v1")
            if parsed.userinfo or parsed.query or parsed.fragment:
                raise UserError(
                    f"endpoint {parsed.host}: the URL holds more than scheme, host, port and path; a key belongs into "
                    f"the environment variable {self.key_env}"
                )
            if os.environ.get(VARIABLE) == "1" and not is_local_host(parsed.host):
                raise UserError(
                    f"endpoint {url}: --offline allows no other machine; serve the model on this one, or run without"
                )
        if not self.urls or not self.model:
            raise UserError("an endpoint needs a URL and the name of a model, as openai:http://127.0.0.1:8000/v1#NAME")

    def key(self) -> str | None:
        """The key in the user's environment, if there is one. Raises `UserError` when it cannot be one."""
        key = os.environ.get(self.key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"{self.key_env}: holds characters that no key has; set it again")
        return key or None


@dataclass
class _Server:
    """One base URL, and whether it works."""

    url: str
    host: str
    client: httpx2.AsyncClient | None = None
    in_flight: int = 0
    streak: int = 0
    trips: int = 0
    not_before: float = 0.0
    broken_since: float | None = None
    last: str = ""

    def ready(self, now: float) -> bool:
        return now >= self.not_before and not (self.trips and self.in_flight)

    def succeeded(self) -> None:
        self.streak, self.trips, self.broken_since = 0, 0, None

    def failed(self, reason: str, cooldown: float) -> bool:
        """Whether the circuit was broken by this."""
        now = time.monotonic()
        self.last, self.streak = reason, self.streak + 1
        # What was under way when the circuit was broken fails too, and says nothing new.
        if now < self.not_before or not (self.trips or self.streak >= _BREAKS_AFTER):
            return False
        self.broken_since = self.broken_since or now
        self.not_before = now + min(60.0, cooldown * 2**self.trips)
        self.trips += 1
        return True

    def rest(self, seconds: float) -> None:
        self.not_before = max(self.not_before, time.monotonic() + seconds)


@dataclass
class Client:
    """Sends requests to an endpoint's servers. Use as an async context manager; it may be entered again."""

    endpoint: Endpoint
    traffic: dict[str, Traffic] = field(default_factory=dict)
    servers: list[_Server] = field(init=False)

    def __post_init__(self) -> None:
        self.servers = [_Server(url.rstrip("/"), httpx2.URL(url).netloc.decode()) for url in self.endpoint.urls]

    async def __aenter__(self) -> "Client":
        key, endpoint = self.endpoint.key(), self.endpoint
        headers = {"Accept-Encoding": "gzip"} | ({"Authorization": f"Bearer {key}"} if key else {})
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=endpoint.concurrency)
        timeout = httpx2.Timeout(endpoint.read, connect=endpoint.connect, pool=None)
        for server in self.servers:
            local = is_this_machine(httpx2.URL(server.url).host)
            if key and server.url.startswith("http:") and not local:
                _log.warning("%s: the key in %s goes there without encryption", server.url, endpoint.key_env)
            server.client = httpx2.AsyncClient(
                headers=headers,
                timeout=timeout,
                limits=limits,
                # A proxy is for other machines; a reply to a redirect would take text and key to another host.
                trust_env=not local,
                follow_redirects=False,
            )
            server.in_flight = 0
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self.servers:
            if server.client is not None:
                await server.client.aclose()
                server.client = None

    def counts(self) -> dict[str, dict[str, int]]:
        """The traffic by host (with its port), for ledgers."""
        return {host: asdict(traffic) for host, traffic in self.traffic.items()}

    async def post(self, path: str, body: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """What `read` makes of the reply. `read` raises `Broken` for a reply to be asked for again.

        Raises `RequestFailed` (`Refused`, `NotThere`) for this request, `EndpointError` when no server works any
        more, and `UserError` for a key that is not accepted.
        """
        return await self._persist("POST", path, _content(body), read)

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the JSON of each server-sent event, or of the whole reply where the server does not stream.

        Tried once. Raises as `post` does.
        """
        server, content = await self._working(), _content(body)
        try:
            async with self._response(server, "POST", path, content, {"Accept-Encoding": "identity"}) as response:
                traffic = self.traffic[server.host]
                kind = response.headers.get("content-type", "")
                if response.status_code != 200 or not kind.startswith("text/event-stream"):
                    yield self._object(server, path, response, await read_body(response, traffic))
                    return
                async with aclosing(read_events(response, traffic)) as events:
                    async for event in events:
                        yield self._object(server, path, response, event)
        except (Broken, _Busy, httpx2.TransportError, TimeoutError) as error:
            self.traffic[server.host].failed += 1
            raise RequestFailed(
                f"{server.url}: {self._clean((str(error) or type(error).__name__).encode())}"
            ) from error

    async def models(self) -> list[str]:
        """The names of the models that the servers offer. Raises as `post` does."""

        def names(reply: dict[str, Any]) -> list[str]:
            try:
                return [str(model["id"]) for model in reply["data"]]
            except (KeyError, TypeError) as error:
                raise Broken("a list of models without names") from error

        return await self._persist("GET", "/models", b"", names)

    async def _persist(self, method: str, path: str, content: bytes, read: Callable[[dict[str, Any]], T]) -> T:
        endpoint = self.endpoint
        failures = waits = 0
        while True:
            server = await self._working()
            server.in_flight += 1
            try:
                result = read(await self._once(server, method, path, content))
                server.succeeded()
                return result
            except _Busy as busy:
                waits += 1
                if waits > 4 * endpoint.attempts:
                    raise RequestFailed(f"{server.url}: asked {waits} times to wait: {busy}") from busy
                pause = self._pause(waits) if busy.seconds is None else busy.seconds
                if pause > endpoint.longest_wait:
                    raise EndpointError(
                        f"{server.url}: asks to wait {pause:.0f} s ({busy}); run the same command again then"
                    ) from busy
                server.rest(pause)
            except (Broken, httpx2.TransportError, httpx2.DecodingError, TimeoutError) as error:
                reason = self._clean((str(error) or type(error).__name__).encode(errors="replace"))
                self.traffic[server.host].failed += 1
                _log.info("%s: an attempt failed: %s", server.url, reason)
                if server.failed(reason, endpoint.cooldown) and server.trips == 1:
                    _log.warning(
                        "%s: left alone for a while, %d attempts failed: %s", server.url, _BREAKS_AFTER, reason
                    )
                # A server that is known to be broken is no fault of this request.
                failures += server.trips == 0
                if failures >= endpoint.attempts:
                    raise RequestFailed(f"{server.url}: {failures} attempts failed, the last: {reason}") from error
            finally:
                server.in_flight -= 1
            await asyncio.sleep(random.uniform(0, self._pause(failures)))

    def _pause(self, count: int) -> float:
        return min(30.0, self.endpoint.backoff * 2 ** max(0, count - 1))

    async def _working(self) -> _Server:
        """The least busy server that works, waiting for one if need be."""
        while True:
            now = time.monotonic()
            ready = [server for server in self.servers if server.ready(now)]
            if ready:
                return min(ready, key=lambda server: server.in_flight)
            broken = [now - server.broken_since for server in self.servers if server.broken_since is not None]
            if len(broken) == len(self.servers) and min(broken) > self.endpoint.patience:
                last = "; ".join(f"{server.url}: {server.last}" for server in self.servers)
                raise EndpointError(
                    f"no server has answered for {min(broken):.0f} s ({last}); run the same command again when one does"
                )
            await asyncio.sleep(max(0.02, min(server.not_before for server in self.servers) - now))

    async def _once(self, server: _Server, method: str, path: str, content: bytes) -> dict[str, Any]:
        """One attempt: the JSON object that came back."""
        async with self._response(server, method, path, content) as response:
            body = await read_body(response, self.traffic[server.host])
        return self._object(server, path, response, body)

    @asynccontextmanager
    async def _response(
        self, server: _Server, method: str, path: str, content: bytes, headers: dict[str, str] | None = None
    ) -> AsyncGenerator[httpx2.Response, None]:
        """Send a request, and close its response at the end. Raises `Broken` where it takes too long."""
        assert server.client is not None
        traffic = self.traffic.setdefault(server.host, Traffic())
        headers = (headers or {}) | ({"Content-Type": "application/json"} if content else {})
        request = server.client.build_request(method, server.url + path, content=content, headers=headers)
        traffic.requests += 1
        traffic.bytes_sent += headers_size(request.headers) + len(str(request.url)) + len(content)
        try:
            async with asyncio.timeout(self.endpoint.total):
                response = await server.client.send(request, stream=True)
                try:
                    yield response
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise Broken(f"no whole reply within {self.endpoint.total:g} s") from error

    def _object(self, server: _Server, path: str, response: httpx2.Response, body: bytes) -> dict[str, Any]:
        status = response.status_code
        if status == 200:
            try:
                reply = json.loads(without_key(body, self.endpoint.key()))
            except (ValueError, RecursionError) as error:
                kind = self._clean(response.headers.get("content-type", "no type").encode())
                raise Broken(f"a reply of {kind} that is not JSON: {self._clean(body)}") from error
            if not isinstance(reply, dict) or reply.get("error"):
                raise Broken(f"a reply that is no completion: {self._clean(body)}")
            return reply
        reason = f"status {status}: {self._message(body)}"
        where, key_env = server.url + path, self.endpoint.key_env
        if status in (401, 403):
            given = "is not accepted" if self.endpoint.key() else "is not set"
            raise UserError(f"{where}: {reason}; the key in the environment variable {key_env} {given}")
        if 300 <= status < 400:
            target = self._clean(response.headers.get("location", "nowhere").encode())
            raise UserError(f"{where}: redirects to {target}; text and key go only where you say: name that URL")
        if status == 429:
            if "insufficient_quota" in body.decode(errors="replace"):
                raise UserError(f"{where}: {reason}; the account's quota is used up")
            raise _Busy(reason, _retry_after(response))
        if status == 503 and "retry-after" in response.headers:
            raise _Busy(reason, _retry_after(response))
        if status in (404, 405, 501):
            raise NotThere(f"{where}: {reason}")
        # llama-cpp-python says 500 for a field that it does not know how to read.
        if (status >= 500 and "validation error" not in reason) or status in (408, 409, 425):
            raise Broken(reason)
        raise Refused(f"{where}: {reason}")

    def _message(self, body: bytes) -> str:
        """What a server says went wrong, in the forms that are in use."""
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            return self._clean(body)
        while isinstance(said, dict):
            said = next((said[key] for key in ("error", "message", "detail", "msg") if said.get(key)), str(said))
        return self._clean(str(said).encode())

    def _clean(self, body: bytes) -> str:
        """One short line, without the key: some servers repeat it."""
        text = hidden(body, self.endpoint.key())  # before anything is cut, lest a part of it be left
        return " ".join(text[:_READ_FOR_IT].split())[:_SHOWN] or "nothing"


def _content(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Refused("the prompt holds half a character, which cannot be sent; mend its text") from error


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds to wait, of a number or a date (RFC 9110, sec. 10.2.3)."""
    text = response.headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
