"""What is held of a request where no budget is: the mean of its tenant's own answers by that model."""

from __future__ import annotations

from typing import cast
from uuid import UUID

import asyncpg
import httpx
import pytest

from authz.accounts.keys import CreatedKey
from authz.decision.forecasts import Forecast, Forecasts
from authz.store import AUTHZ_ROLE, Store
from authz.types import AnswerSums, Identity
from tests.authz.asking import Guard, grant

TAUGHT = """
    INSERT INTO learned_figures (
        model, scope_id, tenant_id, answers, prompt_bytes, prompt_tokens, embedded_bytes, embedded_tokens,
        text_bytes, text_tokens, deltas, delta_tokens, tool_bytes, tool_tokens, eval_ms, eval_tokens,
        prompt_ms, evaluated_tokens, load_ms, loads, answer_tokens, generations
    )
    VALUES ($1, $2, $3, 96, $4, $5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, $6, $7)
"""


@pytest.mark.parametrize(
    ("sums", "forecast"),
    [
        (AnswerSums(0, 0, 0, 0), Forecast(256, 4)),
        (AnswerSums(4 * 2048, 4, 0, 0), Forecast((256 + 2048) // 2, 4)),
        (AnswerSums(96 * 4096, 96, 1600, 800), Forecast(round(0.04 * 256 + 0.96 * 4096), 2.4)),
        (AnswerSums(1000, 10**6, 100, 10**9), Forecast(1, 1)),
        (AnswerSums(1e30, 1, 0, 0), Forecast(1 << 40, 4)),
    ],
    ids=["nothing", "as much as assumed", "a lot", "least", "most"],
)
def test_a_forecast_is_a_mean(sums: AnswerSums, forecast: Forecast) -> None:
    """What was seen moves what is assumed by its weight, and never beyond what can be."""
    found = Forecast(256).learned(sums)
    assert forecast.output == found.output
    assert forecast.bytes_per_token == pytest.approx(found.bytes_per_token)


async def _teach(database: str, *, model: str, scope: UUID, tenant: UUID, tokens: float) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(TAUGHT, model, scope, tenant, 4000.0, 1000.0, tokens * 96, 96.0)
    await connection.close()


@pytest.fixture
async def taught(database: str, owner: Identity) -> UUID:
    """The tenant acme, whose answers by demo had 1,000 tokens; others, and other models, have more."""
    tenant, other = owner.tenant, UUID(int=7)
    await _teach(database, model="demo:latest", scope=tenant, tenant=tenant, tokens=1000)
    await _teach(database, model="demo:latest", scope=other, tenant=other, tokens=50_000)
    await _teach(database, model="demo:latest", scope=owner.key, tenant=tenant, tokens=70_000)
    await _teach(database, model="other:latest", scope=tenant, tenant=tenant, tokens=60_000)
    return tenant


@pytest.mark.parametrize(("wish", "held"), [(None, 970), (20, 20), (10**6, 970)])
async def test_a_grant_holds_what_a_tenants_answers_were(
    taught: UUID, authz_url: str, key: CreatedKey, wish: int | None, held: int
) -> None:
    """Its own, by that model: nothing that others send changes it, and no wish makes it more."""
    async with httpx.AsyncClient(base_url=authz_url) as client:
        granted = grant(await Guard(client, key.key).ask(max_output=wish))
    reserved = cast("dict[str, int]", granted["reserved"])
    assert (str(taught), held) == (granted["tenant"], reserved["output"])


async def test_forecasts_outlast_postgres(database: str) -> None:
    """What was read stays while Postgres can't be asked."""
    tenant = UUID(int=9)
    await _teach(database, model="demo:latest", scope=tenant, tenant=tenant, tokens=1000)
    store = Store(database, role=AUTHZ_ROLE)
    forecasts = Forecasts(store, assumed=256)
    await forecasts.read()
    await store.close()
    away = Forecasts(Store("postgresql://127.0.0.1:1/none", role=AUTHZ_ROLE), assumed=256)
    away.of = forecasts.of
    await away.read()
    assert Forecast(970, 4.0) == away.of[tenant, "demo:latest"]
