"""Keys of clients that sign their requests as Ollama's own client does."""

from __future__ import annotations

import time
from base64 import b64encode

import httpx
from nacl.signing import SigningKey

from authz.identity.secrets import SSH_ALGORITHM, handle
from authz.identity.signatures import BLOB_PREFIX
from tests.authz.asking import Guard


class Signer:
    """An Ed25519 key; `line` is its public key as OpenSSH writes it."""

    def __init__(self) -> None:
        self._key = SigningKey.generate()
        self.key = b64encode(BLOB_PREFIX + bytes(self._key.verify_key)).decode()
        self.line = f"{SSH_ALGORITHM} {self.key}"
        self.handle = handle(self.line)

    def sign(self, method: str, path: str, ts: int) -> str:
        """Sign a request."""
        return b64encode(self._key.sign(f"{method},{path}?ts={ts}".encode()).signature).decode()

    @property
    def private(self) -> str:
        """Return the private key as OpenSSH writes it (PROTOCOL.key), without a passphrase."""
        public, whole = bytes(self._key.verify_key), bytes(self._key) + bytes(self._key.verify_key)
        secret = b"nonsnons" + b"".join(_field(part) for part in (SSH_ALGORITHM.encode(), public, whole, b""))
        secret += bytes(range(1, 1 + -len(secret) % 8))
        fields = (b"none", b"none", b""), (BLOB_PREFIX + public, secret)
        before, after = (b"".join(_field(part) for part in parts) for parts in fields)
        text = b64encode(b"openssh-key-v1\0" + before + (1).to_bytes(4) + after).decode()
        return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n"

    async def ask(
        self,
        guard: Guard,
        path: str = "/api/chat",
        *,
        signed: tuple[str, str] | None = None,
        ts: int | None = None,
        sent_ts: int | None = None,
        **fields: object,
    ) -> httpx.Response:
        """Ask about a request that is signed now, or as `signed` (method, path) and at `ts`."""
        at = round(time.time()) if ts is None else ts
        signature = self.sign(*(signed or ("POST", path)), at)
        sent = {"key": self.key, "signature": signature, "ts": at if sent_ts is None else sent_ts}
        return await guard.ask(path, key="", **({"lookup": self.handle, "signed": sent} | fields))


def _field(content: bytes) -> bytes:
    return len(content).to_bytes(4) + content
