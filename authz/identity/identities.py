"""Resolve a secret to its tenant and key: by its keyed tag, in this process's cache, else in Postgres.

The cache holds the identity of a secret, never what it may do right now: every admission compares versions
with Redis. Argon2id runs behind the request, once per secret and process; a wrong secret never costs one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import structlog
from attrs import evolve

from authz.identity import secrets
from authz.identity.handles import Handles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from authz.identity.secrets import Peppers
    from authz.store import Store
    from authz.types import Identity

log = structlog.get_logger()

CACHED: Final = 50_000
LOADING: Final = 2
"""Secrets of known handles looked up at a time: other connections stay free for reloads and rebuilds."""
ROWS: Final = 1_000
ROW_S: Final = 1.0
"""A row is read once a second at most, however many secrets are tried for its handle."""
PROVING: Final = 2
"""Argon2id runs at a time: it is bound by memory bandwidth, more are not faster."""
PROOFS: Final = 1024
"""Keys that may wait for their proof, about 30 s of work; beyond that a key is not cached yet."""


class Identities:
    """The identities of secrets: a cache of this process in front of Postgres."""

    def __init__(self, store: Store, peppers: Peppers, *, now_s: Callable[[], float]) -> None:
        self._store = store
        self._peppers = peppers
        self._now_s = now_s
        self.handles = Handles(store, now_s=now_s)
        self._known: OrderedDict[bytes, Identity] = OrderedDict()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._rows: OrderedDict[str, tuple[float, Identity]] = OrderedDict()
        """The identities by handle, as Postgres had them, with when it was asked."""
        self._loading = asyncio.Semaphore(LOADING)
        self._trying = asyncio.Semaphore(1)
        self._proving = asyncio.Semaphore(PROVING)
        self._proofs: dict[bytes, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._known)

    @property
    def proving(self) -> int:
        """Return how many keys run through their proof or wait for it."""
        return len(self._proofs)

    def known(self, secret: str) -> Identity | None:
        """Return the identity of a secret, if this process has it cached."""
        for pepper in self._peppers.alive:
            tag = pepper.tag(secret)
            if tag in self._known:
                self._known.move_to_end(tag)
                return self._known[tag]
        return None

    @asynccontextmanager
    async def turn(self, secret: str) -> AsyncIterator[str | None]:
        """Wait for the turn to load a secret, and yield its handle if that is known.

        Invented handles wait for each other alone, one at a time. Look first if an earlier turn has made
        the secret known.
        """
        handle = secrets.handle(secret)
        async with self._lock(handle), self._loading if handle in self.handles else self._trying:
            yield handle if handle in self.handles else None

    async def load(self, secret: str) -> Identity | None:
        """Authenticate a well-formed secret; None if it belongs to no key. Raises StoreUnavailable."""
        identity = await self._row(secrets.handle(secret))
        if identity is None:
            return None
        pepper = self._peppers.get(identity.pepper_id)
        if pepper is None:  # its pepper was removed: only the hash can authenticate it
            if not await self._is_proven(identity, secret):
                return None
            identity = evolve(identity, tag=self._peppers.alive[0].tag(secret))
            self._keep(identity)
            return identity
        if not secrets.is_same(identity.tag, pepper.tag(secret)):
            return None
        if identity.tag not in self._proofs:
            if len(self._proofs) >= PROOFS:
                return identity
            self._proofs[identity.tag] = asyncio.create_task(self._prove(identity, secret))
        self._keep(identity)
        return identity

    async def _row(self, handle: str) -> Identity | None:
        """Return the identity of a handle, from Postgres or as it was a moment ago."""
        now_s = self._now_s()
        read_s, known = self._rows.get(handle, (0.0, None))
        if known is not None and now_s - read_s <= ROW_S:
            return known
        identity = await self._store.identity(handle)
        self._rows.pop(handle, None)
        if identity is not None:
            self.handles.add(handle)
            self._rows[handle] = now_s, identity
        if len(self._rows) > ROWS:
            self._rows.popitem(last=False)
        return identity

    async def reload(self, identity: Identity) -> Identity | None:
        """Read an identity again after its versions have moved, once for all its requests."""
        async with self._lock(identity.lookup):
            newer = self._known.get(identity.tag)
            if newer is not None and newer is not identity:
                return newer
            fresh = await self._store.identity(identity.lookup)
            self._known.pop(identity.tag, None)
            self._rows.pop(identity.lookup, None)
            if fresh is None or fresh.hash != identity.hash:
                return None
            fresh = evolve(fresh, tag=identity.tag)
            self._keep(fresh)
            return fresh

    async def close(self) -> None:
        """Stop the proofs that still run."""
        proofs = tuple(self._proofs.values())
        for proof in proofs:
            proof.cancel()
        await asyncio.gather(*proofs, return_exceptions=True)

    def _lock(self, name: str) -> asyncio.Lock:
        """Return the lock of a secret or handle: one look-up of each at a time, the others wait for it."""
        lock = self._turns.get(name)
        if lock is None:
            lock = self._turns[name] = asyncio.Lock()
        return lock

    def _keep(self, identity: Identity) -> None:
        self._known[identity.tag] = identity
        if len(self._known) > CACHED:
            self._known.popitem(last=False)

    async def _is_proven(self, identity: Identity, secret: str) -> bool:
        return await asyncio.to_thread(secrets.is_proven, identity.hash, secret)

    async def _prove(self, identity: Identity, secret: str) -> None:
        """Evict, disable and alarm if tag and hash disagree: the table was written to from outside."""
        is_proven = False
        try:
            async with self._proving:
                is_proven = await self._is_proven(identity, secret)
            if not is_proven:
                self._known.pop(identity.tag, None)
                self._rows.pop(identity.lookup, None)
                log.error("authz.key_forged", lookup=identity.lookup, tenant=str(identity.tenant))
                await self._store.disable(identity.lookup)
        finally:
            del self._proofs[identity.tag]
            if not is_proven:  # a request may have looked it up again since it was evicted
                self._known.pop(identity.tag, None)
