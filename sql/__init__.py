"""The database as text: migrations for dbmate, queries for aiosql, each named once."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import aiosql

FOLDER = Path(str(files(__name__)))


def load(name: str) -> Any:
    """Load the queries of one file, as untyped methods: callers make typed values of the rows."""
    return aiosql.from_path(FOLDER / "queries" / f"{name}.sql", "asyncpg")
