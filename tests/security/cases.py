"""The attacks as data: `cases/*.toml`, and the bytes and fields that each of them sends.

A case that says what it asks for (`request`, `headers`, `body`) is made over every protocol; one that says
which bytes (`send`) or fields (`fields`) go over the wire, over those that can carry them. Each character is
one byte.

`<path>` is a metered route of each dialect in turn; `<key>` and the like are keys, good and bad; `<chat>` is
a body, `<post>` and `<pull>` are whole requests with the key; `<chat.length>` and `<chat.hex>` are how long
they are; `<a x 9>` is nine times `a`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import structs

from authz.identity.secrets import LOOKUP_LENGTH
from authz.types import Dialect
from tests.security.frames import Fields

H1, H1_TLS, H2C, H2 = "h1", "h1-tls", "h2c", "h2"
PROTOCOLS: Final = (H1, H1_TLS, H2C, H2)
PATHS: Final = {
    Dialect.OLLAMA: "/api/chat",
    Dialect.OPENAI: "/v1/chat/completions",
    Dialect.ANTHROPIC: "/v1/messages",
}
CHAT: Final = json.dumps(
    {
        "model": "demo",
        "stream": False,
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "tokens=2"}],
    }
).encode()
_FOLDER: Final = Path(__file__).parent / "cases"
_REPEATED: Final = re.compile(r"<([^<>]+?) x (\d+)>")
_FRAMING: Final = ("content-length", "transfer-encoding")


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What goes over one connection, and what may come of it."""

    name: str = ""
    each: tuple[str, ...] = ()
    """A case each, which is its own name: it stands for `<it>`."""
    named: dict[str, str] = {}
    """A case each by its name, likewise."""
    refs: tuple[str, ...] = ()
    """Rows of the threat model, or advisories about others."""
    over: tuple[str, ...] = PROTOCOLS

    request: str = "POST <path>"
    headers: tuple[str, ...] = ("Authorization: Bearer <key>",)
    body: str = "<chat>"
    is_whole: bool = True
    """False: no more of the body comes than stands here, although more is announced."""

    send: str = ""
    """Exactly these bytes, over HTTP/1.1."""
    hangs_up: bool = False
    """End the sending side once all is sent."""
    fields: tuple[str, ...] = ()
    """Exactly these fields, over HTTP/2, and the body."""
    trailers: tuple[str, ...] = ()
    """Fields after the body, over HTTP/2."""
    is_slow: bool = False
    """The answer takes seconds."""

    answers: tuple[int | tuple[int, ...], ...]
    """The statuses allowed for each answer in turn; 0 is a reset or a closed connection."""
    reason: str = ""
    """Of the record of a refusal; the words of the answer must be those of this reason."""
    outcome: str = ""
    """Of the record, where it says more than the status."""
    hits: int = 0
    """How many requests the backend sees; each is the same."""
    target: str = "<path>"
    """What the backend sees of each."""
    arrives: str = "<chat>"

    @property
    def is_exact(self) -> bool:
        """Return whether the case says what goes over the wire."""
        return bool(self.send or self.fields)

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that can carry it."""
        possible = {H1, H1_TLS} if self.send else {H2C, H2} if self.fields else set(PROTOCOLS)
        return tuple(each for each in self.over if each in possible)

    @property
    def dialects(self) -> tuple[Dialect, ...]:
        """The dialects to attack in: all, or that of a fixed target."""
        if self.is_exact:
            return (Dialect.OLLAMA,)
        if "<path>" in self.request:
            return tuple(PATHS)
        target = self.request.split(" ", 1)[1]
        if target.startswith("/v1/messages"):
            return (Dialect.ANTHROPIC,)
        return (Dialect.OPENAI if target.startswith("/v1/") else Dialect.OLLAMA,)

    @property
    def allowed(self) -> list[tuple[int, ...]]:
        """The statuses allowed for each answer."""
        return [(each,) if isinstance(each, int) else each for each in self.answers]

    def bytes_to_send(self, values: Mapping[str, str]) -> bytes:
        """Return what goes over HTTP/1.1."""
        if self.send:
            return filled(self.send, values).encode("latin-1")
        lines = [f"{self.request} HTTP/1.1", "Host: gateway", *self.headers]
        if self.body and not any(line.lower().startswith(_FRAMING) for line in lines):
            lines.append(f"Content-Length: {len(filled(self.body, values))}")
        return filled("\r\n".join([*lines, "", self.body]), values).encode("latin-1")

    def fields_to_send(self, values: Mapping[str, str]) -> Fields:
        """Return what goes over HTTP/2 before the body."""
        lines = self.fields
        if not lines:
            method, target = self.request.split(" ", 1)
            names = (line.partition(":") for line in self.headers)
            headers = [f"{name.lower()}: {value.removeprefix(' ')}" for name, _, value in names]
            pseudo = (f":method: {method}", ":scheme: http", ":authority: gateway", f":path: {target}")
            lines = (*pseudo, *headers)
        return _pairs(lines, values)

    def trailers_to_send(self, values: Mapping[str, str]) -> Fields:
        """Return what goes over HTTP/2 after the body."""
        return _pairs(self.trailers, values)


def cases() -> list[Case]:
    """Return every case, in the order of the files' names."""
    files = sorted(_FOLDER.glob("*.toml"))
    return [
        structs.replace(each, name=f"{file.stem}: {each.name}")
        for file in files
        for case in msgspec.toml.decode(file.read_bytes(), type=_File).case
        for each in _expanded(case)
    ]


def _expanded(case: Case) -> Iterator[Case]:
    """Yield a case for each word that stands for `<it>`, or the case itself."""
    if case.name:
        yield case
    for name, word in {**{each: each for each in case.each}, **case.named}.items():
        yield structs.replace(
            case,
            name=case.request.replace("<it>", name) if name in case.each else name,
            each=(),
            named={},
            request=case.request.replace("<it>", word),
            headers=tuple(line.replace("<it>", word) for line in case.headers),
            body=case.body.replace("<it>", word),
            send=case.send.replace("<it>", word),
            fields=tuple(line.replace("<it>", word) for line in case.fields),
            arrives=case.arrives.replace("<it>", word),
        )


class _File(msgspec.Struct, forbid_unknown_fields=True):
    case: list[Case]


def values_of(secrets: Mapping[str, str], dialect: Dialect) -> dict[str, str]:
    """Return what the words in angle brackets stand for."""
    chat = CHAT.decode()
    head = f"HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {secrets['key']}\r\nContent-Length:"
    return {
        **secrets,
        "handle": secrets["key"][:LOOKUP_LENGTH],
        "basic": base64.b64encode(f"x:{secrets['key']}".encode()).decode(),
        "path": PATHS[dialect],
        "chat": chat,
        "post": f"POST /api/chat {head} {len(chat)}\r\n\r\n{chat}",
        "pull": f"POST /api/pull {head} 16\r\n\r\n" + '{"model":"demo"}',
    }


def filled(text: str, values: Mapping[str, str]) -> str:
    """Put the values in the places of their names."""
    if "<" not in text:
        return text
    for name, value in values.items():
        text = text.replace(f"<{name}>", value)
        text = text.replace(f"<{name}.length>", str(len(value))).replace(f"<{name}.hex>", f"{len(value):x}")
    return _REPEATED.sub(lambda found: found[1] * int(found[2]), text)


def _pairs(lines: tuple[str, ...], values: Mapping[str, str]) -> Fields:
    """Split each line at its first colon that a blank follows."""
    split = (filled(line, values).partition(": ") for line in lines)
    return tuple((name, value) for name, _, value in split)
