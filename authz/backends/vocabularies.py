"""Describe each model of the backends to Caddy: its vocabulary bounds how many tokens a prompt has."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import httpx
import structlog

from authz.backends import probe
from authz.backends.tables import DIGEST, Tables
from authz.models import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from authz.backends.inventory import Inventory, Seen

log = structlog.get_logger()

MOST_BYTES: Final = 128 << 20
"""Of a description; the largest in use have 30 MB."""
MOST_BYTES_IN_ALL: Final = 4 << 30
"""Of the folder, however many models there are: those beyond are not described, and cost a token a byte."""
TIMEOUT_S: Final = 30.0
LOOK_S: Final = 1.0
"""Between two looks at models and aliases: a bound by a new alias is not late for long."""
RETRY_S: Final = 60.0
"""Until a description that a backend did not give is asked for again."""


class Vocabularies:
    """Asks a backend once for each model that it has not described yet.

    Of all processes on one folder one does this, as long as it lives.
    """

    def __init__(
        self,
        inventory: Inventory,
        folder: Path,
        *,
        poll_s: float,
        aliases: Callable[[], Iterable[tuple[str, str]]] = tuple,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inventory = inventory
        self._tables = Tables(folder)
        self._poll_s = poll_s
        self._aliases = aliases
        self._now_s = now_s
        self._lock: int | None = None
        self._retry_at_s: dict[str, float] = {}

    async def run(self) -> None:
        """Keep the folder up to date until cancelled; what fails is tried again."""
        try:
            await self._inventory.looked(within_s=TIMEOUT_S)  # before, no model is known to be there
            while True:
                try:
                    await self.update()
                except OSError as error:
                    log.warning("authz.tables_unwritable", error=str(error))
                await asyncio.sleep(min(self._poll_s, LOOK_S))
        finally:
            if self._lock is not None:
                os.close(self._lock)

    async def update(self) -> None:
        """Describe what is new, and forget what was removed."""
        if not self._holds_folder():
            return
        having: dict[str, tuple[Seen, str]] = {}
        names: dict[str, tuple[str, ...]] = {}
        for seen in self._inventory.seen:
            for model in seen.models:
                if not DIGEST.fullmatch(model.digest):
                    continue
                name = canonical(model.name)
                names[name] = tuple(dict.fromkeys((*names.get(name, ()), model.digest)))
                if seen.is_live:
                    having.setdefault(model.digest, (seen, model.name))
        aliases: dict[str, tuple[str, ...]] = {}
        for alias, meant in self._aliases():
            digests = (*aliases.get(alias, ()), *names.get(canonical(meant), ()))
            aliases[alias] = tuple(dict.fromkeys(digests))
        self._tables.write_index(names, aliases)
        for digest, (seen, named) in having.items():
            if not self._tables.show(digest).exists() and self._retry_at_s.get(digest, 0) <= self._now_s():
                await self._describe(digest, seen, named)
                self._tables.write_index(names, aliases)
        if having:
            self._tables.forget_all_but({digest for digests in names.values() for digest in digests})

    def _holds_folder(self) -> bool:
        """Return whether this process is the one that fills the folder."""
        if self._lock is None:
            self._tables.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._tables.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    async def _describe(self, digest: str, seen: Seen, model: str) -> None:
        """Write down what a backend says of a model, whole or not at all."""
        attempt = self._tables.folder / f"{digest}.part"
        try:
            await self._download(attempt, seen, model)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            self._retry_at_s[digest] = self._now_s() + RETRY_S
            log.warning("authz.model_undescribed", model=model, backend=seen.backend.name, error=str(error))
            with suppress(FileNotFoundError):
                attempt.unlink()
            return
        attempt.rename(self._tables.show(digest))
        log.info("authz.model_described", model=model, backend=seen.backend.name)

    async def _download(self, path: Path, seen: Seen, model: str) -> None:
        sent = {"model": model, "verbose": True}
        async with (
            asyncio.timeout(TIMEOUT_S),
            probe.client(seen.backend) as client,
            client.stream("POST", "/api/show", json=sent, timeout=TIMEOUT_S) as response,
        ):
            response.raise_for_status()
            size, folder = 0, self._tables.size()
            with path.open("wb") as file:
                async for chunk in response.aiter_bytes():
                    size += len(chunk)
                    if size > MOST_BYTES:
                        raise ValueError(f"the description has more than {MOST_BYTES} bytes")
                    if folder + size > MOST_BYTES_IN_ALL:
                        raise ValueError(f"all models would have more than {MOST_BYTES_IN_ALL} bytes")
                    file.write(chunk)
