"""Every query of sql/queries fits the real schema."""

from __future__ import annotations

import asyncpg
import pytest

import sql
from authz.store import Store

FILES = sorted(path.stem for path in (sql.FOLDER / "queries").iterdir())


@pytest.mark.parametrize("name", FILES)
async def test_every_query_is_prepared(database: str, name: str) -> None:
    """PostgreSQL can plan each query against the migrated schema."""
    queries = sql.load(name)
    connection = await asyncpg.connect(database)
    try:
        prepared = [
            await connection.prepare(getattr(queries, query).sql)
            for query in queries.available_queries
            if not query.endswith("_cursor")
        ]
    finally:
        await connection.close()
    assert prepared


async def test_queries_are_planned_for_their_own_parameters(store: Store) -> None:
    """However often a connection was lent: a plan for all parameters locks every day of the ledger."""
    seen = []
    for _ in range(3):
        async with store.connection() as connection:
            seen.append(await connection.fetchval("SHOW plan_cache_mode"))
    assert ["force_custom_plan"] * 3 == seen
