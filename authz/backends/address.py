"""The address of a backend: a base URL that means the same to Caddy, to httpx and to an operator."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from attrs import frozen

from authz.errors import SettingsError

_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?", re.ASCII)
_PREFIX: Final = re.compile(r"(/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)*", re.ASCII)
_SOCKET: Final = re.compile(r"(/[A-Za-z0-9._@+-]+)+", re.ASCII)
_PORTS: Final = {"http": 80, "https": 443}
_METADATA: Final = frozenset(
    {"100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"}
)
"""Where clouds answer with the machine's own credentials outside of the link-local networks."""
_METADATA_HOSTS: Final = ("metadata", "metadata.google.internal", "instance-data")
_RECEIVER: Final = "write one like https://hooks.example.com/services/ID"
_EXAMPLE: Final = "write it like http://127.0.0.1:11434, https://host/prefix or unix:///run/ollama.sock"


@frozen
class Address:
    """Where a backend listens: a host and port, or a unix socket; `prefix` stands before every path."""

    scheme: str
    host: str
    port: int | None
    prefix: str = ""
    socket: str | None = None

    @property
    def upstream(self) -> str:
        """Return what Caddy's reverse_proxy dials: the address without a prefix."""
        return f"unix/{self.socket}" if self.socket else f"{self.scheme}://{self.netloc}"

    @property
    def netloc(self) -> str:
        """Return host and port as they stand in a URL, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def host_header(self) -> str:
        """Return the Host that Caddy sends: always with a port, but for a socket."""
        if self.socket:
            return self.host
        return f"{self.netloc}:{_PORTS[self.scheme]}" if self.port is None else self.netloc

    @property
    def base(self) -> str:
        """Return the URL that paths are appended to."""
        return f"{self.scheme}://{self.netloc}{self.prefix}"

    @property
    def text(self) -> str:
        """Return the URL as it stands in OLLAMA_BACKENDS."""
        return f"unix://{self.socket}" if self.socket else self.base


def read(text: str, where: str) -> Address:
    """Read a base URL; `where` names it in the refusal. Raises SettingsError."""
    try:
        parts = urlsplit(text if "//" in text else f"http://{text}")
        port = parts.port
    except ValueError as error:
        raise _refusal(where, text, "it has no valid host and port") from error
    if problem := _unreadable(text, parts) or _unusable(parts, port):
        raise _refusal(where, text, problem)
    if parts.scheme == "unix":
        return Address("http", "localhost", None, socket=parts.path)
    return Address(parts.scheme, parts.hostname or "", port, prefix=parts.path.rstrip("/"))


def receiver(text: str) -> str | None:
    """Return why a text is no URL that alerts can be posted to: a form, which repeats none of it.

    It may have any path and query, in which a secret may stand, but names a host as a backend's URL does.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return f"has no valid host and port: {_RECEIVER}"
    if not text.isascii() or not text.isprintable() or " " in text:
        return f"holds characters that no URL has: {_RECEIVER}"
    if "@" in parts.netloc or "#" in text:
        return f"has a login or a fragment, put its token into GATEWAY_ALERT_TOKEN_FILE: {_RECEIVER}"
    if parts.scheme not in _PORTS or not _is_host(parts.hostname or "") or port == 0:
        return f"is no URL of a receiver: {_RECEIVER}"
    if is_link_local(parts.hostname or ""):
        return f"names a link-local or metadata address: {_RECEIVER}"
    return None


def is_link_local(host: str) -> bool:
    """Return whether a host is a link-local or a cloud's metadata address, which no Ollama should have."""
    name = host.rstrip(".").lower()
    if name in _METADATA_HOSTS:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_link_local or str(address) in _METADATA


def _unreadable(text: str, parts: SplitResult) -> str | None:
    if not text.isascii() or not text.isprintable() or " " in text:
        return "it holds characters that no URL has"
    if "@" in parts.netloc:
        return "credentials in it would be logged, give the token with --token-file"
    if "?" in text or "#" in text:
        return "a query or fragment can't stand in it"
    return None


def _unusable(parts: SplitResult, port: int | None) -> str | None:
    if parts.scheme == "unix":
        return None if not parts.netloc and _SOCKET.fullmatch(parts.path) else "its path can't be used"
    if parts.scheme not in _PORTS:
        return "its scheme is neither http, https nor unix"
    if not _is_host(parts.hostname or "") or port == 0:
        return "it has no valid host and port"
    return None if _PREFIX.fullmatch(parts.path.rstrip("/")) else "its path can't be used"


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _HOST.fullmatch(host) is not None
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host  # a zone is no part of what Caddy dials


def _refusal(where: str, text: str, problem: str) -> SettingsError:
    shown = re.sub(r"//[^/]*@", "//***@", text)
    return SettingsError(f"{where}: {shown!r} is not a base URL ({problem}): {_EXAMPLE}.")
