"""Every command: what it changes is in the audit with what was and is, and nothing where nothing changed."""

from __future__ import annotations

import asyncio
import os
import pwd
from datetime import datetime
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from authz.__main__ import run
from authz.accounts.session import system_user
from authz.accounts.vault import PrivateKeys
from authz.store import Store
from authz.types import Identity
from tests.authz.asking import NODE
from tests.authz.audited import Operator, command_of, functions, state_of, taking
from tests.authz.billing import START, Book, served
from tests.authz.conftest import known
from tests.authz.test_prompts import PAIR, Prompts

ELSEWHERE: Final = {
    "doctor": "tests/up/test_prove.py",
    "restore": "tests/up/test_backup.py",
    "streams kill": "tests/up/test_audit.py",
}
"""Commands that change something and need more than the stores."""

STORELESS: Final = frozenset(
    {
        "up",
        "down",
        "status",
        "logs",
        "init",
        "systemd",
        "settings",
        "migrate",
        "add-backend",
        "remove-backend",
        "list-backends",
        "probe-ollama",
        "wire-multi-backend",
        "render",
        "connect",
        "audit keygen",
        "audit checkpoint",
        "audit prove",
    }
)
"""Commands about files and processes, which operators may change by hand as well, and about the schema."""

READING: Final = (
    "list-tenants",
    "list-keys --tenant acme",
    "show-limits --tenant acme",
    "usage --by model,end-user,day",
    "usage export",
    "usage statement --tenant acme --month 2026-11",
    "audit",
    "audit verify",
    "alerts list",
    "alerts test",
    "alias list",
    "streams list",
    "dead-letters list",
    "learned list",
    "prompts list",
    "node list",
)
"""A line of each command that only reads what the stores have."""


@pytest.fixture
def operator(
    outside: None, owner_of_tables: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> Operator:
    """An operator at a command line on stores of this test alone."""
    return Operator(owner_of_tables, capsys)


LIMITS = "--rpm 5 --tpm 900 --concurrency 2 --tokens-per-day 10 --tokens-per-month 20 --tokens-total 30"
POLICY = (
    "--allow num_ctx<=4096 --allow keep_alive<=30m --allow num_gpu<=9 --allow stop<=8 --allow images<=4 "
    "--allow inputs<=7 --allow schema_bytes<=65536 --allow logprobs<=5 --deadline 5m --priority batch "
    "--weight 3 --details shown --end-users kept"
)
SCOPE = "--models demo*,qwen3:8b --cidr 10.0.0.0/8 --expires 2199-01-01 --max-output 50 --log-prompts 7d"
LIFTED = (
    "--rpm none --tpm none --concurrency none --tokens-per-day none --tokens-per-month none "
    "--tokens-total none --allow num_ctx=none --deadline none --priority none --weight 0 --details none "
    "--end-users none"
)
OPEN = "--models none --cidr none --expires none --max-output none --log-prompts none"


async def tenants_and_keys(operator: Operator, store: Store) -> str:
    """Change a tenant and a key in every way; returns the key's prefix."""
    does, leaves = operator.does, operator.leaves
    await does(f"create-tenant --name acme --timezone Europe/Berlin {LIMITS} {POLICY}", "tenant_created")
    await leaves("create-tenant --name acme", code=1)
    await leaves(f"set-limits --tenant acme --timezone Europe/Berlin {LIMITS} {POLICY}")
    await does(f"set-limits --tenant acme --timezone UTC {LIFTED}", "limits_set")
    await leaves(f"set-limits --tenant acme --timezone UTC {LIFTED}")
    made = await does(f"create-key --tenant acme --name first {LIMITS} {SCOPE} {POLICY}", "key_created")
    prefix: str = made.said["prefix"]
    key = f"--prefix {prefix}"
    assert prefix == made.new["prefix"]
    await leaves(f"set-limits {key} {LIMITS} {SCOPE} {POLICY}")
    await does(f"set-limits {key} {LIFTED} {OPEN}", "limits_set")
    await leaves(f"set-limits {key} {LIFTED} {OPEN}")
    await does(f"set-limits {key} {SCOPE}", "limits_set")
    identity = await known(store, prefix)
    assert (2, 3) == (identity.tenant_version, identity.key_version)
    for line, action in (
        (f"disable-key {key}", "key_disabled"),
        (f"enable-key {key}", "key_enabled"),
        ("disable-tenant --tenant acme", "tenant_disabled"),
        ("enable-tenant --tenant acme", "tenant_enabled"),
    ):
        change = await does(line, action)
        assert {"state"} == set(change.old) == set(change.new)
        await leaves(line)
    return prefix


async def secrets(operator: Operator, prefix: str) -> None:
    """Rotate a key and end what it had: the audit has each secret's end, and never a secret."""
    key = f"--prefix {prefix}"
    rotated = await operator.does(f"rotate-key {key} --grace 24h", "key_rotated")
    assert {"secrets": {prefix: None}} == rotated.old
    ended = await operator.does(f"revoke-secret {key}", "secret_revoked")
    assert rotated.new["secrets"] == ended.old["secrets"]
    rows = await operator.owner.fetch("SELECT lookup, expires_at FROM secrets")
    ends = {row["lookup"]: row["expires_at"] for row in rows}
    assert {of: end and datetime.fromisoformat(end) for of, end in ended.new["secrets"].items()} == ends
    await operator.leaves(f"revoke-secret {key}")
    await operator.does(f"revoke-key {key}", "key_revoked")
    await operator.leaves(f"revoke-key {key}")
    for line in ("enable-key", "disable-key", "rotate-key"):
        await operator.leaves(f"{line} {key}", code=1)
    audit = "".join((await state_of(operator.owner)).tables["admin_audit"])
    assert rotated.said["prefix"] in audit
    assert rotated.said["secret"][11:] not in audit


async def a_file(operator: Operator, path: Path) -> None:
    """Bring a tenant to what a file says: each difference is an event as of its own command."""
    await asyncio.to_thread(path.write_text, "tenants: {acme: {rpm: 7}}")
    await operator.leaves(f"apply --file {path} --dry-run")
    await operator.does(f"apply --file {path}", "limits_set")
    await operator.leaves(f"apply --file {path}")


async def aliases(operator: Operator) -> None:
    """Let a name mean one model, another one and none."""
    for model in ("demo", "qwen3:8b"):
        await operator.does(f"alias set claude-* {model} --tenant acme", "alias_set")
        await operator.leaves(f"alias set claude-* {model} --tenant acme")
    removed = await operator.does("alias remove claude-* --tenant acme", "alias_removed")
    assert {"alias": "claude-*", "model": "qwen3:8b"} == removed.old
    await operator.leaves("alias remove claude-* --tenant acme", code=1)


async def the_bill(operator: Operator, book: Book, owner: Identity) -> None:
    """Correct the bill, and all by which it comes about."""
    does, leaves, execute = operator.does, operator.leaves, operator.owner.execute
    row = served(owner, START, day=START.date(), month=START.date().replace(day=1))
    await book.settle(row)
    credit = f"usage credit --request {row.request_id} --tokens 5 --reason cut"
    assert 5 == (await does(credit, "usage_credited")).new["tokens"]
    await leaves(credit, code=1)
    await execute("INSERT INTO nodes (node, boot) VALUES ($1, $1)", NODE)
    await does(f"node retire {NODE}", "node_retired")
    await leaves(f"node retire {NODE}", code=1)
    await execute(
        "INSERT INTO dead_letters (node, fingerprint, generation, position, length, sha256, reason, raw) "
        "VALUES ($1, '', 1, 1, 1, '', 'not_json', 'x')",
        NODE,
    )
    replay = "dead-letters replay --wait-s 0"  # which metering would do
    assert [1] == (await does(replay, "dead_letters_replayed", code=1)).new["letters"]
    await leaves(replay, code=1)
    await execute(
        "INSERT INTO learned_figures SELECT (jsonb_populate_record(NULL::learned_figures, "
        "(SELECT jsonb_object_agg(column_name, 7) FROM information_schema.columns "
        "WHERE table_name = 'learned_figures' AND is_nullable = 'NO') "
        "|| jsonb_build_object('model', 'demo:latest', 'scope_id', $1::text, 'tenant_id', $1::text))).*",
        str(owner.tenant),
    )
    await does("learned reset --model demo", "learned_figures_reset")
    await leaves("learned reset --model demo", code=1)


async def prompts(operator: Operator, owner: Identity, folder: Path) -> None:
    """Open and erase a prompt, and change the keys of the vault."""
    does, leaves = operator.does, operator.leaves
    PrivateKeys((PAIR,)).write(folder / "old", is_new=True)
    kept = await Prompts(operator.owner, owner.tenant, owner.key).keep(
        (0, 0, 1, b"ask"), (1, 0, 1, b"answer")
    )
    await does(f"prompts show {kept} --private-key {folder / 'old'}", "prompt_opened")
    await does("prompts erase --tenant acme", "prompts_erased")
    await leaves(f"prompts show {kept} --private-key {folder / 'old'}", code=1)
    vault = f"--private-key {folder / 'new'}"
    first = await does(f"vault init {vault}", "vault_key_changed")
    await leaves(f"vault init {vault}", code=1)
    assert first.new == (await does(f"vault rotate {vault}", "vault_key_changed")).old


async def test_every_command(
    operator: Operator, book: Book, store: Store, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What a command changes is one event with actor, old and new; without a change nothing is written."""
    prefix = await tenants_and_keys(operator, store)
    owner = await known(store, prefix)
    await a_file(operator, tmp_path / "tenants.yaml")
    await aliases(operator)
    await the_bill(operator, book, owner)
    await prompts(operator, owner, tmp_path_factory.mktemp("away"))
    await operator.does(f"backup --to {tmp_path / 'backup'}", "backup_made")
    for line in READING:
        await operator.leaves(line, code=int(line in {"alerts test", "streams list"}))
    await secrets(operator, prefix)
    erased = await operator.does("tenant erase acme", "tenant_erased")
    assert 1 == erased.new["keys"]
    name = f"erased-{owner.tenant.hex}"
    await operator.run(f"tenant erase {name}", code=0)
    await operator.leaves(f"enable-tenant --tenant {name}", code=1)
    assert 1 == sum("tenant_erased" in row for row in (await state_of(operator.owner)).tables["admin_audit"])
    assert {" ".join(path) for path in functions()} == operator.walked | set(ELSEWHERE) | STORELESS


def test_what_changes_something_takes_an_actor() -> None:
    """A command is in the list of what it does by the options that it takes."""
    reading = {command_of(line) for line in READING}
    assert set(ELSEWHERE) <= set(taking("ChangeOptions"))
    assert not (STORELESS | reading) & set(taking("ChangeOptions"))
    assert set(taking("Options")) | set(taking("ListOptions")) <= STORELESS | reading


@pytest.mark.parametrize(
    "actor", ["", " ", " carol", "a\nb", "\x1b[2J", "\udcff", "x" * 129, f"nz_{'a' * 46}"]
)
@pytest.mark.usefixtures("outside")
def test_an_actor_is_a_name(actor: str, capsys: pytest.CaptureFixture[str]) -> None:
    """C3: What can't be one, and a pasted key, is refused in one sentence."""
    assert 2 == run(["create-tenant", "--name", "acme", "--actor", actor])
    said = capsys.readouterr().err
    assert "--actor must say who" in said
    assert 1 == said.count("\n")


def test_the_system_user_is_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who logged in is who asks, else whose the process is; no variable counts, and no name is no failure."""
    for variable in ("USER", "LOGNAME", "SUDO_USER"):
        monkeypatch.setenv(variable, "mallory")

    def no_login() -> str:
        raise OSError

    own = pwd.getpwuid(os.geteuid()).pw_name
    assert own == system_user(login=no_login)
    assert "alice" == system_user(login=lambda: "alice")
    assert "uid 4242424" == system_user(login=no_login, process=lambda: 4242424)
    assert f"uid {os.geteuid()}" == system_user(login=lambda: "a\nb")
    assert "mallory" != system_user()
