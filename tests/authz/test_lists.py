"""Lists come in pages that miss nothing and repeat nothing, whatever is added in between."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import asyncpg
import pytest
from cyclopts import App

from authz.__main__ import run
from authz.accounts.aliases import set_alias
from authz.accounts.keys import CreatedKey, create_key, list_keys, rotate_key
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant, list_tenants, set_tenant_state
from authz.admin import app
from authz.admin.audit import Event, audit
from authz.types import Identity
from metering.rows import Refused
from tests.authz.billing import Book, denied
from tests.authz.test_help import commands, function

LONG_AGO, LATER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2199, 1, 1, tzinfo=UTC)
BEHIND = re.compile(r"^There is more: go on with --after '?([^']+)'?\n$")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line, and returns its exit code, output and complaints."""

    def run_it(*arguments: str) -> tuple[int, str, str]:
        code = run([*arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run_it


def pages(command: Run, *arguments: str) -> list[list[object]]:
    """Each page of two rows of a list, to its end."""
    found: list[list[object]] = []
    after: list[str] = []
    while True:
        code, printed, noted = command(*arguments, "--json", "--limit", "2", *after)
        assert 0 == code, noted
        found.append(json.loads(printed))
        more = BEHIND.match(noted)
        if more is None:
            assert not noted
            return found
        after = ["--after", more[1]]


@pytest.fixture
async def much(session: Session, key: CreatedKey, owner_of_tables: asyncpg.Connection) -> None:
    """Five or more rows of each list."""
    for name in ("beta", "gamma", "delta", "zeta"):
        await create_tenant(session, name)
        await create_key(session, tenant="acme", name=name)
        await set_alias(session, f"claude-{name}", "demo", tenant="acme" if name == "zeta" else None)
    await set_alias(session, "a,b", "demo", tenant="acme")
    await rotate_key(session, key.prefix, grace_ends=LATER)
    await set_tenant_state(session, "gamma", "disabled")
    for _ in range(5):
        await owner_of_tables.execute(
            "INSERT INTO nodes (node, boot, eof_at) VALUES (gen_random_uuid(), gen_random_uuid(), now())"
        )
        await owner_of_tables.execute(
            "INSERT INTO alerts "
            "(name, subject, period, source, is_lasting, severity, value, summary, action, raised_at) "
            "VALUES ('n', gen_random_uuid(), 'p', 's', false, 'info', 0, 'x', 'y', now())"
        )


@pytest.mark.usefixtures("outside", "much")
@pytest.mark.parametrize(
    "arguments",
    [
        "list-tenants",
        "list-keys",
        "list-keys --tenant acme",
        "alias list",
        "audit",
        "node list",
        "alerts list",
    ],
)
def test_pages_are_the_whole_list(arguments: str, command: Run) -> None:
    """Page by page, each row stands once and in its place; a full last page is followed by nothing."""
    _, printed, noted = command(*arguments.split(), "--json")
    whole = json.loads(printed)
    assert not noted
    assert len(whole) > 4
    found = pages(command, *arguments.split())
    assert whole == [row for page in found for row in page]
    assert {2} == {len(page) for page in found[:-1]}
    assert 1 <= len(found[-1]) <= 2


async def test_what_is_added_moves_no_page(session: Session, key: CreatedKey) -> None:
    """A row that comes or goes between two pages is the only difference."""
    for name in ("beta", "delta"):
        await create_tenant(session, name)
        await create_key(session, tenant="acme", name=name)
    first = await list_keys(session, "acme", count=2)
    await create_key(session, tenant="acme", name="later")
    rest = await list_keys(session, "acme", after=first[-1].prefix, count=9)
    assert ["first", "beta", "delta", "later"] == [each.key for each in (*first, *rest)]
    tenants = await list_tenants(session, count=1)
    await create_tenant(session, "alpha")
    assert ["alpha", "beta", "delta"] == [
        each.tenant for each in await list_tenants(session, after=tenants[-1].tenant)
    ]


async def test_events_of_one_moment_are_told_apart(session: Session, book: Book, owner: Identity) -> None:
    """Changes of one transaction, refusals and counted refusals of one moment: each stands on one page."""
    now = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    await book.add(*(denied(owner, now) for _ in range(3)))
    await book.store.add_refusals(
        [Refused(now, None, None, ip_network(f"10.0.{n}.0/24"), "key_missing", 1) for n in range(3)]
    )
    whole = await audit(session, since=LONG_AGO)
    assert len({event.id for event in whole}) == len(whole)
    found: list[Event] = []
    while page := await audit(session, since=LONG_AGO, after=found[-1].id if found else None, count=1):
        found += page
    assert whole == found


@pytest.mark.usefixtures("outside", "much")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("list-tenants --in-state disabled", ["gamma"]),
        ("list-tenants --name be", ["beta"]),
        ("list-tenants --in-state active --name g", []),
        ("list-tenants --after gamma", ["zeta"]),
        ("list-keys --name first", ["acme", "acme"]),
        ("list-keys --tenant beta", []),
        ("alias list --tenant acme", ["acme", "acme"]),
        ("alerts list --tenant acme", []),
    ],
)
def test_a_filter_leaves_out_what_is_another_thing(arguments: str, expected: list[str], command: Run) -> None:
    """Only rows of the state, name or tenant that is asked for are listed."""
    assert expected == [row["tenant"] for row in json.loads(command(*arguments.split(), "--json")[1])]


@pytest.mark.usefixtures("outside", "key")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("list-tenants --limit 0", 2),
        ("audit --limit 100001", 2),
        ("audit --after x", 2),
        ("prompts list --after x", 2),
        ("dead-letters list --after x", 2),
        ("list-keys --after x", 2),
        ("list-keys --after nz_00000000", 1),
        ("alias list --after acme,nothing", 1),
        ("node list --after x", 1),
        ("list-backends --after x", 1),
    ],
)
def test_a_wrong_place_is_one_sentence(arguments: str, code: int, command: Run) -> None:
    """What names no row says so."""
    found, printed, complained = command(*arguments.split())
    assert (code, "") == (found, printed)
    assert 1 == complained.count("\n")


def test_every_list_has_pages() -> None:
    """What lists takes --limit and --after, whatever it lists, and --state is the stack's folder alone."""

    def names(path: tuple[str, ...]) -> list[str]:
        found: App = app
        for name in path:
            found = found[name]
        return [argument.name for argument in found.assemble_argument_collection()]

    listing = [path for path in commands(app) if function(path) and "list" in re.split("-", path[-1])]
    listing.append(("audit",))
    assert len(listing) > 10
    assert [] == [path for path in listing if not {"--limit", "--after"} <= set(names(path))]
    assert [] == [path for path in listing if names(path).count("--state") > 1]
