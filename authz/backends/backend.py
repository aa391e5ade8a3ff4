"""Where the models are: `OLLAMA_BACKENDS` is the source of truth, `OLLAMA_URL` its short form."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec
from attrs import field, frozen

from authz.errors import SettingsError

DEFAULT_NAME: Final = "default"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)


@frozen
class Backend:
    """An Ollama server: its base URL and, if it wants one, the credential we send it."""

    name: str
    url: str
    token: str | None = field(default=None, repr=False)
    header: str = "Authorization"
    scheme: str = "Bearer"

    def credentials(self) -> dict[str, str]:
        """Return the header that this backend requires, if any."""
        if self.token is None:
            return {}
        return {self.header: f"{self.scheme} {self.token}".strip()}


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    url: str
    token: str | None = None
    header: str = "Authorization"
    scheme: str = "Bearer"


def parse(backends: str | None, url: str | None) -> tuple[Backend, ...]:
    """Read both variables; empty if neither is set. Raises SettingsError with what to write instead."""
    if not backends:
        return (Backend(DEFAULT_NAME, _url(url, "OLLAMA_URL")),) if url else ()
    try:
        entries = msgspec.json.decode(backends, type=list[_Entry])
    except msgspec.DecodeError as error:
        raise SettingsError(f'OLLAMA_BACKENDS is not a list of {{"name", "url"}}: {error}.') from error
    parsed = tuple(
        Backend(
            _name(entry.name),
            _url(entry.url, f"backend {entry.name}"),
            entry.token,
            entry.header,
            entry.scheme,
        )
        for entry in entries
    )
    if len({backend.name for backend in parsed}) != len(parsed):
        raise SettingsError("OLLAMA_BACKENDS names a backend twice: give each a name of its own.")
    return parsed


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"The backend name {name!r} can't be used: take lower-case letters, digits and '-', at most 32."
        )
    return name


def _url(text: str, where: str) -> str:
    parts = urlsplit(text if "//" in text else f"http://{text}")
    try:
        is_usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise SettingsError(f"{where}: {text!r} is not a base URL: write it like http://127.0.0.1:11434.")
    return f"{parts.scheme}://{parts.netloc}"
