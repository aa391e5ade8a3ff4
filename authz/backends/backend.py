"""Where the models are: `OLLAMA_BACKENDS` is the source of truth, `OLLAMA_URL` its short form.

The list is a value: every function here takes one and returns another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import cattrs
import msgspec
from attrs import evolve, field, fields, frozen

from authz.backends import address
from authz.errors import SettingsError
from authz.forms import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from authz.backends.address import Address

DEFAULT_NAME: Final = "default"
VARIABLE: Final = "OLLAMA_BACKENDS"
MOST_IN_FLIGHT: Final = 10_000
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z0-9._~+/-]{0,32}", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,8190}[\x21-\x7e])?", re.ASCII)
_TAKEN_HEADERS: Final = frozenset(
    {"connection", "content-length", "content-type", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that Caddy or the client must set themselves; X-Nz-* is the gateway's own."""


@frozen
class Backend:
    """An Ollama server: its base URL and, if it wants one, the credential we send it."""

    name: str
    url: str
    token: str | None = field(default=None, repr=False)
    header: str = "Authorization"
    scheme: str = "Bearer"
    max_in_flight: int | None = None
    """How many requests it gets at a time; those beyond wait in Caddy, fairly between tenants."""

    @property
    def address(self) -> Address:
        """Return the parts of its URL."""
        return address.read(self.url, f"backend {self.name}")

    def credentials(self) -> dict[str, str]:
        """Return the header that this backend requires, if any."""
        if self.token is None:
            return {}
        return {self.header: f"{self.scheme} {self.token}".strip()}


def checked(backend: Backend) -> Backend:
    """Return a backend with its URL in the one form that is compared. Raises SettingsError."""
    if not _NAME.fullmatch(backend.name):
        raise SettingsError(
            f"The backend name {backend.name!r} can't be used: "
            "take lower-case letters, digits and '-', at most 32."
        )
    where = f"backend {backend.name}"
    header = backend.header.lower()
    if not _HEADER.fullmatch(header) or header in _TAKEN_HEADERS or header.startswith("x-nz-"):
        raise SettingsError(f"{where}: a token can't be sent in the header {backend.header!r}: name another.")
    if not _SCHEME.fullmatch(backend.scheme):
        raise SettingsError(f"{where}: the scheme {backend.scheme!r} can't be used: write it like Bearer.")
    if backend.token is not None and not _TOKEN.fullmatch(backend.token):
        raise SettingsError(f"{where}: the token is empty or holds what no header can: give it as issued.")
    if backend.max_in_flight is not None and not 1 <= backend.max_in_flight <= MOST_IN_FLIGHT:
        raise SettingsError(f"{where}: max_in_flight must be from 1 to {MOST_IN_FLIGHT:,}.")
    return evolve(backend, url=address.read(backend.url, where).text)


def parse(backends: str | None, url: str | None) -> tuple[Backend, ...]:
    """Parse both variables; return nothing if neither is set. Raises SettingsError with what to write."""
    if not backends:
        return (Backend(DEFAULT_NAME, address.read(url, "OLLAMA_URL").text),) if url else ()
    try:
        entries = _converter.structure(
            msgspec.json.decode(backends, type=list[dict[str, object]]), list[Backend]
        )
    except (msgspec.DecodeError, cattrs.BaseValidationError) as error:
        reasons = [str(error)] if isinstance(error, msgspec.DecodeError) else cattrs.transform_error(error)
        sentence = f'{VARIABLE} is not a list of {{"name", "url"}}: {"; ".join(reasons)}.'
        raise SettingsError(sentence) from error
    parsed, problems = [], []
    for entry in entries:
        try:
            parsed.append(checked(entry))
        except SettingsError as error:
            problems.append(str(error))
    if problems:
        raise SettingsError("\n".join(problems))
    if len({backend.name for backend in parsed}) != len(parsed):
        raise SettingsError(f"{VARIABLE} names a backend twice: give each a name of its own.")
    return tuple(parsed)


def serialise(backends: Sequence[Backend]) -> str:
    """Write the list as `parse` reads it, in ASCII and without an apostrophe; tokens stand in it."""
    return _text([_entry(backend) for backend in backends])


def redacted(backends: Sequence[Backend]) -> str:
    """Write the list for people, with `***` in place of every token."""
    hidden = (evolve(backend, token=backend.token and HIDDEN) for backend in backends)
    return _text([_entry(backend) for backend in hidden])


def added(backends: Sequence[Backend], new: Backend, *, is_replacement: bool) -> tuple[Backend, ...]:
    """Return the list with one more at its end; a replacement takes the place of its name.

    Raises SettingsError for a name that is there without `is_replacement`.
    """
    if new.name not in {backend.name for backend in backends}:
        return (*backends, new)
    if not is_replacement:
        raise SettingsError(f"There is a backend {new.name} already: change it with --replace.")
    return tuple(new if backend.name == new.name else backend for backend in backends)


def removed(backends: Sequence[Backend], name: str) -> tuple[Backend, ...]:
    """Return the list without this backend. Raises SettingsError if there is none of the name."""
    found(backends, name)
    return tuple(backend for backend in backends if backend.name != name)


def found(backends: Sequence[Backend], name: str) -> Backend:
    """Return the backend of this name. Raises SettingsError with the names that there are."""
    for backend in backends:
        if backend.name == name:
            return backend
    names = ", ".join(backend.name for backend in backends) or "none at all"
    raise SettingsError(f"There is no backend {name!r}: there is {names}.")


def _entry(backend: Backend) -> dict[str, object]:
    """Return the fields that differ from their defaults, in the order of their declaration."""
    return {
        of.name: getattr(backend, of.name)
        for of in fields(Backend)
        if of.name in {"name", "url"} or getattr(backend, of.name) != of.default
    }


def _text(entries: list[dict[str, object]]) -> str:
    # Every value is ASCII already; an apostrophe would end the quotes of an env file.
    return msgspec.json.encode(entries).decode().replace("'", r"\u0027")


def _string(value: object, _: type) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: object, _: type) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook(str, _string)
_converter.register_structure_hook(int, _number)


@frozen
class Described:
    """A backend as `status` shows it: what it answered last, and if it still does."""

    name: str
    is_live: bool
    version: str
    models: tuple[str, ...]
    loaded: tuple[str, ...]
