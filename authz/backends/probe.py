"""Ask an Ollama what it is, with the headers that Caddy sends it and no others."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

import httpx
import msgspec
from attrs import frozen

if TYPE_CHECKING:
    from authz.backends.backend import Backend

TIMEOUT_S: Final = 3.0
"""For one answer, from the connection to its last byte."""
MOST_BYTES: Final = 16 << 20
"""Of one answer; the list of 10,000 models takes 4 MB."""
_UNAUTHORISED: Final = (401, 403)
_OWN_HEADERS: Final = ("accept", "accept-encoding", "connection", "user-agent")
"""What httpx would add; Caddy passes on the client's, or none."""


class Unanswered(Exception):
    """A backend did not answer as an Ollama does; its text continues "the backend x at y"."""


@frozen
class Probed:
    """What a backend answered; `problem` is why it can't serve, None when it can."""

    backend: str
    url: str
    problem: str | None
    version: str = ""
    models: tuple[str, ...] = ()
    """Those that complete prompts come first."""


class _Model(msgspec.Struct):
    name: str
    capabilities: list[str] | None = None
    """None of an Ollama that does not list them."""

    @property
    def completes(self) -> bool:
        return self.capabilities is None or "completion" in self.capabilities


class _Tags(msgspec.Struct):
    models: list[_Model] | None


class _Version(msgspec.Struct):
    version: str


def client(backend: Backend) -> httpx.AsyncClient:
    """Return a client of one backend; paths are appended to its base URL.

    Certificates are verified with the system's authorities, or with those of SSL_CERT_FILE, as in Caddy.
    """
    address = backend.address
    verify = ssl.create_default_context() if address.scheme == "https" else False
    made = httpx.AsyncClient(
        base_url=address.base,
        headers={"Host": address.host_header, **backend.credentials()},
        timeout=TIMEOUT_S,
        trust_env=False,
        transport=httpx.AsyncHTTPTransport(verify=verify, uds=address.socket),
    )
    for name in _OWN_HEADERS:
        del made.headers[name]
    return made


async def fetch(asking: httpx.AsyncClient, path: str, *, model: str | None = None) -> bytes:
    """Return the body of an answer to GET, or to POST of a model's name. Raises Unanswered."""
    method, sent = ("GET", None) if model is None else ("POST", {"model": model})
    try:
        async with asyncio.timeout(TIMEOUT_S), asking.stream(method, path, json=sent) as answer:
            if not answer.is_success:
                raise Unanswered(_refused(answer, path))
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    raise Unanswered(f"answers {path} with more than {MOST_BYTES:,} bytes")
            return body
    except (TimeoutError, httpx.TimeoutException) as error:
        raise Unanswered(f"does not answer within {TIMEOUT_S:.0f} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise Unanswered(f"does not answer ({words(error)})") from error


async def probe(backend: Backend) -> Probed:
    """Ask a backend for its models, which needs its token, and for its version."""
    try:
        async with client(backend) as asking:
            listed = msgspec.json.decode(await fetch(asking, "/api/tags"), type=_Tags).models or ()
            models = tuple(model.name for model in sorted(listed, key=lambda model: not model.completes))
            version = msgspec.json.decode(await fetch(asking, "/api/version"), type=_Version).version
    except Unanswered as error:
        return Probed(backend.name, backend.url, str(error))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Probed(backend.name, backend.url, "answers, but is no Ollama")
    return Probed(backend.name, backend.url, None, version, models)


def _refused(answer: httpx.Response, path: str) -> str:
    if answer.status_code in _UNAUTHORISED:
        return f"refuses the token, or wants one ({answer.status_code} to {answer.request.method} {path})"
    return f"answers {answer.status_code} to {answer.request.method} {path}"


def words(error: Exception) -> str:
    """Return why a request failed, in words for an operator."""
    found = " ".join(str(error).split()) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in found:
        return "its certificate is not trusted: name its authority in SSL_CERT_FILE"
    return found
