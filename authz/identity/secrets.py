"""Mint, recognize and compare secrets.

Text: `nz_` + lookup (8) + secret (32) + check (6), base62. The lookup is public; the check is the
CRC-32 of all before it and only catches typos. What authenticates is a keyed tag, HMAC-SHA256 with
a pepper that never is in the database; the Argon2id hash stands behind it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import zlib
from typing import TYPE_CHECKING, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type
from attrs import field, frozen

from authz.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX: Final = "nz_"
SSH_ALGORITHM: Final = "ssh-ed25519"
"""Begins a public key, which is stored as a secret is."""
PEPPER_BYTES: Final = 32
LOOKUP_LENGTH: Final = len(PREFIX) + 8
LENGTH: Final = LOOKUP_LENGTH + 32 + 6

_PAIRS: Final = [first + second for first in ALPHABET for second in ALPHABET]
"""Every number below 62², in base62."""

_FORM = re.compile(r"nz_[0-9A-Za-z]{46}", re.ASCII)

# OWASP's minimum for Argon2id: the secret has 190 bits, so the hash is the second line, not the first.
hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)


@frozen
class Pepper:
    """The key of the tags; its id names the one that a stored tag was made with."""

    key: bytes = field(repr=False)
    _mac: hmac.HMAC = field(init=False, repr=False, eq=False)
    """Of every tag the beginning, which is copied: to set the key up anew costs more than the tag."""

    @_mac.default
    def _begun(self) -> hmac.HMAC:
        return hmac.new(self.key, b"key\0", "sha256")

    @property
    def id(self) -> str:
        """A name that says nothing about the key."""
        return hashlib.sha256(b"pepper id\0" + self.key).hexdigest()[:12]

    def tag(self, secret: str) -> bytes:
        """Return the tag of a full secret."""
        mac = self._mac.copy()
        mac.update(secret.encode())
        return mac.digest()


@frozen
class Peppers:
    """The peppers alive: new tags use the first, old ones may use any."""

    alive: tuple[Pepper, ...]

    @classmethod
    def read(cls, path: Path) -> Peppers:
        """Read a file of one hex line per pepper; refuses one that others may read."""
        try:
            lines, found = path.read_text(encoding="ascii").split(), path.stat()
            alive = tuple(Pepper(bytes.fromhex(line)) for line in lines)
        except FileNotFoundError as error:
            raise SettingsError(
                f"There is no pepper file {path}: name the one that your keys were made with in "
                "GATEWAY_PEPPER_FILE, or make the first one with `neuronetz-gateway init`."
            ) from error
        except PermissionError as error:
            user = os.geteuid()
            raise SettingsError(
                f"The pepper file {path} can't be read by user {user}: run `chown {user} {path}`."
            ) from error
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"The pepper file {path} can't be read ({error}): name it in GATEWAY_PEPPER_FILE."
            ) from error
        # systemd shares a credential by an ACL, whose mask stands where the rights of root's group do.
        if found.st_mode & (0o007 if found.st_gid == 0 else 0o077):
            raise SettingsError(f"The pepper file {path} can be read by others: run `chmod 0400 {path}`.")
        if not alive or any(len(pepper.key) < PEPPER_BYTES for pepper in alive):
            raise SettingsError(f"The pepper file {path} needs at least one line of 64 hex digits.")
        return cls(alive)

    def get(self, pepper_id: str) -> Pepper | None:
        """Return the pepper of this id, if it is alive."""
        return next((pepper for pepper in self.alive if pepper.id == pepper_id), None)


@frozen
class Minted:
    """A new secret and all that is stored of it."""

    secret: str = field(repr=False)
    lookup: str
    tag: bytes = field(repr=False)
    pepper_id: str
    hash: str = field(repr=False)


def mint(pepper: Pepper, choose: Callable[[str], str] = secrets.choice) -> Minted:
    """Make a secret; `choose` draws one character and must be unpredictable outside of tests."""
    body = PREFIX + "".join(choose(ALPHABET) for _ in range(40))
    secret = body + _check(body)
    return Minted(secret, secret[:LOOKUP_LENGTH], pepper.tag(secret), pepper.id, hasher.hash(secret))


def registered(pepper: Pepper, public_key: str) -> Minted:
    """Return what is stored of a public key, in place of a secret."""
    hash_ = hasher.hash(public_key)
    return Minted(public_key, handle(public_key), pepper.tag(public_key), pepper.id, hash_)


def handle(secret: str) -> str:
    """Return the public handle of a secret: its beginning, or eight digits of the SHA-256 of a public key."""
    if secret.startswith(PREFIX):
        return secret[:LOOKUP_LENGTH]
    number, digits = int.from_bytes(hashlib.sha256(secret.encode()).digest()[:8]), ""
    for _ in range(LOOKUP_LENGTH - len(PREFIX)):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return PREFIX + digits


def is_well_formed(secret: str) -> bool:
    """Return whether a text has the form of a secret and a check that fits; only then a store is asked."""
    return _FORM.fullmatch(secret) is not None and secret[-6:] == _check(secret[:-6])


def is_same(a: bytes, b: bytes) -> bool:
    """Compare two tags in constant time."""
    return hmac.compare_digest(a, b)


def is_proven(hash_: str, secret: str) -> bool:
    """Check a secret against its Argon2id hash: about 20 ms of one core and 19 MiB."""
    try:
        return hasher.verify(hash_, secret)
    except (VerificationError, InvalidHashError):
        return False


def presented(headers: Iterable[tuple[bytes, bytes]], in_path: bool = False) -> str | None:
    """Return the secret that the guard has left as a request's one credential, or None.

    One that stood in the path has a scheme of its own: what knows no such secret takes none.
    """
    lines = [value for name, value in headers if name == b"authorization"]
    if len(lines) != 1:
        return None
    secret = lines[0].decode("latin-1").removeprefix("Path " if in_path else "Bearer ")
    return secret if is_well_formed(secret) else None


def _check(body: str) -> str:
    number = zlib.crc32(body.encode("latin-1", "replace"))
    return _PAIRS[number // 62**4] + _PAIRS[number // 62**2 % 62**2] + _PAIRS[number % 62**2]
