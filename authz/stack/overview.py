"""Describe a stack for `up --json` and `status --json`, one of `up` or one that others run."""

from __future__ import annotations

from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Final, Generic, TypeVar
from urllib.parse import urlsplit

from attrs import asdict, field, frozen

from authz.backends.tables import Tables
from authz.stack import backend_states, bill, journal, unix
from authz.stack.facts import is_alive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authz.backends.tables import Untabled
    from authz.settings import Settings
    from authz.stack.backend_states import BackendState
    from authz.stack.bill import Bill
    from authz.stack.facts import Facts
    from authz.stack.folder import StateFolder
    from authz.stack.journal import Journal

RUNNING: Final = "running"
STOPPED: Final = "stopped"

_PROBE_TIMEOUT_S: Final = 3.0

T = TypeVar("T")


@frozen(kw_only=True)
class Children(Generic[T]):
    """The same thing of each child; None where the stack has no such child of its own."""

    caddy: T | None
    authz: tuple[T, ...]
    metering: T | None
    postgres: T | None
    redis: T | None
    demo: T | None

    @classmethod
    def of(cls, things: Mapping[str, T]) -> Children[T]:
        """Sort things by the child's name."""
        return cls(
            caddy=things.get("caddy"),
            authz=tuple(thing for name, thing in things.items() if name.startswith("authz-")),
            metering=things.get("metering"),
            postgres=things.get("postgres"),
            redis=things.get("redis"),
            demo=things.get("demo"),
        )


@frozen(kw_only=True)
class Overview:
    """A stack for programs; `secret` is a new key's text, only in the output of the `up` that made it.

    Whoever else runs one knows its URL and processes.
    """

    url: str | None
    secret: str | None = field(repr=False)
    tenant: str | None
    folder: str
    control: str
    log: str
    pids: Children[int]


@frozen(kw_only=True)
class Status(Overview):
    """The same with the state of each child; `ready` is what /readyz says, `bill` what metering says.

    `journal` is what Caddy says, `backends` what authz does; prompts of `untabled` models are priced a token
    a byte.
    """

    ready: bool
    states: Children[str]
    bill: Bill | None
    journal: Journal | None
    backends: tuple[BackendState, ...] | None
    untabled: tuple[Untabled, ...]


def overview(folder: StateFolder, facts: Facts, *, secret: str | None = None) -> Overview:
    """Summarise a stack that has come up."""
    return Overview(
        url=facts.url,
        secret=secret,
        tenant=facts.tenant,
        folder=str(folder.path),
        control=str(folder.control),
        log=str(folder.journal),
        pids=Children.of({process.name: process.pid for process in facts.processes}),
    )


def describe(folder: StateFolder, facts: Facts) -> Status:
    """Ask the processes of a stack, and summarise its state."""
    states = {process.name: RUNNING if is_alive(process) else STOPPED for process in facts.processes}
    known = asdict(overview(folder, facts), recurse=False)
    billed = bill.ask(folder.metrics)  # first: the next question is a line of the journal itself
    return Status(
        **known,
        ready=is_alive(facts.supervisor) and _is_ready(facts.url),
        states=Children.of(states),
        bill=billed,
        journal=journal.ask(folder.control),
        backends=backend_states.ask(folder.authz_sockets(), folder.control),
        untabled=Tables(folder.tables).untabled(),
    )


def describe_services(settings: Settings) -> Status:
    """Summarise what containers or systemd run, by the sockets that these settings name."""
    run = settings.control.parent
    deciders = sorted(run.glob("authz-*.sock"))
    billed = bill.ask(settings.metrics)
    written = journal.ask(settings.control)
    parts = {"caddy": written is not None, "metering": billed is not None}
    parts |= {path.stem: unix.get(path, "/metrics") is not None for path in deciders}
    return Status(
        url=None,
        secret=None,
        tenant=None,
        folder=str(settings.state),
        control=str(settings.control),
        log=str(settings.journal),
        pids=Children.of({}),
        ready=written is not None and any(unix.get(path, "/readyz") is not None for path in deciders),
        states=Children.of({name: RUNNING if answers else STOPPED for name, answers in parts.items()}),
        bill=billed,
        journal=written,
        backends=backend_states.ask(deciders, settings.control),
        untabled=Tables(settings.tables).untabled(),
    )


def _is_ready(url: str) -> bool:
    # Not httpx, whose import takes longer than all the rest of this command.
    connection = HTTPConnection(urlsplit(url).netloc, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
