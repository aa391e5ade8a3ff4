"""Where the models are: `OLLAMA_BACKENDS` is the source of truth, `OLLAMA_URL` its short form."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import cattrs
import msgspec
from attrs import evolve, field, frozen

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


def parse(backends: str | None, url: str | None) -> tuple[Backend, ...]:
    """Parse both variables; return nothing if neither is set. Raises SettingsError with what to write."""
    if not backends:
        return (Backend(DEFAULT_NAME, _url(url, "OLLAMA_URL")),) if url else ()
    try:
        entries = _converter.structure(
            msgspec.json.decode(backends, type=list[dict[str, object]]), list[Backend]
        )
    except (msgspec.DecodeError, cattrs.BaseValidationError) as error:
        reasons = [str(error)] if isinstance(error, msgspec.DecodeError) else cattrs.transform_error(error)
        sentence = f'OLLAMA_BACKENDS is not a list of {{"name", "url"}}: {"; ".join(reasons)}.'
        raise SettingsError(sentence) from error
    parsed = tuple(
        evolve(entry, name=_name(entry.name), url=_url(entry.url, f"backend {entry.name}"))
        for entry in entries
    )
    if len({backend.name for backend in parsed}) != len(parsed):
        raise SettingsError("OLLAMA_BACKENDS names a backend twice: give each a name of its own.")
    return parsed


def _text(value: object, _: type) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook(str, _text)


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
