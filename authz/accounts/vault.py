"""The keys of the vault, and what opens with them: public ones seal on a server, private ones open elsewhere.

A file of private keys has the newest first, each in a line of its own; so has the file of public keys,
of which the first seals and one more stands for what was sealed before it.
"""

from __future__ import annotations

import base64
import binascii
import os
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Self

from attrs import field, frozen
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

from authz.errors import CommandError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PUBLIC: Final = "nz-vault-public:"
PRIVATE: Final = "nz-vault-private:"

_MOST_FILE_BYTES: Final = 65_536
_MOST_PUBLIC: Final = 2
_KEY_BYTES: Final = 32

OVERHEAD: Final = PublicKey.SIZE + Box.NONCE_SIZE + 16
"""How many bytes a box is longer than its text: the sender's public key, a nonce, and Poly1305's code."""

_WHY: Final = "whoever breaks into a server that has it could open every prompt"


def public_line(key: PrivateKey) -> str:
    """Return the line of a pair's public key."""
    return PUBLIC + base64.b64encode(bytes(key.public_key)).decode()


def identifier(public: PublicKey) -> str:
    """Return what a sealed piece calls its key by."""
    return sha256(bytes(public)).hexdigest()[:16]


@frozen
class PrivateKeys:
    """The private keys of a file, newest first."""

    keys: tuple[PrivateKey, ...] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of private keys. Raises CommandError if it holds anything else."""
        lines = _lines(path)
        if any(line.startswith(PUBLIC) for line in lines):
            raise CommandError(
                f"{path} holds a public key, which opens nothing: name the private key's file."
            )
        keys = [_key(line, PRIVATE) for line in lines]
        if not keys or None in keys:
            raise CommandError(f"{path} holds no private key of a vault: name the file of `vault init`.")
        return cls(tuple(PrivateKey(key) for key in keys if key is not None))

    def write(self, path: Path, *, is_new: bool) -> None:
        """Write the file for its owner alone; a new one takes no other's place."""
        text = "".join(f"{PRIVATE}{base64.b64encode(bytes(key)).decode()}\n" for key in self.keys)
        _write(path, text, mode=0o600, is_new=is_new)

    def with_new(self) -> PrivateKeys:
        """Return these keys behind a new one."""
        return PrivateKeys((PrivateKey.generate(), *self.keys))

    def open(self, vault: str, box: bytes) -> bytes | None:
        """Open a box that was sealed for the key of this id; None if it was altered.

        It is the public key of a pair that sealed for some seconds, a nonce, and a box of libsodium
        (`crypto_box_easy`).

        Raises CommandError if this key is none of them.
        """
        for key in self.keys:
            if identifier(key.public_key) == vault:
                try:
                    return Box(key, PublicKey(box[:_KEY_BYTES])).decrypt(box[_KEY_BYTES:])
                except (CryptoError, ValueError):
                    return None
        raise CommandError(
            f"The private key {vault} is needed for this, and is not in the file that was named."
        )


def read_public(path: Path) -> tuple[PublicKey, ...]:
    """Read a file of public keys. Raises CommandError if it holds anything else."""
    lines = _lines(path)
    if any(line.startswith(PRIVATE) for line in lines):
        raise CommandError(f"{path} holds a private key, and is where a server looks: {_WHY}. Move it away.")
    keys = [_key(line, PUBLIC) for line in lines]
    if None in keys or not 0 < len(keys) <= _MOST_PUBLIC:
        raise CommandError(f"{path} holds no public key of a vault, or more than two: see `vault init`.")
    return tuple(PublicKey(key) for key in keys if key is not None)


def write_public(path: Path, keys: Iterable[PublicKey], *, is_new: bool) -> None:
    """Write the file of public keys, which everybody may read."""
    text = "".join(f"{PUBLIC}{base64.b64encode(bytes(key)).decode()}\n" for key in keys)
    _write(path, text, mode=0o644, is_new=is_new)


def check_place(private: Path, *, public: Path, state: Path) -> None:
    """Refuse a place for the private keys that the services have, too. Raises UsageError."""
    place = private.resolve()
    if place.is_relative_to(state.resolve()) or place.parent == public.resolve().parent:
        raise UsageError(
            f"{private} is where the gateway runs, and {_WHY}: "
            "name a place outside, best on a machine that no client reaches."
        )


def _lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="ascii") as file:
            return file.read(_MOST_FILE_BYTES).split()
    except UnicodeDecodeError:
        return [""]
    except OSError as error:
        raise CommandError(
            f"{path} can't be read ({error.strerror}): name a file of `vault init`."
        ) from error


def _key(line: str, prefix: str) -> bytes | None:
    """Return the key in a line; None if there is none."""
    try:
        raw = base64.b64decode(line.removeprefix(prefix), validate=True)
    except binascii.Error:
        return None
    return raw if line.startswith(prefix) and len(raw) == _KEY_BYTES else None


def _write(path: Path, text: str, *, mode: int, is_new: bool) -> None:
    """Write a file so that readers see all of it or none."""
    attempt = path.with_name(f"{path.name}.new")
    try:
        if is_new and path.exists():
            raise CommandError(f"{path} is there already: `vault rotate` adds a key to it.")
        attempt.unlink(missing_ok=True)
        with os.fdopen(os.open(attempt, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        attempt.rename(path)
    except OSError as error:
        raise CommandError(f"{path} can't be written ({error.strerror}): name another place.") from error
