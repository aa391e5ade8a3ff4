"""Ceilings hold while processes are killed and Redis forgets."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from authz.types import Limits
from tests.e2e.many_clients import Storm
from tests.gateway import Gateway, NewKey

RECOVERED_WITHIN_S = 20


def _kill(gateway: Gateway, name: str, sign: signal.Signals = signal.SIGKILL) -> None:
    pid = gateway.stack.pid(name)
    assert pid is not None
    os.kill(pid, sign)


async def _flush(gateway: Gateway) -> None:
    async with Redis.from_url(f"unix://{gateway.stack.state}/run/redis.sock?db=0") as client:
        await client.flushall()


async def _used(ledger: asyncpg.Connection, key: str) -> int:
    """Return the ledger's sums of a key, found by its public handle."""
    used: int = await ledger.fetchval(
        """SELECT coalesce(sum(input_tokens + output_tokens), 0) FROM ledger
        WHERE key_id = (SELECT key_id FROM secrets WHERE lookup = $1)""",
        key[:11],
    )
    return used


async def _all_settled(ledger: asyncpg.Connection) -> None:
    async with asyncio.timeout(RECOVERED_WITHIN_S):
        while await ledger.fetchval("SELECT count(*) FROM open_requests"):
            await asyncio.sleep(0.02)


async def _until_admitted(gateway: Gateway, key: str) -> float:
    """Ask until a request is answered; returns how long that took."""
    start = time.monotonic()
    storm = Storm(gateway, key, "tokens=1", cap=1)
    async with asyncio.timeout(RECOVERED_WITHIN_S):
        while not storm.answers[200]:
            await storm.blow(1)
            await asyncio.sleep(0.02)
    return time.monotonic() - start


async def _kill_authz(gateway: Gateway) -> None:
    for name in ("authz-0", "authz-1"):
        _kill(gateway, name)


@pytest.mark.parametrize(("words", "cap"), [("tokens=40 delay_ms=2", 40), ("tokens=400 delay_ms=1", None)])
@pytest.mark.parametrize("break_it", [_kill_authz, _flush])
async def test_budget_holds_when_broken_halfway(
    broken: Gateway,
    new_key: NewKey,
    ledger: asyncpg.Connection,
    break_it: Callable[[Gateway], Awaitable[None]],
    words: str,
    cap: int | None,
) -> None:
    """L3, L6: 1,000 tokens are 1,000 tokens, though authz is killed or Redis flushed under 64 clients."""
    key = await new_key(tenant=Limits(tokens_total=1000))
    storm = Storm(broken, key, words, cap=cap)
    blowing = asyncio.create_task(storm.blow(64, is_patient=True))
    while not storm.answers[200]:
        await asyncio.sleep(0.01)
    await break_it(broken)
    await blowing
    await _all_settled(ledger)
    assert await _used(ledger, key) <= 1000
    await _until_admitted(broken, await new_key())


@pytest.mark.parametrize("name", ["caddy", "authz-0", "metering"])
async def test_slots_are_free_after_a_kill(
    broken: Gateway, new_key: NewKey, ledger: asyncpg.Connection, name: str
) -> None:
    """L4: whatever dies while all five slots are taken, all five are free again."""
    key = await new_key(key=Limits(concurrency=5))
    storm = Storm(broken, key, "tokens=400 delay_ms=5", cap=400, leaves_after=20)
    blowing = asyncio.create_task(storm.blow(5))
    while storm.answers[200] < 5:
        await asyncio.sleep(0.01)
    _kill(broken, name)
    await blowing
    await _until_admitted(broken, key)
    await _all_settled(ledger)
    after = Storm(broken, key, "tokens=1", cap=1)
    await after.blow(5)
    assert {200: 5} == after.answers


async def test_slots_turn_over_without_metering(broken: Gateway, new_key: NewKey) -> None:
    """L4: while metering stands still, what has ended frees its slot with the node's next Ask."""
    key = await new_key(key=Limits(concurrency=2))
    _kill(broken, "metering", signal.SIGSTOP)
    try:
        storm = Storm(broken, key, "tokens=1", cap=1)
        for _ in range(20):
            await storm.blow(2)
    finally:
        _kill(broken, "metering", signal.SIGCONT)
    assert {200: 40} == storm.answers


async def test_hang_ups_disturb_no_other_client(broken: Gateway, new_key: NewKey) -> None:
    """One client's hang-ups, streamed and not, leave the backend there for the next client."""
    leaving = Storm(broken, await new_key(), "tokens=100 delay_ms=2", leaves_after=1)
    await leaving.blow(40)
    other = Storm(broken, await new_key(), "tokens=1", cap=1)
    await other.blow(4)
    assert {200: 4} == other.answers


async def test_flush_and_kill_together(broken: Gateway, new_key: NewKey, ledger: asyncpg.Connection) -> None:
    """L3, L6, B2: Redis flushed and Caddy killed under 20 streams: all are billed, within the budget."""
    key = await new_key(tenant=Limits(tokens_total=5000))
    storm = Storm(broken, key, "tokens=100 delay_ms=20", cap=100)
    blowing = asyncio.create_task(storm.blow(20))
    async with httpx.AsyncClient(base_url=broken.backend_url) as demo:
        while (await demo.get("/test/gauges")).json()["in_flight"] < 20:
            await asyncio.sleep(0.01)
    await _flush(broken)
    _kill(broken, "caddy")
    await blowing
    patient = Storm(broken, key, "tokens=100", cap=100)
    await patient.blow(40, is_patient=True)
    await _all_settled(ledger)
    billed = await ledger.fetchval(
        """SELECT count(*) FROM ledger WHERE usage_source = 'progress'
        AND key_id = (SELECT key_id FROM secrets WHERE lookup = $1)""",
        key[:11],
    )
    assert 20 == billed
    assert await _used(ledger, key) <= 5000
