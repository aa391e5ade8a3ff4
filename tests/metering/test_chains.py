"""Every row of the ledger and of the audit is in a chain, whoever has added it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest

import sql
from authz.accounts.credits import credit_request
from authz.accounts.limits import set_key_limits
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from authz.errors import StoreUnavailable
from tests.metering.conftest import Begin
from tests.metering.test_orphans import add_tenant
from tests.metering.verifying import verified
from tests.metering.writing import LOOKUP, NODE, START, TENANT, JournalFile

CHAINS = "SELECT c.name, count(*) FROM chain_batches AS b JOIN chains AS c ON c.id = b.chain GROUP BY 1"

MAY_CALL = "SELECT has_function_privilege($1::text, $2::text, 'EXECUTE')"
FUNCTIONS = (
    "merkle_root(bytea)",
    "add_link(text, bytea, bytea)",
    "chain_ledger()",
    "chain_audit()",
    "close_chain_days()",
)
"""What writes chains; a role that may call those of triggers could put them on a table of its own."""


async def test_settled_rows_are_chained_in_the_transaction_that_adds_them(
    begin: Begin, journal: JournalFile, database: str
) -> None:
    """A batch of the journal is one link of its node's chain; one that is rolled back is none."""

    def fail(step: str) -> None:
        if step == "ledger_written":
            raise ConnectionError

    journal.request()
    service = await begin(reach=fail)
    with pytest.raises(StoreUnavailable):
        await service.drain()
    assert 0 == await service.count("chain_batches")
    again = await begin()
    for _ in range(3):
        journal.request()
    await again.beat(2)
    report = await verified(database)
    assert ([], 1, 4) == (report.faults, report.links, report.rows)
    assert [(str(NODE), 1)] == [tuple(row) for row in await again.ledger.fetch(CHAINS)]


async def test_an_orphan_and_its_adjustment_are_chained(
    begin: Begin, journal: JournalFile, database: str
) -> None:
    """Each statement that adds rows is a link; a replay that adds none is none."""
    request = journal.new_id()
    journal.append(journal.opened(request))
    service = await begin()
    await service.beat()
    journal.start()
    await service.beat()
    late = journal.ended(request)
    journal.append(late)
    journal.append(late)
    await service.beat()
    assert [0, 1] == [row["entry"] for row in await service.rows()]
    report = await verified(database)
    assert ([], 2, 2) == (report.faults, report.links, report.rows)


async def test_a_correction_is_chained_while_metering_is_down(
    begin: Begin, journal: JournalFile, session: Session, database: str
) -> None:
    """It is a link of its own chain, and what the audit says of it is one of the audit's."""
    service = await begin()
    await add_tenant(service)
    request = journal.request()
    await service.beat(2)
    await service.end()
    await credit_request(session, request, tokens=5, reason="why", at=START)
    assert {str(NODE): 1, "corrections": 1, "audit": 1} == {
        row["name"]: row["count"] for row in await service.ledger.fetch(CHAINS)
    }
    assert [] == (await verified(database)).faults


async def test_commands_at_once_take_turns(session: Session, database: str) -> None:
    """Numbers of the audit's chain have no gap and no fork, whichever transaction commits first."""
    connections = [await asyncpg.connect(database) for _ in range(8)]

    async def write(connection: asyncpg.Connection) -> None:
        for _ in range(10):
            async with connection.transaction():
                for action in ("first", "second"):
                    await connection.execute(
                        "INSERT INTO admin_audit (actor, action, old) VALUES ('tester', $1, '{\"a\": null}')",
                        action,
                    )

    await asyncio.gather(*map(write, connections))
    report = await verified(database)
    assert ([], 160, 160) == (report.faults, report.links, report.rows)
    for connection in connections:
        await connection.close()


async def test_the_audit_is_chained_at_commit(session: Session, database: str) -> None:
    """So that a long command keeps no other waiting for the chain."""
    first, second = await asyncpg.connect(database), await asyncpg.connect(database)
    add = "INSERT INTO admin_audit (actor, action) VALUES ('tester', 'first')"
    async with first.transaction():
        await first.execute(add)
        assert 0 == await first.fetchval("SELECT count(*) FROM chain_batches")
        await second.execute(add, timeout=10)
    assert 2 == await first.fetchval("SELECT count(*) FROM chain_batches")
    assert [] == (await verified(database)).faults
    for connection in (first, second):
        await connection.close()


async def test_days_are_closed_once_and_in_order(session: Session, database: str) -> None:
    """A clock that steps back makes no link earlier, and none of a day that has its root."""
    owner = await asyncpg.connect(database)
    add = "INSERT INTO admin_audit (actor, action) VALUES ('tester', 'first')"
    await owner.execute(add)
    await owner.execute("UPDATE chain_batches SET at = now() + interval '1 day'")
    await owner.execute(add)
    assert 1 == await owner.fetchval("SELECT count(DISTINCT at) FROM chain_batches")
    close = "SELECT close_chain_days()"
    assert 0 == await owner.fetchval(close)
    await owner.execute("UPDATE chain_batches SET at = '2026-10-20 23:00+00'")
    assert [1, 0] == [await owner.fetchval(close) for _ in range(2)]
    await owner.execute(add)
    await owner.execute("UPDATE chain_batches SET at = '2026-10-19 23:00+00' WHERE number = 3")
    assert [1, 0] == [await owner.fetchval(close) for _ in range(2)]
    days = await owner.fetch("SELECT day::text, first, last FROM chain_days ORDER BY day")
    assert [("2026-10-20", 1, 2), ("2026-10-21", 3, 3)] == [tuple(row) for row in days]
    await owner.close()


async def test_an_erasure_covers_nothing_later(
    begin: Begin, journal: JournalFile, session: Session, database: str
) -> None:
    """What is changed after it keeps its details, or is found."""
    service = await begin()
    await add_tenant(service)
    await set_key_limits(session, LOOKUP, scope=lambda _: Scope(models=("my-model",)))
    await service.ledger.execute(
        f"INSERT INTO admin_audit (actor, action, tenant_id) VALUES ('me', 'tenant_erased', '{TENANT}')"  # noqa: S608
    )
    await set_key_limits(session, LOOKUP, scope=lambda _: Scope(models=("another",)))
    assert [] == (await verified(database)).faults
    hide = "UPDATE admin_audit SET old = NULL, new = NULL, salt = NULL WHERE action = 'limits_set' AND id "
    latest = "(SELECT max(id) FROM admin_audit)"
    await service.ledger.execute(f"{hide} < {latest}")
    assert [] == (await verified(database)).faults
    await service.ledger.execute(f"{hide} = {latest}")
    (fault,) = (await verified(database)).faults
    assert "of the audit was altered" in fault


async def test_rows_from_before_the_chains_are_taken_in(
    begin: Begin, journal: JournalFile, database: str
) -> None:
    """A ledger that is upgraded is chained as it is found, each row once, also what comes meanwhile."""
    service = await begin()
    for _ in range(3):
        journal.request()
    await service.beat(2)
    await service.ledger.execute("INSERT INTO admin_audit (actor, action) VALUES ('tester', 'before')")
    await service.ledger.execute("DELETE FROM chain_batches")
    journal.request()
    await service.beat(2)
    migration = next((sql.FOLDER / "migrations").glob("*_rows_before_chains.sql"))
    await service.ledger.execute(_up(migration))
    report = await verified(database)
    assert ([], 3, 5) == (report.faults, report.links, report.rows)
    await service.ledger.execute(
        "UPDATE ledger SET input_tokens = 0 WHERE seq = (SELECT min(seq) FROM ledger)"
    )
    (fault,) = (await verified(database)).faults
    assert fault.endswith("was altered: it is not as link 1 of the chain before has it.")


def _up(migration: Path) -> str:
    return re.split("-- migrate:(?:up|down)", migration.read_text())[1]


async def test_no_program_can_write_a_chain_itself(begin: Begin, database: str) -> None:
    """A link comes from the database's own triggers: a role can neither add one nor call what does."""
    await begin()
    connection = await asyncpg.connect(database)
    for role in ("gateway_metering", "gateway_admin", "gateway_authz", "gateway_auditor", "gateway_reader"):
        await connection.execute(f"SET ROLE {role}")
        for statement in (
            "INSERT INTO chains (name) VALUES ('mine')",
            "DELETE FROM chain_batches",
            "UPDATE chain_days SET root = hash",
            "SELECT add_link('audit', '', '')",
            "UPDATE database_identity SET id = gen_random_uuid()",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        await connection.execute("RESET ROLE")
        callable_ = [name for name in FUNCTIONS if await connection.fetchval(MAY_CALL, role, name)]
        assert callable_ == (["close_chain_days()"] if role == "gateway_metering" else [])
    await connection.close()
