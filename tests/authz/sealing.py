"""Seal as Caddy does, for keys of a vault."""

from __future__ import annotations

from nacl.public import Box, PrivateKey, PublicKey


def sealed(public: PublicKey, text: bytes) -> bytes:
    """Return a text sealed by a new pair: its public key, a nonce and the box."""
    pair = PrivateKey.generate()
    return bytes(pair.public_key) + bytes(Box(pair, public).encrypt(text))
