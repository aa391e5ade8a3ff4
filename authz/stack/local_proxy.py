"""Serve a gateway on this machine alone, for programs that can't send a key: it is added to each request.

A web page in a browser of this machine reaches such a port, too. So pages from elsewhere are refused, as
Ollama refuses them, and so are requests to a name that is not this machine's (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx
import msgspec
import uvicorn

from authz.backends.probe import words
from authz.errors import CommandError
from authz.identity.secrets import handle

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from authz.backends.address import Address
    from authz.stack.demo.exchange import Receive, Scope, Send

DESKTOP_SCHEMES: Final = frozenset({"app", "file", "tauri", "vscode-file", "vscode-webview"})
"""Origins of programs that are built on a browser; no web page has one. Ollama allows the same."""
_HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
"""Headers of one connection (RFC 9110, 7.6.1)."""
_OURS: Final = frozenset({b"authorization", b"x-api-key", b"api-key", b"cookie", b"host", b"expect"})
"""Headers that the gateway gets from here alone: a foreign key beside ours would be a conflict."""
_CONNECT_S: Final = 10.0
_PROBE: Final = "/api/version"
"""A read route that wants a valid key and no backend."""


class LocalProxy:
    """An ASGI application that sends each request on, with the key, and streams both ways.

    Certificates are verified with the system's authorities, or those of SSL_CERT_FILE; HTTPS_PROXY is used.
    """

    def __init__(self, address: Address, key: str, *, origins: frozenset[str] = frozenset()) -> None:
        self._base = address.base
        self._prefix = address.prefix.encode()
        self._key = key
        self._origins = origins
        is_encrypted = address.scheme == "https"
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5),
            verify=ssl.create_default_context() if is_encrypted else False,
            trust_env=is_encrypted,  # a proxy that reads along would be given the key
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what the gateway still does for it ends when its client disconnects."""
        if scope["type"] != "http":
            return
        if not self._is_local(scope):
            await _refuse(send, HTTPStatus.FORBIDDEN, _FOREIGN)
            return
        is_read = asyncio.Event()
        answering = asyncio.create_task(self._answer(scope, _body(receive, is_read), send))
        leaving = asyncio.create_task(_left(receive, is_read))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    async def check(self) -> None:
        """Ask the gateway whether it takes the key. Raises CommandError."""
        asked = httpx.Request("GET", self._base + _PROBE, headers=[(b"authorization", self._credential())])
        try:
            async with asyncio.timeout(_CONNECT_S):
                answer = await self._client.send(asked)
        except (httpx.HTTPError, OSError) as error:
            raise CommandError(self._unanswered(error)) from error
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            raise CommandError(
                f"The gateway at {self._base} does not take the key {handle(self._key)}: it is unknown, "
                "disabled, revoked or expired, so ask for another."
            )
        if not answer.is_success:
            raise CommandError(
                f"The gateway at {self._base} answers {answer.status_code}: {_error_of(answer.content)}"
            )
        if _version_of(answer.content) is None:
            raise CommandError(f"{self._base} answers, but is no gateway: correct the URL.")

    async def serve(self, listener: socket.socket) -> None:
        """Serve on a listener until the process is asked to end; running answers are cut off then."""
        config = uvicorn.Config(
            self,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=0,
        )
        try:
            await uvicorn.Server(config).serve(sockets=[listener])
        finally:
            await self._client.aclose()

    def _credential(self) -> bytes:
        return b"Bearer " + self._key.encode()

    def _unanswered(self, error: Exception) -> str:
        why = words(error) if str(error) else f"nothing within {_CONNECT_S:.0f} s"
        return f"The gateway at {self._base} does not answer ({why}): is it running, and is the URL right?"

    async def _answer(self, scope: Scope, body: AsyncIterator[bytes], send: Send) -> None:
        has_begun = False
        try:
            answer = await self._client.send(await self._request(scope, body), stream=True)
            try:
                headers = [pair for pair in answer.headers.raw if pair[0].lower() not in _HOP_BY_HOP]
                has_begun = True
                await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
                async for part in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            finally:
                await answer.aclose()
        except (httpx.HTTPError, OSError) as error:
            if has_begun:  # uvicorn closes the connection of an answer without an end
                raise
            await _refuse(send, HTTPStatus.BAD_GATEWAY, self._unanswered(error))
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _request(self, scope: Scope, body: AsyncIterator[bytes]) -> httpx.Request:
        """Return the gateway's request: target and body are the client's bytes."""
        sent = list(scope["headers"])
        has_body = any(name in {b"content-length", b"transfer-encoding"} for name, _ in sent)
        if not has_body:
            async for _ in body:  # there is none, which is known once it has been read
                pass
        headers = [pair for pair in sent if pair[0] not in _HOP_BY_HOP | _OURS]
        headers.append((b"authorization", self._credential()))
        target = self._prefix + scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        return httpx.Request(
            scope["method"],
            self._base,
            headers=headers,
            content=body if has_body else None,
            extensions={"target": target},
        )

    def _is_local(self, scope: Scope) -> bool:
        """Return whether a request names this machine, and comes from no page of another."""
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        return (
            len(hosts) == 1
            and is_loopback(_host_of(f"//{hosts[0]}"))
            and all(origin in self._origins or _is_own(origin) for origin in origins)
        )


_FOREIGN: Final = (
    "This port is for programs of this machine, not for other names or for pages of other sites: "
    "allow a site by --origin of `neuronetz-gateway connect`."
)


def is_loopback(host: str) -> bool:
    """Return whether a name or address is this machine's alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_own(origin: str) -> bool:
    """Return whether an origin is a server's, or a desktop program's, of this machine."""
    return origin.partition(":")[0] in DESKTOP_SCHEMES or is_loopback(_host_of(origin))


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def _body(receive: Receive, is_read: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield the body of a request as it comes."""
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] != "http.request":
            raise httpx.ReadError("the client disconnected")
        has_more = message.get("more_body", False)
        if not has_more:
            is_read.set()
        yield message.get("body", b"")


async def _left(receive: Receive, is_read: asyncio.Event) -> None:
    """Return when the client of a request whose body was read has disconnected."""
    await is_read.wait()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(send: Send, status: HTTPStatus, sentence: str) -> None:
    body = msgspec.json.encode({"error": sentence})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class _Error(msgspec.Struct):
    error: str


class _Version(msgspec.Struct):
    version: str


def _error_of(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Error).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "that is no answer of a gateway, so correct the URL."


def _version_of(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_Version).version
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
