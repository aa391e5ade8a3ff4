"""Checkpoints: what the chains were at a moment, signed, and kept where no one who can change rows can.

A checkpoint is a signed note as of C2SP: a text, an empty line, and a line with the signature. Keys are
written as that format has them, so that other programs can read them too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from attrs import frozen
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from authz.chains import tree
from authz.chains.links import digest
from authz.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authz.chains.links import Day

ORIGIN: Final = "neuronetz-gateway checkpoint 1"

PRIVATE: Final = "PRIVATE+KEY+"
"""What a private key begins with, as signed notes have it."""

_ED25519: Final = b"\x01"
_ID_BYTES: Final = 4
_KEY_BYTES: Final = 32


@frozen
class PublicKey:
    """What signatures are checked with."""

    name: str
    key: bytes

    @property
    def id(self) -> bytes:
        """Return the short digest by which a signature names its key."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.key).digest()[:_ID_BYTES]

    def __str__(self) -> str:
        """Write the key, as a file has it."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.key).decode()}"

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read a key. Raises CommandError."""
        if text.startswith(PRIVATE):
            raise CommandError("That is the private key: name the file with the public one, *.pub.")
        name, _, rest = text.strip().partition("+")
        key = cls(name, _key_of(rest.partition("+")[2]))
        if str(key) != text.strip():
            raise CommandError(
                "That is no public key of `neuronetz-gateway audit keygen`: name its *.pub file."
            )
        return key


@frozen
class PrivateKey:
    """What checkpoints are signed with."""

    name: str
    seed: bytes

    @property
    def public(self) -> PublicKey:
        """Return the key that checks what this one signs."""
        return PublicKey(self.name, bytes(SigningKey(self.seed).verify_key))

    def __str__(self) -> str:
        """Write the key, as a file has it."""
        encoded = base64.b64encode(_ED25519 + self.seed).decode()
        return f"{PRIVATE}{self.name}+{self.public.id.hex()}+{encoded}"

    def __repr__(self) -> str:
        """Keep the key out of logs."""
        return f"PrivateKey({self.name})"

    @classmethod
    def make(cls, name: str) -> PrivateKey:
        """Make a new key."""
        return cls(name, bytes(SigningKey.generate()))

    @classmethod
    def parse(cls, text: str) -> PrivateKey:
        """Read a key. Raises CommandError."""
        name, _, rest = text.strip().removeprefix(PRIVATE).partition("+")
        key = cls(name, _key_of(rest.partition("+")[2]))
        if str(key) != text.strip():
            raise CommandError("That is no private key of `neuronetz-gateway audit keygen`.")
        return key

    def sign(self, text: str) -> str:
        """Return the note of a text that ends with a newline."""
        signature = SigningKey(self.seed).sign(text.encode()).signature
        encoded = base64.b64encode(self.public.id + signature).decode()
        return f"{text}\n\N{EM DASH} {self.name} {encoded}\n"


@frozen
class Checkpoint:
    """The heads of the chains at a moment, and the root over all of their days until then."""

    database: UUID
    made: str
    heads: dict[str, tuple[int, bytes]]
    days: int
    root: bytes

    @property
    def at(self) -> datetime:
        """Return when it was made."""
        return datetime.fromisoformat(self.made)

    @property
    def text(self) -> str:
        """Return what is signed."""
        lines = [
            ORIGIN,
            f"database {self.database}",
            f"made {self.made}",
            f"days {self.days} {self.root.hex()}",
        ]
        heads = sorted(self.heads.items())
        lines += [f"chain {name} {number} {hash_.hex()}" for name, (number, hash_) in heads]
        return "\n".join(lines) + "\n"

    def faults_of(self, days: Iterable[Day]) -> list[str]:
        """Compare the days up to the checkpoint with its root."""
        found = ordered(days)
        if len(found) == self.days and root_of(found) == self.root:
            return []
        sentence = (
            f"The days of the chains are not those of the checkpoint of {self.made}: the root of a day whose "
            "rows are dropped was altered; or its links are no longer kept, then name a later checkpoint."
        )
        return [sentence]


def make(database: UUID, at: datetime, days: Iterable[Day]) -> Checkpoint:
    """Return the checkpoint of all days of all chains until a moment."""
    found = ordered(days)
    heads = {day.chain: (day.last, day.hash) for day in found}
    root = root_of(found) if found else b"\0" * tree.HASH_BYTES
    return Checkpoint(database, f"{at:%Y-%m-%dT%H:%M:%SZ}", heads, len(found), root)


def ordered(days: Iterable[Day]) -> list[Day]:
    """Return days in the order in which they are under the root."""
    return sorted(days, key=lambda day: (day.day, day.chain))


def root_of(days: Iterable[Day]) -> bytes:
    """Return the root over days in their order."""
    return tree.root([digest(day.text) for day in days])


def parse(note: str, key: PublicKey) -> Checkpoint:
    """Read a signed checkpoint. Raises CommandError."""
    text, _, signatures = note.partition("\n\n")
    text += "\n"
    if not any(_is_signed(text, line, key) for line in signatures.splitlines()):
        raise CommandError(
            f"The checkpoint is not signed with the key {key.name}+{key.id.hex()}, or it was altered: name "
            "the public key that `audit keygen` wrote with the one that signs."
        )
    try:
        return _parse(text)
    except (ValueError, IndexError) as error:
        raise CommandError("That is no checkpoint of `neuronetz-gateway audit checkpoint`.") from error


def last_note(content: str) -> str:
    """Return the last of the checkpoints that a file has, one after the other. Raises CommandError."""
    start = content.rfind(ORIGIN + "\n")
    if start < 0:
        raise CommandError(
            "There is no checkpoint in the file: `neuronetz-gateway audit checkpoint` writes one."
        )
    return content[start:]


def _parse(text: str) -> Checkpoint:
    _, database, made, days, *chains = text.splitlines()
    heads = {}
    for line in chains:
        _, name, number, hash_ = line.split(" ")
        heads[name] = int(number), bytes.fromhex(hash_)
    _, count, root = days.split(" ")
    found = Checkpoint(
        UUID(database.split(" ")[1]), made.split(" ")[1], heads, int(count), bytes.fromhex(root)
    )
    if found.text != text:
        raise ValueError
    return found


def _is_signed(text: str, line: str, key: PublicKey) -> bool:
    mark, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    try:
        raw = base64.b64decode(encoded, validate=True)
        if mark != "\N{EM DASH}" or name != key.name or raw[:_ID_BYTES] != key.id:
            return False
        VerifyKey(key.key).verify(text.encode(), raw[_ID_BYTES:])
    except (binascii.Error, ValueError, BadSignatureError):
        return False
    return True


def _key_of(encoded: str) -> bytes:
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if raw[:1] != _ED25519 or len(raw) != 1 + _KEY_BYTES:
        raise CommandError("That is no key of `neuronetz-gateway audit keygen`: name a file that it wrote.")
    return raw[1:]
