"""Whoever owns the database alters the books by hand: each change is found, and named in a sentence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from attrs import define, evolve

from authz.chains import books, checkpoint, tree
from authz.chains.checkpoint import Checkpoint
from authz.chains.days import days_until
from authz.chains.links import Link, beginning, digest
from metering.retention import Retention
from tests.metering.conftest import Begin
from tests.metering.verifying import verified
from tests.metering.writing import NODE, START, JournalFile

BATCHES, ROWS = 3, 4

_REWRITE = "UPDATE chain_batches SET at = $1, leaves = $2, hash = $3 WHERE chain = $4 AND number = $5"


@define
class Forger:
    """Owns the tables; knows three links of four requests each, and three rows of the audit."""

    owner: asyncpg.Connection
    database: str
    ids: list[UUID]

    async def run(self, *statements: str) -> None:
        """Alter whatever it is."""
        for statement in statements:
            await self.owner.execute(
                statement.format(
                    *self.ids,
                    links=LINKS.format(node=NODE),
                    copy=COPY.format(*self.ids),
                    leaf=LEAF.format(*self.ids),
                )
            )

    async def faults(self, known: Checkpoint | None = None) -> list[str]:
        """Return what an auditor finds."""
        return (await verified(self.database, known)).faults

    async def checkpoint(self) -> Checkpoint:
        """Return what an auditor signs."""
        async with books.opened(self.database) as opened:
            return checkpoint.make(await opened.identity(), START, await days_until(opened))

    async def rewrite(self, change: Callable[[Link], Link] = lambda link: link) -> None:
        """Write the chain of the node anew from its rows, with hashes that fit."""
        async with books.opened(self.database) as opened:
            number = (await opened.chains())[str(NODE)]
            links = [link async for link in opened.links(str(NODE), number)]
            previous = beginning(str(NODE), await opened.identity())
            for link in links:
                rows = [await opened.places(UUID(name[8:]), timedelta(days=9999)) for name in link.rows()]
                leaves = b"".join(tree.leaf(row[0].text.encode()) for row in rows)
                forged = change(evolve(link, leaves=leaves))
                previous = digest(forged.text(previous))
                await self.owner.execute(
                    _REWRITE,
                    *(forged.at, leaves, previous, number, link.number),
                )


@pytest.fixture
async def forger(begin: Begin, journal: JournalFile, database: str) -> AsyncIterator[Forger]:
    """The owner of a database with some books."""
    service = await begin()
    ids = []
    for _ in range(BATCHES):
        ids += [journal.request() for _ in range(ROWS)]
        await service.beat()
    await service.end()
    owner = await asyncpg.connect(database)
    for action in ("first", "second", "third"):
        await owner.execute("INSERT INTO admin_audit (actor, action) VALUES ('tester', $1)", action)
    await owner.execute("DELETE FROM chain_days")  # closed if a midnight came while the books were made
    made = Forger(owner, database, ids)
    assert [] == await made.faults(await made.checkpoint())
    yield made
    await owner.close()


LINKS = "chain = (SELECT id FROM chains WHERE name = '{node}')"
"""The condition of a link that is one of the node's."""

COPY = "SELECT (jsonb_populate_record(l, '{{\"entry\": 1}}')).* FROM ledger AS l WHERE request_id = '{3}'"
"""The row of a request once more, as its adjustment."""

LEAF = (
    "(SELECT sha256('\\x00'::bytea || convert_to(json_strip_nulls(row_to_json(l))::text, 'UTF8')) "
    "FROM ledger AS l WHERE request_id = '{0}')"
)
"""The hash of a row as it is now."""

ALTERED = "Request {%s} was altered: it is not as link %s of the chain {node} has it."
MISSING = "Request {%s} is missing: it is in link %s of the chain {node}."
INVENTED = "Request {%s} is in no chain: it was added past the rules of the database."
INVENTED_ENTRY = "Entry 1 of request {3} is in no chain: it was added past the rules of the database."
MOVED = (
    "Link %s of the chain {node} was altered or moved: its hash does not follow from link %s and its rows, "
    "of which request {%s} is first."
)
WRITTEN_ANEW = (
    "Link 3 of the chain {node} is not the one of the checkpoint of {made}: it, or a link before it, was "
    "written anew."
)
CUT_OFF = (
    "The chain {node} ends at link 2, and the checkpoint of {made} knows link 3: rows were removed, or the "
    "database was restored from an older backup."
)

CASES: dict[str, tuple[list[str], list[str]]] = {
    "altered": (["UPDATE ledger SET output_tokens = 1 WHERE request_id = '{5}'"], [ALTERED % (5, 2)]),
    "set to null": (
        ["UPDATE ledger_20261125 SET address_id = NULL WHERE request_id = '{0}'"],
        [ALTERED % (0, 1)],
    ),
    "altered, and said to be dropped": (
        [
            "UPDATE ledger SET output_tokens = 1 WHERE request_id = '{5}'",
            "UPDATE ledger_retention SET oldest_day = '2099-01-01'",
        ],
        [ALTERED % (5, 2)],
    ),
    "dropped": (["DELETE FROM ledger WHERE request_id = '{11}'"], [MISSING % (11, 3)]),
    "inserted": (
        [
            "ALTER TABLE ledger DISABLE TRIGGER ledger_chained",
            "INSERT INTO ledger {copy}",
            "ALTER TABLE ledger ENABLE TRIGGER ledger_chained",
        ],
        [INVENTED_ENTRY],
    ),
    "inserted into the day": (["INSERT INTO ledger_20261125 {copy}"], [INVENTED_ENTRY]),
    "swapped": (
        [
            "UPDATE ledger SET duration_ms = length(request_id::text || '{1}')",
            "UPDATE ledger SET duration_ms = 400 WHERE request_id NOT IN ('{1}', '{2}')",
        ],
        [ALTERED % (1, 1), ALTERED % (2, 1)],
    ),
    "a day dropped": (["DROP TABLE ledger_20261125"], [MISSING % (n, n // ROWS + 1) for n in range(12)]),
    "a link dropped": (
        ["DELETE FROM chain_batches WHERE number = 2 AND {links}"],
        ["Link 2 is missing from the chain {node}."] + [INVENTED % n for n in range(4, 8)],
    ),
    "links swapped": (
        [
            "UPDATE chain_batches SET number = number + 10 WHERE number > 1 AND {links}",
            "UPDATE chain_batches SET number = 15 - number WHERE number > 1 AND {links}",
        ],
        [MOVED % (2, 1, 8)],
    ),
    "a leaf written anew": (
        [
            "UPDATE ledger SET output_tokens = 1 WHERE request_id = '{0}'",
            "UPDATE chain_batches SET leaves = {leaf} || substring(leaves, 33) WHERE number = 1 AND {links}",
        ],
        [MOVED % (1, 0, 0)],
    ),
    "the audit altered": (
        ["UPDATE admin_audit SET actor = 'another' WHERE action = 'second'"],
        ["Row 2 of the audit was altered: it is not as link 2 of the chain audit has it."],
    ),
    "the audit cut": (
        ["DELETE FROM admin_audit WHERE action = 'third'"],
        ["Row 3 of the audit is missing: it is in link 3 of the chain audit."],
    ),
    "the audit invented": (
        [
            "ALTER TABLE admin_audit DISABLE TRIGGER admin_audit_chained",
            "INSERT INTO admin_audit (actor, action) VALUES ('another', 'invented')",
        ],
        ["Row 4 of the audit is in no chain: it was added past the rules of the database."],
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_is_altered_by_hand_is_named(forger: Forger, case: str) -> None:
    """Each row that is not as it was chained, in the order of the ledger; no other."""
    statements, sentences = CASES[case]
    await forger.run(*statements)
    assert [sentence.format(*forger.ids, node=NODE) for sentence in sentences] == await forger.faults()


async def test_a_chain_written_anew_is_shown_by_the_checkpoint_alone(forger: Forger) -> None:
    """With every hash recomputed the database is whole in itself, but not what was signed before."""
    known = await forger.checkpoint()
    await forger.run("UPDATE ledger SET output_tokens = 1 WHERE request_id = '{6}'")
    assert 1 == len(await forger.faults())
    await forger.rewrite()
    assert [] == await forger.faults()
    assert await forger.faults(known) == [WRITTEN_ANEW.format(node=NODE, made=known.made)]


async def test_a_chain_that_was_removed_is_shown_by_the_checkpoint_alone(forger: Forger) -> None:
    """With all of its rows, so that nothing of it is left to compare."""
    known = await forger.checkpoint()
    await forger.run(
        "DELETE FROM chain_batches WHERE NOT {links}",
        "DELETE FROM chains WHERE name = 'audit'",
        "DELETE FROM admin_audit",
    )
    assert [] == await forger.faults()
    (fault,) = await forger.faults(known)
    assert fault.startswith(
        f"The chain audit ends at link 0, and the checkpoint of {known.made} knows link 3:"
    )


async def test_an_end_that_was_cut_off_is_shown_by_the_checkpoint_alone(forger: Forger) -> None:
    """The last rows removed with their link: the rest fits, but it ends too early."""
    known = await forger.checkpoint()
    await forger.run(
        "DELETE FROM ledger WHERE request_id >= '{8}'",
        "DELETE FROM chain_batches WHERE number = 3 AND {links}",
    )
    assert [] == await forger.faults()
    assert await forger.faults(known) == [CUT_OFF.format(node=NODE, made=known.made)]


async def test_a_checkpoint_of_another_database_is_named(forger: Forger) -> None:
    """It says nothing of this one; the rows are still compared with the chains."""
    known = evolve(await forger.checkpoint(), database=uuid4())
    (fault,) = await forger.faults(known)
    assert fault.startswith(f"The checkpoint is of the database {known.database}, and this is ")


async def test_the_roots_of_dropped_days_stay(forger: Forger) -> None:
    """Rows and links of a day go by policy; its root is still that of the checkpoint, or is named."""
    early = datetime(2026, 11, 24, 23, tzinfo=UTC)
    await forger.rewrite(lambda link: evolve(link, at=early + timedelta(seconds=link.number)))
    await forger.owner.execute("SELECT close_chain_days()")
    known = await forger.checkpoint()
    await forger.owner.execute("DELETE FROM unpublished")
    async with Retention.opened(forger.database) as retention:
        await retention.keep(1, [])
    left = "SELECT DISTINCT c.name FROM chain_batches AS b JOIN chains AS c ON c.id = b.chain"
    assert ["audit"] == [row["name"] for row in await forger.owner.fetch(left)]
    assert [] == await forger.faults(known)
    await forger.run("UPDATE chain_days SET root = sha256(root) WHERE {links}")
    (fault,) = await forger.faults(known)
    assert "the root of a day whose rows are dropped was altered" in fault


async def test_rows_that_are_chained_late_are_compared_too(forger: Forger) -> None:
    """Long after the day of their ids: known, named if altered, and missed unless their day is dropped."""
    await forger.rewrite(lambda link: evolve(link, at=link.at + timedelta(days=30)))
    assert [] == await forger.faults()
    await forger.run("UPDATE ledger SET output_tokens = 1 WHERE request_id = '{5}'")
    altered = [(ALTERED % (5, 2)).format(*forger.ids, node=NODE)]
    assert altered == await forger.faults()
    await forger.run("DELETE FROM ledger WHERE request_id = '{6}'")
    missing = [(MISSING % (6, 2)).format(*forger.ids, node=NODE)]
    assert altered + missing == await forger.faults()
    await forger.run("UPDATE ledger_retention SET oldest_day = '2099-01-01'")
    assert altered == await forger.faults()


async def test_rows_of_one_statement_are_in_order_in_their_link(forger: Forger) -> None:
    """In whatever order it adds them: ids and hashes stand side by side."""
    await forger.owner.execute(
        """INSERT INTO ledger SELECT (jsonb_populate_record(l, '{"entry": 1}')).* FROM ledger AS l"""
        " ORDER BY request_id DESC"
    )
    assert [] == await forger.faults()
