"""Read the public keys of clients that sign their requests, and verify what they signed.

Programs built on Ollama's client sign with an Ed25519 key of ssh instead of sending a secret (OLLAMA_AUTH=1).
Such a public key is stored as secrets are, by a handle, a keyed tag and a hash: limits, expiry and revocation
are its key's as ever, and a row that was written from outside has no valid tag.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from authz.errors import UsageError
from authz.identity.secrets import SSH_ALGORITHM

LONGEST: Final = 16_384
"""No file of one public key has more characters."""
KEY_BYTES: Final = 32
BLOB_PREFIX: Final = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"
"""What stands before the key in its wire form (RFC 8709, 4)."""


def public_key(text: str) -> str:
    """Return the public key in an OpenSSH line, without its comment. Raises UsageError."""
    if "PRIVATE KEY" in text:
        raise UsageError(
            "This is a private key, which never leaves its machine: name the .pub file beside it."
        )
    words = text.split()
    blob = _blob(words[1]) if len(words) > 1 and words[0] == SSH_ALGORITHM else b""
    if len(blob) != len(BLOB_PREFIX) + KEY_BYTES or not blob.startswith(BLOB_PREFIX):
        raise UsageError(
            "This is no Ed25519 public key: name a file with one line `ssh-ed25519 AAAA...`, "
            "such as ~/.ollama/id_ed25519.pub."
        )
    return f"{SSH_ALGORITHM} {b64encode(blob).decode()}"


def fingerprint(key: str) -> str:
    """Return the fingerprint of a stored public key, as `ssh-keygen -l` prints it."""
    return "SHA256:" + b64encode(sha256(_blob(key.split()[1])).digest()).decode().rstrip("=")


def is_valid(key: str, signature: str, text: str) -> bool:
    """Verify a signature, in base64, of a text by a public key, in base64 without its algorithm."""
    try:
        VerifyKey(_blob(key)[len(BLOB_PREFIX) :]).verify(text.encode(), b64decode(signature, validate=True))
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


def _blob(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except binascii.Error:
        return b""
