"""The gateway as a client meets it: any request, byte for byte, and the whole answer."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec
from attrs import field, frozen

from authz.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from authz.stack.doctor.edge import Running, Site

WITHIN_S: Final = 60.0
"""An answer of a few tokens, of a model that must be loaded first."""
RETRIES: Final = 3

EVERYWHERE: Final = frozenset({"", "0.0.0.0", "[::]"})  # noqa: S104  # nosec B104
"""Addresses that a site listens at on every interface: it is asked at this machine's own."""


@frozen
class Request:
    """A request of a client; the target is sent as it is, and so is the body."""

    method: str
    target: str
    key: str | None = field(default=None, repr=False)
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Return all header fields that its client chooses."""
        fields = [*self.headers]
        if self.key is not None:
            fields.append(("Authorization", f"Bearer {self.key}"))
        if self.body is not None:
            fields.append(("Content-Type", "application/json"))
        return fields


@frozen
class Answer:
    """A whole answer; status 0 stands for none, and then the body says why."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def request_id(self) -> str:
        """Return the id that the guard gave to the request, empty if it never saw it."""
        return self.headers.get("x-request-id", "")

    def json(self) -> Any:
        """Return the body as JSON, an empty object if it is none."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return {}


@frozen
class Gate:
    """A gateway at a URL."""

    url: str
    _client: httpx.AsyncClient
    refused: list[str] = field(factory=list)
    """The ids of the requests that were refused so far."""

    async def ask(self, request: Request) -> Answer:
        """Send a request and read its answer; a connection that breaks off is an answer, too.

        A 503 is tried again, as its clients do: it says that nothing was decided.
        """
        try:
            answer = await self._client.send(self._built(request))
            for _ in range(RETRIES):
                if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                    break
                await asyncio.sleep(float(answer.headers.get("retry-after", "1")))
                answer = await self._client.send(self._built(request))
        except httpx.HTTPError as error:
            return Answer(0, {}, f"{type(error).__name__}: {error}".encode())
        found = Answer(answer.status_code, dict(answer.headers), answer.content)
        if found.request_id and answer.is_error:
            self.refused.append(found.request_id)
        return found

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[httpx.Response]:
        """Send a request and read its answer piece by piece."""
        answer = await self._client.send(self._built(request), stream=True)
        try:
            yield answer
        finally:
            await answer.aclose()

    async def announce(self, request: Request, length: int) -> Answer:
        """Announce a body of so many bytes, send none of it, and read the answer."""
        parts = urlsplit(self.url)
        context = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if context else 80)
        head = [f"{request.method} {request.target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in request.fields]
        text = "\r\n".join([*head, f"Content-Length: {length}", "", ""])
        try:
            async with asyncio.timeout(WITHIN_S):
                reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
                writer.write(text.encode("latin-1"))
                answer = await reader.read()
                writer.close()
        except (OSError, TimeoutError) as error:
            return Answer(0, {}, (str(error) or type(error).__name__).encode())
        return _parsed(answer)

    def _built(self, request: Request) -> httpx.Request:
        target = {"target": request.target.encode("latin-1")}
        return self._client.build_request(
            request.method, self.url, content=request.body, headers=request.fields, extensions=target
        )


def _parsed(text: bytes) -> Answer:
    head, _, body = text.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    status = first.split(" ")[1:2]
    return Answer(int(status[0]) if status else 0, headers, body)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Gate]:
    """Open a client of the gateway, which trusts the authorities that this machine does."""
    # No cookies, no redirects, and no proxy of the environment: what is asked is the gateway itself.
    async with httpx.AsyncClient(
        verify=ssl.create_default_context(), timeout=WITHIN_S, trust_env=False, follow_redirects=False
    ) as client:
        yield Gate(url.rstrip("/"), client)


def url_of(running: Running | None) -> str:
    """Return where the guarded site of a Caddy can be reached from here. Raises CommandError if nowhere."""
    found = [_url(site) for site in (running.sites if running else ()) if site.is_guarded]
    if not found:
        raise CommandError("No Caddy with a guarded site answers here: name the gateway with --url.")
    return found[0]


def _url(site: Site) -> str:
    host, _, port = site.listen[0].rpartition("/")[2].rpartition(":")
    port = port.partition("-")[0]
    if site.is_tls:
        named = [name for name in site.hosts if "*" not in name]
        return f"https://{named[0] if named else 'localhost'}:{port}"
    return f"http://{'127.0.0.1' if host in EVERYWHERE else host}:{port}"
