"""Every query of sql/queries fits the real schema."""

from __future__ import annotations

import asyncpg
import pytest

import sql

FILES = ("authz", "admin", "journal", "ledger", "books", "figures", "progress", "retention")


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
