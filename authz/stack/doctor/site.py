"""The public site: TLS that clients believe, and HSTS."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from http.client import HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz.stack.doctor.finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authz.stack.doctor.edge import Site

CHECK: Final = "site"
ENDING: Final = timedelta(days=2)
"""Caddy renews long before: in the last third of a certificate's time."""
_WITHIN_S: Final = 5.0


@frozen(kw_only=True)
class Answer:
    """What a client meets at a name: why there is no TLS, or the end of the certificate and the header."""

    name: str
    fault: str | None = None
    ends: datetime | None = None
    hsts: str | None = None


def names(site: Site) -> Iterator[tuple[str, int]]:
    """Yield the names and ports under which a site can be asked as a client does."""
    port = int(site.listen[0].rpartition(":")[2].partition("-")[0])
    yield from ((host, port) for host in site.hosts if "*" not in host)


def gather(host: str, port: int) -> Answer:
    """Ask a site as a client does, with the authorities that this machine trusts (SSL_CERT_FILE)."""
    connection = HTTPSConnection(host, port, timeout=_WITHIN_S, context=ssl.create_default_context())
    try:
        connection.connect()
        certificate = connection.sock.getpeercert() or {}
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
    except (OSError, HTTPException) as error:
        return Answer(name=host, fault=str(error) or type(error).__name__)
    finally:
        connection.close()
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    return Answer(name=host, ends=ends, hsts=answer.getheader("Strict-Transport-Security"))


def is_local(site: Site) -> bool:
    """Return whether a site listens where only this machine can reach it."""
    return all(_is_loopback(address) for address in site.listen)


def _is_loopback(address: str) -> bool:
    if address.startswith("unix"):
        return True
    host = address.rpartition("/")[2].rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def judge(site: Site, answers: list[Answer], *, now: datetime) -> list[Finding]:
    """Judge a guarded site by what its names answer."""
    where = ", ".join(site.listen)
    if not site.is_tls:
        if is_local(site):
            return [ok(CHECK, f"{where} is plain HTTP, for this machine alone.")]
        sentence = (
            f"{where} takes keys in plain HTTP: name your domain in GATEWAY_SITE, or put TLS before it."
        )
        return [warn(CHECK, sentence)]
    found = [finding for answer in answers for finding in _of_answer(answer, now)]
    return found or [ok(CHECK, f"{where} has TLS.")]


def _of_answer(answer: Answer, now: datetime) -> list[Finding]:
    if answer.fault is not None:
        sentence = (
            f"https://{answer.name} can't be used: {answer.fault}. Check DNS, the ports and Caddy's log."
        )
        return [fail(CHECK, sentence)]
    if answer.ends is not None and answer.ends - now < ENDING:
        sentence = f"The certificate of {answer.name} ends {answer.ends:%Y-%m-%d %H:%M}Z: see Caddy's log."
        return [warn(CHECK, sentence)]
    if answer.hsts is None:
        sentence = (
            f"https://{answer.name} sends no HSTS: add `header Strict-Transport-Security max-age=31536000` "
            "to its site."
        )
        return [warn(CHECK, sentence)]
    return [ok(CHECK, f"https://{answer.name} has a valid certificate and HSTS.")]
