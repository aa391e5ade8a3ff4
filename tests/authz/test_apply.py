"""The command `apply`: what a file says becomes so, all of it or nothing, and the difference is printed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from io import BytesIO, TextIOWrapper
from pathlib import Path
from stat import S_IMODE

import asyncpg
import pytest

from authz.__main__ import run
from authz.accounts.keys import CreatedKey, create_key, list_keys, set_key_state
from authz.accounts.limits import set_key_limits, set_tenant_limits
from authz.accounts.session import Session
from authz.admin import tenants_file
from authz.admin.apply import apply
from authz.admin.limit_options import LimitOptions
from authz.admin.tenants_file import TenantsFile
from authz.errors import CommandError
from tests.authz.asking import Guard, reason
from tests.redis_cluster import client

NOW = datetime(2026, 11, 1, tzinfo=UTC)

WHOLE = """
tenants:
  acme:
    timezone: Europe/Berlin
    state: active
    rpm: 600
    tpm: 90000
    concurrency: 8
    tokens-per-day: 1000000
    tokens-per-month: 20000000
    tokens-total: 900000000
    allow: [num_ctx<=32768, keep_alive<=30m, "stop<=8"]
    deadline: 5m
    priority: batch
    weight: 3
    details: shown
    end-users: kept
    keys:
      first:
        state: disabled
        rpm: 60
        models: [llama3.2, "qwen3:*"]
        cidr: 10.0.0.0/8
        expires: 2199-12-31
        max-output: 500
        log-prompts: 7d
        priority: interactive
        in-path: allowed
      second:
    aliases:
      claude-*: qwen3:32b
  zeta:
aliases:
  gpt-4o: llama3.3:70b
"""
DIFFERENCE = [
    "tenant acme: rpm none -> 600",
    "tenant acme: tpm none -> 90000",
    "tenant acme: concurrency none -> 8",
    "tenant acme: tokens-per-day none -> 1000000",
    "tenant acme: tokens-per-month none -> 20000000",
    "tenant acme: tokens-total none -> 900000000",
    "tenant acme: allow num_ctx none -> 32768",
    "tenant acme: allow keep_alive none -> 30m",
    "tenant acme: allow stop none -> 8",
    "tenant acme: deadline none -> 5m",
    "tenant acme: priority none -> batch",
    "tenant acme: weight none -> 3",
    "tenant acme: details none -> shown",
    "tenant acme: end-users none -> kept",
    "tenant acme: timezone UTC -> Europe/Berlin",
    "tenant acme, key first: rpm none -> 60",
    "tenant acme, key first: models none -> llama3.2,qwen3:*",
    "tenant acme, key first: cidr none -> 10.0.0.0/8",
    "tenant acme, key first: expires none -> 2199-12-31T00:00:00Z",
    "tenant acme, key first: max-output none -> 500",
    "tenant acme, key first: log-prompts none -> 7d",
    "tenant acme, key first: priority none -> interactive",
    "tenant acme, key first: in-path none -> allowed",
    "tenant acme, key first: state active -> disabled",
    "tenant acme, key second: created",
    "tenant acme, alias claude-*: model none -> qwen3:32b",
    "tenant zeta: created",
    "tenant zeta: timezone none -> UTC",
    "alias gpt-4o: model none -> llama3.3:70b",
]


def parsed(text: str) -> TenantsFile:
    """What a text says."""
    return tenants_file.parse(text.encode(), "f.yaml")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a file of tenants may lie."""
    return tmp_path / "tenants.yaml"


async def content(owner: asyncpg.Connection) -> dict[str, list[str]]:
    """All rows that a command could change."""
    found = {}
    for table in ("tenants", "keys", "secrets", "aliases", "admin_audit"):
        rows = await owner.fetch(f"SELECT to_jsonb(t)::text AS text FROM {table} AS t")  # noqa: S608
        found[table] = [row["text"] for row in rows]
    return found


async def names(redis_url: str) -> list[bytes]:
    """What is in Redis."""
    async with client(redis_url) as redis:
        return sorted([name async for name in redis.scan_iter("*")])


async def test_the_difference_is_made_once(
    session: Session, key: CreatedKey, owner_of_tables: asyncpg.Connection, tmp_path: Path
) -> None:
    """Each field of the file becomes so and is named with its old value; again, nothing is changed."""
    made = await apply(session, parsed(WHOLE), now=NOW, new_keys=tmp_path / "new")
    assert sorted(DIFFERENCE) == sorted(change.sentence for change in made)
    before = await content(owner_of_tables)
    assert [] == await apply(session, parsed(WHOLE), now=NOW)
    assert before == await content(owner_of_tables)
    first, second = await list_keys(session, "acme")
    assert ("disabled", ["llama3.2", "qwen3:*"], 500) == (first.state, first.models, first.max_output)
    assert ("second", "active") == (second.key, second.state)


async def test_a_dry_run_changes_nothing(
    session: Session, key: CreatedKey, owner_of_tables: asyncpg.Connection, redis_url: str, tmp_path: Path
) -> None:
    """It finds the same difference, and leaves Postgres, Redis and the folder of new keys as they were."""
    before, known = await content(owner_of_tables), await names(redis_url)
    found = await apply(session, parsed(WHOLE), now=NOW, new_keys=tmp_path / "new", is_dry_run=True)
    assert sorted(DIFFERENCE) == sorted(change.sentence for change in found)
    assert (before, known) == (await content(owner_of_tables), await names(redis_url))
    assert not (tmp_path / "new").exists()


async def test_what_the_file_does_not_name_stays(session: Session, key: CreatedKey, tmp_path: Path) -> None:
    """A tenant, key, alias or limit that is left out is as it was; `none` takes a limit away."""
    await apply(session, parsed(WHOLE), now=NOW, new_keys=tmp_path / "new")
    less = "tenants: {acme: {tokens-per-day: none, weight: none, keys: {first: {models: none}}}}"
    assert [
        "tenant acme: tokens-per-day 1000000 -> none",
        "tenant acme: weight 3 -> none",
        "tenant acme, key first: models llama3.2,qwen3:* -> none",
    ] == [change.sentence for change in await apply(session, parsed(less), now=NOW)]
    assert sorted(
        change.sentence.replace("none ->", "->") for change in await apply(session, parsed(WHOLE), now=NOW)
    ) == [
        "tenant acme, key first: models -> llama3.2,qwen3:*",
        "tenant acme: tokens-per-day -> 1000000",
        "tenant acme: weight -> 3",
    ]


async def test_it_is_in_force_when_it_returns(guard: Guard, session: Session) -> None:
    """The next request is held to what the file says."""
    assert 204 == (await guard.ask()).status_code
    await apply(session, parsed("tenants: {acme: {keys: {first: {rpm: 1}}}}"), now=NOW)
    assert [204, 429] == [(await guard.ask()).status_code for _ in range(2)]
    await apply(session, parsed("tenants: {acme: {state: disabled}}"), now=NOW)
    assert "tenant_disabled" == reason(await guard.ask())


async def test_it_is_audited_as_the_commands_are(
    session: Session, key: CreatedKey, owner_of_tables: asyncpg.Connection
) -> None:
    """A limit that a file sets is the same row as one that set-limits has set, with what was before."""
    query = """
        SELECT actor, action, tenant_id, key_id, old::text, new::text
        FROM admin_audit
        ORDER BY id DESC
        LIMIT 2
    """
    five, none = LimitOptions(rpm="5").applied, LimitOptions(rpm="none").applied
    rows = []
    for limits in (five, none):
        await set_tenant_limits(session, "acme", limits=limits)
        await set_key_limits(session, key.prefix, limits=limits)
        rows.append(await owner_of_tables.fetch(query))
    await apply(session, parsed("tenants: {acme: {rpm: 5, keys: {first: {rpm: 5}}}}"), now=NOW)
    assert rows[0] == await owner_of_tables.fetch(query)


async def test_two_at_once_wait_for_each_other(session: Session, key: CreatedKey) -> None:
    """Files that name the same in another order, and set-limits beside them, all come to an end."""
    await create_key(session, tenant="acme", name="second")
    texts = [
        "tenants: {acme: {rpm: 7, keys: {first: {rpm: 1}, second: {rpm: 2}}}, zeta: {rpm: 3}}",
        "tenants: {zeta: {rpm: 3}, acme: {keys: {second: {rpm: 2}, first: {rpm: 1}}, rpm: 7}}",
    ]
    await apply(session, parsed("tenants: {zeta: }"), now=NOW)
    await asyncio.gather(
        *(apply(session, parsed(text), now=NOW) for text in texts * 4),
        *(set_key_limits(session, key.prefix, limits=LimitOptions(tpm=f"{n}").applied) for n in range(1, 9)),
    )
    assert [] == await apply(session, parsed(texts[0]), now=NOW)


@pytest.mark.usefixtures("outside", "key")
def test_the_command_prints_no_secret(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """C3: the secret of a new key lies in a file of its own that only its owner reads, and nowhere else."""
    path.write_text(WHOLE)
    new = path.with_name("new")
    assert 0 == run(["apply", "--file", str(path), "--new-keys", str(new), "--dry-run"])
    assert "Nothing was changed: this was a dry run." in capsys.readouterr().out
    assert 0 == run(["apply", "-f", str(path), "--new-keys", str(new), "--json"])
    printed = capsys.readouterr()
    changes = json.loads(printed.out)["changes"]
    assert {"tenant", "key", "alias", "field", "old", "new"} == set(changes[0])
    (made,) = [each for each in new.rglob("*") if each.is_file()]
    assert (new / "acme" / "second", 0o600) == (made, S_IMODE(made.stat().st_mode))
    secret = made.read_text().strip()
    assert secret.startswith("nz_")
    assert secret[11:] not in printed.out + printed.err
    assert 0 == run(["apply", "-f", str(path)])
    assert "Everything is as the file says." in capsys.readouterr().out


@pytest.mark.usefixtures("outside", "key")
def test_a_file_comes_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """- is standard input."""
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"tenants: {acme: {rpm: 5}}")))
    assert 0 == run(["apply", "-f", "-"])
    assert "tenant acme: rpm none -> 5\n" == capsys.readouterr().out


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("{acme: {rpm: 5, keys: {third: }}}", ["key third: it does not exist: add --new-keys DIR"]),
        ("{acme: {keys: {ended: {rpm: 5}}}}", ["key ended: it is revoked for good"]),
        (
            "{acme: {tokens-per-day: 101}}",
            ["tenant acme: tokens-per-day 101 lies above tokens-per-month 100"],
        ),
        ("{new: {rpm: 5}, Wrong: }", ["tenant Wrong: The tenant name 'Wrong' can't be used"]),
        (
            "{acme: {rpm: 5, aliases: {'a b': demo, c: 'd*'}}}",
            ["alias a b: 'a b' can't be", "alias c: 'd*' is no"],
        ),
    ],
)
async def test_what_can_not_be_done_leaves_all_as_it_was(
    session: Session,
    key: CreatedKey,
    owner_of_tables: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    sentences: list[str],
) -> None:
    """One sentence for each thing that can't be done; what could have been is not done either."""
    ended = await create_key(session, tenant="acme", name="ended")
    await set_key_state(session, ended.prefix, "revoked")
    await set_tenant_limits(session, "acme", limits=LimitOptions(tokens_per_month="100").applied)
    before = await content(owner_of_tables)
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(f"tenants: {text}".encode())))
    assert 1 == await asyncio.to_thread(run, ["apply", "-f", "-"])
    complained = capsys.readouterr().err.splitlines()
    assert len(sentences) == len(complained)
    assert all(sentence in line for sentence, line in zip(sentences, complained, strict=True))
    assert before == await content(owner_of_tables)


async def test_a_secret_that_can_not_be_kept_makes_no_key(
    session: Session, key: CreatedKey, owner_of_tables: asyncpg.Connection, path: Path
) -> None:
    """A file that is there is not written over; no key is made, and no other file is left."""
    before = await content(owner_of_tables)
    (path.parent / "new" / "acme").mkdir(parents=True)
    (path.parent / "new" / "acme" / "b").write_text("precious")
    text = "tenants: {acme: {keys: {a: , b: }}}"
    with pytest.raises(CommandError, match="new/acme/b"):
        await apply(session, parsed(text), now=NOW, new_keys=path.parent / "new")
    assert before == await content(owner_of_tables)
    assert ["precious"] == [each.read_text() for each in (path.parent / "new").rglob("*") if each.is_file()]
