"""Asks as the guard would send them."""

from __future__ import annotations

import json
import secrets
import time
import uuid

import httpx

NODE = uuid.UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
BOOT = uuid.UUID("019ab5bf-0000-7000-8000-0000000000b0")


def uuid7(ms: int | None = None) -> uuid.UUID:
    """A UUIDv7 of a time in ms, of now by default."""
    moment = time.time_ns() // 1_000_000 if ms is None else ms
    return uuid.UUID(
        int=moment << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0x2 << 62 | secrets.randbits(62)
    )


class Guard:
    """Asks authz what the guard would ask it."""

    def __init__(self, client: httpx.AsyncClient, key: str) -> None:
        self._client = client
        self.key = key

    async def ask(
        self, path: str = "/api/chat", *, key: str | None = None, **fields: object
    ) -> httpx.Response:
        """Ask about a request; `key` is the secret it carries, `fields` differ from a plain chat's."""
        secret = self.key if key is None else key
        ask = {
            "v": 1,
            "id": str(uuid7()),
            "node": str(NODE),
            "boot": str(BOOT),
            "ip": "203.0.113.9",
            "method": "POST",
            "path": path,
            "lookup": secret[:11] or None,
            "length": 10,
            "model": "demo",
            "stream": True,
            "max_output": None,
            "prompt_bytes": 40,
            "bounds": {"bytes": 48},
            "images": 0,
            "messages": 1,
            "tools": 0,
            "problem": None,
            "done": [],
        } | fields
        credential = {"Authorization": f"{_scheme(ask)} {secret}"} if secret else {}
        headers = {"X-Nz-Ask": json.dumps(ask)} | credential
        return await self._client.get("/verify", headers=headers)

    async def read(
        self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None, **fields: object
    ) -> httpx.Response:
        """Ask for a read route; `headers` are those of the client."""
        ask = {
            "v": 1,
            "id": str(uuid7()),
            "node": str(NODE),
            "boot": str(BOOT),
            "ip": "203.0.113.9",
            "method": method,
            "path": path,
            "lookup": self.key[:11],
            "problem": None,
            "done": [],
        } | fields
        ours = {"X-Nz-Ask": json.dumps(ask), "Authorization": f"{_scheme(ask)} {self.key}"}
        return await self._client.request(method, path, headers=(headers or {}) | ours)


def _scheme(ask: dict[str, object]) -> str:
    return "Path" if ask.get("in_path") else "Bearer"


def reason(answer: httpx.Response) -> str:
    """The reason that a refusal gives the guard."""
    found: str = json.loads(answer.headers["x-nz-denial"])["reason"]
    return found


def grant(answer: httpx.Response) -> dict[str, object]:
    """The Grant that an answer carries."""
    found: dict[str, object] = json.loads(answer.headers["x-nz-grant"])
    return found
