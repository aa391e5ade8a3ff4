"""The traces of a run that is over: in the journal, in Postgres, in Redis and in the backend."""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
from attrs import define, field, frozen
from redis.asyncio import Redis

from authz.limiter import keyspace
from authz.limiter.limiter import Limiter
from authz.types import Total
from tests.chaos.load import Key
from tests.ollama.server import Ollama

KEEP_EVERY_S = 0.2


@frozen
class Row:
    """All that the ledger says of one request, adjustments included."""

    id: UUID
    boot: UUID
    tenant: UUID | None
    key: UUID | None
    path: str | None
    prompt_bytes: int | None
    outcome: str
    usage_source: str
    is_terminal: bool
    ceiling_tokens: int | None
    input_tokens: int
    output_tokens: int
    overrun_tokens: int
    day: Any
    month: Any

    @property
    def tokens(self) -> int:
        """Input plus output."""
        return self.input_tokens + self.output_tokens


@frozen
class Truth:
    """The backend's own account of one request."""

    input_tokens: int
    output_tokens: int
    is_finished: bool


@define
class Lines:
    """Every line that any Caddy of the run has written, as the files have it."""

    numbers: defaultdict[UUID, list[int]] = field(factory=lambda: defaultdict(list))
    boots: list[UUID] = field(factory=list)
    lasts: dict[UUID, int] = field(factory=dict)
    """Up to which number a boot's lines were written, as the next boot line has it."""
    records: list[dict[str, Any]] = field(factory=list)
    files: int = 0
    torn: int = 0

    def read(self, path: Path) -> None:
        """Take in one file."""
        self.files += 1
        for line in path.read_bytes().splitlines():
            if line.strip():
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            logged = json.loads(line)["gateway"]
        except (ValueError, KeyError):
            self.torn += 1
            return
        boot = UUID(logged["boot"])
        if boot not in self.numbers:
            self.boots.append(boot)
        self.numbers[boot].append(logged.get("seq", 0))
        if (previous := logged.get("previous")) is not None:
            before = UUID(previous["boot"])
            self.lasts[before] = max(previous["seq"], self.lasts.get(before, 0))
        if "outcome" in logged:
            self.records.append(logged)


@frozen
class Keeper:
    """Keeps every journal file of the run, however soon metering removes it."""

    folder: Path

    def keep(self) -> None:
        """Give each rotated file a second name."""
        kept = self.folder / "kept"
        kept.mkdir(exist_ok=True)
        for path in self.folder.glob("journal-*"):
            if not (kept / path.name).exists():
                os.link(path, kept / path.name)

    async def go_on(self) -> None:
        """Do so until cancelled, many times faster than files are set aside."""
        while True:
            self.keep()
            await asyncio.sleep(KEEP_EVERY_S)

    def lines(self) -> Lines:
        """Read them all, oldest first."""
        self.keep()
        found = Lines()
        for path in (*sorted((self.folder / "kept").iterdir()), self.folder / "journal.log"):
            found.read(path)
        return found


async def rows(ledger: asyncpg.Connection) -> dict[UUID, Row]:
    """The ledger, one row a request."""
    found = await ledger.fetch(
        """SELECT request_id, boot, tenant_id, key_id, path, prompt_bytes, outcome, usage_source,
            coalesce(terminal, false) AS terminal, ceiling_input + ceiling_output AS ceiling,
            (sum(input_tokens) OVER request)::bigint AS input_tokens,
            (sum(output_tokens) OVER request)::bigint AS output_tokens,
            (sum(overrun_tokens) OVER request)::bigint AS overrun_tokens, day, month
        FROM ledger WINDOW request AS (PARTITION BY request_id) ORDER BY entry"""
    )
    return {row["request_id"]: Row(*row) for row in found}


async def truths(backend_url: str) -> dict[str, list[Truth]]:
    """The backend's tally, by tag."""
    async with httpx.AsyncClient(base_url=backend_url, timeout=60) as client:
        entries = (await client.get("/test/tally")).json()
    found: defaultdict[str, list[Truth]] = defaultdict(list)
    for entry in entries:
        truth = Truth(entry["input_tokens"], entry["output_tokens"], entry["end"] == "stop")
        found[entry["tag"]].append(truth)
    return dict(found)


async def ollama_truths(ollama: Ollama) -> dict[str, list[Truth]]:
    """The real Ollama's account, by tag."""
    found: defaultdict[str, list[Truth]] = defaultdict(list)
    for entry in ollama.ended():
        truth = Truth(entry.input_tokens, entry.output_tokens, entry.end in {"stop", "limit"})
        found[entry.tag].append(truth)
    return dict(found)


async def windows(ledger: asyncpg.Connection) -> dict[UUID, list[Total]]:
    """The budget windows of every tenant and its keys, by tenant."""
    found: defaultdict[UUID, list[Total]] = defaultdict(list)
    for row in await ledger.fetch("SELECT * FROM budget_windows"):
        total = Total(row["scope_id"], row["period"], row["start"], row["used"], row["version"])
        found[row["tenant_id"]].append(total)
    return dict(found)


async def counters(limiter: Limiter, of: dict[UUID, list[Total]]) -> dict[UUID, list[Total]]:
    """Return Redis's counters of these windows."""
    return {tenant: list(await limiter.totals(tenant, totals) or ()) for tenant, totals in of.items()}


async def still_held(redis: Redis, keys: tuple[Key, ...]) -> dict[str, int]:
    """Slots taken and reservations held, as Redis has them under any name."""
    slots, reservations, tokens = 0, 0, 0
    for tenant in {key.tenant for key in keys}:
        epoch: Any = await redis.hget(keyspace.tenant(tenant), "epoch")
        run = "" if epoch is None else epoch.decode()
        owners = (None, *(key.id for key in keys if key.tenant == tenant))
        slots += sum([await redis.zcard(keyspace.slots(tenant, run, owner)) for owner in owners])
        reservations += await redis.zcard(keyspace.opened(tenant, run))
        held: dict[Any, Any] = await redis.hgetall(keyspace.held(tenant, run))
        sums = [int(value) for name, value in held.items() if name.startswith(b"h:")]
        reservations += len(held) - len(sums)
        tokens += sum(map(abs, sums))
    return {"slots": slots, "reservations": reservations, "tokens": tokens}
