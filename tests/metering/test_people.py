"""Who requests came from: named while it is wanted, removed for good, and the books stay whole."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

import asyncpg
import pytest

from authz.accounts.aliases import set_alias
from authz.accounts.credits import credit_request
from authz.accounts.limits import set_key_limits
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from authz.accounts.tenants import erase_tenant, set_tenant_state
from authz.errors import CommandError
from metering.journal_store import JournalStore
from metering.retention import keep_journal
from tests.metering.conftest import Begin, Service
from tests.metering.test_orphans import add_tenant
from tests.metering.test_retention import DAY, now
from tests.metering.verifying import verified
from tests.metering.writing import LOOKUP, NODE, START, TENANT, JournalFile

__all__ = ["now"]

PEOPLE = """
    SELECT e.name, a.address FROM ledger AS l
    LEFT JOIN end_users AS e ON e.id = l.end_user_id
    LEFT JOIN client_addresses AS a ON a.id = l.address_id
    ORDER BY l.request_id, l.entry
"""

PERSONAL = ("alice", "203.0.113.9", "198.51.100.0", "acme", "laptop", "my-model")


async def people(service: Service) -> list[tuple[str | None, str | None]]:
    """Who each row of the ledger came from, as far as that is known."""
    return [tuple(row) for row in await service.ledger.fetch(PEOPLE)]


async def owned(service: Service, session: Session) -> None:
    """The tenant and the key of the journal's requests, with all that names them."""
    await add_tenant(service)
    scope = Scope(models=("my-model",), cidrs=("198.51.100.0/24",))
    await set_key_limits(session, LOOKUP, scope=lambda _: scope)
    await set_alias(session, "my-model-alias", "llama3.2", tenant="acme")


async def test_a_row_has_ids_of_whom_it_came_from(begin: Begin, journal: JournalFile, database: str) -> None:
    """One address of a day and one end user have an id each; what is not named has none."""
    service = await begin()
    for name in ("alice", "bob", "alice", None):
        journal.request(end_user=name)
    await service.beat(2)
    assert ["alice", "bob", "alice", None] == [name for name, _ in await people(service)]
    rows = await service.rows()
    assert {None} == {row["ip"] for row in rows}
    assert 1 == len({row["address_id"] for row in rows})
    assert (2, 1) == (await service.count("end_users"), await service.count("client_addresses"))
    assert [] == (await verified(database)).faults


async def test_an_orphan_has_whom_its_open_line_names(begin: Begin, journal: JournalFile) -> None:
    """What died with Caddy came from somebody, too."""
    service = await begin()
    journal.append(journal.opened(journal.new_id(), end_user="alice"))
    journal.start()
    await service.beat()
    assert [("alice", "203.0.113.9")] == await people(service)


async def test_addresses_go_when_their_days_are_over(
    begin: Begin, journal: JournalFile, now: datetime, database: str
) -> None:
    """Removed at the first round after the end, also if nothing ran then; the rest of the ledger stays."""
    journal.begun_ms = int(now.timestamp() * 1000)
    for days in (31, 30, 0):
        moment = journal.begun_ms - days * DAY
        journal.append(journal.ended(journal.new_id(at_ms=moment), end_user="alice"))
        refused = {"tenant": None, "key": None, "lookup": None, "reserved": None, "outcome": "denied"}
        journal.append(journal.ended(journal.new_id(at_ms=moment), **refused, reason="key_missing"))
    service = await begin(address_days=None)
    await service.beat(2)
    assert (3, 3) == (await service.count("client_addresses"), await service.count("refusals_per_minute"))
    assert 0 == await service.store.forget_people(None)
    assert 2 == await service.store.forget_people(30)
    assert [("alice", None), ("alice", "203.0.113.9"), ("alice", "203.0.113.9")] == await people(service)
    sources = await service.ledger.fetch("SELECT source, refusals FROM refusals_per_minute ORDER BY minute")
    assert [(True, 1), (False, 1), (False, 1)] == [(row[0] is None, row[1]) for row in sources]
    assert [] == (await verified(database)).faults
    assert 0 == await service.store.forget_people(30)


async def test_the_duty_removes_addresses(begin: Begin, journal: JournalFile, now: datetime) -> None:
    """Metering does it by itself, by the setting."""
    journal.begun_ms = int(now.timestamp() * 1000)
    journal.append(journal.ended(journal.new_id(at_ms=journal.begun_ms - 3 * DAY)))
    service = await begin(address_days=2)
    await service.drain()
    service.clock.seconds += 61
    await service.drain()
    assert (0, 1) == (await service.count("client_addresses"), await service.count("ledger"))


async def test_a_name_goes_with_the_last_day_that_has_it(
    begin: Begin, journal: JournalFile, database: str
) -> None:
    """Once the ledger has no day any more on which an end user was seen, its name is removed."""
    service = await begin()
    for name in ("alice", "bob"):
        journal.request(end_user=name)
    await service.drain()
    await service.ledger.execute("UPDATE end_users SET last_day = last_day - 10")
    journal.request(end_user="bob")
    await service.drain()
    rows = await service.ledger.fetch("SELECT name, last_day FROM end_users")
    last = {row["name"]: row["last_day"] for row in rows}
    assert timedelta(days=10) <= last["bob"] - last["alice"] <= timedelta(days=11)
    for days, expected in (
        (-1, ["alice", "bob", "bob"]),
        (1, ["alice", "bob", "bob"]),
        (2, [None, "bob", "bob"]),
    ):
        oldest = last["alice"] + timedelta(days=days)
        await service.ledger.execute("UPDATE ledger_retention SET oldest_day = $1", oldest)
        await service.store.forget_people(None)
        assert expected == [name for name, _ in await people(service)]
    assert [] == (await verified(database)).faults


async def test_old_dead_letters_have_no_people(begin: Begin, journal: JournalFile) -> None:
    """A line that was not understood keeps its figures, and loses addresses and names."""
    service = await begin()
    journal.append(journal.ended(journal.new_id(), end_user='a\\"l"ice', v=2))
    await service.drain()
    await service.ledger.execute("UPDATE dead_letters SET at = at - interval '40 days'")
    assert 1 == await service.store.forget_people(30)
    (raw,) = [bytes(row["raw"]) for row in await service.ledger.fetch("SELECT raw FROM dead_letters")]
    assert b'"ip":"","' in raw
    assert b'"end_user":""' in raw
    assert b"ice" not in raw
    assert b'"input_tokens":10' in raw


async def test_old_files_of_the_journal_go(begin: Begin, journal: JournalFile, now: datetime) -> None:
    """A file that was read and last written to before the moment is removed; others stay."""
    service = await begin()
    await service.drain()
    old, new = journal.rotate(), journal.rotate()
    long_ago = now.timestamp() - 40 * 86_400
    os.utime(old, (long_ago, long_ago))
    os.utime(new, (now.timestamp(), now.timestamp()))
    await keep_journal(JournalStore.beside(service.store), NODE, journal.path, [old, new], since=now)
    assert (False, True) == (old.exists(), new.exists())


async def test_an_erasure_leaves_sums_and_chains(
    begin: Begin, journal: JournalFile, session: Session, database: str
) -> None:
    """Names, end users and addresses are in no table any more; every sum is, and the chains are whole."""
    service = await begin()
    await owned(service, session)
    request = journal.request(end_user="alice")
    journal.request(end_user="alice")
    journal.append(journal.opened(journal.new_id(), end_user="alice"))
    journal.append(journal.ended(journal.new_id(), end_user="alice", v=2))
    await service.beat(2)
    await credit_request(session, request, tokens=5, reason="why", at=START)
    assert set(PERSONAL) <= await texts(service)
    before = await sums(service)
    erased = await erase_tenant(session, "acme")
    assert (1, 1, 0) == (erased.end_users, erased.addresses, erased.kept_rows)
    assert set() == set(PERSONAL) & await texts(service)
    assert before == await sums(service)
    report = await verified(database)
    assert [] == report.faults
    journal.request(end_user="alice")
    await service.beat(2)
    assert set() == set(PERSONAL) & await texts(service)
    assert [] == (await verified(database)).faults
    await erase_tenant(session, erased.name)
    assert [] == (await verified(database)).faults
    with pytest.raises(CommandError, match="erased for good"):
        await set_tenant_state(session, erased.name, "active")


async def sums(service: Service) -> list[list[tuple[object, ...]]]:
    """All that was billed."""
    return [
        [tuple(row) for row in await service.ledger.fetch(query)]
        for query in (
            "SELECT * FROM ledger ORDER BY request_id, entry",
            "SELECT * FROM usage_daily ORDER BY day, key_id, model",
            "SELECT scope_id, period, start, used FROM budget_windows ORDER BY 1, 2, 3",
        )
    ]


async def texts(service: Service) -> set[str]:
    """Those of the personal texts that any table has."""
    tables = await service.ledger.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class AS c"
        " WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition"
    )
    found = set()
    for table in tables:
        for (row,) in await service.ledger.fetch(f"SELECT t::text FROM {table['name']} AS t"):  # noqa: S608
            plain = _plain(row)
            found |= {text for text in PERSONAL if text in plain}
    return found


def _plain(row: str) -> str:
    """Return the text of a row, with the bytes of dead letters as text."""
    if '"\\\\x' not in row:
        return row
    start = row.index('"\\\\x') + 4
    return (
        bytes.fromhex(row[start : row.index('"', start)]).decode(errors="replace") if len(row) > 300 else row
    )


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE ledger SET input_tokens = 1 WHERE seq = (SELECT min(seq) FROM ledger)", "was altered"),
        ("UPDATE ledger SET end_user_id = gen_random_uuid()", "was altered"),
        ("UPDATE ledger SET address_id = NULL", "was altered"),
        ("DELETE FROM admin_audit WHERE action = 'tenant_erased'", "is missing"),
        ("UPDATE admin_audit SET new = '{}' WHERE action = 'limits_set'", "was altered"),
        ("UPDATE admin_audit SET details = NULL WHERE action = 'limits_set'", "was altered"),
        ("UPDATE admin_audit SET actor = 'me' WHERE action = 'limits_set'", "was altered"),
    ],
)
async def test_an_erasure_hides_nothing(
    begin: Begin, journal: JournalFile, session: Session, database: str, statement: str, fault: str
) -> None:
    """What an owner of the database alters beside an erasure is found as ever."""
    service = await begin()
    await owned(service, session)
    journal.request(end_user="alice")
    journal.request(end_user="alice")
    await service.beat(2)
    await erase_tenant(session, "acme")
    await service.ledger.execute(statement)
    faults = (await verified(database)).faults
    assert faults
    assert any(fault in each for each in faults)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE end_users SET name = 'mallory' WHERE name = 'alice'", "end user"),
        ("UPDATE client_addresses SET address = '192.0.2.1'", "address"),
        ("UPDATE admin_audit SET old = NULL, new = NULL, salt = NULL", "of the audit was altered"),
        ("UPDATE admin_audit SET new = '{\"state\": \"x\"}' WHERE action = 'limits_set'", "of the audit"),
    ],
)
async def test_people_can_be_removed_but_not_exchanged(
    begin: Begin, journal: JournalFile, session: Session, database: str, statement: str, fault: str
) -> None:
    """Another name, another address, or an audit without its details and without an erasure, is found."""
    service = await begin()
    await owned(service, session)
    journal.request(end_user="alice")
    await service.beat(2)
    assert [] == (await verified(database)).faults
    await service.ledger.execute(statement)
    faults = (await verified(database)).faults
    assert faults
    assert all(fault in each for each in faults)


async def test_no_program_can_remove_people_itself(begin: Begin, database: str) -> None:
    """Only the functions do, and a command alone may erase."""
    await begin()
    connection = await asyncpg.connect(database)
    for role in ("gateway_metering", "gateway_admin", "gateway_authz", "gateway_auditor", "gateway_reader"):
        await connection.execute(f"SET ROLE {role}")
        for statement in (
            "DELETE FROM end_users",
            "UPDATE client_addresses SET address = ''",
            "UPDATE admin_audit SET old = NULL",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        if role != "gateway_admin":
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"SELECT erase_tenant('{TENANT}', 'me')")
        await connection.execute("RESET ROLE")
    await connection.close()
