"""An operator who runs commands, and holds what each changes against the audit."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import asyncpg
import msgspec
import pytest
from attrs import define, field, frozen

from authz.__main__ import run
from authz.admin import app
from tests.authz.test_help import commands

ACTOR: Final = "carol@example.com"

ROWS: Final = ("tenants", "keys")
UNSET: Final = frozenset({"id", "tenant_id", "version", "published_version", "created_at", "erased_at"})
"""Columns that no operator sets."""

Values = dict[str, Any]


@frozen
class State:
    """Every row of every table, the tenants and keys among them by id, and the audit."""

    tables: dict[str, list[str]]
    rows: dict[str, Values]
    audit: list[asyncpg.Record]


async def state_of(owner: asyncpg.Connection) -> State:
    """Read all that the database has."""
    names = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
        "AND relnamespace = 'public'::regnamespace"
    )
    tables = {}
    for (name,) in names:
        rows = await owner.fetch(f"SELECT r::text FROM {name} AS r ORDER BY 1")  # noqa: S608
        tables[name] = [row[0] for row in rows]
    owned = {
        str(row["id"]): _values(row)
        for name in ROWS
        for row in await owner.fetch(f"SELECT * FROM {name}")  # noqa: S608
    }
    return State(tables, owned, await owner.fetch("SELECT * FROM admin_audit ORDER BY id"))


def _values(row: asyncpg.Record) -> Values:
    """What an operator sets of a tenant or key, as JSON has it; a policy's parts stand beside the rest."""
    values = {name: value for name, value in row.items() if name not in UNSET}
    values |= json.loads(values.pop("policy"))
    if values.get("cidrs"):
        values["cidrs"] = [str(network) for network in values["cidrs"]]
    plain: Values = json.loads(msgspec.json.encode(values))
    return plain


@frozen
class Change:
    """What a command printed, and what the audit has of it."""

    said: Any
    old: Values
    new: Values


@define
class Operator:
    """Runs commands as an operator does, and holds what each did against the audit."""

    owner: asyncpg.Connection
    capsys: pytest.CaptureFixture[str]
    walked: set[str] = field(factory=set)

    async def does(self, line: str, action: str, *, code: int = 0) -> Change:
        """Run a command that changes something: one event has the actor, and old and new as the rows do."""
        before = await state_of(self.owner)
        out = await self.run(f"{line} --actor {ACTOR} --json", code=code)
        after = await state_of(self.owner)
        (event,) = after.audit[len(before.audit) :]
        assert (ACTOR, action) == (event["actor"], event["action"])
        old, new = (json.loads(event[name] or "{}") for name in ("old", "new"))
        if action != "tenant_erased":  # which leaves nothing of what was
            subject = str(event["key_id"] or event["tenant_id"])
            changed = {of for of in before.rows | after.rows if before.rows.get(of) != after.rows.get(of)}
            assert changed <= {subject}
            _compare(before.rows.get(subject, {}), after.rows.get(subject, {}), old, new)
        return Change(json.loads(out) if out else None, old, new)

    async def leaves(self, line: str, *, code: int = 0) -> None:
        """Run a command that has nothing to change: no row of any table is another one."""
        before = await state_of(self.owner)
        await self.run(line, code=code)
        after = await state_of(self.owner)
        assert [] == [name for name, rows in before.tables.items() if rows != after.tables[name]]

    async def run(self, line: str, *, code: int) -> str:
        """Run a line, in a thread, as a command has a loop of its own; returns what it prints."""
        self.walked.add(command_of(line))
        exit_code = await asyncio.to_thread(run, line.split())
        out, err = self.capsys.readouterr()
        assert code == exit_code, f"{line}: {err}"
        return out


def _compare(before: Values, after: Values, old: Values, new: Values) -> None:
    """Each value of a row that changed, and each that the audit names, is there as it is in the row."""
    for name in before | after:
        if before.get(name) != after.get(name):
            assert name in new
            assert old.get(name) == before.get(name)
        if name in new:
            assert new[name] == after.get(name)
        if name in old:
            assert old[name] == before.get(name)


def functions() -> dict[tuple[str, ...], Callable[..., Any]]:
    """What runs each command, by its path, the longest first."""
    found: dict[tuple[str, ...], Callable[..., Any]] = {}
    for path in sorted(commands(app), key=len, reverse=True):
        command = app
        for name in path:
            command = command.resolved_commands()[name]
        if command.default_command is not None and path:
            found[path] = command.default_command
    return found


def command_of(line: str) -> str:
    """The command of a line."""
    words = tuple(line.split())
    return next(" ".join(path) for path in functions() if words[: len(path)] == path)


def taking(options: str) -> Iterator[str]:
    """The commands that take a class of options."""
    for path, function in functions().items():
        parameters = inspect.signature(function).parameters.values()
        if any(options == type(each.default).__name__ for each in parameters):
            yield " ".join(path)
