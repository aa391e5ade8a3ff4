"""What was learned of models: shown, and learned anew when an operator wants it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from authz.__main__ import run
from authz.accounts.session import Session
from authz.admin.audit import audit
from authz.admin.learned import Forgotten, forget, learned
from authz.errors import CommandError
from tests.metering.conftest import Begin, Service
from tests.metering.writing import KEY, TENANT, JournalFile

OTHER, OTHERS_KEY = uuid4(), uuid4()
SLOW: dict[str, object] = {"output_tokens": 50, "deltas": 25, "text_bytes": 100, "eval_ms": 5000}
CUT: dict[str, object] = {"terminal": False, "output_tokens": None, "outcome": "client_gone"}


@pytest.fixture
async def taught(begin: Begin, journal: JournalFile) -> Service:
    """A service that has learned of two models, by two tenants."""
    service = await begin()
    for tenant, key, name in ((TENANT, KEY, "acme"), (OTHER, OTHERS_KEY, "zeta")):
        await service.ledger.execute("INSERT INTO tenants (id, name) VALUES ($1, $2)", tenant, name)
        await service.ledger.execute(
            "INSERT INTO keys (id, tenant_id, name) VALUES ($1, $2, 'laptop')", key, tenant
        )
        journal.tenant, journal.key = tenant, key
        for model in ("llama3.2", "qwen3:4b"):
            for _ in range(50):
                journal.request(**SLOW | {"model": model})
    journal.tenant, journal.key = TENANT, KEY
    await service.drain()
    return service


async def _frames(service: Service, journal: JournalFile, model: str) -> float:
    """By how many tokens a frame an answer of a model is counted that was cut."""
    request_id: UUID = journal.request(**CUT | {"model": model, "deltas": 5})
    await service.drain()
    row = next(row for row in await service.rows() if row["request_id"] == request_id)
    return float(row["output_tokens_per_delta"])


@pytest.mark.usefixtures("taught")
async def test_figures_are_shown(session: Session) -> None:
    """By model and tenant; of a tenant that is named by key too, of a model by any of its names."""
    found = await learned(session, model=None, tenant=None)
    assert [
        ("llama3.2:latest", "acme", None, 50, 2.0, 10.0),
        ("llama3.2:latest", "zeta", None, 50, 2.0, 10.0),
        ("qwen3:4b", "acme", None, 50, 2.0, 10.0),
        ("qwen3:4b", "zeta", None, 50, 2.0, 10.0),
    ] == [
        (row.model, row.tenant, row.key, row.answers, row.output_tokens_per_delta, row.output_tokens_per_s)
        for row in found
    ]
    assert {(None, 50.0)} == {(row.load_ms, row.answer_tokens) for row in found}
    found = await learned(session, model="LLAMA3.2", tenant="acme")
    assert [("llama3.2:latest", "acme", None), ("llama3.2:latest", "acme", "laptop")] == [
        (row.model, row.tenant, row.key) for row in found
    ]


async def test_figures_are_learned_anew(session: Session, taught: Service, journal: JournalFile) -> None:
    """A reset is in force for the next answer that is cut, for that model and tenant alone."""
    assert 1.5 < await _frames(taught, journal, "llama3.2")
    assert Forgotten(["llama3.2:latest"], 50) == await forget(session, model="Llama3.2", tenant="acme")
    assert 1.0 == await _frames(taught, journal, "llama3.2")
    assert 1.5 < await _frames(taught, journal, "qwen3:4b")
    assert ["zeta"] == [row.tenant for row in await learned(session, model="llama3.2", tenant=None)]
    assert Forgotten(["llama3.2:latest", "qwen3:4b"], 150) == await forget(session, model=None, tenant=None)
    assert [] == await learned(session, model=None, tenant=None)


@pytest.mark.usefixtures("taught")
async def test_a_reset_is_in_the_audit(session: Session) -> None:
    """Who reset what is known; a reset of nothing is one sentence and no event."""
    await forget(session, model="qwen3:4b", tenant="acme")
    for model, tenant, why in (
        ("qwen3:4b", "acme", "Nothing of this"),
        ("unknown", None, "Nothing of this"),
        (None, "unknown", "There is no tenant 'unknown'"),
    ):
        with pytest.raises(CommandError, match=why):
            await forget(session, model=model, tenant=tenant)
    events = await audit(session, since=datetime(2020, 1, 1, tzinfo=UTC))
    assert [("tester", "acme", {"models": ["qwen3:4b"], "answers": 50})] == [
        (event.actor, event.tenant, event.old) for event in events if event.action == "learned_figures_reset"
    ]


async def test_a_reset_waits_for_metering(
    session: Session, taught: Service, database: str, journal: JournalFile
) -> None:
    """While metering learns, a reset waits, and takes what was learned along."""
    metering = await asyncpg.connect(database)
    async with metering.transaction():
        await metering.execute("UPDATE learned_figures SET answers = 70 WHERE model = 'qwen3:4b'")
        resetting = asyncio.create_task(forget(session, model="qwen3:4b", tenant="zeta"))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'learned_figures'::regclass"
        async with asyncio.timeout(10):
            while not await metering.fetchval(waiting):
                await asyncio.sleep(0.01)
    assert Forgotten(["qwen3:4b"], 70) == await resetting
    await metering.close()
    assert 1.5 < await _frames(taught, journal, "llama3.2")


@pytest.mark.usefixtures("environ", "taught")
def test_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """A table without columns of nothing, JSON for programs, and one sentence for a reset."""
    assert 0 == run(["learned", "list"])
    table = capsys.readouterr().out
    assert "output tokens per s" in table
    assert "load ms" not in table
    assert 0 == run(["learned", "reset", "--model", "qwen3:4b"])
    assert "What 100 answers had shown of qwen3:4b is forgotten.\n" == capsys.readouterr().out
    assert 0 == run(["learned", "reset", "--json"])
    assert {"models": ["llama3.2:latest"], "answers": 100} == json.loads(capsys.readouterr().out)
    assert 0 == run(["learned", "list", "--json"])
    assert [] == json.loads(capsys.readouterr().out)
    assert 0 == run(["learned", "list"])
    assert "Nothing has been learned" in capsys.readouterr().out
    assert 1 == run(["learned", "reset"])
    assert "Nothing of this has been learned" in capsys.readouterr().err
