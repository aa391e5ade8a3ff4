"""Looks for a secret wherever a gateway could have left it (C3)."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import asyncpg
import httpx
from attrs import frozen
from redis import Redis

from authz.identity import secrets
from authz.stack import embedded
from tests.gateway import Gateway

TABLES: Final = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
KINDS: Final = {
    b"string": "get",
    b"hash": "hgetall",
    b"list": "lrange",
    b"set": "smembers",
    b"zset": "zrange",
}
RANGED: Final = {"lrange", "zrange"}
SOCKETS: Final = (
    ("authz-0", "/metrics"),
    ("authz-1", "/metrics"),
    ("control", "/metrics"),
    ("control", "/streams"),
)


PART: Final = 8
"""So many characters of a secret in a row are no chance."""

_WORD: Final = re.compile(rb"[0-9A-Za-z+/_%-]{8,}")
_URL_ALPHABET: Final = bytes.maketrans(b"+/", b"-_")


@frozen
class Sink:
    """A place where a gateway keeps or says something."""

    name: str
    content: bytes


def needles(secret: str) -> tuple[bytes, ...]:
    """The forms in which a key could be found: itself, its secret part, both as hex and for Basic."""
    part = secret[secrets.LOOKUP_LENGTH : secrets.LENGTH - 6]
    plain = (secret.encode(), part.encode())
    return (*plain, *(each.hex().encode() for each in plain), base64.b64encode(f"x:{secret}".encode()))


def parts(*keys: str) -> frozenset[bytes]:
    """Every eight characters in a row of what is secret in keys, as holds_part looks for them."""
    found: set[bytes] = set()
    for secret in (key[secrets.LOOKUP_LENGTH :].encode() for key in keys):
        for each in (secret, secret.lower(), secret.upper()):
            found |= {each[start : start + PART] for start in range(len(each) - PART + 1)}
        encoded = {base64.b64encode(secret[start : start + 6]) for start in range(len(secret) - 5)}
        found |= encoded | {each.translate(_URL_ALPHABET) for each in encoded}
    return frozenset(found)


def holds_part(content: bytes, forms: Collection[bytes]) -> bool:
    """Return whether a text holds one of these parts, in base64 or in whatever escapes."""
    for found in _WORD.finditer(content):
        word = found[0]
        while (plain := unquote_to_bytes(word)) != word:
            word = plain
        if any(word[start : start + PART] in forms for start in range(len(word) - PART + 1)):
            return True
    return False


def found(sinks: Iterator[Sink], secret: tuple[bytes, ...]) -> list[str]:
    """The sinks that hold a form of the secret."""
    return [sink.name for sink in sinks if any(form in sink.content for form in secret)]


def sinks(gateway: Gateway) -> Iterator[Sink]:
    """Everything of a gateway: files, tables, Redis, metrics and what the system shows of its processes."""
    state = gateway.stack.state
    yield from _files(state)
    yield from asyncio.run(_tables(gateway.database_url))
    yield from _redis(embedded.redis_url(state))
    yield from _sockets(state)
    yield from _processes(gateway)


def _files(state: Path) -> Iterator[Sink]:
    for path in state.rglob("*"):
        if path.is_file() and path.name != "pepper":
            yield Sink(str(path.relative_to(state)), path.read_bytes())


async def _tables(url: str) -> list[Sink]:
    connection = await asyncpg.connect(url)
    try:
        names = [row["relname"] for row in await connection.fetch(TABLES)]
        return [Sink(f"table {name}", await _table(connection, name)) for name in names]
    finally:
        await connection.close()


async def _table(connection: Any, name: str) -> bytes:
    rows = io.BytesIO()
    await connection.copy_from_table(name, output=rows)
    return rows.getvalue()


def _redis(url: str) -> Iterator[Sink]:
    with Redis.from_url(url) as client:
        for key in client.scan_iter():
            command = KINDS[client.type(key)]
            value = getattr(client, command)(key, *((0, -1) if command in RANGED else ()))
            yield Sink(f"redis {key!r}", key + repr(value).encode())


def _sockets(state: Path) -> Iterator[Sink]:
    """Return what is readable on sockets that no client can reach."""
    for name, path in SOCKETS:
        transport = httpx.HTTPTransport(uds=str(state / "run" / f"{name}.sock"))
        with httpx.Client(transport=transport, base_url=f"http://{name}") as client:
            yield Sink(name + path, client.get(path).raise_for_status().content)


def _processes(gateway: Gateway) -> Iterator[Sink]:
    """Command lines and environments, which every program of the same user can read."""
    for pid in gateway.stack.processes():
        for name in ("cmdline", "environ"):
            yield Sink(f"process {pid} {name}", Path(f"/proc/{pid}/{name}").read_bytes())
