"""What commands print for programs: all have it, and call a thing by one name."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from attrs import define, field, fields

from authz.accounts.aliases import Alias
from authz.accounts.prompts import KeptPrompt
from authz.admin import app
from authz.admin.learned import Learned
from authz.admin.streams import Row
from authz.alerts.book import Listed
from authz.backends.tables import Untabled
from authz.store import Store
from tests.authz import test_audited as audited
from tests.authz.audited import Operator, command_of, functions
from tests.authz.billing import Book
from tests.authz.conftest import known
from tests.authz.json_names import ELSEWHERE, MEANINGS, names_of
from tests.authz.receiver import receiving
from tests.gateway import Gateway

WITHOUT: Final = {
    "usage export": "it has --format, with JSON lines among its values",
    "audit prove": "its answer is JSON in any case",
}
"""Commands without --json, and why."""

LISTS: Final = {
    "alerts list": Listed,
    "alias list": Alias,
    "learned list": Learned,
    "prompts list": KeptPrompt,
    "streams list": Row,
    "status": Untabled,
}
"""The rows of lists that may be empty here."""


def test_every_command_has_json() -> None:
    """Each command has --json, but for those that have another way to be read by programs."""
    without = set()
    for path in functions():
        command = app
        for name in path:
            command = command[name]
        options = {name for each in command.assemble_argument_collection() for name in each.names}
        if "--json" not in options:
            without.add(" ".join(path))
    assert WITHOUT.keys() == without


@define
class Recorder(Operator):
    """Has every command print JSON, and keeps the names of its fields."""

    names: dict[str, set[str]] = field(factory=dict)

    async def run(self, line: str, *, code: int) -> str:
        """Run a line; returns what it prints."""
        command = command_of(line)
        if command in WITHOUT:
            return await Operator.run(self, line, code=code)
        printed = await Operator.run(self, line if "--json" in line else f"{line} --json", code=code)
        self.note(command, printed)
        return printed

    def note(self, command: str, printed: str) -> None:
        """Keep the names of what a command has printed, if anything."""
        for line in printed.splitlines():
            self.names.setdefault(command, set()).update(names_of(json.loads(line)))


@pytest.fixture
def recorder(
    outside: None, owner_of_tables: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> Recorder:
    """An operator at a command line on stores of this test alone."""
    return Recorder(owner_of_tables, capsys)


async def files(recorder: Recorder, folder: Path) -> None:
    """Run the commands about files."""
    for line in (
        f"init --write-env {folder}/.env",
        "systemd --caddy /opt/caddy",
        f"settings --env {folder}/.env",
        "migrate",
        "add-backend gpu http://127.0.0.1:9 --no-validate --dry-run",
        "remove-backend default --dry-run",
        "list-backends",
        f"render --state {folder}",
        f"audit keygen --to {folder}/checkpoints",
        f"audit checkpoint --key {folder}/checkpoints",
    ):
        await recorder.run(line, code=0)
    await recorder.run("probe-ollama", code=1)


def stack(recorder: Recorder, gateway: Gateway) -> None:
    """Run the commands about what runs."""
    for line in ("status", "logs", "doctor", "streams list", "alerts list", "node list"):
        done = gateway.run(*line.split(), "--json")
        assert "" == done.stderr
        recorder.note(line, done.stdout)


async def test_one_name_for_a_thing(
    recorder: Recorder,
    book: Book,
    store: Store,
    gateway: Gateway,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each field of each command stands in one list of names with what they mean, which has no other."""
    away = tmp_path_factory.mktemp("away")
    prefix = await audited.tenants_and_keys(recorder, store)
    owner = await known(store, prefix)
    await audited.a_file(recorder, tmp_path / "tenants.yaml")
    await audited.aliases(recorder)
    await audited.the_bill(recorder, book, owner)
    await audited.prompts(recorder, owner, away)
    await recorder.run(f"backup --to {tmp_path / 'backup'}", code=0)
    for line in audited.READING:
        await recorder.run(line, code=int(line in {"alerts test", "streams list"}))
    await audited.secrets(recorder, prefix)
    await recorder.run("tenant erase acme", code=0)
    (tmp_path / "backends.d").mkdir()
    monkeypatch.setenv("GATEWAY_BACKENDS", str(tmp_path / "backends.d"))
    monkeypatch.setenv("OLLAMA_URL", "http://127.0.0.1:9")
    await files(recorder, away)
    await asyncio.to_thread(stack, recorder, gateway)
    with receiving() as receiver:
        monkeypatch.setenv("GATEWAY_ALERT_URL", receiver.url)
        await recorder.run("alerts test", code=0)
    assert {
        " ".join(path) for path in functions()
    } - WITHOUT.keys() == recorder.names.keys() | ELSEWHERE.keys()
    rows = ({each.name for each in fields(row)} for row in LISTS.values())
    assert MEANINGS.keys() == set().union(*recorder.names.values(), *ELSEWHERE.values(), *rows)
