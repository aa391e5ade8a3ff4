"""The names by which clients ask for models: of their tenant, or of all.

A name of its own stands before a model that is called so; the beginning of names and a star stand behind
every model there is, and the longest beginning first. All of a tenant's stand before those of all tenants.
What an alias means is a model, never another alias.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import structlog

from authz.errors import StoreUnavailable
from authz.models import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from authz.backends.inventory import Inventory
    from authz.store import Store

log = structlog.get_logger()

READ_EVERY_S: Final = 1.0

STAR: Final = "*"


class Aliases:
    """What was read of them last; while Postgres is away that stays."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._exact: dict[UUID | None, dict[str, tuple[str, str]]] = {}
        """By tenant, None for all, and canonical name: the name as it was set, and its model."""
        self.is_empty = True
        self._beginnings: dict[UUID | None, list[tuple[str, str]]] = {}
        """Likewise: beginnings of names in lower case, the longest first, and their models."""

    async def run(self) -> None:
        """Read them until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(READ_EVERY_S)

    async def read(self) -> None:
        """Read them once, if Postgres can be asked."""
        try:
            found = await self._store.aliases()
        except StoreUnavailable as error:
            log.debug("authz.aliases_unread", error=str(error))
            return
        exact: dict[UUID | None, dict[str, tuple[str, str]]] = defaultdict(dict)
        beginnings: dict[UUID | None, list[tuple[str, str]]] = defaultdict(list)
        for tenant, pattern, model in found:
            if pattern.endswith(STAR):
                beginnings[tenant].append((pattern.removesuffix(STAR).lower(), model))
            else:
                exact[tenant][canonical(pattern)] = pattern, model
        for names in beginnings.values():
            names.sort(key=lambda each: -len(each[0]))
        self._exact, self._beginnings, self.is_empty = dict(exact), dict(beginnings), not found

    def model(self, tenant: UUID, name: str, *, is_there: bool) -> str | None:
        """Return the model that a name means to a tenant, None if its own; `is_there` if one is called so."""
        asked = name.strip().lower()
        for scope in (tenant, None):
            if (named := self._exact.get(scope, {}).get(canonical(name))) is not None:
                return named[1]
            for beginning, model in () if is_there else self._beginnings.get(scope, ()):
                if asked.startswith(beginning):
                    return model
        return None

    def meant(self, tenant: UUID, name: str | None, inventory: Inventory) -> str | None:
        """Return the model that a name means to a tenant among the models there are, None if its own."""
        if not name or self.is_empty:
            return None
        return self.model(tenant, name, is_there=bool(inventory.backends_of(name)))

    def names(self, tenant: UUID) -> dict[str, str]:
        """Return the names of their own that a tenant may ask for, and their models."""
        return dict((self._exact.get(None, {}) | self._exact.get(tenant, {})).values())

    def all(self) -> Iterator[tuple[str, str]]:
        """Yield what Caddy's index of names must know: every name or pattern of any tenant, and its model."""
        for names in self._exact.values():
            yield from ((name, model) for name, (_, model) in names.items())
        for beginnings in self._beginnings.values():
            yield from ((beginning + STAR, model) for beginning, model in beginnings)
