"""The story of one request, on real stores and a real backend's models."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from authz.accounts.keys import CreatedKey, create_key, set_key_state
from authz.accounts.limits import set_key_limits
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from authz.accounts.tenants import set_tenant_state
from authz.admin.limit_options import LimitOptions
from authz.app import build
from authz.log import name_request
from authz.messages import Grant
from authz.settings import Settings
from authz.types import GREATEST_COUNT, Limits
from tests.authz.asking import NODE, Guard, grant, reason, uuid7

DISABLED_WITHIN_S = 10


async def test_grant(guard: Guard) -> None:
    """G1: a request that may run gets 204 without a body and a Grant of its own id."""
    id_ = str(uuid7())
    answer = await guard.ask(id=id_)
    assert (204, b"") == (answer.status_code, answer.content)
    grant = msgspec.json.decode(answer.headers["x-nz-grant"], type=Grant)
    assert id_ == str(grant.id)
    assert ("default",) == grant.backends
    assert "keep_alive" in grant.drop
    assert grant.max_output is None


async def test_client_cap_is_kept(guard: Guard) -> None:
    """The smaller of the client's cap and ours is granted."""
    answer = await guard.ask(max_output=7)
    assert 7 == json.loads(answer.headers["x-nz-grant"])["max_output"]


async def test_no_cap_is_beyond_what_the_model_can_produce(
    guard: Guard, session: Session, key: CreatedKey
) -> None:
    """A cap of a client or a key is a wish: the ceiling is what can be produced, the hold what is likely."""
    producible = 10 * 32_768
    for asked in (2**41, 2**53 - 1):
        granted = msgspec.json.decode((await guard.ask(max_output=asked)).headers["x-nz-grant"], type=Grant)
        assert (producible, producible) == (granted.max_output, granted.ceiling.output)
        assert granted.reserved.output <= 1024
    scope = Scope(max_output=GREATEST_COUNT + 1)
    await set_key_limits(session, key.prefix, scope=lambda _: scope)
    assert producible == json.loads((await guard.ask()).headers["x-nz-grant"])["max_output"]


async def test_ceiling_is_the_worst_case(guard: Guard) -> None:
    """Without any cap an answer may be as long as the model lets it; with one, no longer than that."""
    free = msgspec.json.decode((await guard.ask()).headers["x-nz-grant"], type=Grant)
    assert (None, 10 * 32_768) == (free.max_output, free.ceiling.output)
    capped = msgspec.json.decode((await guard.ask(max_output=7)).headers["x-nz-grant"], type=Grant)
    assert (7, 7) == (capped.max_output, capped.ceiling.output)
    assert capped.reserved.input <= capped.ceiling.input
    assert free.reserved.output < free.ceiling.output


async def test_answer_without_a_cap_gets_a_share_of_the_budget(
    guard: Guard, session: Session, key: CreatedKey
) -> None:
    """L3: what is held, the cap and the ceiling are one share of what is left; a client's cap is its own."""
    await set_key_limits(session, key.prefix, limits=lambda _: Limits(tokens_per_day=40_000))
    await session.limiter.vouch(NODE, lag_ms=0)
    free = msgspec.json.decode((await guard.ask()).headers["x-nz-grant"], type=Grant)
    assert 5_000 == free.max_output == free.ceiling.output
    assert free.reserved == free.ceiling
    capped = msgspec.json.decode((await guard.ask(max_output=20_000)).headers["x-nz-grant"], type=Grant)
    assert 20_000 == capped.max_output
    embedding = await guard.ask("/api/embed", model="demo-embed")
    assert json.loads(embedding.headers["x-nz-grant"])["max_output"] is None


async def test_a_fault_of_ours_is_a_refusal(settings: Settings, key: CreatedKey) -> None:
    """G2: an unexpected failure ends as 503 with a Denial, logged with its trace and counted."""
    broken: Any = lambda: "no time"  # noqa: E731
    app: Any = build(settings, sources_s=broken)
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://authz") as client,
    ):
        with capture_logs([name_request]) as logged:
            answer = await Guard(client, key.key).ask(trace_id="ab" * 16)
        counted = (await client.get("/metrics")).text
    assert ["ab" * 16] == [line["trace_id"] for line in logged if line["event"] == "authz.decision_failed"]
    said = (answer.status_code, reason(answer), answer.headers["retry-after"])
    assert (503, "decision_failed", "1") == said
    assert 'gateway_decisions_total{outcome="denied",reason="decision_failed"} 1.0' in counted


async def test_embeddings_have_no_output(guard: Guard) -> None:
    """A route without output gets no cap and reserves none."""
    grant = json.loads((await guard.ask("/api/embed", model="demo-embed")).headers["x-nz-grant"])
    assert grant["max_output"] is None
    assert 0 == grant["reserved"]["output"]


async def test_replay_returns_the_same_grant(guard: Guard) -> None:
    """L2: Caddy may ask twice for one request; the second answer is the first."""
    id_ = str(uuid7())
    first, second = await guard.ask(id=id_), await guard.ask(id=id_)
    assert first.headers["x-nz-grant"] == second.headers["x-nz-grant"]


@pytest.mark.parametrize(
    ("path", "fields", "status", "expected"),
    [
        ("/api/chat", {"problem": "target"}, 400, "target_invalid"),
        ("/api/pull", {}, 403, "path_mutation"),
        ("/api%2Fpull", {}, 404, "path_unknown"),
        ("/api/none", {}, 404, "path_unknown"),
        ("/api/chat", {"method": "GET"}, 405, "method_not_allowed"),
        ("/api/chat", {"problem": "credential"}, 400, "credential_conflict"),
        ("/api/chat", {"key": ""}, 401, "key_missing"),
        ("/api/chat", {"key": "nz_short"}, 401, "key_missing"),
        ("/api/chat", {"lookup": "nz_aaaaaaaa"}, 401, "key_missing"),
        ("/api/chat", {"problem": "not_json"}, 400, "body_not_json"),
        ("/api/chat", {"problem": "duplicate_field"}, 400, "body_duplicate_field"),
        ("/api/chat", {"problem": "field"}, 400, "body_field"),
        ("/api/chat", {"problem": "too_deep"}, 400, "body_too_deep"),
        ("/api/chat", {"problem": "too_large"}, 413, "body_too_large"),
        ("/api/chat", {"problem": "encoding"}, 415, "body_encoding"),
        ("/api/chat", {"model": None}, 400, "model_missing"),
        ("/api/chat", {"model": ""}, 400, "model_missing"),
        ("/api/chat", {"model": "demo:cloud"}, 403, "model_not_allowed"),
        ("/api/chat", {"model": "none"}, 404, "model_unknown"),
        ("/api/chat", {"node": str(uuid.UUID(int=7))}, 503, "node_unknown"),
        ("/api/tags", {}, 405, "method_not_allowed"),
        ("/healthz", {"method": "GET"}, 404, "path_unknown"),
    ],
)
async def test_refusals(
    guard: Guard, path: str, fields: dict[str, object], status: int, expected: str
) -> None:
    """Every request that may not run is refused with its one reason and status."""
    answer = await guard.ask(path, **fields)  # type: ignore[arg-type]
    assert (status, expected) == (answer.status_code, reason(answer))
    assert "x-nz-grant" not in answer.headers


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("/api/pull", {"problem": "target", "method": "PUT", "key": ""}, "target_invalid"),
        ("/api/pull", {"method": "PUT", "key": "", "problem": "too_large"}, "path_mutation"),
        ("/api/chat", {"method": "PUT", "key": "", "problem": "too_large"}, "method_not_allowed"),
        ("/api/chat", {"key": "", "problem": "too_large", "model": "none"}, "key_missing"),
        ("/api/chat", {"problem": "too_large", "model": "x:cloud"}, "body_too_large"),
        ("/api/chat", {"model": "x:cloud", "node": str(uuid.UUID(int=7))}, "model_not_allowed"),
    ],
)
async def test_order_of_refusals(guard: Guard, path: str, fields: dict[str, object], expected: str) -> None:
    """A request that lacks several things is refused for the first of them only."""
    assert expected == reason(await guard.ask(path, **fields))  # type: ignore[arg-type]


async def test_allow_header_names_the_methods(guard: Guard) -> None:
    """A 405 says which methods there are."""
    assert "GET, HEAD" == (await guard.ask("/api/tags", method="PUT")).headers["allow"]


@pytest.mark.parametrize("off_ms", [-60_000, -2_000, 6_000])
async def test_old_ask_is_refused(guard: Guard, off_ms: int) -> None:
    """An Ask that is more than 1.8 s old, so that its client has its answer, or 5 s ahead is refused."""
    answer = await guard.ask(id=str(uuid7(time.time_ns() // 1_000_000 + off_ms)))
    assert (503, "ask_late") == (answer.status_code, reason(answer))


async def test_wrong_secret_of_a_known_key(guard: Guard, session: Session, key: CreatedKey) -> None:
    """A key's public handle alone is worth nothing."""
    other = await create_key(session, tenant="acme", name="other")
    forged = key.key[:11] + other.key[11:]
    answer = await guard.ask(key=forged)
    assert (401, "key_missing") == (answer.status_code, reason(answer))


async def test_revoke_bites_at_once(guard: Guard, session: Session, key: CreatedKey) -> None:
    """L7: the first request after revoke-key has returned is refused, though the key is cached."""
    assert 204 == (await guard.ask()).status_code
    await set_key_state(session, key.prefix, "revoked")
    answer = await guard.ask()
    assert (401, "key_revoked") == (answer.status_code, reason(answer))
    assert 401 == (await guard.read("/api/tags")).status_code


async def test_committed_revoke_bites_even_if_redis_was_not_told(
    guard: Guard, owner_of_tables: asyncpg.Connection, session: Session
) -> None:
    """L7: a version that a dying command left unpublished is found when anything makes authz look."""
    other = await create_key(session, tenant="acme", name="other")
    await owner_of_tables.execute("UPDATE keys SET state = 'revoked', version = 2 WHERE name = 'other'")
    assert 401 == (await guard.ask(key=other.key)).status_code


@pytest.mark.parametrize(
    "goes_back", ["UPDATE tenants SET version = 1 RETURNING id", "UPDATE keys SET version = 1 RETURNING id"]
)
async def test_postgres_that_went_back_is_no_lock_out(
    guard: Guard, owner_of_tables: asyncpg.Connection, session: Session, key: CreatedKey, goes_back: str
) -> None:
    """L7: Redis knows changes that a failover or a restore of Postgres has lost: its versions are outbid."""
    for state in ("disabled", "active"):
        await set_key_state(session, key.prefix, state)
        await set_tenant_state(session, "acme", state)
    await owner_of_tables.execute(goes_back)
    assert [204, 204] == [(await guard.ask()).status_code for _ in range(2)]
    versions = "SELECT version FROM tenants UNION SELECT version FROM keys"
    assert {3, 4} == {row["version"] for row in await owner_of_tables.fetch(versions)}
    await set_key_limits(session, key.prefix, limits=lambda _: Limits(requests_per_minute=30))
    assert 204 == (await guard.ask()).status_code


async def test_allowlist(guard: Guard, session: Session) -> None:
    """A key may use the models on its list, in any spelling, and no others."""
    listed = await create_key(session, tenant="acme", name="listed", scope=Scope(models=("demo-embed",)))
    assert "model_not_allowed" == reason(await guard.ask(key=listed.key))
    assert (
        204 == (await guard.ask("/api/embed", key=listed.key, model="library/DEMO-EMBED:latest")).status_code
    )


async def test_address(guard: Guard, owner_of_tables: asyncpg.Connection, session: Session) -> None:
    """A key bound to networks works from inside them only; what can't be read is outside."""
    bound = await create_key(session, tenant="acme", name="bound")
    await owner_of_tables.execute("UPDATE keys SET cidrs = '{203.0.113.0/24}' WHERE name = 'bound'")
    for ip, status in {
        "203.0.113.9": 204,
        "::ffff:203.0.113.9": 204,
        "198.51.100.1": 403,
        "junk": 403,
        "::1%eth0": 403,
    }.items():
        assert status == (await guard.ask(key=bound.key, ip=ip)).status_code, ip


async def test_forged_hash_disables_the_key(
    guard: Guard, owner_of_tables: asyncpg.Connection, session: Session
) -> None:
    """A tag written by hand beside another's hash works no longer than the proof takes."""
    forged = await create_key(session, tenant="acme", name="forged")
    query = "UPDATE secrets SET hash = (SELECT hash FROM secrets LIMIT 1) WHERE lookup = $1"
    await owner_of_tables.execute(query, forged.prefix)
    await guard.ask(key=forged.key)
    async with asyncio.timeout(DISABLED_WITHIN_S):
        while "disabled" != await owner_of_tables.fetchval("SELECT state FROM keys WHERE name = 'forged'"):
            await asyncio.sleep(0.02)
    assert 401 == (await guard.ask(key=forged.key)).status_code


async def test_whoever_is_not_the_guard_gets_nothing(guard: Guard) -> None:
    """A request without an Ask, with a broken one or with two has neither Grant nor Denial."""
    for headers in ([], [("X-Nz-Ask", "{")], [("X-Nz-Ask", "{}"), ("X-Nz-Ask", "{}")]):
        answer = await guard._client.get("/verify", headers=headers)
        assert 400 == answer.status_code
        assert not {"x-nz-grant", "x-nz-denial"} & set(answer.headers)


async def test_lost_redis_is_rebuilt_before_anybody_is_admitted(
    guard: Guard, owner_of_tables: asyncpg.Connection, redis_url: str
) -> None:
    """L6: after a flush every request is refused until metering has read on and the counters are rebuilt."""
    assert 204 == (await guard.ask()).status_code
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
    assert "rebuilding" == reason(await guard.ask())
    assert "rebuilding" == reason(await guard.ask())
    await owner_of_tables.execute("UPDATE nodes SET eof_at = now() + interval '1 hour'")
    answer = await guard.ask()
    while answer.status_code == 503:
        await owner_of_tables.fetchval("SELECT pg_sleep(0.05)")
        answer = await guard.ask()
    assert 204 == answer.status_code


async def test_every_ask_frees_what_has_ended(guard: Guard, session: Session, key: CreatedKey) -> None:
    """L4: slots are freed by whichever Ask brings the news, a read's too."""
    await set_key_limits(session, key.prefix, limits=LimitOptions(concurrency="1").applied)
    first = grant(await guard.ask())
    assert "concurrency" == reason(await guard.ask())
    done = [{"id": first["id"], "tenant": first["tenant"], "key": first["key"]}]
    assert 200 == (await guard.read("/api/tags", done=done)).status_code
    assert 204 == (await guard.ask()).status_code
