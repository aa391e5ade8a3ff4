"""Examine a whole deployment: gather every part's facts, then judge them."""

from __future__ import annotations

import asyncio
import os
import platform
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec

from authz import schema
from authz.backends.backend import Described
from authz.backends.rendered import Rendered
from authz.stack import bill, journal, unix
from authz.stack.doctor import clocks, edge, exposure, files, postgres, private_keys, record, redis, site
from authz.stack.doctor.files import Kind
from authz.stack.doctor.finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from pathlib import Path

    from authz.backends.backend import Backend
    from authz.settings import Settings
    from authz.stack.doctor.edge import Running
    from authz.stack.journal import Journal


async def examine(settings: Settings) -> list[Finding]:
    """Return what was found of every part, in the order in which a request meets them."""
    backends = Rendered(settings.snippets).load() or settings.backends
    written = journal.ask(settings.control)
    running = edge.gather(settings.control)
    return [
        ok(
            "version",
            f"neuronetz-gateway {version('neuronetz-gateway')} on Python {platform.python_version()}.",
        ),
        *edge.judge(running, settings.control),
        *await asyncio.to_thread(_of_sites, running),
        *_of_deciders(settings),
        *await _of_stores(settings),
        *record.judge_journal(written),
        *record.judge_bill(bill.ask(settings.metrics)),
        *files.judge(_entries(settings, written)),
        *private_keys.judge(await asyncio.to_thread(private_keys.gather, settings, os.environ)),
        *files.judge_disk(files.disk_of(_journal(settings, written).parent)),
        *await asyncio.to_thread(_of_backends, backends),
    ]


def deciders(settings: Settings) -> list[Path]:
    """Return the sockets of authz, which lie beside Caddy's."""
    return sorted(settings.control.parent.glob("authz-*.sock"))


def _of_sites(running: Running | None) -> list[Finding]:
    now = datetime.now(UTC)
    return [
        finding
        for each in (running.sites if running else ())
        if each.is_guarded
        for finding in site.judge(
            each, [site.gather(*name) for name in site.names(each)] if each.is_tls else [], now=now
        )
    ]


class _Backends(msgspec.Struct):
    backends: tuple[Described, ...]


def _of_deciders(settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    answers = {path: unix.get(path, "/backends") for path in deciders(settings)}
    for path, body in answers.items():
        if body is None:
            found.append(fail("authz", f"None answers at {path}: start it, its log says why it ended."))
            continue
        for backend in msgspec.json.decode(body, type=_Backends).backends:
            if not backend.is_live:
                found.append(
                    warn("authz", f"The backend {backend.name} does not answer {path.stem}: start it.")
                )
            elif path == next(iter(answers)):
                found.append(ok("authz", f"The backend {backend.name} is Ollama {backend.version}."))
    if not answers:
        folder = settings.control.parent
        return [
            fail("authz", f"There is no socket of authz in {folder}: start it, or check GATEWAY_CONTROL.")
        ]
    return found or [ok("authz", f"{len(answers)} processes answer.")]


async def _of_stores(settings: Settings) -> list[Finding]:
    """Judge both stores together: nodes and clocks are seen in both."""
    now = datetime.now(UTC)
    store = await postgres.gather(settings.database_url)
    nodes = () if isinstance(store, str) else store.nodes
    counters = await redis.gather(settings.redis_url, [node.id for node in nodes])
    read = [clocks.HERE]
    found: list[Finding] = []
    if isinstance(store, str):
        found.append(fail(postgres.CHECK, store))
    else:
        count = len(deciders(settings))
        found += postgres.judge(store, deciders=count, known=schema.known(), now=now)
        read.append(store.clock)
    found += redis.judge(counters)
    if not isinstance(counters, str):
        read += counters.clocks
        if not isinstance(store, str):
            of_redis = now + timedelta(seconds=min(clock.ahead_s for clock in counters.clocks))
            found += record.judge_nodes(nodes, counters.lags_ms, now=of_redis)
    return found + clocks.judge(read)


def _journal(settings: Settings, written: Journal | None) -> Path:
    return type(settings.journal)(written.path) if written and written.path else settings.journal


def _entries(settings: Settings, written: Journal | None) -> list[files.Entry]:
    secrets = [settings.pepper_file, *sorted(settings.snippets.glob("*.credential"))]
    sockets = [settings.control, *deciders(settings)]
    return [
        *(files.gather(path, Kind.PRIVATE) for path in secrets),
        files.gather(_journal(settings, written).parent, Kind.FOLDER),
        *(files.gather(path, Kind.SOCKET) for path in sockets),
    ]


def _of_backends(backends: tuple[Backend, ...]) -> list[Finding]:
    return exposure.judge([exposure.gather(backend) for backend in backends])
