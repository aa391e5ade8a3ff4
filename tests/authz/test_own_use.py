"""The holder of a key sees its own use and limits, and nothing of another key."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from attrs import define

from authz.accounts.keys import CreatedKey, create_key
from authz.accounts.limits import set_key_limits, set_tenant_limits
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.decision import calendar, own_use
from authz.decision.own_use import MOST_ROWS, OwnUse
from authz.decision.refusals import Answer
from authz.errors import StoreUnavailable
from authz.limiter.limiter import READS_PER_MINUTE, Limiter
from authz.settings import Settings
from authz.store import AUTHZ_ROLE, Store
from authz.types import Identity, Limits
from tests.authz.asking import NODE, Guard, grant, reason
from tests.authz.billing import Book, served
from tests.authz.conftest import known

ZONE = "Pacific/Kiritimati"
"""14 hours ahead of UTC: its day is another one for most of the time."""


def day_of(moment: datetime, zone: str) -> date:
    """The day of a tenant in that zone."""
    return date.fromisoformat(calendar.at(moment, zone).windows.day)


async def test_use_by_day_and_model(
    guard: Guard, session: Session, book: Book, owner: Identity, store: Store
) -> None:
    """`/v1/usage` has what the key itself was billed this month, by the tenant's day and by model."""
    await set_tenant_limits(session, "acme", limits=lambda old: old, timezone=ZONE)
    second = await known(store, (await create_key(session, tenant="acme", name="second")).prefix)
    await create_tenant(session, "zeta")
    other = await known(store, (await create_key(session, tenant="zeta", name="other")).prefix)
    now = datetime.now(UTC)
    today = day_of(now, ZONE)
    first = today.replace(day=1)
    await book.add(
        served(owner, now, day=today),
        served(owner, now, day=today, model="qwen3:8b", input_tokens=7),
        served(owner, now, day=today, model="library/LLAMA3.2"),
        served(owner, now, day=first, model="only-first"),
        served(owner, now, day=first - timedelta(days=1)),
        served(second, now, day=today),
        served(other, now, day=today),
    )
    answer = await guard.read("/v1/usage")
    found = answer.json()
    assert ("no-store", ZONE, today.isoformat()[:7]) == (
        answer.headers["cache-control"],
        found["timezone"],
        found["month"],
    )
    sums = (4, 37, 80, True)
    assert sums == tuple(found[name] for name in ("requests", "input_tokens", "output_tokens", "complete"))
    expected = [
        (today.isoformat(), "llama3.2:latest", 2, 20, 40),
        (today.isoformat(), "qwen3:8b", 1, 7, 20),
        (first.isoformat(), "only-first:latest", 1, 10, 20),
    ]
    assert sorted(expected) == sorted(tuple(row.values()) for row in found["data"])
    assert sorted((row["day"] for row in found["data"]), reverse=True) == [
        row["day"] for row in found["data"]
    ]


async def test_limits_with_what_is_left(guard: Guard, session: Session, key: CreatedKey) -> None:
    """`/v1/limits` has each limit of the key: used, held by what runs, left, and when it starts again."""
    await session.limiter.vouch(NODE, lag_ms=0)
    every = Limits(6, 6_000, 4, 10_000, 20_000, 30_000)
    may = Scope(models=("demo*",), max_output=50)
    await set_key_limits(session, key.prefix, limits=lambda _: every, scope=lambda _: may)
    reserved: Any = grant(await guard.ask(max_output=10))["reserved"]
    held = reserved["input"] + reserved["output"]
    began = datetime.now(UTC)
    found = (await guard.read("/v1/limits")).json()
    assert (key.prefix, "first", ["demo*"], 50) == tuple(
        found[name] for name in ("key", "name", "models", "max_output")
    )
    rows = {row["limit"]: row for row in found["data"]}
    assert {"key"} == {row["scope"] for row in rows.values()}
    assert (6, 5, 1) == tuple(rows["requests_per_minute"][name] for name in ("value", "left", "used"))
    full_at = datetime.fromisoformat(rows["requests_per_minute"]["resets_at"])
    assert began < full_at < began + timedelta(seconds=11)
    assert (4, 3, 1, None) == tuple(
        rows["concurrency"][name] for name in ("value", "left", "used", "resets_at")
    )
    ends = calendar.at(began, "UTC")
    for limit, value, resets_at in (
        ("tokens_per_day", 10_000, ends.valid_until),
        ("tokens_per_month", 20_000, ends.next_month),
        ("tokens_total", 30_000, None),
    ):
        row = rows[limit]
        assert (value, value - held, 0, held) == tuple(
            row[name] for name in ("value", "left", "used", "held")
        )
        assert resets_at == (row["resets_at"] and datetime.fromisoformat(row["resets_at"]))


async def test_of_the_tenant_only_what_is_left(guard: Guard, session: Session) -> None:
    """A limit that all keys of the tenant share is shown without what others have used or hold of it."""
    await session.limiter.vouch(NODE, lag_ms=0)
    await set_tenant_limits(session, "acme", limits=lambda _: Limits(tokens_per_day=10_000))
    second = await create_key(session, tenant="acme", name="second", limits=Limits(tokens_per_day=50))
    reserved: Any = grant(await guard.ask(max_output=10))["reserved"]
    guard.key = second.key
    of_key, of_tenant = (await guard.read("/v1/limits")).json()["data"]
    assert ("key", 50, 50) == (of_key["scope"], of_key["value"], of_key["left"])
    assert {"scope", "limit", "value", "left", "resets_at"} == set(of_tenant)
    left = 10_000 - reserved["input"] - reserved["output"]
    assert ("tenant", 10_000, left) == (of_tenant["scope"], of_tenant["value"], of_tenant["left"])


async def test_a_changed_limit_shows_at_once(guard: Guard, session: Session, key: CreatedKey) -> None:
    """An answer is given again for some seconds, but not after the limits of its key have changed."""
    assert [] == (await guard.read("/v1/limits")).json()["data"]
    await set_key_limits(session, key.prefix, limits=lambda _: Limits(concurrency=3))
    (row,) = (await guard.read("/v1/limits")).json()["data"]
    assert 3 == row["left"]


async def test_own_use_is_within_the_reads_of_a_key(guard: Guard) -> None:
    """Both routes count among the reads of a minute, and need the key as any other."""
    taken = 0
    while (refused := await guard.read((own_use.USAGE, own_use.LIMITS)[taken % 2])).status_code == 200:
        taken += 1
    assert READS_PER_MINUTE <= taken
    assert (429, "rate_reads") == (refused.status_code, reason(refused))
    guard.key = f"{guard.key[:-1]}{'a' if guard.key[-1] != 'a' else 'b'}"
    assert 401 == (await guard.read("/v1/limits")).status_code


@define
class Clock:
    """A clock that a test moves."""

    s: float = 0.0


@pytest.fixture
def clock() -> Clock:
    """The clock by which answers age."""
    return Clock()


@pytest.fixture
async def own(settings: Settings, limiter: Limiter, clock: Clock) -> AsyncIterator[OwnUse]:
    """What answers, on that clock."""
    store = Store(settings.database_url, role=AUTHZ_ROLE)
    yield OwnUse(store, limiter, now_s=lambda: clock.s)
    await store.close()


async def test_many_at_once_ask_the_store_once(
    own: OwnUse, clock: Clock, owner: Identity, book: Book
) -> None:
    """Answers are the same object for all that ask within three seconds, and new ones after that."""
    now = datetime.now(UTC)
    day = day_of(now, owner.timezone)
    answers = await asyncio.gather(*(own.answer(owner, own_use.USAGE, now) for _ in range(50)))
    assert 1 == len({id(answer) for answer in answers})
    await book.add(served(owner, now, day=day))
    clock.s += own_use.KEPT_S - 0.1
    assert answers[0] is await own.answer(owner, own_use.USAGE, now)
    clock.s += 0.2
    later = await own.answer(owner, own_use.USAGE, now)
    assert isinstance(later, Answer)
    assert b'"requests":1,' in later.body


async def test_what_is_left_out_is_said(own: OwnUse, clock: Clock, owner: Identity, book: Book) -> None:
    """A key with more rows than an answer has gets the newest, and reads that they are not all."""
    now = datetime.now(UTC)
    day = day_of(now, owner.timezone)
    for most, complete in ((MOST_ROWS, b'"complete":true'), (1, b'"complete":false')):
        await book.add(*(served(owner, now, day=day, model=f"m{number}-{most}") for number in range(most)))
        clock.s += own_use.KEPT_S
        answer = await own.answer(owner, own_use.USAGE, now)
        assert isinstance(answer, Answer)
        assert complete in answer.body
        assert MOST_ROWS == answer.body.count(b'"day"')


async def test_a_store_that_is_away_is_asked_again(owner: Identity, limiter: Limiter) -> None:
    """A failure is kept for no one: the next one asks again."""
    own = OwnUse(Store("postgresql://nobody@127.0.0.1:9/none", role=AUTHZ_ROLE), limiter, now_s=lambda: 0.0)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await own.answer(owner, own_use.USAGE, datetime.now(UTC))
        assert not own._kept


async def test_page_of_a_key(guard: Guard) -> None:
    """`/me` is one page for all, whose policy allows its own script and style, and no third party."""
    answer = await guard._client.get("/me")
    assert (200, "text/html; charset=utf-8") == (answer.status_code, answer.headers["content-type"])
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy
    assert not re.findall(
        r"(?:https?:)?//[a-z]|<script |<link rel=\"style|innerHTML|Storage|cookie", answer.text
    )
